//! Reads through the cache on disk.

use std::path::Path;

use blob::{Blobs, BlobsError, SegmentId};
use bytes::Bytes;

use crate::stand_in::{Fate, Seen, Server};
use crate::{Config, OpenError, S3Blobs};

const BLOCK: u64 = 4096;

async fn server(folder: &Path) -> Server {
    let mut server = Server::start().await;
    server.config.cache_folder = Some(folder.to_owned());
    server.config.cache_block_bytes = BLOCK;
    server.config.cached_read_bytes_max = 10 * BLOCK;
    server.config.read_ahead_bytes = 4 * BLOCK;
    server
}

fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at / 97) as u8).collect::<Vec<_>>().into()
}

/// Blocks, as files under the folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let blocks = folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    blocks.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn keeps_the_contract_with_a_cache() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    blob::contract::run(|| {
        count += 1;
        let config = Config {
            prefix: count.to_string(),
            cache_folder: Some(dir.path().join(count.to_string())),
            cache_block_bytes: BLOCK,
            ..server.config.clone()
        };
        async move { std::sync::Arc::new(S3Blobs::open(config).await.unwrap()) as std::sync::Arc<dyn Blobs> }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_range_is_what_was_written_and_is_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let blobs = server.blobs().await;
    for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7] {
        let id = SegmentId::fresh();
        let bytes = content(length as usize);
        blobs.put(id, vec![bytes.clone()]).await.unwrap();
        let starts = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5, length - 1];
        let ranges = starts.iter().flat_map(|start| {
            [1, 77, BLOCK, 2 * BLOCK, length].map(|bytes| *start..start + bytes).into_iter()
        });
        let (within, beyond): (Vec<_>, Vec<_>) = ranges.partition(|range| range.end <= length);
        let before = server.count(Seen::is_get);
        for range in within {
            let expected = &bytes[range.start as usize..range.end as usize];
            assert_eq!(blobs.get(id, range).await.unwrap(), expected);
        }
        assert_eq!(blobs.get(id, 0..length).await.unwrap(), bytes);
        assert_eq!(server.count(Seen::is_get) - before, length.div_ceil(BLOCK) as usize);
        for range in beyond {
            match blobs.get(id, range.clone()).await {
                Err(BlobsError::OutOfRange { start, end, .. }) => assert_eq!(start..end, range),
                other => panic!("{range:?} of {length}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_restart_finds_what_was_read_and_a_deletion_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, vec![content(100)]).await.unwrap();
    blobs.get(id, 0..100).await.unwrap();
    assert!(matches!(S3Blobs::open(server.config.clone()).await, Err(OpenError::Cache(_))));
    drop(blobs);
    let blobs = server.blobs().await;
    let before = server.count(Seen::is_get);
    blobs.get(id, 0..100).await.unwrap();
    assert_eq!(server.count(Seen::is_get), before);
    blobs.delete(id).await.unwrap();
    assert!(matches!(blobs.get(id, 0..100).await, Err(BlobsError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_a_block_make_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, vec![content(3000)]).await.unwrap();
    server.plan(|_| Fate::Late(std::time::Duration::from_millis(100)));
    let reads = (0..50u64).map(|start| blobs.get(id, start..start + 100));
    for (start, read) in futures_util::future::join_all(reads).await.into_iter().enumerate() {
        assert_eq!(read.unwrap(), content(3000)[start..start + 100]);
    }
    assert_eq!(server.count(Seen::is_get), 1);
    // A reader who goes away leaves no trace, and an error is nobody's for ever.
    let other = SegmentId::fresh();
    blobs.put(other, vec![content(3000)]).await.unwrap();
    let mut read = Box::pin(blobs.get(other, 0..10));
    assert!(futures_util::poll!(&mut read).is_pending());
    drop(read);
    // Every request, for that of the reader who went away may be on its way.
    server.plan(|seen| if seen.is_get() { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    assert!(matches!(blobs.get(other, 0..10).await, Err(BlobsError::Refused { .. })));
    server.plan(|_| Fate::Pass);
    assert_eq!(blobs.get(other, 0..10).await.unwrap(), content(10));
}

#[tokio::test]
async fn a_damaged_block_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path()).await;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, vec![content(6000)]).await.unwrap();
    blobs.get(id, 0..6000).await.unwrap();
    for path in files(dir.path()) {
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
        std::fs::write(&path, bytes).unwrap();
    }
    let before = server.count(Seen::is_get);
    assert_eq!(blobs.get(id, 0..6000).await.unwrap(), content(6000));
    assert_eq!(server.count(Seen::is_get) - before, 2);
    // Wrong bytes that came from afar are let go when a reader says so.
    assert!(blobs.distrust(id, 5000..5001).await);
    let before = server.count(Seen::is_get);
    assert_eq!(blobs.get(id, 0..6000).await.unwrap(), content(6000));
    assert_eq!(server.count(Seen::is_get) - before, 1);
}

#[tokio::test]
async fn what_is_announced_is_fetched_ahead_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = server(dir.path()).await;
    server.config.read_ahead_in_flight_max = 3;
    let blobs = server.blobs().await;
    let id = SegmentId::fresh();
    blobs.put(id, vec![content(100 * BLOCK as usize)]).await.unwrap();
    // Four of the hundred are within reach, and three may be on their way at once.
    let begun = blobs.prefetch(&[(id, 0..100 * BLOCK), (SegmentId::fresh(), 0..u64::MAX)]);
    assert_eq!(begun, 0, "the first was not begun as far as it reaches");
    while files(dir.path()).len() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(server.count(Seen::is_get), 3);
    // What is here already is not asked for; what is dropped while others are on their way can be announced again.
    while files(dir.path()).len() < 5 {
        let _ = blobs.prefetch(&[(id, 0..2 * BLOCK), (id, 2 * BLOCK..5 * BLOCK)]);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(server.count(Seen::is_get), 5);
    assert_eq!(blobs.get(id, 0..5 * BLOCK).await.unwrap(), content(5 * BLOCK as usize));
    assert_eq!(server.count(Seen::is_get), 5, "nothing was fetched twice");
    assert_eq!(blobs.prefetch(&[(id, 0..2 * BLOCK), (id, 2 * BLOCK..5 * BLOCK)]), 2, "all of it is here");
    // What is on its way is not begun again, and takes nobody's room.
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = std::sync::Arc::clone(&gate);
    server.plan(move |seen| if seen.is_get() { Fate::Held(held.clone()) } else { Fate::Pass });
    let block = |from: u64| (id, from * BLOCK..(from + 1) * BLOCK);
    assert_eq!(blobs.prefetch(&[block(6), block(6), block(7), block(7), block(8), block(9)]), 5);
    gate.close();
    assert_eq!(
        blobs.get(id, 6 * BLOCK..9 * BLOCK).await.unwrap(),
        content(100 * BLOCK as usize)[6 * BLOCK as usize..9 * BLOCK as usize]
    );
    assert_eq!(server.count(Seen::is_get), 8);
    // A long read goes past the cache.
    assert_eq!(blobs.get(id, 0..50 * BLOCK).await.unwrap(), content(50 * BLOCK as usize));
    assert_eq!((server.count(Seen::is_get), files(dir.path()).len()), (9, 8));
}
