//! How entries and pages are stored: `version byte, CRC32C of the rest, sealed bytes`.
//!
//! The checksum tells damage from a wrong key without a key; the seal binds the bytes to their log and place; inside, an
//! entry carries the hash of the one before and a root the hash of the last one that is folded into it.

use bytes::Bytes;

use crate::error::{FormatError, Unsealed};
use crate::id::{LOG_ID_BYTES, LogId, PageId};
use crate::log::EntryRow;
use crate::seal::Sealer;

/// The hash that ties an entry to all entries before it.
pub type ChainHash = [u8; 32];

/// Before the first entry of a log.
pub const CHAIN_START: ChainHash = [0; 32];

const VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 5;
const ROOT_HEADER_BYTES: usize = 8 + 32 + 32;

/// Why a stored value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Not what was written.
    #[error("checksum does not match")]
    Checksum,
    /// The key does not open it.
    #[error("cannot be opened")]
    Unsealed(#[source] Unsealed),
    /// Another release wrote it, or nobody.
    #[error("not understood")]
    Format(#[source] FormatError),
    /// It was written after another entry than the one that stands before it.
    #[error("hash chain is broken")]
    Chain,
    /// A root that is not the one its pointer names.
    #[error("root of snapshot {found} where {expected} was expected")]
    WrongRoot {
        /// `seq` in the pointer.
        expected: u64,
        /// `seq` in the root.
        found: u64,
    },
}

fn envelope(sealed: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + sealed.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32c::crc32c(sealed).to_le_bytes());
    bytes.extend_from_slice(sealed);
    bytes.into()
}

fn sealed_part<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], StoredError> {
    let Some((head, sealed)) = bytes.split_at_checked(ENVELOPE_BYTES) else {
        return Err(StoredError::Format(FormatError::malformed(what, "shorter than its header")));
    };
    if head[0] != VERSION {
        return Err(StoredError::Format(FormatError::Unknown { what, number: head[0].into() }));
    }
    let stored = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if stored != crc32c::crc32c(sealed) {
        return Err(StoredError::Checksum);
    }
    Ok(sealed)
}

/// An entry that was opened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the first operation.
    pub first_seq: u64,
    /// Number of the last operation.
    pub last_seq: u64,
    /// Hash of this entry: what the next one must carry.
    pub hash: ChainHash,
    plain: Vec<u8>,
}

impl Entry {
    /// The operations with their numbers, still encoded.
    pub fn operations(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = &self.plain[32..];
        (self.first_seq..=self.last_seq).map(move |seq| {
            let operation = take_chunk(&mut rest).expect("lengths were checked when it was opened");
            (seq, operation)
        })
    }
}

/// Seals a group of encoded operations into the row that is proposed. `operations` holds each with its length before it,
/// as [`push_chunk`] writes them; `count` says how many.
pub fn seal_entry(
    log: LogId,
    sealer: &dyn Sealer,
    before: &ChainHash,
    expected: u64,
    count: u64,
    nonce: uuid::Uuid,
    operations: &[u8],
) -> (EntryRow, ChainHash) {
    let (first_seq, last_seq) = (expected + 1, expected + count);
    let mut plain = Vec::with_capacity(32 + operations.len());
    plain.extend_from_slice(before);
    plain.extend_from_slice(operations);
    let place = entry_place(log, first_seq, last_seq, nonce);
    let hash = entry_hash(&place, &plain);
    let bytes = envelope(&sealer.seal(&place, &plain));
    (EntryRow { first_seq, last_seq, nonce, bytes }, hash)
}

/// Opens a row and checks that it follows `before`.
pub fn open_entry(
    log: LogId,
    sealer: &dyn Sealer,
    before: &ChainHash,
    row: &EntryRow,
) -> Result<Entry, StoredError> {
    let (entry, follows) = open_entry_alone(log, sealer, row)?;
    if follows != *before {
        return Err(StoredError::Chain);
    }
    Ok(entry)
}

