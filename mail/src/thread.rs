//! What threads are made of: message-ids and base subjects (RFC 5256, RFC 8621 §3).

/// Longest subject looked at, in octets; a base subject is a key in an index and not a text to read.
const SUBJECT_BYTES_MAX: usize = 1024;

/// A subject without the marks of replies and forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseSubject {
    /// What is left.
    pub text: String,
    /// Whether something was taken away that says reply or forward.
    pub is_reply_or_forward: bool,
}

/// The base subject (RFC 5256 §2.1) of a decoded subject.
pub fn base_subject(subject: &str) -> BaseSubject {
    let mut collapsed = String::new();
    for word in subject.split_whitespace() {
        if collapsed.len() + word.len() >= SUBJECT_BYTES_MAX {
            let room = SUBJECT_BYTES_MAX.saturating_sub(collapsed.len() + 1);
            let end = (0..=room.min(word.len())).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
            push_word(&mut collapsed, &word[..end]);
            break;
        }
        push_word(&mut collapsed, word);
    }
    let mut text = &collapsed[..];
    let mut is_reply_or_forward = false;
    loop {
        while let Some(rest) = strip_trailer(text) {
            is_reply_or_forward |= rest.len() < text.trim_end().len();
            text = rest;
        }
        loop {
            if let Some(rest) = strip_leader(text) {
                is_reply_or_forward = true;
                text = rest;
            } else if let Some(rest) = strip_blob(text).filter(|rest| !rest.is_empty()) {
                text = rest;
            } else {
                break;
            }
        }
        let forwarded = strip_prefix_ignoring_case(text, "[fwd:").and_then(|rest| rest.strip_suffix(']'));
        let Some(inner) = forwarded else { break };
        is_reply_or_forward = true;
        text = inner.trim_start();
    }
    BaseSubject { text: text.to_owned(), is_reply_or_forward }
}

fn push_word(text: &mut String, word: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(word);
}

/// subj-trailer: `(fwd)` or white space.
fn strip_trailer(text: &str) -> Option<&str> {
    let trimmed = text.trim_end();
    let start = trimmed.len().checked_sub(5).filter(|start| trimmed.is_char_boundary(*start));
    match start {
        Some(start) if trimmed[start..].eq_ignore_ascii_case("(fwd)") => Some(&trimmed[..start]),
        _ => (trimmed.len() < text.len()).then_some(trimmed),
    }
}

/// subj-leader: blobs, then `re:`, `fw:` or `fwd:` with a blob before the colon at most.
fn strip_leader(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    while let Some(after) = strip_blob(rest) {
        rest = after;
    }
    let word = ["re", "fwd", "fw"].into_iter().find_map(|word| strip_prefix_ignoring_case(rest, word))?;
    let word = word.trim_start();
    let word = strip_blob(word).unwrap_or(word);
    word.strip_prefix(':').map(str::trim_start)
}

/// subj-blob: `[…]` without brackets inside, and the white space after it.
fn strip_blob(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// The message-ids in a Message-ID, In-Reply-To or References field, without their angle brackets. White space within
/// one is dropped: some senders fold there.
pub fn message_ids(value: &[u8], bytes_max: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while let Some(open) = memchr::memchr(b'<', rest) {
        rest = &rest[open + 1..];
        let Some(close) = memchr::memchr2(b'<', b'>', rest) else { break };
        if rest[close] == b'<' {
            rest = &rest[close..];
            continue;
        }
        let id: Vec<u8> = rest[..close].iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        rest = &rest[close + 1..];
        if !id.is_empty() && id.len() <= bytes_max {
            ids.push(String::from_utf8_lossy(&id).into_owned());
        }
    }
    ids
}

/// The message-id of a Message-ID field; one without angle brackets is taken as it stands.
pub fn message_id(value: &[u8], bytes_max: usize) -> Option<String> {
    let bare = || {
        let text = value.trim_ascii();
        let usable = !text.is_empty()
            && text.len() <= bytes_max
            && !text.iter().any(|b| b.is_ascii_whitespace() || *b == b'<');
        usable.then(|| String::from_utf8_lossy(text).into_owned())
    };
    message_ids(value, bytes_max).into_iter().next().or_else(bare)
}

/// At most `max` of a list of references: the first, which is the root of the thread, and the last ones, which are the
/// nearest.
pub(crate) fn bounded_references(mut ids: Vec<String>, max: usize) -> Vec<String> {
    if ids.len() > max {
        let excess = ids.len() - max;
        ids.drain(1.min(max)..1.min(max) + excess);
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_subjects_rfc5256_2_1() {
        let check = |subject: &str, expected: &str, marked: bool| {
            let base = base_subject(subject);
            assert_eq!((base.text.as_str(), base.is_reply_or_forward), (expected, marked), "{subject}");
        };
        check("hello", "hello", false);
        check("Re: hello", "hello", true);
        check("RE:  re:\tFwd: hello (fwd) (FWD) ", "hello", true);
        check("[list] hello", "hello", false);
        check("[list] Re: [other] hello", "hello", true);
        check("Re[4]: hello", "hello", true);
        check("re [4] : hello", "hello", true);
        check("[only]", "[only]", false);
        check("Re: [only]", "[only]", true);
        check("[Fwd: Re: hello]", "hello", true);
        check("[Fwd: [list] hello (fwd)] (fwd)", "hello", true);
        check("Regarding: x", "Regarding: x", false);
        check("fw: x", "x", true);
        check("", "", false);
        check("Re:", "", true);
        check("(fwd)", "", true);
        check("Re: ünï [x", "ünï [x", true);
    }

    #[test]
    fn long_subjects_are_bounded() {
        assert!(base_subject(&"ä".repeat(5000)).text.len() <= SUBJECT_BYTES_MAX);
        assert!(base_subject(&"[a]".repeat(20_000)).text.len() <= SUBJECT_BYTES_MAX);
        assert!(base_subject(&"re: ".repeat(20_000)).text.is_empty());
    }

    #[test]
    fn message_ids_rfc5322_3_6_4() {
        let check = |value: &str, expected: &[&str]| {
            assert_eq!(message_ids(value.as_bytes(), 20), expected, "{value}");
        };
        check("<a@b>", &["a@b"]);
        check("<a@b> <c@d>\t<e@f>", &["a@b", "c@d", "e@f"]);
        check("Your message of Monday <a@b> \"x\"", &["a@b"]);
        check("<a\t@b> <> <<c@d> <e@f", &["a@b", "c@d"]);
        check("<123456789012345678901> <a@b>", &["a@b"]);
        assert_eq!(message_id(b" a@b ", 20).as_deref(), Some("a@b"));
        assert_eq!(message_id(b"a b", 20), None);
        assert_eq!(message_id(b"", 20), None);
    }

    #[test]
    fn long_references_keep_root_and_parents() {
        let ids: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(bounded_references(ids.clone(), 4), ["0", "7", "8", "9"]);
        assert_eq!(bounded_references(ids.clone(), 10), ids);
        assert_eq!(bounded_references(ids.clone(), 1), ["0"]);
        assert!(bounded_references(ids, 0).is_empty());
    }
}
