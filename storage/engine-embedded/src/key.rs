//! Where things lie: the bytes of keys.
//!
//! Table `log`: `log id (17 bytes), 0` → the current snapshot; `log id, 1, last_seq (8 bytes, big-endian)` → an entry.
//! Table `page`: rows of [`Table::Page`]; table `row`: all other rows; both `table, length of the partition, partition,
//! key`. In `row`, a key that begins with a zero byte belongs to the engine itself.

use bytes::Bytes;
use engine::{LogId, RowKey, Table};

/// Longest row key; the journal stores lengths in 16 bits.
pub(crate) const KEY_BYTES_MAX: usize = 32 * 1024;

/// The engine's own row with the number of the last group; see [`crate::journal`].
pub(crate) const GROUP_KEY: &[u8] = b"\0group";

const SNAPSHOT: u8 = 0;
const ENTRY: u8 = 1;

/// Bytes of [`entry_key`].
pub(crate) const ENTRY_KEY_BYTES: usize = engine::id::LOG_ID_BYTES + 9;

pub(crate) fn snapshot_key(log: LogId) -> Vec<u8> {
    let mut key = log.to_bytes().to_vec();
    key.push(SNAPSHOT);
    key
}

pub(crate) fn entry_key(log: LogId, last_seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(ENTRY_KEY_BYTES);
    key.extend_from_slice(&log.to_bytes());
    key.push(ENTRY);
    key.extend_from_slice(&last_seq.to_be_bytes());
    key
}

/// The number in a key that [`entry_key`] made.
pub(crate) fn entry_seq(key: &[u8]) -> Option<u64> {
    let (_, seq) = key.split_last_chunk::<8>()?;
    (key.len() == ENTRY_KEY_BYTES).then(|| u64::from_be_bytes(*seq))
}

/// First and last possible entry keys.
pub(crate) fn entry_range(log: LogId, after: u64, to: u64) -> std::ops::RangeInclusive<Vec<u8>> {
    entry_key(log, after.saturating_add(1))..=entry_key(log, to)
}

/// Greater than all keys of a log, and not than those of the next.
pub(crate) fn past_log(log: LogId) -> Vec<u8> {
    let mut key = log.to_bytes().to_vec();
    key.push(ENTRY + 1);
    key
}

/// The same of a partition: its last key is followed by the prefix that is greater by one, where the length counts too.
pub(crate) fn past_partition(table: Table, partition: &Bytes) -> Vec<u8> {
    let mut key = row_prefix(table, partition);
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            return key;
        }
    }
    unreachable!("a table's number is less than 255")
}

pub(crate) fn row_key(key: &RowKey) -> Vec<u8> {
    let mut bytes = row_prefix(key.table, &key.partition);
    bytes.extend_from_slice(&key.key);
    bytes
}

pub(crate) fn row_prefix(table: Table, partition: &Bytes) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + partition.len() + 32);
    bytes.push(table as u8);
    bytes.push(partition.len() as u8);
    bytes.extend_from_slice(partition);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_by_number_and_stay_in_their_log() {
        let log = LogId::from_bytes(&[1; 17]).unwrap();
        assert!(entry_key(log, 255) < entry_key(log, 256));
        assert!(snapshot_key(log) < entry_key(log, 0));
        assert_eq!(entry_seq(&entry_key(log, 77)), Some(77));
        assert_eq!(entry_seq(&snapshot_key(log)), None);
        let range = entry_range(log, 3, u64::MAX);
        assert!(!range.contains(&entry_key(log, 3)) && range.contains(&entry_key(log, 4)));
    }
}
