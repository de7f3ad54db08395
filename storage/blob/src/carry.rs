//! Blobs of one store in another: for an account that moves to another installation.
//!
//! Frames go as they are stored, sealed by their own keys, into segments of the other store, and `moved` says there where
//! they went, as after a compaction: the account's records name where its blobs were written, and never change. So nothing
//! of anybody else goes along, though they share segments.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::format::Damage;
use crate::format::frame::{FrameHeader, HEADER_BYTES, TRAILER_BYTES, Trailer};
use crate::frame_builder::FrameFacts;
use crate::writer::OwnSegment;
use crate::{
    BlobAddress, BlobStore, BlobsError, Holder, Moved, Nonce, ReadError, ReferenceError, WriteError,
};

/// How often a frame may have been moved on.
const MOVES_MAX: usize = 16;
/// What is read at once of a frame that is not small.
const PIECE_BYTES: u64 = 1 << 20;
/// Rows that are looked up at one time.
const LOOKS_AT_ONCE: usize = 16;

/// Why a blob could not be carried over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// It cannot be read where it is.
    #[error("a blob cannot be read where it is")]
    Read(#[from] ReadError),
    /// It cannot be written where it goes.
    #[error("a blob cannot be written where it goes")]
    Write(#[from] WriteError),
    /// The rows that say where it went cannot be written.
    #[error("the place of a blob cannot be written down")]
    Reference(#[from] ReferenceError),
}

impl BlobStore {
    /// Carries a blob over from another store, with the reference by which `holder` has it. Done again it writes nothing.
    pub async fn carry(
        &self,
        from: &Self,
        address: &BlobAddress,
        nonce: Nonce,
        holder: Holder,
    ) -> Result<(), CarryError> {
        let origin = (address.segment, address.frame);
        let references = self.references();
        // It was written here, and its account comes back. The reference first: one of this and a sweep sees the other.
        if self.blobs().stat(address.segment).await.is_ok() {
            references.put_as(&[origin], holder, nonce).await?;
            if !references.is_dying(address.segment).await? {
                return Ok(());
            }
        }
        let known = references.moved(address.segment, address.frame).await?;
        let moved = match known {
            // An earlier attempt has brought it.
            Some(moved) if self.blobs().stat(moved.segment).await.is_ok() => moved,
            _ => {
                let moved = self.copy_frame(from, address).await?;
                references.publish_moved(address.segment, address.frame, &moved).await?;
                moved
            }
        };
        // Under the origin the record finds it again, under the segment that it lies in a sweep does.
        Ok(references.put_as(&[origin, (moved.segment, moved.frame)], holder, nonce).await?)
    }

    /// Gives up references by which `holder` had blobs, under all names that [`Self::carry`] gives one.
    pub async fn let_go(
        &self,
        held: Vec<(BlobAddress, Nonce)>,
        holder: Holder,
    ) -> Result<(), ReferenceError> {
        let references = self.references();
        let names = stream::iter(held).map(|(address, nonce)| async move {
            let moved = references.moved(address.segment, address.frame).await?;
            let origin = (address.segment, address.frame, nonce);
            Ok(std::iter::once(origin).chain(moved.map(|moved| (moved.segment, moved.frame, nonce))))
        });
        let names: Vec<_> = names.buffer_unordered(LOOKS_AT_ONCE).try_collect().await?;
        references.remove_many(names.into_iter().flatten(), holder).await
    }

    async fn copy_frame(&self, from: &Self, address: &BlobAddress) -> Result<Moved, CarryError> {
        let is_small = address.length <= self.shared_bytes_max() as u64;
        let first_bytes = if is_small { address.length } else { HEADER_BYTES as u64 };
        let (place, first) = from.found(address, first_bytes).await?;
        let damaged = |Damage(what)| {
            CarryError::Read(ReadError::Damaged { segment: place.segment, frame: place.frame, what })
        };
        let header = FrameHeader::decode(&first).map_err(damaged)?;
        let trailer = if is_small {
            Trailer::decode(&first, place.length).map_err(damaged)?
        } else {
            let start = place.length.saturating_sub(TRAILER_BYTES as u64);
            let fixed = from.stored(&place, start, place.length).await?;
            let fixed = fixed.first_chunk().ok_or_else(|| damaged(Damage("frame too short")))?;
            let length = Trailer::length(fixed, place.length).map_err(damaged)?;
            let bytes = from.stored(&place, place.length - length, place.length).await?;
            Trailer::decode(&bytes, place.length).map_err(damaged)?
        };
        let facts = FrameFacts {
            dictionary: header.dictionary,
            length: place.length,
            size: trailer.size,
            blob_id: trailer.blob_id,
            hash: trailer.hash,
        };
        let placed = if is_small {
            self.write_frame(vec![first.slice(HEADER_BYTES..)], facts).await
        } else {
            let mut at = HEADER_BYTES as u64;
            let mut end = (at + PIECE_BYTES).min(place.length);
            let piece = from.stored(&place, at, end).await?;
            let own = OwnSegment::begin(self.blobs().clone(), vec![piece]).await;
            let mut own = own.map_err(WriteError::Blobs)?;
            while end < place.length {
                at = end;
                end = (at + PIECE_BYTES).min(place.length);
                let piece = from.stored(&place, at, end).await?;
                own.append(vec![piece]).await.map_err(WriteError::Blobs)?;
            }
            own.seal(Vec::new(), &facts).await
        };
        let placed = placed.map_err(WriteError::Blobs)?;
        Ok(Moved {
            segment: placed.segment,
            frame: placed.frame,
            offset: placed.offset,
            length: place.length,
        })
    }

    /// Where a blob lies now, and its first bytes.
    async fn found(&self, address: &BlobAddress, bytes: u64) -> Result<(BlobAddress, Bytes), CarryError> {
        let mut place = *address;
        for _ in 0..MOVES_MAX {
            match self.stored(&place, 0, bytes).await {
                Err(CarryError::Read(ReadError::Blobs(BlobsError::NotFound(segment)))) => {
                    let moved = self.references().moved(place.segment, place.frame).await?;
                    let moved = moved.ok_or(ReadError::Missing { segment, frame: place.frame })?;
                    place = place.at(&moved);
                }
                stored => return Ok((place, stored?)),
            }
        }
        let what = "moved in a circle";
        Err(ReadError::Damaged { segment: place.segment, frame: place.frame, what }.into())
    }

    async fn stored(&self, place: &BlobAddress, start: u64, end: u64) -> Result<Bytes, CarryError> {
        let range = place.offset + start..place.offset + end;
        self.blobs().get(place.segment, range).await.map_err(|error| ReadError::Blobs(error).into())
    }
}
