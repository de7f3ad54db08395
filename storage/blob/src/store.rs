//! The blob store.

use std::sync::Arc;

use bytes::Bytes;
use engine::Rows;
use quick_cache::sync::Cache;

use crate::format::Damage;
use crate::format::segment::Index;
use crate::frame_builder::FrameFacts;
use crate::group::{Group, Placed};
use crate::reader::{ByWeight, ReaderShared};
use crate::recovery::{self, Recovered};
use crate::scan::Scan;
use crate::writer::WriterShared;
use crate::{
    BlobAddress, BlobReader, BlobWriter, Blobs, BlobsError, Config, Holder, KeyError, KeyId, KeyRing, Nonce,
    ReadError, Reference, ReferenceError, References, SegmentId,
};

/// Blobs in segments on one back end. Cheap to clone.
#[derive(Clone)]
pub struct BlobStore {
    writers: Arc<WriterShared>,
    readers: Arc<ReaderShared>,
    recovered: Arc<[Recovered]>,
}

impl BlobStore {
    /// Opens the store: recovers what the last process left unsealed and starts the task that writes groups. To be
    /// called once per back end and process, from within a runtime.
    pub async fn new(
        blobs: Arc<dyn Blobs>,
        rows: Arc<dyn Rows>,
        keys: KeyRing,
        config: Config,
    ) -> Result<Self, BlobsError> {
        let references = References::new(rows);
        let recovered = recovery::recover(&blobs, &references).await?;
        let group = Group::start(Arc::clone(&blobs), &config);
        // Mails are a few kilobytes; the estimate only sizes the table.
        let items = (config.cache_bytes / 8192).clamp(16, 1 << 20) as usize;
        let cache = Cache::with_weighter(items, config.cache_bytes, ByWeight);
        let readers = ReaderShared { blobs: Arc::clone(&blobs), references: references.clone(), cache };
        let writers = WriterShared { blobs, keys, references, group, config, buffered: Arc::default() };
        Ok(Self { writers: Arc::new(writers), readers: Arc::new(readers), recovered: recovered.into() })
    }

    /// What recovery did at the start.
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }

    /// Begins a blob that `holder` will name; its key is wrapped by `key`.
    pub fn writer(&self, holder: Holder, key: KeyId) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.writers), holder, key)
    }

    /// Opens a blob. `key` is the key that the caller is entitled to use; an address under another is refused.
    pub async fn open(&self, address: &BlobAddress, key: KeyId) -> Result<BlobReader, ReadError> {
        entitled(address, key)?;
        let blob = self.writers.keys.unwrap(key, &address.wrapped).await?;
        Ok(BlobReader::new(Arc::clone(&self.readers), *address, blob))
    }

    /// A hint that these blobs will be opened soon, in this order: for whoever is about to read many, one after the
    /// other. Costs nothing where reads are quick.
    pub fn prefetch<'a>(&self, addresses: impl IntoIterator<Item = &'a BlobAddress>) {
        let ranges = addresses
            .into_iter()
            .map(|address| (address.segment, address.offset..address.offset.saturating_add(address.length)));
        self.writers.blobs.prefetch(&ranges.collect::<Vec<_>>());
    }

    /// The same blob under another key.
    pub async fn rewrap(
        &self,
        address: &BlobAddress,
        from: KeyId,
        to: KeyId,
    ) -> Result<BlobAddress, KeyError> {
        entitled(address, from)?;
        let blob = self.writers.keys.unwrap(from, &address.wrapped).await?;
        let wrapped = self.writers.keys.wrap(to, &blob).await?;
        Ok(BlobAddress { key: to, wrapped, ..*address })
    }

    /// Puts a reference; to be called before the commit that names the blob. The record must name the address in the
    /// answer.
    pub async fn reference(
        &self,
        address: &BlobAddress,
        holder: Holder,
    ) -> Result<Reference, ReferenceError> {
        // Model references: Rule::ReferenceThenCommit.
        self.writers.references.put(address, holder).await
    }

    /// The same for many at once, in few calls of the engine. The outer error is the engine's, the inner one of a
    /// single blob.
    pub async fn reference_many(
        &self,
        addresses: &[BlobAddress],
        holder: Holder,
    ) -> Result<Vec<Result<Reference, ReferenceError>>, ReferenceError> {
        self.writers.references.put_many(addresses, holder).await
    }

    /// Removes exactly this reference.
    pub async fn unreference(
        &self,
        segment: SegmentId,
        frame: u32,
        holder: Holder,
        nonce: Nonce,
    ) -> Result<(), ReferenceError> {
        self.writers.references.remove_many([(segment, frame, nonce)], holder).await
    }

    /// The same for many at once.
    pub async fn unreference_many(
        &self,
        references: impl IntoIterator<Item = (SegmentId, u32, Nonce)>,
        holder: Holder,
    ) -> Result<(), ReferenceError> {
        self.writers.references.remove_many(references, holder).await
    }

    /// The reference rows themselves, for sweeps and checks.
    pub fn references(&self) -> &References {
        &self.writers.references
    }

    /// The keys.
    pub fn keys(&self) -> &KeyRing {
        &self.writers.keys
    }

    /// Writes a frame, all but its header, into the shared segment.
    pub(crate) async fn write_frame(
        &self,
        pieces: Vec<Bytes>,
        facts: FrameFacts,
    ) -> Result<Placed, BlobsError> {
        self.writers.group.write(pieces, facts).await
    }

    /// Frames up to this length go into the shared segment.
    pub(crate) fn shared_bytes_max(&self) -> usize {
        self.writers.config.shared_bytes_max
    }

    /// The back end.
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.writers.blobs
    }

    /// The index of a sealed segment, from its footer.
    pub async fn index(&self, segment: SegmentId) -> Result<Index, CheckError> {
        let info = self.writers.blobs.stat(segment).await.map_err(CheckError::Blobs)?;
        let mut scan = Scan::new(Arc::clone(&self.writers.blobs), segment, info.length);
        let footer = scan.footer().await.map_err(CheckError::Blobs)?;
        footer.map(|(_, index)| index).map_err(|Damage(what)| CheckError::Damaged { segment, what })
    }

    /// Compares all bytes of a segment with their hashes, without any key: for `check`. Of an unsealed segment all that
    /// is there so far.
    pub async fn check_segment(&self, segment: SegmentId) -> Result<SegmentCheck, BlobsError> {
        check_segment(&self.writers.blobs, segment).await
    }

    /// Writes what waits, seals the shared segment and takes no more small blobs: for an orderly end. Reading goes on.
    pub async fn close(&self) {
        self.writers.group.close().await;
    }
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobStore(..)")
    }
}

