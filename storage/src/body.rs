//! Bodies: writing a message while it is looked at, and reading it by range.

use std::ops::Range;

use blob::{BlobAddress, BlobReader, BlobStore, BlobWriter, Holder, KeyId, Nonce, WriteError};
use bytes::Bytes;
use engine::FormatError;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use mail::mime::{Facts, Limits, Splitter};

use crate::account::Account;
use crate::email::EmailRecord;
use crate::error::StorageError;

/// First byte of a facts frame.
const FACTS_VERSION: u8 = 1;

/// Takes a message as it comes: into a segment, and through the MIME splitter. Dropped before
/// [`MessageWriter::finish`], it costs nothing.
pub struct MessageWriter {
    blob: BlobWriter,
    splitter: Splitter,
}

impl MessageWriter {
    /// For any holder and key: the queue writes accepted mail with this.
    pub fn new(blobs: &BlobStore, holder: Holder, key: KeyId, limits: Limits) -> Self {
        Self { blob: blobs.writer(holder, key), splitter: Splitter::new(limits) }
    }

    /// Takes some bytes; waits when the medium is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.splitter.push(&bytes);
        self.blob.write(bytes).await
    }

    /// Octets taken so far.
    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// Makes the message durable.
    pub async fn finish(self) -> Result<StoredBody, WriteError> {
        let facts = self.splitter.finish();
        let stored = self.blob.finish(encode_facts(&facts)).await?;
        Ok(StoredBody { address: *stored.address(), reference: stored.nonce(), facts, prefix: Bytes::new() })
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

/// The stored form of facts, as it lies beside the bytes of a message.
pub fn encode_facts(facts: &Facts) -> Bytes {
    let encoded = postcard::to_extend(facts, vec![FACTS_VERSION]);
    encoded.expect("facts hold nothing that postcard refuses").into()
}

/// Reverse of [`encode_facts`].
pub fn decode_facts(bytes: &[u8]) -> Result<Facts, FormatError> {
    let (version, payload) = bytes.split_first().ok_or_else(|| FormatError::malformed("facts", "empty"))?;
    if *version != FACTS_VERSION {
        return Err(FormatError::Unknown { what: "version of facts", number: (*version).into() });
    }
    postcard::from_bytes(payload).map_err(|error| FormatError::malformed("facts", error))
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Reading from the segment failed.
    #[error("the body could not be read")]
    Read(#[from] blob::ReadError),
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A message's bytes: prefix and original as one sequence. Cheap to clone.
#[derive(Clone)]
pub struct BodyReader {
    prefix: Bytes,
    original: BlobReader,
}

impl BodyReader {
    pub(crate) fn new(prefix: Bytes, original: BlobReader) -> Self {
        Self { prefix, original }
    }

    /// Octets in all.
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.original.size()
    }

    /// The octets of the range, clipped to the message, in pieces of at most 256 KiB. Nothing is read ahead.
    pub fn range(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + Unpin + 'static {
        let added = self.prefix.len() as u64;
        let end = range.end.min(self.size());
        let start = range.start.min(end);
        let from_prefix = self.prefix.slice(start.min(added) as usize..end.min(added) as usize);
        let from_original = start.saturating_sub(added)..end.saturating_sub(added);
        let first = (!from_prefix.is_empty()).then_some(Ok(from_prefix));
        let rest = (!from_original.is_empty())
            .then(|| self.original.read_range(from_original).map_err(BodyError::from));
        stream::iter(first).chain(stream::iter(rest).flatten())
    }
}

impl Account {
    /// A writer for a message that will be appended to this account.
    pub fn body_writer(&self) -> MessageWriter {
        let id = self.id().0;
        let limits = self.storage.config().mime.clone();
        MessageWriter::new(self.storage.blobs(), Holder::Account(id), KeyId::Account(id), limits)
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
        let id = self.id().0;
        let own = self.storage.blobs().rewrap(address, from, KeyId::Account(id)).await?;
        let reference = self.storage.blobs().reference(&own, Holder::Account(id)).await?;
        Ok(StoredBody { address: reference.address, reference: reference.nonce, facts, prefix })
    }

    /// Gives a body up that was not appended. A failure leaves a reference that upkeep finds later.
    pub async fn discard(&self, body: StoredBody) {
        self.unreference(&[(body.address, body.reference)]).await;
    }

    pub(crate) async fn unreference(&self, references: &[(BlobAddress, Nonce)]) {
        let references = references.iter().map(|(address, nonce)| (address.segment, address.frame, *nonce));
        let holder = Holder::Account(self.id().0);
        if let Err(error) = self.storage.blobs().unreference_many(references, holder).await {
            tracing::debug!(account_id = %self.id(), %error, "reference left behind");
        }
    }

    /// A hint that these emails will be read soon, in this order, each with how many octets of it from its beginning.
    /// Says how many of them, counted from the first, need not be announced again; see [`BlobStore::prefetch`].
    pub fn prefetch(&self, emails: &[(BlobAddress, u64)]) -> usize {
        self.storage.blobs().prefetch(emails.iter().map(|(address, octets)| (address, *octets)))
    }

    /// The bytes of an email.
    pub async fn body(&self, email: &EmailRecord) -> Result<BodyReader, BodyError> {
        let original = self.storage.blobs().open(&email.address, KeyId::Account(self.id().0)).await?;
        Ok(BodyReader { prefix: email.prefix.clone(), original })
    }
}
