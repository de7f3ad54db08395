//! Clients that synchronise as mail clients do, with connections that break at any point, against two nodes that change
//! the same mailbox at the same time. Whatever the history, they end with what the mailbox holds.

#![allow(clippy::unwrap_used, reason = "a test")]

mod setup;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::memory::{Faults, MemoryEngine};
use engine::{LogStats, Sabotage};
use mail::id::{EmailId, MailboxId, ModSeq, Uid, UidValidity};
use mail::uid::UidSet;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use setup::*;
use storage::{
    Account, AppendError, CheckDepth, FlagAction, FlagChange, Marks, MessageRow, StoredBody, Vanished,
};

/// How a client finds out what is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    /// Messages above the highest UID seen. Flags of older ones are not followed.
    UidAboveLast,
    /// CHANGEDSINCE (RFC 7162 §3.1), and a list of all UIDs for what has gone.
    CondStore,
    /// QRESYNC (RFC 7162 §3.2): changes and VANISHED.
    QResync,
}

#[derive(Clone, Debug)]
struct Client {
    method: Method,
    validity: Option<UidValidity>,
    known: BTreeMap<Uid, (EmailId, Marks)>,
    last_uid: u32,
    modseq: ModSeq,
    /// How often it was given the full set.
    full_sets: u32,
}

impl Client {
    fn new(method: Method) -> Self {
        let modseq = ModSeq(0);
        Self { method, validity: None, known: BTreeMap::new(), last_uid: 0, modseq, full_sets: 0 }
    }

    /// Selects the mailbox and catches up. Of what the server says, the first `cut` responses arrive.
    async fn sync(&mut self, account: &Account, mailbox: MailboxId, cut: usize) {
        account.refresh().await.unwrap();
        let (state, changes) = account.changes(mailbox, self.modseq).await.unwrap();
        let (shown, changes) = (state.mailbox(mailbox).unwrap(), changes.unwrap());
        if self.validity.is_some_and(|validity| validity != shown.uid_validity) {
            *self = Self::new(self.method);
        }
        self.validity = Some(shown.uid_validity);
        let index = state.index(mailbox).unwrap();
        assert!(shown.highest_modseq >= self.modseq, "MODSEQ never sinks for who looks at the head");
        let mut left = cut;
        let mut arrives = || {
            let arrives = left > 0;
            left = left.saturating_sub(1);
            arrives
        };
        let news = |row: MessageRow| (row.uid, (row.email, row.marks.visible()));
        match self.method {
            Method::UidAboveLast => {
                let last = self.last_uid;
                for row in index.iter().filter(|row| row.uid.get() > last) {
                    if !arrives() {
                        return;
                    }
                    self.last_uid = row.uid.get();
                    self.known.extend([news(row)]);
                }
            }
            Method::CondStore => {
                for row in index.select(&changes.changed) {
                    if !arrives() {
                        return;
                    }
                    self.known.extend([news(row)]);
                }
                if !arrives() {
                    return;
                }
                self.known.retain(|uid, _| index.find(*uid).is_ok());
                self.modseq = shown.highest_modseq;
            }
            Method::QResync => {
                if !arrives() {
                    return;
                }
                match &changes.vanished {
                    Vanished::Known(gone) => self.known.retain(|uid, _| !gone.contains(*uid)),
                    Vanished::Forgotten => {
                        self.full_sets += 1;
                        self.known.retain(|uid, _| index.find(*uid).is_ok());
                    }
                }
                for row in index.select(&changes.changed) {
                    if !arrives() {
                        return;
                    }
                    self.known.extend([news(row)]);
                }
                if arrives() {
                    self.modseq = shown.highest_modseq;
                }
            }
        }
    }

    /// Compares what it knows with what is there.
    async fn check(&self, account: &Account, mailbox: MailboxId) -> Result<(), String> {
        let state = account.mailbox(mailbox).await.unwrap();
        let index = state.index(mailbox).unwrap();
        let there: BTreeMap<_, _> =
            index.iter().map(|row| (row.uid, (row.email, row.marks.visible()))).collect();
        if self.method != Method::UidAboveLast {
            return if self.known == there { Ok(()) } else { Err(format!("{:?} and {there:?}", self.known)) };
        }
        // This one does not notice what has gone or changed; but it has seen all that is there, as what it is.
        let missed =
            there.iter().find(|(uid, (email, _))| self.known.get(*uid).is_none_or(|known| known.0 != *email));
        missed.map_or(Ok(()), |(uid, _)| Err(format!("UID {uid} was never seen or is another message")))
    }
}

fn some_uids(rng: &mut StdRng, next: u32) -> UidSet {
    let first = rng.random_range(1..=next);
    UidSet::from_range(uid(first), uid(first + rng.random_range(0..4)))
}

