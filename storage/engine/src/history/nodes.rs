//! Several nodes on one log, clients that record what they were told, and a judge who knows what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{log_id, sealer};
use crate::context::OpenError;
use crate::contract::notes::{Notes, Operation, SHELVES};
use crate::handle::{CommitOptions, LogHandle};
use crate::hint::Hints;
use crate::logs::Logs;
use crate::memory::{Faults, MemoryArchive, MemoryEngine};
use crate::open_log::ReadError;
use crate::options::LogOptions;
use crate::request::{Build, CommitError, Committed};
use crate::state::{PartPages, State};
use crate::stats::LogStats;
use crate::stored::{CHAIN_START, open_entry};
use crate::verify::verify;

/// What a round is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) clients_per_node: usize,
    pub(crate) operations_per_client: u64,
    pub(crate) options: LogOptions,
    pub(crate) faults: Faults,
    pub(crate) archive: bool,
    /// Whether nodes hear what others have committed.
    pub(crate) hints: bool,
    /// Nodes are stopped without warning and logs closed, so many times in the mean between two commits of a client.
    pub(crate) crashes: f64,
    pub(crate) closes: f64,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        let options = LogOptions {
            shared: true,
            snapshot_entries_min: 3,
            snapshot_bytes_min: 1 << 20,
            snapshot_entries_max: 12,
            read_entries_max: 5,
            head_poll_ms: 40,
            backoff_ms_min: 1,
            backoff_ms_max: 50,
            retry_ms: 5,
            deadline_seconds: 1,
            ..LogOptions::default()
        };
        let faults = Faults {
            seed,
            unknown_applied: 0.04,
            unknown_not_applied: 0.03,
            unknown_late: 0.03,
            old_copy: 0.3,
            unavailable: 0.01,
            latency: Some(Duration::from_micros(100)..Duration::from_millis(6)),
            ..Faults::default()
        };
        Self {
            seed,
            nodes: 2 + (seed % 2) as usize,
            clients_per_node: 3,
            operations_per_client: 40,
            options,
            faults,
            archive: !seed.is_multiple_of(3),
            hints: !seed.is_multiple_of(5),
            crashes: 0.01,
            closes: 0.02,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Put { id: u64 },
    Deliver { id: u64, delivery: u64 },
    Remove { number: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Committed, with the note's number, or zero where nothing was changed.
    Done {
        number: u64,
        first_seq: u64,
        last_seq: u64,
    },
    Unknown,
    NotApplied,
}

#[derive(Default)]
struct Record {
    commits: Mutex<Vec<(Asked, Told)>>,
    /// States that were read with all parts loaded.
    seen: Mutex<BTreeMap<u64, [u8; 32]>>,
    violations: Mutex<Vec<String>>,
    /// The greatest number that anybody has been told.
    acknowledged: AtomicU64,
}

impl Record {
    fn violation(&self, what: String) {
        self.violations.lock().push(what);
    }
}

struct Node {
    hints: Hints,
    logs: Mutex<Logs<Notes>>,
    stats: Mutex<Vec<LogStats>>,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) stats: LogStats,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) entries: usize,
}

struct Round {
    setup: Setup,
    engine: MemoryEngine,
    archive: Option<MemoryArchive>,
    record: Record,
    nodes: Vec<Node>,
}

/// Runs one round and judges it.
pub(crate) async fn run(setup: Setup) -> Outcome {
    let engine = MemoryEngine::with_faults(Faults { seed: setup.seed, ..Faults::default() });
    let round = Arc::new(Round {
        engine: engine.clone(),
        archive: setup.archive.then(MemoryArchive::default),
        record: Record::default(),
        nodes: Vec::new(),
        setup,
    });
    let nodes = (0..round.setup.nodes)
        .map(|_| {
            let hints = Hints::new(100);
            Node { logs: Mutex::new(round.logs(&hints)), hints, stats: Mutex::default() }
        })
        .collect();
    let round = Arc::new(Round { nodes, ..Arc::into_inner(round).expect("nobody else has it yet") });
    let first = round.nodes[0].logs.lock().clone();
    let created = first.create(log_id(1), Notes::new(), sealer()).await;
    drop(created.expect("there are no faults yet"));
    engine.set_faults(round.setup.faults.clone());

    let mut clients = Vec::new();
    for node in 0..round.setup.nodes {
        for client in 0..round.setup.clients_per_node {
            let number = (node * round.setup.clients_per_node + client) as u64;
            clients.push(tokio::spawn(client_loop(round.clone(), node, number)));
        }
    }
    for client in clients {
        if client.await.is_err() {
            round.record.violation("a client panicked".into());
        }
    }
    round.settle().await;
    round.judge().await
}

