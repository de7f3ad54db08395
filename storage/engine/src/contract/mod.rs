//! What every back end must do. Each calls these suites from its own tests; they use fresh ids, so one engine serves all.

pub mod notes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::Archive;
use crate::context::Engine;
use crate::handle::LogHandle;
use crate::id::{LogId, LogKind};
use crate::log::{EntryRow, Log, Outcome, SnapshotPointer};
use crate::logs::Logs;
use crate::memory::MemoryArchive;
use crate::options::LogOptions;
use crate::request::Build;
use crate::rows::{Row, RowKey, Rows, Table, successor};
use crate::seal::Unencrypted;
use crate::verify::verify;
use notes::{Notes, Operation};

/// All suites.
pub async fn all(engine: &Engine) {
    log(&*engine.log).await;
    log_values(&*engine.log).await;
    log_race(engine).await;
    rows(&*engine.rows).await;
    rows_together(&engine.rows).await;
    conditional_rows(&*engine.rows).await;
    scans(&*engine.rows).await;
    listings(engine).await;
    actors(engine).await;
}

fn entry(first_seq: u64, last_seq: u64) -> EntryRow {
    let nonce = Uuid::new_v4();
    EntryRow { first_seq, last_seq, nonce, bytes: Bytes::copy_from_slice(nonce.as_bytes()) }
}

fn snapshot(seq: u64, base_seq: u64) -> SnapshotPointer {
    SnapshotPointer { id: Uuid::new_v4(), seq, base_seq }
}

fn fresh_log() -> LogId {
    LogId::account(Uuid::new_v4())
}

/// Creation, compare-and-swap, trim, swing, deletion.
pub async fn log(log: &dyn Log) {
    let id = fresh_log();
    assert!(log.load(id, 10).await.unwrap().is_none());
    assert!(log.head(id).await.unwrap().is_none());
    assert!(log.tail_after(id, 0, 10).await.unwrap().is_none());
    assert_eq!(log.append(id, &entry(1, 1), None).await.unwrap(), Outcome::Conflict, "never creates a log");
    assert!(log.head(id).await.unwrap().is_none());

    let first = snapshot(0, 0);
    assert_eq!(log.create(id, first).await.unwrap(), Outcome::Applied);
    assert_eq!(log.create(id, snapshot(0, 0)).await.unwrap(), Outcome::Conflict);
    let head = log.head(id).await.unwrap().unwrap();
    assert_eq!((head.seq, head.snapshot), (0, first));

    let entries = [entry(1, 1), entry(2, 5), entry(6, 6)];
    for wrong in [entry(2, 2), entry(7, 7)] {
        assert_eq!(log.append(id, &wrong, None).await.unwrap(), Outcome::Conflict);
    }
    for entry in &entries {
        assert_eq!(log.append(id, entry, None).await.unwrap(), Outcome::Applied);
        assert_eq!(log.append(id, entry, None).await.unwrap(), Outcome::Conflict, "a place is taken once");
    }
    let loaded = log.load(id, 10).await.unwrap().unwrap();
    assert_eq!((loaded.head.seq, &loaded.rows[..]), (6, &entries[..]));
    let limited = log.load(id, 2).await.unwrap().unwrap();
    assert_eq!((limited.head.seq, &limited.rows[..]), (6, &entries[..2]));
    for (after, from) in [(0, 0), (1, 1), (2, 1), (4, 1), (5, 2), (6, 3), (9, 3)] {
        let tail = log.tail_after(id, after, 10).await.unwrap().unwrap();
        assert_eq!((tail.head.seq, &tail.rows[..]), (6, &entries[from..]), "after {after}");
        if let Some(tail) = log.tail_of_any(id, after, 10).await.unwrap() {
            assert!(tail.head.seq <= 6 && entries[from..].starts_with(&tail.rows), "after {after}: {tail:?}");
            assert!(tail.rows.last().is_none_or(|last| last.last_seq == tail.head.seq), "{tail:?}");
        }
    }

    let second = snapshot(5, 0);
    let swing = log.swing(id, Uuid::new_v4(), second).await.unwrap();
    assert_eq!(swing, Outcome::Conflict);
    assert_eq!(log.swing(id, first.id, second).await.unwrap(), Outcome::Applied);
    assert_eq!(log.swing(id, first.id, snapshot(6, 0)).await.unwrap(), Outcome::Conflict);
    let loaded = log.load(id, 10).await.unwrap().unwrap();
    assert_eq!((loaded.head.snapshot, &loaded.rows[..]), (second, &entries[2..]));

    let after_trim = entry(7, 8);
    assert_eq!(log.append(id, &entry(1, 1), Some(5)).await.unwrap(), Outcome::Conflict);
    assert_eq!(
        log.tail_after(id, 0, 10).await.unwrap().unwrap().rows.len(),
        3,
        "a lost commit trims nothing"
    );
    assert_eq!(log.append(id, &after_trim, Some(5)).await.unwrap(), Outcome::Applied);
    let tail = log.tail_after(id, 0, 10).await.unwrap().unwrap();
    assert_eq!(tail.rows, [entries[2].clone(), after_trim.clone()]);

    // Trimmed to none: the head is kept all the same.
    let third = snapshot(8, 5);
    assert_eq!(log.swing(id, second.id, third).await.unwrap(), Outcome::Applied);
    let last = entry(9, 9);
    assert_eq!(log.append(id, &last, Some(8)).await.unwrap(), Outcome::Applied);
    assert_eq!(log.append(id, &entry(10, 10), Some(8)).await.unwrap(), Outcome::Applied, "trim again");
    let fourth = snapshot(10, 8);
    assert_eq!(log.swing(id, third.id, fourth).await.unwrap(), Outcome::Applied);
    let loaded = log.load(id, 10).await.unwrap().unwrap();
    assert_eq!((loaded.head.seq, loaded.head.snapshot, loaded.rows.len()), (10, fourth, 0));

    let other = fresh_log();
    assert_eq!(log.create(other, snapshot(0, 0)).await.unwrap(), Outcome::Applied);
    log.delete(id).await.unwrap();
    assert!(log.load(id, 10).await.unwrap().is_none());
    assert!(log.tail_after(id, 0, 10).await.unwrap().is_none());
    assert_eq!(log.append(id, &entry(11, 11), None).await.unwrap(), Outcome::Conflict, "stays deleted");
    assert_eq!(log.swing(id, fourth.id, snapshot(11, 10)).await.unwrap(), Outcome::Conflict);
    assert_eq!(
        log.append(other, &entry(1, 1), None).await.unwrap(),
        Outcome::Applied,
        "others are untouched"
    );
}

