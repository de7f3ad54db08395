//! Compression of chunks: zstd level 1 (ADR 6 says why not 3), each chunk for itself, small mails with a dictionary.
//!
//! Dictionaries are named by number in every frame and never change once released; a better one gets the next number
//! and the old one stays for reading. The first was written by hand: what the headers and bodies of mail have in common,
//! the commonest last. On 2 969 messages of the SpamAssassin corpus (up to 64 KiB each) it saves 11 % of the compressed
//! bytes, 15 % of those up to 4 KiB, and 17 % on CPython's test messages. A dictionary of 16 KiB trained on the other
//! half of that corpus saves 22, 34 and 20 %: far more on its own kind, little more elsewhere, and it would ship verbatim
//! pieces of other people's mail.

use std::sync::LazyLock;

use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::CParameter;

use super::{CHUNK_BYTES, Damage};

/// No dictionary.
pub const DICTIONARY_NONE: u16 = 0;
/// The first dictionary for mails.
pub const DICTIONARY_MAIL_1: u16 = 1;
/// Bodies up to this size are compressed with a dictionary; a larger one brings its own context.
pub const DICTIONARY_BODY_BYTES_MAX: usize = 64 << 10;

/// Every level is read alike, so another one can be taken at any time.
const LEVEL: i32 = 1;
/// Contexts kept for the next use, of each kind. One is a megabyte or two, and more than a few threads at once do not
/// compress.
const CONTEXTS_KEPT: usize = 4;

/// Mail has CRLF; the file has LF, so that no version control system can change what is frozen.
static MAIL_1: LazyLock<Vec<u8>> = LazyLock::new(|| {
    include_str!("dictionary_1.txt").replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
});
static MAIL_1_ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(&MAIL_1, LEVEL));
static MAIL_1_DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(&MAIL_1));

/// Contexts without and with the dictionary.
static COMPRESSORS: [Pool<Compressor<'static>>; 2] = [const { Mutex::new(Vec::new()) }; 2];
static DECOMPRESSORS: [Pool<Decompressor<'static>>; 2] = [const { Mutex::new(Vec::new()) }; 2];

type Pool<T> = Mutex<Vec<T>>;

/// Whether this release can read chunks that were compressed with the dictionary.
pub fn knows(dictionary: u16) -> bool {
    dictionary <= DICTIONARY_MAIL_1
}

/// Appends the compressed bytes to `out`, or says `false` and leaves `out` alone when that would save nothing.
pub fn compress(plain: &[u8], dictionary: u16, out: &mut Vec<u8>) -> bool {
    // Below this a zstd frame is never shorter than what it holds.
    if plain.len() < 16 {
        return false;
    }
    let pool = &COMPRESSORS[usize::from(dictionary)];
    let kept = pool.lock().pop();
    let Some(mut context) = kept.or_else(|| new_compressor(dictionary)) else {
        return false;
    };
    let start = out.len();
    out.resize(start + plain.len() - 1, 0);
    // No room for the result is how zstd says that it does not compress.
    let written = context.compress_to_buffer(plain, &mut out[start..]).ok();
    out.truncate(start + written.unwrap_or(0));
    put_back(pool, context);
    written.is_some()
}

/// The `size` bytes that were compressed into `bytes`.
pub fn decompress(bytes: &[u8], dictionary: u16, size: usize) -> Result<Vec<u8>, Damage> {
    assert!(size <= CHUNK_BYTES, "callers ask for a chunk at most");
    if !knows(dictionary) {
        return Err(Damage("compressed with a dictionary that this release does not have"));
    }
    let pool = &DECOMPRESSORS[usize::from(dictionary)];
    let kept = pool.lock().pop();
    let mut context = match kept {
        Some(context) => context,
        None if dictionary == DICTIONARY_MAIL_1 => Decompressor::with_prepared_dictionary(&MAIL_1_DECODER)
            .map_err(|_| Damage("no memory to decompress"))?,
        None => Decompressor::new().map_err(|_| Damage("no memory to decompress"))?,
    };
    let mut plain = vec![0; size];
    let read = context.decompress_to_buffer(bytes, &mut plain[..]).ok();
    put_back(pool, context);
    if read == Some(size) { Ok(plain) } else { Err(Damage("chunk does not decompress")) }
}

fn put_back<T>(pool: &Pool<T>, context: T) {
    let mut kept = pool.lock();
    if kept.len() < CONTEXTS_KEPT {
        kept.push(context);
    }
}

fn new_compressor(dictionary: u16) -> Option<Compressor<'static>> {
    let mut context = match dictionary {
        DICTIONARY_MAIL_1 => Compressor::with_prepared_dictionary(&MAIL_1_ENCODER).ok()?,
        _ => Compressor::new(LEVEL).ok()?,
    };
    // The plain length and the dictionary are known from the frame; here they would be a few wasted bytes.
    context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
    context.set_parameter(CParameter::DictIdFlag(false)).ok()?;
    Some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Received: from localhost (localhost [127.0.0.1])\r\n\tby mail.example.net (Postfix) with ESMTP\r\n\
        Date: Mon, 12 Feb 2024 08:00:00 -0700 (PDT)\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHello\r\n";

    /// Frames that were written with it would be lost if a single byte of it changed.
    #[test]
    fn the_first_dictionary_is_frozen() {
        assert_eq!(MAIL_1.len(), 10_028);
        assert_eq!(
            blake3::hash(&MAIL_1).to_hex().as_str(),
            "6043d6f0b8891836a10402771db124955f15ef9045c9a923fe3a7d818db51a9d"
        );
    }

    #[test]
    fn mail_is_much_shorter_with_the_dictionary() {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        assert!(compress(MAIL, DICTIONARY_NONE, &mut without));
        assert!(compress(MAIL, DICTIONARY_MAIL_1, &mut with));
        assert!(with.len() * 3 < without.len() * 2, "{} to {} bytes", without.len(), with.len());
        assert_eq!(decompress(&with, DICTIONARY_MAIL_1, MAIL.len()).unwrap(), MAIL);
        assert_eq!(decompress(&without, DICTIONARY_NONE, MAIL.len()).unwrap(), MAIL);
    }

    #[test]
    fn another_size_is_refused() {
        let mut bytes = Vec::new();
        assert!(compress(MAIL, DICTIONARY_NONE, &mut bytes));
        for size in [0, 1, MAIL.len() - 1, MAIL.len() + 1, CHUNK_BYTES] {
            assert!(decompress(&bytes, DICTIONARY_NONE, size).is_err());
        }
        assert!(decompress(&bytes, 2, MAIL.len()).is_err());
    }

    #[test]
    fn what_does_not_compress_is_left_alone() {
        let mut random = vec![0; 1000];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut random);
        let mut out = b"before".to_vec();
        assert!(!compress(&random, DICTIONARY_NONE, &mut out));
        assert!(!compress(b"short", DICTIONARY_NONE, &mut out));
        assert_eq!(out, b"before");
    }
}
