//! What a client finds in a started server: every message of every mailbox, its flags, and its bytes; and which
//! mailboxes and subscriptions there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::imap::{self, Imap};
use crate::ledger::{Found, Subject};
use crate::load::{ACCOUNTS, mailbox_subject, subscription_subject, text_of};
use crate::message;
use crate::server::{PASSWORD, Server};

/// What a client or `check` finds wrong after a crash, as against trouble of the test itself.
#[derive(Debug)]
pub struct Damage(
    /// What it is.
    pub String,
);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// The answer to a command that every sound server obeys.
fn obeyed(client: &mut Imap, command: &str) -> Result<imap::Answer> {
    let answer = client.command(command)?;
    if !answer.ok() {
        bail!(Damage(format!("{command}: {}", answer.tagged)));
    }
    Ok(answer)
}

/// Looks at the accounts of `postrider dev` until `enough` is satisfied with what is found, since accepted mail may still
/// be on its way from the queue; returns the last look in any case.
pub fn until(server: &Server, patience: Duration, enough: impl Fn(&Found) -> bool) -> Result<Found> {
    let deadline = Instant::now() + patience;
    let mut observer = Observer::new(&ACCOUNTS.map(str::to_owned));
    loop {
        let found = observer.look(server.imap())?.found;
        if enough(&found) || Instant::now() > deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For the ledger.
    pub found: Found,
    /// Account and mailbox → what is in it. Mailboxes that come and go are not among them.
    pub mailboxes: BTreeMap<(String, String), BTreeMap<u64, Message>>,
}

/// A message, at its UID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub id: u64,
    /// Its flags.
    pub flags: BTreeSet<String>,
}

/// Looks, and remembers what UIDs have meant.
#[derive(Debug)]
pub struct Observer {
    accounts: Vec<String>,
    /// Messages whose bytes have been compared, with the mailbox that they were in.
    checked: BTreeSet<(String, String, u64)>,
    /// Account, mailbox and UIDVALIDITY → what its UIDs have meant.
    meanings: BTreeMap<(String, String, u64), Meanings>,
}

/// What UIDs of a mailbox have meant.
#[derive(Debug, Default)]
struct Meanings {
    ids: BTreeMap<u64, u64>,
    /// The greatest UIDNEXT that was told.
    next: u64,
    /// What `next` was when everything was at rest: nothing that was not there then may come below it.
    floor: u64,
}

impl Meanings {
    /// A message is at this UID; says what is wrong with that.
    fn meets(&mut self, uid: u64, id: u64) -> Result<(), String> {
        match self.ids.insert(uid, id) {
            Some(other) if other != id => Err(format!("UID {uid} was message {other} and is {id}")),
            None if uid < self.floor => {
                Err(format!("message {id} came at UID {uid} when UIDNEXT had been {}", self.floor))
            }
            _ => Ok(()),
        }
    }
}

impl Observer {
    /// Who has seen nothing yet.
    pub fn new(accounts: &[String]) -> Self {
        Self { accounts: accounts.to_vec(), checked: BTreeSet::new(), meanings: BTreeMap::new() }
    }

    /// Everything is at rest, and every node shows the same: what comes from now on comes at higher UIDs. Bytes are
    /// compared anew.
    pub fn rest(&mut self) {
        self.checked.clear();
        for meanings in self.meanings.values_mut() {
            meanings.floor = meanings.next;
        }
    }

    /// Reads all accounts. Bytes are compared once per message and mailbox. An error that is [`Damage`] is what no client
    /// should be shown.
    pub fn look(&mut self, address: SocketAddr) -> Result<Seen> {
        let mut seen = Seen::default();
        for account in self.accounts.clone() {
            self.look_at(&account, address, &mut seen)?;
        }
        Ok(seen)
    }

    fn look_at(&mut self, account: &str, address: SocketAddr, seen: &mut Seen) -> Result<()> {
        let mut client = Imap::login(address, account, PASSWORD)?;
        for line in obeyed(&mut client, "LSUB \"\" *")?.text() {
            let Some(name) = line.strip_prefix("* LSUB").and_then(last_word) else { continue };
            if let Some(subject) = subscription_subject(account, &name) {
                seen.found.places.entry(subject).or_default().push((name, BTreeSet::new()));
            }
        }
        let listed = obeyed(&mut client, "LIST \"\" *")?;
        for line in listed.text() {
            let Some(mailbox) = last_word(&line) else { continue };
            if !line.starts_with("* LIST") || line.contains("\\Noselect") || line.contains("\\NonExistent") {
                continue;
            }
            if let Some(subject) = mailbox_subject(account, &mailbox) {
                seen.found.places.entry(subject).or_default().push((mailbox, BTreeSet::new()));
                continue;
            }
            let messages = self.look_into(&mut client, account, &mailbox)?;
            for message in messages.values() {
                let subject = Subject { account: account.to_owned(), id: message.id };
                let place = (mailbox.clone(), message.flags.clone());
                seen.found.places.entry(subject).or_default().push(place);
            }
            seen.mailboxes.insert((account.to_owned(), mailbox), messages);
        }
        Ok(())
    }

