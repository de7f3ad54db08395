//! The open logs of a process: a bounded cache of actors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use uuid::Uuid;

use crate::actor::{Actor, LoadedLog, write_snapshot};
use crate::archive::Archive;
use crate::context::{Context, Engine, OpenError, page_partition};
use crate::error::EngineError;
use crate::handle::{Freshness, LogHandle};
use crate::hint::{DELETED_SEQ, Hear};
use crate::id::LogId;
use crate::load::load;
use crate::log::{Outcome, SnapshotPointer};
use crate::open_log::{Closed, Message, ReadError, Shared, evicted};
use crate::options::LogOptions;
use crate::rows::{RowKey, Table, successor};
use crate::seal::Sealer;
use crate::state::State;
use crate::stats::{Counters, LogStats};
use crate::stored::CHAIN_START;

/// How often the creation of a log is tried while its outcome is unknown.
const CREATE_ATTEMPTS: u32 = 10;

/// Page rows deleted at once with their log.
const DELETE_BATCH: usize = 512;

/// How often a shutdown looks whether everything is done.
const FINISH_LOOK: Duration = Duration::from_millis(10);

/// Why a log was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one with this id.
    #[error("the log exists")]
    Exists,
    /// It may have been created.
    #[error("it is not known whether the log was created")]
    Unknown,
    /// The back end failed; nothing was created.
    #[error("the log was not created")]
    Failed(#[source] OpenError),
}

/// Logs of one kind of state in one back end, as far as they are open in this process. Cheap to clone.
pub struct Logs<S: State> {
    inner: Arc<LogsInner<S>>,
}

impl<S: State> Clone for Logs<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: State> std::fmt::Debug for Logs<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Logs({} open)", self.open_count())
    }
}

pub(crate) struct LogsInner<S: State> {
    engine: Engine,
    options: Arc<LogOptions>,
    archive: Option<Arc<dyn Archive>>,
    counters: Arc<Counters>,
    snapshots: Arc<Semaphore>,
    open: Mutex<HashMap<LogId, Slot<S>>>,
    /// Set under the lock of `open`: nothing is opened any more.
    closed: AtomicBool,
    uses: AtomicU64,
    machinery: Machinery<S>,
}

/// What is large and made anew for every kind of state, as pointers that [`Logs::new`] takes: it is compiled with
/// whoever makes the logs, and not again in every crate that uses a handle.
struct Machinery<S: State> {
    create: Create<S>,
    open: Open<S>,
    read: Read<S>,
}

type Create<S> = fn(Arc<LogsInner<S>>, LogId, S, Arc<dyn Sealer>) -> Answer<S, CreateError>;
type Open<S> = fn(Arc<LogsInner<S>>, LogId, Arc<dyn Sealer>) -> Answer<S, OpenError>;
type Answer<S, E> = BoxFuture<'static, Result<LogHandle<S>, E>>;
type Read<S> = fn(LogHandle<S>, Vec<<S as State>::Part>, Freshness) -> ReadAnswer<S>;
type ReadAnswer<S> = BoxFuture<'static, Result<Arc<S>, ReadError>>;

/// A log that is open, or being opened by whoever holds the gate.
struct Slot<S: State> {
    gate: Arc<tokio::sync::Mutex<()>>,
    shared: Option<Arc<Shared<S>>>,
}

impl<S: State> Logs<S> {
    /// Logs in this back end. With an archive, entries are written there before they are trimmed.
    pub fn new(engine: Engine, options: LogOptions, archive: Option<Arc<dyn Archive>>) -> Self {
        let inner = LogsInner {
            engine,
            snapshots: Arc::new(Semaphore::new(options.snapshot_room())),
            options: Arc::new(options),
            archive,
            counters: Arc::new(Counters::new()),
            machinery: Machinery { create, open, read },
            open: Mutex::default(),
            closed: AtomicBool::new(false),
            uses: AtomicU64::new(0),
        };
        let inner = Arc::new(inner);
        let hearer: Weak<dyn Hear> = Arc::<LogsInner<S>>::downgrade(&inner);
        inner.engine.hints.listen(hearer);
        Self { inner }
    }

