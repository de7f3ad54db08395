//! Taking a message's bytes: into a segment under the key of the day, and through the MIME splitter.

use blob::{BlobWriter, Stored};
use bytes::Bytes;
use engine::FormatError;
use mail::id::QueueId;
use mail::mime::{Facts, Splitter};

use crate::error::BodyError;
use crate::shard_id::ShardId;

/// Takes a message's bytes as they come. Dropped before it is finished, it leaves nothing.
pub struct BodyWriter {
    queue_id: QueueId,
    shard: ShardId,
    blob: BlobWriter,
    splitter: Splitter,
}

impl BodyWriter {
    pub(crate) fn new(queue_id: QueueId, shard: ShardId, blob: BlobWriter, splitter: Splitter) -> Self {
        Self { queue_id, shard, blob, splitter }
    }

    /// The id that the message will have, for its `Received` line.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// Takes some bytes; waits when the medium is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BodyError> {
        self.splitter.push(&bytes);
        Ok(self.blob.write(bytes).await?)
    }

    /// Octets taken so far.
    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// Makes the message durable, with what the splitter found beside it.
    pub async fn finish(self) -> Result<Body, BodyError> {
        let facts = self.splitter.finish();
        let stored = self.blob.finish(encode_facts(&facts)).await?;
        Ok(Body { queue_id: self.queue_id, shard: self.shard, stored, facts })
    }
}

impl std::fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodyWriter({} for {}, {} octets)", self.queue_id, self.shard, self.size())
    }
}

/// A message that is durable and belongs to no queue entry yet.
#[derive(Debug)]
pub struct Body {
    pub(crate) queue_id: QueueId,
    pub(crate) shard: ShardId,
    pub(crate) stored: Stored,
    pub(crate) facts: Facts,
}

impl Body {
    /// The id that the message will have.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// The shard that its entry will be in.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Its octets, without what is put before them.
    pub fn size(&self) -> u64 {
        self.stored.address().size
    }

    /// Where it lies, under the queue's key.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// What the splitter found: header fields, structure.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

const FACTS_VERSION: u8 = 1;

/// Facts as they stand beside a blob.
pub(crate) fn encode_facts(facts: &Facts) -> Bytes {
    let bytes = postcard::to_extend(facts, vec![FACTS_VERSION]);
    Bytes::from(bytes.expect("facts have nothing that cannot be encoded"))
}

/// Reverse of [`encode_facts`].
pub(crate) fn decode_facts(bytes: &[u8]) -> Result<Facts, FormatError> {
    crate::entry::decode_versioned("facts of a message", FACTS_VERSION, bytes)
}
