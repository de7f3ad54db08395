//! The engines as one node reaches them: calls take their time, are refused or lost, and their answers too.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use blob::{Appender, Blobs, BlobsError, Growth, SegmentId, SegmentInfo};
use bytes::Bytes;
use engine::{
    Engine, EngineError, EntryRow, Head, Hints, Log, LogId, LogKind, Outcome, Row, RowKey, Rows,
    SnapshotPointer, Table, Tail,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::bug::Bug;
use crate::world::World;

/// How long a call is waited for that gets no answer.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often a defect shows, where it could.
const BUG_SHARE: f64 = 0.03;

/// A compare-and-swap that was lost on its way, and may arrive yet.
#[derive(Clone)]
pub(crate) enum Late {
    Append(LogId, EntryRow, Option<u64>),
    Swing(LogId, Uuid, SnapshotPointer),
}

/// The engines, seen from a node.
#[derive(Clone)]
pub(crate) struct NodeEngine {
    world: Arc<World>,
    node: usize,
    /// Logs that are looked at in any case under [`Bug::TrustedHints`], since a compare-and-swap has failed there.
    doubted: Arc<Mutex<BTreeSet<LogId>>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Done,
    Refused,
    Lost,
    Late,
}

impl NodeEngine {
    pub(crate) fn new(world: Arc<World>, node: usize) -> Self {
        Self { world, node, doubted: Arc::default() }
    }

    pub(crate) fn engine(&self, hints: Hints) -> Engine {
        Engine::new(Arc::new(self.clone()), Arc::new(self.clone())).with_hints(hints)
    }

    /// The way there: how long it takes, and what becomes of the call.
    async fn way_there(&self, what: &str, is_conditional: bool) -> Fate {
        let rates = self.world.rates();
        let took = if self.world.chance(rates.slow) {
            self.world.count("slow");
            self.world.millis(100..1_500)
        } else {
            self.world.millis(1..6)
        };
        tokio::time::sleep(took).await;
        let fate = if self.world.is_cut_off(self.node) {
            self.world.count("cut_off");
            Fate::Lost
        } else if self.world.chance(rates.refused) {
            self.world.count("refused");
            Fate::Refused
        } else if self.world.chance(rates.lost) {
            self.world.count("lost_call");
            Fate::Lost
        } else if is_conditional && self.world.chance(rates.late) {
            self.world.count("late");
            Fate::Late
        } else {
            Fate::Done
        };
        if fate == Fate::Done {
            self.land_late().await;
        }
        self.world.note(format_args!("node {} {what} {fate:?}", self.node));
        if matches!(fate, Fate::Lost | Fate::Late) {
            tokio::time::sleep(PATIENCE).await;
        }
        fate
    }

    /// The way back. `false`: the answer does not come.
    async fn way_back(&self) -> bool {
        let took = self.world.millis(0..5);
        tokio::time::sleep(took).await;
        let comes = !self.world.is_cut_off(self.node) && !self.world.chance(self.world.rates().unanswered);
        if !comes {
            self.world.count("lost_answer");
            tokio::time::sleep(PATIENCE).await;
        }
        comes
    }

    /// What was lost on its way may arrive now.
    async fn land_late(&self) {
        while !self.world.limbo.lock().is_empty() && self.world.chance(0.2) {
            let late = {
                let mut limbo = self.world.limbo.lock();
                let which = self.world.below(limbo.len());
                limbo.swap_remove(which)
            };
            let landed = match late {
                Late::Append(log, entry, trim_to) => self.world.engine.append(log, &entry, trim_to).await,
                Late::Swing(log, base, new) => self.world.engine.swing(log, base, new).await,
            };
            if matches!(landed, Ok(Outcome::Applied)) {
                self.world.count("landed_late");
            }
            self.world.note(format_args!("late {landed:?}"));
        }
    }

    /// A call that can be repeated. After an error it may have had its effect.
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        match self.way_there(what, false).await {
            Fate::Done => {}
            Fate::Refused => return Err(EngineError::unavailable("refused")),
            Fate::Lost | Fate::Late => return Err(EngineError::unavailable("no answer")),
        }
        let result = call.await;
        if self.way_back().await { result } else { Err(EngineError::unavailable("no answer")) }
    }

    /// A conditional write to a log.
    async fn decide(
        &self,
        what: &str,
        late: Option<Late>,
        call: Decision<'_>,
    ) -> Result<Outcome, EngineError> {
        let outcome = match self.way_there(what, late.is_some()).await {
            Fate::Refused => return Err(EngineError::unavailable("refused")),
            Fate::Lost => Outcome::Unknown,
            Fate::Late => {
                self.world.limbo.lock().extend(late);
                Outcome::Unknown
            }
            Fate::Done if self.shows(Bug::AppliedWithoutEffect) => Outcome::Applied,
            Fate::Done => {
                let outcome = call.await?;
                self.world.note(format_args!("node {} {what} {outcome:?}", self.node));
                if self.shows(Bug::RefusedWithEffect) {
                    return Err(EngineError::unavailable("refused, it says"));
                }
                if self.way_back().await { outcome } else { Outcome::Unknown }
            }
        };
        let trusts = self.world.bug == Some(Bug::UnknownIsSuccess) && outcome == Outcome::Unknown;
        Ok(if trusts { Outcome::Applied } else { outcome })
    }

    /// A conditional write of a row.
    async fn decide_row(
        &self,
        what: &str,
        call: impl Future<Output = Result<bool, EngineError>>,
    ) -> Result<bool, EngineError> {
        let undecided = || EngineError::Undecided { reason: "no answer".to_owned() };
        match self.way_there(what, false).await {
            Fate::Done => {}
            Fate::Refused => return Err(EngineError::unavailable("refused")),
            Fate::Lost | Fate::Late => return Err(undecided()),
        }
        let result = call.await;
        if self.way_back().await { result } else { Err(undecided()) }
    }

    /// Whether a defect shows this time.
    fn shows(&self, bug: Bug) -> bool {
        self.world.bug == Some(bug) && !self.world.rates().is_none() && self.world.chance(BUG_SHARE)
    }

    /// Whether a node that trusts its hints does not look for what is after `seq`.
    fn looks_away(&self, log: LogId, seq: u64) -> bool {
        self.world.bug == Some(Bug::TrustedHints)
            && !self.world.rates().is_none()
            && self.world.heard(self.node, log) <= seq
            && !self.doubted.lock().remove(&log)
    }
}

