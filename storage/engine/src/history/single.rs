//! One node, one log: what callers see.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{log_id, sealer};
use crate::contract::notes::{Notes, Operation};
use crate::error::EngineError;
use crate::handle::{CommitOptions, LogHandle};
use crate::logs::{CreateError, Logs};
use crate::memory::{Faults, MemoryEngine};
use crate::options::LogOptions;
use crate::request::{Build, CommitError, Committed};
use crate::state::{PartPages, State};
use crate::{OpenError, ReadError};

fn small() -> LogOptions {
    LogOptions {
        snapshot_entries_min: 4,
        snapshot_bytes_min: 1 << 20,
        snapshot_entries_max: 8,
        backoff_ms_min: 1,
        backoff_ms_max: 4,
        retry_ms: 1,
        deadline_seconds: 5,
        ..LogOptions::default()
    }
}

async fn fresh(engine: &MemoryEngine, options: LogOptions) -> (Logs<Notes>, LogHandle<Notes>) {
    let logs = Logs::new(engine.engine(), options, None);
    let handle = logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    (logs, handle)
}

async fn put(handle: &LogHandle<Notes>, shelf: u8, id: u64) -> Result<Committed<u64>, CommitError<()>> {
    handle
        .commit(vec![], move |state: &Notes| {
            let number = state.next;
            Ok(Build::new(vec![Operation::Put { shelf, number, id, delivery: None }], number))
        })
        .await
}

async fn remove(
    handle: &LogHandle<Notes>,
    shelf: u8,
    number: u64,
) -> Result<Committed<bool>, CommitError<()>> {
    handle
        .commit(vec![shelf], move |state: &Notes| {
            Ok(if state.notes(shelf).contains_key(&number) {
                Build::new(vec![Operation::Remove { shelf, number }], true)
            } else {
                Build::nothing(false)
            })
        })
        .await
}

#[tokio::test]
async fn commits_are_numbered_and_survive_reopening() {
    let engine = MemoryEngine::new();
    let (logs, handle) = fresh(&engine, small()).await;
    let mut watch = handle.watch();
    for id in 0..50 {
        let committed = put(&handle, (id % 4) as u8, id).await.unwrap();
        assert_eq!(committed.answer, id + 1);
        assert_eq!((committed.first_seq, committed.last_seq), (id + 1, id + 1));
        assert_eq!(handle.seq(), id + 1, "after its answer, the node has folded to it");
    }
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 50);
    wait_idle(&logs, &handle).await;
    let again = logs.create(log_id(1), Notes::new(), sealer()).await;
    assert!(matches!(again, Err(CreateError::Exists)));

    let other = Logs::<Notes>::new(engine.engine(), small(), None);
    let reopened = other.open(log_id(1), sealer()).await.unwrap();
    assert_eq!(reopened.seq(), 50);
    assert_eq!(reopened.state().count, 50);
    assert_eq!(reopened.state().pages_of(&0), handle_missing(&reopened));
    let state = reopened.with(&Notes::all_shelves()).await.unwrap();
    let expected: BTreeMap<u64, u64> = (0..50).step_by(4).map(|id| (id + 1, id)).collect();
    assert_eq!(*state.notes(0), expected);
    assert!(matches!(other.open(log_id(2), sealer()).await, Err(OpenError::Missing)));
}

/// A part of a log that was just opened is not loaded.
fn handle_missing(handle: &LogHandle<Notes>) -> PartPages {
    let pages = handle.state().pages_of(&0);
    assert!(matches!(&pages, PartPages::Missing(pages) if !pages.is_empty()));
    pages
}

#[tokio::test]
async fn snapshots_are_taken_and_the_log_is_trimmed_and_pages_collected() {
    let engine = MemoryEngine::new();
    let (logs, handle) = fresh(&engine, small()).await;
    for id in 0..20_000 {
        let number = put(&handle, (id % 4) as u8, id).await.unwrap().answer;
        if id % 3 == 0 {
            assert!(remove(&handle, (id % 4) as u8, number).await.unwrap().answer);
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
        let stats = logs.stats();
        if stats.swings >= 10 && stats.trims >= 5 && stats.pages_collected >= 20 {
            break;
        }
    }
    wait_idle(&logs, &handle).await;
    let stats = logs.stats();
    assert!(stats.swings >= 10 && stats.trims >= 5 && stats.pages_collected >= 20, "{stats:?}");
    let (kept, all) = (engine.entries(log_id(1)), engine.history(log_id(1)));
    assert!(kept.len() < all.len() / 2);
    assert_eq!(all.len() as u64, stats.groups);
}

/// Waits until no snapshot is under way.
async fn wait_idle(logs: &Logs<Notes>, handle: &LogHandle<Notes>) {
    for _ in 0..1000 {
        let before = logs.stats();
        // Longer than a snapshot is encoded on a machine that is busy with other things.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if logs.stats() == before {
            return;
        }
    }
    panic!("{} does not come to rest", handle.id());
}

