//! Giving a blob back.
//!
//! A short frame is read whole, in one go. Of a long one the trailer is read first, since it says where the chunks
//! are, then header and chunks as they are asked for. Every chunk is verified by its seal before any byte of it is given.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;

use crate::format::chunk::{BlobKey, Part, Position, plain_bytes};
use crate::format::frame::{FIXED_BYTES, FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer};
use crate::format::{CHUNK_BYTES, CHUNK_OVERHEAD, Damage, compress};
use crate::{BlobAddress, BlobId, Blobs, BlobsError, KeyError, ReferenceError, References, SegmentId};

/// Frames up to this length are read whole.
const WHOLE_BYTES_MAX: u64 = 512 << 10;
/// Chunks above this are opened on a thread for blocking work.
const INLINE_BYTES_MAX: usize = 128 << 10;
/// How often a frame may have been moved on.
const MOVES_MAX: usize = 16;

/// What all readers of a store share.
pub(crate) struct ReaderShared {
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) references: References,
    /// First chunks, opened. Found by the blob id, which nobody knows who has not the address.
    pub(crate) cache: Cache<BlobId, Bytes, ByWeight>,
}

#[derive(Clone)]
pub(crate) struct ByWeight;

impl Weighter<BlobId, Bytes> for ByWeight {
    fn weight(&self, _: &BlobId, chunk: &Bytes) -> u64 {
        chunk.len() as u64 + 128
    }
}

/// A blob that can be read by range. Cheap to clone; nothing was read yet when it is made.
#[derive(Clone)]
pub struct BlobReader {
    shared: Arc<ReaderShared>,
    address: BlobAddress,
    key: BlobKey,
    found: Arc<OnceCell<Found>>,
}

/// A frame that was found and whose header and trailer are known.
struct Found {
    /// Where it lies now.
    place: BlobAddress,
    header: FrameHeader,
    trailer: Trailer,
    /// Where each chunk begins, counted from the frame's beginning.
    starts: Vec<u64>,
    /// The whole frame, when it is short.
    whole: Option<Bytes>,
}

impl ReaderShared {
    /// Tells the back end of a blob whose first `plain` bytes will be read: of what [`BlobReader::find`] reads of such a
    /// frame, and of the chunks behind it. Says whether it need not be told again.
    pub(crate) fn announce(&self, address: &BlobAddress, plain: u64) -> bool {
        if address.size <= CHUNK_BYTES as u64 && self.cache.peek(&address.blob_id).is_some() {
            return true;
        }
        let end = address.offset.saturating_add(address.length);
        if address.length <= WHOLE_BYTES_MAX {
            return self.blobs.prefetch(&[(address.segment, address.offset..end)]) == 1;
        }
        let chunks = address.size.div_ceil(CHUNK_BYTES as u64).max(1);
        // Some more than the facts have chunks.
        let trailer = TRAILER_BYTES as u64 + 4 * (chunks + 8);
        let wanted =
            plain.min(address.size).div_ceil(CHUNK_BYTES as u64) * (CHUNK_BYTES + CHUNK_OVERHEAD) as u64;
        let start_end = address.offset.saturating_add(HEADER_BYTES as u64 + wanted).min(end);
        let ranges = [end.saturating_sub(trailer).max(address.offset)..end, address.offset..start_end];
        self.blobs.prefetch(&ranges.map(|range| (address.segment, range))) == 2
    }
}

impl BlobReader {
    pub(crate) fn new(shared: Arc<ReaderShared>, address: BlobAddress, key: BlobKey) -> Self {
        Self { shared, address, key, found: Arc::default() }
    }

    /// Number of plain bytes.
    pub fn size(&self) -> u64 {
        self.address.size
    }

    /// Keyed hash of the plain bytes.
    pub fn blob_id(&self) -> BlobId {
        self.address.blob_id
    }

