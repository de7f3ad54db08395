//! Nodes on one engine in memory, in virtual time. Each reaches the engine by a path of its own, which can be slow or cut.

use std::sync::atomic::Ordering;

use engine::memory::MemoryEngine;

use super::*;
use crate::node::NodeId;
use crate::path::{Path, sleep_ms};

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn join(engine: &MemoryEngine, name: &str) -> (Membership, Arc<Path>) {
    let path = Path::new(engine);
    (Membership::join(path.clone(), Node::new(id(name), ["imap"]), Config::default()), path)
}

/// The names of those that live.
fn live(node: &Membership) -> Vec<String> {
    node.view().live().map(|node| node.id.to_string()).collect()
}

fn standing(node: &Membership, boot: Boot) -> Option<Standing> {
    node.view().members.iter().find(|member| member.node.boot == boot).map(|member| member.standing)
}

/// Lets a time pass, in which every hundredth of a second `always` must hold.
async fn while_passing(ms: u64, mut always: impl FnMut()) {
    for _ in 0..ms / 10 {
        sleep_ms(10).await;
        always();
    }
}

async fn rows(engine: &MemoryEngine) -> usize {
    engine.scan(Table::Node, PARTITION.into(), Bytes::new(), 100).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn nodes_see_each_other() {
    let engine = MemoryEngine::new();
    let (a, _) = join(&engine, "a");
    assert!(
        a.view().stale && a.is_isolated() && !a.is_mine(b"key", "imap"),
        "it has not seen or said anything yet"
    );
    let (b, _) = join(&engine, "b");
    sleep_ms(1_100).await;
    for node in [&a, &b] {
        assert_eq!(live(node), ["a", "b"]);
        assert!(!node.view().stale && !node.is_isolated());
    }
    assert!(a.is_mine(b"key", "imap") != b.is_mine(b"key", "imap"));
    assert!(!a.is_mine(b"key", "smtp-out") && !b.is_mine(b"key", "smtp-out"));
    while_passing(60_000, || assert!(live(&a).len() == 2 && live(&b).len() == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_dead_after_its_time_and_forgotten_after_a_longer_one() {
    let engine = MemoryEngine::new();
    let ((a, _), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(10_500).await;
    let boot = b.boot();
    drop(b);
    while_passing(2_900, || assert_eq!(live(&a), ["a", "b"])).await;
    sleep_ms(2_200).await;
    assert_eq!(live(&a), ["a"]);
    assert_eq!(standing(&a, boot), Some(Standing::Silent));
    sleep_ms(590_000).await;
    assert_eq!((standing(&a, boot), rows(&engine).await), (Some(Standing::Silent), 2));
    sleep_ms(10_000).await;
    assert_eq!((standing(&a, boot), rows(&engine).await), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_gives_an_old_row_its_full_time() {
    let engine = MemoryEngine::new();
    let (a, _) = join(&engine, "a");
    sleep_ms(5_000).await;
    drop(a);
    sleep_ms(3_600_000).await;
    let (b, _) = join(&engine, "b");
    while_passing(3_900, || assert!(live(&b).is_empty() || live(&b).contains(&"a".to_owned()))).await;
    sleep_ms(2_000).await;
    assert_eq!(live(&b), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_gone_at_once() {
    let engine = MemoryEngine::new();
    let ((a, _), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(3_000).await;
    b.leave().await.unwrap();
    assert_eq!(rows(&engine).await, 1);
    sleep_ms(1_001).await;
    assert_eq!(live(&a), ["a"]);
    sleep_ms(60_000).await;
    assert_eq!(rows(&engine).await, 1, "there is no heartbeat after it");
    assert!(b.is_isolated() && b.leave().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_under_way_does_not_come_after_the_leave() {
    let engine = MemoryEngine::new();
    let (a, path) = join(&engine, "a");
    sleep_ms(3_500).await;
    path.write_ms.store(2_000, Ordering::SeqCst);
    sleep_ms(1_000).await;
    // What is written from now on is faster.
    path.write_ms.store(0, Ordering::SeqCst);
    a.leave().await.unwrap();
    while_passing(10_000, || ()).await;
    assert_eq!(rows(&engine).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_marked_as_leaving_owns_nothing() {
    let engine = MemoryEngine::new();
    let ((a, _), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(3_000).await;
    b.task.0.lock().take().unwrap().abort();
    engine.put(vec![b.shared.heartbeat(true)]).await.unwrap();
    sleep_ms(1_001).await;
    assert_eq!((live(&a), standing(&a, b.boot())), (vec!["a".to_owned()], Some(Standing::Leaving)));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_takes_the_place_of_its_earlier_boot_at_once() {
    let engine = MemoryEngine::new();
    let ((a, _), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(10_000).await;
    let earlier = b.boot();
    drop(b);
    let (b, _) = join(&engine, "b");
    sleep_ms(1_100).await;
    assert_eq!(live(&a), ["a", "b"]);
    assert!(a.view().with_boot(b.boot()).is_some() && b.view().with_boot(b.boot()).is_some());
    assert_eq!(standing(&a, earlier), Some(Standing::Superseded));
    assert_eq!(a.view().with_boot(b.boot()).unwrap().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_with_one_name_the_later_counts() {
    let engine = MemoryEngine::new();
    let (first, _) = join(&engine, "a");
    sleep_ms(5_000).await;
    let (second, _) = join(&engine, "a");
    sleep_ms(2_100).await;
    while_passing(10_000, || assert!(first.is_isolated() && !second.is_isolated())).await;
    assert_eq!(first.view().live().map(|node| node.boot).collect::<Vec<_>>(), [second.boot()]);
}

#[tokio::test(start_paused = true)]
async fn slow_reads_kill_nobody_and_hide_no_death() {
    let engine = MemoryEngine::new();
    let ((a, path), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(5_000).await;
    path.read_ms.store(3_500, Ordering::SeqCst);
    while_passing(60_000, || assert!(live(&a) == ["a", "b"] && !a.view().stale && !a.is_isolated())).await;
    drop(b);
    // Four looks that find it silent, after one that was under way and one that still saw a heartbeat.
    sleep_ms(6 * 4_500).await;
    assert_eq!(live(&a), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_read_knows_nothing_of_anybodys_death() {
    let engine = MemoryEngine::new();
    let ((a, path), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(5_000).await;
    path.cut(true, false);
    sleep_ms(1_100).await;
    while_passing(30_000, || assert!(live(&a) == ["a", "b"] && a.view().stale && !a.is_isolated())).await;
    // A read that hangs is no better than one that fails.
    path.cut(false, false);
    path.read_ms.store(1_000_000, Ordering::SeqCst);
    while_passing(30_000, || assert!(live(&a) == ["a", "b"] && a.view().stale)).await;
    path.read_ms.store(0, Ordering::SeqCst);
    sleep_ms(5_100).await;
    assert!(!a.view().stale && !b.view().stale);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_away_for_all_leaves_nobody_dead() {
    let engine = MemoryEngine::new();
    let ((a, to_a), (b, to_b)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(5_000).await;
    to_a.cut(true, true);
    to_b.cut(true, true);
    sleep_ms(30_000).await;
    assert!(a.is_isolated() && b.is_isolated());
    // The one reads again before the other writes.
    to_a.cut(false, false);
    sleep_ms(990).await;
    to_b.cut(false, false);
    while_passing(10_000, || assert!(live(&a) == ["a", "b"] && live(&b) == ["a", "b"])).await;
    assert!(!a.is_isolated() && !b.is_isolated() && !a.view().stale && !b.view().stale);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_write_takes_itself_for_dead_before_the_others_do() {
    let engine = MemoryEngine::new();
    let ((a, path), (b, _)) = (join(&engine, "a"), join(&engine, "b"));
    sleep_ms(5_000).await;
    path.cut(false, true);
    while_passing(2_900, || assert!(!a.is_isolated())).await;
    let mut seen_isolated = false;
    while_passing(5_000, || {
        seen_isolated |= a.is_isolated();
        assert!(seen_isolated || live(&b) == ["a", "b"], "the others were faster");
    })
    .await;
    assert!(seen_isolated && live(&b) == ["b"] && !a.is_mine(b"key", "imap"));
    path.cut(false, false);
    sleep_ms(2_100).await;
    assert!(!a.is_isolated() && live(&b) == ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_row_is_taken_away_knows_it() {
    let engine = MemoryEngine::new();
    let (a, path) = join(&engine, "a");
    sleep_ms(5_500).await;
    path.cut(false, true);
    engine.delete(vec![row_key(a.boot())]).await.unwrap();
    sleep_ms(1_001).await;
    assert!(a.is_isolated());
    path.cut(false, false);
    sleep_ms(2_100).await;
    assert!(!a.is_isolated());
}

#[tokio::test(start_paused = true)]
async fn counters_need_not_agree_and_an_old_write_is_no_sign_of_life() {
    let engine = MemoryEngine::new();
    let (a, _) = join(&engine, "a");
    let (b, path) = join(&engine, "b");
    // A node whose counter is far ahead of the others': each is compared with itself alone.
    b.shared.pulse.lock().counter = u64::MAX / 2;
    sleep_ms(5_500).await;
    assert_eq!(live(&a), ["a", "b"]);
    let old = b.shared.heartbeat(false);
    sleep_ms(2_000).await;
    path.cut(false, true);
    while_passing(6_000, || ()).await;
    assert_eq!(live(&a), ["a"]);
    engine.put(vec![old]).await.unwrap();
    while_passing(3_000, || assert_eq!(live(&a), ["a"])).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_among_the_rows_disturbs_nobody_and_goes_away() {
    let engine = MemoryEngine::new();
    let row = |key: &[u8], value: &[u8]| Row::new(Table::Node, PARTITION, key.to_vec(), value.to_vec());
    let boot = Boot::fresh();
    let mut later_release = 7_u64.to_be_bytes().to_vec();
    later_release.extend(b"\x02what later releases write");
    let nonsense =
        [row(b"short", b""), row(boot.as_bytes(), &later_release), row(Boot::fresh().as_bytes(), b"1234")];
    engine.put(nonsense.to_vec()).await.unwrap();
    let (a, _) = join(&engine, "a");
    sleep_ms(2_000).await;
    assert_eq!((live(&a), a.view().members.len()), (vec!["a".to_owned()], 1));
    sleep_ms(610_000).await;
    assert_eq!(rows(&engine).await, 3, "a heartbeat that is not understood is forgotten like others");
}

#[tokio::test(start_paused = true)]
async fn the_view_tells_of_changes_only_and_since_when_it_is_so() {
    let engine = MemoryEngine::new();
    let (a, _) = join(&engine, "a");
    sleep_ms(3_000).await;
    let mut watch = a.watch();
    let since = watch.borrow_and_update().live_since;
    sleep_ms(60_000).await;
    assert!(!watch.has_changed().unwrap());
    let (b, _) = join(&engine, "b");
    watch.wait_for(|view| view.count("imap") == 2).await.unwrap();
    assert!(a.view().live_since > since);
    assert_eq!(a.view().feature_level(), Some(0));
    drop(b);
}
