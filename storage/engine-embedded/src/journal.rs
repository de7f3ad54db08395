//! The end of the journal after a power cut.
//!
//! A cut can leave any of the pages of the last, unsynced writes and miss others. The database cuts off an end that is
//! merely incomplete, but refuses to open when a batch is complete in length and wrong inside; and it cuts silently where
//! damage in the middle makes a batch unreadable, although acknowledged batches follow. So the journal is read here
//! first. Each batch of ours carries its group number and the number of the last group that was synced before it was
//! written. An unreadable batch that nothing synced follows was never acknowledged and is cut off; one that a later batch
//! says was synced is damage, and is reported instead of being passed over.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::embedded::OpenError;
use crate::key::GROUP_KEY;
use crate::value;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
const START_BYTES: usize = 13;
const ITEM_HEADER_BYTES: usize = 21;

/// The numbers that a group carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    group: u64,
    synced: u64,
}

/// A readable batch.
#[derive(Debug)]
struct Batch {
    end: usize,
    mark: Option<Mark>,
}

/// Cuts off the end of the newest journal where it was torn; refuses where it was damaged. Answers how many bytes of it
/// are in use.
pub(crate) fn cut_torn_end(folder: &Path) -> Result<u64, OpenError> {
    let io = |path: &Path, source| OpenError::Io { path: path.into(), source };
    let Some(path) = newest_journal(folder).map_err(|source| io(folder, source))? else { return Ok(0) };
    let bytes = fs::read(&path).map_err(|source| io(&path, source))?;
    let Some(torn) = find_torn(&bytes) else {
        return Ok((bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count()) as u64);
    };
    if let Some(later) = torn.followed_by_synced {
        return Err(OpenError::Journal {
            path,
            offset: torn.offset as u64,
            reason: format!("group {} before it had been acknowledged and cannot be read", later.synced),
        });
    }
    tracing::warn!(
        journal = %path.display(),
        offset = torn.offset,
        "cut off the end of the journal, which was not synced when the power failed"
    );
    let file = OpenOptions::new().write(true).open(&path).map_err(|source| io(&path, source))?;
    file.set_len(torn.offset as u64).map_err(|source| io(&path, source))?;
    file.sync_all().map_err(|source| io(&path, source))?;
    Ok(torn.offset as u64)
}

fn newest_journal(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(most, _)| number > *most)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// An unreadable batch.
#[derive(Debug)]
struct Torn {
    offset: usize,
    /// A readable batch behind it that says it had been synced.
    followed_by_synced: Option<Mark>,
}

fn find_torn(bytes: &[u8]) -> Option<Torn> {
    let mut offset = 0;
    let mut last = None;
    while let Some(batch) = read_batch(bytes, offset) {
        offset = batch.end;
        last = batch.mark.or(last);
    }
    // Journals are laid out in advance; zeros are room.
    let rest = &bytes[offset..];
    if rest.iter().all(|byte| *byte == 0) {
        return None;
    }
    // Zeros at the end hold no batch.
    let end = bytes.len() - rest.iter().rev().take_while(|byte| **byte == 0).count();
    let expected: Option<u64> = last.map(|mark: Mark| mark.group + 1);
    let mut followed_by_synced = None;
    let mut at = offset + 1;
    while at < end {
        if bytes[at] == START
            && let Some(batch) = read_batch(bytes, at)
        {
            if let Some(mark) = batch.mark {
                // Without a batch before it the number of the torn one is not known; then only a later one that
                // directly follows a sync convicts.
                let first_unreadable = expected.unwrap_or(mark.group.saturating_sub(1));
                if mark.synced >= first_unreadable {
                    followed_by_synced = Some(mark);
                    break;
                }
            }
            at = batch.end;
        } else {
            at += 1;
        }
    }
    Some(Torn { offset, followed_by_synced })
}

/// Reads the batch at `offset`, if there is a whole one with the right checksum.
fn read_batch(bytes: &[u8], offset: usize) -> Option<Batch> {
    let mut at = offset;
    let start = bytes.get(at..at + START_BYTES)?;
    if start[0] != START {
        return None;
    }
    let mut items = u32::from_le_bytes(start[1..5].try_into().ok()?);
    at += START_BYTES;
    let first = at;
    let mut mark = None;
    loop {
        match *bytes.get(at)? {
            ITEM if items > 0 => {
                let header = bytes.get(at..at + ITEM_HEADER_BYTES)?;
                let (item_end, key, stored) = read_item(bytes, at, header)?;
                if key == GROUP_KEY {
                    mark = read_mark(stored);
                }
                at = item_end;
                items -= 1;
            }
            CLEAR if items > 0 => {
                at += 9;
                items -= 1;
            }
            END if items == 0 => {
                let end = bytes.get(at..at + 13)?;
                let checksum = u64::from_le_bytes(end[1..9].try_into().ok()?);
                if end[9..] != *TRAILER || checksum != xxhash_rust::xxh3::xxh3_64(bytes.get(first..at)?) {
                    return None;
                }
                return Some(Batch { end: at + 13, mark });
            }
            _ => return None,
        }
    }
}

/// End, key and stored value of an item: tag, kind of value, compression (zero: none), keyspace, lengths of key, value and
/// stored value, key, stored value.
fn read_item<'a>(bytes: &'a [u8], at: usize, header: &[u8]) -> Option<(usize, &'a [u8], &'a [u8])> {
    let lengths = if header[2] == 0 { 3 } else { return None };
    let key_at = at + lengths + 8;
    let number = |from: usize, width: usize| -> Option<usize> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(bytes.get(from..from + width)?);
        Some(u64::from_le_bytes(wide) as usize)
    };
    let key_length = number(key_at, 2)?;
    let stored_length = number(key_at + 6, 4)?;
    let key_from = key_at + 10;
    let value_from = key_from + key_length;
    let end = value_from.checked_add(stored_length)?;
    Some((end, bytes.get(key_from..value_from)?, bytes.get(value_from..end)?))
}

fn read_mark(stored: &[u8]) -> Option<Mark> {
    let payload = value::decode("row", GROUP_KEY, &Bytes::copy_from_slice(stored)).ok()?;
    let number = |from: usize| Some(u64::from_le_bytes(payload.get(from..from + 8)?.try_into().ok()?));
    Some(Mark { group: number(0)?, synced: number(8)? })
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
