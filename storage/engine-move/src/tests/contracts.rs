//! The contracts of engines and segments, before a move, while it is under way and after it.

use std::sync::Arc;

use blob::memory::MemoryBlobs;
use blob::{Blobs, Growth};
use engine::memory::MemoryEngine;
use engine::{LogKind, contract};
use engine_embedded::{Config, Embedded};

use super::{all_rows, begun, no_blobs};
use crate::flip::Gate;
use crate::reconcile::TABLES;
use crate::{Moving, MovingBlobs, Relocation};

#[tokio::test]
async fn an_engine_that_does_not_move_keeps_the_contract() {
    contract::all(&Moving::new(MemoryEngine::new().engine()).engine()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_while_everything_moves_and_afterwards() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let moving = Moving::new(source.engine());
    let relocation = begun(&moving, &target).await;
    let mover = {
        let moving = moving.clone();
        tokio::spawn(async move {
            let mut flips = 0;
            loop {
                for kind in [LogKind::Account, LogKind::Shard, LogKind::Domain, LogKind::Registry] {
                    for log in moving.source().log.list(kind, None, 1_000).await.unwrap() {
                        moving.flip(log, Gate::Open).await.unwrap();
                        flips += 1;
                    }
                }
                for table in TABLES {
                    moving.reconcile(table).await.unwrap();
                }
                if flips == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    for _ in 0..3 {
        contract::all(&moving.engine()).await;
    }
    mover.abort();
    assert!(!target.engine().log.list(LogKind::Account, None, 100).await.unwrap().is_empty());
    assert!(relocation.advance().await.unwrap());
    assert!(all_rows(&source.engine()).await == all_rows(&target.engine()).await);
    contract::all(&moving.engine()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_a_folder_and_back() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Embedded::open(folders[0].path(), Config::default()).unwrap();
    let moving = Moving::new(first.engine());
    contract::all(&moving.engine()).await;
    let cluster = MemoryEngine::new();
    assert!(begun(&moving, &cluster).await.advance().await.unwrap());
    super::assert_same_logs(&first.engine(), &cluster.engine()).await;
    assert!(all_rows(&first.engine()).await == all_rows(&cluster.engine()).await);

    let last = Embedded::open(folders[1].path(), Config::default()).unwrap();
    let back = Moving::new(cluster.engine());
    back.begin(last.engine(), "back").await.unwrap();
    assert!(Relocation::new(back.clone(), no_blobs().await).advance().await.unwrap());
    super::assert_same_logs(&cluster.engine(), &last.engine()).await;
    assert!(all_rows(&first.engine()).await == all_rows(&last.engine()).await);
    contract::all(&back.engine()).await;
}

#[tokio::test]
async fn segments_keep_their_contract() {
    blob::contract::run(|| async {
        Arc::new(MovingBlobs::new(Arc::new(MemoryBlobs::new()))) as Arc<dyn Blobs>
    })
    .await;
    for growth in [Growth::Durable, Growth::Whole] {
        blob::contract::run(|| async move {
            let blobs = MovingBlobs::new(Arc::new(MemoryBlobs::new()));
            blobs.begin(Arc::new(MemoryBlobs::growing(growth))).await.unwrap();
            Arc::new(blobs) as Arc<dyn Blobs>
        })
        .await;
    }
}