/// [`BlobStore::check_segment`] on a back end that no store has open.
pub async fn check_segment(blobs: &Arc<dyn Blobs>, segment: SegmentId) -> Result<SegmentCheck, BlobsError> {
    let info = blobs.stat(segment).await?;
    let mut scan = Scan::new(Arc::clone(blobs), segment, info.length);
    let mut check = SegmentCheck { segment, sealed: info.sealed, ..SegmentCheck::default() };
    if !info.sealed {
        let walked = scan.walk(info.length).await?;
        check.frames = walked.index.frames.len();
        check.damaged =
            walked.index.damaged.iter().map(|(at, _)| (*at, "no intact frame begins here")).collect();
        return Ok(check);
    }
    if let Err(Damage(what)) = scan.header().await? {
        check.damaged.push((0, what));
    }
    match scan.footer().await? {
        Err(Damage(what)) => {
            check.damaged.push((info.length, what));
            let walked = scan.walk(info.length).await?;
            check.frames = walked.index.frames.len();
        }
        Ok((_, index)) => {
            check.damaged.extend(index.damaged.iter().map(|(at, _)| (*at, "damaged before it was sealed")));
            for entry in &index.frames {
                match scan.check_frame(entry).await? {
                    Ok(()) => check.frames += 1,
                    Err(Damage(what)) => check.damaged.push((entry.offset, what)),
                }
            }
        }
    }
    Ok(check)
}

/// What a check of one segment found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentCheck {
    /// The segment.
    pub segment: SegmentId,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Intact frames.
    pub frames: usize,
    /// Where something is wrong, and what.
    pub damaged: Vec<(u64, &'static str)>,
}

/// Why the index of a segment cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The medium failed.
    #[error("the segment could not be read")]
    Blobs(#[source] BlobsError),
    /// The footer is not what was written, or there is none.
    #[error("segment {segment} is damaged: {what}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// What does not hold.
        what: &'static str,
    },
}

fn entitled(address: &BlobAddress, key: KeyId) -> Result<(), KeyError> {
    if address.key == key { Ok(()) } else { Err(KeyError::NotYours { needed: address.key, given: key }) }
}
