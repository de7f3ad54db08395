//! Giving a blob back.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::Stream;

use crate::{BlobAddress, BlobsError, KeyError, SegmentId};

/// A blob that can be read by range. Cheap to clone; nothing was read yet when it is made.
#[derive(Clone)]
pub struct BlobReader {
    address: BlobAddress,
}

impl BlobReader {
    /// Number of plain bytes.
    pub fn size(&self) -> u64 {
        self.address.size
    }

    /// The bytes of the range (clipped to the blob) in pieces of at most 256 KiB, each verified before it is given.
    /// Nothing is read ahead of the consumer.
    pub fn read_range(
        &self,
        _range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + Unpin + 'static {
        futures_util::stream::empty()
    }

    /// The facts that were written with the blob.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn facts(&self) -> Result<Bytes, ReadError> {
        unimplemented!()
    }

    /// Reads everything and compares it with the blob id: for `check`.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn verify(&self) -> Result<(), ReadError> {
        unimplemented!()
    }
}

/// Why a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not what was written.
    #[error("segment {segment} frame {frame} is damaged: {what}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// The frame.
        frame: u32,
        /// What does not hold.
        what: &'static str,
    },
    /// The segment is gone and nothing says where its frames went.
    #[error("segment {segment} of frame {frame} is missing")]
    Missing {
        /// The segment.
        segment: SegmentId,
        /// The frame.
        frame: u32,
    },
    /// The medium failed.
    #[error("the blob could not be read")]
    Blobs(#[source] BlobsError),
    /// The key that wraps the blob's key cannot be had, or is not the caller's.
    #[error("the key for the blob cannot be had")]
    Key(#[from] KeyError),
}
