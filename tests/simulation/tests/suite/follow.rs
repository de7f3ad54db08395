//! A client that keeps a copy of a mailbox, and looks for what is new at one node and then at another (RFC 7162).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mail::uid::UidSet;
use rand::Rng;

use crate::clients::{Imap, Lost, Reply, number_after};
use crate::load::check_fresh;
use crate::world::{NODES, World};

pub(crate) struct Follower {
    pub(crate) account: &'static str,
    pub(crate) mailbox: &'static str,
    validity: Option<u64>,
    modseq: u64,
    /// Flags, and when they changed last, by UID.
    pub(crate) known: BTreeMap<u32, (BTreeSet<String>, u64)>,
}

impl Follower {
    pub(crate) fn new(account: &'static str, mailbox: &'static str) -> Self {
        Self { account, mailbox, validity: None, modseq: 0, known: BTreeMap::new() }
    }

    /// Follows until the load is over.
    pub(crate) async fn run(mut self, world: Arc<World>, number: u64) -> Self {
        let mut dice = world.dice_for(300 + number);
        while !world.load_is_over.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = self.sync(&world, dice.random_range(0..NODES)).await;
            tokio::time::sleep(Duration::from_millis(dice.random_range(100..3_000))).await;
        }
        self
    }

    /// Selects the mailbox at a node, and takes over what is new.
    pub(crate) async fn sync(&mut self, world: &World, node: usize) -> Result<(), Lost> {
        let mut imap = Imap::login(node, self.account).await?;
        imap.ok("ENABLE QRESYNC").await?;
        let told = world.ledger.lock().highest(self.account, self.mailbox);
        let reply = match self.validity {
            Some(validity) => {
                let (mailbox, modseq) = (self.mailbox, self.modseq);
                imap.ok(&format!("SELECT {mailbox} (QRESYNC ({validity} {modseq}))")).await?
            }
            None => imap.ok(&format!("SELECT {}", self.mailbox)).await?,
        };
        check_fresh(world, self.account, self.mailbox, told, &reply);
        let validity = reply.number("UIDVALIDITY").ok_or(Lost)?;
        let modseq = reply.number("HIGHESTMODSEQ").ok_or(Lost)?;
        if self.validity.is_some_and(|known| known != validity) {
            let what = format!("{} {}: UIDVALIDITY changed", self.account, self.mailbox);
            world.ledger.lock().violation(what);
        }
        if modseq < self.modseq {
            let (account, mailbox, before) = (self.account, self.mailbox, self.modseq);
            let what = format!("stale: {account} {mailbox} has HIGHESTMODSEQ {modseq} after {before}");
            world.ledger.lock().violation(what);
        }
        if self.validity.is_none() {
            let all = imap.ok("UID FETCH 1:* (FLAGS MODSEQ)").await?;
            self.take(world, &all);
        }
        self.take(world, &reply);
        self.validity = Some(validity);
        self.modseq = modseq;
        world.note(format_args!("{} {} followed at {node} to {modseq}", self.account, self.mailbox));
        Ok(())
    }

    fn take(&mut self, world: &World, reply: &Reply) {
        for line in &reply.untagged {
            if let Some(set) = line.strip_prefix("* VANISHED (EARLIER) ") {
                let gone = UidSet::parse(set).unwrap_or_default();
                self.known.retain(|uid, _| !gone.iter().any(|gone| gone.get() == *uid));
            } else if let Some((uid, flags)) = fetched(line) {
                let modseq = number_after(line, "MODSEQ ").unwrap_or(0);
                let before = self.known.insert(uid, (flags, modseq));
                if let Some((_, before)) = before.filter(|(_, before)| modseq < *before) {
                    let (account, mailbox) = (self.account, self.mailbox);
                    let what = format!("{account} {mailbox} UID {uid} has MODSEQ {modseq} after {before}");
                    world.ledger.lock().violation(what);
                }
            }
        }
    }
}

/// UID and flags of a FETCH response.
pub(crate) fn fetched(line: &str) -> Option<(u32, BTreeSet<String>)> {
    if !line.contains(" FETCH (") {
        return None;
    }
    let uid = u32::try_from(number_after(line, "UID ")?).ok()?;
    let flags = &line[line.find("FLAGS (")? + 7..];
    let flags = flags[..flags.find(')')?].split_whitespace();
    Some((uid, flags.filter(|flag| *flag != "\\Recent").map(str::to_owned).collect()))
}
