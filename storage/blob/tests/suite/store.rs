//! Blobs in and out, on both back ends and both ways to grow.

use std::sync::Arc;

use crate::support::{HOLDER, KEY, TestRows, read, read_range, store, text, write};
use blob::dir::{DirBlobs, DirConfig};
use blob::memory::{Faults, MemoryBlobs};
use blob::{
    BlobAddress, BlobStore, Blobs, BlobsError, Config, Growth, Holder, KeyError, KeyId, ReadError, WriteError,
};
use bytes::Bytes;
use engine::Table;
use uuid::Uuid;

const CHUNK: usize = 256 << 10;

fn small_segments() -> Config {
    Config { segment_bytes: 300_000, ..Config::default() }
}

async fn everywhere() -> Vec<(BlobStore, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let files = DirBlobs::open(&dir.path().join("segments"), DirConfig::default()).unwrap();
    let mut stores = Vec::new();
    for (blobs, dir) in [
        (Arc::new(MemoryBlobs::new()) as Arc<dyn Blobs>, None),
        (Arc::new(MemoryBlobs::growing(Growth::Whole)), None),
        (Arc::new(files), Some(dir)),
    ] {
        stores.push((store(blobs, &Arc::default(), small_segments()).await, dir));
    }
    stores
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_comes_back_as_it_was() {
    for (store, _dir) in everywhere().await {
        let sizes =
            [0, 1, 15, 16, 17, 20_000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, (1 << 20) + 1, (2 << 20) + 3];
        for (seed, size) in sizes.into_iter().enumerate() {
            let body = text(seed as u64, size);
            let facts: &'static [u8] = if seed % 2 == 0 { b"" } else { b"facts about it" };
            let stored = write(&store, &body, facts).await;
            let address = *stored.address();
            assert_eq!(address.size, size as u64);
            assert!(postcard::to_stdvec(&address).unwrap().len() <= 150);
            assert!(read(&store, &address).await.unwrap() == body, "size {size}");
            let reader = store.open(&address, KEY).await.unwrap();
            assert_eq!(reader.facts().await.unwrap(), facts);
            reader.verify().await.unwrap();
            let size = size as u64;
            for range in [0..0, 0..1, 3..10, size / 2..size, size.saturating_sub(1)..size, size..size + 5] {
                let clipped =
                    range.start.min(size) as usize..range.end.min(size).max(range.start.min(size)) as usize;
                assert_eq!(read_range(&reader, range).await.unwrap(), body[clipped]);
            }
            if size > CHUNK as u64 {
                let around = CHUNK as u64 - 2..CHUNK as u64 + 1;
                let expected = &body[around.start as usize..(around.end as usize).min(body.len())];
                assert_eq!(read_range(&reader, around).await.unwrap(), expected);
            }
        }
        let mut segments = store.blobs().list(None, 100).await.unwrap();
        assert!(segments.len() > 2);
        segments.retain(|info| info.sealed);
        for info in segments {
            let check = store.check_segment(info.segment).await.unwrap();
            assert!(check.damaged.is_empty() && check.frames > 0, "{check:?}");
            assert_eq!(store.index(info.segment).await.unwrap().frames.len(), check.frames);
        }
    }
}

#[tokio::test]
async fn large_facts_come_back() {
    let store = store(Arc::new(MemoryBlobs::new()), &Arc::default(), Config::default()).await;
    for (body, size) in [(0, 1), (100, CHUNK), (100, CHUNK + 1), (2 << 20, 3 * CHUNK)] {
        let facts = text(5, size);
        let mut writer = store.writer(HOLDER, KEY);
        writer.write(text(1, body)).await.unwrap();
        let stored = writer.finish(facts.clone()).await.unwrap();
        let reader = store.open(stored.address(), KEY).await.unwrap();
        assert!(reader.facts().await.unwrap() == facts);
        reader.verify().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_writers_at_once_share_segments_and_syncs() {
    for (store, _dir) in everywhere().await {
        let tasks: Vec<_> = (0..100u64)
            .map(|seed| {
                let store = store.clone();
                tokio::spawn(async move {
                    let size =
                        if seed % 10 == 0 { (1 << 20) + 4000 * seed as usize } else { 200 * seed as usize };
                    let body = text(seed, size);
                    let stored = write(&store, &body, b"f").await;
                    (body, *stored.address())
                })
            })
            .collect();
        let mut places = std::collections::BTreeSet::new();
        for task in tasks {
            let (body, address) = task.await.unwrap();
            assert!(read(&store, &address).await.unwrap() == body);
            assert!(places.insert((address.segment, address.frame)), "one place for one blob");
        }
    }
}

#[tokio::test]
async fn messages_in_flight_share_a_sync() {
    let blobs = MemoryBlobs::new();
    blobs.set_faults(Faults { delay: std::time::Duration::from_millis(20), ..Faults::default() });
    let store = store(Arc::new(blobs.clone()), &Arc::default(), Config::default()).await;
    let tasks: Vec<_> = (0..50u64)
        .map(|seed| {
            let store = store.clone();
            tokio::spawn(async move { write(&store, &text(seed, 5000), b"").await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(blobs.syncs() <= 4, "50 messages took {} syncs", blobs.syncs());
    let writer = store.writer(HOLDER, KEY);
    store.close().await;
    store.close().await;
    assert!(blobs.unsealed().await.unwrap().is_empty(), "closing seals");
    let late = writer.finish(Bytes::new()).await.unwrap_err();
    assert!(matches!(late, WriteError::Blobs(BlobsError::Closed)) && late.is_temporary());
}

#[tokio::test]
async fn what_was_aborted_is_nowhere() {
    let blobs = MemoryBlobs::new();
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(blobs.clone()), &rows, Config::default()).await;
    for size in [0, 10, 300_000, 3 << 20] {
        let mut writer = store.writer(HOLDER, KEY);
        let body = text(1, size);
        for piece in body.chunks(100_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(writer);
    }
    // Lets the task that removes the streamed segment run.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert!(blobs.list(None, 10).await.unwrap().is_empty());
    assert_eq!(rows.count(Table::SegmentReference), 0);
}

#[tokio::test]
async fn too_large_is_refused_for_good() {
    let config = Config { blob_bytes_max: 1_000_000, facts_bytes_max: 100, ..Config::default() };
    let store = store(Arc::new(MemoryBlobs::new()), &Arc::default(), config).await;
    let mut writer = store.writer(HOLDER, KEY);
    writer.write(text(1, 999_999)).await.unwrap();
    writer.write(text(1, 1)).await.unwrap();
    let error = writer.write(text(1, 1)).await.unwrap_err();
    assert!(matches!(error, WriteError::TooLarge { limit: 1_000_000 }) && !error.is_temporary());
    assert!(matches!(writer.finish(Bytes::new()).await, Err(WriteError::Failed)));
    let writer = store.writer(HOLDER, KEY);
    assert!(matches!(writer.finish(text(1, 101)).await, Err(WriteError::TooLarge { limit: 100 })));
}

#[tokio::test]
async fn without_budget_a_message_goes_into_its_own_segment() {
    let config = Config { buffered_bytes_max: 300_000, ..Config::default() };
    let blobs = MemoryBlobs::new();
    let store = store(Arc::new(blobs.clone()), &Arc::default(), config).await;
    // Random bytes do not compress, so two waiting chunks exceed the budget.
    let mut body = vec![0; 900_000];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut body);
    let body = Bytes::from(body);
    let mut first = store.writer(HOLDER, KEY);
    first.write(body.clone()).await.unwrap();
    let second = write(&store, &text(1, 100), b"").await;
    let first = first.finish(Bytes::new()).await.unwrap();
    assert_ne!(first.address().segment, second.address().segment);
    assert!(read(&store, first.address()).await.unwrap() == body);
}

#[tokio::test]
async fn failures_are_said_and_the_next_message_gets_a_fresh_segment() {
    for fail_midway in [false, true] {
        let blobs = MemoryBlobs::new();
        let store = store(Arc::new(blobs.clone()), &Arc::default(), Config::default()).await;
        let before = write(&store, &text(1, 5000), b"").await;
        for (faults, full) in [
            (Faults { writes_left: Some(0), fail_midway, ..Faults::default() }, false),
            (Faults { capacity: Some(10), fail_midway, ..Faults::default() }, true),
        ] {
            for size in [1000, 3 << 20] {
                blobs.set_faults(faults);
                let mut writer = store.writer(HOLDER, KEY);
                let error = match writer.write(text(2, size)).await {
                    Ok(()) => writer.finish(Bytes::new()).await.unwrap_err(),
                    Err(error) => error,
                };
                assert!(error.is_temporary());
                match error {
                    WriteError::Blobs(BlobsError::Full(_)) => assert!(full),
                    WriteError::Blobs(BlobsError::Io { .. }) => assert!(!full),
                    other => panic!("{other}"),
                }
            }
            blobs.set_faults(Faults::default());
            let after = write(&store, &text(3, 5000), b"").await;
            assert_ne!(after.address().segment, before.address().segment);
            assert!(read(&store, before.address()).await.unwrap() == text(1, 5000));
            assert!(read(&store, after.address()).await.unwrap() == text(3, 5000));
        }
    }
}

#[tokio::test]
async fn keys_decide_who_reads() {
    let rows = Arc::new(TestRows::default());
    let blobs = Arc::new(MemoryBlobs::new());
    let store = store(blobs.clone(), &rows, Config::default()).await;
    let keys = store.keys();
    let queue = keys.queue_key(86_400 * 20_000 + 5).await.unwrap();
    assert_eq!(queue, KeyId::Queue(20_000));
    assert_eq!(keys.queue_key(86_400 * 20_000 + 86_399).await.unwrap(), queue);

    let mut writer = store.writer(Holder::Shard(Uuid::from_u128(1)), queue);
    writer.write(Bytes::from_static(b"for somebody")).await.unwrap();
    let stored = writer.finish(Bytes::new()).await.unwrap();
    let wrong = store.open(stored.address(), KEY).await;
    assert!(matches!(wrong, Err(ReadError::Key(KeyError::NotYours { .. }))));
    // Not by writing another name on it either.
    let renamed = BlobAddress { key: KEY, ..*stored.address() };
    assert!(matches!(store.open(&renamed, KEY).await, Err(ReadError::Key(KeyError::Damaged(_)))));

    let mine = store.rewrap(stored.address(), queue, KEY).await.unwrap();
    assert_eq!((mine.segment, mine.frame, mine.blob_id), {
        let address = stored.address();
        (address.segment, address.frame, address.blob_id)
    });
    assert_eq!(read(&store, &mine).await.unwrap(), b"for somebody");

    // The queue's key dies; the account's copy of the blob key lives on.
    assert!(keys.erase(queue).await.unwrap());
    assert!(!keys.erase(queue).await.unwrap());
    assert!(matches!(store.open(stored.address(), queue).await, Err(ReadError::Key(KeyError::Erased(_)))));
    assert!(matches!(keys.queue_key(86_400 * 20_000).await, Err(KeyError::Erased(_))), "never comes back");
    assert_eq!(keys.queue_days(None, 10).await.unwrap(), [0u32; 0]);
    assert_eq!(read(&store, &mine).await.unwrap(), b"for somebody");

    // The account's dies: nothing reads it, in this process or the next.
    let sealer = keys.sealer(KEY).await.unwrap();
    let sealed = sealer.seal(b"aad", b"entry");
    assert_eq!(sealer.open(b"aad", &sealed).unwrap(), b"entry");
    assert!(keys.erase(KEY).await.unwrap());
    assert!(sealer.open(b"aad", &sealed).is_err());
    let writer = store.writer(HOLDER, KEY);
    let error = writer.finish(Bytes::new()).await.unwrap_err();
    assert!(matches!(error, WriteError::Key(KeyError::Erased(_))) && !error.is_temporary());
    let again = crate::support::ring(&rows, &Config::default());
    assert!(matches!(again.sealer(KEY).await, Err(KeyError::Erased(_))));
}

#[tokio::test]
async fn keys_are_bound_to_their_owner_and_key_encryption_key() {
    let rows = Arc::new(TestRows::default());
    let config = Config::default();
    let keys = crate::support::ring(&rows, &config);
    let other = KeyId::System(Uuid::from_u128(7));
    assert!(matches!(keys.sealer(other).await, Err(KeyError::Missing(_))));
    keys.ensure(KEY).await.unwrap();
    keys.ensure(other).await.unwrap();
    let sealed = keys.sealer(KEY).await.unwrap().seal(b"", b"secret");
    assert!(keys.sealer(other).await.unwrap().open(b"", &sealed).is_err());
    // The next process has the same keys.
    let again = crate::support::ring(&rows, &config);
    again.ensure(KEY).await.unwrap();
    assert_eq!(again.sealer(KEY).await.unwrap().open(b"", &sealed).unwrap(), b"secret");
    // A node with another key-encryption key has none.
    let stranger = blob::keys::KeyEncryptionKey::from_secret(&[1; 32]);
    let stranger = blob::KeyRing::new(stranger, rows.clone(), &config);
    assert!(matches!(stranger.sealer(KEY).await, Err(KeyError::OtherKek { .. })));
    assert_ne!(stranger.fingerprint(), keys.fingerprint());
    for day in [3, 1, 2, 400] {
        keys.ensure(KeyId::Queue(day)).await.unwrap();
    }
    keys.erase(KeyId::Queue(2)).await.unwrap();
    assert_eq!(keys.queue_days(None, 10).await.unwrap(), [1, 3, 400]);
    assert_eq!(keys.queue_days(Some(1), 1).await.unwrap(), [3]);
    *rows.down.lock() = true;
    let fresh = crate::support::ring(&rows, &config);
    assert!(fresh.sealer(KEY).await.is_err_and(|error| error.is_temporary()));
}

#[tokio::test]
async fn nothing_stored_has_the_plain_bytes() {
    let canary = b"CANARY-7f3a";
    let mut body = text(1, 3000).to_vec();
    body.extend_from_slice(canary);
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    write(&store, &body.clone().into(), canary).await;
    write(&store, &Bytes::from_static(canary), canary).await;
    for info in store.blobs().list(None, 10).await.unwrap() {
        let bytes = store.blobs().get(info.segment, 0..info.length).await.unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary));
    }
    assert!(!rows.contains(canary));
}

#[tokio::test]
async fn archive_chunks_are_blobs_of_their_log() {
    use engine::{Archive, ArchiveError, LogId, LogKind};
    let rows = Arc::new(TestRows::default());
    let store = store(Arc::new(MemoryBlobs::new()), &rows, Config::default()).await;
    let archive = blob::BlobArchive::new(store.clone());
    for kind in [LogKind::Account, LogKind::Shard, LogKind::Domain, LogKind::Registry] {
        let log = LogId { kind, id: Uuid::new_v4() };
        let unkeyed = archive.write(log, text(1, 10)).await;
        assert!(
            matches!(unkeyed, Err(ArchiveError::Unavailable(reason)) if reason.contains("there is no key"))
        );
        store.keys().ensure(KeyId::of_log(log)).await.unwrap();
        for size in [0, 1000, 700_000] {
            let chunk = text(2, size);
            let address = archive.write(log, chunk.clone()).await.unwrap();
            assert!(address.len() < 200);
            assert!(archive.read(log, address.clone()).await.unwrap() == chunk);
            let other = LogId { kind, id: Uuid::new_v4() };
            assert!(archive.read(other, address.clone()).await.is_err());
            for length in 0..address.len() {
                assert!(archive.read(log, address.slice(..length)).await.is_err());
            }
        }
    }
    assert_eq!(rows.count(Table::SegmentReference), 12);
}