/// Something happens on one node. Errors that mean that nothing was acknowledged are no matter.
async fn happen(mut rng: StdRng, account: &Account, body: &StoredBody, inbox: MailboxId, other: MailboxId) {
    let next = account.state().mailbox(inbox).unwrap().messages + 4;
    let uids = some_uids(&mut rng, next);
    match rng.random_range(0..10) {
        0..=3 => {
            let count = rng.random_range(1..3);
            let requests = (0..count).map(|_| request(body.clone(), inbox, "")).collect();
            match account.append_many(requests).await {
                Ok(_) | Err(AppendError::Storage(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        4 | 5 => {
            let flags = flags(["\\Seen", "$a", "\\Deleted"][rng.random_range(0..3)]);
            let action = [FlagAction::Add, FlagAction::Remove, FlagAction::Replace][rng.random_range(0..3)];
            let _ = account.set_flags(inbox, uids, FlagChange { action, flags }, None).await;
        }
        6 => drop(account.remove(inbox, uids).await),
        7 => drop(account.move_messages(inbox, uids, other).await),
        8 => drop(account.move_messages(other, uids, inbox).await),
        _ => drop(account.copy(other, uids, inbox).await),
    }
}

struct Outcome {
    problem: Option<String>,
    full_sets: u32,
    stats: LogStats,
}

/// One history: rounds in which both nodes do something at the same time, while clients come and go.
async fn history(disk: &Disk, seed: u64, rounds: usize) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let (first, account) = disk.start_with_account().await;
    let second = disk.start().await;
    let nodes = [account, open(&second).await];
    let (inbox, other) = (mailbox(&nodes[0], "INBOX"), mailbox(&nodes[0], "Trash"));
    let body = write(&nodes[0], &message(1)).await;
    let methods = [Method::UidAboveLast, Method::CondStore, Method::QResync];
    let mut clients: Vec<Client> = methods.into_iter().map(Client::new).collect();
    let mut problem = None;
    for _ in 0..rounds {
        let (left, right) = (StdRng::seed_from_u64(rng.random()), StdRng::seed_from_u64(rng.random()));
        tokio::join!(
            Box::pin(happen(left, &nodes[0], &body, inbox, other)),
            Box::pin(happen(right, &nodes[1], &body, inbox, other)),
        );
        if nodes.iter().any(|account| account.is_stopped()) {
            problem = Some("a log contradicts itself".to_owned());
            break;
        }
        for client in &mut clients {
            if rng.random_bool(0.4) {
                let cut = if rng.random_bool(0.5) { usize::MAX } else { rng.random_range(0..6) };
                client.sync(&nodes[rng.random_range(0..2)], inbox, cut).await;
            }
        }
    }
    if problem.is_none() {
        for client in &mut clients {
            let account = &nodes[rng.random_range(0..2)];
            client.sync(account, inbox, usize::MAX).await;
            if let Err(difference) = client.check(account, inbox).await {
                problem = Some(format!("{:?}: {difference}", client.method));
            }
        }
        let report = first.check(ACCOUNT, CheckDepth::Metadata).await.unwrap();
        problem = problem.or_else(|| report.problems.into_iter().next());
    }
    let stats = first.log_stats().plus(second.log_stats());
    first.close();
    second.close();
    Outcome { problem, full_sets: clients.iter().map(|client| client.full_sets).sum(), stats }
}

fn disk(seed: u64, sabotage: Option<Sabotage>) -> Disk {
    let latency = Some(Duration::from_micros(1)..Duration::from_micros(400));
    let engine = MemoryEngine::with_faults(Faults { seed, latency, ..Faults::default() });
    let mut disk = Disk::eventful();
    disk.engine = engine;
    disk.options.sabotage = sabotage;
    // Expunges are soon forgotten.
    disk.config.expunged_bytes_max = 30;
    disk
}

#[tokio::test(start_paused = true)]
async fn clients_converge_over_2000_histories() {
    let mut full_sets = 0;
    let mut stats = LogStats::default();
    for seed in 0..2000 {
        let outcome = Box::pin(history(&disk(seed, None), seed, 10)).await;
        assert_eq!(outcome.problem, None, "seed {seed}");
        full_sets += outcome.full_sets;
        stats = stats.plus(outcome.stats);
    }
    assert!(stats.conflicts > 1000 && stats.swings > 1000 && stats.archives > 1000, "{stats:?}");
    assert!(full_sets > 20, "{full_sets} clients were away for too long");
}

/// The planted defect: what was decided before a compare-and-swap that was lost is proposed again as it is.
#[tokio::test(start_paused = true)]
async fn uids_taken_before_the_compare_and_swap_are_noticed() {
    for seed in 0..50 {
        let outcome = Box::pin(history(&disk(seed, Some(Sabotage::BuiltBeforeCas)), seed, 6)).await;
        if outcome.problem.is_some() {
            return;
        }
    }
    panic!("50 histories, and nothing was noticed");
}
