//! The trait that a back end implements for rows: pages, references, marks, wrapped keys.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::EngineError;

/// A kind of row. The number is stored, so its meaning is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Table {
    /// Pages of snapshots. Partition: the log; key: the page id.
    Page = 1,
    /// Segments of message bytes. Partition and key: see the blob crate.
    Segment = 2,
    /// References to frames in segments.
    SegmentReference = 3,
    /// Where frames have gone that a compaction moved.
    Moved = 4,
    /// Wrapped keys: rows of their own, changed by compare-and-swap, so that deleting one erases what it sealed.
    Key = 5,
    /// Marks and progress of maintenance.
    Mark = 6,
    /// Nodes and their heartbeats.
    Node = 7,
}

impl Table {
    /// The table with this stored number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Page,
            2 => Self::Segment,
            3 => Self::SegmentReference,
            4 => Self::Moved,
            5 => Self::Key,
            6 => Self::Mark,
            7 => Self::Node,
            _ => return None,
        })
    }
}

/// Longest partition name, in bytes: one length byte is stored before it.
pub const PARTITION_BYTES_MAX: usize = 255;

/// Where a row lies.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RowKey {
    /// Its kind.
    pub table: Table,
    /// Rows of one partition lie together and can be scanned in the order of their keys. At most
    /// [`PARTITION_BYTES_MAX`].
    pub partition: Bytes,
    /// Its place in the partition.
    pub key: Bytes,
}

impl RowKey {
    /// The row of `table` at `key` in `partition`.
    pub fn new(table: Table, partition: impl Into<Bytes>, key: impl Into<Bytes>) -> Self {
        Self { table, partition: partition.into(), key: key.into() }
    }
}

impl std::fmt::Display for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/", self.table)?;
        for byte in &self.partition {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("/")?;
        for byte in &self.key {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Where it lies.
    pub key: RowKey,
    /// What it holds.
    pub value: Bytes,
}

impl Row {
    /// `value` at the given place.
    pub fn new(
        table: Table,
        partition: impl Into<Bytes>,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self { key: RowKey::new(table, partition, key), value: value.into() }
    }
}

/// Rows in a back end. Most are immutable: put once under a fresh key and deleted later. Rows that change (wrapped
/// keys, marks) are written by [`Rows::put_new`] and [`Rows::replace_if`] alone.
#[async_trait]
pub trait Rows: Send + Sync + 'static {
    /// Writes the rows; durable when it returns. Not all or nothing: after an error some may have been written.
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError>;

    /// Writes the rows so that they are visible when it returns and durable no later than any append, swing or durable
    /// put that is *called* after it returned. Cheaper where durability costs a sync: the one of the commit that uses
    /// the rows serves them too. Where a back end cannot promise that, it is the same as [`Self::put`].
    async fn put_ordered(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.put(rows).await
    }

    /// [`Self::put_ordered`], and when the rows are visible [`Self::get_many`]: for whoever has to look after having
    /// written.
    async fn put_ordered_then_get(
        &self,
        rows: Vec<Row>,
        keys: Vec<RowKey>,
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.put_ordered(rows).await?;
        self.get_many(keys).await
    }

    /// Writes the row if there is none at its place. `false`: there is one, and it stays. Durable when it returns.
    async fn put_new(&self, row: Row) -> Result<bool, EngineError>;

    /// If the row at `key` holds `expected` (`None`: if there is none), gives it the value `new` (`None`: deletes it).
    /// `false`: it holds something else. Durable when it returns.
    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError>;

    /// The value at `key`.
    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError>;

    /// The values at `keys`, in that order.
    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.get(key).await?);
        }
        Ok(values)
    }

    /// Keys and values of a partition from key `from` on (inclusive, empty: the first), ascending, at most `limit`.
    /// The next call starts at the last key with a zero byte appended.
    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError>;

    /// As [`Self::scan`], keys only.
    async fn scan_keys(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        Ok(self.scan(table, partition, from, limit).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// Up to `limit` partitions of a table that have rows, behind `after` (none: from the first one on), in an order of
    /// the back end's own that does not change. A full answer is followed by a call with its last partition. One that is
    /// emptied or begun meanwhile may be there or not. Pages lie with their logs: [`crate::Log::list`] has those.
    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError>;

    /// Deletes the rows that exist among these. Durable in the end, not necessarily when it returns: what is deleted is
    /// never needed again, so a row that comes back after a crash does no harm.
    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError>;
}

/// The key after which a scan that ended at `key` goes on.
pub fn successor(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
