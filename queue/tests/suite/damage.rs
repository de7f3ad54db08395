//! A check of a shard tells what is damaged, whatever that is.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::sync::Arc;

use blob::keys::KeyEncryptionKey;
use blob::{KeyId, KeyRing};
use bytes::Bytes;
use engine::memory::{MemoryArchive, MemoryEngine};
use engine::{Archive, LogId, Row, Table, Verified, page_partition};
use queue::ShardId;
use queue::fold::ShardState;

use crate::setup::{Disk, submit};

async fn check(engine: &MemoryEngine, archive: &Arc<dyn Archive>, log: LogId) -> Verified {
    let kek = KeyEncryptionKey::from_secret(&[7; 32]);
    let keys = KeyRing::new(kek, engine.engine().rows, &blob::Config::default());
    let sealer = keys.sealer(KeyId::of_log(log)).await.unwrap();
    engine::verify::<ShardState>(&engine.engine(), log, sealer, Some(Arc::clone(archive))).await.unwrap()
}

/// A page that cannot be read is told of, also where entries after the snapshot changed what is on it.
#[tokio::test(start_paused = true)]
async fn every_damaged_page_is_told_of() {
    let archive: Arc<dyn Archive> = Arc::new(MemoryArchive::default());
    let disk = Disk { archive: Some(Arc::clone(&archive)), ..Disk::new() };
    let engine = MemoryEngine::new();
    let queue = disk.open(&engine, Disk::config()).await.unwrap();
    for number in 0..40 {
        submit(&queue, number % 3).await.unwrap();
    }
    // Entries after the last snapshot that change items on its pages.
    let claimed = queue.claim_now(2).await;
    assert!(!claimed.is_empty());
    queue.close();
    let rows = engine.engine().rows;
    let mut damaged = 0;
    for index in 0..Disk::config().ingest_shards {
        let log = LogId::shard(ShardId::ingest(index).log_id());
        assert!(check(&engine, &archive, log).await.is_sound());
        let partition = page_partition(log);
        for (key, value) in rows.scan(Table::Page, partition.clone(), Bytes::new(), 1_000).await.unwrap() {
            let mut other = value.to_vec();
            *other.last_mut().unwrap() ^= 1;
            rows.put(vec![Row::new(Table::Page, partition.clone(), key.clone(), other)]).await.unwrap();
            let found = check(&engine, &archive, log).await;
            // A page that a later snapshot has replaced and that waits for its collection is nobody's.
            damaged += u32::from(!found.is_sound());
            rows.put(vec![Row::new(Table::Page, partition.clone(), key, value)]).await.unwrap();
        }
        assert!(check(&engine, &archive, log).await.is_sound(), "mended");
    }
    assert!(damaged > 0, "no page was looked at");
}
