//! What a client finds in a started server: every message of every mailbox, its flags, and its bytes; and which
//! mailboxes and subscriptions there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::imap::{self, Imap};
use crate::ledger::{Found, Subject};
use crate::message;
use crate::server::{PASSWORD, Server};
use anyhow::{Context, Result, bail};

use crate::load::{ACCOUNTS, mailbox_subject, subscription_subject, text_of};

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

/// Looks until `enough` is satisfied with what is found, since accepted mail may still be on its way from the queue;
/// returns the last look in any case.
pub fn until(server: &Server, patience: Duration, enough: impl Fn(&Found) -> bool) -> Result<Found> {
    let deadline = Instant::now() + patience;
    let mut checked = BTreeSet::new();
    loop {
        let found = look(server, &mut checked)?;
        if enough(&found) || Instant::now() > deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads both accounts. Bytes are compared once per message and place; `checked` remembers which.
fn look(server: &Server, checked: &mut BTreeSet<(String, String, u64)>) -> Result<Found> {
    let mut found = Found::default();
    for account in ACCOUNTS {
        let mut client = Imap::login(server.imap(), account, PASSWORD)?;
        for line in obeyed(&mut client, "LSUB \"\" *")?.text() {
            let Some(name) = line.strip_prefix("* LSUB").and_then(last_word) else { continue };
            if let Some(subject) = subscription_subject(account, &name) {
                found.places.entry(subject).or_default().push((name, BTreeSet::new()));
            }
        }
        let listed = obeyed(&mut client, "LIST \"\" *")?;
        for line in listed.text() {
            let Some(mailbox) = last_word(&line) else { continue };
            if !line.starts_with("* LIST") || line.contains("\\Noselect") || line.contains("\\NonExistent") {
                continue;
            }
            if let Some(subject) = mailbox_subject(account, &mailbox) {
                found.places.entry(subject).or_default().push((mailbox, BTreeSet::new()));
                continue;
            }
            obeyed(&mut client, &format!("EXAMINE \"{mailbox}\""))?;
            let answer = obeyed(&mut client, "UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER])")?;
            let mut uids = BTreeSet::new();
            let mut unchecked = BTreeMap::new();
            for line in &answer.untagged {
                let text = String::from_utf8_lossy(line);
                if !text.contains(" FETCH (") {
                    continue;
                }
                let uid = imap::number_after(&text, "UID").context("a FETCH without UID")?;
                if uids.last().is_some_and(|last| *last >= uid) {
                    bail!(Damage(format!("{account} {mailbox}: UID {uid} does not ascend")));
                }
                uids.insert(uid);
                let Some(id) = message::id_of(&text) else {
                    bail!(Damage(format!("{account} {mailbox}: a message without id: {text}")));
                };
                let flags = flags_of(&text).with_context(|| text.clone().into_owned())?;
                let subject = Subject { account: account.to_owned(), id };
                found.places.entry(subject).or_default().push((mailbox.clone(), flags));
                if checked.insert((account.to_owned(), mailbox.clone(), id)) {
                    unchecked.insert(uid, id);
                }
            }
            for (uid, id) in unchecked {
                let answer = obeyed(&mut client, &format!("UID FETCH {uid} (BODY.PEEK[])"))?;
                let Some(line) = answer.untagged.first() else {
                    bail!(Damage(format!("{account} {mailbox}: message {id} went away")));
                };
                let text = text_of(id);
                // The trace fields that the server adds come before the original bytes.
                if !line.strip_suffix(b")").is_some_and(|body| body.ends_with(text.as_bytes())) {
                    bail!(Damage(format!(
                        "{account} {mailbox}: message {id} has other bytes than were sent"
                    )));
                }
            }
        }
    }
    Ok(found)
}

fn last_word(line: &str) -> Option<String> {
    line.rsplit(' ').next().map(|name| name.trim_matches('"').to_owned())
}

fn flags_of(text: &str) -> Option<BTreeSet<String>> {
    let rest = &text[text.find("FLAGS (")? + 7..];
    let flags = rest[..rest.find(')')?].split(' ').filter(|flag| !flag.is_empty() && *flag != "\\Recent");
    Some(flags.map(str::to_owned).collect())
}
