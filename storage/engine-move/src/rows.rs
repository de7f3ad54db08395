//! Rows of the engine over two.
//!
//! Pages lie with their log. All other rows are read from the source until the end, and written to the source first,
//! which decides; then the target gets what the source has. What fails there does not fail the caller: the row is noted,
//! and compared before the move ends. Both writes are durable, also those that need only be ordered: the next commit may
//! be one at the other engine, which would not make them so.

use async_trait::async_trait;
use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows, Table};

use crate::marks::settle;
use crate::moving::{Moving, Phase, Side};

/// How soon rows have to be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// When the call returns.
    Now,
    /// With the next commit.
    InOrder,
}

/// Whether rows of a table are only ever written under a condition, so that a back end must not be given plain writes
/// of them.
pub(crate) fn is_conditional(table: Table) -> bool {
    matches!(table, Table::Key | Table::Mark)
}

impl Moving {
    /// Where all of these rows are written, as long as nothing moves; asked behind their gates.
    fn only_side_of(&self, rows: &[Row]) -> Option<Side> {
        match self.phase() {
            Phase::Still => Some(Side::Source),
            Phase::Moved if rows.iter().all(|row| row.key.table != Table::Node) => Some(Side::Target),
            Phase::Moving | Phase::Moved => None,
        }
    }

    async fn write(&self, rows: Vec<Row>, durable: Durable) -> Result<(), EngineError> {
        let _open = self.inner.gates.pass_all(rows.iter().map(|row| &Self::gate_of(&row.key)[..])).await;
        if let Some(side) = self.only_side_of(&rows) {
            return match durable {
                Durable::Now => self.on(side).rows.put(rows).await,
                Durable::InOrder => self.on(side).rows.put_ordered(rows).await,
            };
        }
        let (mut source, mut target, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            if self.is_at_both(row.key.table) {
                both.push(row);
            } else {
                match self.side_of_rows(row.key.table, &row.key.partition) {
                    Side::Source => source.push(row),
                    Side::Target => target.push(row),
                }
            }
        }
        for (side, rows) in [(Side::Source, source), (Side::Target, target)] {
            match durable {
                _ if rows.is_empty() => {}
                Durable::Now => self.on(side).rows.put(rows).await?,
                Durable::InOrder => self.on(side).rows.put_ordered(rows).await?,
            }
        }
        if both.is_empty() {
            return Ok(());
        }
        let doubt = Doubt::about(self, both.iter().map(|row| row.key.clone()).collect());
        // After an error some may have been written.
        self.on(Side::Source).rows.put(both.clone()).await?;
        doubt.ends_with(self.mirror(both).await);
        Ok(())
    }

    async fn mirror(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        let (conditional, plain): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| is_conditional(row.key.table));
        if !plain.is_empty() {
            self.target().rows.put(plain).await?;
        }
        for Row { key, value } in conditional {
            settle(&*self.target().rows, &key, Some(value)).await?;
        }
        Ok(())
    }
}

/// Rows that are being written to the source and may then differ at the target. They are noted unless both writes are
/// known to have been done, also where the caller gives up in the middle.
struct Doubt<'a> {
    moving: &'a Moving,
    keys: Vec<RowKey>,
}

impl<'a> Doubt<'a> {
    fn about(moving: &'a Moving, keys: Vec<RowKey>) -> Self {
        Self { moving, keys }
    }

    fn ends_with(mut self, mirrored: Result<(), EngineError>) {
        match mirrored {
            Ok(()) => self.keys.clear(),
            Err(error) => {
                tracing::warn!(%error, rows = self.keys.len(), "rows were not copied to the target at once");
            }
        }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.moving.inner.unmirrored.lock().add(std::mem::take(&mut self.keys));
        }
    }
}

#[async_trait]
impl Rows for Moving {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.write(rows, Durable::Now).await
    }

    async fn put_ordered(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.write(rows, Durable::InOrder).await
    }

    async fn put_ordered_then_get(
        &self,
        rows: Vec<Row>,
        keys: Vec<RowKey>,
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        {
            let _open = self.inner.gates.pass_all(rows.iter().map(|row| &Self::gate_of(&row.key)[..])).await;
            if let Some(side) = self.only_side_of(&rows) {
                return self.on(side).rows.put_ordered_then_get(rows, keys).await;
            }
        }
        self.put_ordered(rows).await?;
        self.get_many(keys).await
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.replace_if(row.key, None, Some(row.value)).await
    }

    /// Two of them for one row do not overtake each other on the way to the target: the gate is closed meanwhile. They
    /// are rare.
    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        let _closed = self.inner.gates.close(Self::gate_of(&key)).await;
        if !self.is_at_both(key.table) {
            let side = self.side_of_rows(key.table, &key.partition);
            return self.on(side).rows.replace_if(key, expected, new).await;
        }
        let doubt = Doubt::about(self, vec![key.clone()]);
        let applied = self.on(Side::Source).rows.replace_if(key.clone(), expected, new.clone()).await?;
        let mirrored = if applied { settle(&*self.target().rows, &key, new).await } else { Ok(()) };
        doubt.ends_with(mirrored);
        Ok(applied)
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.on(self.side_of_rows(key.table, &key.partition)).rows.get(key).await
    }

    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        let sides: Vec<Side> = keys.iter().map(|key| self.side_of_rows(key.table, &key.partition)).collect();
        if let Some(first) = sides.first()
            && sides.iter().all(|side| side == first)
        {
            return self.on(*first).rows.get_many(keys).await;
        }
        let mut values = Vec::with_capacity(keys.len());
        for (key, side) in keys.into_iter().zip(sides) {
            values.push(self.on(side).rows.get(key).await?);
        }
        Ok(values)
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.on(self.side_of_rows(table, &partition)).rows.scan(table, partition, from, limit).await
    }

    async fn scan_keys(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.on(self.side_of_rows(table, &partition)).rows.scan_keys(table, partition, from, limit).await
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.on(self.side_of_rows(table, &[])).rows.partitions(table, after, limit).await
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        let _open = self.inner.gates.pass_all(keys.iter().map(|key| &Self::gate_of(key)[..])).await;
        let (mut source, mut target, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            if self.is_at_both(key.table) {
                both.push(key);
            } else {
                match self.side_of_rows(key.table, &key.partition) {
                    Side::Source => source.push(key),
                    Side::Target => target.push(key),
                }
            }
        }
        for (side, keys) in [(Side::Source, source), (Side::Target, target)] {
            if !keys.is_empty() {
                self.on(side).rows.delete(keys).await?;
            }
        }
        if both.is_empty() {
            return Ok(());
        }
        let doubt = Doubt::about(self, both.clone());
        self.on(Side::Source).rows.delete(both.clone()).await?;
        doubt.ends_with(self.target().rows.delete(both).await);
        Ok(())
    }
}
