//! A wall clock that was ahead and is put right: what was put off meanwhile does not wait until that time comes.
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use engine::memory::MemoryEngine;
use mail::envelope::Notify;
use queue::item::Said;
use queue::{AttemptReport, AttemptResult, Clock, Config, Leased, Queue};

use crate::operate::Bench;
use crate::setup::{self, Disk};

/// More than anything is put off by, and less than until it expires.
const AHEAD: u64 = 3 * 86_400;

fn deferred() -> AttemptResult {
    AttemptResult::Deferred { said: Said::new(1, "451 later"), not_before: None }
}

/// Everything that is due within a few rounds of the keeper.
async fn due_soon(queue: &Queue) -> Vec<Leased> {
    let outbound = queue.outbound();
    let mut leases = Vec::new();
    for _ in 0..50 {
        for mut turn in outbound.turns_now(99) {
            let claims = turn.claim(99).await;
            let leased = outbound.lease(claims, Duration::from_secs(60)).await;
            leases.extend(leased.into_iter().map(Result::unwrap));
        }
        if !leases.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    leases
}

async fn report(queue: &Queue, leased: Vec<Leased>, result: &AttemptResult) {
    let reports = leased.into_iter().map(|leased| AttemptReport::all(leased, result)).collect();
    for reported in queue.outbound().report(reports).await {
        reported.unwrap();
    }
}

#[tokio::test]
async fn put_right_while_it_runs() {
    let bench = Bench::new().await;
    let right = bench.disk.clock.now();
    // Nobody is here to tell of a delay.
    bench
        .send("a@us.test", &["b@other.test"], |message| message.recipients[0].notify = Notify::FAILURE)
        .await;
    let leased = due_soon(&bench.queue).await;
    assert_eq!(leased.len(), 1);
    report(&bench.queue, leased, &deferred()).await;
    // The clock jumps, and what had to wait is tried; then it is put right.
    bench.disk.clock.set(right + AHEAD);
    let leased = due_soon(&bench.queue).await;
    assert_eq!(leased.len(), 1);
    report(&bench.queue, leased, &deferred()).await;
    bench.disk.clock.set(right + 60);
    let leased = due_soon(&bench.queue).await;
    assert_eq!(leased.len(), 1);
    // Tried once and put off by the right clock: it does not come again before its time.
    report(&bench.queue, leased, &deferred()).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bench.queue.outbound().turns_now(99).len(), 0);
    bench.disk.clock.set(right + 60 + 4 * 3_600);
    assert_eq!(due_soon(&bench.queue).await.len(), 1);
}

#[tokio::test]
async fn put_right_before_a_start() {
    let bench = Bench::new().await;
    let right = bench.disk.clock.now();
    bench.disk.clock.set(right + AHEAD);
    bench.send("a@us.test", &["b@other.test"], |_| ()).await;
    let leased = due_soon(&bench.queue).await;
    assert_eq!(leased.len(), 1);
    report(&bench.queue, leased, &deferred()).await;
    let Bench { disk, engine, queue } = bench;
    drop(queue);
    disk.clock.set(right);
    let queue = disk.open(&engine, Disk::config()).await.unwrap();
    assert_eq!(due_soon(&queue).await.len(), 1);
}

/// The same for what is delivered here; but what its sender wants to be held is held.
#[tokio::test]
async fn accepted_while_it_was_ahead() {
    let (disk, engine) = (Disk::new(), MemoryEngine::new());
    let queue = disk.open(&engine, Disk::config()).await.unwrap();
    let right = disk.clock.now();
    let held = setup::submit_held(&queue, 1, Some(right + 5 * 86_400)).await.unwrap();
    disk.clock.set(right + AHEAD);
    let id = setup::submit(&queue, 2).await.unwrap();
    drop(queue);
    disk.clock.set(right);
    let queue = disk.open(&engine, Disk::config()).await.unwrap();
    let claimed = tokio::time::timeout(Duration::from_secs(10), queue.claim(9)).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|claimed| claimed.item().message.queue_id).collect();
    assert_eq!(ids, [id], "{held} is held");
}

/// A node whose clock is ten minutes ahead accepts, and another whose clock is right delivers: at once, in this hour or over
/// its end. What its sender wants to be held is held, also for less than that.
#[tokio::test]
async fn accepted_by_a_node_that_is_ahead() {
    for into_the_hour in [60, 3_300] {
        let (mut disk, engine) = (Disk::new(), MemoryEngine::new());
        disk.log_options.shared = true;
        let right = disk.clock.now() + into_the_hour;
        disk.clock.set(right);
        let here = disk.open(&engine, Disk::config()).await.unwrap();
        let there = Disk {
            clock: Clock::standing(right + 600),
            blobs: disk.blobs.clone(),
            archive: None,
            log_options: disk.log_options.clone(),
            exclusive: false,
        };
        let there = there.open(&engine, Disk::config()).await.unwrap();
        let mut sent = BTreeSet::new();
        for number in 0..6 {
            sent.insert(setup::submit(&there, number).await.unwrap());
        }
        let held = setup::submit_held(&there, 7, Some(right + 660)).await.unwrap();
        drop(there);
        let mut claimed = Vec::new();
        while claimed.len() < sent.len() {
            claimed.extend(tokio::time::timeout(Duration::from_secs(10), here.claim(9)).await.unwrap());
        }
        let ids: BTreeSet<_> = claimed.iter().map(|claimed| claimed.item().message.queue_id).collect();
        assert_eq!(ids, sent, "{into_the_hour}: {held} is held");
    }
}

/// A message that has expired is tried with the waits that it has until the clock can be trusted, and not without end.
#[tokio::test]
async fn expired_before_the_clock_is_trusted() {
    let (disk, engine) = (Disk::new(), MemoryEngine::new());
    let config = Config { expiry_grace_seconds: 3_600, ..Disk::config() };
    let queue = disk.open(&engine, config).await.unwrap();
    let bench = Bench { disk, engine, queue };
    bench.send("a@us.test", &["b@other.test"], |_| ()).await;
    bench.disk.clock.set(bench.disk.clock.now() + 6 * 86_400);
    let leased = due_soon(&bench.queue).await;
    assert_eq!(leased.len(), 1);
    report(&bench.queue, leased, &deferred()).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bench.queue.outbound().turns_now(99).len(), 0);
    bench.disk.clock.set(bench.disk.clock.now() + 4 * 3_600);
    assert_eq!(due_soon(&bench.queue).await.len(), 1);
}
