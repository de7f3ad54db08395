//! What an operator can set, each with its default and the reason for it.

use serde::{Deserialize, Serialize};

/// Limits of the admin API, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// User ids that may use the Unix socket, beside root and the server's own.
    pub uids: Vec<u32>,
    /// The largest request body taken. A change of a few thousand list members fits.
    pub body_bytes_max: usize,
    /// Seconds for a request to arrive and for its answer to be made. Hashing a password and committing take far less.
    pub request_seconds_max: u64,
    /// Entries of one page of a listing.
    pub page_entries_max: usize,
    /// Tokens that there can be.
    pub tokens_max: usize,
    /// Seconds after which a node reads the tokens again: for so long a token that was withdrawn at another node is still
    /// good at this one. One that was made at another node is good here within a second.
    pub tokens_read_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            uids: Vec::new(),
            body_bytes_max: 1 << 20,
            request_seconds_max: 60,
            page_entries_max: 1_000,
            tokens_max: 100,
            tokens_read_seconds: 10,
        }
    }
}
