//! Keys: who can read what.
//!
//! Every blob has a random key of its own. It is wrapped by the key of whoever holds the blob: an account's, or the
//! queue's of the day. Those keys also seal the entries, pages and archives of a log. They are rows of their own, each
//! sealed by the *key-encryption key*, which is not in the database at all but in a file. Erasing a row erases all that
//! its key opened, in every copy and backup.

mod kek;
mod material;
mod ring;

use engine::EngineError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use kek::{Fingerprint, KekError, KeyEncryptionKey};
pub use ring::KeyRing;

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

/// Why a key cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// The row is wrapped by another key-encryption key than this node has.
    #[error("key {key:?} is wrapped by key-encryption key {row}, this node has {node}")]
    OtherKek {
        /// The key.
        key: KeyId,
        /// The fingerprint in the row.
        row: Fingerprint,
        /// This node's.
        node: Fingerprint,
    },
    /// The key does not open what it should have sealed, or its row is not one.
    #[error("key {0:?} or what it wraps is damaged")]
    Damaged(KeyId),
    /// The rows could not be read or written.
    #[error("keys cannot be reached")]
    Rows(#[source] EngineError),
}

impl KeyError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Rows(error) if error.is_temporary())
    }
}
