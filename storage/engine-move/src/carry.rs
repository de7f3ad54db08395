//! Copying one log to an engine where it is not, while it rests: for an account that moves on its own.
//!
//! Other than a log that moves with everything ([`crate::Moving`]) it has no gate: whoever asks has seen to it that nothing
//! is committed any more, and nobody looks for it at the target yet. What another node may still do to a log that rests is
//! to archive it, to swing its snapshot and to trim it; then the copy is made anew. A copy cannot be opened before it is
//! complete: its snapshot is named last.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::rows::successor;
use engine::{
    Engine, EngineError, EntryRow, Head, LogId, Outcome, Row, RowKey, Rows, SnapshotPointer, Table,
    page_partition,
};
use uuid::Uuid;

use crate::error::MoveError;

/// Copies of a log whose snapshot was just being replaced.
const COPIES_MAX: usize = 8;
/// Attempts at a write whose outcome is not known.
const TRIES: usize = 8;
/// Entries and pages in one answer.
const BATCH: usize = 64;
/// Names of pages in one answer.
const NAMES: usize = 4_096;

/// Copies a log that rests from one engine to another, and compares the copy with it. Whatever the target has of it goes
/// first. `None`: the source has no such log.
pub async fn carry_log(source: &Engine, target: &Engine, log: LogId) -> Result<Option<Head>, MoveError> {
    let carry = Carry { source, target, log };
    for _ in 0..COPIES_MAX {
        match carry.copy().await {
            Err(MoveError::Overtaken(_)) => {}
            copied => return copied,
        }
    }
    Err(MoveError::Overtaken(log))
}

/// Deletes what an engine has of a log: head and entries first, so that it is gone at once, then its pages.
pub async fn discard_log(engine: &Engine, log: LogId) -> Result<(), EngineError> {
    engine.log.delete(log).await?;
    loop {
        let names = engine.rows.scan_keys(Table::Page, page_partition(log), Bytes::new(), NAMES).await?;
        if names.is_empty() {
            return Ok(());
        }
        engine.rows.delete(names.into_iter().map(|name| page(log, name)).collect()).await?;
    }
}

struct Carry<'a> {
    source: &'a Engine,
    target: &'a Engine,
    log: LogId,
}

