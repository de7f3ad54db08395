//! Writers commit while logs move, calls fail and power is cut on either side: nothing that was acknowledged is lost,
//! nothing is there twice, and what is at the target in the end checks by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::contract::notes::{Notes, Operation};
use engine::memory::{Faults, MemoryArchive, MemoryEngine};
use engine::seal::Unencrypted;
use engine::{Archive, Build, CommitError, LogId, LogOptions, Logs, RowKey, Table, verify};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::{all_rows, no_blobs};
use crate::flip::Gate;
use crate::{Moving, Relocation};

const LOGS: u128 = 3;
const LIVES: u64 = 4;
/// Failures after which a writer gives up.
const FAILURES: usize = 4;
/// How long a process waits for anything before it is taken for dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was told to writers, over all lives of the process.
#[derive(Default)]
struct Told {
    notes: BTreeMap<LogId, Vec<u64>>,
    rows: Vec<(RowKey, Bytes)>,
    gone: Vec<RowKey>,
    next: u64,
}

/// The two sides, and what outlives a process.
struct World {
    source: MemoryEngine,
    target: MemoryEngine,
    archive: Arc<dyn Archive>,
    dice: StdRng,
    told: Told,
    marks_before_check: bool,
}

fn log(number: u128) -> LogId {
    LogId::account(Uuid::from_u128(number + 1))
}

fn options() -> LogOptions {
    LogOptions {
        snapshot_entries_min: 4,
        snapshot_entries_max: 8,
        backoff_ms_min: 1,
        backoff_ms_max: 5,
        retry_ms: 1,
        deadline_seconds: 1,
        shared: true,
        head_poll_ms: 200,
        ..LogOptions::default()
    }
}

fn faults(seed: u64) -> Faults {
    Faults {
        seed,
        unknown_applied: 0.03,
        unknown_not_applied: 0.03,
        unknown_late: 0.02,
        unavailable: 0.01,
        latency: Some(Duration::from_micros(50)..Duration::from_millis(2)),
        ..Faults::default()
    }
}

impl World {
    async fn new(seed: u64) -> Self {
        let (source, target) = (MemoryEngine::new(), MemoryEngine::new());
        let archive: Arc<dyn Archive> = Arc::new(MemoryArchive::default());
        let logs = Logs::<Notes>::new(source.engine(), options(), Some(archive.clone()));
        for number in 0..LOGS {
            drop(logs.create(log(number), Notes::new(), Arc::new(Unencrypted)).await.unwrap());
        }
        assert!(logs.finish(Duration::from_secs(5)).await);
        let dice = StdRng::seed_from_u64(seed);
        Self { source, target, archive, dice, told: Told::default(), marks_before_check: false }
    }

    /// A process: it moves and serves until the power fails on a side, or for a while. `true`: everything has moved.
    async fn live(&mut self, cut: bool) -> bool {
        let (source, target) = (&self.source, &self.target);
        let seeds: [u64; 2] = [self.dice.random(), self.dice.random()];
        let mut of_source = faults(seeds[0]);
        let mut of_target = faults(seeds[1]);
        if cut {
            let (after, side) = (self.dice.random_range(1..80), self.dice.random_range(0..3));
            if side != 1 {
                of_source.power_cut_after_sync = Some(source.syncs() + after);
            }
            if side != 0 {
                of_target.power_cut_after_sync = Some(target.syncs() + after);
            }
        }
        source.set_faults(of_source);
        target.set_faults(of_target);
        let moving = Moving::new(source.engine());
        moving.inner.marks_before_check.store(self.marks_before_check, std::sync::atomic::Ordering::SeqCst);
        for attempt in 0.. {
            match moving.begin(target.engine(), "there").await {
                Ok(()) => break,
                Err(error) if error.is_temporary() && attempt < 200 => {}
                Err(_) => return false,
            }
        }
        let relocation = Relocation::new(moving.clone(), no_blobs().await);
        let writers: Vec<_> = (0..LOGS)
            .flat_map(|number| [number, number])
            .map(|number| {
                self.told.next += 10_000;
                tokio::spawn(write(moving.clone(), self.archive.clone(), log(number), self.told.next))
            })
            .collect();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let keeper =
            tokio::time::timeout(2 * PATIENCE, keep_rows(moving.clone(), self.told.next, kept.clone()));
        let keeper = tokio::spawn(keeper);
        // One failing call puts a pass off by a second, and nearly every second pass has one.
        let patience = Duration::from_secs(if cut { 30 } else { 900 });
        let done = tokio::time::timeout(patience, relocation.run()).await;
        for writer in writers {
            let (log, notes) = writer.await.unwrap();
            self.told.notes.entry(log).or_default().extend(notes);
        }
        let _ = keeper.await.unwrap();
        let kept = std::mem::take(&mut *kept.lock());
        self.told.rows.extend(kept.there);
        self.told.gone.extend(kept.gone);
        matches!(done, Ok(Ok(true)))
    }

