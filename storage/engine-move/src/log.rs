//! Logs of the engine over two: a call goes to the one that has the log.
//!
//! A write that its caller gives up, or whose outcome nobody knew, may land at the source while the log moves, or later.
//! Nobody was told that it was applied, and at the target it was not. So that nobody *sees* it at the source either, and
//! tells it as applied, reads go through the gate too.

use async_trait::async_trait;
use engine::{EngineError, EntryRow, Head, Log, LogId, LogKind, Outcome, SnapshotPointer, Tail};
use uuid::Uuid;

use crate::moving::{Moving, Phase, Side};

#[async_trait]
impl Log for Moving {
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        let side = self.side_of(log);
        if side == Side::Source && self.phase() == Phase::Moving {
            self.inner.fresh.lock().insert(log);
        }
        self.on(side).log.create(log, snapshot).await
    }

    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.load(log, limit).await
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.head(log).await
    }

    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.tail_after(log, after, limit).await
    }

    async fn tail_of_any(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.tail_of_any(log, after, limit).await
    }

    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.append(log, entry, trim_to).await
    }

    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.swing(log, base, new).await
    }

    async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        let _open = self.inner.gates.pass(&log.to_bytes()).await;
        self.on(self.side_of(log)).log.delete(log).await
    }

    /// While the move is under way, logs are listed at the source, where those that have moved stay as they were.
    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError> {
        match self.phase() {
            Phase::Still => return self.on(Side::Source).log.list(kind, after, limit).await,
            Phase::Moved => return self.on(Side::Target).log.list(kind, after, limit).await,
            Phase::Moving => {}
        }
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let wanted = limit - found.len();
            let listed = self.on(Side::Source).log.list(kind, after, wanted).await?;
            let (all, last) = (listed.len() < wanted, listed.last().copied());
            for log in listed {
                // Deleted since it moved?
                if self.side_of(log) == Side::Source || self.on(Side::Target).log.head(log).await?.is_some() {
                    found.push(log);
                }
            }
            if all {
                break;
            }
            after = last;
        }
        Ok(found)
    }
}
