//! The engine on a real folder.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine::{EngineError, EntryRow, Log, LogId, Outcome, Row, Rows, SnapshotPointer, Table};
use uuid::Uuid;

use crate::{Config, Embedded, OpenError};

fn config() -> Config {
    Config { reserve_bytes: 0, memtable_bytes: 1 << 20, cache_bytes: 1 << 20, ..Config::default() }
}

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, config()).unwrap()
}

fn log_id() -> LogId {
    LogId::account(Uuid::from_u128(7))
}

fn entry(seq: u64, length: usize) -> EntryRow {
    let bytes: Vec<u8> = (0..length).map(|i| (i as u64 * 31 + seq) as u8 | 1).collect();
    EntryRow { first_seq: seq, last_seq: seq, nonce: Uuid::from_u128(seq.into()), bytes: bytes.into() }
}

fn row(key: u64) -> Row {
    let value = Bytes::from(vec![key as u8; 100]);
    Row::new(Table::Page, &b"partition"[..], key.to_be_bytes().to_vec(), value)
}

async fn create(engine: &Embedded) {
    let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
    assert_eq!(engine.create(log_id(), snapshot).await.unwrap(), Outcome::Applied);
}

async fn append(engine: &Embedded, seq: u64, length: usize) {
    assert_eq!(engine.append(log_id(), &entry(seq, length), None).await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    engine::contract::all(&engine.engine()).await;
}

#[tokio::test]
async fn keeps_the_contract_with_a_small_head_cache_and_lingering() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { heads_max: 1, ..config() };
    config.commit.linger_ms = 1;
    config.commit.batch_max = 3;
    config.commit.pending_bytes_max = 1;
    let engine = Embedded::open(folder.path(), config).unwrap();
    engine::contract::all(&engine.engine()).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    create(&engine).await;
    for seq in 1..=300 {
        engine.put_ordered(vec![row(seq)]).await.unwrap();
        append(&engine, seq, 10_000).await;
    }
    drop(engine);
    let engine = open(folder.path());
    let tail = engine.load(log_id(), 1_000).await.unwrap().unwrap();
    assert_eq!(tail.head.seq, 300);
    assert_eq!(tail.rows, (1..=300).map(|seq| entry(seq, 10_000)).collect::<Vec<_>>());
    let rows = engine.scan(Table::Page, Bytes::from_static(b"partition"), Bytes::new(), 1_000).await.unwrap();
    assert_eq!(rows.len(), 300);
    append(&engine, 301, 10).await;
}

/// A trim begins where the last one ended; a log that is made anew under its old name begins anew.
#[tokio::test]
async fn trims_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    for _ in 0..2 {
        create(&engine).await;
        for seq in 1..=40 {
            // Every tenth entry trims all but the last five before it; one in the middle trims less than the last did.
            let trim = if seq % 10 == 0 { Some(seq - 6) } else { (seq == 25).then_some(3) };
            let outcome = engine.append(log_id(), &entry(seq, 10), trim).await.unwrap();
            assert_eq!(outcome, Outcome::Applied);
            let first = (seq - seq % 10).saturating_sub(5).max(1);
            let left = engine.tables().entry_keys(log_id(), 0, u64::MAX).unwrap().len() as u64;
            assert_eq!(left, seq + 1 - first, "entries left after {seq}");
        }
        Log::delete(&engine, log_id()).await.unwrap();
        assert!(engine.tables().entry_keys(log_id(), 0, u64::MAX).unwrap().is_empty());
    }
}

#[tokio::test]
async fn one_process_at_a_time_and_only_its_own_folders() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let locked = Embedded::open(folder.path(), config()).unwrap_err();
    assert!(matches!(&locked, OpenError::Locked { holder, .. } if *holder == std::process::id().to_string()));
    drop(engine);
    fs::write(folder.path().join("format"), "something else\n").unwrap();
    assert!(matches!(Embedded::open(folder.path(), config()), Err(OpenError::Format { .. })));
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("data.new/keyspaces")).unwrap();
    fs::write(folder.path().join("data.new/version"), "half").unwrap();
    create(&open(folder.path())).await;
}

