//! A log that folds into a sorted table: what a domain is (names → entries) and what the registry is (domains → logs).
//!
//! The table lies in pages, each of which covers the keys from its first one to the next page's. A page is read when a
//! key in it is asked for, so that a domain of a million accounts opens as fast as one of ten. A *part* of the state
//! is therefore a key: it stands for the page that covers it.
//!
//! `state` is the fold, `page` the stored bytes.

mod page;
mod state;

use std::fmt::Debug;

use aws_lc_rs::digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use state::TableState;

/// What a table holds.
pub trait Table: Clone + Debug + Send + Sync + 'static {
    /// Settings of the whole, kept in the root.
    type Settings: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync;
    /// What stands under a key.
    type Record: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync;
    /// A change of a part of a record, for records that are too large for one operation.
    type Amendment: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// Applies a change; an error says that it does not fit the record.
    fn amend(record: &mut Self::Record, amendment: &Self::Amendment) -> Result<(), &'static str>;
}

/// Digest of a key and its record, by which an operation says what it found: so the digest of the whole can be kept
/// without having its pages, and a fold that went astray is noticed where it happens.
pub(crate) type RecordDigest = [u8; 32];

/// A resolved effect on a table. The order of the variants is part of the stored format.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(bound = "")]
pub enum Operation<T: Table> {
    /// The log is archived up to `to`.
    Archived {
        /// The last archived number.
        to: u64,
        /// Where the newest chunk lies.
        address: Vec<u8>,
        /// Tells this attempt from others.
        nonce: Uuid,
    },
    /// New settings.
    Settings(T::Settings),
    /// A record under a key, instead of the one there.
    Put {
        /// The key.
        key: String,
        /// The record.
        record: T::Record,
        /// Digest of the record that was there.
        replaces: Option<RecordDigest>,
    },
    /// A part of a record changes.
    Amend {
        /// The key.
        key: String,
        /// The change.
        amendment: T::Amendment,
        /// Digest of the record before.
        before: RecordDigest,
        /// Digest of the record afterwards.
        after: RecordDigest,
    },
    /// A record goes.
    Remove {
        /// The key.
        key: String,
        /// Digest of the record that goes.
        removes: RecordDigest,
    },
}

/// Adds a record's digest to that of the whole, or takes it away.
pub(crate) fn mix(content: &mut [u8; 32], digest: &RecordDigest) {
    for (sum, octet) in content.iter_mut().zip(digest) {
        *sum ^= octet;
    }
}

pub(crate) fn record_digest<R: Serialize>(key: &str, record: &R) -> RecordDigest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(key.len() as u64).to_be_bytes());
    context.update(key.as_bytes());
    let bytes = postcard::to_stdvec(record).expect("records hold nothing that postcard cannot write");
    context.update(&bytes);
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 octets")
}
