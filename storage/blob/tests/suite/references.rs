//! References follow the rules of the model: put first, then look whether the segment is dying.

use std::sync::Arc;

use crate::support::{HOLDER, KEY, TestRows, read, store, text, write};
use blob::memory::MemoryBlobs;
use blob::{Config, Holder, Moved, ReadError, ReferenceError};
use bytes::Bytes;
use engine::Table;
use uuid::Uuid;

#[tokio::test]
async fn a_reference_goes_by_exactly_its_nonce() {
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    let stored = write(&store, &text(1, 100), b"").await;
    let address = *stored.address();
    assert_eq!(rows.count(Table::SegmentReference), 1, "the writer put one");
    let other = Holder::Shard(Uuid::from_u128(4));
    let second = store.reference(&address, HOLDER).await.unwrap();
    let third = store.reference(&address, other).await.unwrap();
    assert_eq!((second.address, third.address), (address, address));
    assert_ne!(second.nonce, stored.nonce());
    let listed = store.references().list(address.segment, None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(store.references().list(address.segment, Some(listed[0]), 1).await.unwrap(), [listed[1]]);
    // Another holder's nonce removes nothing.
    store.unreference(address.segment, address.frame, other, second.nonce).await.unwrap();
    assert_eq!(rows.count(Table::SegmentReference), 3);
    store.unreference(address.segment, address.frame, HOLDER, second.nonce).await.unwrap();
    store.unreference(address.segment, address.frame, HOLDER, second.nonce).await.unwrap();
    let left: Vec<_> = store.references().list(address.segment, None, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|left| left.nonce).collect::<std::collections::BTreeSet<_>>(),
        [stored.nonce(), third.nonce].into()
    );
    store.unreference_many([(address.segment, address.frame, stored.nonce())], HOLDER).await.unwrap();
    assert_eq!(rows.count(Table::SegmentReference), 1);
}

#[tokio::test]
async fn a_dying_segment_takes_no_reference() {
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    let gone = *write(&store, &text(1, 100), b"").await.address();
    let kept = *write(&store, &text(2, 2 << 20), b"").await.address();
    store.references().mark_dying(gone.segment).await.unwrap();
    assert!(matches!(store.reference(&gone, HOLDER).await, Err(ReferenceError::Gone)));
    let many = store.reference_many(&[gone, kept, gone, kept], HOLDER).await.unwrap();
    let kept_answers: Vec<_> = many.iter().map(|answer| answer.is_ok()).collect();
    assert_eq!(kept_answers, [false, true, false, true]);
    assert!(store.reference_many(&[], HOLDER).await.unwrap().is_empty());
}

#[tokio::test]
async fn moved_frames_are_referenced_and_read_where_they_went() {
    let rows = Arc::new(TestRows::default());
    let blobs = MemoryBlobs::new();
    let store = store(Arc::new(blobs.clone()), &rows, Config::default()).await;
    let body = text(1, 2 << 20);
    let first = *write(&store, &body, b"facts").await.address();
    // A compaction in small: the frame's bytes in another segment, published, then the origin marked.
    let mut bytes = blobs_get(&store, &first).await;
    let mut previous = first;
    for _ in 0..3 {
        let copy = blob::SegmentId::fresh();
        let header = blob::format::frame::FrameHeader { dictionary: 0, frame: 5, length: bytes.len() as u64 };
        let mut copied = header.encode().to_vec();
        copied.extend_from_slice(&bytes[32..]);
        bytes = copied.clone().into();
        let mut segment = vec![0; 48];
        segment.extend_from_slice(&copied);
        store.blobs().put(copy, vec![Bytes::from(segment)]).await.unwrap();
        let moved = Moved { segment: copy, frame: 5, offset: 48, length: copied.len() as u64 };
        store.references().publish_moved(previous.segment, previous.frame, &moved).await.unwrap();
        store.references().mark_dying(previous.segment).await.unwrap();
        let reference = store.reference(&first, HOLDER).await.unwrap();
        assert_eq!((reference.address.segment, reference.address.frame), (copy, 5));
        assert!(read(&store, &reference.address).await.unwrap() == body);
        store.blobs().delete(previous.segment).await.unwrap();
        // The old record is never changed and reads on.
        assert!(read(&store, &first).await.unwrap() == body);
        let reader = store.open(&first, KEY).await.unwrap();
        assert_eq!(reader.facts().await.unwrap(), "facts");
        reader.verify().await.unwrap();
        previous = reference.address;
    }
    store.blobs().delete(previous.segment).await.unwrap();
    let reader = store.open(&first, KEY).await.unwrap();
    assert!(matches!(reader.facts().await, Err(ReadError::Missing { .. })));
}

async fn blobs_get(store: &blob::BlobStore, address: &blob::BlobAddress) -> Bytes {
    store.blobs().get(address.segment, address.offset..address.offset + address.length).await.unwrap()
}

#[tokio::test]
async fn rows_that_go_in_a_circle_are_noticed() {
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    let address = *write(&store, &text(1, 100), b"").await.address();
    let moved = Moved {
        segment: address.segment,
        frame: address.frame,
        offset: address.offset,
        length: address.length,
    };
    store.references().publish_moved(address.segment, address.frame, &moved).await.unwrap();
    store.references().mark_dying(address.segment).await.unwrap();
    assert!(matches!(store.reference(&address, HOLDER).await, Err(ReferenceError::Damaged(_))));
    store.blobs().delete(address.segment).await.unwrap();
    let reader = store.open(&address, KEY).await.unwrap();
    assert!(matches!(reader.facts().await, Err(ReadError::Damaged { .. })));
}

#[tokio::test]
async fn a_body_whose_reference_cannot_be_put_is_not_stored() {
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    write(&store, &text(1, 100), b"").await;
    let mut writer = store.writer(HOLDER, KEY);
    writer.write(text(2, 100)).await.unwrap();
    *rows.down.lock() = true;
    let error = writer.finish(Bytes::new()).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}