impl Round {
    fn logs(&self, hints: &Hints) -> Logs<Notes> {
        let archive = self.archive.clone().map(|archive| Arc::new(archive) as Arc<dyn crate::Archive>);
        Logs::new(self.engine.engine().with_hints(hints.clone()), self.setup.options.clone(), archive)
    }

    /// `None`: the log cannot be opened any more.
    async fn handle(&self, node: usize) -> Option<LogHandle<Notes>> {
        for _ in 0..1_000 {
            let logs = self.nodes[node].logs.lock().clone();
            match logs.open(log_id(1), sealer()).await {
                Ok(handle) => return Some(handle),
                Err(error) if error.is_temporary() => {}
                Err(error) => {
                    self.record.violation(format!("log not opened: {error:?}"));
                    return None;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.record.violation("log not opened however often it was tried".into());
        None
    }

    /// The node is gone at once, with everything that it had under way.
    fn crash(&self, node: usize) {
        let fresh = self.logs(&self.nodes[node].hints);
        let old = std::mem::replace(&mut *self.nodes[node].logs.lock(), fresh);
        self.nodes[node].stats.lock().push(old.stats());
        old.close();
    }

    /// Faults end; whatever is in limbo lands; actors come to rest.
    async fn settle(&self) {
        self.engine.set_faults(Faults::default());
        for _ in 0..200 {
            let _ = crate::Log::head(&self.engine, log_id(1)).await;
        }
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let idle = self.nodes.iter().all(|node| {
                let logs = node.logs.lock().clone();
                logs.close_idle();
                logs.open_count() == 0
            });
            if idle {
                return;
            }
        }
        self.record.violation("actors do not come to rest".into());
    }
}

async fn client_loop(round: Arc<Round>, node: usize, number: u64) {
    let mut dice = StdRng::seed_from_u64(round.setup.seed << 8 | number);
    let Some(mut handle) = round.handle(node).await else { return };
    for operation in 0..round.setup.operations_per_client {
        if dice.random_bool(round.setup.crashes) {
            round.crash(node);
        }
        if dice.random_bool(round.setup.closes) {
            drop(handle);
            let logs = round.nodes[node].logs.lock().clone();
            logs.close_idle();
            let Some(again) = round.handle(node).await else { return };
            handle = again;
        }
        if !handle.is_open() {
            let Some(again) = round.handle(node).await else { return };
            handle = again;
        }
        let id = number << 32 | operation;
        let shelf = dice.random_range(0..SHELVES);
        match dice.random_range(0..100) {
            0..45 => put(&round, &handle, shelf, id, None).await,
            45..65 => {
                let delivery = dice.random_range(0..20 + round.setup.operations_per_client);
                put(&round, &handle, shelf, id, Some(delivery)).await;
            }
            65..85 => {
                let number = dice.random_range(1..=handle.state().next);
                remove(&round, &handle, shelf, number).await;
            }
            _ => read(&round, &handle, dice.random_bool(0.5)).await,
        }
    }
}

async fn put(round: &Round, handle: &LogHandle<Notes>, shelf: u8, id: u64, delivery: Option<u64>) {
    let build = move |state: &Notes| {
        if delivery.is_some_and(|delivery| state.deliveries.contains(&delivery)) {
            return Ok(Build::nothing(0));
        }
        let number = state.next;
        Ok(Build::new(vec![Operation::Put { shelf, number, id, delivery }], number))
    };
    let options = CommitOptions { repeatable: delivery.is_some(), ..CommitOptions::default() };
    let result = handle.commit_with(options, vec![], build).await;
    let asked = match delivery {
        Some(delivery) => Asked::Deliver { id, delivery },
        None => Asked::Put { id },
    };
    note(round, handle, asked, result);
}

async fn remove(round: &Round, handle: &LogHandle<Notes>, shelf: u8, number: u64) {
    let build = move |state: &Notes| {
        Ok(if state.notes(shelf).contains_key(&number) {
            Build::new(vec![Operation::Remove { shelf, number }], number)
        } else {
            Build::nothing(0)
        })
    };
    let result = handle.commit(vec![shelf], build).await;
    note(round, handle, Asked::Remove { number }, result);
}

fn note(
    round: &Round,
    handle: &LogHandle<Notes>,
    asked: Asked,
    result: Result<Committed<u64>, CommitError<()>>,
) {
    let told = match result {
        Ok(Committed { answer, first_seq, last_seq }) => {
            round.record.acknowledged.fetch_max(last_seq, Ordering::SeqCst);
            if round.setup.hints {
                // Each hears of it a little later, and of something that is not there.
                let told = last_seq + 2 * u64::from(last_seq.is_multiple_of(16));
                for (node, delay) in round.nodes.iter().zip(1..) {
                    let hints = node.hints.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(2 * delay)).await;
                        hints.heard(log_id(1), told);
                    });
                }
            }
            if handle.seq() < last_seq && handle.is_open() {
                round.record.violation(format!("told {last_seq} while the node shows {}", handle.seq()));
            }
            Told::Done { number: answer, first_seq, last_seq }
        }
        Err(CommitError::Unknown) => Told::Unknown,
        Err(CommitError::Unavailable(_)) => Told::NotApplied,
        Err(CommitError::Stopped(error)) => {
            if !error.is_temporary() {
                round.record.violation(format!("log stopped: {error:?}"));
            }
            Told::NotApplied
        }
        Err(error) => {
            round.record.violation(format!("{asked:?}: {error:?}"));
            Told::NotApplied
        }
    };
    round.record.commits.lock().push((asked, told));
}

