//! Limits of the blob store, each with its reason.

use serde::{Deserialize, Serialize};

/// Limits of the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A shared segment is sealed when it has reached this many bytes. 64 MiB keeps the number of files of a terabyte
    /// below 20 000 and the work of compacting one below a second or two.
    pub segment_bytes: u64,
    /// Messages up to this size are buffered (compressed and sealed) and share a segment; a larger one gets a segment
    /// of its own, so that a slow sender blocks nobody.
    pub shared_bytes_max: usize,
    /// Frames of one group commit, together at most this many bytes: bounds what one write to the back end carries.
    pub group_bytes_max: usize,
    /// Groups on their way at once to a back end that takes segments whole (S3), each a request of its own. With one, a
    /// message of a busy server would wait for all of the request before its own; with four, for a quarter.
    pub puts_in_flight_max: usize,
    /// Messages being buffered, together at most this many bytes; a message that finds the budget used up goes into a
    /// segment of its own instead of waiting.
    pub buffered_bytes_max: usize,
    /// Largest blob taken, in plain bytes. Nothing in the format asks for it; it is here so that no sender can fill
    /// the disk with one message when the layers above forget their own limit.
    pub blob_bytes_max: u64,
    /// Largest facts taken, in plain bytes. Facts are read whole.
    pub facts_bytes_max: usize,
    /// Plain bytes of first chunks kept in memory. Clients read the head of a message, then its parts, within seconds.
    pub cache_bytes: u64,
    /// Account and queue keys kept in memory.
    pub keys_cached: usize,
    /// A key is read again after this many seconds, so that an erasure on another node takes effect here.
    pub key_cache_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            shared_bytes_max: 1 << 20,
            group_bytes_max: 8 << 20,
            puts_in_flight_max: 4,
            buffered_bytes_max: 128 << 20,
            blob_bytes_max: 16 << 30,
            facts_bytes_max: 16 << 20,
            cache_bytes: 32 << 20,
            keys_cached: 10_000,
            key_cache_seconds: 300,
        }
    }
}
