//! Segments in memory, with the faults of a real medium: the test double for everything above.
//!
//! [`MemoryBlobs::image`] gives what a power cut after sync *n* would have left, with what was not synced dropped, kept
//! or torn.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Appender, Blobs, BlobsError, Growth, SegmentId, SegmentInfo};

/// Segments in memory. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct MemoryBlobs {
    inner: Arc<Mutex<Inner>>,
    growth: Growth,
}

/// What goes wrong. The default is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Every read fails.
    pub reads_fail: bool,
    /// This many writes (put, begin, append, commit, seal, finish) succeed, then all fail.
    pub writes_left: Option<u64>,
    /// A failing write adds the first half of its bytes before it fails.
    pub fail_midway: bool,
    /// Bytes for which there is room; a write that needs more finds the disk full.
    pub capacity: Option<u64>,
    /// Every write and sync takes this long.
    pub delay: Duration,
}

/// What became of writes that were not synced when the power was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsynced {
    /// None of them reached the medium.
    Dropped,
    /// All of them did.
    Kept,
    /// Blocks of 512 bytes reached it or did not, as this seed says; those that did not are zero.
    Torn(u64),
}

#[derive(Default)]
struct Inner {
    segments: BTreeMap<SegmentId, Segment>,
    faults: Faults,
    syncs: u64,
    history: Vec<Event>,
}

#[derive(Clone, Default)]
struct Segment {
    bytes: Vec<u8>,
    sealed: bool,
    /// Some of it is durable, so readers may see it.
    visible: bool,
}

enum Event {
    Begin(SegmentId),
    Write(SegmentId, Vec<Bytes>),
    Cut(SegmentId, u64),
    /// All that was written to the segment before this is durable.
    Sync(SegmentId),
    Seal(SegmentId),
    Delete(SegmentId),
}

impl MemoryBlobs {
    /// Grows like files.
    pub fn new() -> Self {
        Self::growing(Growth::Durable)
    }

    /// Grows like `growth` says.
    pub fn growing(growth: Growth) -> Self {
        Self { inner: Arc::default(), growth }
    }

    /// From now on these things go wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// Number of syncs so far.
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// Changes bytes of a segment behind everybody's back.
    pub fn damage(&self, segment: SegmentId, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(segment) = self.inner.lock().segments.get_mut(&segment) {
            change(&mut segment.bytes);
        }
    }

    /// What a power cut right before sync number `syncs + 1` would have left.
    pub fn image(&self, syncs: u64, unsynced: Unsynced) -> Self {
        let inner = self.inner.lock();
        let mut segments: BTreeMap<SegmentId, Segment> = BTreeMap::new();
        let mut synced: BTreeMap<SegmentId, usize> = BTreeMap::new();
        let mut count = 0;
        for event in &inner.history {
            match event {
                Event::Sync(segment) => {
                    if count == syncs {
                        break;
                    }
                    count += 1;
                    synced.insert(*segment, segments.get(segment).map_or(0, |segment| segment.bytes.len()));
                }
                other => other.replay(&mut segments),
            }
        }
        for (id, segment) in &mut segments {
            let synced = synced.get(id).copied();
            segment.visible = true;
            match unsynced {
                Unsynced::Kept => {}
                Unsynced::Dropped => segment.bytes.truncate(synced.unwrap_or(0)),
                Unsynced::Torn(seed) => tear(&mut segment.bytes, synced.unwrap_or(0), seed),
            }
        }
        if unsynced == Unsynced::Dropped {
            segments.retain(|id, _| synced.contains_key(id));
        }
        let image = Inner { segments, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(image)), growth: self.growth }
    }

    async fn delay(&self) {
        let delay = self.inner.lock().faults.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    fn replay(&self, segments: &mut BTreeMap<SegmentId, Segment>) {
        match self {
            Self::Begin(id) => {
                segments.insert(*id, Segment::default());
            }
            Self::Write(id, pieces) => {
                if let Some(segment) = segments.get_mut(id) {
                    for piece in pieces {
                        segment.bytes.extend_from_slice(piece);
                    }
                }
            }
            Self::Cut(id, length) => {
                if let Some(segment) = segments.get_mut(id) {
                    segment.bytes.truncate(*length as usize);
                }
            }
            Self::Sync(id) => {
                if let Some(segment) = segments.get_mut(id) {
                    segment.visible = true;
                }
            }
            Self::Seal(id) => {
                if let Some(segment) = segments.get_mut(id) {
                    segment.sealed = true;
                }
            }
            Self::Delete(id) => {
                segments.remove(id);
            }
        }
    }
}