async fn read(round: &Round, handle: &LogHandle<Notes>, fresh: bool) {
    let before = round.record.acknowledged.load(Ordering::SeqCst);
    let shown = handle.seq();
    let parts = Notes::all_shelves();
    let read = if fresh { handle.refresh(&parts).await } else { handle.with(&parts).await };
    match read {
        Ok(state) => {
            let least = if fresh { before.max(shown) } else { shown };
            if state.seq < least {
                round
                    .record
                    .violation(format!("read {} where {least} was known (fresh: {fresh})", state.seq));
            }
            let digest = state.digest();
            if let Some(other) = round.record.seen.lock().insert(state.seq, digest)
                && other != digest
            {
                round.record.violation(format!("two readers saw different states at {}", state.seq));
            }
        }
        Err(ReadError::Failed(error) | ReadError::Stopped(error)) if error.is_temporary() => {}
        Err(ReadError::Deadline) => {}
        Err(error) => round.record.violation(format!("read: {error:?}")),
    }
}

impl Round {
    /// Compares what was told and seen with what was committed.
    async fn judge(self: &Arc<Self>) -> Outcome {
        let record = &self.record;
        let history = self.engine.history(log_id(1));
        let commits = std::mem::take(&mut *record.commits.lock());
        let mut truth = Notes::new();
        let mut states = BTreeMap::from([(0, truth.digest())]);
        let mut operations: BTreeMap<u64, Operation> = BTreeMap::new();
        let mut chain = CHAIN_START;
        let mut last = 0;
        for row in &history {
            if row.first_seq != last + 1 {
                record.violation(format!("entry {} follows {last}", row.first_seq));
            }
            last = row.last_seq;
            match open_entry(log_id(1), &crate::seal::Unencrypted, &chain, row) {
                Ok(entry) => {
                    for (seq, bytes) in entry.operations() {
                        let operation = Notes::decode_operation(bytes).expect("it was encoded here");
                        if let Err(error) = truth.fold(seq, &operation) {
                            record.violation(error.to_string());
                        }
                        operations.insert(seq, operation);
                    }
                    chain = entry.hash;
                }
                Err(error) => record.violation(format!("entry {}: {error:?}", row.first_seq)),
            }
            states.insert(last, truth.digest());
        }
        self.judge_operations(&operations);
        self.judge_answers(&operations, &commits);
        for (seq, digest) in record.seen.lock().iter() {
            if states.get(seq) != Some(digest) {
                self.record.violation(format!("a reader saw a state at {seq} that never was"));
            }
        }
        self.judge_stored(last, &truth).await;
        let told = |which: fn(&Told) -> bool| commits.iter().filter(|(_, told)| which(told)).count();
        Outcome {
            violations: std::mem::take(&mut *record.violations.lock()),
            stats: self.stats(),
            acknowledged: told(|told| matches!(told, Told::Done { .. })),
            unknown: told(|told| *told == Told::Unknown),
            entries: history.len(),
        }
    }

    /// Numbers grow, ids and deliveries come once, nothing is removed that is not there.
    fn judge_operations(&self, operations: &BTreeMap<u64, Operation>) {
        let (mut ids, mut deliveries, mut there) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut highest = 0;
        for (seq, operation) in operations {
            match operation {
                Operation::Put { number, id, delivery, .. } => {
                    if *number <= highest {
                        self.record.violation(format!("number {number} given at {seq} after {highest}"));
                    }
                    highest = highest.max(*number);
                    if !ids.insert(*id) {
                        self.record.violation(format!("{id} applied twice, again at {seq}"));
                    }
                    if delivery.is_some_and(|delivery| !deliveries.insert(delivery)) {
                        self.record.violation(format!("{delivery:?} delivered twice, again at {seq}"));
                    }
                    there.insert(*number);
                }
                Operation::Remove { number, .. } => {
                    if !there.remove(number) {
                        self.record.violation(format!("{number} removed at {seq}, it was not there"));
                    }
                }
                Operation::Archived { .. } => {}
            }
        }
    }