#[tokio::test]
async fn a_write_error_poisons() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    create(&engine).await;
    append(&engine, 1, 10).await;
    let mut poisoned = engine.poisoned();
    assert_eq!(*poisoned.borrow_and_update(), None);
    engine.tables().fails.store(true, Ordering::SeqCst);
    let (first, put) = tokio::join!(async { engine.append(log_id(), &entry(2, 10), None).await }, async {
        engine.put(vec![row(1)]).await
    });
    assert!(matches!(first, Ok(Outcome::Unknown) | Err(EngineError::Poisoned { .. })), "{first:?}");
    assert!(matches!(put, Err(EngineError::Poisoned { .. })), "{put:?}");
    poisoned.changed().await.unwrap();
    assert_eq!(poisoned.borrow().as_deref(), Some("planted write error"));
    engine.tables().fails.store(false, Ordering::SeqCst);
    let later = engine.append(log_id(), &entry(2, 10), None).await;
    assert!(matches!(later, Err(EngineError::Poisoned { .. })), "stays so until the process starts again");
    assert_eq!(engine.head(log_id()).await.unwrap().unwrap().seq, 1, "reads go on");
    drop(engine);
    append(&open(folder.path()), 2, 10).await;
}

#[tokio::test]
async fn a_full_disk_refuses_before_it_poisons() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    create(&engine).await;
    engine.put(vec![row(1)]).await.unwrap();
    drop(engine);
    let engine = Embedded::open(folder.path(), Config { reserve_bytes: u64::MAX, ..config() }).unwrap();
    let full = engine.append(log_id(), &entry(1, 10), None).await;
    assert!(matches!(full, Err(EngineError::Full { .. })));
    assert!(matches!(engine.put(vec![row(2)]).await, Err(EngineError::Full { .. })));
    assert!(engine.get(row(1).key).await.unwrap().is_some());
    Rows::delete(&engine, vec![row(1).key]).await.unwrap();
    assert!(engine.get(row(1).key).await.unwrap().is_none());
    assert!(engine.poisoned().borrow().is_none());
}

#[tokio::test]
async fn damaged_values_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    create(&engine).await;
    append(&engine, 1, 10).await;
    engine.put(vec![row(1)]).await.unwrap();
    let tables = engine.tables();
    let stored = crate::key::row_key(&row(1).key);
    tables.page.insert(&stored[..], "\u{1}damaged").unwrap();
    tables.log.insert(crate::key::entry_key(log_id(), 1), "").unwrap();
    let error = engine.get(row(1).key).await.unwrap_err();
    assert!(matches!(&error, EngineError::Damaged { place, .. } if place.starts_with("page/01")), "{error}");
    let error = engine.load(log_id(), 10).await.unwrap_err();
    assert!(matches!(&error, EngineError::Damaged { place, .. } if place.starts_with("log/01")), "{error}");
    assert!(!error.is_temporary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_on_many_logs() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path());
    let tasks: Vec<_> = (0..32_u128)
        .map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let log = LogId::shard(Uuid::from_u128(number));
                let snapshot = SnapshotPointer { id: Uuid::from_u128(number), seq: 0, base_seq: 0 };
                engine.create(log, snapshot).await.unwrap();
                for seq in 1..=50 {
                    let trim = (seq > 20).then(|| seq - 10);
                    let outcome = engine.append(log, &entry(seq, 300), trim).await.unwrap();
                    assert_eq!(outcome, Outcome::Applied);
                    if seq > 20 {
                        let base = engine.head(log).await.unwrap().unwrap().snapshot;
                        let new = SnapshotPointer { id: Uuid::new_v4(), seq, base_seq: base.seq };
                        assert_eq!(engine.swing(log, base.id, new).await.unwrap(), Outcome::Applied);
                    }
                }
                engine.head(log).await.unwrap().unwrap().seq
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 50);
    }
}
