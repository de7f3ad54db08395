//! Taking a blob in.

use bytes::Bytes;

use crate::{BlobAddress, BlobsError, Holder, KeyError, KeyId, Nonce, ReferenceError};

/// Takes a blob's bytes as they come. Dropped before [`BlobWriter::finish`] has returned, it leaves nothing reachable.
pub struct BlobWriter {
    #[expect(dead_code, reason = "skeleton")]
    holder: Holder,
    #[expect(dead_code, reason = "skeleton")]
    key: KeyId,
}

impl BlobWriter {
    /// Takes some bytes; waits when the medium is slower than the sender.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn write(&mut self, _bytes: Bytes) -> Result<(), WriteError> {
        unimplemented!()
    }

    /// Plain bytes taken so far.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Makes the blob durable, puts `facts` beside it (opaque bytes; may be empty) and a reference for the holder.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn finish(self, _facts: Bytes) -> Result<Stored, WriteError> {
        unimplemented!()
    }
}

/// A blob that is durable and referenced. Only [`BlobWriter::finish`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    address: BlobAddress,
    nonce: Nonce,
}

impl Stored {
    /// Where it lies.
    pub fn address(&self) -> &BlobAddress {
        &self.address
    }

    /// The reference that was put for the holder, to be kept by the record that names the blob.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The medium refused or failed.
    #[error("the blob could not be written")]
    Blobs(#[source] BlobsError),
    /// The key that is to wrap the blob's key cannot be had.
    #[error("the key for the blob cannot be had")]
    Key(#[from] KeyError),
    /// The reference could not be put.
    #[error("the reference could not be put")]
    Reference(#[from] ReferenceError),
    /// Larger than the configuration allows. Permanent.
    #[error("the blob exceeds {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// An earlier call on this writer failed.
    #[error("the writer failed earlier")]
    Failed,
}

impl WriteError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Key(KeyError::Erased(_)))
    }
}
