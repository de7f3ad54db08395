//! For tests: a way to an engine in memory that can be slow or cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{EngineError, Row, RowKey, Rows, Table};

/// A node's way to the engine.
pub(crate) struct Path {
    rows: MemoryEngine,
    no_reads: AtomicBool,
    no_writes: AtomicBool,
    pub(crate) read_ms: AtomicU64,
    /// How long a write is under way. It lands then, whether anybody still waits for it or not.
    pub(crate) write_ms: AtomicU64,
}

impl Path {
    pub(crate) fn new(engine: &MemoryEngine) -> Arc<Self> {
        Arc::new(Self {
            rows: engine.clone(),
            no_reads: AtomicBool::new(false),
            no_writes: AtomicBool::new(false),
            read_ms: AtomicU64::new(0),
            write_ms: AtomicU64::new(0),
        })
    }

    /// Nothing is read any more, or nothing written.
    pub(crate) fn cut(&self, reads: bool, writes: bool) {
        self.no_reads.store(reads, Ordering::SeqCst);
        self.no_writes.store(writes, Ordering::SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.no_reads.load(Ordering::SeqCst) || self.no_writes.load(Ordering::SeqCst)
    }
}

fn unavailable_if(is: &AtomicBool) -> Result<(), EngineError> {
    if is.load(Ordering::SeqCst) { Err(EngineError::unavailable("cut")) } else { Ok(()) }
}

#[async_trait]
impl Rows for Path {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        unavailable_if(&self.no_writes)?;
        let (engine, ms) = (self.rows.clone(), self.write_ms.load(Ordering::SeqCst));
        let landing = tokio::spawn(async move {
            sleep_ms(ms).await;
            engine.put(rows).await
        });
        landing.await.unwrap()
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        unavailable_if(&self.no_writes)?;
        self.rows.put_new(row).await
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        unavailable_if(&self.no_writes)?;
        self.rows.replace_if(key, expected, new).await
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        unavailable_if(&self.no_reads)?;
        self.rows.get(key).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        unavailable_if(&self.no_reads)?;
        let rows = self.rows.scan(table, partition, from, limit).await;
        sleep_ms(self.read_ms.load(Ordering::SeqCst)).await;
        rows
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        unavailable_if(&self.no_reads)?;
        self.rows.partitions(table, after, limit).await
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        unavailable_if(&self.no_writes)?;
        self.rows.delete(keys).await
    }
}

pub(crate) async fn sleep_ms(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
