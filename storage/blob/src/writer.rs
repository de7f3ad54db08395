//! Taking a blob in.
//!
//! Bytes gather until a chunk is full and more follow; then the chunk is compressed and sealed. Up to
//! `Config::shared_bytes_max` the sealed chunks wait in memory for the end and go into the shared segment; beyond that,
//! or when the budget for waiting bytes is used up, the blob gets a segment of its own and its chunks go there as they
//! come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::format::chunk::BlobKey;
use crate::format::frame::FrameHeader;
use crate::format::segment::FLAG_STREAMED;
use crate::format::{CHUNK_BYTES, compress};
use crate::frame_builder::FrameBuilder;
use crate::group::{Group, Layout, Placed};
use crate::{
    Appender, BlobAddress, Blobs, BlobsError, Config, Holder, KeyError, KeyId, KeyRing, Nonce,
    ReferenceError, References,
};

/// Chunks above this are compressed on a thread for blocking work: they take half a millisecond.
const INLINE_BYTES_MAX: usize = 128 << 10;

/// Up to here a chunk grows with what comes.
const SMALL_BYTES_MAX: usize = 32 << 10;

/// What all writers of a store share.
pub(crate) struct WriterShared {
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) keys: KeyRing,
    pub(crate) references: References,
    pub(crate) group: Group,
    pub(crate) config: Config,
    pub(crate) buffered: Arc<AtomicUsize>,
}

/// Takes a blob's bytes as they come. Dropped before [`BlobWriter::finish`] has returned, it leaves nothing reachable.
pub struct BlobWriter {
    shared: Arc<WriterShared>,
    holder: Holder,
    key_id: KeyId,
    key: BlobKey,
    plain: Vec<u8>,
    size: u64,
    stage: Stage,
}

enum Stage {
    /// In memory, and maybe to stay there until the end.
    Buffered { builder: Box<FrameBuilder>, sealed: Vec<Bytes>, budget: Budget },
    /// In a segment of its own.
    Streamed { builder: Box<FrameBuilder>, own: OwnSegment },
    /// A call failed or was given up half-way.
    Failed,
}

impl BlobWriter {
    pub(crate) fn new(shared: Arc<WriterShared>, holder: Holder, key_id: KeyId) -> Self {
        let key = BlobKey::random();
        let builder = Box::new(FrameBuilder::new(&key));
        let budget = Budget { all: Arc::clone(&shared.buffered), taken: 0 };
        let stage = Stage::Buffered { builder, sealed: Vec::new(), budget };
        Self { shared, holder, key_id, key, plain: Vec::new(), size: 0, stage }
    }

    /// Takes some bytes; waits when the medium is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        let limit = self.shared.config.blob_bytes_max;
        if self.size + bytes.len() as u64 > limit {
            self.give_up();
            return Err(WriteError::TooLarge { limit });
        }
        self.size += bytes.len() as u64;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            // A full chunk is sealed when more follows, since the last one is sealed as such.
            if self.plain.len() == CHUNK_BYTES {
                self.seal_chunk().await?;
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - self.plain.len()));
            // What is not small is not copied from one vector into the next as it grows.
            if self.plain.len() + now.len() > SMALL_BYTES_MAX {
                self.plain.reserve_exact(CHUNK_BYTES - self.plain.len());
            }
            self.plain.extend_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    /// Plain bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the blob durable, puts `facts` beside it (opaque bytes; may be empty) and a reference for the holder.
    pub async fn finish(mut self, facts: Bytes) -> Result<Stored, WriteError> {
        let limit = self.shared.config.facts_bytes_max;
        if facts.len() > limit {
            return Err(WriteError::TooLarge { limit: limit as u64 });
        }
        let shared = Arc::clone(&self.shared);
        // First what can fail without a trace.
        let wrapped = shared.keys.wrap(self.key_id, &self.key).await?;
        let plain = std::mem::take(&mut self.plain);
        let (placed, known) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Buffered { builder, mut sealed, budget } => {
                let work = move || end(builder, &plain, &facts);
                let (pieces, known) =
                    if self.size as usize <= INLINE_BYTES_MAX { work() } else { aside(work).await? };
                sealed.extend(pieces);
                let placed = shared.group.write(sealed, known).await.map_err(WriteError::Blobs)?;
                drop(budget);
                (placed, known)
            }
            Stage::Streamed { builder, own } => {
                let (pieces, known) = aside(move || end(builder, &plain, &facts)).await?;
                let placed = own.seal(pieces, &known).await.map_err(WriteError::Blobs)?;
                (placed, known)
            }
            Stage::Failed => return Err(WriteError::Failed),
        };
        metrics::counter!("postrider_blob_written_bytes_total").increment(known.size);
        let address = BlobAddress {
            segment: placed.segment,
            frame: placed.frame,
            offset: placed.offset,
            length: known.length,
            size: known.size,
            blob_id: known.blob_id,
            key: self.key_id,
            wrapped,
        };
        let reference = shared.references.put(&address, self.holder).await?;
        Ok(Stored { address: reference.address, nonce: reference.nonce })
    }

    fn give_up(&mut self) {
        self.stage = Stage::Failed;
        self.plain = Vec::new();
    }

    /// Seals the full chunk that was gathered.
    async fn seal_chunk(&mut self) -> Result<(), WriteError> {
        let plain = std::mem::take(&mut self.plain);
        let (builder, outlet) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Buffered { builder, sealed, budget } => (builder, Outlet::Memory(sealed, budget)),
            Stage::Streamed { builder, own } => (builder, Outlet::Segment(own)),
            Stage::Failed => return Err(WriteError::Failed),
        };
        let mut builder = builder;
        let (builder, chunk, mut plain) = aside(move || {
            let chunk = builder.body_chunk(&plain, false);
            (builder, chunk, plain)
        })
        .await?;
        plain.clear();
        self.plain = plain;
        self.stage = match outlet {
            Outlet::Memory(mut sealed, mut budget) => {
                let bytes = chunk.len();
                sealed.push(chunk);
                let small = self.size <= self.shared.config.shared_bytes_max as u64;
                if small && budget.take(bytes, self.shared.config.buffered_bytes_max) {
                    Stage::Buffered { builder, sealed, budget }
                } else {
                    let own = OwnSegment::begin(Arc::clone(&self.shared.blobs), sealed).await;
                    Stage::Streamed { builder, own: own.map_err(WriteError::Blobs)? }
                }
            }
            Outlet::Segment(mut own) => {
                own.append(vec![chunk]).await.map_err(WriteError::Blobs)?;
                Stage::Streamed { builder, own }
            }
        };
        Ok(())
    }
}