impl Inner {
    fn record(&mut self, event: Event) {
        event.replay(&mut self.segments);
        if matches!(event, Event::Sync(_)) {
            self.syncs += 1;
        }
        self.history.push(event);
    }

    /// One write and its syncs, or the fault that is due.
    fn write(&mut self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let error = if self.faults.writes_left == Some(0) {
            BlobsError::from_io("writing a segment", io::Error::other("planned fault"))
        } else if self.faults.capacity.is_some_and(|capacity| self.used() + length as u64 > capacity) {
            BlobsError::from_io("writing a segment", io::ErrorKind::StorageFull.into())
        } else {
            self.faults.writes_left = self.faults.writes_left.map(|left| left - 1);
            self.record(Event::Write(segment, pieces));
            return Ok(());
        };
        if self.faults.fail_midway {
            let mut half = length / 2;
            let some = pieces.into_iter().map(|piece| {
                let part = piece.slice(..piece.len().min(half));
                half -= part.len();
                part
            });
            let some = some.collect();
            self.record(Event::Write(segment, some));
        }
        Err(error)
    }

    fn used(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes.len() as u64).sum()
    }
}

#[async_trait]
impl Blobs for MemoryBlobs {
    fn growth(&self) -> Growth {
        self.growth
    }

    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let appender = self.begin(segment, 0).await?;
        appender.seal(pieces).await
    }

    async fn begin(&self, segment: SegmentId, _expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        self.delay().await;
        let mut inner = self.inner.lock();
        if inner.segments.contains_key(&segment) {
            return Err(BlobsError::Exists(segment));
        }
        if inner.faults.writes_left == Some(0) {
            return Err(BlobsError::from_io("creating a segment", io::Error::other("planned fault")));
        }
        inner.record(Event::Begin(segment));
        drop(inner);
        Ok(Box::new(MemoryAppender { blobs: self.clone(), segment, good: true }))
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        let inner = self.inner.lock();
        if inner.faults.reads_fail {
            return Err(BlobsError::from_io("reading a segment", io::Error::other("planned fault")));
        }
        let found = inner.segments.get(&segment).filter(|found| found.sealed || found.visible);
        let found = found.ok_or(BlobsError::NotFound(segment))?;
        let bytes = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let bytes = bytes.and_then(|(start, end)| found.bytes.get(start..end));
        let bytes = bytes.ok_or(BlobsError::OutOfRange { segment, start: range.start, end: range.end })?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        let inner = self.inner.lock();
        let found = inner.segments.get(&segment).ok_or(BlobsError::NotFound(segment))?;
        Ok(SegmentInfo { segment, length: found.bytes.len() as u64, sealed: found.sealed })
    }

    async fn finish(&self, segment: SegmentId, length: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.delay().await;
        let mut inner = self.inner.lock();
        match inner.segments.get(&segment) {
            None => return Err(BlobsError::NotFound(segment)),
            Some(found) if (found.bytes.len() as u64) < length => {
                return Err(BlobsError::OutOfRange { segment, start: 0, end: length });
            }
            Some(_) => {}
        }
        inner.record(Event::Cut(segment, length));
        inner.write(segment, pieces)?;
        inner.record(Event::Sync(segment));
        inner.record(Event::Seal(segment));
        Ok(())
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.inner.lock().record(Event::Delete(segment));
        Ok(())
    }

    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        let inner = self.inner.lock();
        let above = inner.segments.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        Ok(above.map(|(id, segment)| segment.info(*id)).take(limit).collect())
    }

    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        let inner = self.inner.lock();
        if self.growth == Growth::Whole {
            return Ok(Vec::new());
        }
        let unsealed = inner.segments.iter().filter(|(_, segment)| !segment.sealed);
        Ok(unsealed.map(|(id, segment)| segment.info(*id)).collect())
    }
}

impl Segment {
    fn info(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo { segment, length: self.bytes.len() as u64, sealed: self.sealed }
    }
}

struct MemoryAppender {
    blobs: MemoryBlobs,
    segment: SegmentId,
    good: bool,
}

