//! The names of shards, and which one something belongs to.

use std::fmt;
use std::str::FromStr;

use mail::address::Domain;
use mail::id::{AccountId, QueueId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a shard holds. The number is part of the shard's log id, so its meaning is frozen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum ShardKind {
    /// What was accepted and is to be expanded and placed.
    Ingest = 1,
    /// What waits to be sent to another host.
    Outbound = 2,
    /// What crashed whoever touched it, and what nobody can be told about. Waits for a person.
    Quarantine = 3,
}

/// A shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId {
    /// What it holds.
    pub kind: ShardKind,
    /// Which one of its kind.
    pub index: u16,
}

/// The first bytes of every shard's log id, so that it can be told from an account's in a listing of keys.
const LOG_ID_PREFIX: [u8; 6] = *b"pqueue";

impl ShardId {
    /// The only quarantine shard: what lies there is rare, and is looked at as one list.
    pub const QUARANTINE: Self = Self { kind: ShardKind::Quarantine, index: 0 };

    /// An ingest shard.
    pub fn ingest(index: u16) -> Self {
        Self { kind: ShardKind::Ingest, index }
    }

    /// An outbound shard.
    pub fn outbound(index: u16) -> Self {
        Self { kind: ShardKind::Outbound, index }
    }

    /// The id of the shard's log, by which other logs remember what they have taken from it. A function of the name:
    /// every node finds the same shard without asking. Bytes 8 and 9 hold the version and variant of a UUIDv8; the
    /// last four are the generation of the queue, zero until a restore has to begin with fresh shards.
    pub fn log_id(self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&LOG_ID_PREFIX);
        bytes[6] = 0x80;
        bytes[8] = 0x80;
        bytes[9] = self.kind as u8;
        bytes[10..12].copy_from_slice(&self.index.to_be_bytes());
        Uuid::from_bytes(bytes)
    }

    /// Reverse of [`Self::log_id`].
    pub fn from_log_id(id: Uuid) -> Option<Self> {
        let bytes = id.as_bytes();
        let kind = match bytes[9] {
            1 => ShardKind::Ingest,
            2 => ShardKind::Outbound,
            3 => ShardKind::Quarantine,
            _ => return None,
        };
        let shard = Self { kind, index: u16::from_be_bytes([bytes[10], bytes[11]]) };
        (shard.log_id() == id).then_some(shard)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ShardKind::Ingest => "ingest",
            ShardKind::Outbound => "outbound",
            ShardKind::Quarantine => "quarantine",
        };
        write!(f, "{kind}-{}", self.index)
    }
}

impl FromStr for ShardId {
    type Err = ();

    /// Reverse of its display: `outbound-3`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, index) = text.rsplit_once('-').ok_or(())?;
        let index = index.parse().map_err(|_| ())?;
        let kind = match kind {
            "ingest" => ShardKind::Ingest,
            "outbound" => ShardKind::Outbound,
            "quarantine" => ShardKind::Quarantine,
            _ => return Err(()),
        };
        Ok(Self { kind, index })
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The ingest shard of a message: by the account of its first local recipient, so that one account's mail comes from
/// one shard and its log is not contended for; without one, by its id.
pub fn ingest_index(first_local: Option<AccountId>, queue_id: QueueId, shards: u16) -> u16 {
    index_of(first_local.map_or(queue_id.0, |account| account.0).as_bytes(), shards)
}

/// The ingest shard of a message whose id is derived from another's: a function of the id alone, so that every attempt
/// goes to the same shard and is recognised there.
pub fn derived_index(queue_id: QueueId, shards: u16) -> u16 {
    index_of(queue_id.0.as_bytes(), shards)
}

/// The outbound shard of a destination.
pub fn outbound_index(domain: &Domain, shards: u16) -> u16 {
    index_of(domain.to_string().as_bytes(), shards)
}

/// The id of the notification about one target of a message: one for all attempts to write it.
pub fn notification_id(queue_id: QueueId, target: u32) -> QueueId {
    let mut hasher = blake3::Hasher::new_derive_key("postrider queue 2025 notification id");
    hasher.update(queue_id.0.as_bytes());
    hasher.update(&target.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    QueueId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn index_of(key: &[u8], shards: u16) -> u16 {
    let hash = blake3::hash(key);
    let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash is longer than that"));
    (number % u64::from(shards.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_name_their_shard() {
        for shard in [ShardId::ingest(0), ShardId::ingest(15), ShardId::outbound(63), ShardId::QUARANTINE] {
            assert_eq!(ShardId::from_log_id(shard.log_id()), Some(shard));
        }
        assert_eq!(ShardId::from_log_id(Uuid::from_u128(7)), None);
        assert_eq!(ShardId::outbound(258).log_id().to_string(), "70717565-7565-8000-8002-010200000000");
    }

    /// Where mail lies that is in the queue now depends on these functions.
    #[test]
    fn placement_never_changes() {
        let id = QueueId(Uuid::from_u128(0x1234));
        assert_eq!(ingest_index(Some(AccountId(Uuid::from_u128(1))), id, 16), 7);
        assert_eq!(ingest_index(None, id, 16), derived_index(id, 16));
        assert_eq!(outbound_index(&Domain::parse("Example.ORG").unwrap(), 64), 23);
        assert_eq!(notification_id(id, 3), notification_id(id, 3));
        assert_ne!(notification_id(id, 3), notification_id(id, 4));
    }
}
