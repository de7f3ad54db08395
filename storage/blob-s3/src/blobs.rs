//! The back end.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use blob::{Appender, Blobs, BlobsError, Growth, SegmentId, SegmentInfo};
use bytes::Bytes;

use crate::appender::S3Appender;
use crate::begun::BegunIds;
use crate::blocks::Blocks;
use crate::disk_cache::DiskCache;
use crate::service::{Service, Stamp, joined};
use crate::waiting::{Budget, blocking};
use crate::{Config, ConfigError};

/// Offsets beyond this are no segment's: no service has larger objects, and not every one reads larger numbers.
const OFFSET_MAX: u64 = 1 << 53;

/// Segments as objects of a bucket. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct S3Blobs {
    pub(crate) service: Arc<Service>,
    waiting: Arc<Budget>,
    begun: BegunIds,
    /// Where there is a cache.
    blocks: Option<Blocks>,
}

impl S3Blobs {
    /// For the bucket of the configuration. Whether it can be reached shows at the first call.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let waiting = Budget::new(config.waiting_bytes_max);
        let service = Service::new(config).await?;
        let service = Arc::new(service);
        let blocks = match service.config.cache_folder.clone() {
            None => None,
            Some(folder) => {
                let (bytes_max, block) = (service.config.cache_bytes_max, service.config.cache_block_bytes);
                let cache = blocking(move || DiskCache::open(&folder, bytes_max, block)).await;
                Some(Blocks::new(Arc::clone(&service), cache.map_err(OpenError::Cache)?))
            }
        };
        Ok(Self { service, waiting, begun: BegunIds::default(), blocks })
    }

    fn read_bytes_max(&self) -> u64 {
        self.service.config.read_bytes_max
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    fn growth(&self) -> Growth {
        Growth::Whole
    }

    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.service.put(segment, joined(pieces), &Stamp::fresh()).await
    }

    async fn begin(&self, segment: SegmentId, _expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        let begun = self.begun.hold(segment).ok_or(BlobsError::Exists(segment))?;
        let there = self.service.seen_length(segment).await;
        if there.map_err(|fault| fault.during("beginning a segment"))?.is_some() {
            return Err(BlobsError::Exists(segment));
        }
        let (service, waiting) = (Arc::clone(&self.service), Arc::clone(&self.waiting));
        Ok(Box::new(S3Appender::new(service, waiting, segment, begun)))
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        let out_of_range = BlobsError::OutOfRange { segment, start: range.start, end: range.end };
        let length = range.end.checked_sub(range.start).filter(|length| *length <= self.read_bytes_max());
        let Some(length) = length.filter(|_| range.end <= OFFSET_MAX) else {
            return Err(out_of_range);
        };
        if length == 0 {
            // A request cannot ask for nothing.
            let there = self.service.length(segment).await?;
            return if range.start <= there { Ok(Bytes::new()) } else { Err(out_of_range) };
        }
        if let Some(blocks) = &self.blocks
            && length <= self.service.config.cached_read_bytes_max
        {
            return blocks.read(segment, range).await;
        }
        let bytes = self.service.fetch(segment, range.start, length).await?;
        if (bytes.len() as u64) < length { Err(out_of_range) } else { Ok(bytes) }
    }

    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        let length = self.service.length(segment).await?;
        Ok(SegmentInfo { segment, length, sealed: true })
    }

    async fn finish(&self, segment: SegmentId, _: u64, _: Vec<Bytes>) -> Result<(), BlobsError> {
        // What is there is sealed.
        Err(BlobsError::NotFound(segment))
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.service.delete(segment).await?;
        if let Some(blocks) = &self.blocks {
            blocks.forget(segment, 0..u64::MAX).await;
        }
        Ok(())
    }

    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.service.list(after, limit).await
    }

    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        Ok(Vec::new())
    }

    fn prefetch(&self, ranges: &[(SegmentId, Range<u64>)]) -> usize {
        // Without a cache there is nowhere to put it.
        let Some(blocks) = &self.blocks else { return ranges.len() };
        let begun = ranges.iter().take_while(|(segment, range)| {
            let end = range.end.min(range.start.saturating_add(self.service.config.read_ahead_bytes));
            range.start >= end || end > OFFSET_MAX || blocks.read_ahead(*segment, range.start..end)
        });
        begun.count()
    }

    async fn distrust(&self, segment: SegmentId, range: Range<u64>) -> bool {
        if let Some(blocks) = &self.blocks {
            blocks.forget(segment, range).await;
        }
        // Without a cache as well: a range has no checksum on its way.
        true
    }
}

impl fmt::Debug for S3Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { endpoint, region, bucket, prefix, .. } = &self.service.config;
        f.debug_struct("S3Blobs")
            .field("endpoint", endpoint)
            .field("region", region)
            .field("bucket", bucket)
            .field("prefix", prefix)
            .finish_non_exhaustive()
    }
}

/// Why the back end cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting cannot be.
    #[error("the settings for S3 cannot be used")]
    Config(#[from] ConfigError),
    /// The certificates to trust cannot be had.
    #[error("the certificates to trust cannot be used")]
    Ca(#[source] std::io::Error),
    /// The folder of the cache cannot be used.
    #[error("the folder of the segment cache cannot be used")]
    Cache(#[source] std::io::Error),
}