    /// What is left of the machines comes up again.
    fn restart(&mut self) {
        self.source = self.source.after_power_cut(Faults::default());
        self.target = self.target.after_power_cut(Faults::default());
    }

    /// Problems that whoever reads the target alone would find.
    async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.target.set_faults(Faults::default());
        self.source.set_faults(Faults::default());
        let engine = self.target.engine();
        let logs = Logs::<Notes>::new(engine.clone(), options(), Some(self.archive.clone()));
        for number in 0..LOGS {
            let log = log(number);
            let verified = verify::<Notes>(&engine, log, Arc::new(Unencrypted), Some(self.archive.clone()))
                .await
                .unwrap();
            problems.extend(verified.problems.iter().map(|problem| format!("{log}: {problem}")));
            let Ok(handle) = logs.open(log, Arc::new(Unencrypted)).await else {
                problems.push(format!("{log} does not open"));
                continue;
            };
            let state = handle.with(&Notes::all_shelves()).await.unwrap();
            let mut found: Vec<u64> =
                Notes::all_shelves().iter().flat_map(|shelf| state.notes(*shelf).values().copied()).collect();
            found.sort_unstable();
            let all = found.len();
            found.dedup();
            if found.len() != all || state.count != all as i64 || state.next - 1 != all as u64 {
                problems.push(format!("{log}: something is there twice"));
            }
            for id in self.told.notes.get(&log).into_iter().flatten() {
                if found.binary_search(id).is_err() {
                    problems.push(format!("{log}: {id} was acknowledged and is lost"));
                }
            }
        }
        for (key, value) in &self.told.rows {
            if engine.rows.get(key.clone()).await.unwrap().as_ref() != Some(value) {
                problems.push(format!("row {key} is lost"));
            }
        }
        for key in &self.told.gone {
            if engine.rows.get(key.clone()).await.unwrap().is_some() {
                problems.push(format!("row {key} has come back"));
            }
        }
        problems
    }
}

/// Commits notes until the engine has stopped or a number of them is there; those that were acknowledged.
async fn write(moving: Moving, archive: Arc<dyn Archive>, log: LogId, first: u64) -> (LogId, Vec<u64>) {
    let logs = Logs::<Notes>::new(moving.engine(), options(), Some(archive));
    let (mut acknowledged, mut failures) = (Vec::new(), 0);
    for attempt in 0..6 {
        // A gate whose mark nobody can tell about stays closed until the process ends.
        let open = logs.open(log, Arc::new(Unencrypted));
        let Ok(Ok(handle)) = tokio::time::timeout(PATIENCE, open).await else {
            failures += 1;
            continue;
        };
        for number in 0..25 {
            let id = first + attempt * 100 + number;
            let put = move |state: &Notes| {
                let put = Operation::Put { shelf: (id % 4) as u8, number: state.next, id, delivery: None };
                Ok::<_, ()>(Build::new(vec![put], ()))
            };
            match handle.commit(vec![], put).await {
                Ok(_) => acknowledged.push(id),
                Err(CommitError::Stopped(_)) => break,
                Err(_) => failures += 1,
            }
            if failures > FAILURES {
                return (log, acknowledged);
            }
        }
        if acknowledged.len() > 60 {
            break;
        }
    }
    (log, acknowledged)
}

/// Rows of which it is certain that they are there, and that they are gone.
#[derive(Default)]
struct Kept {
    there: Vec<(RowKey, Bytes)>,
    gone: Vec<RowKey>,
}

/// Puts and deletes rows: references, and keys that change by conditions.
async fn keep_rows(moving: Moving, first: u64, kept: Arc<Mutex<Kept>>) {
    let rows = moving.engine().rows;
    for number in first..first + 40 {
        let key = |table| RowKey::new(table, vec![(number % 3) as u8], number.to_be_bytes().to_vec());
        let reference = engine::Row { key: key(Table::SegmentReference), value: Bytes::from_static(b"1") };
        // A deletion is durable with the next durable write.
        let next = engine::Row { key: key(Table::Moved), value: Bytes::from_static(b"1") };
        if rows.put_ordered(vec![reference.clone()]).await.is_ok()
            && number % 4 == 0
            && rows.delete(vec![reference.key.clone()]).await.is_ok()
            && rows.put(vec![next]).await.is_ok()
        {
            kept.lock().gone.push(reference.key);
        }
        let (live, erased) = (Bytes::from_static(b"live"), Bytes::from_static(b"erased"));
        let made = rows.put_new(engine::Row { key: key(Table::Key), value: live.clone() }).await;
        if made.is_ok_and(|made| made) {
            if number % 2 == 0 {
                kept.lock().there.push((key(Table::Key), live));
            } else if let Ok(true) = rows.replace_if(key(Table::Key), Some(live), Some(erased.clone())).await
            {
                kept.lock().there.push((key(Table::Key), erased));
            }
        }
    }
}

