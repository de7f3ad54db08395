//! Clients that hand messages in, and clients that store, move and expunge at whichever node they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mail::uid::UidSet;
use rand::Rng;
use rand::rngs::StdRng;
use simulation::ledger::Places;

use crate::clients::{HandedIn, Imap, Lost, Reply, hand_in, text};
use crate::world::{NODES, World};

/// Accounts that mail comes to.
pub(crate) const ACCOUNTS: [&str; 3] = ["ann", "bea", "cat"];
/// Whose mail it is; notifications come to it.
pub(crate) const SENDER: &str = "sender";
/// An alias that leads to nobody.
pub(crate) const NOWHERE: &str = "nowhere";
/// Mailboxes that clients work in.
pub(crate) const MAILBOXES: [&str; 3] = ["INBOX", "Archive", "Trash"];
const FLAGS: [&str; 3] = ["\\Flagged", "\\Answered", "$Work"];

/// For how long clients work, of the simulation's time.
pub(crate) const LOAD: Duration = Duration::from_secs(25);

fn is_over() -> bool {
    turmoil::sim_elapsed().unwrap_or_default() >= LOAD
}

/// A message in INBOX, as it is delivered.
pub(crate) fn delivered() -> Places {
    Places::from([("INBOX".to_owned(), (None, BTreeSet::new()))])
}

/// The name of the notification about a message.
pub(crate) fn notice(message: &str) -> String {
    format!("notice of {}", message.replace(' ', "."))
}

/// Hands messages in, one after the other, to any node.
pub(crate) async fn send(world: Arc<World>, number: u64) {
    let mut dice = world.dice_for(100 + number);
    let mut count = 0;
    while !is_over() {
        tokio::time::sleep(Duration::from_millis(dice.random_range(20..900))).await;
        count += 1;
        let message = format!("mail {number}.{count}");
        let mut to: Vec<String> = ACCOUNTS.map(str::to_owned).to_vec();
        to.retain(|_| dice.random_bool(0.5));
        if to.is_empty() || dice.random_bool(0.15) {
            to.push(NOWHERE.to_owned());
        }
        let node = dice.random_range(0..NODES);
        let from = format!("{SENDER}@example.test");
        let handed_in = hand_in(node, &from, &to, &message).await;
        world.note(format_args!("{message} to {to:?} at {node}: {handed_in:?}"));
        let mut ledger = world.ledger.lock();
        match handed_in {
            HandedIn::Yes(recipients) => {
                ledger.acknowledged += 1;
                for recipient in recipients {
                    if recipient == NOWHERE {
                        ledger.decided(SENDER, &notice(&message), delivered());
                    } else {
                        ledger.decided(&recipient, &message, delivered());
                        world.delivered.lock().push((recipient, message.clone()));
                    }
                }
            }
            HandedIn::Unknown(recipients) => {
                let possible = vec![Places::new(), delivered()];
                for recipient in recipients {
                    if recipient == NOWHERE {
                        ledger.undecided(SENDER, &notice(&message), possible.clone());
                    } else {
                        ledger.undecided(&recipient, &message, possible.clone());
                    }
                }
            }
            HandedIn::No => {}
        }
    }
}

/// Works on messages of an account that it has put there itself, and on some that were delivered.
pub(crate) struct Worker {
    world: Arc<World>,
    account: &'static str,
    number: u64,
    dice: StdRng,
    imap: Option<Imap>,
    /// Its messages whose fate is known.
    mine: BTreeMap<String, Places>,
    count: u64,
}

impl Worker {
    pub(crate) fn new(world: Arc<World>, number: u64) -> Self {
        let dice = world.dice_for(200 + number);
        let account = ACCOUNTS[number as usize % ACCOUNTS.len()];
        Self { world, account, number, dice, imap: None, mine: BTreeMap::new(), count: 0 }
    }

