//! What is written down about a move keeps the two sides from being used in any other way.

use engine::memory::MemoryEngine;
use engine::{Engine, LogId, SnapshotPointer};
use uuid::Uuid;

use super::{begun, no_blobs};
use crate::{MoveError, Moving, Relocation, Standing, StandingError, complete};

async fn make_log(engine: &Engine, number: u128) {
    let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
    engine.log.create(LogId::account(Uuid::from_u128(number)), snapshot).await.unwrap();
}

async fn begin(source: &MemoryEngine, target: &MemoryEngine, place: &str) -> Result<Moving, MoveError> {
    let moving = Moving::new(source.engine());
    moving.begin(target.engine(), place).await.map(|()| moving)
}

#[tokio::test]
async fn a_move_has_one_source_and_one_empty_target() {
    let [source, target, other, used] = [(); 4].map(|()| MemoryEngine::new());
    make_log(&source.engine(), 1).await;
    make_log(&used.engine(), 2).await;
    assert!(matches!(begin(&source, &used, "used").await, Err(MoveError::NotEmpty)));
    assert!(Standing::away(&*source.engine().rows).await.unwrap().is_none());
    let moving = begin(&source, &target, "target").await.unwrap();
    assert!(matches!(moving.begin(target.engine(), "target").await, Err(MoveError::Begun)));
    let elsewhere = begin(&source, &other, "other").await;
    assert!(
        matches!(elsewhere, Err(MoveError::Standing(StandingError::Elsewhere { place })) if place == "target")
    );
    let foreign = begin(&other, &target, "target").await;
    assert!(matches!(foreign, Err(MoveError::Standing(StandingError::Other))));

    let again = begin(&source, &target, "target").await.unwrap();
    assert!(Relocation::new(again, no_blobs().await).advance().await.unwrap());
    let gone = begin(&source, &target, "target").await;
    assert!(matches!(gone, Err(MoveError::Standing(StandingError::Gone { .. }))));
    assert!(Standing::into(&*target.engine().rows).await.unwrap().unwrap().done);
}

#[tokio::test]
async fn a_log_that_was_deleted_at_the_target_stays_deleted() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    make_log(&source.engine(), 1).await;
    make_log(&source.engine(), 2).await;
    let moving = Moving::new(source.engine());
    let relocation = begun(&moving, &target).await;
    let log = LogId::account(Uuid::from_u128(1));
    moving.flip(log, crate::flip::Gate::Open).await.unwrap();
    let engine = moving.engine();
    engine.log.delete(log).await.unwrap();
    assert!(engine.log.head(log).await.unwrap().is_none());
    drop(relocation);
    let next = Moving::new(source.engine());
    let relocation = begun(&next, &target).await;
    assert!(next.engine().log.head(log).await.unwrap().is_none());
    assert!(relocation.advance().await.unwrap());
    assert!(next.engine().log.head(log).await.unwrap().is_none());
    assert!(target.engine().log.head(LogId::account(Uuid::from_u128(2))).await.unwrap().is_some());
}

#[tokio::test]
async fn a_crash_between_the_last_two_writes_is_made_good() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let moving = Moving::new(source.engine());
    let relocation = begun(&moving, &target).await;
    assert!(!complete(&source.engine(), &target.engine()).await.unwrap());
    assert!(relocation.advance().await.unwrap());
    let rows = target.engine().rows;
    let done = Standing::into(&*rows).await.unwrap().unwrap();
    Standing { done: false, ..done }.write_into(&*rows).await.unwrap();
    assert!(complete(&source.engine(), &target.engine()).await.unwrap());
    assert!(Standing::into(&*rows).await.unwrap().unwrap().done);
    assert!(!complete(&source.engine(), &target.engine()).await.unwrap());
}
