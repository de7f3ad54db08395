//! Which thread a message belongs to.

use mail::mime::Facts;

/// The most message-ids of a message that lead to its thread: its own, the nearest ancestors and the root.
const KEYS_MAX: usize = 10;

/// Keys that lead to the thread of a message, its own first, then those of its ancestors from the nearest to the
/// farthest.
///
/// Two messages are of one thread when they share a message-id and have the same base subject (RFC 8621 §3), so a key
/// is a hash of both: answers to a message that begin another subject are another thread.
pub(crate) fn thread_keys(facts: &Facts) -> Vec<u64> {
    let near = facts.in_reply_to.iter().chain(facts.references.iter().rev());
    let root = facts.references.first();
    let mut keys: Vec<u64> = Vec::with_capacity(KEYS_MAX);
    let own = facts.message_id.iter();
    for id in own.chain(near.take(KEYS_MAX - 2)).chain(root) {
        let key = key(id, &facts.base_subject);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn key(message_id: &str, base_subject: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(message_id.as_bytes());
    hasher.update(&[0]);
    for character in base_subject.chars().flat_map(char::to_lowercase) {
        hasher.update(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_at(8);
    u64::from_le_bytes(first.try_into().expect("split at 8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(id: &str, references: &[&str], subject: &str) -> Facts {
        Facts {
            message_id: Some(id.to_owned()),
            references: references.iter().map(|id| (*id).to_owned()).collect(),
            base_subject: subject.to_owned(),
            ..Facts::default()
        }
    }

    #[test]
    fn messages_share_a_key_by_id_and_subject() {
        let first = thread_keys(&facts("a@x", &[], "Lunch"));
        let answer = thread_keys(&facts("b@x", &["a@x"], "LUNCH"));
        let other = thread_keys(&facts("c@x", &["a@x"], "Dinner"));
        assert!(answer.contains(&first[0]) && answer.len() == 2);
        assert!(!other.contains(&first[0]));
        assert!(thread_keys(&Facts::default()).is_empty());
    }

    #[test]
    fn long_chains_keep_the_nearest_and_the_root() {
        let ids: Vec<String> = (0..500).map(|number| format!("{number}@x")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let keys = thread_keys(&facts("new@x", &ids, "s"));
        assert!(keys.len() <= KEYS_MAX);
        for expected in [key("new@x", "s"), key("499@x", "s"), key("0@x", "s")] {
            assert!(keys.contains(&expected));
        }
    }
}
