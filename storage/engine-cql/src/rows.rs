//! Rows that are not entries of a log.

use async_trait::async_trait;
use bytes::Bytes;
use engine::rows::successor;
use engine::{EngineError, Outcome, Row, RowKey, Rows, Table};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use scylla::response::query_result::QueryRowsResult;

use crate::session::Cql;
use crate::statement::RowStatements;

/// Rows of one call that are written or read at one time.
pub(crate) const CONCURRENT: usize = 32;

/// Rows of a scan in one answer; values may be large.
const VALUES_MAX: usize = 64;
const KEYS_MAX: usize = 4_096;
/// Partitions in one answer: each is looked for by itself on its nodes.
pub(crate) const PARTITIONS_MAX: usize = 256;

/// Keys and values, the latter empty where they were not asked for.
pub(crate) type Scanned = Vec<(Bytes, Bytes)>;

/// What a scan asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Keys,
    Values,
}

/// The rows of an answer to a query for keys, or for keys and values.
pub(crate) fn scanned(answer: &QueryRowsResult, wanted: Wanted) -> Result<Scanned, EngineError> {
    let failed = |error: &dyn std::fmt::Display| EngineError::unavailable(error.to_string());
    match wanted {
        Wanted::Keys => {
            let rows = answer.rows::<(Bytes,)>().map_err(|error| failed(&error))?;
            rows.map(|row| row.map(|(key,)| (key, Bytes::new())).map_err(|error| failed(&error))).collect()
        }
        Wanted::Values => {
            let rows = answer.rows::<(Bytes, Option<Bytes>)>().map_err(|error| failed(&error))?;
            rows.map(|row| {
                let (key, value) = row.map_err(|error| failed(&error))?;
                Ok((key, value.unwrap_or_default()))
            })
            .collect()
        }
    }
}

/// Reads up to `limit` rows from `from` on, by answers of bounded size.
pub(crate) async fn scan_by<F: Future<Output = Result<Scanned, EngineError>>>(
    from: &Bytes,
    limit: usize,
    wanted: Wanted,
    ask: impl Fn(Bytes, i32) -> F,
) -> Result<Scanned, EngineError> {
    let step = if wanted == Wanted::Values { VALUES_MAX } else { KEYS_MAX };
    let (mut found, mut from) = (Scanned::new(), from.clone());
    loop {
        let count = step.min(limit - found.len());
        if count == 0 {
            return Ok(found);
        }
        let rows = ask(from, count as i32).await?;
        let all = rows.len() < count;
        found.extend(rows);
        match found.last() {
            Some((last, _)) if !all => from = successor(last),
            _ => return Ok(found),
        }
    }
}

pub(crate) fn malformed(key: &RowKey, reason: impl std::fmt::Display) -> EngineError {
    EngineError::Damaged { place: key.to_string(), reason: reason.to_string() }
}

/// A conditional write of a row whose outcome has to be certain.
fn certain(outcome: Outcome) -> Result<bool, EngineError> {
    match outcome {
        Outcome::Applied => Ok(true),
        Outcome::Conflict => Ok(false),
        Outcome::Unknown => Err(EngineError::Undecided { reason: "the nodes did not say".into() }),
    }
}

/// A heartbeat's counter: the first eight bytes of its value. It is the timestamp of the row, so that a node whose clock
/// was ahead cannot hide the ones that come later.
fn counter(row: &Row) -> Result<i64, EngineError> {
    let counter = row.value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    counter
        .and_then(|counter| i64::try_from(counter).ok())
        .ok_or_else(|| malformed(&row.key, "a heartbeat without a counter"))
}

impl Cql {
    fn rows_of(&self, table: Table) -> Result<&RowStatements, EngineError> {
        self.statements.rows(table).ok_or_else(|| EngineError::Damaged {
            place: format!("{table:?}"),
            reason: "a table that this release does not know".into(),
        })
    }

    async fn put_row(&self, row: &Row) -> Result<(), EngineError> {
        let RowKey { table, partition, key } = &row.key;
        if *table == Table::Page {
            return self.put_page(&row.key, &row.value).await;
        }
        let put = &self.rows_of(*table)?.put;
        match table {
            Table::Node => self.calls.run(put, (partition, key, &row.value, counter(row)?)).await?,
            _ => self.calls.run(put, (partition, key, &row.value)).await?,
        };
        Ok(())
    }

    /// Puts rows of one partition by one statement.
    pub(crate) async fn put_batch(&self, rows: &[Row]) -> Result<(), EngineError> {
        let [first, _, ..] = rows else {
            return match rows.first() {
                Some(row) => self.put_row(row).await,
                None => Ok(()),
            };
        };
        let put = &self.rows_of(first.key.table)?.put;
        let values: Vec<_> = rows.iter().map(|row| (&row.key.partition, &row.key.key, &row.value)).collect();
        self.calls.run_batch(put, values).await?;
        Ok(())
    }

