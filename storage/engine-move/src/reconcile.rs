//! Rows that are no pages: copied, and compared as often as one likes.
//!
//! Some rows at a time, behind a closed gate, so that what is written meanwhile is neither overwritten with what was read
//! before nor missed. What the target has and the source has not goes, since it was deleted while nobody mirrored it.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::rows::successor;
use engine::{EngineError, Row, RowKey, Table};
use futures_util::{TryStreamExt as _, stream};

use crate::error::MoveError;
use crate::flip::Gate;
use crate::marks::{decided, settle};
use crate::moving::{Moving, Side};
use crate::rows::is_conditional;
use crate::standing::{Standing, is_of_move};

/// Rows for which a gate is closed at once.
const BATCH: usize = 256;
/// Partitions that are compared at one time: most are a segment's, and small.
const PARTITIONS_AT_ONCE: usize = 8;
/// Partitions listed at once.
const PARTITIONS: usize = 256;

/// Tables whose rows lie at both sides. Keys first: without them nothing can be read.
pub(crate) const TABLES: [Table; 5] =
    [Table::Key, Table::Mark, Table::Segment, Table::SegmentReference, Table::Moved];

/// Rows that were looked at, and those of them that were not the same.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Compared {
    pub(crate) rows: u64,
    pub(crate) changed: u64,
}

impl Compared {
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.changed += other.changed;
    }
}

impl Moving {
    /// Gives a table at the target the rows that it has at the source.
    pub(crate) async fn reconcile(&self, table: Table) -> Result<Compared, MoveError> {
        let mut compared = Compared::default();
        for side in [Side::Source, Side::Target] {
            let mut after = None;
            loop {
                let listed = self.on(side).rows.partitions(table, after, PARTITIONS).await;
                let listed = listed.map_err(|error| failed(side, error))?;
                let Some(last) = listed.last() else { break };
                after = Some(last.clone());
                let listed = stream::iter(listed.into_iter().map(Ok));
                let looks =
                    listed.map_ok(|partition| async move { self.look_at(table, side, &partition).await });
                let all = looks.try_buffer_unordered(PARTITIONS_AT_ONCE);
                all.try_for_each(|one| {
                    compared.add(one);
                    std::future::ready(Ok(()))
                })
                .await?;
            }
        }
        Ok(compared)
    }

    /// A partition that is listed at a side; those that both have are the business of the source's list.
    async fn look_at(&self, table: Table, side: Side, partition: &Bytes) -> Result<Compared, MoveError> {
        if table == Table::Mark && (side == Side::Target || is_of_move(partition)) {
            return Ok(Compared::default());
        }
        if side == Side::Target && self.is_at_source(table, partition).await? {
            return Ok(Compared::default());
        }
        self.reconcile_partition(table, partition).await
    }

    async fn is_at_source(&self, table: Table, partition: &Bytes) -> Result<bool, MoveError> {
        let some = self.source().rows.scan_keys(table, partition.clone(), Bytes::new(), 1).await;
        Ok(!some.map_err(MoveError::source)?.is_empty())
    }

    async fn reconcile_partition(&self, table: Table, partition: &Bytes) -> Result<Compared, MoveError> {
        let mut compared = Compared::default();
        let mut from = Bytes::new();
        loop {
            let _closed = self.inner.gates.close(partition).await;
            let original = self.source().rows.scan(table, partition.clone(), from.clone(), BATCH).await;
            let original = original.map_err(MoveError::source)?;
            let next = match original.last() {
                Some((last, _)) if original.len() == BATCH => Some(successor(last)),
                _ => None,
            };
            compared.rows += original.len() as u64;
            let copy = self.copy_between(table, partition, from, next.as_ref()).await?;
            compared.changed += self.equalise(table, partition, original, copy).await?;
            match next {
                Some(next) => from = next,
                None => return Ok(compared),
            }
        }
    }

