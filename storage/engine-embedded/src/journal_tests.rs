//! Power cuts, as the newest journal shows them.

use std::fs;
use std::path::{Path, PathBuf};

use engine::{EntryRow, Log, LogId, Outcome, SnapshotPointer};
use uuid::Uuid;

use super::{find_torn, newest_journal, read_batch};
use crate::{Config, Embedded, OpenError};

const PAGE: usize = 4096;

fn config() -> Config {
    Config { reserve_bytes: 0, ..Config::default() }
}

fn log_id() -> LogId {
    LogId::account(Uuid::from_u128(7))
}

fn entry(seq: u64) -> EntryRow {
    let bytes: Vec<u8> = (0..9_000_u64).map(|i| (i * 31 + seq) as u8 | 1).collect();
    EntryRow { first_seq: seq, last_seq: seq, nonce: Uuid::from_u128(seq.into()), bytes: bytes.into() }
}

/// A folder with ten acknowledged entries, whose engine was stopped without warning: nothing after the last entry.
async fn stopped(folder: &Path) -> PathBuf {
    let live = folder.join("live");
    let engine = Embedded::open(&live, config()).unwrap();
    let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
    engine.create(log_id(), snapshot).await.unwrap();
    for seq in 1..=10 {
        assert_eq!(engine.append(log_id(), &entry(seq), None).await.unwrap(), Outcome::Applied);
    }
    let image = folder.join("image");
    copy(&live, &image);
    image
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "jnl") {
            // Without the room that is laid out in advance.
            let bytes = fs::read(&path).unwrap();
            let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
            fs::write(&target, &bytes[..end]).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn batches(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(batch) = read_batch(bytes, *starts.last().unwrap()) {
        starts.push(batch.end);
    }
    starts
}

/// Opens the image with another journal and says how many entries it has, after adding one more.
async fn reopen(image: &Path, journal: &[u8]) -> Result<u64, OpenError> {
    let folder = tempfile::tempdir().unwrap();
    copy(image, folder.path());
    let path = newest_journal(&folder.path().join("data")).unwrap().unwrap();
    fs::write(path, journal).unwrap();
    let engine = Embedded::open(folder.path(), config())?;
    let tail = engine.load(log_id(), 100).await.unwrap().unwrap();
    assert_eq!(tail.rows, (1..=tail.head.seq).map(entry).collect::<Vec<_>>());
    let next = tail.head.seq + 1;
    assert_eq!(engine.append(log_id(), &entry(next), None).await.unwrap(), Outcome::Applied);
    drop(engine);
    let engine = Embedded::open(folder.path(), config())?;
    assert_eq!(engine.head(log_id()).await.unwrap().unwrap().seq, next);
    Ok(tail.head.seq)
}

#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let image = stopped(folder.path()).await;
    let path = newest_journal(&image.join("data")).unwrap().unwrap();
    let journal = fs::read(path).unwrap();
    assert!(find_torn(&journal).is_none());
    let starts = batches(&journal);
    let (last, end) = (starts[starts.len() - 2], starts[starts.len() - 1]);
    assert_eq!(end, journal.len());
    assert_eq!(reopen(&image, &journal).await.unwrap(), 10);

    // The last group is missing pages, in every combination, or has been written in part.
    let pages: Vec<usize> = (last / PAGE..=(end - 1) / PAGE).collect();
    for missing in 1_u32..1 << pages.len() {
        let mut torn = journal.clone();
        torn.resize(end + 3 * PAGE, 0);
        for (bit, page) in pages.iter().enumerate() {
            if missing & 1 << bit != 0 {
                torn[(page * PAGE).max(last)..((page + 1) * PAGE).min(end)].fill(0);
            }
        }
        assert_eq!(reopen(&image, &torn).await.unwrap(), 9, "missing {missing:b}");
    }
    for length in [last, last + 1, last + 13, last + 14, last + 200, end - 14, end - 5, end - 1] {
        assert_eq!(reopen(&image, &journal[..length]).await.unwrap(), 9, "length {}", length - last);
    }
}

#[tokio::test]
async fn damage_before_the_end_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let image = stopped(folder.path()).await;
    let path = newest_journal(&image.join("data")).unwrap().unwrap();
    let journal = fs::read(path).unwrap();
    let starts = batches(&journal);
    let victim = starts[starts.len() - 5];
    for at in [0, 1, 5, 13, 20, 40, 300, 5_000] {
        let mut damaged = journal.clone();
        damaged[victim + at] ^= 0x40;
        // The number of the batch is not part of its checksum and only orders it.
        if (5..13).contains(&at) {
            continue;
        }
        let error = reopen(&image, &damaged).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::Journal { offset, .. } if *offset == victim as u64),
            "byte {at}: {error}"
        );
    }
}

#[tokio::test]
async fn after_an_orderly_end_even_the_last_group_is_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("closed");
    let engine = Embedded::open(&image, config()).unwrap();
    let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
    engine.create(log_id(), snapshot).await.unwrap();
    engine.append(log_id(), &entry(1), None).await.unwrap();
    drop(engine);
    let path = newest_journal(&image.join("data")).unwrap().unwrap();
    let mut journal = fs::read(path).unwrap();
    let starts = batches(&journal);
    journal[starts[starts.len() - 3] + 100] ^= 1;
    assert!(matches!(reopen(&image, &journal).await, Err(OpenError::Journal { .. })));
}