#[tokio::test]
async fn concurrent_commits_share_entries() {
    let latency = Duration::from_millis(2)..Duration::from_millis(3);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let (logs, handle) = fresh(&engine, LogOptions::default()).await;
    let tasks: Vec<_> = (0..64)
        .map(|id| {
            let handle = handle.clone();
            tokio::spawn(async move { put(&handle, 0, id).await.unwrap() })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        let committed = task.await.unwrap();
        assert_eq!(committed.answer, committed.first_seq);
        numbers.push(committed.answer);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=64).collect::<Vec<_>>());
    assert!(logs.stats().groups <= 8, "{:?}", logs.stats());
}

#[tokio::test]
async fn groups_respect_the_size_of_an_entry() {
    let latency = Duration::from_millis(2)..Duration::from_millis(3);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let options = LogOptions { entry_bytes_max: 40, commit_bytes_max: 100, ..small() };
    let (_, handle) = fresh(&engine, options).await;
    let many = |count: u64| {
        let handle = handle.clone();
        async move {
            let build = move |state: &Notes| {
                let put = |i| Operation::Put { shelf: 0, number: state.next + i, id: i, delivery: None };
                Ok::<_, ()>(Build::new((0..count).map(put).collect(), ()))
            };
            handle.commit(vec![], build).await
        }
    };
    let (a, b, c, d) = tokio::join!(many(6), many(6), many(12), many(40));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert!(matches!(d, Err(CommitError::TooLarge { limit: 100, .. })));
    for entry in engine.history(log_id(1)) {
        assert!(entry.bytes.len() <= 40 + 100, "{}", entry.bytes.len());
    }
}

#[tokio::test]
async fn refusals_and_empty_answers_come_after_the_group_they_stood_in() {
    let latency = Duration::from_millis(5)..Duration::from_millis(6);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let (_, handle) = fresh(&engine, small()).await;
    let refuse = handle.commit(
        vec![],
        |state: &Notes| {
            if state.next > 2 { Err(state.next) } else { Ok(Build::nothing(())) }
        },
    );
    let (first, second, refused) = tokio::join!(put(&handle, 0, 1), put(&handle, 0, 2), refuse);
    assert!(first.is_ok() && second.is_ok());
    assert!(matches!(refused, Err(CommitError::Rejected(3))), "{refused:?}");
    let nothing = handle.commit(vec![], |_: &Notes| Ok::<_, ()>(Build::nothing("same"))).await.unwrap();
    assert_eq!(nothing, Committed { answer: "same", first_seq: 3, last_seq: 2 });
}