    /// What was told is so; what was told not to be is not.
    fn judge_answers(&self, operations: &BTreeMap<u64, Operation>, commits: &[(Asked, Told)]) {
        let placed: BTreeMap<u64, u64> = operations
            .iter()
            .filter_map(|(seq, operation)| match operation {
                Operation::Put { id, .. } => Some((*id, *seq)),
                _ => None,
            })
            .collect();
        let delivered: BTreeMap<u64, u64> = operations
            .iter()
            .filter_map(|(seq, operation)| match operation {
                Operation::Put { delivery: Some(delivery), .. } => Some((*delivery, *seq)),
                _ => None,
            })
            .collect();
        for (asked, told) in commits {
            let lost = || self.record.violation(format!("{asked:?} was told {told:?} and is lost"));
            match (asked, told) {
                (Asked::Put { id } | Asked::Deliver { id, .. }, Told::NotApplied) => {
                    if placed.contains_key(id) {
                        self.record.violation(format!("{asked:?} was told not to be applied, and is"));
                    }
                }
                (Asked::Deliver { delivery, .. }, Told::Done { number: 0, last_seq, .. }) => {
                    if delivered.get(delivery).is_none_or(|seq| seq > last_seq) {
                        lost();
                    }
                }
                (
                    Asked::Put { id } | Asked::Deliver { id, .. },
                    Told::Done { number, first_seq, last_seq },
                ) => {
                    let found = operations.get(first_seq);
                    let right = first_seq == last_seq
                        && matches!(found, Some(Operation::Put { id: at, number: given, .. })
                            if at == id && given == number);
                    if !right {
                        lost();
                    }
                }
                (Asked::Remove { number }, Told::Done { number: removed, first_seq, .. })
                    if *removed != 0 =>
                {
                    let found = operations.get(first_seq);
                    if !matches!(found, Some(Operation::Remove { number: at, .. }) if at == number) {
                        lost();
                    }
                }
                (Asked::Remove { .. }, _) | (_, Told::Unknown) => {}
            }
        }
    }

    /// Snapshot and tail, and archive and tail, are the truth; all pages are there.
    async fn judge_stored(&self, last: u64, truth: &Notes) {
        let logs = Logs::<Notes>::new(self.engine.engine(), self.setup.options.clone(), None);
        match logs.open(log_id(1), sealer()).await {
            Ok(handle) => match handle.with(&Notes::all_shelves()).await {
                Ok(state) => {
                    if state.seq != last || state.digest() != truth.digest() {
                        self.record.violation(format!("loaded at {} is not the fold at {last}", state.seq));
                    }
                    for shelf in Notes::all_shelves() {
                        if state.pages_of(&shelf) != PartPages::Loaded
                            || state.notes(shelf) != truth.notes(shelf)
                        {
                            self.record.violation(format!("shelf {shelf} differs"));
                        }
                    }
                }
                Err(error) => self.record.violation(format!("pages: {error:?}")),
            },
            Err(OpenError::PageMissing(id)) => self.record.violation(format!("{id:?} was collected")),
            Err(error) => self.record.violation(format!("log not loaded: {error:?}")),
        }
        let archive = self.archive.clone().map(|archive| Arc::new(archive) as Arc<dyn crate::Archive>);
        let verified = verify::<Notes>(&self.engine.engine(), log_id(1), sealer(), archive).await;
        match verified {
            Ok(verified) => {
                for problem in &verified.problems {
                    self.record.violation(format!("check: {problem}"));
                }
                let archived = !truth.archived().address.is_empty();
                if verified.is_sound() && (verified.seq != last || verified.compared != archived) {
                    self.record.violation(format!("check did not look at everything: {verified:?}"));
                }
            }
            Err(error) => self.record.violation(format!("check: {error}")),
        }
    }

    fn stats(&self) -> LogStats {
        let mut all: Vec<LogStats> = self.nodes.iter().map(|node| node.logs.lock().stats()).collect();
        all.extend(self.nodes.iter().flat_map(|node| std::mem::take(&mut *node.stats.lock())));
        all.into_iter().fold(LogStats::default(), LogStats::plus)
    }
}
