//! Rows in memory, and stores on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::{BlobAddress, BlobReader, BlobStore, Blobs, Config, Holder, KeyId, KeyRing, Stored};
use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows, Table};
use futures_util::StreamExt;
use parking_lot::Mutex;
use uuid::Uuid;

/// Rows of a test, all durable at once: what is under test here are the segments.
#[derive(Default)]
pub(crate) struct TestRows {
    rows: Mutex<BTreeMap<RowKey, Bytes>>,
    /// All calls fail while it is set.
    pub(crate) down: Mutex<bool>,
}

impl TestRows {
    fn check(&self) -> Result<(), EngineError> {
        if *self.down.lock() { Err(EngineError::unavailable("planned fault")) } else { Ok(()) }
    }
    pub(crate) fn count(&self, table: Table) -> usize {
        self.rows.lock().keys().filter(|key| key.table == table).count()
    }
    pub(crate) fn contains(&self, needle: &[u8]) -> bool {
        self.rows.lock().values().any(|value| value.windows(needle.len()).any(|window| window == needle))
    }
}

#[async_trait]
impl Rows for TestRows {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.check()?;
        self.rows.lock().extend(rows.into_iter().map(|row| (row.key, row.value)));
        Ok(())
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.replace_if(row.key, None, Some(row.value)).await
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        self.check()?;
        let mut rows = self.rows.lock();
        if rows.get(&key) != expected.as_ref() {
            return Ok(false);
        }
        match new {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
        Ok(true)
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.check()?;
        Ok(self.rows.lock().get(&key).cloned())
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.check()?;
        let rows = self.rows.lock();
        let mut found: Vec<Bytes> =
            rows.keys().filter(|key| key.table == table).map(|key| key.partition.clone()).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found
            .into_iter()
            .filter(|one| after.as_ref().is_none_or(|after| one > after))
            .take(limit)
            .collect())
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.check()?;
        let rows = self.rows.lock();
        let from = RowKey { table, partition: partition.clone(), key: from };
        let found =
            rows.range(from..).take_while(|(key, _)| key.table == table && key.partition == partition);
        Ok(found.take(limit).map(|(key, value)| (key.key.clone(), value.clone())).collect())
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        self.check()?;
        let mut rows = self.rows.lock();
        for key in keys {
            rows.remove(&key);
        }
        Ok(())
    }
}

pub(crate) const ACCOUNT: Uuid = Uuid::from_bytes([0xaa; 16]);
pub(crate) const KEY: KeyId = KeyId::Account(ACCOUNT);
pub(crate) const HOLDER: Holder = Holder::Account(ACCOUNT);

/// A ring on the rows, always of the same key-encryption key.
pub(crate) fn ring(rows: &Arc<TestRows>, config: &Config) -> KeyRing {
    KeyRing::new(KeyEncryptionKey::from_secret(&[9; 32]), Arc::clone(rows) as Arc<dyn Rows>, config)
}

/// A store whose account has its key.
pub(crate) async fn store(blobs: Arc<dyn Blobs>, rows: &Arc<TestRows>, config: Config) -> BlobStore {
    let keys = ring(rows, &config);
    keys.ensure(KEY).await.unwrap();
    BlobStore::new(blobs, Arc::clone(rows) as Arc<dyn Rows>, keys, config).await.unwrap()
}

/// Bytes that compress like mail, different for each seed.
pub(crate) fn text(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes()[..3 + (state % 5) as usize]);
        bytes.extend_from_slice(b" the same words\r\n");
    }
    bytes.truncate(length);
    bytes.into()
}

/// Writes in pieces of an odd length.
pub(crate) async fn write(store: &BlobStore, bytes: &Bytes, facts: &'static [u8]) -> Stored {
    let mut writer = store.writer(HOLDER, KEY);
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(70_001));
        writer.write(piece).await.unwrap();
    }
    assert_eq!(writer.size(), bytes.len() as u64);
    writer.finish(Bytes::from_static(facts)).await.unwrap()
}

pub(crate) async fn read_range(
    reader: &BlobReader,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, blob::ReadError> {
    let mut pieces = reader.read_range(range);
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        assert!(!piece.is_empty() && piece.len() <= 256 << 10);
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

pub(crate) async fn read(store: &BlobStore, address: &BlobAddress) -> Result<Vec<u8>, blob::ReadError> {
    let reader = store.open(address, KEY).await?;
    read_range(&reader, 0..u64::MAX).await
}