/// Some lives with cuts, and then one in which everything comes to its end.
async fn history(seed: u64, marks_before_check: bool) -> (World, Vec<String>) {
    let mut world = World::new(seed).await;
    world.marks_before_check = marks_before_check;
    for _ in 0..LIVES {
        if world.live(true).await && !world.source.power_is_cut() && !world.target.power_is_cut() {
            break;
        }
        world.restart();
        // A cut may have been in the middle of the last writes.
        let (source, target) = (world.source.engine(), world.target.engine());
        crate::complete(&source, &target).await.unwrap();
        if crate::Standing::away(&*source.rows).await.unwrap().is_some_and(|away| away.done) {
            break;
        }
    }
    let away = crate::Standing::away(&*world.source.engine().rows).await;
    if !away.is_ok_and(|away| away.is_some_and(|away| away.done)) {
        let ends = world.live(false).await;
        if !ends && marks_before_check {
            // What the defect has done can stand in the way of this too.
            return (world, vec!["the last life does not end the move".to_owned()]);
        }
        assert!(ends, "seed {seed}: the last life ends the move");
    }
    let problems = world.problems().await;
    (world, problems)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_whatever_happens_on_the_way() {
    let mut told = 0;
    for seed in 0..12 {
        let (world, problems) = history(seed, false).await;
        assert!(problems.is_empty(), "seed {seed}: {problems:?}");
        told += world.told.notes.values().map(Vec::len).sum::<usize>();
    }
    assert!(told > 1_000, "only {told} notes were acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_mark_before_the_check_is_noticed() {
    let mut noticed = 0;
    for seed in 0..10 {
        let (_, problems) = history(seed, true).await;
        noticed += usize::from(!problems.is_empty());
    }
    assert!(noticed > 0, "the checker does not notice a planted defect");
}

#[tokio::test(start_paused = true)]
async fn without_faults_both_sides_are_equal_at_the_end() {
    let mut world = World::new(1).await;
    let moving = Moving::new(world.source.engine());
    moving.begin(world.target.engine(), "there").await.unwrap();
    let writers: Vec<_> = (0..LOGS)
        .map(|number| tokio::spawn(write(moving.clone(), world.archive.clone(), log(number), 1_000)))
        .collect();
    let kept = Arc::new(Mutex::new(Kept::default()));
    let keeper = tokio::spawn(keep_rows(moving.clone(), 1_000, kept.clone()));
    for _ in 0..5 {
        // One after the other, so that writers are in the middle of it.
        tokio::task::yield_now().await;
    }
    for number in 0..LOGS {
        moving.flip(log(number), Gate::Open).await.unwrap();
    }
    for writer in writers {
        let (log, notes) = writer.await.unwrap();
        world.told.notes.entry(log).or_default().extend(notes);
    }
    keeper.await.unwrap();
    world.told.rows.extend(std::mem::take(&mut kept.lock().there));
    let relocation = Relocation::new(moving.clone(), no_blobs().await);
    assert!(relocation.run().await.unwrap());
    assert_eq!(world.problems().await, Vec::<String>::new());
    assert!(all_rows(&world.source.engine()).await == all_rows(&world.target.engine()).await);
    let progress = relocation.progress();
    assert_eq!((progress.logs_done, progress.logs_total), (LOGS as u64, LOGS as u64));
    let rows = world.target.engine().rows;
    assert!(rows.get(RowKey::new(Table::Mark, &b"move"[..], &b"into"[..])).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_on_faster_than_it_is_copied_moves_all_the_same() {
    let mut world = World::new(2).await;
    // Trimmed after a few entries, each of which takes the target longer than the source takes for several.
    let slow = Duration::from_millis(40)..Duration::from_millis(41);
    world.target.set_faults(Faults { latency: Some(slow), ..Faults::default() });
    world.source.set_faults(Faults {
        latency: Some(Duration::from_millis(2)..Duration::from_millis(3)),
        ..Faults::default()
    });
    let moving = Moving::new(world.source.engine());
    moving.begin(world.target.engine(), "there").await.unwrap();
    let writers: Vec<_> = (1..=4)
        .map(|writer| tokio::spawn(write(moving.clone(), world.archive.clone(), log(0), writer * 10_000)))
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    moving.flip(log(0), Gate::Open).await.unwrap();
    let there = world.target.engine().log.head(log(0)).await.unwrap().unwrap().seq;
    let mut told = 0;
    for writer in writers {
        let (log, notes) = writer.await.unwrap();
        told += notes.len() as u64;
        world.told.notes.entry(log).or_default().extend(notes);
    }
    assert!(there < told, "it moved before the writers were done");
    assert!(Relocation::new(moving, no_blobs().await).run().await.unwrap());
    assert_eq!(world.problems().await, Vec::<String>::new());
}
