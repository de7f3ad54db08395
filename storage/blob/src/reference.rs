//! References: what keeps a blob.
//!
//! There are no counters. A reference is a row of its own, (segment, frame, holder, nonce), put *before* the commit that
//! names the blob and removed by exactly its nonce long after the commit that forgets it. A sweeper that wants a segment
//! gone first marks it as dying, for ever, and *then* reads its references; here the reference is put first, and *then*
//! the mark is read. So one of the two always sees the other. Where the mark is set, compaction has published (or will
//! have) where the frame went, and the reference is put there instead.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use engine::{EngineError, Row, RowKey, Rows, Table};
use serde::{Deserialize, Serialize};

use crate::{BlobAddress, Holder, Nonce, SegmentId};

/// How often a frame may have been moved on between our reading and its next move. More means that rows go in a circle.
const MOVES_MAX: usize = 16;
const REFERENCE_VERSION: u8 = 1;
const DYING_VERSION: u8 = 1;
const MOVED_VERSION: u8 = 1;

/// A reference that was put, and the address it was put for: where the segment was dying, that is another one than was
/// asked for, and the record must name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Where the blob lies.
    pub address: BlobAddress,
    /// The reference's own name.
    pub nonce: Nonce,
}

/// Why a reference could not be put or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The blob is about to be deleted and lies nowhere else: write it anew.
    #[error("the blob is gone")]
    Gone,
    /// A row is not what it should be.
    #[error("the rows of segment {0} are damaged")]
    Damaged(SegmentId),
    /// The rows could not be read or written.
    #[error("references cannot be reached")]
    Rows(#[source] EngineError),
}

/// Where compaction copied a frame to, behind a version byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// The segment it lies in now.
    pub segment: SegmentId,
    /// Its number there.
    pub frame: u32,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// One reference to a segment, as a listing has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Referenced {
    /// The frame.
    pub frame: u32,
    /// Who holds it.
    pub holder: Holder,
    /// The reference's name.
    pub nonce: Nonce,
}

/// The rows that say what is held, what is dying and what was moved.
#[derive(Clone)]
pub struct References {
    rows: Arc<dyn Rows>,
}

impl References {
    /// References in `rows`.
    pub fn new(rows: Arc<dyn Rows>) -> Self {
        Self { rows }
    }

    /// Puts one reference.
    pub async fn put(&self, address: &BlobAddress, holder: Holder) -> Result<Reference, ReferenceError> {
        let mut put = self.put_many(std::slice::from_ref(address), holder).await?;
        put.pop().expect("one answer for one address")
    }

    /// Puts a reference for each address, in few calls of the engine. The outer error is the engine's, the inner one of
    /// a single blob.
    pub async fn put_many(
        &self,
        addresses: &[BlobAddress],
        holder: Holder,
    ) -> Result<Vec<Result<Reference, ReferenceError>>, ReferenceError> {
        let mut answers: Vec<Result<Reference, ReferenceError>> = addresses
            .iter()
            // Model references: Rule::NoncePerUse, Rule::FreshNonce.
            .map(|address| Ok(Reference { address: *address, nonce: Nonce::fresh() }))
            .collect();
        let mut open: Vec<usize> = (0..answers.len()).collect();
        for _ in 0..MOVES_MAX {
            let puts: Vec<Reference> =
                open.iter().filter_map(|at| answers[*at].as_ref().ok().copied()).collect();
            if puts.is_empty() {
                return Ok(answers);
            }
            let rows = puts.iter().map(|put| Row {
                key: reference_key(put.address.segment, put.address.frame, holder, put.nonce),
                value: Bytes::from_static(&[REFERENCE_VERSION]),
            });
            // Whether the segment is dying is asked when the reference is visible, never before.
            let segments: BTreeSet<SegmentId> = puts.iter().map(|put| put.address.segment).collect();
            let keys = segments.iter().map(|segment| dying_key(*segment)).collect();
            // Model references: Rule::ReferenceThenLook.
            let marks = self.rows.put_ordered_then_get(rows.collect(), keys).await;
            let dying = marked(&segments, marks.map_err(ReferenceError::Rows)?);
            let mut again = Vec::new();
            for at in open {
                let Ok(put) = &answers[at] else { continue };
                if !dying.contains(&put.address.segment) {
                    continue;
                }
                // The reference on the dying segment protects nothing; it goes with the segment's rows.
                // Model references: Rule::FollowsMoved; it is put there in the next round, Rule::LooksWhereMoved.
                answers[at] = match self.moved(put.address.segment, put.address.frame).await? {
                    None => Err(ReferenceError::Gone),
                    Some(moved) => {
                        again.push(at);
                        Ok(Reference { address: put.address.at(&moved), nonce: Nonce::fresh() })
                    }
                };
            }
            if again.is_empty() {
                return Ok(answers);
            }
            open = again;
        }
        for at in open {
            if let Ok(put) = &answers[at] {
                answers[at] = Err(ReferenceError::Damaged(put.address.segment));
            }
        }
        Ok(answers)
    }

