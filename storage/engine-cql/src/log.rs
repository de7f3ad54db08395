//! Logs: a partition each, appended to by one conditional batch.

use async_trait::async_trait;
use bytes::Bytes;
use engine::{EngineError, EntryRow, Head, Log, LogId, LogKind, Outcome, SnapshotPointer, Tail};
use uuid::Uuid;

use crate::rows::PARTITIONS_MAX;
use crate::session::Cql;
use crate::statement::Prepared;

/// Entries in one answer: with entries of 32 KiB some megabytes.
const SLICE: usize = 64;

/// Reads of a tail that does not fit its head, the last ones at SERIAL. What it gives then is given: whoever loads a log
/// looks at it again.
const READS_MAX: u32 = 3;

type HeadColumns = (Option<i64>, Option<Uuid>, Option<i64>, Option<i64>);
type SliceColumns =
    (Option<i64>, Option<Uuid>, Option<i64>, Option<i64>, i64, Option<i64>, Option<Uuid>, Option<Bytes>);

/// Numbers are stored as signed; they never reach the half of their range.
fn stored(number: u64) -> Result<i64, EngineError> {
    i64::try_from(number).map_err(|_| EngineError::Damaged {
        place: "a number of a log".into(),
        reason: format!("{number} does not fit into 63 bits"),
    })
}

fn read(log: LogId, number: Option<i64>, what: &str) -> Result<u64, EngineError> {
    number.and_then(|number| u64::try_from(number).ok()).ok_or_else(|| EngineError::Damaged {
        place: log.to_string(),
        reason: format!("{what} is missing or negative"),
    })
}

/// `None`: there is no such log.
fn head_of(log: LogId, columns: HeadColumns) -> Result<Option<Head>, EngineError> {
    let (Some(seq), snap, snap_seq, snap_base) = columns else { return Ok(None) };
    let Some(id) = snap else {
        let reason = "a head without a snapshot".to_owned();
        return Err(EngineError::Damaged { place: log.to_string(), reason });
    };
    let snapshot = SnapshotPointer {
        id,
        seq: read(log, snap_seq, "snap_seq")?,
        base_seq: read(log, snap_base, "snap_base")?,
    };
    Ok(Some(Head { seq: read(log, Some(seq), "head")?, snapshot }))
}

fn malformed(log: LogId, error: impl std::error::Error) -> EngineError {
    EngineError::Damaged { place: log.to_string(), reason: error.to_string() }
}

/// Head and entries of one answer. No head: the answer had no row, which says nothing of the head.
struct Slice {
    head: Option<Head>,
    rows: Vec<EntryRow>,
    /// There may be more.
    full: bool,
}