    /// What the actors did so far.
    pub fn stats(&self) -> LogStats {
        self.inner.counters.read()
    }

    /// How many logs are open.
    pub fn open_count(&self) -> usize {
        self.inner.open.lock().values().filter(|slot| slot.shared.is_some()).count()
    }

    /// Makes a log that starts from `initial`, and opens it.
    pub async fn create(
        &self,
        log: LogId,
        initial: S,
        sealer: Arc<dyn Sealer>,
    ) -> Result<LogHandle<S>, CreateError> {
        (self.inner.machinery.create)(self.inner.clone(), log, initial, sealer).await
    }

    /// Opens a log, or gives another handle of it where it is open.
    pub async fn open(&self, log: LogId, sealer: Arc<dyn Sealer>) -> Result<LogHandle<S>, OpenError> {
        match self.opened(log) {
            Some(handle) => Ok(handle),
            None => (self.inner.machinery.open)(self.inner.clone(), log, sealer).await,
        }
    }

    /// A handle of the log if it is open in this process.
    pub fn opened(&self, log: LogId) -> Option<LogHandle<S>> {
        let open = self.inner.open.lock();
        let shared = open.get(&log)?.shared.as_ref()?;
        shared.closed.get().is_none().then(|| LogHandle::new(shared.clone(), self.inner.clone()))
    }

    /// Deletes a log: head and entries first, so that it is gone at once, then its pages. Archive chunks stay; without
    /// the key of the log they are unreadable.
    pub async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        let engine = &self.inner.engine;
        engine.log.delete(log).await?;
        engine.hints.say(log, DELETED_SEQ);
        if let Some(slot) = self.inner.open.lock().remove(&log)
            && let Some(shared) = slot.shared
        {
            shared.close(Closed::Deleted);
        }
        let partition = page_partition(log);
        let mut from = Bytes::new();
        loop {
            let keys = engine.rows.scan_keys(Table::Page, partition.clone(), from, DELETE_BATCH).await?;
            let Some(last) = keys.last() else { return Ok(()) };
            from = successor(last);
            let rows = keys.into_iter().map(|key| RowKey::new(Table::Page, partition.clone(), key));
            engine.rows.delete(rows.collect()).await?;
        }
    }

    /// Closes logs that nobody holds and nothing is under way for. For tests and for a node that leaves its shards.
    pub fn close_idle(&self) -> usize {
        let mut open = self.inner.open.lock();
        let logs: Vec<LogId> = open.keys().copied().collect();
        logs.into_iter().filter(|log| self.inner.close_idle(&mut open, *log)).count()
    }

    /// Opens nothing more, waits until nothing is under way, and ends all actors: an orderly shutdown. `false`: something
    /// was still undecided when the time was over.
    pub async fn finish(&self, within: Duration) -> bool {
        let until = tokio::time::Instant::now() + within;
        self.inner.closed.store(true, Ordering::SeqCst);
        let idle = loop {
            let busy = {
                let open = self.inner.open.lock();
                open.values()
                    .filter_map(|slot| slot.shared.as_ref())
                    .any(|shared| shared.closed.get().is_none() && shared.busy.load(Ordering::SeqCst) > 0)
            };
            if !busy || tokio::time::Instant::now() >= until {
                break !busy;
            }
            tokio::time::sleep(FINISH_LOOK).await;
        };
        self.close();
        idle
    }

    /// Ends all actors, and opens none any more. What is undecided is answered as unknown. For shutdown, after the
    /// services have stopped.
    pub fn close(&self) {
        let mut open = self.inner.open.lock();
        self.inner.closed.store(true, Ordering::SeqCst);
        for (_, slot) in open.drain() {
            if let Some(shared) = slot.shared {
                shared.close(Closed::Evicted);
            }
        }
    }
}

enum Found<S: State> {
    Open(LogHandle<S>),
    Closed(Arc<tokio::sync::Mutex<()>>),
}