type Decision<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Outcome, EngineError>> + Send + 'a>>;

#[async_trait]
impl Log for NodeEngine {
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError> {
        self.decide("create", None, self.world.engine.create(log, snapshot)).await
    }

    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.call("load", self.world.engine.load(log, limit)).await
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        self.call("head", self.world.engine.head(log)).await
    }

    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        let mut tail = self.call("tail", self.world.engine.tail_after(log, after, limit)).await?;
        if let Some(tail) = &mut tail
            && self.looks_away(log, after)
        {
            tail.rows.clear();
            tail.head.seq = after;
        }
        Ok(tail)
    }

    async fn tail_of_any(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.call("tail of one copy", self.world.engine.tail_of_any(log, after, limit)).await
    }

    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError> {
        let late = Late::Append(log, entry.clone(), trim_to);
        let what = format!("append {log} {}..={}", entry.first_seq, entry.last_seq);
        let outcome = self.decide(&what, Some(late), self.world.engine.append(log, entry, trim_to)).await;
        match outcome {
            Ok(Outcome::Applied) => self.world.count(if trim_to.is_some() { "trims" } else { "commits" }),
            Ok(Outcome::Conflict) => self.world.count("conflicts"),
            Ok(Outcome::Unknown) | Err(_) => {}
        }
        if !matches!(outcome, Ok(Outcome::Applied)) {
            self.doubted.lock().insert(log);
        }
        outcome
    }

    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError> {
        let late = Late::Swing(log, base, new);
        let outcome = self.decide("swing", Some(late), self.world.engine.swing(log, base, new)).await;
        if matches!(outcome, Ok(Outcome::Applied)) {
            self.world.count("snapshots");
        }
        outcome
    }

    async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        self.call("delete log", Log::delete(&self.world.engine, log)).await
    }

    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError> {
        self.call("list", self.world.engine.list(kind, after, limit)).await
    }
}

#[async_trait]
impl Rows for NodeEngine {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        let mut rows = rows;
        if rows.iter().any(|row| row.key.table == Table::Page) && self.shows(Bug::LostPage) {
            rows.pop();
        }
        self.call("put", self.world.engine.put(rows)).await
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.decide_row("put new", self.world.engine.put_new(row)).await
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        self.decide_row("replace", self.world.engine.replace_if(key, expected, new)).await
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.call("get", self.world.engine.get(key)).await
    }

    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.call("get many", self.world.engine.get_many(keys)).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.call("scan", self.world.engine.scan(table, partition, from, limit)).await
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.call("partitions", self.world.engine.partitions(table, after, limit)).await
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        self.call("delete", Rows::delete(&self.world.engine, keys)).await
    }
}

/// The segments, seen from a node.
pub(crate) struct NodeBlobs(pub(crate) NodeEngine);

impl NodeBlobs {
    async fn call<T>(
        &self,
        during: &'static str,
        call: impl Future<Output = Result<T, BlobsError>>,
    ) -> Result<T, BlobsError> {
        let silence =
            || BlobsError::Unavailable { during, source: Arc::new(EngineError::unavailable("no answer")) };
        if self.0.way_there(during, false).await != Fate::Done {
            return Err(silence());
        }
        let result = call.await;
        if self.0.way_back().await { result } else { Err(silence()) }
    }
}

#[async_trait]
impl Blobs for NodeBlobs {
    fn growth(&self) -> Growth {
        self.0.world.blobs.growth()
    }

    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        if self.0.shows(Bug::LostSegment) {
            return Ok(());
        }
        let put = self.call("storing a segment", self.0.world.blobs.put(segment, pieces.clone())).await;
        match put {
            // As object stores are used: the name is the segment's alone, so a second attempt finds the first.
            Err(BlobsError::Exists(_)) => Ok(()),
            put => put,
        }
    }

    async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        self.call("beginning a segment", self.0.world.blobs.begin(segment, expected)).await
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        self.call("reading a segment", self.0.world.blobs.get(segment, range)).await
    }

    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        self.call("looking at a segment", self.0.world.blobs.stat(segment)).await
    }

    async fn finish(&self, segment: SegmentId, length: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.call("finishing a segment", self.0.world.blobs.finish(segment, length, pieces)).await
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.call("deleting a segment", self.0.world.blobs.delete(segment)).await
    }

    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.call("listing segments", self.0.world.blobs.list(after, limit)).await
    }

    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.call("listing segments", self.0.world.blobs.unsealed()).await
    }
}
