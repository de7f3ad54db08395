//! Header and footer of a segment.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Damage, u32_at, u64_at};
use crate::SegmentId;

/// Length of a segment's header; the first frame begins here.
pub const HEADER_BYTES: usize = 48;
/// Length of a segment's tail, its very last bytes.
pub const TAIL_BYTES: usize = 64;
/// Longest index that is read. A segment of 64 MiB has about 200 KiB of it.
pub const INDEX_BYTES_MAX: u32 = 64 << 20;

const HEADER_MAGIC: &[u8; 8] = b"PRSEG1\r\n";
const TAIL_MAGIC: &[u8; 8] = b"PRSEGEND";

/// The segment holds one frame, which was streamed: its length is in the footer only, and without a footer nothing of
/// it was ever acknowledged.
pub const FLAG_STREAMED: u32 = 1;

/// The first bytes of a segment.
///
/// `0 magic 8 · 8 segment id 16 · 24 flags u32 · 28 created u64 (unix seconds) · 36 zero 8 · 44 CRC32C of 0..44`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The segment's own id, so that a file under a wrong name is noticed.
    pub segment: SegmentId,
    /// [`FLAG_STREAMED`].
    pub flags: u32,
    /// When it was begun, for people; nothing is decided by it.
    pub created: u64,
}

impl SegmentHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..24].copy_from_slice(self.segment.0.as_bytes());
        bytes[24..28].copy_from_slice(&self.flags.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.created.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From the first bytes of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(Damage("segment header too short"))?;
        if &bytes[..8] != HEADER_MAGIC {
            return Err(Damage("not a segment, or of an unknown version"));
        }
        if crc32c::crc32c(&bytes[..44]) != u32_at(bytes, 44) {
            return Err(Damage("segment header checksum"));
        }
        let flags = u32_at(bytes, 24);
        if flags & !FLAG_STREAMED != 0 {
            return Err(Damage("unknown flag in the segment header"));
        }
        let id = bytes[8..].first_chunk().expect("16 bytes are there");
        Ok(Self { segment: SegmentId(Uuid::from_bytes(*id)), flags, created: u64_at(bytes, 28) })
    }
}

/// What a segment holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    /// Its frames, ascending.
    pub frames: Vec<IndexEntry>,
    /// Bytes that recovery found between intact frames and could make nothing of: (offset, length).
    pub damaged: Vec<(u64, u64)>,
    /// Where frames came from that a compaction copied here: a frame is live when it is referenced under any of them.
    pub origins: Vec<Origin>,
}

/// One frame of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its number.
    pub frame: u32,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// The first half of the frame's hash.
    pub hash: [u8; 16],
}

/// A frame's former place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// Its number here.
    pub frame: u32,
    /// The segment it was copied from.
    pub segment: SegmentId,
    /// Its number there.
    pub origin_frame: u32,
}

/// The last bytes of a sealed segment.
///
/// `0 index length u32 · 4 number of frames u32 · 8 index offset u64 · 16 BLAKE3 of header and index 32 · 48 zero 4 ·
/// 52 CRC32C of 0..52 · 56 magic 8`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Length of the index.
    pub index_bytes: u32,
    /// Number of frames in it.
    pub frames: u32,
    /// Where it begins: the end of the frames.
    pub index_offset: u64,
    /// Hash of the segment's header and index. The index has the hash of every frame, so it stands for all bytes.
    pub hash: [u8; 32],
}

impl Tail {
    /// From the last bytes of a segment that is `length` bytes long.
    pub fn decode(bytes: &[u8; TAIL_BYTES], length: u64) -> Result<Self, Damage> {
        if &bytes[56..] != TAIL_MAGIC {
            return Err(Damage("no footer"));
        }
        if crc32c::crc32c(&bytes[..52]) != u32_at(bytes, 52) {
            return Err(Damage("footer checksum"));
        }
        let tail = Self {
            index_bytes: u32_at(bytes, 0),
            frames: u32_at(bytes, 4),
            index_offset: u64_at(bytes, 8),
            hash: *bytes[16..].first_chunk().expect("32 bytes are there"),
        };
        let end = tail
            .index_offset
            .checked_add(u64::from(tail.index_bytes))
            .and_then(|end| end.checked_add(TAIL_BYTES as u64));
        if end != Some(length)
            || tail.index_offset < HEADER_BYTES as u64
            || tail.index_bytes > INDEX_BYTES_MAX
        {
            return Err(Damage("footer does not fit the segment's length"));
        }
        Ok(tail)
    }
}

impl Index {
    /// The footer of a segment with this header whose frames end at `index_offset`.
    pub fn encode(&self, header: &[u8; HEADER_BYTES], index_offset: u64) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(self).expect("an index has only types that postcard encodes");
        let index_bytes = bytes.len() as u32;
        let hash = footer_hash(header, &bytes);
        let mut tail = [0; TAIL_BYTES];
        tail[..4].copy_from_slice(&index_bytes.to_le_bytes());
        tail[4..8].copy_from_slice(&(self.frames.len() as u32).to_le_bytes());
        tail[8..16].copy_from_slice(&index_offset.to_le_bytes());
        tail[16..48].copy_from_slice(&hash);
        let crc = crc32c::crc32c(&tail[..52]);
        tail[52..56].copy_from_slice(&crc.to_le_bytes());
        tail[56..].copy_from_slice(TAIL_MAGIC);
        bytes.extend_from_slice(&tail);
        bytes
    }

    /// From the bytes that `tail` speaks of.
    pub fn decode(tail: &Tail, header: &[u8; HEADER_BYTES], bytes: &[u8]) -> Result<Self, Damage> {
        if footer_hash(header, bytes) != tail.hash {
            return Err(Damage("footer hash"));
        }
        let index: Self = postcard::from_bytes(bytes).map_err(|_| Damage("footer index"))?;
        if index.frames.len() != tail.frames as usize {
            return Err(Damage("footer counts another number of frames"));
        }
        let mut end = HEADER_BYTES as u64;
        let mut last = None;
        for entry in &index.frames {
            let next = entry.offset.checked_add(entry.length).ok_or(Damage("footer index overflows"))?;
            if entry.offset < end || next > tail.index_offset || last.is_some_and(|last| entry.frame <= last)
            {
                return Err(Damage("footer index is not ascending"));
            }
            end = next;
            last = Some(entry.frame);
        }
        Ok(index)
    }

    /// The entry of a frame.
    pub fn frame(&self, frame: u32) -> Option<&IndexEntry> {
        let at = self.frames.binary_search_by_key(&frame, |entry| entry.frame).ok()?;
        Some(&self.frames[at])
    }
}

fn footer_hash(header: &[u8; HEADER_BYTES], index: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(index);
    *hasher.finalize().as_bytes()
}
