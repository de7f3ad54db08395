//! Start-up: segments that the last process did not seal.
//!
//! A shared segment is walked from frame to frame and sealed behind its last intact one: the torn tail that is cut off was
//! never acknowledged, since an acknowledgement follows the sync. Frames of one group are written together and torn
//! together, so that intact ones may lie behind a broken one of the same last group. What tells such a stretch from
//! damage are the references: one is put after the sync and before the acknowledgement. A broken stretch where a
//! referenced frame was is damage; it is noted in the index and reported. Its bytes are kept in either case. A segment
//! that was streamed is synced once, at its end: it counts when it has its footer and its frame is whole or referenced,
//! else it is removed.

use std::ops::Range;
use std::sync::Arc;

use crate::format::segment::{FLAG_STREAMED, HEADER_BYTES, Index};
use crate::scan::Scan;
use crate::{Blobs, BlobsError, References, SegmentId, SegmentInfo};

/// What was done with one unsealed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The segment.
    pub segment: SegmentId,
    /// What became of it.
    pub fate: Fate,
    /// Intact frames.
    pub frames: usize,
    /// Bytes of the torn tail that were cut off.
    pub cut_bytes: u64,
    /// Bytes of torn frames that lie before intact ones of their group and are referenced by nobody.
    pub torn_bytes: u64,
    /// Damaged stretches between intact frames: (offset, length). A referenced frame was there.
    pub damaged: Vec<(u64, u64)>,
}

/// What became of an unsealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was complete; only its sealing had not been noted.
    Complete,
    /// It was cut behind its last intact frame and sealed.
    Sealed,
    /// Nothing in it was ever acknowledged.
    Removed,
}

/// Deals with all unsealed segments. No writer may be at work.
pub(crate) async fn recover(
    blobs: &Arc<dyn Blobs>,
    references: &References,
) -> Result<Vec<Recovered>, BlobsError> {
    let mut done = Vec::new();
    for info in blobs.unsealed().await? {
        let recovered = recover_one(blobs, references, info).await?;
        let Recovered { segment, fate, frames, cut_bytes, torn_bytes, ref damaged } = recovered;
        if !damaged.is_empty() {
            tracing::error!(%segment, ?fate, frames, cut_bytes, ?damaged, "a recovered segment is damaged in the middle");
        } else if cut_bytes > 0 || torn_bytes > 0 {
            tracing::warn!(%segment, ?fate, frames, cut_bytes, torn_bytes, "an unsealed segment had a torn end");
        } else {
            tracing::info!(%segment, ?fate, frames, "recovered an unsealed segment");
        }
        done.push(recovered);
    }
    Ok(done)
}

async fn recover_one(
    blobs: &Arc<dyn Blobs>,
    references: &References,
    info: SegmentInfo,
) -> Result<Recovered, BlobsError> {
    let SegmentInfo { segment, length, .. } = info;
    let mut scan = Scan::new(Arc::clone(blobs), segment, length);
    if let Ok((_, index)) = scan.footer().await? {
        // A streamed segment is synced once, footer and all, so its footer may be whole where its frame is torn.
        if is_streamed(&mut scan).await?
            && !all_whole(&mut scan, &index).await?
            && !holds(references, segment, 0..u32::MAX).await
        {
            return remove(blobs, segment, length).await;
        }
        blobs.finish(segment, length, Vec::new()).await?;
        let frames = index.frames.len();
        return Ok(Recovered {
            segment,
            fate: Fate::Complete,
            frames,
            cut_bytes: 0,
            torn_bytes: 0,
            damaged: index.damaged,
        });
    }
    let mut walked = scan.walk(length).await?;
    let streamed = walked.header.is_ok_and(|header| header.flags & FLAG_STREAMED != 0);
    if streamed || walked.index.frames.is_empty() {
        return remove(blobs, segment, length).await;
    }
    // The footer's hash covers the header as it stands, be it damaged.
    let header = blobs.get(segment, 0..HEADER_BYTES as u64).await?;
    let header = header.first_chunk().expect("a back end gives what it was asked for");
    let mut torn_bytes = 0;
    let mut damaged = Vec::new();
    for (at, length) in std::mem::take(&mut walked.index.damaged) {
        if was_held(references, segment, &walked.index, at).await {
            damaged.push((at, length));
        } else {
            torn_bytes += length;
        }
    }
    walked.index.damaged.clone_from(&damaged);
    if walked.header.is_err() {
        damaged.insert(0, (0, HEADER_BYTES as u64));
    }
    let footer = walked.index.encode(header, walked.end);
    blobs.finish(segment, walked.end, vec![footer.into()]).await?;
    let frames = walked.index.frames.len();
    let cut_bytes = length - walked.end;
    Ok(Recovered { segment, fate: Fate::Sealed, frames, cut_bytes, torn_bytes, damaged })
}

async fn remove(blobs: &Arc<dyn Blobs>, segment: SegmentId, length: u64) -> Result<Recovered, BlobsError> {
    blobs.delete(segment).await?;
    let damaged = Vec::new();
    Ok(Recovered { segment, fate: Fate::Removed, frames: 0, cut_bytes: length, torn_bytes: 0, damaged })
}

async fn is_streamed(scan: &mut Scan) -> Result<bool, BlobsError> {
    Ok(scan.header().await?.is_ok_and(|header| header.flags & FLAG_STREAMED != 0))
}

async fn all_whole(scan: &mut Scan, index: &Index) -> Result<bool, BlobsError> {
    for entry in &index.frames {
        if scan.check_frame(entry).await?.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a frame that is missing in the stretch at `at` is referenced.
async fn was_held(references: &References, segment: SegmentId, index: &Index, at: u64) -> bool {
    let next = index.frames.partition_point(|entry| entry.offset < at);
    let first = next.checked_sub(1).map_or(0, |before| index.frames[before].frame.saturating_add(1));
    let end = index.frames.get(next).map_or(u32::MAX, |entry| entry.frame);
    holds(references, segment, first..end).await
}

/// Whether any of the frames is referenced. When that cannot be found out they count as referenced: better a false
/// alarm than none.
async fn holds(references: &References, segment: SegmentId, frames: Range<u32>) -> bool {
    references.any(segment, frames).await.unwrap_or_else(|error| {
        tracing::warn!(%segment, %error, "references not read");
        true
    })
}
