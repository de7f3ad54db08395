//! Walking through a segment without its footer: what recovery and `check` do. No key is needed, since every frame has
//! a hash of what is stored.

use std::sync::Arc;

use bytes::Bytes;

use crate::format::Damage;
use crate::format::frame::{self, FIXED_BYTES, FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer};
use crate::format::segment::{self, Index, IndexEntry, SegmentHeader, TAIL_BYTES, Tail};
use crate::{Blobs, BlobsError, SegmentId};

/// How much is read at once.
const WINDOW_BYTES: u64 = 2 << 20;

/// Reads a segment through a window, so that thousands of small frames do not mean thousands of reads.
pub(crate) struct Scan {
    blobs: Arc<dyn Blobs>,
    segment: SegmentId,
    length: u64,
    window: Bytes,
    window_start: u64,
}

/// What a walk found.
pub(crate) struct Walked {
    /// The intact frames, and what lies damaged between them.
    pub(crate) index: Index,
    /// The end of the last intact frame.
    pub(crate) end: u64,
    /// What is wrong with the segment's own header.
    pub(crate) header: Result<SegmentHeader, Damage>,
}

impl Scan {
    /// Of a segment that is `length` bytes long.
    pub(crate) fn new(blobs: Arc<dyn Blobs>, segment: SegmentId, length: u64) -> Self {
        Self { blobs, segment, length, window: Bytes::new(), window_start: 0 }
    }

    /// The index in the footer. The outer error is the medium's.
    pub(crate) async fn footer(&mut self) -> Result<Result<(Tail, Index), Damage>, BlobsError> {
        if self.length < (segment::HEADER_BYTES + TAIL_BYTES) as u64 {
            return Ok(Err(Damage("segment too short")));
        }
        let header = self.bytes(0, segment::HEADER_BYTES as u64).await?;
        let header = header.first_chunk().expect("as long as asked for");
        let tail = self.bytes(self.length - TAIL_BYTES as u64, TAIL_BYTES as u64).await?;
        let tail = match Tail::decode(tail.first_chunk().expect("as long as asked for"), self.length) {
            Ok(tail) => tail,
            Err(damage) => return Ok(Err(damage)),
        };
        let index = self.bytes(tail.index_offset, u64::from(tail.index_bytes)).await?;
        Ok(Index::decode(&tail, header, &index).map(|index| (tail, index)))
    }

    /// The segment's own header.
    pub(crate) async fn header(&mut self) -> Result<Result<SegmentHeader, Damage>, BlobsError> {
        let header = self.bytes(0, self.length.min(segment::HEADER_BYTES as u64)).await?;
        let wrong_name = Damage("the header has another segment's id");
        Ok(SegmentHeader::decode(&header)
            .and_then(|header| if header.segment == self.segment { Ok(header) } else { Err(wrong_name) }))
    }

    /// Walks from frame to frame up to `end`. Where no intact frame begins it looks for the next one, so that damage in
    /// the middle costs what it hit and nothing behind it.
    pub(crate) async fn walk(&mut self, end: u64) -> Result<Walked, BlobsError> {
        let header = self.header().await?;
        let mut index = Index::default();
        let mut at = (segment::HEADER_BYTES as u64).min(end);
        let mut intact_end = at;
        while at < end {
            if let Some(entry) = self.frame_at(at, end, index.frames.last()).await? {
                if at > intact_end {
                    index.damaged.push((intact_end, at - intact_end));
                }
                at += entry.length;
                intact_end = at;
                index.frames.push(entry);
            } else {
                match self.find_magic(at + 1, end).await? {
                    Some(next) => at = next,
                    None => break,
                }
            }
        }
        Ok(Walked { index, end: intact_end, header })
    }

