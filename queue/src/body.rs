//! Taking a message's bytes.

use blob::{BlobWriter, Stored};
use bytes::Bytes;
use mail::id::QueueId;

use crate::error::BodyError;

/// Takes a message's bytes as they come. Dropped before it is finished, it leaves nothing.
pub struct BodyWriter {
    pub(crate) queue_id: QueueId,
    pub(crate) shard: u16,
    pub(crate) blob: BlobWriter,
}

impl BodyWriter {
    /// The id that the message will have, for its `Received` line.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// Takes some bytes; waits when the medium is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BodyError> {
        Ok(self.blob.write(bytes).await?)
    }

    /// Octets taken so far.
    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// Makes the message durable.
    pub async fn finish(self) -> Result<Body, BodyError> {
        let stored = self.blob.finish(Bytes::new()).await?;
        Ok(Body { queue_id: self.queue_id, shard: self.shard, stored })
    }
}

/// A message that is durable and belongs to no queue entry yet.
#[derive(Debug)]
pub struct Body {
    pub(crate) queue_id: QueueId,
    pub(crate) shard: u16,
    pub(crate) stored: Stored,
}

impl Body {
    /// The id that the message will have.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// Its octets, without what is put before them.
    pub fn size(&self) -> u64 {
        self.stored.address().size
    }

    /// Where it lies, under the queue's key.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The shard that it goes to.
    pub fn shard(&self) -> u16 {
        self.shard
    }
}
