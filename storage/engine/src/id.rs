//! Names of logs and of the pages that their snapshots are made of.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a log holds the changes of. The number is stored and sealed into every row, so its meaning is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum LogKind {
    /// One mail account.
    Account = 1,
    /// A shard of the queue: ingest, outbound or quarantine.
    Shard = 2,
    /// A domain of the directory.
    Domain = 3,
    /// The installation's own registry: which domains and shards exist.
    Registry = 4,
}

impl LogKind {
    /// The kind with this stored number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Account,
            2 => Self::Shard,
            3 => Self::Domain,
            4 => Self::Registry,
            _ => return None,
        })
    }
}

/// The name of a log, and so of the partition that all its rows lie in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// What it holds the changes of.
    pub kind: LogKind,
    /// Which one. A restored account gets a new one, so an id never means two histories.
    pub id: Uuid,
}

/// Length of [`LogId::to_bytes`].
pub const LOG_ID_BYTES: usize = 17;

impl LogId {
    /// A log of an account.
    pub fn account(id: Uuid) -> Self {
        Self { kind: LogKind::Account, id }
    }

    /// A log of a queue shard.
    pub fn shard(id: Uuid) -> Self {
        Self { kind: LogKind::Shard, id }
    }

    /// A log of a domain.
    pub fn domain(id: Uuid) -> Self {
        Self { kind: LogKind::Domain, id }
    }

    /// The log of a registry.
    pub fn registry(id: Uuid) -> Self {
        Self { kind: LogKind::Registry, id }
    }

    /// Kind and id as they stand at the front of stored keys.
    pub fn to_bytes(self) -> [u8; LOG_ID_BYTES] {
        let mut bytes = [0; LOG_ID_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// Reverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LOG_ID_BYTES] = bytes.try_into().ok()?;
        let kind = LogKind::from_byte(bytes[0])?;
        let id = Uuid::from_slice(&bytes[1..]).ok()?;
        Some(Self { kind, id })
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LogKind::Account => "account",
            LogKind::Shard => "shard",
            LogKind::Domain => "domain",
            LogKind::Registry => "registry",
        };
        write!(f, "{kind}/{}", self.id.as_simple())
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an immutable page. Never used twice: every attempt at a snapshot has a fresh one.
///
/// The order of the fields is the order of the stored keys; page collection relies on it to scan old bases only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PageId {
    /// The `seq` of the snapshot that the attempt was built on. Page collection decides by this number.
    pub base_seq: u64,
    /// The attempt at a snapshot which wrote the page; also the name of that snapshot.
    pub attempt: Uuid,
    /// Which page of the attempt. Zero is the root.
    pub number: u32,
}

/// Length of [`PageId::to_key`].
pub const PAGE_KEY_BYTES: usize = 28;

impl PageId {
    /// The stored key: big-endian, so that keys sort like ids.
    pub fn to_key(self) -> [u8; PAGE_KEY_BYTES] {
        let mut key = [0; PAGE_KEY_BYTES];
        key[..8].copy_from_slice(&self.base_seq.to_be_bytes());
        key[8..24].copy_from_slice(self.attempt.as_bytes());
        key[24..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    /// Reverse of [`Self::to_key`].
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; PAGE_KEY_BYTES] = key.try_into().ok()?;
        Some(Self {
            base_seq: u64::from_be_bytes(key[..8].try_into().ok()?),
            attempt: Uuid::from_slice(&key[8..24]).ok()?,
            number: u32::from_be_bytes(key[24..].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_stored_form() {
        for kind in 1..=4 {
            let id = LogId { kind: LogKind::from_byte(kind).unwrap(), id: Uuid::from_u128(7 << 70 | 3) };
            assert_eq!(LogId::from_bytes(&id.to_bytes()), Some(id));
        }
        assert_eq!(LogId::from_bytes(&[9; LOG_ID_BYTES]), None);
        assert_eq!(LogId::from_bytes(&[1; 3]), None);
        let page = PageId { base_seq: 300, attempt: Uuid::from_u128(5), number: 70_000 };
        assert_eq!(PageId::from_key(&page.to_key()), Some(page));
        assert_eq!(PageId::from_key(b"short"), None);
    }

    #[test]
    fn page_keys_sort_like_ids() {
        let page = |base_seq, attempt, number| PageId { base_seq, attempt: Uuid::from_u128(attempt), number };
        let mut ids = [page(256, 0, 0), page(1, 9, 4), page(255, 1, 256), page(255, 1, 255), page(1, 2, 1)];
        ids.sort();
        let keys: Vec<_> = ids.iter().map(|id| id.to_key()).collect();
        assert!(keys.is_sorted());
    }
}
