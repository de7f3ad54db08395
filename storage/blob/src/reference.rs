//! References: what keeps a blob.

use crate::{BlobAddress, Nonce};

/// A reference that was put, and the address it was put for: where the segment was dying, that is another one than was
/// asked for, and the record must name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Where the blob lies.
    pub address: BlobAddress,
    /// The reference's own name.
    pub nonce: Nonce,
}

/// Why a reference could not be put or removed.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The blob is about to be deleted and lies nowhere else: write it anew.
    #[error("the blob is gone")]
    Gone,
    /// The rows could not be read or written. Temporary.
    #[error("references cannot be reached: {0}")]
    Rows(String),
}