/// Kinds of log are apart, a log can start elsewhere than at zero, and entries keep their bytes.
pub async fn log_values(log: &dyn Log) {
    let id = Uuid::new_v4();
    let kinds = [LogId::account(id), LogId::shard(id), LogId::domain(id), LogId::registry(id)];
    for (number, kind) in (0_u64..).zip(kinds) {
        assert!(log.head(kind).await.unwrap().is_none());
        let start = snapshot(number * 1_000, 0);
        assert_eq!(log.create(kind, start).await.unwrap(), Outcome::Applied);
        assert_eq!(log.head(kind).await.unwrap().unwrap().seq, start.seq);
    }
    for (seq, length) in (1_000..).zip([0, 1, 255, 4_096, 70_000, 300_000]) {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        let row = EntryRow { bytes: bytes.into(), ..entry(seq + 1, seq + 1) };
        assert_eq!(log.append(kinds[1], &row, None).await.unwrap(), Outcome::Applied);
        let tail = log.tail_after(kinds[1], seq, 1).await.unwrap().unwrap();
        assert_eq!(tail.rows, [row], "{length} bytes");
    }
    assert_eq!(log.head(kinds[0]).await.unwrap().unwrap().seq, 0);
}

/// Many proposers at one place: one wins.
pub async fn log_race(engine: &Engine) {
    let id = fresh_log();
    assert_eq!(engine.log.create(id, snapshot(0, 0)).await.unwrap(), Outcome::Applied);
    let mut seq = 0;
    for _ in 0..10 {
        let racers = (0..8).map(|_| {
            let log = engine.log.clone();
            tokio::spawn(async move { log.append(id, &entry(seq + 1, seq + 2), None).await.unwrap() })
        });
        let mut applied = 0;
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Outcome::Applied => applied += 1,
                Outcome::Conflict => {}
                Outcome::Unknown => panic!("no fault was injected"),
            }
        }
        assert_eq!(applied, 1);
        seq += 2;
        assert_eq!(engine.log.head(id).await.unwrap().unwrap().seq, seq);
    }
}

fn mark(partition: &Bytes, key: &str, value: &str) -> Row {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Row::new(Table::Mark, partition.clone(), key, Bytes::copy_from_slice(value.as_bytes()))
}

fn fresh_partition() -> Bytes {
    Bytes::copy_from_slice(Uuid::new_v4().as_bytes())
}

