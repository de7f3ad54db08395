//! Header and trailer of a frame.

use super::{CHUNK_BYTES, CHUNK_OVERHEAD, Damage, body_chunks, facts_chunks, u16_at, u32_at, u64_at};
use crate::BlobId;

/// Length of a frame's header; its first chunk begins here.
pub const HEADER_BYTES: usize = 32;
/// Length of the part of the header that goes with the frame wherever it is copied. It is authenticated with every
/// chunk and begins the frame's hash.
pub const FIXED_BYTES: usize = 16;
/// Length of a trailer without its chunk lengths.
pub const TRAILER_BYTES: usize = 92;

/// How a frame begins; recovery looks for it.
pub const MAGIC: &[u8; 4] = b"PRF1";
const TRAILER_MAGIC: &[u8; 4] = b"PRT1";

/// The first bytes of a frame.
///
/// `0 magic 4 · 4 zero u16 · 6 dictionary u16 · 8 plain bytes per chunk u32 · 12 zero u32 · 16 frame number u32 ·
/// 20 frame length u64 (zero: streamed) · 28 CRC32C of 0..28`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The dictionary that body chunks were compressed with; zero is none.
    pub dictionary: u16,
    /// The frame's number in its segment.
    pub frame: u32,
    /// The frame's length; zero when it was streamed, so that its length was not known yet.
    pub length: u64,
}

impl FrameHeader {
    /// The part that is the same wherever the frame lies.
    pub fn fixed(dictionary: u16) -> [u8; FIXED_BYTES] {
        let mut bytes = [0; FIXED_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[6..8].copy_from_slice(&dictionary.to_le_bytes());
        bytes[8..12].copy_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        bytes
    }

    /// The dictionary that the fixed part names.
    pub fn dictionary_of(fixed: &[u8; FIXED_BYTES]) -> u16 {
        u16_at(fixed, 6)
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..FIXED_BYTES].copy_from_slice(&Self::fixed(self.dictionary));
        bytes[16..20].copy_from_slice(&self.frame.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.length.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From the first bytes of a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(Damage("frame header too short"))?;
        if &bytes[..4] != MAGIC {
            return Err(Damage("no frame begins here"));
        }
        if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
            return Err(Damage("frame header checksum"));
        }
        let header =
            Self { dictionary: u16_at(bytes, 6), frame: u32_at(bytes, 16), length: u64_at(bytes, 20) };
        if bytes[..FIXED_BYTES] != Self::fixed(header.dictionary) {
            return Err(Damage("unknown parameters in the frame header"));
        }
        Ok(header)
    }
}

/// The last bytes of a frame.
///
/// `sealed length of each chunk u32 … · size u64 · facts size u32 · body chunks u32 · facts chunks u32 · blob id 32 ·
/// frame hash 32 · CRC32C of all before u32 · magic 4`
///
/// The hash is the BLAKE3 of the header's fixed part, all sealed chunks, and the trailer up to the hash: it can be
/// checked without any key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Sealed length of each chunk: the body's, then the facts'.
    pub chunks: Vec<u32>,
    /// Plain bytes of the body.
    pub size: u64,
    /// Plain bytes of the facts.
    pub facts_size: u32,
    /// Keyed hash of the plain body.
    pub blob_id: BlobId,
    /// Hash of the frame as it is stored.
    pub hash: [u8; 32],
}

