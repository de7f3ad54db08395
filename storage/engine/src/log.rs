//! The trait that a back end implements for logs: conditional appends to a dense, numbered sequence.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::error::EngineError;
use crate::id::{LogId, LogKind, PageId};

/// Which snapshot a log starts from. Lies beside the head and moves by a compare-and-swap of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotPointer {
    /// The snapshot's name: the attempt that wrote it.
    pub id: Uuid,
    /// Operations up to this number are folded into it.
    pub seq: u64,
    /// `seq` of the snapshot that it was built on: part of the name of its root page.
    pub base_seq: u64,
}

impl SnapshotPointer {
    /// The page that holds the snapshot's root.
    pub fn root(&self) -> PageId {
        PageId { base_seq: self.base_seq, attempt: self.id, number: 0 }
    }
}

/// What lies beside the entries of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the last operation. Zero: none yet.
    pub seq: u64,
    /// The snapshot that is current.
    pub snapshot: SnapshotPointer,
}

/// A stored entry: a group of operations that were committed by one compare-and-swap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryRow {
    /// Number of its first operation: the expected head plus one.
    pub first_seq: u64,
    /// Number of its last operation; the head once it is applied.
    pub last_seq: u64,
    /// Tells the proposals for one place apart. The same for every attempt at one proposal.
    pub nonce: Uuid,
    /// Sealed operations.
    pub bytes: Bytes,
}

/// Head and entries as one read saw them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The head. Entries may already go beyond it, or stop before it where a limit was given.
    pub head: Head,
    /// Entries, ascending.
    pub rows: Vec<EntryRow>,
}

/// The answer of a compare-and-swap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Applied, and durable.
    Applied,
    /// This call was not applied, since the condition does not hold. (An *earlier* call for the same entry may have
    /// been, if its outcome was unknown.)
    Conflict,
    /// Not known: it may have been applied, or may be later.
    Unknown,
}

/// Logs in a back end: the truth about everything that changes.
///
/// Implementations are linearizable per log. `head`, `load` and `tail_after` see every append that was answered before
/// they were called; [`Log::tail_of_any`] alone need not.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Makes a log with head `snapshot.seq` (zero but for imports) that starts from `snapshot`, whose pages are
    /// durable already. `Conflict`: it exists. Only this creates a log, so that a deleted one stays deleted.
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError>;

    /// Head, and entries after the current snapshot; at most `limit` entries, the oldest. `None`: no such log.
    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError>;

    /// The head alone. `None`: no such log.
    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError>;

    /// Head, and entries whose `last_seq` is greater than `after`; at most `limit` entries, the oldest. Entries that
    /// were trimmed are not among them, so the first may begin later than `after + 1`.
    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError>;

    /// As [`Self::tail_after`], but as one copy of the log has it. What it gives was decided, follows `after` without a gap and
    /// reaches the head that it names; but others may know of more already, and not yet know of its last. `None`: this copy
    /// says nothing. Cheaper where several copies are asked otherwise.
    async fn tail_of_any(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.tail_after(log, after, limit).await
    }

    /// If the head is `entry.first_seq - 1`: adds the entry, moves the head to `entry.last_seq` and, when `trim_to` is
    /// given, deletes entries whose `last_seq` is not greater than that. All or nothing.
    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError>;

    /// If the current snapshot is `base`: makes `new` the current one. Its pages are durable already.
    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError>;

    /// Deletes head and entries. Pages are rows and are deleted as such.
    async fn delete(&self, log: LogId) -> Result<(), EngineError>;

    /// Up to `limit` logs of a kind behind `after` (none: from the first one on), in an order of the back end's own that
    /// does not change. A full answer is followed by a call with its last log. A log that is made or deleted meanwhile
    /// may be there or not; for what needs all of them without knowing their names.
    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError>;
}
