//! The blob store.

use crate::{BlobAddress, BlobReader, BlobWriter, Holder, KeyError, KeyId, Nonce, Reference, ReferenceError};
use crate::{ReadError, SegmentId};

/// Blobs in segments on one back end. Cheap to clone.
#[derive(Clone)]
pub struct BlobStore {}

impl BlobStore {
    /// Begins a blob that `holder` will name; its key is wrapped by `key`.
    pub fn writer(&self, _holder: Holder, _key: KeyId) -> BlobWriter {
        unimplemented!()
    }

    /// Opens a blob. `key` is the key that the caller is entitled to use; an address under another is refused.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn open(&self, _address: &BlobAddress, _key: KeyId) -> Result<BlobReader, ReadError> {
        unimplemented!()
    }

    /// The same blob under another key.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn rewrap(
        &self,
        _address: &BlobAddress,
        _from: KeyId,
        _to: KeyId,
    ) -> Result<BlobAddress, KeyError> {
        unimplemented!()
    }

    /// Puts a reference; to be called before the commit that names the blob.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn reference(
        &self,
        _address: &BlobAddress,
        _holder: Holder,
    ) -> Result<Reference, ReferenceError> {
        unimplemented!()
    }

    /// The same for many at once.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn reference_many(
        &self,
        _addresses: &[BlobAddress],
        _holder: Holder,
    ) -> Result<Vec<Result<Reference, ReferenceError>>, ReferenceError> {
        unimplemented!()
    }

    /// Removes exactly this reference.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn unreference(
        &self,
        _segment: SegmentId,
        _frame: u32,
        _holder: Holder,
        _nonce: Nonce,
    ) -> Result<(), ReferenceError> {
        unimplemented!()
    }
}
