//! Bodies: writing a message while it is looked at, and reading it by range.

use std::ops::Range;

use blob::{BlobAddress, BlobStore, Holder, KeyId, Nonce, WriteError};
use bytes::Bytes;
use futures_util::stream::Stream;
use mail::mime::{Facts, Limits};

use crate::account::Account;
use crate::email::EmailRecord;
use crate::error::StorageError;

/// Takes a message as it comes: into a segment, and through the MIME splitter. Dropped before
/// [`MessageWriter::finish`], it costs nothing.
pub struct MessageWriter {}

impl MessageWriter {
    /// For any holder and key: the queue writes accepted mail with this.
    pub fn new(blobs: &BlobStore, holder: Holder, key: KeyId, limits: Limits) -> Self {
        let _ = (blobs, holder, key, limits);
        unimplemented!()
    }

    /// Takes some bytes; waits when the medium is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        let _ = bytes;
        unimplemented!()
    }

    /// Octets taken so far.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// Makes the message durable.
    pub async fn finish(self) -> Result<StoredBody, WriteError> {
        unimplemented!()
    }
}

/// A message that is durable and referenced by its holder, and no record yet.
#[derive(Clone, Debug)]
pub struct StoredBody {
    /// Where its bytes lie.
    pub address: BlobAddress,
    /// The holder's reference.
    pub reference: Nonce,
    /// What the splitter found.
    pub facts: Facts,
    /// Trace fields to stand before it. Empty but for delivered mail.
    pub prefix: Bytes,
}

/// Why a body could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Reading from the segment failed.
    #[error("the body could not be read")]
    Read(#[from] blob::ReadError),
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A message's bytes: prefix and original as one sequence.
#[derive(Clone)]
pub struct BodyReader {}

impl BodyReader {
    /// Octets in all.
    pub fn size(&self) -> u64 {
        unimplemented!()
    }

    /// The octets of the range, clipped to the message, in pieces of at most 256 KiB. Nothing is read ahead.
    pub fn range(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static {
        let _ = range;
        futures_util::stream::empty()
    }
}

impl Account {
    /// A writer for a message that will be appended to this account.
    pub fn body_writer(&self) -> MessageWriter {
        unimplemented!()
    }

    /// Makes a message that lies under a queue key the account's own: rewraps its key and puts the account's
    /// reference. `prefix` are the trace fields for this recipient.
    pub async fn adopt(
        &self,
        address: &BlobAddress,
        from: KeyId,
        facts: Facts,
        prefix: Bytes,
    ) -> Result<StoredBody, StorageError> {
        let _ = (address, from, facts, prefix);
        unimplemented!()
    }

    /// Gives a body up that was never appended.
    pub async fn discard(&self, body: StoredBody) {
        let _ = body;
        unimplemented!()
    }

    /// The bytes of an email.
    pub async fn body(&self, email: &EmailRecord) -> Result<BodyReader, BodyError> {
        let _ = email;
        unimplemented!()
    }
}
