//! Groups on a back end that takes segments whole.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use blob::memory::MemoryBlobs;
use blob::{Appender, Blobs, BlobsError, Config, Growth, SegmentId, SegmentInfo};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::support::{read, store, text, write};

/// Each PUT waits until it is let through.
struct Held {
    inner: MemoryBlobs,
    gate: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
    puts: AtomicUsize,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBlobs::growing(Growth::Whole),
            gate: Semaphore::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
        })
    }

    async fn until_running(&self, count: usize) {
        while self.running.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl Blobs for Held {
    fn growth(&self) -> Growth {
        Growth::Whole
    }
    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.inner.put(segment, pieces).await
    }
    async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        self.inner.begin(segment, expected).await
    }
    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        self.inner.get(segment, range).await
    }
    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        self.inner.stat(segment).await
    }
    async fn finish(&self, segment: SegmentId, at: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.inner.finish(segment, at, pieces).await
    }
    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.inner.delete(segment).await
    }
    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.inner.list(after, limit).await
    }
    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.inner.unsealed().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_gather_while_puts_are_on_their_way() {
    let blobs = Held::new();
    let config = Config { puts_in_flight_max: 2, ..Config::default() };
    let store = store(Arc::clone(&blobs) as Arc<dyn Blobs>, &Arc::default(), config).await;
    let begin = |seed: u64| {
        let store = store.clone();
        tokio::spawn(async move { (text(seed, 4000), write(&store, &text(seed, 4000), b"").await) })
    };
    // The first goes at once. A second alone is not worth a request while that is on its way; many are.
    let mut tasks = vec![begin(0)];
    blobs.until_running(1).await;
    tasks.push(begin(1));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(blobs.puts.load(Ordering::SeqCst), 1);
    tasks.extend((2..100).map(begin));
    blobs.until_running(2).await;
    // From here on all gather: two are on their way, and that is the most.
    tasks.extend((100..400).map(begin));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(blobs.puts.load(Ordering::SeqCst), 2);
    // A large one waits for nobody.
    let large = write(&store, &text(7, 3 << 20), b"").await;
    assert!(!tasks.iter().any(|task| task.is_finished()), "nothing is acknowledged before its PUT has ended");
    blobs.gate.add_permits(1000);
    let mut segments = std::collections::BTreeSet::new();
    for task in tasks {
        let (body, stored) = task.await.unwrap();
        assert!(read(&store, stored.address()).await.unwrap() == body);
        segments.insert(stored.address().segment);
    }
    assert_eq!(segments.len(), blobs.puts.load(Ordering::SeqCst));
    assert!(segments.len() <= 10, "{} PUTs for 400 messages", segments.len());
    assert_eq!(blobs.most.load(Ordering::SeqCst), 2);
    assert!(read(&store, large.address()).await.unwrap() == text(7, 3 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_what_is_on_its_way() {
    let blobs = Held::new();
    let store = store(Arc::clone(&blobs) as Arc<dyn Blobs>, &Arc::default(), Config::default()).await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move { write(&store, &text(1, 4000), b"").await }
    });
    blobs.until_running(1).await;
    let mut closing = Box::pin(store.close());
    assert!(futures_util::poll!(&mut closing).is_pending());
    blobs.gate.add_permits(1);
    closing.await;
    writing.await.unwrap();
}

#[tokio::test]
async fn damage_on_the_way_is_read_again() {
    /// Gives wrong bytes until it is told so.
    struct Wrong(MemoryBlobs, AtomicUsize);
    #[async_trait]
    impl Blobs for Wrong {
        fn growth(&self) -> Growth {
            Growth::Whole
        }
        async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
            self.0.put(segment, pieces).await
        }
        async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
            self.0.begin(segment, expected).await
        }
        async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
            let mut bytes = self.0.get(segment, range).await?.to_vec();
            if self.1.load(Ordering::SeqCst) > 0 {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Ok(bytes.into())
        }
        async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
            self.0.stat(segment).await
        }
        async fn finish(&self, segment: SegmentId, at: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
            self.0.finish(segment, at, pieces).await
        }
        async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
            self.0.delete(segment).await
        }
        async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
            self.0.list(after, limit).await
        }
        async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
            self.0.unsealed().await
        }
        async fn distrust(&self, _: SegmentId, _: Range<u64>) -> bool {
            self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        }
    }
    for size in [5_000, 700_000] {
        let blobs = Arc::new(Wrong(MemoryBlobs::growing(Growth::Whole), AtomicUsize::new(0)));
        let config = Config { cache_bytes: 0, ..Config::default() };
        let store = store(Arc::clone(&blobs) as Arc<dyn Blobs>, &Arc::default(), config).await;
        let body = text(1, size);
        let stored = write(&store, &body, b"").await;
        blobs.1.store(1, Ordering::SeqCst);
        assert!(read(&store, stored.address()).await.unwrap() == body, "once wrong, then right");
        blobs.1.store(1000, Ordering::SeqCst);
        assert!(matches!(read(&store, stored.address()).await, Err(blob::ReadError::Damaged { .. })));
    }
}
