//! Pages of snapshots, spread over partitions that stay small.
//!
//! A page lies in a bucket that follows from its name: the number of its base by thousands, and its own number by
//! hundreds. So a bucket holds what the snapshots of about [`BASES`] operations wrote, at most four times the bytes of
//! these operations, or [`NUMBERS`] pages of a larger one: tens of megabytes, however long the log lives. Which buckets a
//! log has is written down before the first page goes into one.

use bytes::Bytes;
use engine::{EngineError, LogId, PageId, RowKey};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::rows::{CONCURRENT, Scanned, Wanted, malformed, scan_by, scanned};
use crate::session::Cql;

/// Operations whose snapshots share buckets.
const BASES: u64 = 1 << 10;
/// Pages of one snapshot in a bucket.
const NUMBERS: u32 = 1 << 8;
/// Bits that the numbers of pages take in the name of a bucket.
const NUMBER_BITS: u32 = 24;

/// Groups of bases that a listing keeps although they are empty: a snapshot that can still become current writes only
/// into the newest.
const GROUPS_KEPT: u64 = 2;

/// The bucket of a page.
fn bucket_of(id: PageId) -> i64 {
    let group = (id.base_seq / BASES) << NUMBER_BITS;
    (group | u64::from(id.number / NUMBERS)).min(i64::MAX as u64) as i64
}

/// The bases that a bucket is for, by thousands.
fn group_of(bucket: i64) -> u64 {
    bucket as u64 >> NUMBER_BITS
}

/// Log and page that a row of the page table names.
fn names(key: &RowKey) -> Result<(LogId, PageId), EngineError> {
    let log = log_of(&key.partition)?;
    let id = PageId::from_key(&key.key).ok_or_else(|| malformed(key, "not the name of a page"))?;
    Ok((log, id))
}

pub(crate) fn log_of(partition: &Bytes) -> Result<LogId, EngineError> {
    LogId::from_bytes(partition).ok_or_else(|| EngineError::Damaged {
        place: "pages".into(),
        reason: "the partition is not the name of a log".into(),
    })
}

impl Cql {
    pub(crate) async fn put_page(&self, key: &RowKey, value: &Bytes) -> Result<(), EngineError> {
        let (log, id) = names(key)?;
        let bucket = bucket_of(id);
        let statements = &self.statements.logs(log.kind).page;
        if self.buckets_known.get(&(log, bucket)).is_none() {
            self.calls.run(&statements.put_bucket, (log.id, bucket)).await?;
            self.buckets_known.insert((log, bucket), ());
        }
        self.calls.run(&statements.put, (log.id, bucket, &key.key, value)).await?;
        Ok(())
    }

    pub(crate) async fn page(&self, key: &RowKey) -> Result<Option<Bytes>, EngineError> {
        let (log, id) = names(key)?;
        let statements = &self.statements.logs(log.kind).page;
        // One node that has it is enough: it is written once, before a head names it. One that has not says nothing.
        // One that was deleted may still be found, by whoever has an old head: then it is what that head means.
        for query in [&statements.get_once, &statements.get] {
            let answer = self.calls.rows(query, (log.id, bucket_of(id), &key.key)).await?;
            let value =
                answer.maybe_first_row::<(Option<Bytes>,)>().map_err(|error| malformed(key, error))?;
            if let Some((value,)) = value {
                return Ok(Some(value.unwrap_or_default()));
            }
        }
        Ok(None)
    }

    pub(crate) async fn delete_page(&self, key: &RowKey) -> Result<(), EngineError> {
        let (log, id) = names(key)?;
        let statements = &self.statements.logs(log.kind).page;
        self.calls.run(&statements.delete, (log.id, bucket_of(id), &key.key)).await?;
        Ok(())
    }

    /// Pages from `from` on, ascending.
    pub(crate) async fn scan_pages(
        &self,
        partition: &Bytes,
        from: &Bytes,
        limit: usize,
        wanted: Wanted,
    ) -> Result<Scanned, EngineError> {
        let log = log_of(partition)?;
        let base = from.first_chunk::<8>().map_or(0, |base| u64::from_be_bytes(*base));
        let group = base / BASES;
        let statements = &self.statements.logs(log.kind).page;
        let start = i64::try_from(group << NUMBER_BITS).unwrap_or(i64::MAX);
        let answer = self.calls.rows(&statements.buckets, (log.id, start)).await?;
        let buckets: Vec<i64> = answer
            .rows::<(i64,)>()
            .map_err(|error| EngineError::unavailable(error.to_string()))?
            .map(|row| row.map(|(bucket,)| bucket))
            .collect::<Result<_, _>>()
            .map_err(|error| EngineError::unavailable(error.to_string()))?;
        let newest = buckets.last().map_or(0, |last| group_of(*last));
        let mut found = Scanned::new();
        // One group of bases after the other: within one, pages of its buckets lie between each other.
        for together in buckets.chunk_by(|one, other| group_of(*one) == group_of(*other)) {
            let group = group_of(together[0]);
            let scans = stream::iter(together.to_vec()).map(|bucket| async move {
                let rows = self.scan_bucket(log, bucket, from, limit, wanted).await?;
                let all = base / BASES < group || from.is_empty();
                if rows.is_empty() && all && group + GROUPS_KEPT < newest {
                    self.calls.run(&statements.delete_bucket, (log.id, bucket)).await?;
                    self.buckets_known.remove(&(log, bucket));
                }
                Ok::<_, EngineError>(rows)
            });
            let mut rows: Scanned = scans.buffered(CONCURRENT).try_concat().await?;
            rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            found.extend(rows);
            if found.len() >= limit {
                found.truncate(limit);
                break;
            }
        }
        Ok(found)
    }

    async fn scan_bucket(
        &self,
        log: LogId,
        bucket: i64,
        from: &Bytes,
        limit: usize,
        wanted: Wanted,
    ) -> Result<Scanned, EngineError> {
        let statements = &self.statements.logs(log.kind).page;
        let query = if wanted == Wanted::Keys { &statements.scan_keys } else { &statements.scan };
        scan_by(from, limit, wanted, |from, count| async move {
            scanned(&self.calls.rows(query, (log.id, bucket, from, count)).await?, wanted)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn buckets_follow_from_names_and_sort_by_base() {
        let bucket = |base_seq, number| bucket_of(PageId { base_seq, attempt: Uuid::nil(), number });
        assert_eq!(bucket(0, 0), 0);
        assert_eq!(bucket(BASES - 1, NUMBERS - 1), 0);
        assert_eq!(bucket(0, NUMBERS), 1);
        assert!(bucket(0, u32::MAX) < bucket(BASES, 0));
        assert_eq!(group_of(bucket(5 * BASES + 7, u32::MAX)), 5);
        assert!(bucket(u64::MAX, 0) >= 0);
    }
}
