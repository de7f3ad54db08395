//! Turning plain bytes into the sealed pieces of a frame.

use bytes::Bytes;

use crate::BlobId;
use crate::format::chunk::{BlobKey, ChunkCipher, Part, Position};
use crate::format::frame::{FIXED_BYTES, FrameHeader, HEADER_BYTES, Trailer};
use crate::format::{CHUNK_BYTES, compress};

/// Seals the chunks of one frame, in order, and remembers what the trailer has to say.
pub(crate) struct FrameBuilder {
    cipher: ChunkCipher,
    fixed: [u8; FIXED_BYTES],
    blob_hasher: blake3::Hasher,
    frame_hasher: blake3::Hasher,
    chunks: Vec<u32>,
    size: u64,
    sealed_bytes: u64,
}

/// What is known of a frame when all of it was sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameFacts {
    pub(crate) dictionary: u16,
    pub(crate) length: u64,
    pub(crate) size: u64,
    pub(crate) blob_id: BlobId,
    pub(crate) hash: [u8; 32],
}

impl FrameBuilder {
    pub(crate) fn new(key: &BlobKey) -> Self {
        Self {
            cipher: key.cipher(),
            fixed: FrameHeader::fixed(compress::DICTIONARY_NONE),
            blob_hasher: key.hasher(),
            frame_hasher: blake3::Hasher::new(),
            chunks: Vec::new(),
            size: 0,
            sealed_bytes: 0,
        }
    }

    /// Seals the next body chunk. All but the last are full.
    pub(crate) fn body_chunk(&mut self, plain: &[u8], last: bool) -> Bytes {
        debug_assert!(last || plain.len() == CHUNK_BYTES, "only the last chunk may be short");
        self.blob_hasher.update(plain);
        self.size += plain.len() as u64;
        let number = self.chunks.len() as u32;
        if number == 0 {
            // Now it is known whether the body is a small one, which the first chunk is all of.
            if last && plain.len() <= compress::DICTIONARY_BODY_BYTES_MAX {
                self.fixed = FrameHeader::fixed(compress::DICTIONARY_MAIL_1);
            }
            self.frame_hasher.update(&self.fixed);
        }
        self.chunk(Position { part: Part::Body, number, last }, plain)
    }

    /// Seals the facts and writes the trailer, after the last body chunk.
    pub(crate) fn end(mut self, facts: &[u8]) -> (Vec<Bytes>, FrameFacts) {
        let mut pieces = Vec::with_capacity(2);
        let count = facts.chunks(CHUNK_BYTES).len();
        for (number, plain) in facts.chunks(CHUNK_BYTES).enumerate() {
            let last = number + 1 == count;
            pieces.push(self.chunk(Position { part: Part::Facts, number: number as u32, last }, plain));
        }
        let mut trailer = Trailer {
            chunks: self.chunks,
            size: self.size,
            facts_size: facts.len() as u32,
            blob_id: BlobId(*self.blob_hasher.finalize().as_bytes()),
            hash: [0; 32],
        };
        let bytes = trailer.encode(self.frame_hasher);
        let length = HEADER_BYTES as u64 + self.sealed_bytes + bytes.len() as u64;
        pieces.push(bytes.into());
        let facts = FrameFacts {
            dictionary: FrameHeader::dictionary_of(&self.fixed),
            length,
            size: self.size,
            blob_id: trailer.blob_id,
            hash: trailer.hash,
        };
        (pieces, facts)
    }

    fn chunk(&mut self, position: Position, plain: &[u8]) -> Bytes {
        let sealed = self.cipher.seal(&self.fixed, position, plain);
        self.frame_hasher.update(&sealed);
        self.chunks.push(sealed.len() as u32);
        self.sealed_bytes += sealed.len() as u64;
        sealed.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::check_whole;

    #[test]
    fn a_frame_checks_and_every_flipped_bit_or_cut_is_noticed() {
        let key = BlobKey::random();
        for (body, facts) in [(&b""[..], &b""[..]), (b"body", b""), (&b"hello ".repeat(40), b"facts")] {
            let mut builder = FrameBuilder::new(&key);
            let chunk = builder.body_chunk(body, true);
            let (rest, known) = builder.end(facts);
            let header = FrameHeader { dictionary: 1, frame: 3, length: known.length };
            let mut bytes = header.encode().to_vec();
            bytes.extend_from_slice(&chunk);
            for piece in &rest {
                bytes.extend_from_slice(piece);
            }
            assert_eq!(bytes.len() as u64, known.length);
            let (read, trailer) = check_whole(&bytes).unwrap();
            assert_eq!((read, trailer.size, trailer.blob_id), (header, body.len() as u64, known.blob_id));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(check_whole(&flipped).is_err(), "bit {bit} of {}", bytes.len() * 8);
            }
            for length in 0..bytes.len() {
                assert!(check_whole(&bytes[..length]).is_err(), "cut at {length}");
            }
        }
    }
}
