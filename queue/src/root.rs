//! The root of a shard's snapshot: what is small and always in memory.

use std::collections::BTreeMap;

use engine::{FormatError, PageId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entry::decode_versioned;
use crate::shard_id::ShardId;

/// How many shards there are. Every shard knows, so that a process with another configuration is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Ingest shards.
    pub ingest: u16,
    /// Outbound shards.
    pub outbound: u16,
}

/// What the root says besides chunks and known ids.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Scalars {
    /// Which shard it is.
    pub(crate) shard: ShardId,
    /// How many there were when it was made.
    pub(crate) layout: Layout,
    /// The last operation folded.
    pub(crate) seq: u64,
    /// The number of the next chunk.
    pub(crate) next_chunk: u32,
    /// Delivery may begin with items below this number.
    pub(crate) window_below: u64,
    /// Items below this number may have been begun before the last boot.
    pub(crate) suspect_below: u64,
    /// The process that last began to work on the shard.
    pub(crate) boot: Option<Uuid>,
    /// When it did (unix seconds).
    pub(crate) booted_at: u64,
    /// Items ever accepted.
    pub(crate) accepted: u64,
    /// Items ever finished.
    pub(crate) finished: u64,
    /// Entries up to here are in the archive.
    pub(crate) archived_seq: u64,
    /// Where its newest chunk lies.
    pub(crate) archived_address: Vec<u8>,
    /// The reference to that.
    pub(crate) archived_nonce: Uuid,
}

/// What the root says of a chunk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ChunkRow {
    /// Its number; only grows.
    pub(crate) id: u32,
    /// Its items are due in this hour (hours since 1970).
    pub(crate) hour: u32,
    /// Items that ever came into it.
    pub(crate) items: u32,
    /// Unfinished ones.
    pub(crate) live: u32,
    /// Finished ones, which it holds as history.
    pub(crate) done: u32,
    /// No unfinished item has a lower number.
    pub(crate) floor: u64,
    /// No unfinished item expires before (unix seconds).
    pub(crate) expires: u64,
    /// When an item last finished (unix seconds).
    pub(crate) finished: u64,
}

/// The page that a chunk was last written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageRow {
    pub(crate) id: PageId,
    /// Hash of the page, which is what the chunk counts for in the digest of the state.
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: u32,
}

/// Ids that are known of a producer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KnownRow {
    pub(crate) producer: Uuid,
    pub(crate) watermark: u64,
    pub(crate) ids: Vec<(u64, u32)>,
}

/// A root as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) scalars: Scalars,
    pub(crate) chunks: Vec<(ChunkRow, Option<PageRow>)>,
    pub(crate) filling: Vec<(u32, u32)>,
    pub(crate) known: Vec<KnownRow>,
    /// Written only where there are some, behind all else.
    #[serde(skip)]
    pub(crate) cursors: BTreeMap<String, u64>,
}

const VERSION: u8 = 1;
/// As version 1, with the cursors behind it.
const VERSION_WITH_CURSORS: u8 = 2;

impl Root {
    pub(crate) fn encode(&self) -> Vec<u8> {
        const ALL_ENCODED: &str = "roots have nothing that cannot be encoded";
        let version = if self.cursors.is_empty() { VERSION } else { VERSION_WITH_CURSORS };
        let mut bytes = postcard::to_extend(self, vec![version]).expect(ALL_ENCODED);
        if version == VERSION_WITH_CURSORS {
            bytes = postcard::to_extend(&self.cursors, bytes).expect(ALL_ENCODED);
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "queue root";
        let Some((bytes, sum)) = bytes.split_last_chunk::<4>() else {
            return Err(FormatError::malformed(WHAT, "too short"));
        };
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return Err(FormatError::malformed(WHAT, "checksum does not match"));
        }
        if bytes.first() == Some(&VERSION_WITH_CURSORS) {
            let (root, cursors): (Self, BTreeMap<String, u64>) =
                decode_versioned(WHAT, VERSION_WITH_CURSORS, bytes)?;
            return Ok(Self { cursors, ..root });
        }
        decode_versioned(WHAT, VERSION, bytes)
    }
}
