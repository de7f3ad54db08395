//! What crashes whoever touches it goes out of the way; what was beside it does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use engine::memory::{Faults, MemoryEngine};
use mail::id::QueueId;
use queue::item::QuarantineReason;
use queue::{Config, Queue, ShardKind, SubmitError, Work};

use crate::setup::{Disk, submit};

/// What one process does until it dies of `poison`, or has nothing left to do: finishes everything else.
async fn life(queue: &Queue, poison: QueueId, done: &mut Vec<QueueId>) -> Option<Work> {
    for _ in 0..50 {
        let claimed = queue.claim_now(4).await;
        let mut found = None;
        let alone = claimed.len() == 1;
        for claimed in claimed {
            let queue_id = claimed.message().queue_id;
            if queue_id != poison {
                done.push(queue_id);
                queue.report(claimed, Vec::new(), true).await;
                continue;
            }
            let crashes = claimed.item().crashes;
            assert!(crashes == 0 || alone, "after a crash it is claimed alone");
            found = Some(claimed.work());
            if claimed.work() == Work::Quarantine {
                queue.quarantine(claimed, QuarantineReason::Crashed { crashes }).await.unwrap();
            } else {
                // The process is gone with the claim: nothing is given back.
                std::mem::forget(claimed);
            }
        }
        if found.is_some() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn five_crashes_lead_to_quarantine() {
    let disk = Disk::new();
    let mut engine = MemoryEngine::new();
    let queue = disk.open(&engine, Disk::config()).await.unwrap();
    let mut others = BTreeSet::new();
    let poison = submit(&queue, 0).await.unwrap();
    for number in 0..6 {
        others.insert(submit(&queue, number % 3).await.unwrap());
    }
    let mut done = Vec::new();
    let mut queue = Some(queue);
    let mut crashes = 0;
    loop {
        let open = match queue.take() {
            Some(open) => open,
            None => disk.open(&engine, Disk::config()).await.unwrap(),
        };
        let end = life(&open, poison, &mut done).await;
        // A crash: what was not synced is gone, and nobody says goodbye.
        open.close();
        engine = engine.after_power_cut(Faults::default());
        match end {
            Some(Work::Deliver) => crashes += 1,
            Some(Work::Quarantine) => break,
            other => panic!("the item was not found: {other:?} after {crashes} crashes"),
        }
        assert!(crashes < 10);
    }
    assert_eq!(crashes, 5);
    let open = disk.open(&engine, Disk::config()).await.unwrap();
    assert_eq!(life(&open, poison, &mut done).await, None);
    let finished: BTreeSet<QueueId> = done.iter().copied().collect();
    assert_eq!(finished, others);
    assert_eq!(open.overview().ingest, 0);
    let quarantined = open.list(ShardKind::Quarantine, 10).await.unwrap();
    assert_eq!(quarantined.iter().map(|view| view.queue_id).collect::<Vec<_>>(), [poison]);

    // Released, it is a new item, with all its chances.
    assert!(open.release(poison).await.unwrap());
    assert!(!open.release(poison).await.unwrap());
    let claimed = open.claim_now(9).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].work(), Work::Deliver);
    assert_eq!(claimed[0].item().crashes, 0);
    assert_eq!(claimed[0].expansion().unwrap().pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn panics_count_as_crashes() {
    let disk = Disk::new();
    let queue = disk.open(&MemoryEngine::new(), Disk::config()).await.unwrap();
    submit(&queue, 0).await.unwrap();
    for crashes in 0..5 {
        let claimed = queue.claim(1).await.pop().unwrap();
        assert_eq!((claimed.work(), claimed.item().crashes), (Work::Deliver, crashes));
        let mark = queue.crash_mark(&claimed);
        drop(claimed);
        queue.crashed(mark).await;
        disk.clock.set(disk.clock.now() + 60);
    }
    assert_eq!(queue.claim(1).await.pop().unwrap().work(), Work::Quarantine);
}

#[tokio::test(start_paused = true)]
async fn one_item_that_is_stuck_does_not_hold_others_back() {
    let disk = Disk::new();
    let queue = disk.open(&MemoryEngine::new(), Disk::config()).await.unwrap();
    submit(&queue, 0).await.unwrap();
    let stuck = queue.claim(1).await.pop().unwrap();
    for round in 0..20 {
        submit(&queue, 0).await.unwrap();
        let claimed = queue.claim(9).await.pop().unwrap();
        assert_eq!(claimed.watermark(), stuck.number(), "round {round}");
        queue.report(claimed, Vec::new(), true).await;
    }
    // Put off, it comes again when it is due, in whatever hour that is.
    let number = stuck.number();
    queue.put_off(stuck).await;
    assert!(queue.claim_now(9).await.is_empty());
    disk.clock.set(disk.clock.now() + 7_200);
    let again = queue.claim(9).await.pop().unwrap();
    assert_eq!((again.number(), again.item().attempts), (number, 1));
    queue.report(again, Vec::new(), true).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(queue.overview().ingest, 0);
    submit(&queue, 0).await.unwrap();
    let next = queue.claim(1).await.pop().unwrap();
    assert_eq!(next.watermark(), next.number());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_so() {
    let disk = Disk::new();
    let config = Config { items_max: 3, ingest_shards: 1, ..Disk::config() };
    let queue = disk.open(&MemoryEngine::new(), config).await.unwrap();
    for _ in 0..3 {
        submit(&queue, 0).await.unwrap();
    }
    let refused = submit(&queue, 0).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Full { .. }) && refused.is_temporary());
    let claimed = queue.claim(1).await.pop().unwrap();
    queue.report(claimed, Vec::new(), true).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    submit(&queue, 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_number_of_shards_is_fixed() {
    let disk = Disk::new();
    let engine = MemoryEngine::new();
    disk.open(&engine, Disk::config()).await.unwrap().close();
    assert!(disk.open(&engine, Config { ingest_shards: 4, ..Disk::config() }).await.is_none());
    assert!(disk.open(&engine, Disk::config()).await.is_some());
}
