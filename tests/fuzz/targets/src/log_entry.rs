//! Entries, pages and roots of logs as they may lie in a back end.

use bytes::Bytes;
use engine::seal::Unencrypted;
use engine::stored::{
    CHAIN_START, Root, open_entry, open_page, push_chunk, seal_entry, seal_page, take_chunk,
};
use engine::{EntryRow, LogId, PageId};
use uuid::Uuid;

use crate::input::Input;

/// Byte 1: how many operations; byte 2: what becomes of checksum and numbers; then an entry's bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (count, kind) = (input.byte(), input.byte());
    let bytes = input.rest();
    let log = LogId::account(Uuid::from_u128(1));
    let page = PageId { base_seq: 2, attempt: Uuid::from_u128(3), number: 4 };

    let stored = if kind & 1 == 0 { Bytes::copy_from_slice(bytes) } else { enveloped(bytes) };
    let first_seq = [1, 0, u64::MAX, u64::MAX - u64::from(count)][usize::from(kind >> 1 & 3)];
    let last_seq = if kind & 8 == 0 { first_seq.saturating_add(count.into()) } else { first_seq ^ u64::MAX };
    let row = EntryRow { first_seq, last_seq, nonce: Uuid::nil(), bytes: stored.clone() };
    if let Ok(entry) = open_entry(log, &Unencrypted, &CHAIN_START, &row) {
        let mut length = 0;
        let mut next = first_seq;
        for (seq, operation) in entry.operations() {
            assert_eq!(seq, next);
            next = next.wrapping_add(1);
            length += operation.len() + 1;
        }
        assert_eq!(next, last_seq.wrapping_add(1));
        assert!(length <= bytes.len(), "operations beyond the entry");
    }
    if let Ok(plain) = open_page(log, &Unencrypted, page, &stored) {
        assert_eq!(
            open_page(log, &Unencrypted, page, &seal_page(log, &Unencrypted, page, &plain)),
            Ok(plain.clone())
        );
        if let Ok(root) = Root::decode(&plain) {
            assert_eq!(root.encode(), plain);
        }
    }

    // What is cut into operations and sealed is found again.
    let mut operations = Vec::new();
    let mut encoded = Vec::new();
    let mut rest = bytes;
    while let Some(operation) = take_chunk(&mut rest) {
        operations.push(operation);
        push_chunk(&mut encoded, operation);
    }
    if operations.is_empty() {
        return;
    }
    let (row, hash) =
        seal_entry(log, &Unencrypted, &CHAIN_START, 6, operations.len() as u64, Uuid::nil(), &encoded);
    let entry = open_entry(log, &Unencrypted, &CHAIN_START, &row).expect("what was sealed is opened");
    assert_eq!(entry.hash, hash);
    assert!(entry.operations().map(|(_, operation)| operation).eq(operations));
}

fn enveloped(sealed: &[u8]) -> Bytes {
    [&[1], &crc32c::crc32c(sealed).to_le_bytes()[..], sealed].concat().into()
}

/// An entry of three operations, its checksum kept and mended.
pub fn samples() -> Vec<Vec<u8>> {
    let mut operations = Vec::new();
    for operation in [&b"one"[..], b"", &[7; 200]] {
        push_chunk(&mut operations, operation);
    }
    let log = LogId::account(Uuid::from_u128(1));
    let (row, _) = seal_entry(log, &Unencrypted, &CHAIN_START, 0, 3, Uuid::nil(), &operations);
    vec![
        [&[2, 0], &row.bytes[..]].concat(),
        [&[2, 1], &row.bytes[5..]].concat(),
        [&[0, 0], &operations[..]].concat(),
    ]
}
