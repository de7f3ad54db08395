//! The suite that every back end passes: what the words of [`Blobs`] mean.
//!
//! A back end's tests call [`run`] with a maker of fresh, empty instances.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Blobs, BlobsError, Growth, SegmentId};

/// Runs all of it. Panics where the back end differs.
pub async fn run<F: Future<Output = Arc<dyn Blobs>>>(mut fresh: impl FnMut() -> F) {
    put_is_whole_and_read_by_range(fresh().await).await;
    growing_is_seen_when_promised(fresh().await).await;
    aborted_leaves_nothing(fresh().await).await;
    dropped_stays_unsealed_until_finished(fresh().await).await;
    ids_are_taken_once(fresh().await).await;
    listing_goes_on_where_it_stopped(fresh().await).await;
    deleting_twice_is_no_error(fresh().await).await;
    readers_and_writers_do_not_disturb_each_other(fresh().await).await;
}

fn pieces(parts: &[&'static [u8]]) -> Vec<Bytes> {
    parts.iter().map(|part| Bytes::from_static(part)).collect()
}

async fn put_is_whole_and_read_by_range(blobs: Arc<dyn Blobs>) {
    let id = SegmentId::fresh();
    assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::NotFound(missing)) if missing == id));
    assert!(matches!(blobs.stat(id).await, Err(BlobsError::NotFound(_))));
    blobs.put(id, pieces(&[b"", b"abc", b"", b"defgh"])).await.expect("put");
    for start in 0..=8u64 {
        for end in start..=8 {
            let read = blobs.get(id, start..end).await.expect("a range that is there");
            assert_eq!(read, b"abcdefgh"[start as usize..end as usize]);
        }
    }
    for range in [0..9, 8..9, 9..10, u64::MAX - 1..u64::MAX, 0..u64::MAX] {
        assert!(matches!(blobs.get(id, range).await, Err(BlobsError::OutOfRange { .. })));
    }
    let info = blobs.stat(id).await.expect("stat");
    assert_eq!((info.segment, info.length, info.sealed), (id, 8, true));
}

async fn growing_is_seen_when_promised(blobs: Arc<dyn Blobs>) {
    let id = SegmentId::fresh();
    let mut appender = blobs.begin(id, 1000).await.expect("begin");
    if blobs.growth() == Growth::Durable {
        appender.append(pieces(&[b"ab"])).await.expect("append");
        appender.commit(pieces(&[b"cd"])).await.expect("commit");
        assert_eq!(blobs.get(id, 0..4).await.expect("what was committed can be read"), "abcd");
        let unsealed = blobs.unsealed().await.expect("unsealed");
        assert_eq!(unsealed.iter().map(|info| info.segment).collect::<Vec<_>>(), [id]);
        assert!(!blobs.stat(id).await.expect("stat").sealed);
    } else {
        appender.append(pieces(&[b"ab", b"cd"])).await.expect("append");
        assert!(blobs.get(id, 0..4).await.is_err(), "nothing is there before it is sealed");
    }
    appender.append(pieces(&[b"ef"])).await.expect("append");
    appender.seal(pieces(&[b"g"])).await.expect("seal");
    assert_eq!(blobs.get(id, 0..7).await.expect("what was sealed can be read"), "abcdefg");
    let info = blobs.stat(id).await.expect("stat");
    assert_eq!((info.length, info.sealed), (7, true));
    assert!(blobs.unsealed().await.expect("unsealed").is_empty());
}

async fn aborted_leaves_nothing(blobs: Arc<dyn Blobs>) {
    let id = SegmentId::fresh();
    let mut appender = blobs.begin(id, 0).await.expect("begin");
    appender.append(pieces(&[b"abcdef"])).await.expect("append");
    appender.abort().await;
    assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::NotFound(_))));
    assert!(blobs.list(None, 10).await.expect("list").is_empty());
    assert!(blobs.unsealed().await.expect("unsealed").is_empty());
}

