//! What everything that works on one log needs at hand, and the errors of opening and following it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::archive::Archive;
use crate::error::{EngineError, FoldError, FormatError};
use crate::hint::Hints;
use crate::id::{LogId, PageId};
use crate::level::FeatureLevel;
use crate::log::{EntryRow, Log};
use crate::options::LogOptions;
use crate::rows::{RowKey, Rows, Table};
use crate::seal::Sealer;
use crate::state::State;
use crate::stats::Counters;
use crate::stored::{ChainHash, StoredError, open_entry, open_page};

/// A back end: logs and rows that share one order of durability.
#[derive(Clone)]
pub struct Engine {
    /// Its logs.
    pub log: Arc<dyn Log>,
    /// Its rows.
    pub rows: Arc<dyn Rows>,
    /// How its logs tell other nodes that they moved.
    pub hints: Hints,
    /// Up to which level what is in it may be written. Asked by whoever builds an operation.
    pub level: FeatureLevel,
}

impl Engine {
    /// Logs and rows of one back end, that no other node is told about.
    pub fn new(log: Arc<dyn Log>, rows: Arc<dyn Rows>) -> Self {
        Self { log, rows, hints: Hints::default(), level: FeatureLevel::newest() }
    }

    /// The same back end, whose logs say and hear hints.
    #[must_use]
    pub fn with_hints(self, hints: Hints) -> Self {
        Self { hints, ..self }
    }

    /// The same back end, in which nothing above a level may be written.
    #[must_use]
    pub fn with_level(self, level: FeatureLevel) -> Self {
        Self { level, ..self }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Why a log cannot be opened or followed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such log. A deleted one stays deleted.
    #[error("no such log")]
    Missing,
    /// The back end failed.
    #[error("storage engine failed")]
    Engine(#[source] EngineError),
    /// An entry or page is damaged, or its key is gone.
    #[error("{place} cannot be used")]
    Stored {
        /// Which entry or page.
        place: String,
        /// Why not.
        #[source]
        source: StoredError,
    },
    /// The state does not understand what is stored.
    #[error("{place} is not understood")]
    Format {
        /// Which entry or page.
        place: String,
        /// Why not.
        #[source]
        source: FormatError,
    },
    /// An operation does not fit the state before it.
    #[error("the log contradicts itself")]
    Fold(#[source] FoldError),
    /// A page of the current snapshot is missing.
    #[error("page {0:?} of the current snapshot is missing")]
    PageMissing(PageId),
    /// Snapshot and tail did not fit together however often they were read.
    #[error("snapshot and tail do not fit together after {0} reads")]
    Torn(u32),
    /// Encoding a snapshot failed on a panic in the state.
    #[error("the state panicked: {0}")]
    Panicked(String),
}

impl OpenError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_temporary(),
            Self::Torn(_) => true,
            _ => false,
        }
    }
}

/// Everything about one log that does not change while it is open.
pub(crate) struct Context {
    pub(crate) log: LogId,
    pub(crate) engine: Engine,
    pub(crate) sealer: Arc<dyn Sealer>,
    pub(crate) archive: Option<Arc<dyn Archive>>,
    pub(crate) options: Arc<LogOptions>,
    pub(crate) counters: Arc<Counters>,
    /// KiB of pages that snapshots may have under way, all logs together.
    pub(crate) snapshots: Arc<Semaphore>,
}

impl Context {
    pub(crate) fn page_key(&self, id: PageId) -> RowKey {
        RowKey::new(Table::Page, page_partition(self.log), id.to_key().to_vec())
    }

    pub(crate) fn stored(&self, what: &str, source: StoredError) -> OpenError {
        OpenError::Stored { place: format!("{what} of {}", self.log), source }
    }

    /// Fetches pages, in the order of `ids`.
    pub(crate) async fn pages(&self, ids: &[PageId]) -> Result<Vec<(PageId, Bytes)>, OpenError> {
        let keys = ids.iter().map(|id| self.page_key(*id)).collect();
        let values = self.engine.rows.get_many(keys).await.map_err(OpenError::Engine)?;
        self.counters.pages_read.add(ids.len() as u64);
        ids.iter()
            .zip(values)
            .map(|(id, value)| {
                let value = value.ok_or(OpenError::PageMissing(*id))?;
                let plain = open_page(self.log, &*self.sealer, *id, &value)
                    .map_err(|source| self.stored(&format!("page {id:?}"), source))?;
                Ok((*id, plain))
            })
            .collect()
    }

    /// Folds a row that follows directly.
    pub(crate) fn fold_row<S: State>(
        &self,
        state: &mut S,
        seq: &mut u64,
        chain: &mut ChainHash,
        row: &EntryRow,
    ) -> Result<(), OpenError> {
        debug_assert_eq!(row.first_seq, *seq + 1, "the caller checks density");
        let what = || format!("entry {}..={}", row.first_seq, row.last_seq);
        let entry =
            open_entry(self.log, &*self.sealer, chain, row).map_err(|source| self.stored(&what(), source))?;
        for (number, bytes) in entry.operations() {
            let operation = S::decode_operation(bytes).map_err(|source| OpenError::Format {
                place: format!("{} of {}", what(), self.log),
                source,
            })?;
            state.fold(number, &operation).map_err(OpenError::Fold)?;
        }
        *seq = entry.last_seq;
        *chain = entry.hash;
        Ok(())
    }
}

/// The partition that the pages of a log lie in.
pub fn page_partition(log: LogId) -> Bytes {
    Bytes::copy_from_slice(&log.to_bytes())
}