    pub(crate) async fn run(mut self) {
        while !is_over() {
            let pause = self.dice.random_range(10..400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // The connection that there is, or one to whichever node.
            let mut imap = match self.imap.take() {
                Some(imap) if self.dice.random_bool(0.7) => imap,
                _ => match Imap::login(self.dice.random_range(0..NODES), self.account).await {
                    Ok(imap) => imap,
                    Err(Lost) => continue,
                },
            };
            let choice = self.dice.random_range(0..100);
            let kept = if choice < 10 {
                self.adopt(&mut imap).await
            } else if choice < 40 || self.mine.is_empty() {
                self.append(&mut imap).await
            } else {
                self.change(&mut imap, choice).await
            };
            if kept.is_ok() {
                self.imap = Some(imap);
            }
        }
    }

    fn some_mailbox(&mut self) -> String {
        MAILBOXES[self.dice.random_range(0..MAILBOXES.len())].to_owned()
    }

    /// Takes over a message that was delivered, if it is there by now.
    async fn adopt(&mut self, imap: &mut Imap) -> Result<(), Lost> {
        let next = {
            let mut delivered = self.world.delivered.lock();
            let next = delivered.iter().position(|(account, _)| account == self.account);
            next.map(|next| delivered.remove(next))
        };
        let Some((account, message)) = next else { return Ok(()) };
        let found = self.find(imap, &message).await;
        match &found {
            Ok(Some(uid)) => {
                let places = Places::from([("INBOX".to_owned(), (Some(*uid), BTreeSet::new()))]);
                self.world.count("adopted");
                self.world.ledger.lock().decided(&account, &message, places.clone());
                self.mine.insert(message, places);
            }
            _ => self.world.delivered.lock().push((account, message)),
        }
        found.map(drop)
    }

    /// The UID of a message in INBOX.
    async fn find(&mut self, imap: &mut Imap, message: &str) -> Result<Option<u32>, Lost> {
        self.select(imap, "INBOX").await?;
        let id = format!("<{}@example.net>", message.replace(' ', "."));
        let reply = imap.ok(&format!("UID SEARCH HEADER Message-ID {id}")).await?;
        self.world.note(format_args!("{message} is looked for: {reply:?}"));
        let found = reply.untagged.iter().find_map(|line| line.strip_prefix("* SEARCH "));
        let found: Vec<u32> =
            found.unwrap_or_default().split(' ').filter_map(|uid| uid.parse().ok()).collect();
        if found.len() > 1 {
            self.world
                .ledger
                .lock()
                .violation(format!("doubled: {message} of {} is at {found:?}", self.account));
        }
        Ok(found.first().copied())
    }

    async fn append(&mut self, imap: &mut Imap) -> Result<(), Lost> {
        self.count += 1;
        let message = format!("note {}.{}", self.number, self.count);
        let mailbox = self.some_mailbox();
        let asked = self.world.ledger.lock().highest(self.account, &mailbox);
        let reply = imap.append(&mailbox, &text(&message)).await;
        self.world.note(format_args!("{message} to {mailbox}: {reply:?}"));
        let at = |uid| Places::from([(mailbox.clone(), (uid, BTreeSet::new()))]);
        let mut ledger = self.world.ledger.lock();
        let uid = reply
            .as_ref()
            .ok()
            .filter(|reply| reply.is_ok())
            .map(|reply| told_uid(&reply.tagged, "APPENDUID"));
        match uid {
            Some(Some(uid)) => {
                ledger.acknowledged += 1;
                ledger.give(self.account, &mailbox, uid, &message, asked);
                ledger.decided(self.account, &message, at(Some(uid)));
                self.mine.insert(message, at(Some(uid)));
            }
            Some(None) => ledger.violation(format!("{message}: no APPENDUID in {reply:?}")),
            // A session that cannot tell ends without an answer, so this one says that it was not done.
            None if reply.is_ok() => ledger.refused(self.account, &message, Places::new()),
            None => ledger.undecided(self.account, &message, vec![Places::new(), at(None)]),
        }
        reply.map(drop)
    }

    /// A flag, a copy, a move or an expunge of one of its messages.
    async fn change(&mut self, imap: &mut Imap, choice: u32) -> Result<(), Lost> {
        let index = self.dice.random_range(0..self.mine.len());
        let (message, before) =
            self.mine.iter().nth(index).map(|(a, b)| (a.clone(), b.clone())).ok_or(Lost)?;
        let at = self.dice.random_range(0..before.len());
        let (mailbox, (uid, flags)) =
            before.iter().nth(at).map(|(a, b)| (a.clone(), b.clone())).ok_or(Lost)?;
        let Some(uid) = uid else {
            self.mine.remove(&message);
            return Ok(());
        };
        self.select(imap, &mailbox).await?;
        let other = MAILBOXES.into_iter().find(|other| !before.contains_key(*other));
        let mut after = before.clone();
        let (command, put_into) = match (choice, other) {
            (60..70, Some(other)) => {
                after.insert(other.to_owned(), (None, flags));
                (format!("UID COPY {uid} {other}"), Some(other))
            }
            (70..85, Some(other)) => {
                after.remove(&mailbox);
                after.insert(other.to_owned(), (None, flags));
                (format!("UID MOVE {uid} {other}"), Some(other))
            }
            (85.., _) => {
                // Two steps; the first alone is another of what may be.
                self.store(imap, &message, &before, &mailbox, uid, "\\Deleted").await?;
                after.remove(&mailbox);
                (format!("UID EXPUNGE {uid}"), None)
            }
            _ => {
                let flag = FLAGS[self.dice.random_range(0..FLAGS.len())];
                return self.store(imap, &message, &before, &mailbox, uid, flag).await;
            }
        };
        let Some(before) = self.mine.remove(&message) else { return Ok(()) };
        if put_into.is_none() {
            // As it is after the first step, without the mailbox.
            after = before.clone();
            after.remove(&mailbox);
        }
        let asked = put_into.map(|other| self.world.ledger.lock().highest(self.account, other));
        let reply = imap.run(&command).await;
        self.world.note(format_args!("{message} in {mailbox}: {command}: {reply:?}"));
        let mut ledger = self.world.ledger.lock();
        match &reply {
            Ok(reply) if reply.is_ok() => {
                ledger.acknowledged += 1;
                if let (Some(other), Some(asked)) = (put_into, asked) {
                    let mut lines = reply.untagged.iter().chain([&reply.tagged]);
                    let Some(new) = lines.find_map(|line| told_uid(line, "COPYUID")) else {
                        ledger.violation(format!(
                            "{message} is not at UID {uid} of {mailbox}: {command}: {reply:?}"
                        ));
                        return Ok(());
                    };
                    ledger.give(self.account, other, new, &message, asked);
                    after.insert(other.to_owned(), (Some(new), after[other].1.clone()));
                } else if !has_gone(reply, uid) {
                    ledger.violation(format!(
                        "{message} is not at UID {uid} of {mailbox}: {command}: {reply:?}"
                    ));
                }
                ledger.decided(self.account, &message, after.clone());
                if !after.is_empty() {
                    self.mine.insert(message, after);
                }
            }
            Ok(_) => {
                ledger.refused(self.account, &message, before.clone());
                self.mine.insert(message, before);
            }
            Err(Lost) => ledger.undecided(self.account, &message, vec![before, after]),
        }
        reply.map(drop)
    }

    /// Adds a flag. When it is not known whether that was done, the message is worked on no more.
    async fn store(
        &mut self,
        imap: &mut Imap,
        message: &str,
        before: &Places,
        mailbox: &str,
        uid: u32,
        flag: &str,
    ) -> Result<(), Lost> {
        let mut after = before.clone();
        if let Some((_, flags)) = after.get_mut(mailbox) {
            flags.insert(flag.to_owned());
        }
        let reply = imap.run(&format!("UID STORE {uid} +FLAGS ({flag})")).await;
        self.world.note(format_args!("{message} at {uid} of {mailbox}: {flag}: {reply:?}"));
        let mut ledger = self.world.ledger.lock();
        match &reply {
            Ok(reply) if reply.is_ok() => {
                ledger.acknowledged += 1;
                let is_told = reply.untagged.iter().any(|line| line.contains(&format!("UID {uid}")));
                if !is_told && after != *before {
                    ledger.violation(format!("{message} is not at UID {uid} of {mailbox}: STORE: {reply:?}"));
                }
                ledger.decided(self.account, message, after.clone());
                self.mine.insert(message.to_owned(), after);
                Ok(())
            }
            Ok(_) => {
                ledger.refused(self.account, message, before.clone());
                Err(Lost)
            }
            Err(Lost) => {
                ledger.undecided(self.account, message, vec![before.clone(), after]);
                self.mine.remove(message);
                Err(Lost)
            }
        }
    }

    async fn select(&mut self, imap: &mut Imap, mailbox: &str) -> Result<(), Lost> {
        if imap.selected.as_deref() == Some(mailbox) {
            // What another session did meanwhile is told now.
            imap.ok("NOOP").await?;
            return Ok(());
        }
        imap.selected = None;
        let told = self.world.ledger.lock().highest(self.account, mailbox);
        let reply = imap.ok(&format!("SELECT {mailbox}")).await?;
        check_fresh(&self.world, self.account, mailbox, told, &reply);
        imap.selected = Some(mailbox.to_owned());
        Ok(())
    }
}

/// Whoever selects a mailbox sees what was acknowledged before, at whichever node.
pub(crate) fn check_fresh(world: &World, account: &str, mailbox: &str, told: u32, reply: &Reply) {
    let next = reply.number("UIDNEXT").unwrap_or(0);
    if next <= u64::from(told) {
        let what = format!("stale: {account} {mailbox} has UIDNEXT {next} after UID {told} was told");
        world.ledger.lock().violation(what);
    }
}

/// The last number of a UID response code: where one message came to lie.
fn told_uid(line: &str, code: &str) -> Option<u32> {
    let rest = &line[line.find(code)?..];
    let inner = rest.split(']').next()?;
    inner.rsplit(' ').next()?.parse().ok()
}

fn has_gone(reply: &Reply, uid: u32) -> bool {
    reply.untagged.iter().any(|line| {
        line.contains("EXPUNGE")
            || line.strip_prefix("* VANISHED ").is_some_and(|set| {
                UidSet::parse(set).is_ok_and(|set| set.iter().any(|gone| gone.get() == uid))
            })
    })
}