#[tokio::test]
async fn bad_closures_harm_nobody_else() {
    let latency = Duration::from_millis(5)..Duration::from_millis(6);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let (_, handle) = fresh(&engine, small()).await;
    let panics = handle.commit(vec![], |_: &Notes| -> Result<Build<Operation, ()>, ()> {
        panic!("a planted panic");
    });
    let misfits = handle.commit(vec![], |state: &Notes| {
        let fits = Operation::Put { shelf: 0, number: state.next, id: 77, delivery: None };
        Ok::<_, ()>(Build::new(vec![fits, Operation::Remove { shelf: 99, number: 1 }], ()))
    });
    let (before, panicked, misfit, after) =
        tokio::join!(put(&handle, 0, 1), panics, misfits, put(&handle, 0, 2));
    assert!(before.is_ok() && after.is_ok());
    assert!(matches!(panicked, Err(CommitError::Stopped(_))));
    assert!(matches!(misfit, Err(CommitError::Stopped(_))));
    let state = handle.with(&[0]).await.unwrap();
    assert_eq!(state.notes(0).values().copied().collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn trouble_of_the_engine_is_told_and_passes() {
    let engine = MemoryEngine::new();
    let (_, handle) = fresh(&engine, small()).await;
    put(&handle, 0, 1).await.unwrap();
    engine.set_faults(Faults { full: true, ..Faults::default() });
    let full = put(&handle, 0, 2).await;
    assert!(matches!(full, Err(CommitError::Unavailable(EngineError::Full { .. }))), "{full:?}");
    engine.set_faults(Faults { unavailable: 1.0, ..Faults::default() });
    let failed = put(&handle, 0, 3).await;
    assert!(matches!(failed, Err(CommitError::Unavailable(EngineError::Unavailable { .. }))));
    assert_eq!(handle.state().count, 1, "reading goes on");
    engine.set_faults(Faults::default());
    assert_eq!(put(&handle, 0, 4).await.unwrap().answer, 2);
}

#[tokio::test]
async fn an_unknown_outcome_is_decided_before_it_is_answered() {
    for late in [false, true] {
        let engine = MemoryEngine::new();
        let (logs, handle) = fresh(&engine, small()).await;
        let applied = Faults { unknown_applied: 1.0, ..Faults::default() };
        let later = Faults { unknown_late: 1.0, ..Faults::default() };
        let faults = if late { later } else { applied };
        engine.set_faults(faults);
        let commit = tokio::spawn({
            let handle = handle.clone();
            async move { put(&handle, 0, 1).await }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(handle.seq(), 0, "what is undecided is not shown");
        assert!(!commit.is_finished());
        engine.set_faults(Faults::default());
        assert_eq!(commit.await.unwrap().unwrap().answer, 1);
        assert_eq!(engine.history(log_id(1)).len(), 1);
        assert!(logs.stats().unknowns > 0);
    }
}

#[tokio::test]
async fn a_deadline_that_passes_while_undecided_is_unknown() {
    let engine = MemoryEngine::new();
    let (_, handle) = fresh(&engine, small()).await;
    engine.set_faults(Faults { unknown_not_applied: 1.0, ..Faults::default() });
    let options = CommitOptions { deadline: Some(Duration::from_millis(20)), ..CommitOptions::default() };
    let build = |state: &Notes| {
        let put = Operation::Put { shelf: 0, number: state.next, id: 1, delivery: None };
        Ok::<_, ()>(Build::new(vec![put], ()))
    };
    let first = handle.commit_with(options, vec![], build);
    let second = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        handle.commit_with(options, vec![], build).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(CommitError::Unknown)));
    // The second never became part of a proposal, so it can be told for certain.
    assert!(matches!(second, Err(CommitError::Unavailable(_))), "{second:?}");
    engine.set_faults(Faults::default());
    assert_eq!(put(&handle, 0, 2).await.unwrap().first_seq, 2, "the first was applied after all");
}

#[tokio::test]
async fn a_deleted_log_stays_deleted() {
    let engine = MemoryEngine::new();
    let (logs, handle) = fresh(&engine, small()).await;
    for id in 0..20 {
        put(&handle, 0, id).await.unwrap();
    }
    let elsewhere = Logs::<Notes>::new(engine.engine(), LogOptions { shared: true, ..small() }, None);
    let stale = elsewhere.open(log_id(1), sealer()).await.unwrap();
    logs.delete(log_id(1)).await.unwrap();
    let refused = put(&handle, 0, 99).await;
    assert!(matches!(refused, Err(CommitError::Deleted)), "{refused:?}");
    assert!(matches!(handle.with(&[]).await, Err(ReadError::Deleted)));
    assert!(matches!(logs.open(log_id(1), sealer()).await, Err(OpenError::Missing)));
    assert!(matches!(put(&stale, 0, 99).await, Err(CommitError::Deleted)));
    assert!(matches!(stale.refresh(&[]).await, Err(ReadError::Deleted)));
}

#[tokio::test]
async fn idle_logs_are_closed_to_make_room_and_held_ones_shrink() {
    let engine = MemoryEngine::new();
    let logs = Logs::<Notes>::new(
        engine.engine(),
        LogOptions { open_logs_max: 3, memory_bytes_max: 6_000, ..small() },
        None,
    );
    for number in 1..=10 {
        let handle = logs.create(log_id(number), Notes::new(), sealer()).await.unwrap();
        put(&handle, 0, 1).await.unwrap();
    }
    assert!(logs.open_count() <= 4, "{}", logs.open_count());
    assert!(logs.stats().evictions >= 6);
    let held = logs.open(log_id(1), sealer()).await.unwrap();
    for id in 0..300 {
        put(&held, 0, id).await.unwrap();
    }
    for id in 300..340 {
        put(&held, 1, id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    wait_idle(&logs, &held).await;
    let other = logs.open(log_id(2), sealer()).await.unwrap();
    wait_idle(&logs, &held).await;
    assert!(held.is_open() && other.is_open());
    assert!(held.state().weight() < 2_000, "shed: {}", held.state().weight());
    assert_eq!(held.with(&[0]).await.unwrap().notes(0).len(), 301);
}

#[tokio::test]
async fn damage_is_an_error_and_not_a_panic() {
    let engine = MemoryEngine::new();
    let (_, handle) = fresh(&engine, LogOptions::default()).await;
    for id in 0..5 {
        put(&handle, 0, id).await.unwrap();
    }
    engine.damage_entry(log_id(1), 3, |bytes| bytes[9] ^= 1);
    let other = Logs::<Notes>::new(engine.engine(), small(), None);
    let error = other.open(log_id(1), sealer()).await.unwrap_err();
    assert!(matches!(&error, OpenError::Stored { place, .. } if place.contains("3..=3")), "{error:?}");
    assert!(!error.is_temporary());
}

#[tokio::test]
async fn a_damaged_page_fails_its_part_alone() {
    let engine = MemoryEngine::new();
    let (logs, handle) = fresh(&engine, small()).await;
    for id in 0..40 {
        put(&handle, (id % 2) as u8, id).await.unwrap();
    }
    wait_idle(&logs, &handle).await;
    let other = Logs::<Notes>::new(engine.engine(), small(), None);
    let opened = other.open(log_id(1), sealer()).await.unwrap();
    let PartPages::Missing(pages) = opened.state().pages_of(&0) else { panic!("not loaded yet") };
    let context = crate::page_partition(log_id(1));
    let key = crate::RowKey::new(crate::Table::Page, context, pages[0].to_key().to_vec());
    assert!(engine.damage_row(&key, |bytes| *bytes.last_mut().unwrap() ^= 1));
    assert!(matches!(opened.with(&[0]).await, Err(ReadError::Failed(_))));
    assert!(matches!(remove(&opened, 0, 1).await, Err(CommitError::Stopped(_))));
    assert!(opened.with(&[1]).await.is_ok());
    put(&opened, 1, 99).await.unwrap();
    assert!(opened.with(&[1]).await.unwrap().notes(1).values().any(|id| *id == 99));
}

#[tokio::test]
async fn a_missing_page_is_an_alarm_for_its_part_alone() {
    let engine = MemoryEngine::new();
    let (logs, handle) = fresh(&engine, small()).await;
    for id in 0..40 {
        put(&handle, (id % 2) as u8, id).await.unwrap();
    }
    wait_idle(&logs, &handle).await;
    let other = Logs::<Notes>::new(engine.engine(), small(), None);
    let opened = other.open(log_id(1), sealer()).await.unwrap();
    let PartPages::Missing(pages) = opened.state().pages_of(&0) else { panic!("not loaded yet") };
    let partition = crate::page_partition(log_id(1));
    let key = crate::RowKey::new(crate::Table::Page, partition, pages[0].to_key().to_vec());
    engine.engine().rows.delete(vec![key]).await.unwrap();
    let failed = opened.with(&[0]).await;
    assert!(
        matches!(&failed, Err(ReadError::Failed(error)) if matches!(**error, OpenError::PageMissing(id) if id == pages[0])),
        "{failed:?}"
    );
    assert!(matches!(remove(&opened, 0, 1).await, Err(CommitError::Stopped(_))));
    // The other part and commits that need neither go on, and no snapshot is tried over and over.
    for id in 100..120 {
        put(&opened, 0, id).await.unwrap();
    }
    assert!(opened.with(&[1]).await.is_ok());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stats = other.stats();
    assert!(stats.swings == 0 && stats.loads < 30, "{stats:?}");
}

#[tokio::test]
async fn an_orderly_end_waits_for_what_is_under_way() {
    let latency = Duration::from_millis(5)..Duration::from_millis(6);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let (logs, handle) = fresh(&engine, small()).await;
    let commit = tokio::spawn(async move { put(&handle, 0, 1).await });
    tokio::task::yield_now().await;
    assert!(logs.finish(Duration::from_secs(5)).await);
    assert!(commit.await.unwrap().is_ok());
    assert!(logs.open(log_id(1), sealer()).await.is_err());
}