    /// The bytes of the range (clipped to the blob) in pieces of at most 256 KiB, each verified before it is given.
    /// Nothing is read ahead of the consumer, but the back end is told what will follow. After an error nothing follows.
    pub fn read_range(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + Unpin + use<> {
        let end = range.end.min(self.size());
        let start = (range.start < end).then_some(range.start);
        stream::unfold((self.clone(), start), move |(reader, at)| async move {
            let at = at?;
            let number = at / CHUNK_BYTES as u64;
            let chunk_start = number * CHUNK_BYTES as u64;
            match reader.body_chunk(number).await {
                Ok(chunk) => {
                    reader.announce(number + 1, end);
                    let chunk_end = chunk_start + chunk.len() as u64;
                    let piece =
                        chunk.slice((at - chunk_start) as usize..(end.min(chunk_end) - chunk_start) as usize);
                    Some((Ok(piece), (reader, Some(chunk_end).filter(|next| *next < end))))
                }
                Err(error) => Some((Err(error), (reader, None))),
            }
        })
        .boxed()
    }

    /// The facts that were written with the blob.
    pub async fn facts(&self) -> Result<Bytes, ReadError> {
        let found = self.found().await?;
        let size = u64::from(found.trailer.facts_size);
        let body = found.trailer.body_chunks();
        let count = found.trailer.chunks.len() - body;
        let mut facts = Vec::new();
        for number in 0..count {
            let position = Position { part: Part::Facts, number: number as u32, last: number + 1 == count };
            facts.extend(
                self.open_chunk(found, body + number, position, plain_bytes(size, number as u64)).await?,
            );
        }
        Ok(facts.into())
    }

    /// Reads everything and compares it with the blob id: for `check`.
    pub async fn verify(&self) -> Result<(), ReadError> {
        let found = self.found().await?;
        let mut hasher = self.key.hasher();
        let mut frame_hasher = blake3::Hasher::new();
        frame_hasher.update(&FrameHeader::fixed(found.header.dictionary));
        let body = found.trailer.body_chunks();
        for number in 0..found.trailer.chunks.len() {
            let sealed = self.sealed_chunk(found, number).await?;
            frame_hasher.update(&sealed);
            if number < body {
                let position = Position { part: Part::Body, number: number as u32, last: number + 1 == body };
                let plain = self
                    .open_sealed(found, sealed, position, plain_bytes(self.size(), number as u64))
                    .await?;
                hasher.update(&plain);
            }
        }
        self.facts().await?;
        if *hasher.finalize().as_bytes() != self.address.blob_id.0 {
            return Err(damaged(&found.place, "blob id"));
        }
        let trailer_bytes = found.trailer.chunks.len() * 4 + TRAILER_BYTES;
        let trailer =
            self.bytes_of(found, found.place.length - trailer_bytes as u64, trailer_bytes as u64).await?;
        frame_hasher.update(Trailer::hashed(&trailer));
        if *frame_hasher.finalize().as_bytes() != found.trailer.hash {
            return Err(damaged(&found.place, "frame hash"));
        }
        Ok(())
    }

    async fn body_chunk(&self, number: u64) -> Result<Bytes, ReadError> {
        if number == 0
            && let Some(chunk) = self.shared.cache.get(&self.address.blob_id)
        {
            return Ok(chunk);
        }
        let found = self.found().await?;
        let last = number as usize + 1 == found.trailer.body_chunks();
        let position = Position { part: Part::Body, number: number as u32, last };
        let plain =
            self.open_chunk(found, number as usize, position, plain_bytes(self.size(), number)).await?;
        let plain = Bytes::from(plain);
        if number == 0 {
            self.shared.cache.insert(self.address.blob_id, plain.clone());
        }
        Ok(plain)
    }

    /// Tells the back end that the chunks from `number` on will follow, up to the plain byte `end`.
    fn announce(&self, number: u64, end: u64) {
        let Some(found) = self.found.get() else { return };
        let chunks = end.div_ceil(CHUNK_BYTES as u64).min(found.trailer.body_chunks() as u64);
        if found.whole.is_some() || number >= chunks {
            return;
        }
        let last = chunks as usize - 1;
        let start = found.place.offset + found.starts[number as usize];
        let end = found.place.offset + found.starts[last] + u64::from(found.trailer.chunks[last]);
        // What there is no room for now is announced with the next chunk.
        let _ = self.shared.blobs.prefetch(&[(found.place.segment, start..end)]);
    }

    async fn open_chunk(
        &self,
        found: &Found,
        number: usize,
        position: Position,
        size: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let sealed = self.sealed_chunk(found, number).await?;
        let length = sealed.len() as u64;
        match self.open_sealed(found, sealed, position, size).await {
            Err(ReadError::Damaged { .. })
                if self.distrust(&found.place, found.starts[number], length).await =>
            {
                let start = found.starts[number];
                let sealed = self.get(&found.place, start, length).await?;
                self.open_sealed(found, sealed, position, size).await
            }
            other => other,
        }
    }

    /// What was read there does not hold. Whether reading it again can help.
    async fn distrust(&self, place: &BlobAddress, start: u64, length: u64) -> bool {
        let from = place.offset.saturating_add(start);
        self.shared.blobs.distrust(place.segment, from..from.saturating_add(length)).await
    }

    async fn open_sealed(
        &self,
        found: &Found,
        sealed: Bytes,
        position: Position,
        size: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let key = self.key.clone();
        let dictionary = found.header.dictionary;
        let length = sealed.len();
        let work = move || {
            let fixed: [u8; FIXED_BYTES] = FrameHeader::fixed(dictionary);
            key.cipher().open(&fixed, position, sealed.to_vec(), size)
        };
        let opened = if length <= INLINE_BYTES_MAX {
            work()
        } else {
            let joined = engine::aside(work).await;
            joined.map_err(|_| ReadError::Blobs(BlobsError::Closed))?
        };
        opened.map_err(|Damage(what)| damaged(&found.place, what))
    }

    async fn sealed_chunk(&self, found: &Found, number: usize) -> Result<Bytes, ReadError> {
        let length = found.trailer.chunks.get(number).copied();
        let length = length.ok_or_else(|| damaged(&found.place, "fewer chunks than the size says"))?;
        self.bytes_of(found, found.starts[number], u64::from(length)).await
    }

    async fn bytes_of(&self, found: &Found, start: u64, length: u64) -> Result<Bytes, ReadError> {
        if let Some(whole) = &found.whole {
            return Ok(whole.slice(start as usize..(start + length) as usize));
        }
        self.get(&found.place, start, length).await
    }

    /// Bytes of the frame at `place`, counted from its beginning.
    async fn get(&self, place: &BlobAddress, start: u64, length: u64) -> Result<Bytes, ReadError> {
        let from = place.offset.checked_add(start);
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        let range = range.ok_or_else(|| damaged(place, "address beyond any segment"))?;
        match self.shared.blobs.get(place.segment, range).await {
            Ok(bytes) => Ok(bytes),
            Err(BlobsError::OutOfRange { .. }) => Err(damaged(place, "the segment ends before the frame")),
            Err(BlobsError::NotFound(segment)) => Err(ReadError::Missing { segment, frame: place.frame }),
            Err(error) => Err(ReadError::Blobs(error)),
        }
    }

    async fn found(&self) -> Result<&Found, ReadError> {
        self.found
            .get_or_try_init(|| async {
                let mut place = self.address;
                for _ in 0..MOVES_MAX {
                    let mut found = self.find(place).await;
                    if matches!(found, Err(ReadError::Damaged { .. }))
                        && self.distrust(&place, 0, place.length).await
                    {
                        found = self.find(place).await;
                    }
                    match found {
                        Err(missing @ ReadError::Missing { .. }) => {
                            let moved = self.shared.references.moved(place.segment, place.frame).await?;
                            place = place.at(&moved.ok_or(missing)?);
                        }
                        other => return other,
                    }
                }
                Err(damaged(&place, "moved in a circle"))
            })
            .await
    }

    async fn find(&self, place: BlobAddress) -> Result<Found, ReadError> {
        let bad = |Damage(what)| damaged(&place, what);
        if place.length < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged(&place, "the address is shorter than any frame"));
        }
        let whole = if place.length <= WHOLE_BYTES_MAX {
            Some(self.get(&place, 0, place.length).await?)
        } else {
            None
        };
        let trailer = match &whole {
            Some(whole) => Trailer::decode(whole, place.length).map_err(bad)?,
            None => {
                let fixed =
                    self.get(&place, place.length - TRAILER_BYTES as u64, TRAILER_BYTES as u64).await?;
                let fixed = fixed.first_chunk().expect("a back end gives what it was asked for");
                let length = Trailer::length(fixed, place.length).map_err(bad)?;
                let trailer = self.get(&place, place.length - length, length).await?;
                Trailer::decode(&trailer, place.length).map_err(bad)?
            }
        };
        if trailer.blob_id != self.address.blob_id || trailer.size != self.address.size {
            return Err(damaged(&place, "another blob lies at the address"));
        }
        let header = match &whole {
            Some(whole) => FrameHeader::decode(whole),
            None => FrameHeader::decode(&self.get(&place, 0, HEADER_BYTES as u64).await?),
        };
        let header = header.map_err(bad)?;
        if header.frame != place.frame || ![0, place.length].contains(&header.length) {
            return Err(damaged(&place, "another frame lies at the address"));
        }
        if !compress::knows(header.dictionary) {
            return Err(damaged(&place, "compressed with a dictionary that this release does not have"));
        }
        let mut end = HEADER_BYTES as u64;
        let starts = trailer.chunks.iter().map(|length| {
            let start = end;
            end += u64::from(*length);
            start
        });
        let starts = starts.collect();
        Ok(Found { place, header, trailer, starts, whole })
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({:?})", self.address)
    }
}

fn damaged(place: &BlobAddress, what: &'static str) -> ReadError {
    ReadError::Damaged { segment: place.segment, frame: place.frame, what }
}

/// Why a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not what was written. Permanent.
    #[error("segment {segment} frame {frame} is damaged: {what}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// The frame.
        frame: u32,
        /// What does not hold.
        what: &'static str,
    },
    /// The segment is gone and nothing says where its frames went. Permanent.
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
    /// The rows that say where the frame went cannot be read.
    #[error("it cannot be found out where the frame lies")]
    Reference(#[from] ReferenceError),
}

impl ReadError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => false,
            Self::Blobs(_) | Self::Reference(_) => true,
            Self::Key(error) => error.is_temporary(),
        }
    }
}
