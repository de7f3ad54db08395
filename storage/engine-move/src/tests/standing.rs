//! What is written down about a move keeps the two sides from being used in any other way.

use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{Engine, LogId, Row, RowKey, SnapshotPointer, Table, page_partition};
use uuid::Uuid;

use super::{begun, no_blobs};
use crate::{MoveError, Moving, Relocation, Standing, StandingError, complete};

fn account(number: u128) -> LogId {
    LogId::account(Uuid::from_u128(number))
}

async fn make_log(engine: &Engine, number: u128) {
    let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
    engine.log.create(account(number), snapshot).await.unwrap();
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
    let relocation = Relocation::new(again, no_blobs().await);
    assert!(relocation.advance().await.unwrap());
    let gone = begin(&source, &target, "target").await;
    assert!(matches!(gone, Err(MoveError::Standing(StandingError::Gone { .. }))));
    assert!(Standing::away(&*source.engine().rows).await.unwrap().unwrap().done);
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
async fn a_log_that_was_deleted_while_it_was_copied_leaves_nothing() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    make_log(&source.engine(), 1).await;
    make_log(&source.engine(), 2).await;
    let moving = Moving::new(source.engine());
    let relocation = begun(&moving, &target).await;
    // Half of a copy, as an attempt leaves it that was cut off.
    make_log(&target.engine(), 1).await;
    let page = RowKey::new(Table::Page, page_partition(account(1)), &b"page"[..]);
    target.engine().rows.put(vec![Row { key: page.clone(), value: Bytes::from_static(b"x") }]).await.unwrap();
    moving.engine().log.delete(account(1)).await.unwrap();
    assert!(relocation.advance().await.unwrap());
    assert!(moving.engine().log.head(account(1)).await.unwrap().is_none());
    assert!(target.engine().rows.get(page).await.unwrap().is_none());
    assert!(target.engine().log.head(account(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_target_is_handed_over_when_nobody_works_with_it() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let moving = Moving::new(source.engine());
    let relocation = begun(&moving, &target).await;
    let rows = target.engine().rows;
    let handed_over = async || Standing::into(&*rows).await.unwrap().unwrap().done;
    assert!(!relocation.hand_over().await.unwrap());
    assert!(!complete(&source.engine(), &target.engine()).await.unwrap());
    assert!(relocation.advance().await.unwrap());
    assert!(!handed_over().await, "the process still works with it");
    assert!(relocation.hand_over().await.unwrap());
    assert!(handed_over().await);
    assert!(!complete(&source.engine(), &target.engine()).await.unwrap());
}

#[tokio::test]
async fn whoever_dies_before_handing_over_leaves_it_to_the_next() {
    let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
    let relocation = begun(&Moving::new(source.engine()), &target).await;
    assert!(relocation.advance().await.unwrap());
    drop(relocation);
    assert!(complete(&source.engine(), &target.engine()).await.unwrap());
    assert!(Standing::into(&*target.engine().rows).await.unwrap().unwrap().done);
    assert!(!complete(&source.engine(), &target.engine()).await.unwrap());
}
