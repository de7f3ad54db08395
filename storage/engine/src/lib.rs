//! Logs and rows: the one storage primitive of Postrider, and the actor that everything which changes is built on.
//!
//! A *log* is a dense, numbered sequence of operations that are committed by compare-and-swap on its head, and a
//! *snapshot* (a root and immutable pages) that the log starts from. A back end implements the traits [`Log`] and
//! [`Rows`]. Above them, once and for all kinds of log, stand grouping, the protocol for unknown outcomes, snapshots,
//! trimming, archiving and page collection. An account, a queue shard or a domain brings only its [`State`].
//!
//! The crate knows no mail and no files. Start reading at [`state`] and [`log`]; `storage/DESIGN.md` has the bytes and
//! the rules.

pub mod archive;
pub mod error;
pub mod id;
pub mod log;
pub mod rows;
pub mod seal;
pub mod state;

pub use archive::Archive;
pub use error::{ArchiveError, EngineError, FoldError, FormatError, Unsealed};
pub use id::{LogId, LogKind, PageId};
pub use log::{EntryRow, Head, Log, Outcome, SnapshotPointer, Tail};
pub use rows::{Row, RowKey, Rows, Table};
pub use seal::Sealer;
pub use state::{Archived, PartPages, SnapshotPages, State};
