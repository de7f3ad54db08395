//! How values are stored: `version, CRC32C of key and payload, payload`. The key is part of the checksum, so that a value
//! that turns up elsewhere is noticed too.

use bytes::Bytes;
use engine::{EngineError, EntryRow, SnapshotPointer};
use uuid::Uuid;

const VERSION: u8 = 1;
const HEADER: usize = 5;

pub(crate) fn encode(key: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let mut value = Vec::with_capacity(HEADER + length);
    value.push(VERSION);
    value.extend_from_slice(&[0; 4]);
    for part in payload {
        value.extend_from_slice(part);
    }
    let checksum = checksum(key, &value[HEADER..]);
    value[1..HEADER].copy_from_slice(&checksum.to_le_bytes());
    value
}

/// The payload of a stored value.
pub(crate) fn decode(table: &str, key: &[u8], value: &Bytes) -> Result<Bytes, EngineError> {
    let Some((header, payload)) = value.split_at_checked(HEADER) else {
        return Err(damaged(table, key, "shorter than its header"));
    };
    if header[0] != VERSION {
        return Err(damaged(table, key, &format!("unknown version {}", header[0])));
    }
    let stored = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    if stored != checksum(key, payload) {
        return Err(damaged(table, key, "checksum does not match"));
    }
    Ok(value.slice(HEADER..))
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

pub(crate) fn damaged(table: &str, key: &[u8], reason: &str) -> EngineError {
    let mut place = format!("{table}/");
    for byte in key {
        use std::fmt::Write;
        write!(place, "{byte:02x}").expect("strings take everything");
    }
    EngineError::Damaged { place, reason: reason.into() }
}

pub(crate) fn encode_snapshot(key: &[u8], snapshot: SnapshotPointer) -> Vec<u8> {
    let numbers = [snapshot.seq.to_le_bytes(), snapshot.base_seq.to_le_bytes()].concat();
    encode(key, &[snapshot.id.as_bytes(), &numbers])
}

pub(crate) fn decode_snapshot(key: &[u8], value: &Bytes) -> Result<SnapshotPointer, EngineError> {
    let payload = decode("log", key, value)?;
    let payload: &[u8; 32] =
        payload[..].try_into().map_err(|_| damaged("log", key, "not the size of a snapshot pointer"))?;
    let number = |from: usize| u64::from_le_bytes(payload[from..from + 8].try_into().expect("8 bytes"));
    let id = Uuid::from_slice(&payload[..16]).expect("16 bytes");
    Ok(SnapshotPointer { id, seq: number(16), base_seq: number(24) })
}

pub(crate) fn encode_entry(key: &[u8], entry: &EntryRow) -> Vec<u8> {
    encode(key, &[&entry.first_seq.to_le_bytes(), entry.nonce.as_bytes(), &entry.bytes])
}

pub(crate) fn decode_entry(key: &[u8], value: &Bytes) -> Result<EntryRow, EngineError> {
    let payload = decode("log", key, value)?;
    let last_seq =
        crate::key::entry_seq(key).ok_or_else(|| damaged("log", key, "not the key of an entry"))?;
    if payload.len() < 24 {
        return Err(damaged("log", key, "too short for an entry"));
    }
    Ok(EntryRow {
        first_seq: u64::from_le_bytes(payload[..8].try_into().expect("8 bytes")),
        last_seq,
        nonce: Uuid::from_slice(&payload[8..24]).expect("16 bytes"),
        bytes: payload.slice(24..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::entry_key;
    use engine::LogId;

    #[test]
    fn values_survive_and_damage_is_named() {
        let log = LogId::account(Uuid::from_u128(1));
        let key = entry_key(log, 9);
        let entry = EntryRow {
            first_seq: 8,
            last_seq: 9,
            nonce: Uuid::from_u128(3),
            bytes: Bytes::from_static(b"sealed"),
        };
        let value = encode_entry(&key, &entry);
        assert_eq!(decode_entry(&key, &value.clone().into()).unwrap(), entry);
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = decode_entry(&key, &damaged.into()).unwrap_err();
            assert!(matches!(error, EngineError::Damaged { place, .. } if place.starts_with("log/01")));
        }
        for length in 0..value.len() {
            assert!(decode_entry(&key, &value[..length].to_vec().into()).is_err());
        }
        let elsewhere = entry_key(log, 10);
        assert!(decode_entry(&elsewhere, &value.into()).is_err());

        let pointer = SnapshotPointer { id: Uuid::from_u128(5), seq: 7, base_seq: 3 };
        let value = encode_snapshot(&key, pointer);
        assert_eq!(decode_snapshot(&key, &value.into()).unwrap(), pointer);
    }
}
