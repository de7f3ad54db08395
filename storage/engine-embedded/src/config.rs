//! Settings.

use serde::{Deserialize, Serialize};

/// How the embedded engine works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Group commit.
    pub commit: CommitConfig,
    /// Cache of blocks, shared by all tables. Log and rows of accounts in use are held in memory above the engine, so
    /// this serves cold accounts.
    pub cache_bytes: u64,
    /// Size of the in-memory part of each of the three tables before it is written out. With it grows the journal that
    /// is replayed at start.
    pub memtable_bytes: u64,
    /// Journals are written out beyond this size; at least 64 MiB. Bounds the time of a start after a crash.
    pub journal_bytes_max: u64,
    /// Threads that write out and compact.
    pub worker_threads: usize,
    /// Nothing but deletions is written when the file system has less room than this, so that reading and tidying up
    /// go on. Written-out tables and a fresh journal (64 MiB) must fit in it.
    pub reserve_bytes: u64,
    /// Heads of logs that the commit thread remembers; a head that it does not know costs a read there.
    pub heads_max: usize,
}

/// How commits are grouped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitConfig {
    /// How long the commit thread waits for more to join a group. Zero: it takes what is there, which adapts itself:
    /// while one sync runs, the next group gathers. More saves syncs at the cost of latency.
    pub linger_ms: u64,
    /// Most writes in a group.
    pub batch_max: usize,
    /// A group is closed when it has so many bytes.
    pub batch_bytes_max: usize,
    /// Bytes of writes that may wait; whoever comes then waits to be let in.
    pub pending_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit: CommitConfig::default(),
            cache_bytes: 16 * 1024 * 1024,
            memtable_bytes: 32 * 1024 * 1024,
            journal_bytes_max: 256 * 1024 * 1024,
            worker_threads: 2,
            reserve_bytes: 256 * 1024 * 1024,
            heads_max: 100_000,
        }
    }
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self {
            linger_ms: 0,
            batch_max: 512,
            batch_bytes_max: 1024 * 1024,
            pending_bytes_max: 64 * 1024 * 1024,
        }
    }
}