/// Put, get, delete.
pub async fn rows(rows: &dyn Rows) {
    let partition = fresh_partition();
    let row = mark(&partition, "a", "1");
    assert_eq!(rows.get(row.key.clone()).await.unwrap(), None);
    rows.put(vec![row.clone(), mark(&partition, "b", "")]).await.unwrap();
    rows.put(Vec::new()).await.unwrap();
    assert_eq!(rows.get(row.key.clone()).await.unwrap(), Some(row.value.clone()));
    rows.put_ordered(vec![mark(&partition, "a", "2"), mark(&partition, "c", "3")]).await.unwrap();
    let keys: Vec<RowKey> = ["c", "x", "a", "b"].iter().map(|key| mark(&partition, key, "").key).collect();
    let values = rows.get_many(keys.clone()).await.unwrap();
    let found: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&b"3"[..]), None, Some(b"2"), Some(b"")]);
    let values = rows.put_ordered_then_get(vec![mark(&partition, "a", "4")], keys.clone()).await.unwrap();
    let found: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&b"3"[..]), None, Some(b"4"), Some(b"")]);

    let other_table = RowKey { table: Table::Node, ..row.key.clone() };
    assert_eq!(rows.get(other_table).await.unwrap(), None, "tables are apart");
    rows.delete(keys).await.unwrap();
    assert_eq!(rows.get(row.key).await.unwrap(), None);
    assert!(rows.scan(Table::Mark, partition, Bytes::new(), 10).await.unwrap().is_empty());

    let large = Row { value: Bytes::from(vec![9; 3_000_000]), ..mark(&fresh_partition(), "large", "") };
    rows.put(vec![large.clone()]).await.unwrap();
    assert_eq!(rows.get(large.key).await.unwrap(), Some(large.value));
}

