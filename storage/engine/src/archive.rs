//! Where entries go before they are trimmed from their log.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::ArchiveError;
use crate::id::LogId;

/// Keeps chunks of a log's entries for replay, incremental backup and checking. A chunk is complete in itself: its
/// entries are sealed, numbered and chained, and it names the chunk before it.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Stores a chunk; durable when it returns. The address is opaque and at most a few hundred bytes.
    async fn write(&self, log: LogId, chunk: Bytes) -> Result<Bytes, ArchiveError>;

    /// Reads a chunk back.
    async fn read(&self, log: LogId, address: Bytes) -> Result<Bytes, ArchiveError>;
}