enum Outlet {
    Memory(Vec<Bytes>, Budget),
    Segment(OwnSegment),
}

/// The last chunk, the facts and the trailer.
fn end(
    mut builder: Box<FrameBuilder>,
    plain: &[u8],
    facts: &[u8],
) -> (Vec<Bytes>, crate::frame_builder::FrameFacts) {
    let mut pieces = vec![builder.body_chunk(plain, true)];
    let (rest, known) = builder.end(facts);
    pieces.extend(rest);
    (pieces, known)
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, WriteError> {
    // It fails only when the runtime is going down.
    engine::aside(work).await.map_err(|_| WriteError::Blobs(BlobsError::Closed))
}

/// What one writer has taken of the budget for bytes that wait in memory.
struct Budget {
    all: Arc<AtomicUsize>,
    taken: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize, limit: usize) -> bool {
        let fits = |all: usize| Some(all + bytes).filter(|all| *all <= limit);
        let taken = self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.taken += bytes;
        }
        taken
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.all.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// A segment that holds one large blob. Dropped before it is sealed, it is aborted.
pub(crate) struct OwnSegment {
    blobs: Arc<dyn Blobs>,
    appender: Option<Box<dyn Appender>>,
    layout: Layout,
}

impl OwnSegment {
    pub(crate) async fn begin(blobs: Arc<dyn Blobs>, chunks: Vec<Bytes>) -> Result<Self, BlobsError> {
        let layout = Layout::new(FLAG_STREAMED);
        let appender = blobs.begin(layout.segment, 0).await?;
        let mut pieces = vec![Bytes::copy_from_slice(&layout.header)];
        let frame = FrameHeader { dictionary: compress::DICTIONARY_NONE, frame: 0, length: 0 };
        pieces.push(Bytes::copy_from_slice(&frame.encode()));
        pieces.extend(chunks);
        let mut own = Self { blobs, appender: Some(appender), layout };
        own.append(pieces).await?;
        Ok(own)
    }

    pub(crate) async fn append(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.appender
            .as_mut()
            .expect("an own segment has its appender until it is sealed")
            .append(pieces)
            .await
    }

    pub(crate) async fn seal(
        mut self,
        mut pieces: Vec<Bytes>,
        known: &crate::frame_builder::FrameFacts,
    ) -> Result<Placed, BlobsError> {
        let placed = self.layout.place(known);
        pieces.push(self.layout.footer());
        let mut appender = self.appender.take().expect("an own segment has its appender until it is sealed");
        if let Err(error) = appender.append(pieces).await {
            appender.abort().await;
            return Err(error);
        }
        if let Err(error) = appender.seal(Vec::new()).await {
            // What the medium has of it is not known; nobody will name it. Failing that, the next start removes it.
            let _ = self.blobs.delete(self.layout.segment).await;
            return Err(error);
        }
        Ok(placed)
    }
}

impl Drop for OwnSegment {
    fn drop(&mut self) {
        if let Some(appender) = self.appender.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Without a runtime the process is going down, and the next start removes what was not sealed.
            runtime.spawn(appender.abort());
        }
    }
}

/// A blob that is durable and referenced. Only [`BlobWriter::finish`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    address: BlobAddress,
    nonce: Nonce,
}

impl Stored {
    /// Where it lies.
    pub fn address(&self) -> &BlobAddress {
        &self.address
    }

    /// The reference that was put for the holder, to be kept by the record that names the blob.
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The medium refused or failed.
    #[error("the blob could not be written")]
    Blobs(#[source] BlobsError),
    /// The key that is to wrap the blob's key cannot be had.
    #[error("the key for the blob cannot be had")]
    Key(#[from] KeyError),
    /// The reference could not be put.
    #[error("the reference could not be put")]
    Reference(#[from] ReferenceError),
    /// Larger than the configuration allows. Permanent.
    #[error("the blob or its facts exceed {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// An earlier call on this writer failed.
    #[error("the writer failed earlier")]
    Failed,
}

impl WriteError {
    /// Whether trying again later can help. A full disk and a failing one are temporary: a person will see to them, and
    /// the sender has the message until then.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Key(KeyError::Erased(_)))
    }
}
