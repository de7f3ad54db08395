//! Logs and rows: the one storage primitive of Postrider, and the actor that everything which changes is built on.
//!
//! A *log* is a dense, numbered sequence of operations that are committed by compare-and-swap on its head, and a
//! *snapshot* (a root and immutable pages) that the log starts from. A back end implements the traits [`Log`] and
//! [`Rows`]. Above them, once and for all kinds of log, stand grouping, the protocol for unknown outcomes, snapshots,
//! trimming, archiving and page collection. An account, a queue shard or a domain brings only its [`State`].
//!
//! The crate knows no mail and no files. Start reading at [`state`] and [`log`]; `storage/DESIGN.md` has the bytes and
//! the rules.

mod actor;
pub mod archive;
mod aside;
mod causes;
pub mod chunk;
mod context;
#[cfg(any(test, feature = "contract"))]
#[allow(clippy::unwrap_used, missing_docs, reason = "tests for other crates")]
pub mod contract;
pub mod error;
mod handle;
mod hint;
#[cfg(test)]
mod history;
pub mod id;
mod level;
mod load;
pub mod log;
mod logs;
pub mod memory;
mod open_log;
mod options;
mod proposal;
mod replay;
mod request;
pub mod rows;
pub mod seal;
pub mod state;
mod stats;
pub mod stored;
mod verify;

pub use archive::Archive;
pub use aside::{Aborted, aside};
pub use causes::with_causes;
pub use context::{Engine, OpenError, page_partition};
pub use error::{ArchiveError, EngineError, FoldError, FormatError, Unsealed};
pub use handle::{CommitOptions, LogHandle};
pub use hint::{Following, Hints};
pub use id::{LogId, LogKind, PageId};
pub use level::FeatureLevel;
pub use log::{EntryRow, Head, Log, Outcome, SnapshotPointer, Tail};
pub use logs::{CreateError, Logs};
pub use open_log::ReadError;
pub use options::{LogOptions, Sabotage};
pub use replay::{ReplayError, Replayed};
pub use request::{Build, CommitError, Committed};
pub use rows::{Row, RowKey, Rows, Table};
pub use seal::Sealer;
pub use state::{Archived, PartPages, SnapshotPages, State};
pub use stats::LogStats;
pub use verify::{Verified, verify};