    /// Rows at the target from `from` on, below `to`.
    async fn copy_between(
        &self,
        table: Table,
        partition: &Bytes,
        from: Bytes,
        to: Option<&Bytes>,
    ) -> Result<BTreeMap<Bytes, Bytes>, MoveError> {
        let (mut rows, mut from) = (BTreeMap::new(), from);
        loop {
            let some = self.target().rows.scan(table, partition.clone(), from, BATCH).await;
            let some = some.map_err(MoveError::target)?;
            let Some((last, _)) = some.last() else { return Ok(rows) };
            from = successor(last);
            for (key, value) in some {
                if to.is_some_and(|to| key >= *to) {
                    return Ok(rows);
                }
                rows.insert(key, value);
            }
        }
    }

    async fn equalise(
        &self,
        table: Table,
        partition: &Bytes,
        original: Vec<(Bytes, Bytes)>,
        mut copy: BTreeMap<Bytes, Bytes>,
    ) -> Result<u64, MoveError> {
        let key = |name: Bytes| RowKey::new(table, partition.clone(), name);
        let mut missing = Vec::new();
        for (name, value) in original {
            match copy.remove(&name) {
                Some(copy) if copy == value => {}
                // What the nodes of the target have agreed on is theirs.
                Some(_) if table == Table::Mark => {}
                _ => missing.push(Row { key: key(name), value }),
            }
        }
        let extra: Vec<RowKey> = match table {
            Table::Mark => Vec::new(),
            _ => copy.into_keys().map(key).collect(),
        };
        let changed = (missing.len() + extra.len()) as u64;
        let rows = &*self.target().rows;
        if is_conditional(table) {
            for Row { key, value } in missing {
                settle(rows, &key, Some(value)).await.map_err(MoveError::target)?;
            }
            for key in extra {
                settle(rows, &key, None).await.map_err(MoveError::target)?;
            }
        } else {
            if !missing.is_empty() {
                rows.put(missing).await.map_err(MoveError::target)?;
            }
            if !extra.is_empty() {
                rows.delete(extra).await.map_err(MoveError::target)?;
            }
        }
        Ok(changed)
    }

    /// Copies the rows that were noted because a write to the target failed. `false`: there were more than could be
    /// noted, and everything has to be compared again.
    pub(crate) async fn settle_noted(&self, gate: Gate) -> Result<bool, MoveError> {
        // What was given up by its caller and is still on its way to the source is there when a later write is.
        self.standing_again().await?;
        let (keys, more) = {
            let mut noted = self.inner.unmirrored.lock();
            (std::mem::take(&mut noted.keys), std::mem::take(&mut noted.more))
        };
        let mut keys: Vec<RowKey> = keys.into_iter().collect();
        let mut outcome = Ok(!more);
        while let Some(key) = keys.pop() {
            if let Err(error) = self.settle_one(&key, gate).await {
                keys.push(key);
                outcome = Err(error);
                break;
            }
        }
        if !keys.is_empty() || more {
            let mut noted = self.inner.unmirrored.lock();
            noted.add(keys);
            noted.more |= more && outcome.is_err();
        }
        outcome
    }

    async fn settle_one(&self, key: &RowKey, gate: Gate) -> Result<(), MoveError> {
        let _closed = match gate {
            Gate::Open => Some(self.inner.gates.close(Self::gate_of(key)).await),
            Gate::Closed => None,
        };
        let source = &*self.source().rows;
        let value = if is_conditional(key.table) {
            decided(source, key).await
        } else {
            source.get(key.clone()).await
        };
        let value = value.map_err(MoveError::source)?;
        let rows = &*self.target().rows;
        let settled = match value {
            value if is_conditional(key.table) => settle(rows, key, value).await,
            Some(value) => rows.put(vec![Row { key: key.clone(), value }]).await,
            None => rows.delete(vec![key.clone()]).await,
        };
        settled.map_err(MoveError::target)
    }

    /// Writes down once more at the source that the move is under way.
    async fn standing_again(&self) -> Result<(), MoveError> {
        Standing::touch_away(&*self.source().rows).await?;
        Ok(())
    }
}

fn failed(side: Side, error: EngineError) -> MoveError {
    match side {
        Side::Source => MoveError::source(error),
        Side::Target => MoveError::target(error),
    }
}
