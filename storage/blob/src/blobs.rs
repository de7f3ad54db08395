//! The contract of a back end for segments.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::SegmentId;

/// A back end: named, immutable byte strings ("segments") that are written once, read by range, listed and deleted.
///
/// A segment appears by [`Blobs::put`] at once, or grows through an [`Appender`]. What a returned `Ok` means is in each
/// function's words; the suite in `blob::contract` holds every back end to them.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// What [`Blobs::begin`] gives.
    fn growth(&self) -> Growth;

    /// Stores a whole segment. Durable when it returns; when it fails, the segment may or may not be there.
    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError>;

    /// Begins a segment that grows, to about `expected` bytes as far as that is known (else zero). Refused when it
    /// exists.
    async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError>;

    /// Exactly the bytes of the range. A range that is not wholly there is [`BlobsError::OutOfRange`].
    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError>;

    /// What is there. An unsealed segment is there with [`Growth::Durable`] as soon as something in it is durable.
    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError>;

    /// Cuts an unsealed segment that no appender holds to `length`, appends `pieces` and seals it: the end of recovery.
    /// Durable when it returns.
    async fn finish(&self, segment: SegmentId, length: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError>;

    /// Removes a segment, sealed or not. One that is not there is no error.
    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError>;

    /// Up to `limit` segments with ids above `after`, in order of id.
    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError>;

    /// Segments that were begun and not sealed, those that an appender holds included.
    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError>;

    /// A hint that these ranges will be read soon, nearest first. Returns at once. Says how many of them, counted from
    /// the first, need not be announced again; a back end that has its hands full leaves the others to be announced
    /// later, one whose reads are quick does nothing and says all. What is begun ends by itself, and is bounded.
    fn prefetch(&self, ranges: &[(SegmentId, Range<u64>)]) -> usize {
        ranges.len()
    }

    /// What was read there is not what was written: copies that the back end keeps of it are let go. Says whether there
    /// may have been any, that is whether another read can give other bytes.
    async fn distrust(&self, _segment: SegmentId, _range: Range<u64>) -> bool {
        false
    }
}

/// A segment that grows. Dropped without [`Appender::seal`] it stays as far as it is durable, unsealed.
#[async_trait]
pub trait Appender: Send {
    /// Adds bytes at the end. They need not be durable, nor readable, when it returns.
    async fn append(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError>;

    /// Adds bytes at the end; all that was added so far is durable and readable when it returns. Only with
    /// [`Growth::Durable`]. After an error nothing more may be added: what the medium holds is not known.
    async fn commit(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError>;

    /// Adds the last bytes. The whole segment is durable and readable when it returns.
    async fn seal(self: Box<Self>, pieces: Vec<Bytes>) -> Result<(), BlobsError>;

    /// Gives the segment up; nothing of it stays. Used for what was never acknowledged.
    async fn abort(self: Box<Self>);
}

/// How segments of a back end grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// What was added can be made durable and read while the segment goes on growing (files).
    Durable,
    /// Nothing of a segment is there before it is sealed (objects).
    Whole,
}

/// A segment as a listing has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    /// The segment.
    pub segment: SegmentId,
    /// Its bytes so far.
    pub length: u64,
    /// Whether it is complete.
    pub sealed: bool,
}

/// Why a back end could not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobsError {
    /// No such segment.
    #[error("segment {0} is not there")]
    NotFound(SegmentId),
    /// A segment of that id exists.
    #[error("segment {0} exists already")]
    Exists(SegmentId),
    /// The segment is shorter than the range.
    #[error("segment {segment} has no bytes {start}..{end}")]
    OutOfRange {
        /// The segment.
        segment: SegmentId,
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
    },
    /// No room. Temporary: deleting something or a bigger disk helps.
    #[error("no space left for segments")]
    Full(#[source] Arc<io::Error>),
    /// The medium failed.
    #[error("segment storage failed during {during}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The back end is not reached, does not answer in time, or has too much to do. Temporary: it is far away.
    #[error("segment storage does not answer during {during}")]
    Unavailable {
        /// What was being done.
        during: &'static str,
        /// What was seen of it.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The back end was reached and refuses: credentials, rights, bucket or request are wrong. It stays so until a
    /// person changes something; nothing is said about the segment.
    #[error("segment storage refuses {during}")]
    Refused {
        /// What was being done.
        during: &'static str,
        /// What it said.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier write to this segment failed, so nothing more is added to it.
    #[error("segment {0} had a failed write and takes no more")]
    Poisoned(SegmentId),
    /// Another process has the folder open.
    #[error("the segment folder is in use by another process")]
    InUse,
    /// The back end was shut down.
    #[error("segment storage is shut down")]
    Closed,
}

impl BlobsError {
    /// Sorts an error of the system: a full disk or quota apart from the rest.
    pub fn from_io(during: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(Arc::new(source)),
            _ => Self::Io { during, source: Arc::new(source) },
        }
    }
}
