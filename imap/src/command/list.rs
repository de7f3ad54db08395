//! LIST (RFC 9051 §6.3.9) with the options of RFC 5258, LIST-STATUS (RFC 5819) and SPECIAL-USE (RFC 6154).

use std::collections::BTreeSet;

use imap_protocol::command::List;
use imap_protocol::mailbox_name::{DELIMITER, MailboxName};
use imap_protocol::response::list::{self, Listed};
use storage::AccountState;

use super::create::attribute;
use super::status;
use crate::reply::{Answer, Reply, storage_failure};
use crate::session::Session;

/// Octets of a pattern. A longer one can match only by its wildcards.
const PATTERN_BYTES_MAX: usize = 2000;
/// Patterns in one command.
const PATTERNS_MAX: usize = 100;
/// Names matched between two pauses that let other sessions go on.
const NAMES_PER_TURN: usize = 100;

pub(crate) async fn run(session: &mut Session, command: List) -> Answer {
    if command.patterns.len() > PATTERNS_MAX {
        return Ok(Reply::no("[LIMIT] Too many patterns"));
    }
    if !command.extended && command.patterns.iter().all(String::is_empty) {
        // RFC 9051 §6.3.9: an empty pattern asks for the separator.
        list::root(session.out(), false);
        return Ok(Reply::ok("List completed"));
    }
    let state = match session.account()?.refresh().await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let patterns: Vec<String> =
        command.patterns.iter().map(|pattern| format!("{}{pattern}", command.reference)).collect();
    if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return Ok(Reply::no("[LIMIT] Pattern is too long"));
    }
    let tree = Tree::of(&state);
    for (turn, name) in candidates(&state, &tree, &command).into_iter().enumerate() {
        if turn % NAMES_PER_TURN == NAMES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        if patterns.iter().any(|pattern| matches(pattern, name)) {
            write(session, &state, &tree, &command, &patterns, name);
            session.throttle().await?;
        }
    }
    Ok(Reply::ok("List completed"))
}

/// The names that a LIST can answer with: mailboxes, and where subscriptions are asked for, names subscribed to whose
/// mailbox is gone.
fn candidates<'a>(state: &'a AccountState, tree: &'a Tree, command: &List) -> BTreeSet<&'a str> {
    let mut names: BTreeSet<&str> = tree.names.iter().map(String::as_str).collect();
    if command.select.subscribed {
        names.extend(state.subscriptions());
        if command.select.recursive_match {
            let superiors: Vec<&str> = state.subscriptions().flat_map(superiors).collect();
            names.extend(superiors);
        }
    }
    names
}

fn write(
    session: &mut Session,
    state: &AccountState,
    tree: &Tree,
    command: &List,
    patterns: &[String],
    name: &str,
) {
    let mailbox = state.mailbox_by_name(name);
    let special_use = mailbox.as_ref().and_then(|mailbox| mailbox.role).and_then(attribute);
    let selected = |name: &str| {
        (!command.select.subscribed || state.is_subscribed(name))
            && (!command.select.special_use || tree.special_uses.contains(name))
    };
    let restricted = command.select.subscribed || command.select.special_use;
    // RFC 5258 §3.5: a superior is told only for inferiors that are not told themselves.
    let mut child_info: Vec<&str> = Vec::new();
    if command.select.recursive_match && restricted {
        let prefix = format!("{name}{DELIMITER}");
        let hidden = |inferior: &str| !patterns.iter().any(|pattern| matches(pattern, inferior));
        let subscribed = command.select.subscribed
            && state
                .subscriptions()
                .any(|other| other.starts_with(&prefix) && selected(other) && hidden(other));
        if subscribed {
            child_info.push("SUBSCRIBED");
        }
        let special = command.select.special_use
            && tree
                .special_uses
                .iter()
                .any(|other| other.starts_with(&prefix) && selected(other) && hidden(other));
        if special {
            child_info.push("SPECIAL-USE");
        }
    }
    if !selected(name) && child_info.is_empty() {
        return;
    }

    let mut attributes: Vec<&str> = Vec::new();
    if mailbox.is_none() {
        attributes.push("\\NonExistent");
    }
    attributes.push(if tree.has_children(name) { "\\HasChildren" } else { "\\HasNoChildren" });
    if (command.select.subscribed || command.returns.subscribed) && state.is_subscribed(name) {
        attributes.push("\\Subscribed");
    }
    // RFC 6154 §2: plain LIST may tell special uses too, and old clients look for them there.
    if let Some(special_use) = special_use {
        attributes.push(special_use);
    }
    let mailbox_name = MailboxName::new(name);
    let encoded = mailbox_name.encode(session.pump.machine().name_form());
    let listed = Listed { lsub: false, attributes: &attributes, name: &encoded, child_info: &child_info };
    list::list(session.out(), &listed);
    if let (Some(items), Some(mailbox)) = (&command.returns.status, mailbox) {
        status::write(session, &mailbox_name, &mailbox, items);
    }
}