/// Many put rows of one partition at one time and look behind them: each sees what it put, and what was there before it
/// began, and nobody's rows are missing or changed in the end.
pub async fn rows_together(rows: &Arc<dyn Rows>) {
    const CALLERS: u32 = 100;
    let (partition, other) = (fresh_partition(), fresh_partition());
    let row = |partition: &Bytes, caller: u32, number: u32| {
        let key = Bytes::from([caller.to_be_bytes(), number.to_be_bytes()].concat());
        let value = Bytes::from(caller.to_be_bytes().to_vec());
        Row::new(Table::SegmentReference, partition.clone(), key, value)
    };
    let there = mark(&partition, "there", "1");
    rows.put(vec![there.clone()]).await.unwrap();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            // Some of their rows are of two partitions.
            let mut own: Vec<Row> = (0..=caller % 3).map(|number| row(&partition, caller, number)).collect();
            own.extend((caller % 7 == 6).then(|| row(&other, caller, 0)));
            let mut keys: Vec<RowKey> = own.iter().map(|row| row.key.clone()).collect();
            keys.extend([there.key.clone(), mark(&partition, "never", "").key]);
            let rows = Arc::clone(rows);
            tokio::spawn(async move {
                let found = rows.put_ordered_then_get(own.clone(), keys).await.unwrap();
                (own, found)
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for caller in callers {
        let (own, found) = caller.await.unwrap();
        let mut expected: Vec<_> = own.iter().map(|row| Some(row.value.clone())).collect();
        expected.extend([Some(there.value.clone()), None]);
        assert_eq!(found, expected);
        all.extend(own.into_iter().map(|row| (row.key, row.value)));
    }
    let mut kept = BTreeMap::new();
    for partition in [partition, other] {
        let of_it = rows.scan(Table::SegmentReference, partition.clone(), Bytes::new(), 1_000).await.unwrap();
        kept.extend(
            of_it
                .into_iter()
                .map(|(key, value)| (RowKey::new(Table::SegmentReference, partition.clone(), key), value)),
        );
    }
    assert_eq!(kept, all);
}

/// Writes with a condition.
pub async fn conditional_rows(rows: &dyn Rows) {
    let partition = fresh_partition();
    let row = mark(&partition, "k", "1");
    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert!(rows.put_new(row.clone()).await.unwrap());
    assert!(!rows.put_new(mark(&partition, "k", "2")).await.unwrap());
    assert_eq!(rows.get(row.key.clone()).await.unwrap(), value("1"));
    let key = row.key;
    for (expected, new, applied, after) in [
        (value("2"), value("3"), false, value("1")),
        (None, value("3"), false, value("1")),
        (None, None, false, value("1")),
        (value("1"), value("1"), true, value("1")),
        (value("1"), value("3"), true, value("3")),
        (value("1"), None, false, value("3")),
        (value("3"), None, true, None),
        (value("3"), value("4"), false, None),
        (None, None, true, None),
        (None, value("5"), true, value("5")),
    ] {
        assert_eq!(rows.replace_if(key.clone(), expected, new).await.unwrap(), applied);
        assert_eq!(rows.get(key.clone()).await.unwrap(), after);
    }
}

/// Scans stay in their partition, in order, and can be continued.
pub async fn scans(rows: &dyn Rows) {
    // Partitions and keys whose plain concatenations would collide or sort into each other.
    let partition = fresh_partition();
    let mut longer = partition.to_vec();
    longer.push(b'a');
    let shorter = partition.slice(..partition.len() - 1);
    let keys = ["", "a", "a\0", "a\0\0", "ab", "b", "\u{ff}", "zz"];
    let mut all = Vec::new();
    for partition in [&partition, &Bytes::from(longer), &shorter] {
        all.extend(keys.iter().map(|key| mark(partition, key, key)));
    }
    rows.put(all).await.unwrap();
    let mut expected: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    expected.sort_unstable();
    for limit in 1..=9 {
        let mut found = Vec::new();
        let mut from = Bytes::new();
        loop {
            let some = rows.scan(Table::Mark, partition.clone(), from, limit).await.unwrap();
            let Some((last, _)) = some.last() else { break };
            from = successor(last);
            assert!(some.len() <= limit);
            found.extend(some);
        }
        let keys: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(keys, expected, "limit {limit}");
        assert!(found.iter().all(|(key, value)| key == value));
    }
    let from = Bytes::from_static(b"a\0");
    let keys = rows.scan_keys(Table::Mark, partition.clone(), from, 2).await.unwrap();
    assert_eq!(keys, [&b"a\0"[..], b"a\0\0"]);
    assert!(rows.scan(Table::Node, partition, Bytes::new(), 10).await.unwrap().is_empty());
}

/// All logs of a kind and all partitions of a table can be found without knowing them, in steps of any size.
pub async fn listings(engine: &Engine) {
    let mut logs = BTreeSet::new();
    for _ in 0..5 {
        let log = LogId::shard(Uuid::new_v4());
        assert_eq!(engine.log.create(log, snapshot(0, 0)).await.unwrap(), Outcome::Applied);
        assert_eq!(engine.log.append(log, &entry(1, 1), None).await.unwrap(), Outcome::Applied);
        logs.insert(log);
    }
    let domain = LogId::domain(Uuid::new_v4());
    assert_eq!(engine.log.create(domain, snapshot(7, 0)).await.unwrap(), Outcome::Applied);
    let deleted = *logs.first().unwrap();
    engine.log.delete(deleted).await.unwrap();
    logs.remove(&deleted);
    // Names of which one begins with another, and that end in the greatest byte.
    let stem = Uuid::new_v4();
    let partitions: BTreeSet<Bytes> = [&b""[..], b"a", b"ab", b"\xff", b"\xff\xff", b"b"]
        .iter()
        .map(|end| Bytes::from([stem.as_bytes(), *end].concat()))
        .collect();
    for partition in &partitions {
        engine.rows.put(vec![mark(partition, "1", "x"), mark(partition, "2", "y")]).await.unwrap();
    }
    for limit in [1, 2, 3, 1_000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let some = engine.log.list(LogKind::Shard, after, limit).await.unwrap();
            assert!(some.len() <= limit && some.iter().all(|log| log.kind == LogKind::Shard));
            let Some(last) = some.last() else { break };
            after = Some(*last);
            found.extend(some);
        }
        let set: BTreeSet<LogId> = found.iter().copied().collect();
        assert_eq!(set.len(), found.len(), "each once, limit {limit}");
        assert!(set.is_superset(&logs) && !set.contains(&deleted), "limit {limit}");

        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let some = engine.rows.partitions(Table::Mark, after, limit).await.unwrap();
            assert!(some.len() <= limit);
            let Some(last) = some.last() else { break };
            after = Some(last.clone());
            found.extend(some);
        }
        let set: BTreeSet<Bytes> = found.iter().cloned().collect();
        assert_eq!(set.len(), found.len(), "each once, limit {limit}");
        assert!(set.is_superset(&partitions), "limit {limit}");
    }
    let domains = engine.log.list(LogKind::Domain, None, 100_000).await.unwrap();
    assert!(domains.contains(&domain));
}

