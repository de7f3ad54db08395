//! Copying segments.

use std::sync::Arc;

use blob::{Blobs, BlobsError, Growth, SegmentInfo, check_segment};
use futures_util::{TryStreamExt as _, stream};

use crate::blobs::MovingBlobs;
use crate::error::MoveError;
use crate::progress::Meter;

/// Bytes read and written at once.
const WINDOW_BYTES: u64 = 4 << 20;
/// Segments that are copied at one time: many are small, and each is some requests of S3.
const SEGMENTS_AT_ONCE: usize = 8;
/// Segments listed at once.
const LISTED: usize = 256;

impl MovingBlobs {
    /// Copies all sealed segments that are not at the target, and looks at each frame of the copies.
    pub(crate) async fn copy_all(
        &self,
        meter: &Meter,
        stops: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), MoveError> {
        let Some(target) = self.target() else { return Ok(()) };
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let listed = self.source().list(after, LISTED).await.map_err(of_source)?;
            let Some(last) = listed.last() else { break };
            after = Some(last.segment);
            all.extend(listed.into_iter().filter(|info| info.sealed));
        }
        meter.segments(all.len() as u64);
        stream::iter(all.into_iter().map(Ok))
            .try_for_each_concurrent(SEGMENTS_AT_ONCE, |info| async move {
                if stops() {
                    return Ok(());
                }
                match copy(self.source(), target, info, meter).await {
                    // Deleted meanwhile.
                    Err(MoveError::Blobs { side: "source", source: BlobsError::NotFound(_) }) => {}
                    other => other?,
                }
                meter.segment_done();
                Ok(())
            })
            .await
    }

    /// Whether messages are still being written into segments of the source.
    pub(crate) async fn has_open_segments(&self) -> Result<bool, MoveError> {
        Ok(!self.source().unsealed().await.map_err(of_source)?.is_empty())
    }
}

async fn copy(
    source: &Arc<dyn Blobs>,
    target: &Arc<dyn Blobs>,
    info: SegmentInfo,
    meter: &Meter,
) -> Result<(), MoveError> {
    let SegmentInfo { segment, length, .. } = info;
    match target.stat(segment).await {
        Ok(there) if there.sealed && there.length == length => return Ok(()),
        Ok(_) => target.delete(segment).await.map_err(of_target)?,
        Err(BlobsError::NotFound(_)) => {}
        Err(error) => return Err(of_target(error)),
    }
    let mut hasher = blake3::Hasher::new();
    if target.growth() == Growth::Whole && length <= WINDOW_BYTES {
        let bytes = source.get(segment, 0..length).await.map_err(of_source)?;
        hasher.update(&bytes);
        target.put(segment, vec![bytes]).await.map_err(of_target)?;
    } else {
        let mut appender = target.begin(segment, length).await.map_err(of_target)?;
        let mut at = 0;
        while at < length {
            let end = (at + WINDOW_BYTES).min(length);
            let bytes = match source.get(segment, at..end).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    appender.abort().await;
                    return Err(of_source(error));
                }
            };
            hasher.update(&bytes);
            appender.append(vec![bytes]).await.map_err(of_target)?;
            at = end;
        }
        appender.seal(Vec::new()).await.map_err(of_target)?;
    }
    meter.copied(length);
    compare(target, info, hasher.finalize()).await
}

/// Reads the copy: all its bytes, and what the hashes in its frames say. Damage that the original has too is said and
/// kept.
async fn compare(target: &Arc<dyn Blobs>, info: SegmentInfo, hash: blake3::Hash) -> Result<(), MoveError> {
    let SegmentInfo { segment, length, .. } = info;
    let check = check_segment(target, segment).await.map_err(of_target)?;
    if check.damaged.is_empty() {
        return Ok(());
    }
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < length {
        let end = (at + WINDOW_BYTES).min(length);
        hasher.update(&target.get(segment, at..end).await.map_err(of_target)?);
        at = end;
    }
    if hasher.finalize() == hash {
        tracing::warn!(%segment, damaged = ?check.damaged, "a segment was damaged before it was copied");
        return Ok(());
    }
    target.delete(segment).await.map_err(of_target)?;
    Err(MoveError::SegmentDiffers(segment))
}

fn of_source(source: BlobsError) -> MoveError {
    MoveError::Blobs { side: "source", source }
}

fn of_target(source: BlobsError) -> MoveError {
    MoveError::Blobs { side: "target", source }
}