impl Cql {
    /// Entries from `from` (a `last_seq`, inclusive), and the head as the same answer has it.
    async fn slice(&self, log: LogId, query: &Prepared, from: u64) -> Result<Slice, EngineError> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let answer = self.calls.rows(query, (log.id, from, SLICE as i32)).await?;
        let mut slice = Slice { head: None, rows: Vec::new(), full: answer.rows_num() >= SLICE };
        for row in answer.rows::<SliceColumns>().map_err(|error| malformed(log, error))? {
            let (head, snap, snap_seq, snap_base, last, first, nonce, entry) =
                row.map_err(|error| malformed(log, error))?;
            if slice.rows.is_empty() {
                slice.head = head_of(log, (head, snap, snap_seq, snap_base))?;
            }
            let (Some(nonce), Some(bytes)) = (nonce, entry) else {
                return Err(malformed(log, std::io::Error::other("an entry without nonce or bytes")));
            };
            let last_seq = read(log, Some(last), "last_seq")?;
            slice.rows.push(EntryRow { first_seq: read(log, first, "first_seq")?, last_seq, nonce, bytes });
        }
        Ok(slice)
    }

    /// Head and entries behind `after` (`None`: behind the snapshot), at most `limit`; from one answer as long as they
    /// fit into one.
    async fn tail(
        &self,
        log: LogId,
        query: &Prepared,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<Tail>, EngineError> {
        // From the entry before on, which is there unless it was trimmed: so an answer without news has the head too.
        let mut slice = self.slice(log, query, after.unwrap_or(0)).await?;
        let head = match slice.head {
            Some(head) => head,
            None => match self.head_at(log).await? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let after = after.unwrap_or(head.snapshot.seq);
        let mut rows: Vec<EntryRow> = Vec::new();
        loop {
            let next = slice.rows.last().map(|row| row.last_seq + 1);
            rows.extend(slice.rows.into_iter().filter(|row| row.last_seq > after));
            let Some(next) = next.filter(|_| slice.full && rows.len() < limit) else { break };
            // Entries that the snapshot has and that were not trimmed yet are passed over.
            slice = self.slice(log, query, next.max(after + 1)).await?;
        }
        rows.truncate(limit);
        Ok(Some(Tail { head, rows }))
    }

    /// [`Self::tail`], read again where rows are missing between snapshot or `after` and head.
    async fn whole_tail(
        &self,
        log: LogId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<Tail>, EngineError> {
        let statements = self.statements.logs(log.kind);
        let mut reads = 0;
        loop {
            let query = if reads > 1 { &statements.slice_serial } else { &statements.slice };
            let tail = self.tail(log, query, after, limit).await?;
            reads += 1;
            match &tail {
                Some(found) if reads < READS_MAX && !reaches_head(found, after, limit) => {}
                _ => return Ok(tail),
            }
        }
    }

    async fn head_at(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        let answer = self.calls.rows(&self.statements.logs(log.kind).head, (log.id,)).await?;
        match answer.maybe_first_row::<HeadColumns>().map_err(|error| malformed(log, error))? {
            Some(columns) => head_of(log, columns),
            None => Ok(None),
        }
    }
}

/// Whether entries follow each other up to the head, as far as the limit lets them.
fn reaches_head(tail: &Tail, after: Option<u64>, limit: usize) -> bool {
    let dense = tail.rows.windows(2).all(|two| two[0].last_seq + 1 == two[1].first_seq);
    let reached = match tail.rows.last() {
        Some(last) => last.last_seq >= tail.head.seq || tail.rows.len() == limit,
        None => after.unwrap_or(tail.head.snapshot.seq) >= tail.head.seq || limit == 0,
    };
    dense && reached
}

#[async_trait]
impl Log for Cql {
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError> {
        let (seq, base_seq) = (stored(snapshot.seq)?, stored(snapshot.base_seq)?);
        let values = (seq, snapshot.id, seq, base_seq, log.id);
        self.calls.decide(&self.statements.logs(log.kind).create, values).await
    }

    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.whole_tail(log, None, limit).await
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        self.head_at(log).await
    }

    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.whole_tail(log, Some(after), limit).await
    }

    async fn tail_of_any(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        let query = &self.statements.logs(log.kind).slice_once;
        let tail = self.tail(log, query, Some(after), limit).await?;
        Ok(tail.filter(|tail| reaches_head(tail, Some(after), limit)))
    }

    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError> {
        let (first, last) = (stored(entry.first_seq)?, stored(entry.last_seq)?);
        let statements = self.statements.logs(log.kind);
        let head = (last, log.id, first - 1);
        let row = (log.id, last, first, entry.nonce, &entry.bytes);
        match trim_to {
            None => self.calls.decide_batch(&statements.append, (head, row)).await,
            Some(to) => {
                let trim = (log.id, stored(to)?);
                self.calls.decide_batch(&statements.append_trim, (head, row, trim)).await
            }
        }
    }

    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError> {
        let values = (new.id, stored(new.seq)?, stored(new.base_seq)?, log.id, base);
        self.calls.decide(&self.statements.logs(log.kind).swing, values).await
    }

    async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        let statements = self.statements.logs(log.kind);
        // Again where nobody knows: without a head the condition fails, and that is what is wanted.
        match self.calls.decide_batch(&statements.delete, ((log.id,), (log.id,))).await? {
            Outcome::Applied | Outcome::Conflict => Ok(()),
            Outcome::Unknown => Err(EngineError::unavailable("it is not known whether the log was deleted")),
        }
    }

    /// In the order of tokens.
    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError> {
        let statements = self.statements.logs(kind);
        let mut after = after;
        let mut found = Vec::new();
        loop {
            let count = (limit - found.len()).min(PARTITIONS_MAX);
            if count == 0 {
                return Ok(found);
            }
            let answer = match after {
                None => self.calls.rows(&statements.first_logs, (count as i32,)).await?,
                Some(after) => self.calls.rows(&statements.next_logs, (after.id, count as i32)).await?,
            };
            let rows = answer.rows::<(Uuid, Option<i64>)>();
            let mut listed = 0;
            for row in rows.map_err(|error| EngineError::unavailable(error.to_string()))? {
                let (id, head) = row.map_err(|error| EngineError::unavailable(error.to_string()))?;
                let log = LogId { kind, id };
                listed += 1;
                after = Some(log);
                // What is left of a deleted one has no head.
                if head.is_some() {
                    found.push(log);
                }
            }
            if listed < count {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(head: u64, snapshot: u64, rows: &[(u64, u64)]) -> Tail {
        let snapshot = SnapshotPointer { id: Uuid::nil(), seq: snapshot, base_seq: 0 };
        let row = |(first_seq, last_seq): &(u64, u64)| EntryRow {
            first_seq: *first_seq,
            last_seq: *last_seq,
            nonce: Uuid::nil(),
            bytes: Bytes::new(),
        };
        Tail { head: Head { seq: head, snapshot }, rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn a_tail_with_a_hole_or_a_missing_end_is_noticed() {
        for (tail, after, limit, whole) in [
            (tail(5, 5, &[]), None, 10, true),
            (tail(6, 5, &[]), None, 10, false),
            (tail(6, 5, &[(6, 6)]), None, 10, true),
            (tail(9, 5, &[(6, 6), (7, 8)]), None, 10, false),
            (tail(9, 5, &[(6, 6), (7, 8)]), None, 2, true),
            (tail(9, 5, &[(6, 6), (8, 9)]), None, 10, false),
            (tail(9, 5, &[(6, 6), (7, 9), (10, 10)]), None, 10, true),
            (tail(9, 5, &[]), Some(9), 10, true),
            (tail(9, 5, &[]), Some(8), 10, false),
        ] {
            assert_eq!(reaches_head(&tail, after, limit), whole, "{tail:?} after {after:?}");
        }
    }
}