/// The names of all mailboxes, for questions about inferiors.
struct Tree {
    names: BTreeSet<String>,
    special_uses: BTreeSet<String>,
}

impl Tree {
    fn of(state: &AccountState) -> Self {
        let mut tree = Self { names: BTreeSet::new(), special_uses: BTreeSet::new() };
        for mailbox in state.mailboxes() {
            if mailbox.role.and_then(attribute).is_some() {
                tree.special_uses.insert(mailbox.name.clone());
            }
            tree.names.insert(mailbox.name);
        }
        tree
    }

    fn has_children(&self, name: &str) -> bool {
        let prefix = format!("{name}{DELIMITER}");
        self.names.range(prefix.clone()..).next().is_some_and(|next| next.starts_with(&prefix))
    }
}

/// `a/b/c` → `a`, `a/b`.
pub(crate) fn superiors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(DELIMITER).map(|(end, _)| &name[..end])
}

/// Whether a name matches a pattern: `*` is anything, `%` anything but the separator (RFC 9051 §6.3.9).
///
/// Simulates all positions in the pattern at once, so that many wildcards cost no more than their number.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.as_bytes();
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    close(pattern, &mut states);
    for &byte in name.as_bytes() {
        let mut next = vec![false; states.len()];
        for (at, &wanted) in pattern.iter().enumerate() {
            if !states[at] {
                continue;
            }
            match wanted {
                b'*' => next[at] = true,
                b'%' if byte != DELIMITER as u8 => next[at] = true,
                _ if wanted == byte => next[at + 1] = true,
                _ => {}
            }
        }
        close(pattern, &mut next);
        states = next;
    }
    states[pattern.len()]
}

/// Wildcards match nothing as well.
fn close(pattern: &[u8], states: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        if states[at] && matches!(wanted, b'*' | b'%') {
            states[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, matching: &[&str], others: &[&str]| {
            for name in matching {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in others {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        };
        check("*", &["", "a", "a/b"], &[]);
        check("%", &["", "a"], &["a/b"]);
        check("a/%", &["a/", "a/b"], &["a", "a/b/c", "b/c"]);
        check("%/b", &["a/b", "/b"], &["b", "a/c/b"]);
        check("*b", &["b", "ab", "a/b"], &["ba"]);
        check("%*", &["a/b/c", ""], &[]);
        check("INBOX", &["INBOX"], &["inbox", "INBOX/a"]);
        check("a*c%e", &["ace", "abbcdde", "a/c/cxe"], &["ac/e", "ace/"]);
        check("ü%", &["ü", "üb"], &["u"]);
        check("%%%%%%%%%%%%%%%%%%%%x", &["aaaax"], &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]);
    }

    #[test]
    fn names_above() {
        assert_eq!(superiors("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(superiors("a").count(), 0);
    }
}