/// Opens a row without knowing what stands before it, and tells the hash of what has to.
pub fn open_entry_alone(
    log: LogId,
    sealer: &dyn Sealer,
    row: &EntryRow,
) -> Result<(Entry, ChainHash), StoredError> {
    let sealed = sealed_part("entry", &row.bytes)?;
    let place = entry_place(log, row.first_seq, row.last_seq, row.nonce);
    let plain = sealer.open(&place, sealed).map_err(StoredError::Unsealed)?;
    let malformed = |reason| StoredError::Format(FormatError::malformed("entry", reason));
    if row.first_seq == 0 || row.last_seq < row.first_seq {
        return Err(malformed("numbers out of order"));
    }
    let Some(follows) = plain.first_chunk::<32>().copied() else { return Err(malformed("no hash")) };
    let mut rest = &plain[32..];
    for _ in row.first_seq..=row.last_seq {
        take_chunk(&mut rest).ok_or_else(|| malformed("fewer operations than numbers"))?;
    }
    if !rest.is_empty() {
        return Err(malformed("more operations than numbers"));
    }
    let hash = entry_hash(&place, &plain);
    Ok((Entry { first_seq: row.first_seq, last_seq: row.last_seq, hash, plain }, follows))
}

fn entry_place(log: LogId, first_seq: u64, last_seq: u64, nonce: uuid::Uuid) -> Vec<u8> {
    let mut place = Vec::with_capacity(6 + LOG_ID_BYTES + 32);
    place.extend_from_slice(b"entry ");
    place.extend_from_slice(&log.to_bytes());
    place.extend_from_slice(&first_seq.to_be_bytes());
    place.extend_from_slice(&last_seq.to_be_bytes());
    place.extend_from_slice(nonce.as_bytes());
    place
}

/// The hash is of the plain bytes, so that the chain outlives a change of keys.
fn entry_hash(place: &[u8], plain: &[u8]) -> ChainHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(place);
    hasher.update(plain);
    *hasher.finalize().as_bytes()
}

/// Appends `bytes` with their length before them (LEB128).
pub fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// Takes from the front what [`push_chunk`] wrote.
pub fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_usize;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (chunk, after) = rest.split_at_checked(length)?;
            *rest = after;
            return Some(chunk);
        }
    }
    None
}

/// Seals a page.
pub fn seal_page(log: LogId, sealer: &dyn Sealer, id: PageId, plain: &[u8]) -> Bytes {
    envelope(&sealer.seal(&page_place(log, id), plain))
}

/// Opens a page.
pub fn open_page(log: LogId, sealer: &dyn Sealer, id: PageId, bytes: &[u8]) -> Result<Bytes, StoredError> {
    let sealed = sealed_part("page", bytes)?;
    let plain = sealer.open(&page_place(log, id), sealed).map_err(StoredError::Unsealed)?;
    Ok(plain.into())
}

fn page_place(log: LogId, id: PageId) -> Vec<u8> {
    let mut place = Vec::with_capacity(5 + LOG_ID_BYTES + 28);
    place.extend_from_slice(b"page ");
    place.extend_from_slice(&log.to_bytes());
    place.extend_from_slice(&id.to_key());
    place
}

/// A root page: what a log starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Operations up to this number are folded into it.
    pub seq: u64,
    /// Hash of the last entry folded into it.
    pub chain: ChainHash,
    /// Digest of the state.
    pub digest: [u8; 32],
    /// The state's own root.
    pub state: Bytes,
}

impl Root {
    /// The plain bytes of the root page.
    pub fn encode(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(ROOT_HEADER_BYTES + self.state.len());
        plain.extend_from_slice(&self.seq.to_le_bytes());
        plain.extend_from_slice(&self.chain);
        plain.extend_from_slice(&self.digest);
        plain.extend_from_slice(&self.state);
        plain
    }

