//! Reading a log again from some number on: for consumers that follow it, and for people who want to know what happened.

use bytes::Bytes;

use crate::chunk::Chunk;
use crate::context::{Context, OpenError};
use crate::error::{ArchiveError, EngineError, FormatError};
use crate::handle::LogHandle;
use crate::log::EntryRow;
use crate::state::State;
use crate::stored::open_entry_alone;

/// How often it is looked again when entries are trimmed while they are read.
const ATTEMPTS: u32 = 5;
/// Chunks of the archive whose place is remembered, some hundred bytes each.
const INDEX_MAX: usize = 10_000;

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed<O> {
    /// Operations with their numbers, dense and ascending.
    pub operations: Vec<(u64, O)>,
    /// Where the next part begins: the first number that is not here.
    pub next: u64,
}

/// Why a log cannot be read again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such log any more.
    #[error("no such log")]
    Missing,
    /// What was before this number is not kept.
    #[error("what was before number {0} is not kept")]
    Gone(u64),
    /// The back end failed.
    #[error("storage engine failed")]
    Engine(#[from] EngineError),
    /// The archive failed, or lacks a chunk.
    #[error("archive failed")]
    Archive(#[from] ArchiveError),
    /// A chunk of the archive is not what it should be.
    #[error("archive chunk cannot be used")]
    Chunk(#[from] FormatError),
    /// An entry is damaged, or not understood.
    #[error("entry cannot be used")]
    Entry(#[from] OpenError),
}

impl<S: State> LogHandle<S> {
    /// Operations from number `from` on, from the archive where the log does not hold them any more; at most `limit`,
    /// and fewer where an entry of many ends. None: nothing has come since.
    pub async fn replay(&self, from: u64, limit: usize) -> Result<Replayed<S::Operation>, ReplayError> {
        let context = self.context();
        let from = from.max(1);
        let rows = self.rows(context, from).await?;
        let mut replayed = Replayed { operations: Vec::new(), next: from };
        let mut before = None;
        for row in rows {
            if replayed.operations.len() >= limit || row.first_seq > replayed.next {
                break;
            }
            let what = || format!("entry {}..={}", row.first_seq, row.last_seq);
            let opened = open_entry_alone(context.log, &*context.sealer, &row);
            let (entry, follows) = opened.map_err(|source| context.stored(&what(), source))?;
            if before.is_some_and(|hash| hash != follows) {
                return Err(context.stored(&what(), crate::stored::StoredError::Chain).into());
            }
            before = Some(entry.hash);
            for (number, bytes) in entry.operations().filter(|(number, _)| *number >= from) {
                if replayed.operations.len() >= limit {
                    break;
                }
                let operation = S::decode_operation(bytes).map_err(|source| OpenError::Format {
                    place: format!("{} of {}", what(), context.log),
                    source,
                })?;
                replayed.operations.push((number, operation));
                replayed.next = number + 1;
            }
        }
        Ok(replayed)
    }

    /// Entries from the one that holds `from` on, dense.
    async fn rows(&self, context: &Context, from: u64) -> Result<Vec<EntryRow>, ReplayError> {
        let mut first_kept = from;
        for _ in 0..ATTEMPTS {
            let limit = context.options.read_entries_max;
            let tail = context.engine.log.tail_after(context.log, from - 1, limit).await?;
            let tail = tail.ok_or(ReplayError::Missing)?;
            match tail.rows.first() {
                Some(first) if first.first_seq <= from => return Ok(tail.rows),
                None if tail.head.seq < from => return Ok(Vec::new()),
                Some(first) => first_kept = first.first_seq,
                None => {}
            }
            if let Some(rows) = self.archived_rows(context, from).await? {
                return Ok(rows);
            }
            // Between the two looks more was archived and trimmed.
            let _ = self.refresh(&[]).await;
        }
        Err(ReplayError::Gone(first_kept))
    }

    /// The same from the archive. `None`: it ends before. Chunks lead to those before them alone, so where they lie is
    /// remembered: whoever reads on from there walks the chain once.
    async fn archived_rows(
        &self,
        context: &Context,
        from: u64,
    ) -> Result<Option<Vec<EntryRow>>, ReplayError> {
        let archived = self.state().archived();
        let Some(archive) = &context.archive else { return Ok(None) };
        if archived.seq < from || archived.address.is_empty() {
            return Ok(None);
        }
        let known =
            self.archive_index().lock().range(..=from).next_back().map(|(_, address)| address.clone());
        if let Some(address) = known {
            let chunk = Chunk::decode(&archive.read(context.log, address).await?)?;
            if chunk.rows.last().is_some_and(|row| row.last_seq >= from) {
                return Ok(Some(rows_from(chunk, from)));
            }
        }
        let mut address: Bytes = archived.address;
        loop {
            let chunk = Chunk::decode(&archive.read(context.log, address.clone()).await?)?;
            let first = chunk.rows.first().map_or(u64::MAX, |row| row.first_seq);
            {
                let mut index = self.archive_index().lock();
                if index.len() >= INDEX_MAX {
                    index.clear();
                }
                index.insert(first, address);
            }
            if first <= from {
                return Ok(Some(rows_from(chunk, from)));
            }
            if chunk.base.is_some() || chunk.previous.is_empty() {
                return Err(ReplayError::Gone(first));
            }
            address = chunk.previous;
        }
    }
}

/// The entries of a chunk from the one that holds `from` on.
fn rows_from(chunk: Chunk, from: u64) -> Vec<EntryRow> {
    chunk.rows.into_iter().filter(|row| row.last_seq >= from).collect()
}