    /// Puts references that have a name already, to frames that nobody sweeps: they were just written, or their segments are
    /// not dying.
    pub(crate) async fn put_as(
        &self,
        places: &[(SegmentId, u32)],
        holder: Holder,
        nonce: Nonce,
    ) -> Result<(), ReferenceError> {
        let rows = places.iter().map(|(segment, frame)| Row {
            key: reference_key(*segment, *frame, holder, nonce),
            value: Bytes::from_static(&[REFERENCE_VERSION]),
        });
        self.rows.put(rows.collect()).await.map_err(ReferenceError::Rows)
    }

    /// Whether a segment is marked as dying.
    pub(crate) async fn is_dying(&self, segment: SegmentId) -> Result<bool, ReferenceError> {
        Ok(self.rows.get(dying_key(segment)).await.map_err(ReferenceError::Rows)?.is_some())
    }

    /// Removes exactly these references.
    pub async fn remove_many(
        &self,
        references: impl IntoIterator<Item = (SegmentId, u32, Nonce)>,
        holder: Holder,
    ) -> Result<(), ReferenceError> {
        let keys = references
            .into_iter()
            .map(|(segment, frame, nonce)| reference_key(segment, frame, holder, nonce));
        self.rows.delete(keys.collect()).await.map_err(ReferenceError::Rows)
    }

    /// Up to `limit` references to a segment after the one given, in the order of frames.
    pub async fn list(
        &self,
        segment: SegmentId,
        after: Option<Referenced>,
        limit: usize,
    ) -> Result<Vec<Referenced>, ReferenceError> {
        let from = after.map_or_else(Bytes::new, |after| {
            engine::rows::successor(&reference_key(segment, after.frame, after.holder, after.nonce).key)
        });
        let rows = self.rows.scan(Table::SegmentReference, partition(segment), from, limit).await;
        let rows = rows.map_err(ReferenceError::Rows)?.into_iter();
        rows.map(|(key, _)| decode_reference(&key).ok_or(ReferenceError::Damaged(segment))).collect()
    }

    /// Whether any of these frames is referenced by anybody.
    pub async fn any(&self, segment: SegmentId, frames: Range<u32>) -> Result<bool, ReferenceError> {
        let from = Bytes::copy_from_slice(&frames.start.to_be_bytes());
        let rows = self.rows.scan_keys(Table::SegmentReference, partition(segment), from, 1).await;
        match rows.map_err(ReferenceError::Rows)?.first() {
            Some(key) => {
                let held = decode_reference(key).ok_or(ReferenceError::Damaged(segment))?;
                Ok(frames.contains(&held.frame))
            }
            None => Ok(false),
        }
    }

    /// Whether there is any reference to the segment at all, be it one that this release cannot read.
    pub async fn holds(&self, segment: SegmentId) -> Result<bool, ReferenceError> {
        let rows = self.rows.scan_keys(Table::SegmentReference, partition(segment), Bytes::new(), 1).await;
        Ok(!rows.map_err(ReferenceError::Rows)?.is_empty())
    }