    /// Reverse of [`Self::encode`].
    pub fn decode(plain: &Bytes) -> Result<Self, StoredError> {
        if plain.len() < ROOT_HEADER_BYTES {
            return Err(StoredError::Format(FormatError::malformed("root", "shorter than its header")));
        }
        let array = |from: usize| -> [u8; 32] { plain[from..from + 32].try_into().expect("32 bytes") };
        Ok(Self {
            seq: u64::from_le_bytes(plain[..8].try_into().expect("8 bytes")),
            chain: array(8),
            digest: array(40),
            state: plain.slice(ROOT_HEADER_BYTES..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Unencrypted;
    use uuid::Uuid;

    fn sample(operations: &[&[u8]]) -> (LogId, EntryRow, ChainHash) {
        let log = LogId::account(Uuid::from_u128(1));
        let mut encoded = Vec::new();
        for operation in operations {
            push_chunk(&mut encoded, operation);
        }
        let count = operations.len() as u64;
        let (row, hash) = seal_entry(log, &Unencrypted, &CHAIN_START, 6, count, Uuid::from_u128(2), &encoded);
        (log, row, hash)
    }

    #[test]
    fn entries_survive() {
        let long = vec![7; 300];
        let (log, row, hash) = sample(&[b"one", b"", &long]);
        assert_eq!((row.first_seq, row.last_seq), (7, 9));
        let entry = open_entry(log, &Unencrypted, &CHAIN_START, &row).unwrap();
        assert_eq!(entry.hash, hash);
        let operations: Vec<_> = entry.operations().collect();
        assert_eq!(operations, [(7, &b"one"[..]), (8, b""), (9, &long)]);
    }

    #[test]
    fn every_damaged_bit_is_noticed() {
        let (log, row, _) = sample(&[b"one", b"two"]);
        for bit in 0..row.bytes.len() * 8 {
            let mut bytes = row.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = EntryRow { bytes: bytes.into(), ..row.clone() };
            assert!(open_entry(log, &Unencrypted, &CHAIN_START, &damaged).is_err(), "bit {bit}");
        }
        for length in 0..row.bytes.len() {
            let damaged = EntryRow { bytes: row.bytes.slice(..length), ..row.clone() };
            assert!(open_entry(log, &Unencrypted, &CHAIN_START, &damaged).is_err(), "length {length}");
        }
    }

    #[test]
    fn an_entry_follows_one_chain_only() {
        let (log, row, _) = sample(&[b"one"]);
        assert_eq!(open_entry(log, &Unencrypted, &[1; 32], &row).unwrap_err(), StoredError::Chain);
        let longer = EntryRow { last_seq: 8, ..row };
        assert!(matches!(
            open_entry(log, &Unencrypted, &CHAIN_START, &longer),
            Err(StoredError::Format(FormatError::Malformed { .. }))
        ));
    }

    #[test]
    fn pages_and_roots_survive() {
        let log = LogId::shard(Uuid::from_u128(1));
        let id = PageId { base_seq: 0, attempt: Uuid::from_u128(4), number: 0 };
        let root = Root { seq: 9, chain: [1; 32], digest: [2; 32], state: Bytes::from_static(b"state") };
        let sealed = seal_page(log, &Unencrypted, id, &root.encode());
        let plain = open_page(log, &Unencrypted, id, &sealed).unwrap();
        assert_eq!(Root::decode(&plain).unwrap(), root);
        assert!(Root::decode(&plain.slice(..50)).is_err());
        assert_eq!(open_page(log, &Unencrypted, id, &sealed[..20]), Err(StoredError::Checksum));
    }

    #[test]
    fn lengths_of_any_size_survive_and_nonsense_is_refused() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            push_chunk(&mut out, &vec![1; length]);
            let mut rest = &out[..];
            assert_eq!(take_chunk(&mut rest).map(<[u8]>::len), Some(length));
            assert!(rest.is_empty());
        }
        for bad in [&[][..], &[1], &[0x80], &[0xff; 9]] {
            assert_eq!(take_chunk(&mut &*bad), None);
        }
    }
}