async fn dropped_stays_unsealed_until_finished(blobs: Arc<dyn Blobs>) {
    if blobs.growth() == Growth::Whole {
        return;
    }
    let id = SegmentId::fresh();
    let mut appender = blobs.begin(id, 0).await.expect("begin");
    appender.commit(pieces(&[b"abc"])).await.expect("commit");
    drop(appender);
    assert_eq!(blobs.get(id, 0..3).await.expect("what was committed can be read"), "abc");
    let too_long = blobs.finish(id, 4, Vec::new()).await;
    assert!(
        matches!(too_long, Err(BlobsError::OutOfRange { .. })),
        "nothing can be cut to more than there is"
    );
    blobs.finish(id, 2, pieces(&[b"XY", b"Z"])).await.expect("finish");
    assert_eq!(blobs.get(id, 0..5).await.expect("finished"), "abXYZ");
    assert!(matches!(blobs.get(id, 0..6).await, Err(BlobsError::OutOfRange { .. })));
    assert!(blobs.stat(id).await.expect("stat").sealed);
    assert!(matches!(blobs.finish(SegmentId::fresh(), 0, Vec::new()).await, Err(BlobsError::NotFound(_))));
}

async fn ids_are_taken_once(blobs: Arc<dyn Blobs>) {
    let id = SegmentId::fresh();
    let appender = blobs.begin(id, 0).await.expect("begin");
    assert!(matches!(blobs.begin(id, 0).await, Err(BlobsError::Exists(_))));
    appender.seal(pieces(&[b"first"])).await.expect("seal");
    assert!(matches!(blobs.begin(id, 0).await, Err(BlobsError::Exists(_))));
    assert!(matches!(blobs.put(id, pieces(&[b"second"])).await, Err(BlobsError::Exists(_))));
    assert_eq!(blobs.get(id, 0..5).await.expect("the first stays"), "first");
}

async fn listing_goes_on_where_it_stopped(blobs: Arc<dyn Blobs>) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        let id = SegmentId::fresh();
        blobs.put(id, pieces(&[b"x"])).await.expect("put");
        ids.push(id);
    }
    ids.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = blobs.list(after, 3).await.expect("list");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.segment);
        found.extend(page.iter().map(|info| info.segment));
    }
    assert_eq!(found, ids);
}

async fn deleting_twice_is_no_error(blobs: Arc<dyn Blobs>) {
    let id = SegmentId::fresh();
    blobs.put(id, pieces(&[b"x"])).await.expect("put");
    blobs.get(id, 0..1).await.expect("get");
    blobs.delete(id).await.expect("delete");
    blobs.delete(id).await.expect("delete again");
    assert!(matches!(blobs.get(id, 0..1).await, Err(BlobsError::NotFound(_))));
    assert!(blobs.list(None, 10).await.expect("list").is_empty());
}

async fn readers_and_writers_do_not_disturb_each_other(blobs: Arc<dyn Blobs>) {
    let tasks: Vec<_> = (0..16u8)
        .map(|number| {
            let blobs = Arc::clone(&blobs);
            tokio::spawn(async move {
                let id = SegmentId::fresh();
                let piece = Bytes::from(vec![number; 10_000]);
                let mut appender = blobs.begin(id, 100_000).await.expect("begin");
                for count in 1..=8u64 {
                    appender.append(vec![piece.clone()]).await.expect("append");
                    if blobs.growth() == Growth::Durable {
                        appender.commit(Vec::new()).await.expect("commit");
                        let all = blobs.get(id, 0..count * 10_000).await.expect("get");
                        assert!(all.iter().all(|byte| *byte == number));
                    }
                }
                appender.seal(Vec::new()).await.expect("seal");
                let all = blobs.get(id, 0..80_000).await.expect("get");
                assert!(all.iter().all(|byte| *byte == number));
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task of the suite");
    }
    assert_eq!(blobs.list(None, 100).await.expect("list").len(), 16);
}