async fn put_note(handle: &LogHandle<Notes>, id: u64) -> u64 {
    let put = move |state: &Notes| {
        let number = state.next;
        let put = Operation::Put { shelf: (id % 4) as u8, number, id, delivery: None };
        Ok::<_, ()>(Build::new(vec![put], number))
    };
    handle.commit(vec![], put).await.unwrap().answer
}

async fn remove_note(handle: &LogHandle<Notes>, shelf: u8, number: u64) {
    let remove = move |state: &Notes| {
        assert!(state.notes(shelf).contains_key(&number));
        Ok::<_, ()>(Build::new(vec![Operation::Remove { shelf, number }], ()))
    };
    handle.commit(vec![shelf], remove).await.unwrap();
}

/// Every operation is read again once, whether it lies in the log, in the archive, or on both sides of the seam.
async fn replays(handle: &LogHandle<Notes>, step: usize) {
    let last = handle.refresh(&[]).await.unwrap().seq;
    let mut from = 1;
    while from <= last {
        let part = handle.replay(from, step).await.unwrap();
        assert!((1..=step).contains(&part.operations.len()), "{from}");
        for (number, _) in part.operations {
            assert_eq!(number, from);
            from += 1;
        }
        assert_eq!(part.next, from);
    }
    assert!(handle.replay(from + 50, step).await.unwrap().operations.is_empty());
}

/// The whole of it: two actors on one log commit, take snapshots, archive, trim and collect, and what is stored checks.
pub async fn actors(engine: &Engine) {
    let options = LogOptions {
        shared: true,
        snapshot_entries_min: 4,
        snapshot_entries_max: 8,
        head_poll_ms: 50,
        retry_ms: 10,
        ..LogOptions::default()
    };
    let archive: Arc<dyn Archive> = Arc::new(MemoryArchive::default());
    let node = || Logs::<Notes>::new(engine.clone(), options.clone(), Some(archive.clone()));
    let nodes = [node(), node()];
    let (id, sealer) = (fresh_log(), Arc::new(Unencrypted));
    drop(nodes[0].create(id, Notes::new(), sealer.clone()).await.unwrap());
    let handles =
        [nodes[0].open(id, sealer.clone()).await.unwrap(), nodes[1].open(id, sealer.clone()).await.unwrap()];

    // Rounds until every mechanism has been at work; how long that takes depends on the back end.
    let mut expected: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); notes::SHELVES.into()];
    for round in 0..500 {
        for (node, handle) in (0_u64..).zip(&handles) {
            let ids = [round * 4 + node * 2, round * 4 + node * 2 + 1];
            let (first, second) = tokio::join!(put_note(handle, ids[0]), put_note(handle, ids[1]));
            expected[(ids[0] % 4) as usize].insert(first, ids[0]);
            expected[(ids[1] % 4) as usize].insert(second, ids[1]);
            if round % 5 == 4 {
                remove_note(handle, (ids[0] % 4) as u8, first).await;
                expected[(ids[0] % 4) as usize].remove(&first);
            }
        }
        let stats = nodes[0].stats().plus(nodes[1].stats());
        let all = [stats.swings, stats.archives, stats.trims, stats.pages_collected, stats.entries_followed];
        if round >= 20 && all.iter().all(|count| *count > 4) {
            break;
        }
        assert!(round < 499, "not every mechanism was at work: {stats:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for handle in &handles {
        let state = handle.refresh(&Notes::all_shelves()).await.unwrap();
        for shelf in Notes::all_shelves() {
            assert_eq!(*state.notes(shelf), expected[usize::from(shelf)]);
        }
    }
    for step in [7, 1_000] {
        replays(&handles[0], step).await;
    }
    drop(handles);
    for node in &nodes {
        assert!(node.finish(Duration::from_secs(20)).await);
    }
    let verified = verify::<Notes>(engine, id, sealer.clone(), Some(archive.clone())).await.unwrap();
    assert!(verified.is_sound() && verified.compared, "{verified:?}");

    let fresh = Logs::<Notes>::new(engine.clone(), options.clone(), Some(archive.clone()));
    let handle = fresh.open(id, sealer.clone()).await.unwrap();
    let state = handle.with(&Notes::all_shelves()).await.unwrap();
    for shelf in Notes::all_shelves() {
        assert_eq!(*state.notes(shelf), expected[usize::from(shelf)]);
    }
    fresh.delete(id).await.unwrap();
    assert!(fresh.open(id, sealer).await.is_err());
    let pages = engine.rows.scan_keys(Table::Page, crate::page_partition(id), Bytes::new(), 10).await;
    assert!(pages.unwrap().is_empty());
}
