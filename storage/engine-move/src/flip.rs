//! Moving one log.
//!
//! While calls go on at the source, pages and entries are copied. Then the gate is closed: the rest is copied, the copy is
//! compared with the original, and the log's mark is set. **From the instant of the mark the target is the truth about
//! the log**; before it the source is, and whatever was copied is thrown away by the next attempt.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use engine::rows::successor;
use engine::{
    EngineError, EntryRow, Head, LogId, Outcome, Row, RowKey, SnapshotPointer, Table, page_partition,
};

use crate::error::MoveError;
use crate::marks::Attempt;
use crate::moving::{Moving, Side};

/// Attempts at the entries of a log that goes on faster than it is copied, before its gate is closed for all of them.
const ATTEMPTS: usize = 2;
/// Attempts at a write whose outcome is not known.
const TRIES: usize = 8;
/// Entries and pages in one answer.
const BATCH: usize = 64;
/// Names of pages in one answer.
const NAMES: usize = 4_096;
/// Between two questions about a mark that nobody can tell about.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether others may write while the log moves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may, so the gate has to be closed.
    Open,
    /// All gates are closed.
    Closed,
}

/// Entries and pages of one log that were copied.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
}

impl Moving {
    /// Moves a log to the target. One that is there, or nowhere, is no error.
    pub(crate) async fn flip(&self, log: LogId, gate: Gate) -> Result<Copied, MoveError> {
        let mut flip = Flip::of(self, log);
        let Some(attempt) = flip.attempt().await? else { return Ok(flip.copied) };
        let last = match gate {
            Gate::Open => {
                flip.copy_pages().await?;
                let last = flip.copy_log().await?;
                flip.copy_pages().await?;
                last
            }
            Gate::Closed => None,
        };
        // By itself, so that it comes to its end whoever waits for it.
        let rest = tokio::spawn(async move {
            let moving = flip.moving.clone();
            let name = flip.log.to_bytes();
            let _closed = match gate {
                Gate::Open => Some(moving.inner.gates.close(&name).await),
                Gate::Closed => None,
            };
            flip.end(attempt, last).await
        });
        rest.await.unwrap_or_else(|panic| Err(MoveError::target(EngineError::unavailable(panic.to_string()))))
    }

    /// Deletes what is at the target of a log that was never moved and is not at the source.
    pub(crate) async fn drop_copy(&self, log: LogId) -> Result<(), MoveError> {
        if self.side_of(log) == Side::Target {
            return Ok(());
        }
        let _closed = self.inner.gates.close(&log.to_bytes()).await;
        let flip = Flip::of(self, log);
        if self.side_of(log) == Side::Target || flip.source_head().await?.is_some() {
            return Ok(());
        }
        flip.clear().await
    }
}

struct Flip {
    moving: Moving,
    log: LogId,
    copied: Copied,
    /// Pages that were copied and compared.
    names: BTreeSet<Bytes>,
}

impl Flip {
    fn of(moving: &Moving, log: LogId) -> Self {
        Self { moving: moving.clone(), log, copied: Copied::default(), names: BTreeSet::new() }
    }

    /// Begins an attempt. `None`: there is nothing to move.
    async fn attempt(&self) -> Result<Option<Attempt>, MoveError> {
        if self.moving.side_of(self.log) == Side::Target || self.source_head().await?.is_none() {
            return Ok(None);
        }
        let begun = Attempt::begin(&*self.moving.target().rows, self.log).await;
        let attempt = begun.map_err(MoveError::target)?;
        match attempt {
            // Marked by this process, which does not open a gate before it knows of its mark.
            None => self.moving.moves(self.log),
            Some(_) => self.clear().await?,
        }
        Ok(attempt)
    }

    /// What an earlier attempt has left at the target goes.
    async fn clear(&self) -> Result<(), MoveError> {
        let target = self.moving.target();
        target.log.delete(self.log).await.map_err(MoveError::target)?;
        loop {
            let names = target.rows.scan_keys(Table::Page, page_partition(self.log), Bytes::new(), NAMES);
            let names = names.await.map_err(MoveError::target)?;
            if names.is_empty() {
                return Ok(());
            }
            let keys = names.into_iter().map(|name| self.page(name)).collect();
            target.rows.delete(keys).await.map_err(MoveError::target)?;
        }
    }

    /// Copies the entries that are there, and says behind which number it ended. `None`: the log goes on, and is
    /// trimmed, faster than it is copied. What it holds is bounded then, and copied behind a closed gate.
    async fn copy_log(&mut self) -> Result<Option<u64>, MoveError> {
        for _ in 0..ATTEMPTS {
            match self.copy_all_entries().await {
                Err(MoveError::Overtaken(_)) => {}
                copied => return copied,
            }
        }
        Ok(None)
    }

