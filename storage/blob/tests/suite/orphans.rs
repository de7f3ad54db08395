//! Segments that nobody refers to, and those that only seem so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blob::format::segment::{Index, IndexEntry, Origin, SegmentHeader};
use blob::memory::MemoryBlobs;
use blob::{BlobStore, Blobs, Config, Growth, OrphanPage, SegmentId};
use bytes::Bytes;
use engine::{Row, RowKey, Rows, Table};
use uuid::Uuid;

use crate::support::{HOLDER, TestRows, store, text, write};

const DAY: Duration = Duration::from_secs(86_400);

/// All parts together, as seen two days from now.
async fn scan(store: &BlobStore) -> OrphanPage {
    let mut all = OrphanPage::default();
    let mut after = None;
    loop {
        let page = store.orphans(DAY, SystemTime::now() + 2 * DAY, after, 2).await.unwrap();
        all.orphans.extend(page.orphans);
        all.referenced += page.referenced;
        all.young += page.young;
        all.unclear += page.unclear;
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

/// A segment as a compaction would write it, of one frame that came from elsewhere.
async fn copied(blobs: &MemoryBlobs, segment: SegmentId, from: SegmentId) {
    let header = SegmentHeader { segment, flags: 0, created: 1 }.encode();
    let index = Index {
        frames: vec![IndexEntry { frame: 0, offset: 48, length: 200, hash: [7; 16] }],
        damaged: Vec::new(),
        origins: vec![Origin { frame: 0, segment: from, origin_frame: 3 }],
    };
    let footer = index.encode(&header, 248);
    let pieces = vec![Bytes::copy_from_slice(&header), Bytes::from(vec![1; 200]), footer.into()];
    blobs.put(segment, pieces).await.unwrap();
}

#[tokio::test]
async fn only_what_nobody_refers_to_is_an_orphan() {
    let rows = Arc::<TestRows>::default();
    let blobs = MemoryBlobs::growing(Growth::Whole);
    let store = store(Arc::new(blobs.clone()), &rows, Config::default()).await;
    let kept = write(&store, &text(1, 2000), b"").await;
    let let_go = write(&store, &text(2, 2000), b"").await;
    let address = *let_go.address();
    store.unreference(address.segment, address.frame, HOLDER, let_go.nonce()).await.unwrap();
    let damaged = write(&store, &text(3, 2000), b"").await;
    store.unreference(damaged.address().segment, 0, HOLDER, damaged.nonce()).await.unwrap();
    blobs.damage(damaged.address().segment, |bytes| {
        let end = bytes.len() - 10;
        bytes[end] ^= 1;
    });
    // Held by its origin alone, and by an origin that nobody holds.
    copied(&blobs, SegmentId::fresh(), kept.address().segment).await;
    let copy = SegmentId::fresh();
    copied(&blobs, copy, SegmentId::fresh()).await;
    // An id that does not say when it was made.
    blobs.put(SegmentId(Uuid::from_bytes([0x44; 16])), vec![Bytes::from_static(b"x")]).await.unwrap();

    let found = scan(&store).await;
    let orphans: Vec<_> = found.orphans.iter().map(|orphan| orphan.segment).collect();
    assert_eq!(orphans, [address.segment, copy]);
    assert_eq!((found.referenced, found.young, found.unclear), (2, 0, 2));
    assert_eq!(blobs.list(None, 10).await.unwrap().len(), 6, "it changes nothing");

    // Young, or begun in what is the future here.
    for now in [SystemTime::now(), SystemTime::now() - 2 * DAY] {
        let page = store.orphans(DAY, now, None, 100).await.unwrap();
        assert_eq!((page.orphans.len(), page.young, page.unclear), (0, 5, 1));
    }
    // A reference that a later release wrote counts too.
    let key = RowKey::new(Table::SegmentReference, address.segment.0.as_bytes().to_vec(), vec![0xff; 3]);
    rows.put(vec![Row { key, value: Bytes::from_static(b"?") }]).await.unwrap();
    assert_eq!(scan(&store).await.orphans.len(), 1);
    // What cannot be asked is kept.
    *rows.down.lock() = true;
    let found = scan(&store).await;
    assert_eq!((found.orphans.len(), found.unclear), (0, 6));
}
