//! Keys: who can read what.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A key that wraps blob keys and seals entries and pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum KeyId {
    /// An account's.
    Account(Uuid),
    /// The queue's, for messages accepted on this day (days since 1970-01-01 UTC).
    Queue(u32),
    /// That of a log that belongs to no account: a shard, a domain, the registry.
    System(Uuid),
}

/// The keys, and what they do.
#[derive(Clone)]
pub struct KeyRing {}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It was never made.
    #[error("there is no key {0:?}")]
    Missing(KeyId),
    /// It was erased, and what it sealed with it. Permanent.
    #[error("key {0:?} was erased")]
    Erased(KeyId),
    /// The caller may use another key than the one that is needed.
    #[error("needs key {needed:?}, the caller has {given:?}")]
    NotYours {
        /// The key that wraps the blob's key.
        needed: KeyId,
        /// The key that the caller named.
        given: KeyId,
    },
    /// The key does not open what it should have sealed.
    #[error("key {0:?} does not open this")]
    Damaged(KeyId),
    /// The rows could not be read or written. Temporary.
    #[error("keys cannot be reached: {0}")]
    Rows(String),
}

impl KeyRing {
    /// Makes the key unless it is there.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn ensure(&self, _key: KeyId) -> Result<(), KeyError> {
        unimplemented!()
    }

    /// The queue key of the day that holds `unix_seconds`; made when it is the day's first.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn queue_key(&self, _unix_seconds: u64) -> Result<KeyId, KeyError> {
        unimplemented!()
    }
}
