//! Reads through the cache: a range is cut into blocks, and each block is fetched once, however many want it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use blob::{BlobsError, SegmentId};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::disk_cache::{BlockId, DiskCache};
use crate::service::{Service, joined};

type Fetched = Result<Bytes, BlobsError>;

/// Blocks of segments, from the cache or from the service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Blocks(Arc<Inner>);

struct Inner {
    service: Arc<Service>,
    cache: DiskCache,
    block_bytes: u64,
    /// Blocks that are being fetched.
    fetching: Mutex<HashMap<BlockId, WeakShared<BoxFuture<'static, Fetched>>>>,
    /// Blocks that may be fetched ahead.
    ahead: Arc<Semaphore>,
}

impl Blocks {
    pub(crate) fn new(service: Arc<Service>, cache: DiskCache) -> Self {
        let block_bytes = service.config.cache_block_bytes;
        let ahead = Arc::new(Semaphore::new(service.config.read_ahead_in_flight_max));
        Self(Arc::new(Inner { service, cache, block_bytes, fetching: Mutex::default(), ahead }))
    }

    /// Exactly the bytes of a range that is not empty.
    pub(crate) async fn read(&self, segment: SegmentId, range: Range<u64>) -> Fetched {
        let size = self.0.block_bytes;
        let numbers = range.start / size..range.end.div_ceil(size);
        let blocks = numbers.map(|number| async move {
            let block = self.block(BlockId { segment, number }).await?;
            let start = range.start.saturating_sub(number * size).min(size);
            let end = range.end.saturating_sub(number * size).min(size);
            if end > block.len() as u64 {
                return Err(BlobsError::OutOfRange { segment, start: range.start, end: range.end });
            }
            Ok(block.slice(start as usize..end as usize))
        });
        future::try_join_all(blocks).await.map(joined).map_err(|error| match error {
            // The block that was asked for is beyond the end; the caller knows no blocks.
            BlobsError::OutOfRange { .. } => {
                BlobsError::OutOfRange { segment, start: range.start, end: range.end }
            }
            error => error,
        })
    }

    /// Fetches what is not here yet, as far as there is room for it now. Says whether there was for all of it.
    pub(crate) fn read_ahead(&self, segment: SegmentId, range: Range<u64>) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return true };
        let size = self.0.block_bytes;
        for number in range.start / size..range.end.div_ceil(size) {
            let id = BlockId { segment, number };
            if self.0.cache.has(id) || self.is_fetching(id) {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.0.ahead).try_acquire_owned() else { return false };
            let fetch = self.fetch_of(id);
            runtime.spawn(async move {
                // Whoever reads it will hear of an error.
                let _ = fetch.await;
                drop(permit);
            });
        }
        true
    }

    fn is_fetching(&self, id: BlockId) -> bool {
        self.0.fetching.lock().get(&id).is_some_and(|fetch| fetch.upgrade().is_some())
    }

    /// Whether a copy was there, which is no longer.
    pub(crate) async fn forget(&self, segment: SegmentId, range: Range<u64>) -> bool {
        self.0.cache.forget(segment, range).await
    }

    async fn block(&self, id: BlockId) -> Fetched {
        self.fetch_of(id).await
    }

    /// The fetch of a block that is under way, or one that begins.
    fn fetch_of(&self, id: BlockId) -> Shared<BoxFuture<'static, Fetched>> {
        let mut fetching = self.0.fetching.lock();
        match fetching.get(&id).and_then(WeakShared::upgrade) {
            Some(fetch) => fetch,
            None => {
                let fetch: Shared<_> = Arc::clone(&self.0).fetch(id).boxed().shared();
                fetching.insert(id, fetch.downgrade().expect("it was not polled yet"));
                fetch
            }
        }
    }
}

impl Inner {
    async fn fetch(self: Arc<Self>, id: BlockId) -> Fetched {
        let _done = Done { inner: &self, id };
        if let Some(block) = self.cache.get(id).await {
            metrics::counter!("postrider_s3_cache_hits_total").increment(1);
            return Ok(block);
        }
        metrics::counter!("postrider_s3_cache_misses_total").increment(1);
        let fetched = self.service.fetch(id.segment, id.number * self.block_bytes, self.block_bytes).await?;
        self.cache.put(id, fetched.clone()).await;
        Ok(fetched)
    }
}

/// Takes the entry away when the fetch ends, be it that nobody wants it any more. It may be another's by then, who then
/// shares with nobody: no harm.
struct Done<'a> {
    inner: &'a Inner,
    id: BlockId,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.inner.fetching.lock().remove(&self.id);
    }
}
