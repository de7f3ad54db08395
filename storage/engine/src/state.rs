//! What a log folds into.

use std::fmt::Debug;
use std::hash::Hash;

use bytes::Bytes;
use uuid::Uuid;

use crate::error::{FoldError, FormatError};
use crate::id::{LogId, PageId};

/// Whether the pages of a part are in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartPages {
    /// The part can be read and changed.
    Loaded,
    /// These pages of the snapshot must be fetched and given to [`State::install`] first.
    Missing(Vec<PageId>),
}

/// A snapshot of a state: what is written, and what the new root refers to.
#[derive(Clone, Debug)]
pub struct SnapshotPages<P> {
    /// The encoded root, from which [`State::from_root`] makes the state again.
    pub root: Vec<u8>,
    /// New pages, under ids from `new_page_id`.
    pub written: Vec<(PageId, Vec<u8>)>,
    /// Every page that the root refers to, directly or through inner pages; new ones and kept ones. A page that is
    /// missing here will be deleted.
    pub listed: Vec<PageId>,
    /// What the state wants to know again in [`State::snapshotted`]; `()` where it needs nothing.
    pub plan: P,
}

/// How far a log is archived, as its state knows from the last operation that said so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Archived {
    /// Entries up to this number are in the archive. Zero: none.
    pub seq: u64,
    /// Address of the newest chunk; each chunk names the one before. Empty: there is none.
    pub address: Bytes,
}

/// What a log folds into: an account, a queue shard, a domain.
///
/// Cheap to clone: pages and big columns stand behind `Arc` and are copied on write. The actor folds a group into a
/// clone and keeps it only if the compare-and-swap wins; readers hold an `Arc` of the whole.
///
/// The fold is the same on every node and in every release: it reads no clock, no randomness and nothing but the
/// operation and the state before it. Everything that could differ is decided by whoever builds the operation, and
/// stored in it.
pub trait State: Clone + Send + Sync + 'static {
    /// A resolved effect.
    type Operation: Clone + Send + Sync + 'static;
    /// Pages that are loaded together: for an account a mailbox's index, a key run; for a queue shard a due hour.
    type Part: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static;
    /// What a snapshot must remember until it is current; see [`SnapshotPages::plan`].
    type Plan: Send + Sync + 'static;

    /// Appends the stored form of an operation. Its meaning is frozen once released.
    fn encode_operation(operation: &Self::Operation, out: &mut Vec<u8>);

    /// Reverse of [`Self::encode_operation`]. An operation that this release does not know is an error, never skipped.
    fn decode_operation(bytes: &[u8]) -> Result<Self::Operation, FormatError>;

    /// The state that a root stands for. No part that has pages is loaded yet.
    fn from_root(log: LogId, root: &[u8]) -> Result<Self, FormatError>;

    /// Applies one operation. Effects on the root happen at once; effects on a part that is not loaded are remembered,
    /// and applied when it is installed.
    fn fold(&mut self, seq: u64, operation: &Self::Operation) -> Result<(), FoldError>;

    /// Whether a part can be used. A part that does not exist, or that has no pages yet, is loaded.
    fn pages_of(&self, part: &Self::Part) -> PartPages;

    /// Brings a part into memory from exactly the pages that [`Self::pages_of`] last named for this state, and applies
    /// what was remembered for it. Inner pages may make the part still [`PartPages::Missing`], of others.
    fn install(&mut self, part: &Self::Part, pages: Vec<(PageId, Bytes)>) -> Result<(), FormatError>;

    /// Every part that has pages: what a check loads to read them all. A state with pages overrides this; left as it is,
    /// only parts with changes are checked.
    fn parts(&self) -> Vec<Self::Part> {
        self.parts_dirty()
    }

    /// Parts that have to be loaded before [`Self::snapshot`] can be called: those with changes since the snapshot
    /// that this state started from.
    fn parts_dirty(&self) -> Vec<Self::Part>;

    /// About how many bytes of pages a snapshot would write.
    fn dirty_bytes(&self) -> usize;

    /// Encodes the state for a snapshot. Only pages that changed are written; the others are listed as they are.
    /// Runs beside commits on a frozen state, on a thread where it may take its time.
    fn snapshot(&self, new_page_id: &mut dyn FnMut() -> PageId) -> SnapshotPages<Self::Plan>;

    /// The snapshot that was taken when this state stood at `seq` is current now: later changes build on its pages,
    /// and what was folded up to `seq` is no longer dirty. Operations after `seq` may have been folded since.
    fn snapshotted(&mut self, seq: u64, taken: &SnapshotPages<Self::Plan>);

    /// The operation that says: entries up to `to` are in the archive, the newest chunk of which lies at `address`.
    fn archived_operation(to: u64, address: Bytes, nonce: Uuid) -> Self::Operation;

    /// What the last such operation said.
    fn archived(&self) -> Archived;

    /// Digest of the content, equal for all states that were folded from the same operations, wherever their pages lie
    /// and however they were reached. Called only when [`Self::parts_dirty`] are loaded.
    fn digest(&self) -> [u8; 32];

    /// Bytes in memory, roughly; decides what a bounded cache holds.
    fn weight(&self) -> usize;

    /// A part was loaded for a snapshot alone, which is current now: drops it, where it is clean. By default it stays.
    fn put_away(&mut self, part: &Self::Part) {
        let _ = part;
    }

    /// May drop loaded parts that are clean, the least recently used first, until about `bytes` are free.
    fn shed(&mut self, bytes: usize);
}
