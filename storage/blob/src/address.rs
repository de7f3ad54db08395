//! Where a blob lies and who holds it.

use std::fmt;

use rand::RngCore;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::KeyId;

/// A segment: one file of the directory back end, one object in S3. Ids are UUIDv7, so that a listing is in the order
/// of creation; nothing depends on that order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SegmentId(pub Uuid);

impl SegmentId {
    /// A fresh id.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentId({})", self.0.as_simple())
    }
}

/// The BLAKE3 hash of the blob's plain bytes, keyed by the blob's own key: it proves what was read, and tells nothing
/// to those who lack the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

/// A blob's key, wrapped (RFC 3394) by the key that `BlobAddress::key` names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WrappedKey(pub(crate) [u8; 32], pub(crate) [u8; 8]);

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappedKey(..)")
    }
}

/// Where a blob was written and how it is opened. A record that names a blob keeps this (about 120 bytes in postcard).
///
/// The place is that of the *origin*: compaction moves frames and publishes where they went, records never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BlobAddress {
    /// The segment.
    pub segment: SegmentId,
    /// The frame's number in its segment, counted from zero.
    pub frame: u32,
    /// Where the frame begins in the segment.
    pub offset: u64,
    /// The frame's length, header and trailer included.
    pub length: u64,
    /// Number of plain bytes.
    pub size: u64,
    /// Keyed hash of the plain bytes.
    pub blob_id: BlobId,
    /// The key that `wrapped` is wrapped by.
    pub key: KeyId,
    /// The blob's key.
    pub wrapped: WrappedKey,
}

/// Who holds a blob: the log whose records name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Holder {
    /// An account's log.
    Account(Uuid),
    /// A queue shard's log.
    Shard(Uuid),
    /// A domain's log or the registry's.
    Directory(Uuid),
}

/// The name of one reference: fresh for each put and never used again, so that a late removal of an old reference
/// cannot take a new one away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A fresh nonce.
    pub fn fresh() -> Self {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", Uuid::from_bytes(self.0).as_simple())
    }
}
