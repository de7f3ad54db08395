//! Segments of a back end over two.
//!
//! Segments never change, so it does not matter which copy is read. New ones are written to the target from the moment
//! in which the move begins; one that was begun before is finished where it is, and copied then.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use blob::{Appender, Blobs, BlobsError, Growth, SegmentId, SegmentInfo};
use bytes::Bytes;
use tokio::sync::RwLock;

use crate::error::MoveError;

/// Segments of a source, and of a target to which they move. Clones share them.
#[derive(Clone)]
pub struct MovingBlobs {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn Blobs>,
    target: OnceLock<Arc<dyn Blobs>>,
    /// Held while a segment is begun; taken alone once, when the move begins.
    beginning: RwLock<()>,
}

impl std::fmt::Debug for MovingBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MovingBlobs(..)")
    }
}

impl MovingBlobs {
    /// Over a source alone.
    pub fn new(source: Arc<dyn Blobs>) -> Self {
        Self { inner: Arc::new(Inner { source, target: OnceLock::new(), beginning: RwLock::default() }) }
    }

    /// Begins to move to `target`, or goes on with it. New segments go there from now on.
    pub async fn begin(&self, target: Arc<dyn Blobs>) -> Result<(), MoveError> {
        // A copy that was cut off must not be taken for a segment that a process left open.
        for half in target.unsealed().await.map_err(|source| MoveError::Blobs { side: "target", source })? {
            if self.inner.source.stat(half.segment).await.is_ok() {
                let gone = target.delete(half.segment).await;
                gone.map_err(|source| MoveError::Blobs { side: "target", source })?;
            }
        }
        self.inner.target.set(target).map_err(|_| MoveError::Begun)?;
        drop(self.inner.beginning.write().await);
        Ok(())
    }

    /// The source by itself.
    pub(crate) fn source(&self) -> &Arc<dyn Blobs> {
        &self.inner.source
    }

    pub(crate) fn target(&self) -> Option<&Arc<dyn Blobs>> {
        self.inner.target.get()
    }

    /// Where new segments go.
    fn newest(&self) -> &Arc<dyn Blobs> {
        self.target().unwrap_or(&self.inner.source)
    }
}

#[async_trait]
impl Blobs for MovingBlobs {
    fn growth(&self) -> Growth {
        self.newest().growth()
    }

    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let _beginning = self.inner.beginning.read().await;
        self.newest().put(segment, pieces).await
    }

    async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        let _beginning = self.inner.beginning.read().await;
        if self.target().is_some() && self.inner.source.stat(segment).await.is_ok() {
            return Err(BlobsError::Exists(segment));
        }
        self.newest().begin(segment, expected).await
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        if let Some(target) = self.target() {
            match target.get(segment, range.clone()).await {
                // The copy may be on its way.
                Err(BlobsError::NotFound(_)) => {}
                Err(past @ BlobsError::OutOfRange { .. }) => {
                    return match self.inner.source.get(segment, range).await {
                        Err(BlobsError::NotFound(_)) => Err(past),
                        other => other,
                    };
                }
                other => return other,
            }
        }
        self.inner.source.get(segment, range).await
    }

    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        let Some(target) = self.target() else { return self.inner.source.stat(segment).await };
        let copy = match target.stat(segment).await {
            Ok(info) if info.sealed => return Ok(info),
            Err(BlobsError::NotFound(_)) => None,
            Ok(info) => Some(info),
            Err(error) => return Err(error),
        };
        match (self.inner.source.stat(segment).await, copy) {
            (Err(BlobsError::NotFound(_)), Some(copy)) => Ok(copy),
            (source, _) => source,
        }
    }

    async fn finish(&self, segment: SegmentId, length: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let Some(target) = self.target() else {
            return self.inner.source.finish(segment, length, pieces).await;
        };
        match self.inner.source.stat(segment).await {
            Err(BlobsError::NotFound(_)) => target.finish(segment, length, pieces).await,
            Ok(_) => self.inner.source.finish(segment, length, pieces).await,
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.inner.source.delete(segment).await?;
        match self.target() {
            Some(target) => target.delete(segment).await,
            None => Ok(()),
        }
    }

    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        let mut listed = self.inner.source.list(after, limit).await?;
        if let Some(target) = self.target() {
            // Of two, the sealed one counts, which sorts first.
            listed.extend(target.list(after, limit).await?);
            listed.sort_by_key(|info| (info.segment, !info.sealed));
            listed.dedup_by_key(|info| info.segment);
            listed.truncate(limit);
        }
        Ok(listed)
    }

    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        let mut unsealed = self.inner.source.unsealed().await?;
        if let Some(target) = self.target() {
            for info in target.unsealed().await? {
                // Half a copy is none of these.
                if let Err(BlobsError::NotFound(_)) = self.inner.source.stat(info.segment).await {
                    unsealed.push(info);
                }
            }
        }
        Ok(unsealed)
    }

    fn prefetch(&self, ranges: &[(SegmentId, Range<u64>)]) -> usize {
        self.newest().prefetch(ranges)
    }

    async fn distrust(&self, segment: SegmentId, range: Range<u64>) -> bool {
        let source = self.inner.source.distrust(segment, range.clone()).await;
        match self.target() {
            Some(target) => target.distrust(segment, range).await || source,
            None => source,
        }
    }
}
