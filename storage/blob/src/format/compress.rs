//! Compression of chunks: zstd level 3, each chunk for itself.

use std::sync::LazyLock;

use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::{CHUNK_BYTES, Damage};

/// No dictionary.
pub const DICTIONARY_NONE: u16 = 0;

const LEVEL: i32 = 3;
/// Contexts kept for the next use. One is a megabyte or two, and more than a few threads at once do not compress.
const CONTEXTS_KEPT: usize = 4;

static COMPRESSORS: LazyLock<Mutex<Vec<Compressor<'static>>>> = LazyLock::new(Mutex::default);
static DECOMPRESSORS: LazyLock<Mutex<Vec<Decompressor<'static>>>> = LazyLock::new(Mutex::default);

/// Whether this release can read chunks that were compressed with the dictionary.
pub fn knows(dictionary: u16) -> bool {
    dictionary == DICTIONARY_NONE
}

/// Appends the compressed bytes to `out`, or says `false` and leaves `out` alone when that would save nothing.
pub fn compress(plain: &[u8], out: &mut Vec<u8>) -> bool {
    // Below this a zstd frame is never shorter than what it holds.
    if plain.len() < 16 {
        return false;
    }
    let Some(mut context) = COMPRESSORS.lock().pop().or_else(new_compressor) else {
        return false;
    };
    let start = out.len();
    out.resize(start + plain.len() - 1, 0);
    // No room for the result is how zstd says that it does not compress.
    let written = context.compress_to_buffer(plain, &mut out[start..]).ok();
    out.truncate(start + written.unwrap_or(0));
    let mut kept = COMPRESSORS.lock();
    if kept.len() < CONTEXTS_KEPT {
        kept.push(context);
    }
    written.is_some()
}

/// The `size` bytes that were compressed into `bytes`.
pub fn decompress(bytes: &[u8], size: usize) -> Result<Vec<u8>, Damage> {
    assert!(size <= CHUNK_BYTES, "callers ask for a chunk at most");
    let context = DECOMPRESSORS.lock().pop();
    let mut context = match context {
        Some(context) => context,
        None => Decompressor::new().map_err(|_| Damage("no memory to decompress"))?,
    };
    let mut plain = vec![0; size];
    let read = context.decompress_to_buffer(bytes, &mut plain[..]).ok();
    let mut kept = DECOMPRESSORS.lock();
    if kept.len() < CONTEXTS_KEPT {
        kept.push(context);
    }
    if read == Some(size) { Ok(plain) } else { Err(Damage("chunk does not decompress")) }
}

fn new_compressor() -> Option<Compressor<'static>> {
    let mut context = Compressor::new(LEVEL).ok()?;
    // The plain length is known from the frame, so the content size would be two to four wasted bytes.
    context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
    Some(context)
}
