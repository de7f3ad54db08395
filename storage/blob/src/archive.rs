//! The archive of logs: chunks of entries as blobs.
//!
//! A chunk's address is its blob's address and the nonce of its reference, so what is needed to read it and to let it go
//! stands in the log that it belongs to.

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Archive, ArchiveError, LogId, LogKind, with_causes};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::{BlobAddress, BlobStore, Holder, KeyId, Nonce, ReadError};

const ADDRESS_VERSION: u8 = 1;

/// Largest chunk that is read back. The actor's chunks are a small part of it.
const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// Where an archive chunk lies, behind a version byte.
#[derive(Serialize, Deserialize)]
struct ArchiveAddress {
    blob: BlobAddress,
    nonce: Nonce,
}

/// Keeps archive chunks in the blob store, each under the key of its log.
#[derive(Clone, Debug)]
pub struct BlobArchive(BlobStore);

impl BlobArchive {
    /// In `store`.
    pub fn new(store: BlobStore) -> Self {
        Self(store)
    }
}

impl KeyId {
    /// The key of a log: an account's own, for others one that belongs to no account.
    pub fn of_log(log: LogId) -> Self {
        match log.kind {
            LogKind::Account => Self::Account(log.id),
            LogKind::Shard | LogKind::Domain | LogKind::Registry => Self::System(log.id),
        }
    }
}

impl Holder {
    /// The holder of what a log's records name.
    pub fn of_log(log: LogId) -> Self {
        match log.kind {
            LogKind::Account => Self::Account(log.id),
            LogKind::Shard => Self::Shard(log.id),
            LogKind::Domain | LogKind::Registry => Self::Directory(log.id),
        }
    }
}

/// The blob and the reference that the address of an archive chunk names. `None`: it is no such address.
pub fn archive_holding(address: &[u8]) -> Option<(BlobAddress, Nonce)> {
    let ArchiveAddress { blob, nonce } = match address.split_first() {
        Some((&ADDRESS_VERSION, rest)) => postcard::from_bytes(rest).ok()?,
        _ => return None,
    };
    Some((blob, nonce))
}

#[async_trait]
impl Archive for BlobArchive {
    async fn write(&self, log: LogId, chunk: Bytes) -> Result<Bytes, ArchiveError> {
        let unavailable = |error: &dyn std::error::Error| ArchiveError::Unavailable(with_causes(error));
        let mut writer = self.0.writer(Holder::of_log(log), KeyId::of_log(log));
        writer.write(chunk).await.map_err(|error| unavailable(&error))?;
        let stored = writer.finish(Bytes::new()).await.map_err(|error| unavailable(&error))?;
        let address = ArchiveAddress { blob: *stored.address(), nonce: stored.nonce() };
        let mut bytes = vec![ADDRESS_VERSION];
        bytes.extend(postcard::to_stdvec(&address).expect("an address has only types that postcard encodes"));
        Ok(bytes.into())
    }

    async fn read(&self, log: LogId, address: Bytes) -> Result<Bytes, ArchiveError> {
        let blob = archive_holding(&address).map(|(blob, _)| blob);
        let blob = blob.filter(|blob| blob.size <= CHUNK_BYTES_MAX);
        let blob = blob.ok_or_else(|| ArchiveError::Missing(address.clone()))?;
        let failed = |error: ReadError| match error {
            ReadError::Missing { .. } => ArchiveError::Missing(address.clone()),
            error => ArchiveError::Unavailable(with_causes(&error)),
        };
        let reader = self.0.open(&blob, KeyId::of_log(log)).await.map_err(failed)?;
        let mut pieces = reader.read_range(0..u64::MAX);
        let mut chunk = Vec::with_capacity(blob.size as usize);
        while let Some(piece) = pieces.next().await {
            chunk.extend_from_slice(&piece.map_err(failed)?);
        }
        Ok(chunk.into())
    }
}
