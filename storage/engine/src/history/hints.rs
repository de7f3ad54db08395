//! Two nodes on one engine: what one commits the other sees by a hint at once, and without one when it polls. Time is
//! virtual: it goes on only when nothing else can.

use std::time::Duration;

use tokio::time::Instant;

use super::{log_id, sealer};
use crate::contract::notes::{Notes, Operation};
use crate::handle::LogHandle;
use crate::hint::Hints;
use crate::logs::Logs;
use crate::memory::{Faults, MemoryEngine};
use crate::options::LogOptions;
use crate::request::Build;

const POLL: Duration = Duration::from_secs(15);

struct Node {
    hints: Hints,
    logs: Logs<Notes>,
}

fn node(engine: &MemoryEngine) -> Node {
    let options = LogOptions { shared: true, head_poll_ms: POLL.as_millis() as u64, ..LogOptions::default() };
    let hints = Hints::new(100);
    let logs = Logs::new(engine.engine().with_hints(hints.clone()), options, None);
    Node { hints, logs }
}

async fn put(handle: &LogHandle<Notes>) -> u64 {
    let build = |state: &Notes| {
        let put = Operation::Put { shelf: 0, number: state.next, id: 1, delivery: None };
        Ok::<_, ()>(Build::new(vec![put], ()))
    };
    handle.commit(vec![], build).await.unwrap().last_seq
}

/// Carries what `from` says to `to`.
fn bridge(from: &Node, to: &Node) {
    let (from, to) = (from.hints.clone(), to.hints.clone());
    tokio::spawn(async move {
        loop {
            for (log, seq) in from.next(8).await {
                to.heard(log, seq);
            }
        }
    });
}

/// How long the second node takes to see a commit of the first.
async fn delay(bridged: bool) -> Duration {
    let engine = MemoryEngine::new();
    let (first, second) = (node(&engine), node(&engine));
    if bridged {
        bridge(&first, &second);
    }
    let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
    let mut seen = reader.watch();
    let start = Instant::now();
    let seq = put(&writer).await;
    seen.wait_for(|seen| *seen >= seq).await.unwrap();
    assert_eq!(reader.state().count, 1);
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_hint_shows_a_commit_at_once_and_a_poll_without_one() {
    assert_eq!(delay(true).await, Duration::ZERO);
    assert_eq!(delay(false).await, POLL);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_holds_costs_nothing() {
    let engine = MemoryEngine::new();
    let options = LogOptions {
        shared: true,
        head_poll_ms: POLL.as_millis() as u64,
        poll_unheld: false,
        ..LogOptions::default()
    };
    let logs: Logs<Notes> = Logs::new(engine.engine(), options, None);
    let handle = logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    let before = logs.stats().looks;
    tokio::time::sleep(10 * POLL).await;
    let held = logs.stats().looks - before;
    assert!((9..=11).contains(&held), "{held} looks at one that is held");
    drop(handle);
    tokio::time::sleep(POLL).await;
    let before = logs.stats().looks;
    tokio::time::sleep(100 * POLL).await;
    assert_eq!((logs.stats().looks - before, logs.open_count()), (0, 1));
    // Whoever comes sees what others have done meanwhile.
    let elsewhere = node(&engine);
    let seq = put(&elsewhere.logs.open(log_id(1), sealer()).await.unwrap()).await;
    let handle = logs.open(log_id(1), sealer()).await.unwrap();
    handle.refresh(&[]).await.unwrap();
    assert_eq!(handle.seq(), seq);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_attends_to_is_looked_at_when_it_is_wanted() {
    let engine = MemoryEngine::new();
    let (first, second) = (node(&engine), node(&engine));
    bridge(&first, &second);
    let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    let other = second.logs.open(log_id(1), sealer()).await.unwrap();
    other.attend(false);
    let (begun, looks) = (other.seq(), second.logs.stats().looks);
    for _ in 0..3 {
        put(&writer).await;
        tokio::time::sleep(2 * POLL).await;
    }
    assert_eq!((other.seq(), second.logs.stats().looks), (begun, looks));
    // Who commits knows that it is behind, and does not propose in vain.
    let seq = put(&other).await;
    assert_eq!((other.seq(), second.logs.stats().conflicts), (seq, 0));
    let next = put(&writer).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(other.seq(), seq);
    other.attend(true);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(other.seq(), next);
    put(&writer).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(other.seq(), next + 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_of_may_come_from_one_copy_but_it_must_be_there() {
    for (old_copy, told, shown) in [(0.0, 1, 1), (0.0, 2, 2), (1.0, 2, 2)] {
        let engine = MemoryEngine::new();
        let (first, second) = (node(&engine), node(&engine));
        let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
        let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
        engine.set_faults(Faults { old_copy, ..Faults::default() });
        assert_eq!([put(&writer).await, put(&writer).await], [1, 2]);
        second.hints.heard(log_id(1), told);
        tokio::time::sleep(Duration::from_millis(1)).await;
        // What lies behind need not have been answered yet.
        assert_eq!(reader.seq(), shown, "{old_copy}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_the_newest_gets_it_whatever_was_heard() {
    for _ in 0..50 {
        let engine = MemoryEngine::new();
        let (first, second) = (node(&engine), node(&engine));
        let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
        let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
        engine.set_faults(Faults { old_copy: 1.0, ..Faults::default() });
        put(&writer).await;
        let seq = put(&writer).await;
        second.hints.heard(log_id(1), seq - 1);
        assert_eq!(reader.refresh(&[]).await.unwrap().seq, seq);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_seen_at_once() {
    let engine = MemoryEngine::new();
    let (first, second) = (node(&engine), node(&engine));
    bridge(&first, &second);
    first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
    first.logs.delete(log_id(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!reader.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_hints_is_one_look_at_a_time_and_ends() {
    let latency = Duration::from_millis(10)..Duration::from_millis(11);
    let engine = MemoryEngine::with_faults(Faults { latency: Some(latency), ..Faults::default() });
    let (first, second) = (node(&engine), node(&engine));
    let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
    let seq = put(&writer).await;
    // Ten thousand in the time that ten looks take one after the other.
    for _ in 0..100 {
        for _ in 0..100 {
            second.hints.heard(log_id(1), seq + 1);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(reader.seq(), seq);
    let looks = second.logs.stats().looks;
    assert!((2..=12).contains(&looks), "{looks}");
    // Nobody has committed what they speak of. That is believed once, not for ever.
    tokio::time::sleep(POLL / 2).await;
    let after = second.logs.stats().looks;
    assert!(after <= looks + 1, "{after}");
    // And what is folded already needs no look.
    let woken = second.hints.woken();
    second.hints.heard(log_id(1), seq);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((second.logs.stats().looks, second.hints.woken()), (after, woken));
}

#[tokio::test(start_paused = true)]
async fn logs_that_are_not_open_are_left_alone() {
    let engine = MemoryEngine::new();
    let (first, second) = (node(&engine), node(&engine));
    bridge(&first, &second);
    let writer = first.logs.create(log_id(1), Notes::new(), sealer()).await.unwrap();
    put(&writer).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((second.hints.woken(), second.logs.open_count(), second.logs.stats().loads), (0, 0, 0));
    // One that is open hears of each commit, or of the last of several.
    let reader = second.logs.open(log_id(1), sealer()).await.unwrap();
    for _ in 0..5 {
        put(&writer).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reader.seq(), 6);
    assert!((1..=5).contains(&second.hints.woken()));
}
