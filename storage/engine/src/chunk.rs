//! Archive chunks: entries as they were committed, in order, complete in themselves.
//!
//! `"PRLC", version 1, log id, first and last number, address of the chunk before, the snapshot that the chunk starts
//! from (in the first chunk), entries, CRC32C of everything before`. Entries and pages are sealed as they are in the log;
//! the numbers and lengths around them are plain, so that a chunk can be listed and checked for damage without a key.

use bytes::Bytes;
use uuid::Uuid;

use crate::error::FormatError;
use crate::id::{LOG_ID_BYTES, LogId, PAGE_KEY_BYTES, PageId};
use crate::log::{EntryRow, SnapshotPointer};
use crate::stored::{push_chunk, take_chunk};

const MAGIC: &[u8; 4] = b"PRLC";
const VERSION: u8 = 1;

/// The snapshot that the entries of a first chunk start from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkBase {
    /// Its name and number.
    pub snapshot: SnapshotPointer,
    /// Its root and pages, sealed as they were stored. Others may be among them.
    pub pages: Vec<(PageId, Bytes)>,
}

/// A piece of a log in the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Whose.
    pub log: LogId,
    /// Address of the chunk before; empty for the first.
    pub previous: Bytes,
    /// What the first chunk starts from.
    pub base: Option<ChunkBase>,
    /// Entries, dense.
    pub rows: Vec<EntryRow>,
}

impl Chunk {
    /// The bytes to store.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.log.to_bytes());
        push_chunk(&mut out, &self.previous);
        match &self.base {
            None => out.push(0),
            Some(base) => {
                out.push(1);
                out.extend_from_slice(base.snapshot.id.as_bytes());
                out.extend_from_slice(&base.snapshot.seq.to_le_bytes());
                out.extend_from_slice(&base.snapshot.base_seq.to_le_bytes());
                out.extend_from_slice(&(base.pages.len() as u32).to_le_bytes());
                for (id, bytes) in &base.pages {
                    out.extend_from_slice(&id.to_key());
                    push_chunk(&mut out, bytes);
                }
            }
        }
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            out.extend_from_slice(&row.first_seq.to_le_bytes());
            out.extend_from_slice(&row.last_seq.to_le_bytes());
            out.extend_from_slice(row.nonce.as_bytes());
            push_chunk(&mut out, &row.bytes);
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.into()
    }

    /// Reverse of [`Self::encode`]. Entries are sealed, so their content is checked where they are opened.
    pub fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let malformed = |reason: &str| FormatError::malformed("archive chunk", reason);
        let Some((body, checksum)) = bytes.split_last_chunk::<4>() else {
            return Err(malformed("shorter than its checksum"));
        };
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(malformed("checksum does not match"));
        }
        let mut reader = Reader { whole: bytes, rest: body };
        if reader.array::<4>()? != *MAGIC {
            return Err(malformed("not an archive chunk"));
        }
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(FormatError::Unknown { what: "archive chunk", number: version.into() });
        }
        let log = LogId::from_bytes(&reader.array::<LOG_ID_BYTES>()?)
            .ok_or_else(|| malformed("unknown kind of log"))?;
        let previous = reader.chunk()?;
        let base = match reader.array()? {
            [0] => None,
            [1] => Some(reader.base()?),
            _ => return Err(malformed("base is neither there nor not")),
        };
        let count = u32::from_le_bytes(reader.array()?);
        let mut rows: Vec<EntryRow> = Vec::new();
        for _ in 0..count {
            let row = EntryRow {
                first_seq: u64::from_le_bytes(reader.array()?),
                last_seq: u64::from_le_bytes(reader.array()?),
                nonce: Uuid::from_bytes(reader.array()?),
                bytes: reader.chunk()?,
            };
            if row.first_seq == 0 || row.last_seq < row.first_seq {
                return Err(malformed("entry with numbers out of order"));
            }
            if rows.last().is_some_and(|before| before.last_seq.checked_add(1) != Some(row.first_seq)) {
                return Err(malformed("entries are not dense"));
            }
            rows.push(row);
        }
        if !reader.rest.is_empty() {
            return Err(malformed("bytes after the entries"));
        }
        Ok(Self { log, previous, base, rows })
    }
}

struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (array, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| FormatError::malformed("archive chunk", "ends too early"))?;
        self.rest = rest;
        Ok(*array)
    }

    fn chunk(&mut self) -> Result<Bytes, FormatError> {
        let chunk = take_chunk(&mut self.rest)
            .ok_or_else(|| FormatError::malformed("archive chunk", "ends too early"))?;
        Ok(self.whole.slice_ref(chunk))
    }

    fn base(&mut self) -> Result<ChunkBase, FormatError> {
        let snapshot = SnapshotPointer {
            id: Uuid::from_bytes(self.array()?),
            seq: u64::from_le_bytes(self.array()?),
            base_seq: u64::from_le_bytes(self.array()?),
        };
        let count = u32::from_le_bytes(self.array()?);
        let mut pages = Vec::new();
        for _ in 0..count {
            let key = self.array::<PAGE_KEY_BYTES>()?;
            let id = PageId::from_key(&key)
                .ok_or_else(|| FormatError::malformed("archive chunk", "page without a name"))?;
            pages.push((id, self.chunk()?));
        }
        Ok(ChunkBase { snapshot, pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Chunk {
        let snapshot = SnapshotPointer { id: Uuid::from_u128(3), seq: 4, base_seq: 2 };
        let row = |first_seq, last_seq| EntryRow {
            first_seq,
            last_seq,
            nonce: Uuid::from_u128(first_seq.into()),
            bytes: Bytes::from(vec![1; 200]),
        };
        Chunk {
            log: LogId::domain(Uuid::from_u128(1)),
            previous: Bytes::from_static(b"before"),
            base: Some(ChunkBase { snapshot, pages: vec![(snapshot.root(), Bytes::from_static(b"page"))] }),
            rows: vec![row(5, 5), row(6, 9)],
        }
    }

    #[test]
    fn chunks_survive() {
        let chunk = sample();
        assert_eq!(Chunk::decode(&chunk.encode()).unwrap(), chunk);
        let next = Chunk { base: None, ..chunk };
        assert_eq!(Chunk::decode(&next.encode()).unwrap(), next);
    }

    #[test]
    fn damaged_chunks_are_refused() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::decode(&damaged.into()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Chunk::decode(&bytes.slice(..length)).is_err(), "length {length}");
        }
    }

    #[test]
    fn entries_must_be_dense() {
        let mut chunk = sample();
        chunk.rows[1].first_seq = 7;
        assert!(Chunk::decode(&chunk.encode()).is_err());
    }
}
