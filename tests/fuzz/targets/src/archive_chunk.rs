//! Pieces of a log in the archive.

use bytes::Bytes;
use engine::chunk::{Chunk, ChunkBase};
use engine::{EntryRow, LogId, SnapshotPointer};
use uuid::Uuid;

/// Byte 1: whether the checksum is put right; then the chunk without its checksum.
pub fn run(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    let mut bytes = body.to_vec();
    if kind & 1 != 0 {
        bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    }
    let Ok(chunk) = Chunk::decode(&Bytes::from(bytes)) else { return };
    let held: usize = chunk.rows.iter().map(|row| row.bytes.len() + 33).sum();
    assert!(held <= data.len(), "more than there is");
    assert_eq!(Chunk::decode(&chunk.encode()), Ok(chunk));
}

/// A first chunk and a later one.
pub fn samples() -> Vec<Vec<u8>> {
    let snapshot = SnapshotPointer { id: Uuid::from_u128(3), seq: 4, base_seq: 2 };
    let row = |first_seq, last_seq| EntryRow {
        first_seq,
        last_seq,
        nonce: Uuid::from_u128(8),
        bytes: Bytes::from(vec![1; 20]),
    };
    let first = Chunk {
        log: LogId::domain(Uuid::from_u128(1)),
        previous: Bytes::new(),
        base: Some(ChunkBase { snapshot, pages: vec![(snapshot.root(), Bytes::from_static(b"page"))] }),
        rows: vec![row(5, 5), row(6, 9)],
    };
    let later = Chunk { base: None, previous: Bytes::from_static(b"before"), ..first.clone() };
    let last = Chunk { rows: vec![row(u64::MAX, u64::MAX)], ..later.clone() };
    let mut samples = Vec::new();
    for chunk in [first, later, last] {
        let bytes = chunk.encode();
        samples.push([&[0], &bytes[..]].concat());
        samples.push([&[1], &bytes[..bytes.len() - 4]].concat());
    }
    samples
}