impl Carry<'_> {
    async fn copy(&self) -> Result<Option<Head>, MoveError> {
        discard_log(self.target, self.log).await.map_err(MoveError::target)?;
        let tail = self.source.log.tail_after(self.log, 0, 1).await.map_err(MoveError::source)?;
        let Some(tail) = tail else { return Ok(None) };
        let head = tail.head;
        let names = self.copy_pages().await?;
        let first = tail.rows.first().map_or(head.seq, |first| first.first_seq - 1);
        // Under the name of a snapshot that there is not, so that nobody can open a part of the log.
        self.create(SnapshotPointer { id: Uuid::new_v4(), seq: first, base_seq: head.snapshot.base_seq })
            .await?;
        self.copy_entries(first, head.seq).await?;
        self.swing(head.snapshot).await?;
        self.compare(head, first, &names).await?;
        Ok(Some(head))
    }

    async fn copy_pages(&self) -> Result<BTreeSet<Bytes>, MoveError> {
        let names = names(&*self.source.rows, self.log).await.map_err(MoveError::source)?;
        let all: Vec<Bytes> = names.iter().cloned().collect();
        for some in all.chunks(BATCH) {
            let keys: Vec<RowKey> = some.iter().map(|name| page(self.log, name.clone())).collect();
            let values = self.source.rows.get_many(keys.clone()).await.map_err(MoveError::source)?;
            let rows: Option<Vec<Row>> =
                keys.into_iter().zip(values).map(|(key, value)| Some(Row { key, value: value? })).collect();
            // One is gone: the snapshot was replaced.
            let rows = rows.ok_or(MoveError::Overtaken(self.log))?;
            self.target.rows.put(rows.clone()).await.map_err(MoveError::target)?;
            let keys = rows.iter().map(|row| row.key.clone()).collect();
            let copies = self.target.rows.get_many(keys).await.map_err(MoveError::target)?;
            for (row, copy) in rows.into_iter().zip(copies) {
                if copy.is_none_or(|copy| blake3::hash(&copy) != blake3::hash(&row.value)) {
                    return Err(self.differs("a page"));
                }
            }
        }
        Ok(names)
    }

    async fn create(&self, wanted: SnapshotPointer) -> Result<(), MoveError> {
        let log = &self.target.log;
        for _ in 0..TRIES {
            let outcome = log.create(self.log, wanted).await.map_err(MoveError::target)?;
            let there = log.head(self.log).await.map_err(MoveError::target)?;
            match there {
                Some(there) if there == (Head { seq: wanted.seq, snapshot: wanted }) => return Ok(()),
                // What an earlier attempt did has landed late.
                Some(_) => return Err(MoveError::Overtaken(self.log)),
                None if outcome == Outcome::Applied => return Err(self.differs("the head")),
                None => {}
            }
        }
        Err(unknown())
    }

    async fn copy_entries(&self, first: u64, to: u64) -> Result<(), MoveError> {
        let mut last = first;
        while last < to {
            let tail = self.source.log.tail_after(self.log, last, BATCH).await.map_err(MoveError::source)?;
            let rows = tail.map(|tail| tail.rows).unwrap_or_default();
            if rows.first().is_none_or(|entry| entry.first_seq != last + 1) {
                return Err(MoveError::Overtaken(self.log));
            }
            for entry in rows.iter().filter(|entry| entry.last_seq <= to) {
                self.append(entry).await?;
                last = entry.last_seq;
            }
        }
        Ok(())
    }

    async fn append(&self, entry: &EntryRow) -> Result<(), MoveError> {
        let log = &self.target.log;
        for _ in 0..TRIES {
            match log.append(self.log, entry, None).await.map_err(MoveError::target)? {
                Outcome::Applied => return Ok(()),
                Outcome::Unknown => {}
                Outcome::Conflict => {
                    // An earlier call may have done it.
                    let tail = log.tail_after(self.log, entry.first_seq - 1, 1).await;
                    let tail = tail.map_err(MoveError::target)?;
                    return match tail.and_then(|tail| tail.rows.into_iter().next()) {
                        Some(there) if there == *entry => Ok(()),
                        // Somebody who has the log open from before has gone on in it.
                        _ => Err(MoveError::Overtaken(self.log)),
                    };
                }
            }
        }
        Err(unknown())
    }

    async fn swing(&self, wanted: SnapshotPointer) -> Result<(), MoveError> {
        let log = &self.target.log;
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

    /// Reads everything again that the copy consists of, and whether the source still rests.
    async fn compare(&self, head: Head, first: u64, pages: &BTreeSet<Bytes>) -> Result<(), MoveError> {
        if self.target.log.head(self.log).await.map_err(MoveError::target)? != Some(head) {
            return Err(self.differs("the head"));
        }
        let mut last = first;
        while last < head.seq {
            let original = self.source.log.tail_after(self.log, last, BATCH).await;
            let original = original.map_err(MoveError::source)?.map(|tail| tail.rows).unwrap_or_default();
            let copy = self.target.log.tail_after(self.log, last, BATCH).await;
            let copy = copy.map_err(MoveError::target)?.map(|tail| tail.rows).unwrap_or_default();
            if original.first().is_none_or(|entry| entry.first_seq != last + 1) {
                return Err(MoveError::Overtaken(self.log));
            }
            if original.iter().filter(|entry| entry.last_seq <= head.seq).ne(copy.iter()) {
                return Err(self.differs("an entry"));
            }
            last = original.last().map_or(head.seq, |entry| entry.last_seq);
        }
        let of_target = names(&*self.target.rows, self.log).await.map_err(MoveError::target)?;
        if of_target != *pages {
            return Err(self.differs("the list of pages"));
        }
        match self.source.log.head(self.log).await.map_err(MoveError::source)? {
            Some(now) if now == head => Ok(()),
            _ => Err(MoveError::Overtaken(self.log)),
        }
    }

    fn differs(&self, what: &'static str) -> MoveError {
        MoveError::Differs { log: self.log, what }
    }
}

async fn names(rows: &dyn Rows, log: LogId) -> Result<BTreeSet<Bytes>, EngineError> {
    let (mut names, mut from) = (BTreeSet::new(), Bytes::new());
    loop {
        let some = rows.scan_keys(Table::Page, page_partition(log), from, NAMES).await?;
        let Some(last) = some.last() else { return Ok(names) };
        from = successor(last);
        names.extend(some);
    }
}

fn page(log: LogId, name: Bytes) -> RowKey {
    RowKey::new(Table::Page, page_partition(log), name)
}

fn unknown() -> MoveError {
    MoveError::target(EngineError::Undecided { reason: format!("no answer in {TRIES} attempts") })
}