    /// Marks a segment as dying, for ever: the first step of a sweep.
    pub async fn mark_dying(&self, segment: SegmentId) -> Result<(), ReferenceError> {
        // Model references: Rule::MarkThenRead, Rule::DyingForEver. Of a copy the origins first, Rule::OriginsMarked.
        let row = Row { key: dying_key(segment), value: Bytes::from_static(&[DYING_VERSION]) };
        self.rows.put(vec![row]).await.map_err(ReferenceError::Rows)
    }

    /// Publishes where a frame was copied to; before the copy's origin is marked as dying.
    pub async fn publish_moved(
        &self,
        segment: SegmentId,
        frame: u32,
        moved: &Moved,
    ) -> Result<(), ReferenceError> {
        // Model references: Rule::MovedThenDeleted.
        let mut value = vec![MOVED_VERSION];
        value.extend(postcard::to_stdvec(moved).expect("a place has only types that postcard encodes"));
        let row = Row { key: moved_key(segment, frame), value: value.into() };
        self.rows.put(vec![row]).await.map_err(ReferenceError::Rows)
    }

    /// Where a frame was copied to.
    pub async fn moved(&self, segment: SegmentId, frame: u32) -> Result<Option<Moved>, ReferenceError> {
        let value = self.rows.get(moved_key(segment, frame)).await.map_err(ReferenceError::Rows)?;
        let Some(value) = value else { return Ok(None) };
        match value.split_first() {
            Some((&MOVED_VERSION, rest)) => {
                postcard::from_bytes(rest).map(Some).map_err(|_| ReferenceError::Damaged(segment))
            }
            _ => Err(ReferenceError::Damaged(segment)),
        }
    }
}

/// Those of the segments whose mark is there. Whatever stands in it: one that a later release wrote counts too.
fn marked(segments: &BTreeSet<SegmentId>, marks: Vec<Option<Bytes>>) -> BTreeSet<SegmentId> {
    segments.iter().zip(marks).filter(|(_, mark)| mark.is_some()).map(|(segment, _)| *segment).collect()
}

impl BlobAddress {
    /// The same blob at the place it was moved to.
    pub(crate) fn at(&self, moved: &Moved) -> Self {
        Self {
            segment: moved.segment,
            frame: moved.frame,
            offset: moved.offset,
            length: moved.length,
            ..*self
        }
    }
}

fn partition(segment: SegmentId) -> Bytes {
    Bytes::copy_from_slice(segment.0.as_bytes())
}

fn dying_key(segment: SegmentId) -> RowKey {
    RowKey::new(Table::Segment, partition(segment), Bytes::from_static(b"dying"))
}

fn moved_key(segment: SegmentId, frame: u32) -> RowKey {
    RowKey::new(Table::Moved, partition(segment), frame.to_be_bytes().to_vec())
}

/// Partition: the segment. Key: `frame u32 big-endian · 'a', 's' or 'd' · holder 16 · nonce 16`.
fn reference_key(segment: SegmentId, frame: u32, holder: Holder, nonce: Nonce) -> RowKey {
    let (tag, id) = match holder {
        Holder::Account(id) => (b'a', id),
        Holder::Shard(id) => (b's', id),
        Holder::Directory(id) => (b'd', id),
    };
    let mut key = Vec::with_capacity(37);
    key.extend_from_slice(&frame.to_be_bytes());
    key.push(tag);
    key.extend_from_slice(id.as_bytes());
    key.extend_from_slice(&nonce.0);
    RowKey::new(Table::SegmentReference, partition(segment), key)
}

fn decode_reference(key: &[u8]) -> Option<Referenced> {
    let (frame, rest) = key.split_first_chunk::<4>()?;
    let (tag, rest) = rest.split_first()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let id = uuid::Uuid::from_bytes(*id);
    let holder = match tag {
        b'a' => Holder::Account(id),
        b's' => Holder::Shard(id),
        b'd' => Holder::Directory(id),
        _ => return None,
    };
    Some(Referenced { frame: u32::from_be_bytes(*frame), holder, nonce: Nonce(rest.try_into().ok()?) })
}
