//! The bytes of a segment, version 1. Pure: no I/O here.
//!
//! ```text
//! segment  = segment header (48)  frame*  footer
//! frame    = frame header (32)  body chunk+  facts chunk*  trailer
//! chunk    = AES-256-GCM( encoding byte ‖ raw or zstd bytes ), at most 256 KiB of plain bytes each
//! trailer  = sealed length of each chunk (u32)*  fixed part (92)
//! footer   = index (postcard)  tail (64)
//! ```
//!
//! Numbers are little-endian. What says where a frame lies (its number, its length) is covered by the header's
//! checksum alone and by neither the seal nor the frame's hash, so that compaction can copy the rest as it is.
//! `storage/DESIGN.md` has the offsets.
//!
//! Every length that is read is compared with what is there before anything of that length is allocated.

pub mod chunk;
pub mod compress;
pub mod frame;
pub mod segment;

/// Plain bytes of every chunk but a blob's last.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Bytes that a chunk has beyond its plain bytes when they do not compress: the encoding byte and the tag.
pub const CHUNK_OVERHEAD: usize = 1 + 16;

/// The bytes are not a segment's, or no longer. Says what does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);

/// Number of chunks that `size` plain bytes take. A body has at least one, so that even the empty one is sealed.
pub fn body_chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// Number of chunks that facts of `size` plain bytes take: none when there are none.
pub fn facts_chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES as u64)
}

/// Decodes a segment header, for fuzzing.
pub fn decode_header(bytes: &[u8]) -> Result<segment::SegmentHeader, Damage> {
    segment::SegmentHeader::decode(bytes)
}

/// Decodes header and trailer of a frame that is given whole and checks its hash, for fuzzing.
pub fn decode_frame(bytes: &[u8]) -> Result<(frame::FrameHeader, frame::Trailer), Damage> {
    frame::check_whole(bytes)
}

/// Decodes the footer at the end of a segment that is given whole, for fuzzing.
pub fn decode_footer(bytes: &[u8]) -> Result<segment::Index, Damage> {
    let tail = bytes.last_chunk::<{ segment::TAIL_BYTES }>().ok_or(Damage("segment too short"))?;
    let tail = segment::Tail::decode(tail, bytes.len() as u64)?;
    let header = bytes.first_chunk::<{ segment::HEADER_BYTES }>().ok_or(Damage("segment too short"))?;
    let start = tail.index_offset as usize;
    let index = bytes.get(start..start + tail.index_bytes as usize).ok_or(Damage("index beyond the end"))?;
    segment::Index::decode(&tail, header, index)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("callers check the length"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("callers check the length"))
}
