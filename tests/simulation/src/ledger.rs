//! What clients were told, and what has to be there because of it.

use std::collections::{BTreeMap, BTreeSet};

/// Where a message is in an account: in which mailboxes, under which UID if that was told, with which flags.
pub type Places = BTreeMap<String, (Option<u32>, BTreeSet<String>)>;

/// What is found: by account and mailbox, in the order of the mailbox.
pub type Found = BTreeMap<String, BTreeMap<String, Vec<Row>>>;

/// A message as it is found in a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its UID.
    pub uid: u32,
    /// When it changed last.
    pub modseq: u64,
    /// Which one it is.
    pub message: String,
    /// Its flags.
    pub flags: BTreeSet<String>,
}

/// What clients were told.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    /// By account and message, where it may be: one possibility, or several when what was asked last is undecided.
    fates: BTreeMap<(String, String), Vec<Places>>,
    /// Which message has a UID.
    given: BTreeMap<(String, String, u32), String>,
    /// The greatest UID that was told of a mailbox.
    highest: BTreeMap<(String, String), u32>,
    /// What was found wrong while it happened.
    violations: Vec<String>,
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// Steps of which nobody was told whether they were done.
    pub undecided: u64,
    /// Steps that were refused, and so are not done.
    pub refused: u64,
}

impl Ledger {
    /// Something is wrong.
    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A message is here, and nowhere else in this account.
    pub fn decided(&mut self, account: &str, message: &str, places: Places) {
        self.fates.insert((account.to_owned(), message.to_owned()), vec![places]);
    }

    /// What was asked was refused: the message is where it was before.
    pub fn refused(&mut self, account: &str, message: &str, before: Places) {
        self.refused += 1;
        self.decided(account, message, before);
    }

    /// Nobody was told which of these it is.
    pub fn undecided(&mut self, account: &str, message: &str, possible: Vec<Places>) {
        self.undecided += 1;
        self.fates.insert((account.to_owned(), message.to_owned()), possible);
    }

    /// The greatest UID of a mailbox that anybody was told: what is asked for later is above it, and whoever looks later
    /// sees it.
    pub fn highest(&self, account: &str, mailbox: &str) -> u32 {
        self.highest.get(&(account.to_owned(), mailbox.to_owned())).copied().unwrap_or(0)
    }

    /// A message was given a UID, by a step that was asked for when the greatest one was `asked`.
    pub fn give(&mut self, account: &str, mailbox: &str, uid: u32, message: &str, asked: u32) {
        let place = (account.to_owned(), mailbox.to_owned());
        if uid <= asked {
            self.violation(format!("{account} {mailbox}: UID {uid} was given after {asked}"));
        }
        let highest = self.highest.entry(place).or_default();
        *highest = uid.max(*highest);
        let given = self.given.insert((account.to_owned(), mailbox.to_owned(), uid), message.to_owned());
        if let Some(other) = given.filter(|other| other != message) {
            self.violation(format!("{account} {mailbox}: UID {uid} was given to {other} and to {message}"));
        }
    }

    /// Compares with what is found; gives everything that is wrong.
    pub fn judge(&self, found: &Found) -> Vec<String> {
        let mut wrong = self.violations.clone();
        let mut places: BTreeMap<(String, String), Places> = BTreeMap::new();
        for (account, mailboxes) in found {
            for (mailbox, rows) in mailboxes {
                for pair in rows.windows(2) {
                    if pair[0].uid >= pair[1].uid {
                        wrong
                            .push(format!("{account} {mailbox}: UID {} before {}", pair[0].uid, pair[1].uid));
                    }
                }
                for row in rows {
                    let Row { uid, message, flags, .. } = row;
                    let given = self.given.get(&(account.clone(), mailbox.clone(), *uid));
                    match given {
                        Some(other) if other != message => {
                            wrong.push(format!(
                                "{account} {mailbox}: UID {uid} was given to {other} and is {message}"
                            ));
                        }
                        _ => {}
                    }
                    let at = places.entry((account.clone(), message.clone())).or_default();
                    if at.insert(mailbox.clone(), (Some(*uid), flags.clone())).is_some() {
                        wrong.push(format!("doubled: {message} is twice in {account} {mailbox}"));
                    }
                }
            }
        }
        for (key, possible) in &self.fates {
            let is = places.remove(key).unwrap_or_default();
            if !possible.iter().any(|possible| is_at(possible, &is)) {
                let (account, message) = key;
                let kind = if is.is_empty() { "lost" } else { "wrong" };
                wrong.push(format!("{kind}: {message} of {account} is at {is:?}, may be at {possible:?}"));
            }
        }
        for ((account, message), is) in places {
            wrong.push(format!("doubled: {message} of {account} is at {is:?}, nobody has put it there"));
        }
        wrong
    }
}

fn is_at(possible: &Places, found: &Places) -> bool {
    possible.len() == found.len()
        && possible.iter().all(|(mailbox, (uid, flags))| {
            found.get(mailbox).is_some_and(|(at, shown)| flags == shown && (uid.is_none() || uid == at))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uid: Option<u32>) -> Places {
        Places::from([("INBOX".to_owned(), (uid, BTreeSet::new()))])
    }

    fn row(uid: u32, message: &str) -> Row {
        Row { uid, modseq: u64::from(uid), message: message.to_owned(), flags: BTreeSet::new() }
    }

    fn found(rows: &[Row]) -> Found {
        BTreeMap::from([("ann".to_owned(), BTreeMap::from([("INBOX".to_owned(), rows.to_vec())]))])
    }

    #[test]
    fn what_was_acknowledged_is_there_once() {
        let mut ledger = Ledger::default();
        ledger.decided("ann", "one", at(None));
        ledger.undecided("ann", "two", vec![Places::new(), at(None)]);
        ledger.decided("ann", "three", Places::new());
        let check = |rows: &[Row], expected: &[&str]| {
            let wrong = ledger.judge(&found(rows));
            assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
            assert!(
                wrong.iter().zip(expected).all(|(wrong, expected)| wrong.contains(expected)),
                "{wrong:?}"
            );
        };
        check(&[row(1, "one")], &[]);
        check(&[row(1, "two"), row(2, "one")], &[]);
        check(&[], &["lost: one"]);
        check(&[row(1, "one"), row(2, "one")], &["doubled: one is twice"]);
        check(&[row(1, "one"), row(2, "two"), row(3, "two")], &["doubled: two is twice"]);
        check(&[row(1, "one"), row(2, "three")], &["wrong: three"]);
        check(&[row(1, "one"), row(2, "four")], &["nobody has put it there"]);
        check(&[row(2, "one"), row(2, "two")], &["UID 2 before 2"]);
    }

    #[test]
    fn a_uid_means_one_message_and_grows() {
        let mut ledger = Ledger::default();
        ledger.decided("ann", "one", at(Some(1)));
        ledger.give("ann", "INBOX", 1, "one", 0);
        assert_eq!(ledger.highest("ann", "INBOX"), 1);
        assert_eq!(ledger.judge(&found(&[row(1, "one")])), Vec::<String>::new());
        assert_eq!(ledger.judge(&found(&[row(2, "one")])).len(), 1);
        ledger.give("ann", "INBOX", 1, "two", 1);
        // It did not grow, was given twice, and is not what it was given to last.
        assert_eq!(ledger.judge(&found(&[row(1, "one")])).len(), 3);
    }
}
