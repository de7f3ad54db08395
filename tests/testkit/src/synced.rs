//! Clients that keep a copy of a mailbox and never look at what they have again: whatever a server shows late, or forgets
//! to say, stays missing in their copy.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::imap::{self, Imap};
use crate::message;
use crate::observe::{Message, flags_of};

/// Asks only for what is above the greatest UID that it has: right while UIDs ascend (RFC 9051 §2.3.1.1).
#[derive(Clone, Debug)]
pub struct ByUid {
    /// Whose mailbox it is.
    pub account: String,
    /// Its name.
    pub mailbox: String,
    validity: Option<u64>,
    last: u64,
    known: BTreeMap<u64, u64>,
}

/// Asks for what has changed since the state that it has (RFC 7162 §3.2.5).
#[derive(Clone, Debug)]
pub struct ByChanges {
    /// Whose mailbox it is.
    pub account: String,
    /// Its name.
    pub mailbox: String,
    /// UIDVALIDITY and HIGHESTMODSEQ.
    state: Option<(u64, u64)>,
    known: BTreeMap<u64, BTreeSet<String>>,
}

impl ByUid {
    /// Of this mailbox, with nothing yet.
    pub fn new(account: &str, mailbox: &str) -> Self {
        let (account, mailbox) = (account.to_owned(), mailbox.to_owned());
        Self { account, mailbox, validity: None, last: 0, known: BTreeMap::new() }
    }

    /// Fetches what is new.
    pub fn sync(&mut self, client: &mut Imap) -> Result<()> {
        let examined = client.ok(&format!("EXAMINE {}", self.mailbox))?.text().join("\n");
        let validity = imap::number_after(&examined, "UIDVALIDITY");
        if self.validity != validity {
            (self.validity, self.last) = (validity, 0);
            self.known.clear();
        }
        let command = format!("UID FETCH {}:* (UID BODY.PEEK[HEADER.FIELDS (X-Test-Id)])", self.last + 1);
        for text in client.ok(&command)?.text() {
            let Some(uid) = fetched(&text) else { continue };
            // `n:*` has the last message in it even where that lies below n.
            if uid > self.last {
                self.known.insert(uid, message::id_of(&text).with_context(|| text.clone())?);
            }
        }
        self.last = self.known.last_key_value().map_or(0, |(uid, _)| *uid).max(self.last);
        Ok(())
    }

    /// What a fresh look finds and this client has not, or has as another message. It may have what is gone.
    pub fn misses(&self, fresh: &BTreeMap<u64, Message>) -> Option<String> {
        let (uid, message) = fresh.iter().find(|(uid, message)| self.known.get(uid) != Some(&message.id))?;
        let (account, mailbox, known) = (&self.account, &self.mailbox, self.known.get(uid));
        Some(format!(
            "{account} {mailbox}: UID {uid} is message {}, a client by UID has {known:?}",
            message.id
        ))
    }
}

impl ByChanges {
    /// Of this mailbox, with nothing yet.
    pub fn new(account: &str, mailbox: &str) -> Self {
        let (account, mailbox) = (account.to_owned(), mailbox.to_owned());
        Self { account, mailbox, state: None, known: BTreeMap::new() }
    }

    /// Fetches what has changed.
    pub fn sync(&mut self, client: &mut Imap) -> Result<()> {
        client.ok("ENABLE QRESYNC")?;
        let mailbox = &self.mailbox;
        let command = match self.state {
            Some((validity, modseq)) => format!("EXAMINE {mailbox} (QRESYNC ({validity} {modseq}))"),
            None => format!("EXAMINE {mailbox}"),
        };
        let examined = client.ok(&command)?.text();
        let all = examined.join("\n");
        let number = |name: &str| imap::number_after(&all, name).with_context(|| format!("no {name}: {all}"));
        let state = (number("UIDVALIDITY")?, number("HIGHESTMODSEQ")?);
        if self.state.is_some_and(|(validity, _)| validity == state.0) {
            self.apply(&examined)?;
        } else {
            self.known.clear();
            let fetched = client.ok("UID FETCH 1:* (UID FLAGS)")?.text();
            self.apply(&fetched)?;
        }
        self.state = Some(state);
        Ok(())
    }

    fn apply(&mut self, responses: &[String]) -> Result<()> {
        for text in responses {
            if let Some(set) = text.strip_prefix("* VANISHED ") {
                for range in set.trim_start_matches("(EARLIER) ").split(',') {
                    let (first, last) = range.split_once(':').unwrap_or((range, range));
                    let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
                    self.known.retain(|uid, _| !(first.min(last)..=first.max(last)).contains(uid));
                }
            } else if let Some(uid) = fetched(text) {
                self.known.insert(uid, flags_of(text).with_context(|| text.clone())?);
            }
        }
        Ok(())
    }

    /// Where this client's copy is not what a fresh look finds.
    pub fn differs(&self, fresh: &BTreeMap<u64, Message>) -> Option<String> {
        let uids: BTreeSet<u64> = self.known.keys().chain(fresh.keys()).copied().collect();
        uids.into_iter().find_map(|uid| {
            let (known, found) = (self.known.get(&uid), fresh.get(&uid).map(|message| &message.flags));
            let (account, mailbox, state) = (&self.account, &self.mailbox, self.state);
            (known != found).then(|| {
                format!("{account} {mailbox}: UID {uid} has {found:?}, a client by changes at {state:?} has {known:?}")
            })
        })
    }
}

/// The UID in a FETCH response.
fn fetched(text: &str) -> Option<u64> {
    if text.starts_with("* ") && text.contains(" FETCH (") { imap::number_after(text, "UID") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(list: &[(u64, u64, &str)]) -> BTreeMap<u64, Message> {
        let message = |id, flag: &str| Message { id, flags: [flag.to_owned()].into() };
        list.iter().map(|(uid, id, flag)| (*uid, message(*id, flag))).collect()
    }

    #[test]
    fn a_hole_in_a_copy_by_uid_is_noticed() {
        let mut client = ByUid::new("alice", "INBOX");
        client.known = [(1, 10), (2, 20), (4, 40)].into();
        assert_eq!(client.misses(&fresh(&[(1, 10, "a"), (4, 40, "b")])), None, "what is gone may be kept");
        assert!(client.misses(&fresh(&[(1, 10, "a"), (3, 30, "b")])).is_some());
        assert!(client.misses(&fresh(&[(1, 11, "a")])).is_some());
    }

    #[test]
    fn what_was_not_said_of_changes_is_noticed() {
        let mut client = ByChanges::new("alice", "INBOX");
        let said =
            ["* 1 FETCH (UID 1 FLAGS (a))", "* 2 FETCH (UID 2 FLAGS (b))", "* 3 FETCH (UID 5 FLAGS (c))"];
        client.apply(&said.map(str::to_owned)).expect("it is understood");
        let all = [(1, 10, "a"), (2, 20, "b"), (5, 50, "c")];
        assert_eq!(client.differs(&fresh(&all)), None);
        assert!(client.differs(&fresh(&all[..2])).is_some(), "an expunge was not said");
        assert!(client.differs(&fresh(&[all[0], all[1], (5, 50, "x")])).is_some(), "a flag was not said");
        assert!(
            client.differs(&fresh(&[all[0], all[1], all[2], (6, 60, "d")])).is_some(),
            "a message is missing"
        );
        client.apply(&["* VANISHED (EARLIER) 2:4,5".to_owned()]).expect("it is understood");
        assert_eq!(client.differs(&fresh(&all[..1])), None);
    }
}
