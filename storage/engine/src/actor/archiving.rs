//! Archiving: entries go into a chunk, then the operation is committed that says so; only then may they be trimmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use uuid::Uuid;

use super::group::Queued;
use super::snapshotting::Stage;
use super::{Actor, JobDone};
use crate::causes::with_causes;
use crate::chunk::{Chunk, ChunkBase};
use crate::context::{Context, OpenError, page_partition};
use crate::error::EngineError;
use crate::id::PageId;
use crate::log::SnapshotPointer;
use crate::open_log::Busy;
use crate::request::{Request, Verdict};
use crate::rows::{Table, successor};
use crate::state::{Archived, State};

/// A chunk is closed when it has so many bytes; what is left goes into the next one.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Pages read at once for the base of a first chunk.
const BASE_PAGES: usize = 64;

/// A chunk that is in the archive.
pub(crate) struct Written {
    from: Archived,
    to: u64,
    address: Bytes,
}

impl<S: State> Actor<S> {
    pub(super) fn start_archiving(&mut self) {
        let context = self.context.clone();
        let from = self.state.archived();
        let (base, to) = (self.base, self.seq);
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                let written = write_chunk(&context, from, base, to).await;
                drop(busy);
                JobDone::Archived(written)
            }
            .boxed(),
        );
    }

    pub(super) fn chunk_written(&mut self, result: Result<Written, NotWritten>) {
        if !matches!(self.stage, Stage::Archiving) {
            return;
        }
        match result {
            Ok(written) => {
                let settled = Arc::new(AtomicBool::new(false));
                self.stage = Stage::ArchiveCommitting { to: written.to, settled: settled.clone() };
                let busy = Busy::new(&self.shared.busy);
                self.queue.push_back(Queued::new(Box::new(SayArchived { written, settled, _busy: busy })));
            }
            Err(NotWritten::Gone { after }) => {
                let log = self.context.log;
                match missing(after, self.state.archived().seq, self.gone_after) {
                    Missing::Archived => {
                        tracing::debug!(%log, after, "another node has archived the entries");
                    }
                    Missing::Unexplained => {
                        // Whoever trimmed them has committed before that they are in the archive.
                        self.look = true;
                        self.gone_after = Some(after);
                    }
                    Missing::Lost => {
                        tracing::warn!(%log, after, "entries to be archived are not there any more");
                    }
                }
                self.snapshot_setback();
            }
            Err(NotWritten::Failed(error)) => {
                tracing::warn!(log = %self.context.log, error = with_causes(&error), "entries not archived");
                self.snapshot_setback();
            }
        }
    }
}

/// Why there is no new chunk.
pub(crate) enum NotWritten {
    /// The entries behind this number are not there any more.
    Gone { after: u64 },
    /// The log or the archive failed.
    Failed(OpenError),
}

impl From<OpenError> for NotWritten {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

/// Why entries are missing that were to be archived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missing {
    /// Another node has archived and trimmed them.
    Archived,
    /// So it may be: what it committed has not been folded yet.
    Unexplained,
    /// Nobody says so, and the log was looked at since.
    Lost,
}

/// Why the entries behind `after` are missing, where the state says that they are archived up to `archived`, and they were
/// missing behind `gone_after` the last time.
fn missing(after: u64, archived: u64, gone_after: Option<u64>) -> Missing {
    if archived > after {
        Missing::Archived
    } else if gone_after == Some(after) {
        Missing::Lost
    } else {
        Missing::Unexplained
    }
}

/// Reads the entries after `from`, up to `to`, and writes them as a chunk.
async fn write_chunk(
    context: &Context,
    from: Archived,
    base: SnapshotPointer,
    to: u64,
) -> Result<Written, NotWritten> {
    let archive = context.archive.as_ref().expect("archiving is started where there is an archive");
    let first = from.address.is_empty();
    let chunk_base = if first { Some(read_base(context, base).await?) } else { None };
    let mut last = if first { base.seq } else { from.seq };
    let mut rows = Vec::new();
    let mut bytes = 0;
    'reading: while last < to {
        let limit = context.options.read_entries_max;
        let tail = context.engine.log.tail_after(context.log, last, limit).await;
        let tail = tail.map_err(OpenError::Engine)?.ok_or(OpenError::Missing)?;
        if tail.rows.is_empty() {
            return Err(NotWritten::Gone { after: from.seq });
        }
        for row in tail.rows {
            if row.first_seq != last + 1 {
                return Err(NotWritten::Gone { after: from.seq });
            }
            if row.last_seq > to || (bytes >= CHUNK_BYTES && last > from.seq) {
                break 'reading;
            }
            last = row.last_seq;
            bytes += row.bytes.len();
            rows.push(row);
        }
    }
    let chunk = Chunk { log: context.log, previous: from.address.clone(), base: chunk_base, rows };
    let address = archive
        .write(context.log, chunk.encode())
        .await
        .map_err(|error| OpenError::Engine(EngineError::unavailable(error.to_string())))?;
    context.counters.archives.add(1);
    Ok(Written { from, to: last, address })
}

/// The pages of the log, among them all that the base refers to: a fold of the archive starts from them. Nothing has
/// been archived yet and so nothing been snapshotted, which leaves those that the log was made with.
async fn read_base(context: &Context, base: SnapshotPointer) -> Result<ChunkBase, OpenError> {
    let partition = page_partition(context.log);
    let mut pages = Vec::new();
    let mut from = Bytes::new();
    loop {
        let rows = &context.engine.rows;
        let page = rows.scan(Table::Page, partition.clone(), from, BASE_PAGES).await;
        let page = page.map_err(OpenError::Engine)?;
        let complete = page.len() < BASE_PAGES;
        let Some((last, _)) = page.last() else { break };
        from = successor(last);
        pages.extend(page.into_iter().filter_map(|(key, value)| Some((PageId::from_key(&key)?, value))));
        if complete {
            break;
        }
    }
    Ok(ChunkBase { snapshot: base, pages })
}

/// The actor's own commit: entries up to `to` are in the archive.
struct SayArchived {
    written: Written,
    settled: Arc<AtomicBool>,
    _busy: Busy,
}

impl<S: State> Request<S> for SayArchived {
    fn parts(&self) -> &[S::Part] {
        &[]
    }

    fn begin(&mut self) -> bool {
        true
    }

    fn build(&mut self, state: &S) -> Vec<S::Operation> {
        // Another node may have archived the same entries; the chain of chunks follows the one that is committed.
        // Model commit: Rule::ArchiveChained.
        if state.archived() != self.written.from {
            return Vec::new();
        }
        let Written { to, address, .. } = &self.written;
        vec![S::archived_operation(*to, address.clone(), Uuid::new_v4())]
    }

    fn withdrawn(&mut self) {}

    fn in_doubt(&mut self) {}

    fn settle(self: Box<Self>, _: Verdict) {
        self.settled.store(true, Ordering::SeqCst);
    }

    fn repeatable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_another_node_has_archived_are_no_trouble() {
        for (archived, gone_after, why) in [
            (9, None, Missing::Archived),
            (9, Some(4), Missing::Archived),
            (4, None, Missing::Unexplained),
            (4, Some(2), Missing::Unexplained),
            (4, Some(4), Missing::Lost),
        ] {
            assert_eq!(missing(4, archived, gone_after), why, "{archived} {gone_after:?}");
        }
    }
}
