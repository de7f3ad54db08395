//! Segments on both sides, below a blob store that is in use.

use std::sync::Arc;

use blob::dir::{DirBlobs, DirConfig};
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobAddress, BlobStore, Blobs, Config, Growth, Holder, KeyId, KeyRing, SegmentId, check_segment};
use bytes::Bytes;
use engine::memory::MemoryEngine;
use uuid::Uuid;

use crate::{MoveError, Moving, MovingBlobs, Relocation};

const ACCOUNT: Uuid = Uuid::from_u128(7);

async fn store(folder: &std::path::Path, moving: &Moving, blobs: &MovingBlobs) -> BlobStore {
    let kek = KeyEncryptionKey::read_or_create(&folder.join("key")).unwrap();
    let rows = moving.engine().rows;
    let keys = KeyRing::new(kek, rows.clone(), &Config::default());
    keys.ensure(KeyId::Account(ACCOUNT)).await.unwrap();
    BlobStore::new(Arc::new(blobs.clone()), rows, keys, Config::default()).await.unwrap()
}

async fn write(store: &BlobStore, text: &str) -> BlobAddress {
    let mut writer = store.writer(Holder::Account(ACCOUNT), KeyId::Account(ACCOUNT));
    writer.write(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
    *writer.finish(Bytes::new()).await.unwrap().address()
}

async fn verify(store: &BlobStore, address: &BlobAddress) {
    store.open(address, KeyId::Account(ACCOUNT)).await.unwrap().verify().await.unwrap();
}

async fn ids(blobs: &dyn Blobs) -> Vec<SegmentId> {
    blobs.list(None, 1_000).await.unwrap().into_iter().map(|info| info.segment).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_readable_all_the_time_and_the_target_has_all_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    for growth in [Growth::Durable, Growth::Whole] {
        let name = format!("{growth:?}");
        let files = DirBlobs::open(&folder.path().join(&name), DirConfig::default()).unwrap();
        let source: Arc<dyn Blobs> = Arc::new(files);
        let target: Arc<dyn Blobs> = Arc::new(MemoryBlobs::growing(growth));
        let (engine, other) = (MemoryEngine::new(), MemoryEngine::new());
        let (moving, blobs) = (Moving::new(engine.engine()), MovingBlobs::new(source.clone()));
        let store = store(folder.path(), &moving, &blobs).await;
        let mut addresses = vec![write(&store, "before").await];
        let large = "x".repeat(9 << 20);
        addresses.push(write(&store, &large).await);

        blobs.begin(target.clone()).await.unwrap();
        moving.begin(other.engine(), "there").await.unwrap();
        let relocation = Relocation::new(moving.clone(), blobs.clone());
        // The segment that messages shared before is still open.
        assert!(matches!(relocation.advance().await, Err(MoveError::SegmentsOpen)));
        for address in &addresses {
            verify(&store, address).await;
        }
        addresses.push(write(&store, "during").await);
        if growth == Growth::Durable {
            // It stays open until it is full, or the process ends.
            assert!(matches!(relocation.advance().await, Err(MoveError::SegmentsOpen)));
            store.close().await;
        }
        assert!(relocation.advance().await.unwrap());
        for segment in ids(&*source).await {
            assert!(target.stat(segment).await.unwrap().sealed);
            let check = check_segment(&target, segment).await.unwrap();
            assert!(check.damaged.is_empty() && check.frames > 0);
        }
        if growth == Growth::Whole {
            assert_eq!(
                ids(&*target).await.len(),
                ids(&*source).await.len() + 1,
                "the new one is there alone"
            );
        }
        for address in &addresses {
            verify(&store, address).await;
        }
        store.close().await;

        // By the target alone.
        let (moving, blobs) = (Moving::new(other.engine()), MovingBlobs::new(target));
        let alone = self::store(folder.path(), &moving, &blobs).await;
        for address in &addresses {
            verify(&alone, address).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_segment_is_closed_though_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let source: Arc<dyn Blobs> = Arc::new(DirBlobs::open(folder.path(), DirConfig::default()).unwrap());
    let target: Arc<dyn Blobs> = Arc::new(MemoryBlobs::growing(Growth::Whole));
    let (moving, blobs) = (Moving::new(MemoryEngine::new().engine()), MovingBlobs::new(source.clone()));
    let store = store(folder.path(), &moving, &blobs).await;
    let address = write(&store, "before").await;
    assert_eq!(source.unsealed().await.unwrap().len(), 1);
    moving.begin(MemoryEngine::new().engine(), "there").await.unwrap();
    blobs.begin(target.clone()).await.unwrap();
    assert!(Relocation::new(moving, blobs).run().await.unwrap());
    assert!(target.stat(address.segment).await.unwrap().sealed);
    verify(&store, &address).await;
    store.close().await;
}

#[tokio::test]
async fn half_a_copy_is_thrown_away_and_not_recovered() {
    let (source, target): (Arc<dyn Blobs>, Arc<dyn Blobs>) =
        (Arc::new(MemoryBlobs::new()), Arc::new(MemoryBlobs::new()));
    let segment = SegmentId::fresh();
    source.put(segment, vec![Bytes::from_static(b"whole segment")]).await.unwrap();
    let mut half = target.begin(segment, 0).await.unwrap();
    half.commit(vec![Bytes::from_static(b"whole")]).await.unwrap();
    drop(half);
    let blobs = MovingBlobs::new(source);
    blobs.begin(target.clone()).await.unwrap();
    assert!(blobs.unsealed().await.unwrap().is_empty());
    assert!(target.stat(segment).await.is_err());
    assert_eq!(blobs.get(segment, 0..13).await.unwrap(), "whole segment");
}