    fn look_into(
        &mut self,
        client: &mut Imap,
        account: &str,
        mailbox: &str,
    ) -> Result<BTreeMap<u64, Message>> {
        let damage = |what: String| Damage(format!("{account} {mailbox}: {what}"));
        let examined = obeyed(client, &format!("EXAMINE \"{mailbox}\""))?.text().join("\n");
        let [validity, next] = ["UIDVALIDITY", "UIDNEXT"].map(|name| imap::number_after(&examined, name));
        let key = (account.to_owned(), mailbox.to_owned(), validity.context("EXAMINE without UIDVALIDITY")?);
        let meanings = self.meanings.entry(key).or_default();
        meanings.next = meanings.next.max(next.context("EXAMINE without UIDNEXT")?);
        let mut messages: BTreeMap<u64, Message> = BTreeMap::new();
        let mut unchecked = Vec::new();
        for line in &obeyed(client, "UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER])")?.untagged {
            let text = String::from_utf8_lossy(line);
            if !text.contains(" FETCH (") {
                continue;
            }
            let uid = imap::number_after(&text, "UID").context("a FETCH without UID")?;
            if messages.last_key_value().is_some_and(|(last, _)| *last >= uid) {
                bail!(damage(format!("UID {uid} does not ascend")));
            }
            let Some(id) = message::id_of(&text) else { bail!(damage(format!("no id in {text}"))) };
            meanings.meets(uid, id).map_err(damage)?;
            let flags = flags_of(&text).with_context(|| text.clone().into_owned())?;
            messages.insert(uid, Message { id, flags });
            if self.checked.insert((account.to_owned(), mailbox.to_owned(), id)) {
                unchecked.push((uid, id));
            }
        }
        for (uid, id) in unchecked {
            let answer = obeyed(client, &format!("UID FETCH {uid} (BODY.PEEK[])"))?;
            let Some(line) = answer.untagged.first() else {
                bail!(damage(format!("message {id} went away")));
            };
            if !holds_text_of(line, id) {
                bail!(damage(format!("message {id} has other bytes than were sent")));
            }
        }
        Ok(messages)
    }
}

/// Whether a FETCH response of nothing but a whole body ends in the bytes that were sent: the trace fields that the
/// server adds come before them.
pub fn holds_text_of(response: &[u8], id: u64) -> bool {
    response.strip_suffix(b")").is_some_and(|body| body.ends_with(text_of(id).as_bytes()))
}

fn last_word(line: &str) -> Option<String> {
    line.rsplit(' ').next().map(|name| name.trim_matches('"').to_owned())
}

/// The flags in a FETCH response, without `\Recent`, which is the session's.
pub fn flags_of(text: &str) -> Option<BTreeSet<String>> {
    let rest = &text[text.find("FLAGS (")? + 7..];
    let flags = rest[..rest.find(')')?].split(' ').filter(|flag| !flag.is_empty() && *flag != "\\Recent");
    Some(flags.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_that_is_used_again_is_noticed() {
        let mut meanings = Meanings { next: 8, ..Meanings::default() };
        assert_eq!(meanings.meets(7, 70), Ok(()));
        assert_eq!(meanings.meets(7, 70), Ok(()));
        assert_eq!(meanings.meets(7, 71), Err("UID 7 was message 70 and is 71".to_owned()));
    }

    #[test]
    fn a_uid_that_comes_late_is_noticed() {
        let mut meanings = Meanings { next: 9, ..Meanings::default() };
        assert_eq!(meanings.meets(8, 80), Ok(()));
        assert_eq!(meanings.meets(6, 60), Ok(()), "nothing is at rest yet");
        meanings.floor = meanings.next;
        assert_eq!(meanings.meets(6, 60), Ok(()));
        assert!(meanings.meets(7, 70).is_err());
        assert_eq!(meanings.meets(9, 90), Ok(()));
    }

    #[test]
    fn other_bytes_are_noticed() {
        let text = text_of(7);
        let response = format!("* 1 FETCH (UID 3 BODY[] {{9}}\r\nReceived: x\r\n{text})").into_bytes();
        assert!(holds_text_of(&response, 7));
        let mut flipped = response.clone();
        let middle = flipped.len() - text.len() / 2;
        flipped[middle] ^= 1;
        assert!(!holds_text_of(&flipped, 7));
        assert!(!holds_text_of(&response[..response.len() - 20], 7));
    }
}