    /// Copies all entries into a log that is made for them. `None`: the log was deleted.
    async fn copy_all_entries(&mut self) -> Result<Option<u64>, MoveError> {
        self.moving.target().log.delete(self.log).await.map_err(MoveError::target)?;
        match self.begin().await? {
            Some(last) => self.copy_entries(last).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes the log at the target so that the oldest entry can follow, and says behind which number. `None`: it was
    /// deleted.
    async fn begin(&self) -> Result<Option<u64>, MoveError> {
        let (source, target) = (self.moving.source(), self.moving.target());
        let tail = source.log.tail_after(self.log, 0, 1).await.map_err(MoveError::source)?;
        let Some(tail) = tail else { return Ok(None) };
        let seq = tail.rows.first().map_or(tail.head.seq, |first| first.first_seq - 1);
        let wanted = SnapshotPointer { seq, ..tail.head.snapshot };
        for _ in 0..TRIES {
            let outcome = target.log.create(self.log, wanted).await.map_err(MoveError::target)?;
            if outcome == Outcome::Applied {
                return Ok(Some(seq));
            }
            let there = target.log.head(self.log).await.map_err(MoveError::target)?;
            if there == Some(Head { seq, snapshot: wanted }) {
                return Ok(Some(seq));
            }
            if there.is_some() {
                // What an earlier attempt did has landed late.
                return Err(MoveError::Overtaken(self.log));
            }
        }
        Err(unknown())
    }

    /// Copies entries behind number `last`, as far as they are there, and says behind which number it ended.
    async fn copy_entries(&mut self, mut last: u64) -> Result<u64, MoveError> {
        loop {
            let tail = self.moving.source().log.tail_after(self.log, last, BATCH).await;
            let Some(tail) = tail.map_err(MoveError::source)? else { return Ok(last) };
            let whole = tail.rows.len() < BATCH;
            for entry in tail.rows {
                if entry.first_seq != last + 1 {
                    // Trimmed before it was copied.
                    return Err(MoveError::Overtaken(self.log));
                }
                self.append(&entry).await?;
                last = entry.last_seq;
                self.copied.bytes += entry.bytes.len() as u64;
            }
            if whole {
                return Ok(last);
            }
        }
    }

    async fn append(&self, entry: &EntryRow) -> Result<(), MoveError> {
        let log = &self.moving.target().log;
        for _ in 0..TRIES {
            match log.append(self.log, entry, None).await.map_err(MoveError::target)? {
                Outcome::Applied => return Ok(()),
                Outcome::Unknown => {}
                Outcome::Conflict => {
                    // An earlier call may have done it.
                    let tail =
                        log.tail_after(self.log, entry.first_seq - 1, 1).await.map_err(MoveError::target)?;
                    return match tail.and_then(|tail| tail.rows.into_iter().next()) {
                        Some(there) if there == *entry => Ok(()),
                        _ => Err(self.differs("an entry")),
                    };
                }
            }
        }
        Err(unknown())
    }

    /// Copies pages that were not copied yet, and takes away those that are no longer there.
    async fn copy_pages(&mut self) -> Result<(), MoveError> {
        let (source, target) = (self.moving.source().rows.clone(), self.moving.target().rows.clone());
        let names = self.names_at(Side::Source).await?;
        let missing: Vec<Bytes> = names.difference(&self.names).cloned().collect();
        for some in missing.chunks(BATCH) {
            let keys: Vec<RowKey> = some.iter().map(|name| self.page(name.clone())).collect();
            let values = source.get_many(keys.clone()).await.map_err(MoveError::source)?;
            // Those that were collected meanwhile are no page of the current snapshot.
            let rows: Vec<Row> = keys
                .into_iter()
                .zip(values)
                .filter_map(|(key, value)| Some(Row { key, value: value? }))
                .collect();
            target.put(rows.clone()).await.map_err(MoveError::target)?;
            let keys = rows.iter().map(|row| row.key.clone()).collect();
            let copies = target.get_many(keys).await.map_err(MoveError::target)?;
            for (row, copy) in rows.into_iter().zip(copies) {
                if copy.is_none_or(|copy| blake3::hash(&copy) != blake3::hash(&row.value)) {
                    return Err(self.differs("a page"));
                }
                self.copied.bytes += row.value.len() as u64;
                self.names.insert(row.key.key);
            }
        }
        let collected: Vec<Bytes> = self.names.difference(&names).cloned().collect();
        if !collected.is_empty() {
            let keys = collected.iter().map(|name| self.page(name.clone())).collect();
            target.delete(keys).await.map_err(MoveError::target)?;
            self.names.retain(|name| names.contains(name));
        }
        Ok(())
    }

    /// The part for which nobody else writes.
    async fn end(mut self, attempt: Attempt, last: Option<u64>) -> Result<Copied, MoveError> {
        #[cfg(test)]
        if self.moving.inner.marks_before_check.load(std::sync::atomic::Ordering::SeqCst) {
            return self.mark(attempt).await;
        }
        let Some(head) = self.source_head().await? else { return Ok(self.copied) };
        let followed = match last {
            Some(last) => self.copy_entries(last).await.map(Some),
            None => Ok(None),
        };
        let last = match followed {
            Ok(Some(last)) if last == head.seq => Some(last),
            // The snapshot has come so far that entries between were trimmed.
            Ok(_) | Err(MoveError::Overtaken(_)) => self.copy_all_entries().await?,
            Err(error) => return Err(error),
        };
        if last != Some(head.seq) {
            // Something late has landed at the source.
            return Err(MoveError::Overtaken(self.log));
        }
        self.copy_pages().await?;
        self.swing(head.snapshot).await?;
        self.compare(head).await?;
        self.mark(attempt).await
    }

    async fn swing(&self, wanted: SnapshotPointer) -> Result<(), MoveError> {
        let log = &self.moving.target().log;
        for _ in 0..TRIES {
            let there = log.head(self.log).await.map_err(MoveError::target)?;
            let Some(there) = there else { return Err(self.differs("the head")) };
            if there.snapshot == wanted {
                return Ok(());
            }
            log.swing(self.log, there.snapshot.id, wanted).await.map_err(MoveError::target)?;
        }
        Err(unknown())
    }

    /// Reads everything again that the copy consists of.
    async fn compare(&self, head: Head) -> Result<(), MoveError> {
        let (source, target) = (self.moving.source(), self.moving.target());
        if target.log.head(self.log).await.map_err(MoveError::target)? != Some(head) {
            return Err(self.differs("the head"));
        }
        let mut after = None;
        loop {
            let original = source.log.tail_after(self.log, after.unwrap_or(0), BATCH).await;
            let original = original.map_err(MoveError::source)?.map(|tail| tail.rows).unwrap_or_default();
            let Some(first) = original.first() else { break };
            // The copy may have older ones, which were trimmed meanwhile.
            let copy = target.log.tail_after(self.log, first.first_seq - 1, BATCH).await;
            let copy = copy.map_err(MoveError::target)?.map(|tail| tail.rows).unwrap_or_default();
            if original.iter().ne(copy.iter().take(original.len())) {
                return Err(self.differs("an entry"));
            }
            after = original.last().map(|last| last.last_seq);
        }
        if after.is_some_and(|last| last != head.seq) {
            return Err(self.differs("the last entry"));
        }
        if self.names_at(Side::Source).await? != self.names
            || self.names_at(Side::Target).await? != self.names
        {
            return Err(self.differs("the list of pages"));
        }
        Ok(())
    }

    /// Sets the mark. Until it is known whether it is set the gate stays closed: nobody knows where to write.
    async fn mark(self, attempt: Attempt) -> Result<Copied, MoveError> {
        loop {
            match attempt.end(&*self.moving.target().rows).await {
                Ok(true) => {
                    self.moving.moves(self.log);
                    return Ok(self.copied);
                }
                Ok(false) => return Err(self.differs("the attempt")),
                Err(EngineError::Poisoned { reason }) => {
                    // Only a new process can find out.
                    tracing::error!(log = %self.log, reason, "the target has stopped; writes to this log wait");
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::warn!(log = %self.log, %error, "not known whether a log has moved; asked again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn source_head(&self) -> Result<Option<Head>, MoveError> {
        self.moving.source().log.head(self.log).await.map_err(MoveError::source)
    }

    async fn names_at(&self, side: Side) -> Result<BTreeSet<Bytes>, MoveError> {
        let (mut names, mut from) = (BTreeSet::new(), Bytes::new());
        loop {
            let rows = &self.moving.on(side).rows;
            let some = rows.scan_keys(Table::Page, page_partition(self.log), from, NAMES).await;
            let some = some.map_err(match side {
                Side::Source => MoveError::source,
                Side::Target => MoveError::target,
            })?;
            let Some(last) = some.last() else { return Ok(names) };
            from = successor(last);
            names.extend(some);
        }
    }

    fn page(&self, name: Bytes) -> RowKey {
        RowKey::new(Table::Page, page_partition(self.log), name)
    }

    fn differs(&self, what: &'static str) -> MoveError {
        MoveError::Differs { log: self.log, what }
    }
}

fn unknown() -> MoveError {
    MoveError::target(EngineError::Undecided { reason: format!("no answer in {TRIES} attempts") })
}
