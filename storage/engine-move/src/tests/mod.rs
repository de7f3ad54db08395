//! Tests.

mod contracts;
mod history;
mod rows;
mod segments;
mod standing;

use std::sync::Arc;

use blob::memory::MemoryBlobs;
use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::rows::successor;
use engine::{Engine, LogKind, Table};

use crate::reconcile::TABLES;
use crate::standing::is_of_move;
use crate::{Moving, MovingBlobs, Relocation};

/// Segments that nothing is put into.
async fn no_blobs() -> MovingBlobs {
    let blobs = MovingBlobs::new(Arc::new(MemoryBlobs::new()));
    blobs.begin(Arc::new(MemoryBlobs::new())).await.unwrap();
    blobs
}

/// Begins to move to `target`.
async fn begun(moving: &Moving, target: &MemoryEngine) -> Relocation {
    moving.begin(target.engine(), "there").await.unwrap();
    Relocation::new(moving.clone(), no_blobs().await)
}

/// Everything that an engine has in tables that move, but for what is written about the move.
async fn all_rows(engine: &Engine) -> Vec<(Table, Bytes, Bytes, Bytes)> {
    let mut all = Vec::new();
    for table in TABLES {
        for partition in engine.rows.partitions(table, None, 100_000).await.unwrap() {
            if table == Table::Mark && is_of_move(&partition) {
                continue;
            }
            let mut from = Bytes::new();
            loop {
                let some = engine.rows.scan(table, partition.clone(), from, 100).await.unwrap();
                let Some((last, _)) = some.last() else { break };
                from = successor(last);
                all.extend(some.into_iter().map(|(key, value)| (table, partition.clone(), key, value)));
            }
        }
    }
    // Each back end lists partitions in an order of its own.
    all.sort();
    all
}

/// Logs with their head, entries from `first` on and pages are the same.
async fn assert_same_logs(source: &Engine, target: &Engine) {
    for kind in [LogKind::Account, LogKind::Shard, LogKind::Domain, LogKind::Registry] {
        let logs = source.log.list(kind, None, 100_000).await.unwrap();
        assert_eq!(logs, target.log.list(kind, None, 100_000).await.unwrap());
        for log in logs {
            let (original, copy) = (
                source.log.load(log, usize::MAX).await.unwrap(),
                target.log.load(log, usize::MAX).await.unwrap(),
            );
            assert_eq!(original, copy, "{log}");
            let partition = engine::page_partition(log);
            let pages = |engine: &Engine| {
                let (rows, partition) = (engine.rows.clone(), partition.clone());
                async move { rows.scan(Table::Page, partition, Bytes::new(), 100_000).await.unwrap() }
            };
            assert!(pages(source).await == pages(target).await, "{log}");
        }
    }
}