    async fn delete_row(&self, key: &RowKey) -> Result<(), EngineError> {
        if key.table == Table::Page {
            return self.delete_page(key).await;
        }
        let delete = &self.rows_of(key.table)?.delete;
        if key.table != Table::Node {
            self.calls.run(delete, (&key.partition, &key.key)).await?;
            return Ok(());
        }
        // A node that was only paused goes on with greater counters, which the deletion must not hide.
        if let Some(value) = self.row(key).await? {
            let stamp = counter(&Row { key: key.clone(), value })?;
            self.calls.run(delete, (stamp, &key.partition, &key.key)).await?;
        }
        Ok(())
    }

    async fn row(&self, key: &RowKey) -> Result<Option<Bytes>, EngineError> {
        if key.table == Table::Page {
            return self.page(key).await;
        }
        let answer = self.calls.rows(&self.rows_of(key.table)?.get, (&key.partition, &key.key)).await?;
        let value = answer.maybe_first_row::<(Option<Bytes>,)>().map_err(|error| malformed(key, error))?;
        Ok(value.map(|(value,)| value.unwrap_or_default()))
    }
}

impl Cql {
    async fn scan_rows(
        &self,
        table: Table,
        partition: &Bytes,
        from: &Bytes,
        limit: usize,
        wanted: Wanted,
    ) -> Result<Scanned, EngineError> {
        if table == Table::Page {
            return self.scan_pages(partition, from, limit, wanted).await;
        }
        let statements = self.rows_of(table)?;
        let query = if wanted == Wanted::Keys { &statements.scan_keys } else { &statements.scan };
        scan_by(from, limit, wanted, |from, count| async move {
            scanned(&self.calls.rows(query, (partition, from, count)).await?, wanted)
        })
        .await
    }
}

#[async_trait]
impl Rows for Cql {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        let puts = stream::iter(rows).map(|row| async move { self.put_row(&row).await });
        puts.buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn put_ordered_then_get(
        &self,
        rows: Vec<Row>,
        keys: Vec<RowKey>,
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        if let Some(answer) = self.put_together(&rows, &keys).await {
            return answer;
        }
        self.put(rows).await?;
        self.get_many(keys).await
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        let RowKey { table, partition, key } = &row.key;
        let statement = &self.rows_of(*table)?.put_new;
        certain(self.calls.decide(statement, (partition, key, &row.value)).await?)
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        let statements = self.rows_of(key.table)?;
        let (partition, name) = (&key.partition, &key.key);
        let outcome = match (expected, new) {
            // Not a read: it also decides what hangs.
            (None, None) => {
                self.calls.decide(&statements.delete_if, (partition, name, None::<Bytes>)).await?
            }
            (None, Some(new)) => self.calls.decide(&statements.put_new, (partition, name, new)).await?,
            (Some(expected), Some(new)) => {
                self.calls.decide(&statements.replace, (new, partition, name, expected)).await?
            }
            (Some(expected), None) => {
                self.calls.decide(&statements.delete_if, (partition, name, expected)).await?
            }
        };
        certain(outcome)
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.row(&key).await
    }

    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        let reads = stream::iter(keys).map(|key| async move { self.row(&key).await });
        reads.buffered(CONCURRENT).try_collect().await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Scanned, EngineError> {
        self.scan_rows(table, &partition, &from, limit, Wanted::Values).await
    }

    async fn scan_keys(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        let rows = self.scan_rows(table, &partition, &from, limit, Wanted::Keys).await?;
        Ok(rows.into_iter().map(|(key, _)| key).collect())
    }

    /// In the order of tokens.
    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        let statements = self.rows_of(table)?;
        let mut found: Vec<Bytes> = Vec::new();
        loop {
            let count = (limit - found.len()).min(PARTITIONS_MAX);
            if count == 0 {
                return Ok(found);
            }
            let answer = match found.last().or(after.as_ref()) {
                None => self.calls.rows(&statements.first_partitions, (count as i32,)).await?,
                Some(after) => self.calls.rows(&statements.next_partitions, (after, count as i32)).await?,
            };
            let before = found.len();
            for row in
                answer.rows::<(Bytes,)>().map_err(|error| EngineError::unavailable(error.to_string()))?
            {
                found.push(row.map_err(|error| EngineError::unavailable(error.to_string()))?.0);
            }
            if found.len() - before < count {
                return Ok(found);
            }
        }
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        let deletions = stream::iter(keys).map(|key| async move { self.delete_row(&key).await });
        deletions.buffer_unordered(CONCURRENT).try_collect().await
    }
}