impl<S: State> LogsInner<S> {
    /// Parts of a log's state, by way of its actor.
    pub(crate) async fn read(
        handle: &LogHandle<S>,
        parts: &[S::Part],
        freshness: Freshness,
    ) -> Result<Arc<S>, ReadError> {
        (handle.logs.machinery.read)(handle.clone(), parts.to_vec(), freshness).await
    }

    async fn open(self: &Arc<Self>, log: LogId, sealer: Arc<dyn Sealer>) -> Result<LogHandle<S>, OpenError> {
        let gate = match self.find(log) {
            Found::Open(handle) => return Ok(handle),
            Found::Closed(gate) => gate,
        };
        let _opening = gate.lock().await;
        if let Found::Open(handle) = self.find(log) {
            return Ok(handle);
        }
        let context = Arc::new(self.context(log, sealer));
        let loaded = match load::<S>(&context).await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.forget_gate(log, &gate);
                return Err(error);
            }
        };
        let (sender, inbox) = mpsc::channel(context.options.inbox_max);
        let loaded = LoadedLog {
            state: Arc::new(loaded.state),
            seq: loaded.seq,
            chain: loaded.chain,
            snapshot: loaded.snapshot,
            tail: loaded.tail,
        };
        let shared = Arc::new(Shared {
            context,
            sender,
            state: RwLock::new(loaded.state.clone()),
            seq: watch::Sender::new(loaded.seq),
            followed: watch::Sender::new(loaded.seq),
            weight: AtomicUsize::new(loaded.state.weight()),
            busy: Arc::default(),
            used: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            hint: Notify::new(),
            attended: AtomicBool::new(true),
            closed: OnceLock::new(),
            stop: Notify::new(),
            archive_index: Mutex::default(),
            held: Arc::new(()),
        });
        self.touch(&shared);
        let handle = {
            let mut open = self.open.lock();
            if self.closed.load(Ordering::SeqCst) {
                return Err(evicted());
            }
            let slot = open.entry(log).or_insert_with(|| Slot { gate: gate.clone(), shared: None });
            slot.shared = Some(shared.clone());
            LogHandle::new(shared.clone(), self.clone())
        };
        tokio::spawn(Actor::new(shared, inbox, loaded).run());
        self.make_room();
        Ok(handle)
    }

    fn context(&self, log: LogId, sealer: Arc<dyn Sealer>) -> Context {
        Context {
            log,
            engine: self.engine.clone(),
            sealer,
            archive: self.archive.clone(),
            options: self.options.clone(),
            counters: self.counters.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    /// The open log, or the gate under which it may be opened. Taking a handle and closing for want of room exclude
    /// each other by the lock.
    fn find(self: &Arc<Self>, log: LogId) -> Found<S> {
        let mut open = self.open.lock();
        let slot = open.entry(log).or_insert_with(|| Slot { gate: Arc::default(), shared: None });
        match &slot.shared {
            Some(shared) if shared.closed.get().is_none() => {
                self.touch(shared);
                Found::Open(LogHandle::new(shared.clone(), self.clone()))
            }
            _ => Found::Closed(slot.gate.clone()),
        }
    }

    /// Removes the slot of a log that could not be opened, unless others wait at its gate.
    fn forget_gate(&self, log: LogId, gate: &Arc<tokio::sync::Mutex<()>>) {
        let mut open = self.open.lock();
        // One count in the slot, one at the caller.
        if open.get(&log).is_some_and(|slot| slot.shared.is_none()) && Arc::strong_count(gate) <= 2 {
            open.remove(&log);
        }
    }

    pub(crate) fn touch(&self, shared: &Shared<S>) {
        shared.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Closes idle logs, those used longest ago first, until the limits hold; shrinks those that are held.
    pub(crate) fn make_room(&self) {
        let mut logs: Vec<Arc<Shared<S>>> = {
            let open = self.open.lock();
            if open.len() <= self.options.open_logs_max && weight_of(&open) <= self.options.memory_bytes_max {
                return;
            }
            open.values().filter_map(|slot| slot.shared.clone()).collect()
        };
        logs.sort_by_key(|shared| shared.used.load(Ordering::Relaxed));
        let mut weight: usize = logs.iter().map(|shared| shared.weight.load(Ordering::Relaxed)).sum();
        let mut count = logs.len();
        // A tenth below the limit, so that not every further open has to make room again.
        let target = self.options.memory_bytes_max / 10 * 9;
        for shared in &logs {
            if weight <= target && count <= self.options.open_logs_max {
                return;
            }
            let own = shared.weight.load(Ordering::Relaxed);
            if self.close_idle(&mut self.open.lock(), shared.context.log) {
                weight = weight.saturating_sub(own);
                count -= 1;
            }
        }
        for shared in &logs {
            if weight <= target {
                return;
            }
            let own = shared.weight.load(Ordering::Relaxed);
            // Hints: a log that is busy now will be asked again.
            let _ = shared.sender.try_send(Message::Shed(own));
            weight = weight.saturating_sub(own);
        }
    }

    fn close_idle(&self, open: &mut HashMap<LogId, Slot<S>>, log: LogId) -> bool {
        let idle = |shared: &Arc<Shared<S>>| shared.is_idle() || shared.closed.get().is_some();
        if !open.get(&log).and_then(|slot| slot.shared.as_ref()).is_some_and(idle) {
            return false;
        }
        if let Some(shared) = open.remove(&log).and_then(|slot| slot.shared) {
            shared.close(Closed::Evicted);
            self.counters.evictions.add(1);
        }
        true
    }
}

impl<S: State> Hear for LogsInner<S> {
    fn heard(&self, log: LogId, seq: u64) -> bool {
        let open = self.open.lock();
        open.get(&log).and_then(|slot| slot.shared.as_ref()).is_some_and(|shared| shared.heard(seq))
    }
}

fn weight_of<S: State>(open: &HashMap<LogId, Slot<S>>) -> usize {
    open.values()
        .filter_map(|slot| slot.shared.as_ref())
        .map(|shared| shared.weight.load(Ordering::Relaxed))
        .sum()
}

fn create<S: State>(
    inner: Arc<LogsInner<S>>,
    log: LogId,
    initial: S,
    sealer: Arc<dyn Sealer>,
) -> Answer<S, CreateError> {
    Box::pin(async move {
        let context = Arc::new(inner.context(log, sealer.clone()));
        let snapshot = SnapshotPointer { id: Uuid::new_v4(), seq: 0, base_seq: 0 };
        write_snapshot(&context, Arc::new(initial), snapshot, CHAIN_START)
            .await
            .map_err(CreateError::Failed)?;
        create_log(&context, snapshot).await?;
        inner.open(log, sealer).await.map_err(CreateError::Failed)
    })
}

fn open<S: State>(inner: Arc<LogsInner<S>>, log: LogId, sealer: Arc<dyn Sealer>) -> Answer<S, OpenError> {
    Box::pin(async move { inner.open(log, sealer).await })
}

fn read<S: State>(handle: LogHandle<S>, parts: Vec<S::Part>, freshness: Freshness) -> ReadAnswer<S> {
    Box::pin(async move { handle.ask(parts, freshness).await })
}

/// Creates the log whose first snapshot is written.
async fn create_log(context: &Context, snapshot: SnapshotPointer) -> Result<(), CreateError> {
    let failed = |error| CreateError::Failed(OpenError::Engine(error));
    let mut undecided = false;
    for attempt in 1..=CREATE_ATTEMPTS {
        match context.engine.log.create(context.log, snapshot).await {
            Ok(Outcome::Applied) => return Ok(()),
            Ok(Outcome::Unknown) => undecided = true,
            Ok(Outcome::Conflict) if !undecided => return Err(CreateError::Exists),
            Ok(Outcome::Conflict) => match context.engine.log.head(context.log).await {
                Ok(Some(head)) if head.snapshot.id == snapshot.id => return Ok(()),
                // Made by somebody else, or by us and swung by somebody else since; the caller opens it either way.
                Ok(Some(_)) => return Err(CreateError::Exists),
                Ok(None) | Err(_) => {}
            },
            Err(error) if !undecided => return Err(failed(error)),
            Err(_) => {}
        }
        tokio::time::sleep(context.options.backoff(attempt)).await;
    }
    Err(CreateError::Unknown)
}
