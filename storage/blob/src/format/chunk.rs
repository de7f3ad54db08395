//! Sealing of chunks: compression, then AES-256-GCM in the STREAM construction (Hoang, Reyhanitabar, Rogaway,
//! Vizár 2015): the nonce has the chunk's number and whether it is the last, so that chunks cannot be reordered, left out
//! or cut off, and each can be opened alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rand::RngCore;
use zeroize::Zeroizing;

use super::frame::{FIXED_BYTES, FrameHeader};
use super::{CHUNK_BYTES, CHUNK_OVERHEAD, Damage, compress};

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// The random key of one blob. It seals one frame and nothing else, so nonces need not be random.
#[derive(Clone)]
pub struct BlobKey(pub(crate) Zeroizing<[u8; 32]>);

impl BlobKey {
    /// A fresh key.
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    /// The hasher of the blob id.
    pub fn hasher(&self) -> blake3::Hasher {
        let key = Zeroizing::new(blake3::derive_key("postrider blob id v1", self.0.as_slice()));
        blake3::Hasher::new_keyed(&key)
    }

    /// What seals and opens the blob's chunks.
    pub fn cipher(&self) -> ChunkCipher {
        let key = Zeroizing::new(blake3::derive_key("postrider blob chunks v1", self.0.as_slice()));
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key has the length of AES-256");
        ChunkCipher(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobKey(..)")
    }
}

/// Which of the two streams of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The blob's bytes.
    Body,
    /// The facts.
    Facts,
}

/// Where a chunk stands in its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The stream.
    pub part: Part,
    /// Its number there.
    pub number: u32,
    /// Whether none follows.
    pub last: bool,
}

impl Position {
    fn dictionary(self, fixed: &[u8; FIXED_BYTES]) -> u16 {
        match self.part {
            Part::Body => FrameHeader::dictionary_of(fixed),
            Part::Facts => compress::DICTIONARY_NONE,
        }
    }

    /// Six zero bytes, the part, the number, whether it is the last.
    fn nonce(self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[6] = self.part as u8;
        bytes[7..11].copy_from_slice(&self.number.to_be_bytes());
        bytes[11] = u8::from(self.last);
        Nonce::assume_unique_for_key(bytes)
    }
}

/// Seals and opens the chunks of one frame.
pub struct ChunkCipher(LessSafeKey);

impl ChunkCipher {
    /// The sealed chunk. Of the body it is compressed with the dictionary that the frame names, of the facts without.
    pub fn seal(&self, fixed: &[u8; FIXED_BYTES], position: Position, plain: &[u8]) -> Vec<u8> {
        assert!(plain.len() <= CHUNK_BYTES, "a chunk has a bounded size");
        let mut bytes = Vec::with_capacity(plain.len() + CHUNK_OVERHEAD);
        bytes.push(ZSTD);
        if !compress::compress(plain, position.dictionary(fixed), &mut bytes) {
            bytes[0] = RAW;
            bytes.extend_from_slice(plain);
        }
        self.0
            .seal_in_place_append_tag(position.nonce(), Aad::from(fixed), &mut bytes)
            .expect("a chunk is far below the limit of GCM");
        bytes.shrink_to_fit();
        bytes
    }

    /// The `size` plain bytes of a sealed chunk.
    pub fn open(
        &self,
        fixed: &[u8; FIXED_BYTES],
        position: Position,
        mut sealed: Vec<u8>,
        size: usize,
    ) -> Result<Vec<u8>, Damage> {
        let opened = self.0.open_in_place(position.nonce(), Aad::from(fixed), &mut sealed);
        let length = opened.map_err(|_| Damage("chunk does not match its seal"))?.len();
        sealed.truncate(length);
        match sealed.first() {
            Some(&RAW) if length == size + 1 => {
                sealed.remove(0);
                Ok(sealed)
            }
            Some(&ZSTD) => compress::decompress(&sealed[1..], position.dictionary(fixed), size),
            _ => Err(Damage("chunk of an unknown encoding or another size")),
        }
    }
}

/// Plain bytes of chunk `number` of a stream that is `size` bytes long.
pub fn plain_bytes(size: u64, number: u64) -> usize {
    size.saturating_sub(number * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64) as usize
}