    /// Checks one frame of a known length, its hash included.
    pub(crate) async fn check_frame(&mut self, entry: &IndexEntry) -> Result<Result<(), Damage>, BlobsError> {
        if entry.length < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Ok(Err(Damage("frame too short")));
        }
        let header = match FrameHeader::decode(&self.bytes(entry.offset, HEADER_BYTES as u64).await?) {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        if header.frame != entry.frame || ![0, entry.length].contains(&header.length) {
            return Ok(Err(Damage("frame header and index differ")));
        }
        match self.frame_hash(entry.offset, entry.length).await? {
            Ok(hash) if hash[..16] == entry.hash => Ok(Ok(())),
            Ok(_) => Ok(Err(Damage("frame hash and index differ"))),
            Err(damage) => Ok(Err(damage)),
        }
    }

    /// The frame that begins at `at`, when all of it is there and intact.
    async fn frame_at(
        &mut self,
        at: u64,
        end: u64,
        before: Option<&IndexEntry>,
    ) -> Result<Option<IndexEntry>, BlobsError> {
        if end - at < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Ok(None);
        }
        let Ok(header) = FrameHeader::decode(&self.bytes(at, HEADER_BYTES as u64).await?) else {
            return Ok(None);
        };
        let fits = header.length >= (HEADER_BYTES + TRAILER_BYTES) as u64 && header.length <= end - at;
        if !fits || before.is_some_and(|before| header.frame <= before.frame) {
            return Ok(None);
        }
        let hash = self.frame_hash(at, header.length).await?;
        Ok(hash.ok().map(|hash| IndexEntry {
            frame: header.frame,
            offset: at,
            length: header.length,
            hash: *hash.first_chunk().expect("a hash has 32 bytes"),
        }))
    }

    /// The hash of a frame, computed and found equal to what its trailer says.
    async fn frame_hash(&mut self, at: u64, length: u64) -> Result<Result<[u8; 32], Damage>, BlobsError> {
        let fixed = self.bytes(at + length - TRAILER_BYTES as u64, TRAILER_BYTES as u64).await?;
        let trailer_bytes = match Trailer::length(fixed.first_chunk().expect("as long as asked for"), length)
        {
            Ok(bytes) => bytes,
            Err(damage) => return Ok(Err(damage)),
        };
        let trailer_start = at + length - trailer_bytes;
        let trailer_raw = self.bytes(trailer_start, trailer_bytes).await?;
        let trailer = match Trailer::decode(&trailer_raw, length) {
            Ok(trailer) => trailer,
            Err(damage) => return Ok(Err(damage)),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.bytes(at, FIXED_BYTES as u64).await?);
        let mut next = at + HEADER_BYTES as u64;
        while next < trailer_start {
            let bytes = self.bytes(next, (trailer_start - next).min(WINDOW_BYTES)).await?;
            hasher.update(&bytes);
            next += bytes.len() as u64;
        }
        hasher.update(Trailer::hashed(&trailer_raw));
        if *hasher.finalize().as_bytes() == trailer.hash {
            Ok(Ok(trailer.hash))
        } else {
            Ok(Err(Damage("frame hash")))
        }
    }

    /// The first place from `at` on where a frame might begin.
    async fn find_magic(&mut self, mut at: u64, end: u64) -> Result<Option<u64>, BlobsError> {
        let width = frame::MAGIC.len() as u64;
        while at + width <= end {
            let bytes = self.bytes(at, (end - at).min(WINDOW_BYTES / 2)).await?;
            if let Some(found) = bytes.windows(frame::MAGIC.len()).position(|four| four == frame::MAGIC) {
                return Ok(Some(at + found as u64));
            }
            at += bytes.len() as u64 - (width - 1);
        }
        Ok(None)
    }

    async fn bytes(&mut self, start: u64, length: u64) -> Result<Bytes, BlobsError> {
        let window_end = self.window_start + self.window.len() as u64;
        if start < self.window_start || start + length > window_end {
            let end = (start + length.max(WINDOW_BYTES)).min(self.length).max(start + length);
            self.window = self.blobs.get(self.segment, start..end).await?;
            self.window_start = start;
        }
        let from = (start - self.window_start) as usize;
        Ok(self.window.slice(from..from + length as usize))
    }
}