impl MemoryAppender {
    async fn write(&mut self, pieces: Vec<Bytes>, sync: bool) -> Result<(), BlobsError> {
        if !self.good {
            return Err(BlobsError::Poisoned(self.segment));
        }
        self.good = false;
        self.blobs.delay().await;
        let mut inner = self.blobs.inner.lock();
        inner.write(self.segment, pieces)?;
        if sync {
            inner.record(Event::Sync(self.segment));
        }
        self.good = true;
        Ok(())
    }
}

#[async_trait]
impl Appender for MemoryAppender {
    async fn append(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.write(pieces, false).await
    }

    async fn commit(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        assert_eq!(self.blobs.growth, Growth::Durable, "commit is for back ends that grow durably");
        self.write(pieces, true).await
    }

    async fn seal(mut self: Box<Self>, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.write(pieces, true).await?;
        self.blobs.inner.lock().record(Event::Seal(self.segment));
        Ok(())
    }

    async fn abort(self: Box<Self>) {
        self.blobs.inner.lock().record(Event::Delete(self.segment));
    }
}

/// Leaves some blocks after `synced` as zeros, and cuts the end at some block.
fn tear(bytes: &mut Vec<u8>, synced: usize, seed: u64) {
    let mut state = seed | 1;
    let mut next = || {
        // xorshift64: any even spread will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let unsynced = bytes.len() - synced;
    let keep = (next() % (unsynced as u64 + 1)) as usize;
    bytes.truncate(synced + keep);
    let mut block = synced.next_multiple_of(512);
    while block < bytes.len() {
        let end = (block + 512).min(bytes.len());
        if next() % 3 == 0 {
            bytes[block..end].fill(0);
        }
        block = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        for growth in [Growth::Durable, Growth::Whole] {
            contract::run(|| async move { Arc::new(MemoryBlobs::growing(growth)) as Arc<dyn Blobs> }).await;
        }
    }

    #[tokio::test]
    async fn an_image_has_what_was_synced() {
        let blobs = MemoryBlobs::new();
        let id = SegmentId::fresh();
        let mut appender = blobs.begin(id, 0).await.unwrap();
        appender.commit(vec![Bytes::from_static(b"one")]).await.unwrap();
        appender.append(vec![Bytes::from_static(b"two")]).await.unwrap();
        appender.commit(Vec::new()).await.unwrap();
        let content =
            |image: MemoryBlobs| image.inner.lock().segments.get(&id).map(|found| found.bytes.clone());
        assert_eq!(content(blobs.image(0, Unsynced::Dropped)), None);
        assert_eq!(content(blobs.image(1, Unsynced::Dropped)).unwrap(), b"one");
        assert_eq!(content(blobs.image(1, Unsynced::Kept)).unwrap(), b"onetwo");
        assert_eq!(content(blobs.image(2, Unsynced::Dropped)).unwrap(), b"onetwo");
        for seed in 0..20 {
            let torn = content(blobs.image(1, Unsynced::Torn(seed))).unwrap();
            assert!(torn.starts_with(b"one") && torn.len() <= 6);
        }
    }

    #[tokio::test]
    async fn planned_faults_happen_and_poison() {
        let blobs = MemoryBlobs::new();
        let id = SegmentId::fresh();
        let mut appender = blobs.begin(id, 0).await.unwrap();
        blobs.set_faults(Faults { writes_left: Some(1), ..Faults::default() });
        appender.commit(vec![Bytes::from_static(b"one")]).await.unwrap();
        let failed = appender.commit(vec![Bytes::from_static(b"two")]).await;
        assert!(matches!(failed, Err(BlobsError::Io { .. })));
        blobs.set_faults(Faults { capacity: Some(5), fail_midway: true, ..Faults::default() });
        let poisoned = appender.commit(vec![Bytes::from_static(b"two")]).await;
        assert!(matches!(poisoned, Err(BlobsError::Poisoned(_))));
        let full = blobs.put(SegmentId::fresh(), vec![Bytes::from_static(b"four")]).await;
        assert!(matches!(full, Err(BlobsError::Full(_))));
        blobs.set_faults(Faults { reads_fail: true, ..Faults::default() });
        assert!(blobs.get(id, 0..1).await.is_err());
    }
}