impl Trailer {
    /// The bytes. `hasher` has seen the header's fixed part and all sealed chunks; its value is put into `self.hash`.
    pub fn encode(&mut self, mut hasher: blake3::Hasher) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.chunks.len() * 4 + TRAILER_BYTES);
        for length in &self.chunks {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        let facts = facts_chunks(u64::from(self.facts_size)) as u32;
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.facts_size.to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u32 - facts).to_le_bytes());
        bytes.extend_from_slice(&facts.to_le_bytes());
        bytes.extend_from_slice(&self.blob_id.0);
        hasher.update(&bytes);
        self.hash = *hasher.finalize().as_bytes();
        bytes.extend_from_slice(&self.hash);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(TRAILER_MAGIC);
        bytes
    }

    /// The length of the whole trailer whose fixed part is `fixed`, of a frame that is `frame_length` bytes long.
    pub fn length(fixed: &[u8; TRAILER_BYTES], frame_length: u64) -> Result<u64, Damage> {
        if &fixed[88..] != TRAILER_MAGIC {
            return Err(Damage("no frame ends here"));
        }
        let (size, facts_size) = (u64_at(fixed, 0), u32_at(fixed, 8));
        let (body, facts) = (u32_at(fixed, 12), u32_at(fixed, 16));
        if u64::from(body) != body_chunks(size) || u64::from(facts) != facts_chunks(u64::from(facts_size)) {
            return Err(Damage("frame trailer counts another number of chunks"));
        }
        let length = (u64::from(body) + u64::from(facts)) * 4 + TRAILER_BYTES as u64;
        // Each chunk has at least its encoding byte and tag, so a frame of this length has room for all of them.
        let least =
            (u64::from(body) + u64::from(facts)) * CHUNK_OVERHEAD as u64 + length + HEADER_BYTES as u64;
        if least > frame_length {
            return Err(Damage("frame trailer has more chunks than the frame has room for"));
        }
        Ok(length)
    }

    /// From the last bytes of a frame that is `frame_length` bytes long: at least the whole trailer.
    pub fn decode(bytes: &[u8], frame_length: u64) -> Result<Self, Damage> {
        let fixed = bytes.last_chunk::<TRAILER_BYTES>().ok_or(Damage("frame trailer too short"))?;
        let length = Self::length(fixed, frame_length)? as usize;
        let start = bytes.len().checked_sub(length).ok_or(Damage("frame trailer too short"))?;
        let bytes = &bytes[start..];
        if crc32c::crc32c(&bytes[..length - 8]) != u32_at(bytes, length - 8) {
            return Err(Damage("frame trailer checksum"));
        }
        let chunks: Vec<u32> = bytes[..length - TRAILER_BYTES]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|n| u32::from_le_bytes(*n))
            .collect();
        let within = (CHUNK_OVERHEAD as u32)..=((CHUNK_BYTES + CHUNK_OVERHEAD) as u32);
        let sum: u64 = chunks.iter().map(|length| u64::from(*length)).sum();
        if chunks.iter().any(|length| !within.contains(length))
            || sum + HEADER_BYTES as u64 + length as u64 != frame_length
        {
            return Err(Damage("chunks do not add up to the frame"));
        }
        Ok(Self {
            chunks,
            size: u64_at(fixed, 0),
            facts_size: u32_at(fixed, 8),
            blob_id: BlobId(*fixed[20..].first_chunk().expect("32 bytes are there")),
            hash: *fixed[52..].first_chunk().expect("32 bytes are there"),
        })
    }

    /// Number of body chunks.
    pub fn body_chunks(&self) -> usize {
        body_chunks(self.size) as usize
    }

    /// What the hash covers of a whole trailer's bytes.
    pub fn hashed(bytes: &[u8]) -> &[u8] {
        &bytes[..bytes.len().saturating_sub(40)]
    }
}

/// Checks a frame that is given whole, without any key.
pub fn check_whole(bytes: &[u8]) -> Result<(FrameHeader, Trailer), Damage> {
    let header = FrameHeader::decode(bytes)?;
    if header.length != 0 && header.length != bytes.len() as u64 {
        return Err(Damage("frame header has another length"));
    }
    let trailer = Trailer::decode(bytes, bytes.len() as u64)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..FIXED_BYTES]);
    hasher.update(Trailer::hashed(&bytes[HEADER_BYTES..]));
    if *hasher.finalize().as_bytes() != trailer.hash {
        return Err(Damage("frame hash"));
    }
    Ok((header, trailer))
}
