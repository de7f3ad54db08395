//! Hints, requests and leases over a real NATS server.
//!
//! With `POSTRIDER_NATS_SERVER`, the path of `nats-server`, each test starts one of its own, and kills it where that is
//! what is tested. With `POSTRIDER_NATS`, an address, those that need not do so use that. With neither they pass without a
//! look.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "that nothing was tested is for people")]

mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::{
    Boot, Budget, Bus, Config, LeaseSource, Membership, MessageKey, NatsConfig, Need, News, Node,
    RequestError, Requests, SiteLeases, Wake,
};
use engine::contract::notes::{Notes, Operation};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{Build, Hints, LogHandle, LogId, LogOptions, Logs};
use futures_util::StreamExt;
use parking_lot::Mutex;
use server::Server;
use uuid::Uuid;

/// How long something may take that a test waits for. What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The engine of all nodes of a test, and the name and key of their installation.
struct World {
    engine: MemoryEngine,
    cluster: String,
    config: Config,
}

struct Host {
    boot: Boot,
    bus: Bus,
    hints: Hints,
    logs: Logs<Notes>,
    requests: Requests,
    _wake: Wake,
}

impl World {
    fn new(server: &str) -> Self {
        let nats = NatsConfig { servers: vec![server.to_owned()], ..NatsConfig::default() };
        let config = Config { nats, request_timeout_ms: 5_000, ..Config::default() };
        Self { engine: MemoryEngine::new(), cluster: format!("test-{}", Uuid::new_v4().as_simple()), config }
    }

    async fn host(&self) -> Host {
        self.host_with(Boot::fresh(), b"secret").await
    }

    async fn host_with(&self, boot: Boot, secret: &[u8]) -> Host {
        let key = MessageKey::derive(secret);
        let bus = Bus::connect(&self.config.nats, &self.cluster, boot, key).await.unwrap();
        let hints = Hints::new(100);
        // Whatever is seen in these tests is not seen by a poll.
        let options = LogOptions { shared: true, head_poll_ms: 3_600_000, ..LogOptions::default() };
        let logs = Logs::new(self.engine.engine().with_hints(hints.clone()), options, None);
        let requests = Requests::start(bus.clone(), &self.config);
        let wake = Wake::start(hints.clone(), bus.clone(), &self.config);
        Host { boot, bus, hints, logs, requests, _wake: wake }
    }

    async fn raw(&self) -> async_nats::Client {
        async_nats::connect(&self.config.nats.servers[..]).await.unwrap()
    }

    fn subject(&self, rest: &str) -> String {
        format!("postrider.{}.{rest}", self.cluster)
    }
}

fn log() -> LogId {
    LogId::account(Uuid::from_u128(1))
}

async fn put(handle: &LogHandle<Notes>) -> u64 {
    let build = |state: &Notes| {
        let put = Operation::Put { shelf: 0, number: state.next, id: 1, delivery: None };
        Ok::<_, ()>(Build::new(vec![put], ()))
    };
    handle.commit(vec![], build).await.unwrap().last_seq
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

/// Commits on one until the other has seen a commit, which it can by a hint alone.
async fn hints_flow(writer: &LogHandle<Notes>, reader: &LogHandle<Notes>) {
    let before = reader.seq();
    eventually("a hint is heard", async || {
        put(writer).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        reader.seq() > before
    })
    .await;
}

async fn two(world: &World) -> (Host, Host, LogHandle<Notes>, LogHandle<Notes>) {
    let (first, second) = (world.host().await, world.host().await);
    let writer = first.logs.create(log(), Notes::new(), Arc::new(Unencrypted)).await.unwrap();
    let reader = second.logs.open(log(), Arc::new(Unencrypted)).await.unwrap();
    (first, second, writer, reader)
}

#[tokio::test]
async fn a_commit_wakes_the_other_node() {
    let Some(server) = Server::any() else { return };
    let world = World::new(&server.address());
    let (first, second, writer, reader) = two(&world).await;
    hints_flow(&writer, &reader).await;
    hints_flow(&reader, &writer).await;
    assert_eq!((second.bus.forged(), second.bus.refused(), first.hints.dropped()), (0, 0, 0));
}

#[tokio::test]
async fn hints_flow_again_after_the_server_was_killed() {
    let Some(mut server) = Server::own() else { return };
    let world = World::new(&server.address());
    let (first, second, writer, reader) = two(&world).await;
    hints_flow(&writer, &reader).await;
    server.kill();
    eventually("the loss is seen", async || !first.bus.is_connected() && !second.bus.is_connected()).await;
    // Commits go on, and what they would have said is dropped.
    let before = first.bus.hints_dropped();
    for dropped in 1..=3 {
        put(&writer).await;
        eventually("a hint is dropped", async || first.bus.hints_dropped() == before + dropped).await;
    }
    assert_eq!(first.requests.ask(second.boot, "x", Bytes::new()).await, Err(RequestError::Unanswered));
    server.start();
    hints_flow(&writer, &reader).await;
}

#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let Some(mut server) = Server::own() else { return };
    server.kill();
    let world = World::new(&server.address());
    let (first, second, writer, reader) = two(&world).await;
    put(&writer).await;
    assert!(!first.bus.is_connected());
    second.requests.serve("late", async |_, request| request);
    server.start();
    hints_flow(&writer, &reader).await;
    eventually("a request is answered", async || {
        first.requests.ask(second.boot, "late", "x".into()).await == Ok("x".into())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_holds_nobody_up() {
    let Some(server) = Server::own() else { return };
    let mut world = World::new(&server.address());
    world.config.request_timeout_ms = 300;
    let (first, second, writer, reader) = two(&world).await;
    second.requests.serve("echo", async |_, request| request);
    hints_flow(&writer, &reader).await;
    server.signal("STOP");
    // Far more than the connection has room for.
    for number in 0..20_000 {
        first.hints.say(LogId::account(Uuid::from_u128(number)), 1);
    }
    for _ in 0..100 {
        put(&writer).await;
    }
    let asked = first.requests.ask(second.boot, "echo", "x".into()).await;
    assert_eq!(asked, Err(RequestError::Unanswered));
    server.signal("CONT");
    hints_flow(&writer, &reader).await;
}

#[tokio::test]
async fn without_a_server_everything_goes_on() {
    let mut world = World::new("");
    world.config.nats.servers.clear();
    let (first, second, writer, reader) = two(&world).await;
    put(&writer).await;
    eventually("the hint is dropped", async || first.bus.hints_dropped() == 1).await;
    assert_eq!(reader.seq(), 0);
    assert_eq!(first.requests.ask(second.boot, "x", Bytes::new()).await, Err(RequestError::Unanswered));
    first.requests.serve("echo", async |_, request| request);
    assert_eq!(first.requests.ask(first.boot, "echo", "a".into()).await, Ok("a".into()));
    assert_eq!(first.requests.ask(first.boot, "other", "a".into()).await, Err(RequestError::NotServed));
}

#[tokio::test]
async fn what_no_node_wrote_is_dropped_and_counted() {
    let Some(server) = Server::any() else { return };
    let world = World::new(&server.address());
    let (_first, second, writer, reader) = two(&world).await;
    hints_flow(&writer, &reader).await;
    let (seen, woken) = (reader.seq(), second.hints.woken());
    assert_eq!(second.bus.forged(), 0);

    // A node of the same name with another key: its hints are not heard, and its requests not answered.
    let stranger = world.host_with(Boot::fresh(), b"another secret").await;
    let served = Arc::new(AtomicU32::new(0));
    let count = served.clone();
    second.requests.serve("count", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Bytes::new() }
    });
    eventually("the stranger is connected", async || stranger.bus.is_connected()).await;
    stranger.hints.say(log(), 1_000_000);
    let ask = stranger.requests.ask(second.boot, "count", Bytes::new());
    let asked = tokio::time::timeout(Duration::from_millis(200), ask).await;
    assert!(matches!(asked, Err(_) | Ok(Err(RequestError::Unanswered))));
    eventually("both are counted", async || second.bus.forged() >= 2).await;

    // Bytes of any kind, and a large one.
    let raw = world.raw().await;
    let before = second.bus.forged();
    let large = vec![1; 500_000];
    for garbage in [&b""[..], b"\x01", &[0; 57], &[255; 4_096], &large] {
        raw.publish(world.subject("hint"), Bytes::copy_from_slice(garbage)).await.unwrap();
        let ask = world.subject(&format!("ask.{}.count", second.boot));
        raw.publish(ask, Bytes::copy_from_slice(garbage)).await.unwrap();
        let answer = world.subject(&format!("answer.{}.1", second.boot));
        raw.publish(answer, Bytes::copy_from_slice(garbage)).await.unwrap();
    }
    raw.flush().await.unwrap();
    eventually("all are counted", async || second.bus.forged() == before + 15).await;
    assert_eq!((served.load(Ordering::SeqCst), second.hints.woken(), reader.seq()), (0, woken, seen));
    hints_flow(&writer, &reader).await;
}

#[tokio::test]
async fn a_request_is_answered_by_the_node_that_is_asked() {
    let Some(server) = Server::any() else { return };
    let mut world = World::new(&server.address());
    world.config.request_bytes_max = 1_000;
    let (first, second, third) = (world.host().await, world.host().await, world.host().await);
    for (host, name) in [(&second, "second"), (&third, "third")] {
        host.requests.serve("who", move |from, request| async move {
            format!("{name} to {from}: {}", String::from_utf8_lossy(&request)).into()
        });
    }
    second.requests.serve("large", async |_, _| vec![0; 1_001].into());
    eventually("all are there", async || {
        first.requests.ask(third.boot, "who", "?".into()).await.is_ok()
            && first.requests.ask(second.boot, "who", "?".into()).await.is_ok()
    })
    .await;
    // Many at once do not get each other's answers.
    let asked = (0..200).map(|number| {
        let (host, name) = if number % 3 == 0 { (&second, "second") } else { (&third, "third") };
        let first = &first;
        async move {
            let answer = first.requests.ask(host.boot, "who", number.to_string().into()).await;
            assert_eq!(answer, Ok(format!("{name} to {}: {number}", first.boot).into()));
        }
    });
    futures_util::future::join_all(asked).await;
    let ask = |boot, name, size| first.requests.ask(boot, name, vec![b'x'; size].into());
    assert_eq!(ask(second.boot, "nothing", 1).await, Err(RequestError::NotServed));
    assert_eq!(ask(second.boot, "who", 1_001).await, Err(RequestError::TooLarge));
    // Nobody listens: the server says so, long before the five seconds are over.
    assert_eq!(ask(Boot::fresh(), "who", 1).await, Err(RequestError::Unanswered));
}

#[tokio::test]
async fn an_answer_that_is_late_or_too_large_is_none() {
    let Some(server) = Server::any() else { return };
    let mut world = World::new(&server.address());
    (world.config.request_timeout_ms, world.config.request_bytes_max) = (300, 1_000);
    let (first, second) = (world.host().await, world.host().await);
    second.requests.serve("ready", async |_, request| request);
    second.requests.serve("never", async |_, _| std::future::pending().await);
    second.requests.serve("large", async |_, _| vec![0; 1_001].into());
    let ask = |name| first.requests.ask(second.boot, name, Bytes::new());
    eventually("it is there", async || ask("ready").await.is_ok()).await;
    assert_eq!(ask("never").await, Err(RequestError::Unanswered));
    assert_eq!(ask("large").await, Err(RequestError::Unanswered));
}

#[tokio::test]
async fn more_than_can_be_worked_on_is_refused() {
    let Some(server) = Server::any() else { return };
    let mut world = World::new(&server.address());
    (world.config.requests_concurrent_max, world.config.request_timeout_ms) = (3, 60_000);
    let (first, second, third) = (world.host().await, world.host().await, world.host().await);
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let come = Arc::new(AtomicU32::new(0));
    let (wait, count) = (release.clone(), come.clone());
    third.requests.serve("wait", move |_, request| {
        let wait = wait.clone();
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let _ = wait.acquire().await;
            request
        }
    });
    third.requests.serve("ready", async |_, request| request);
    eventually("it is there", async || {
        first.requests.ask(third.boot, "ready", Bytes::new()).await.is_ok()
            && second.requests.ask(third.boot, "ready", Bytes::new()).await.is_ok()
    })
    .await;
    let ask = |host: &Host| {
        let (requests, boot) = (host.requests.clone(), third.boot);
        tokio::spawn(async move { requests.ask(boot, "wait", "a".into()).await })
    };
    let waiting = [ask(&first), ask(&first), ask(&first)];
    eventually("all have come", async || come.load(Ordering::SeqCst) == 3).await;
    // The asker has no room, nor has the asked.
    for host in [&first, &second] {
        let asked = host.requests.ask(third.boot, "ready", Bytes::new()).await;
        assert_eq!(asked, Err(RequestError::Busy));
    }
    release.add_permits(1);
    for asked in waiting {
        assert_eq!(asked.await.unwrap(), Ok("a".into()));
    }
    assert_eq!(second.requests.ask(third.boot, "ready", Bytes::new()).await, Ok(Bytes::new()));
}

#[tokio::test]
async fn a_request_that_is_repeated_by_a_stranger_has_no_effect() {
    let Some(server) = Server::any() else { return };
    let world = World::new(&server.address());
    let (first, second) = (world.host().await, world.host().await);
    let served = Arc::new(AtomicU32::new(0));
    let count = served.clone();
    second.requests.serve("count", move |_, request| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { request }
    });
    // Before anything is overheard, so that what is overheard is sure to have been heard by whom it was for.
    eventually("a request is answered", async || {
        first.requests.ask(second.boot, "count", "x".into()).await.is_ok()
    })
    .await;
    let raw = world.raw().await;
    let mut overheard = raw.subscribe(world.subject(&format!("ask.{}.count", second.boot))).await.unwrap();
    let mut message = None;
    eventually("a request is overheard", async || {
        first.requests.ask(second.boot, "count", "x".into()).await.unwrap();
        let overhears = tokio::time::timeout(Duration::from_millis(50), overheard.next());
        message = overhears.await.ok().flatten();
        message.is_some()
    })
    .await;
    let (message, before) = (message.unwrap(), served.load(Ordering::SeqCst));
    for _ in 0..3 {
        raw.publish(message.subject.clone(), message.payload.clone()).await.unwrap();
    }
    // Nor for another request, nor another node.
    let moved = world.subject(&format!("ask.{}.other", second.boot));
    raw.publish(moved, message.payload.clone()).await.unwrap();
    raw.flush().await.unwrap();
    eventually("they are refused", async || (second.bus.refused(), second.bus.forged()) == (3, 1)).await;
    assert_eq!(served.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn news_reach_all_others_once_and_no_stranger_makes_any() {
    let Some(server) = Server::any() else { return };
    let world = World::new(&server.address());
    let hosts = [world.host().await, world.host().await, world.host().await];
    let heard: [Arc<Mutex<Vec<[u8; 3]>>>; 3] = Default::default();
    let news: Vec<News> = hosts
        .iter()
        .zip(&heard)
        .map(|(host, heard)| {
            let heard = Arc::clone(heard);
            let hear = move |record: &[u8]| heard.lock().push(record.try_into().unwrap());
            News::start(&host.bus, "test", 3, &world.config, hear)
        })
        .collect();
    let raw = world.raw().await;
    let mut overheard = raw.subscribe(world.subject("news.test")).await.unwrap();
    raw.flush().await.unwrap();
    eventually("all others have heard something", async || {
        news[0].tell(b"one");
        tokio::time::sleep(Duration::from_millis(50)).await;
        heard[1..].iter().all(|heard| heard.lock().contains(b"one"))
    })
    .await;
    for number in 0..2_000_u16 {
        let [high, low] = number.to_be_bytes();
        news[1].tell(&[b'n', high, low]);
    }
    let numbered =
        |heard: &Mutex<Vec<[u8; 3]>>| heard.lock().iter().filter(|record| record[0] == b'n').count();
    eventually("each of many has come", async || [0, 2].iter().all(|host| numbered(&heard[*host]) == 2_000))
        .await;
    assert_eq!(numbered(&heard[1]), 0, "nobody hears itself");
    // What was said already, what is cut short, and what a stranger says counts for nothing.
    let mut message = None;
    eventually("news that all have heard are overheard", async || {
        news[1].tell(b"two");
        let overhears = tokio::time::timeout(Duration::from_millis(50), overheard.next());
        // Not one from before all had subscribed: it would be new to some.
        message = overhears
            .await
            .ok()
            .flatten()
            .filter(|message| message.payload.windows(3).any(|some| some == b"two"));
        message.is_some() && heard[2].lock().contains(b"two")
    })
    .await;
    let (message, before) = (message.unwrap(), hosts[2].bus.refused());
    raw.publish(message.subject.clone(), message.payload.clone()).await.unwrap();
    raw.publish(message.subject.clone(), message.payload.slice(1..)).await.unwrap();
    raw.flush().await.unwrap();
    eventually("both are refused", async || {
        (hosts[2].bus.refused() - before, hosts[2].bus.forged()) == (1, 1)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(numbered(&heard[2]), 2_000);
}

#[tokio::test]
async fn tls_and_a_login() {
    let Some(server) = Server::with_tls() else { return };
    let mut world = World::new(&server.address());
    world.config.nats.user = "postrider".into();
    world.config.nats.password = cluster::Secret::new("pass");
    world.config.nats.ca_file = server.ca_file();
    world.config.request_timeout_ms = 400;
    world.config.check().unwrap();
    let (_first, second, writer, reader) = two(&world).await;
    hints_flow(&writer, &reader).await;
    // Who does not log in, or does not trust the server, has no connection, and goes on.
    let mut wrong = World::new(&server.address());
    wrong.cluster.clone_from(&world.cluster);
    wrong.config.nats.ca_file = server.ca_file();
    let outside = wrong.host().await;
    wrong.config.nats = NatsConfig { ca_file: PathBuf::new(), ..world.config.nats.clone() };
    let distrustful = wrong.host().await;
    assert_eq!(outside.requests.ask(second.boot, "x", Bytes::new()).await, Err(RequestError::Unanswered));
    assert!(!outside.bus.is_connected() && !distrustful.bus.is_connected());
    assert!(second.bus.is_connected());
}

const SITE_LIMIT: u32 = 8;

#[tokio::test]
async fn sites_are_shared_out_by_their_owner_and_without_one_by_shares() {
    let Some(mut server) = Server::own() else { return };
    let mut world = World::new(&server.address());
    world.config.request_timeout_ms = 400;
    // No heartbeat is missed here, however slow the machine is.
    (world.config.heartbeat_ms, world.config.dead_after_ms) = (100, 60_000);
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let node = Node::new(name.parse().unwrap(), ["smtp-out"]);
        let host = world.host_with(node.boot, b"secret").await;
        let membership = Membership::join(world.engine.engine().rows, node, world.config.clone());
        let budget = |_: &str| Budget { slots_max: SITE_LIMIT, messages_per_minute_max: 0 };
        let requests = host.requests.clone();
        let leases = SiteLeases::start(membership.clone(), requests, "smtp-out", &world.config, budget);
        nodes.push((host, membership, leases));
    }
    let need = Need { slots_wanted: 100, messages_wanted: 5, ..Need::default() };
    for (_, membership, _) in &nodes {
        let mut view = membership.watch();
        tokio::time::timeout(PATIENCE, view.wait_for(|view| view.count("smtp-out") == 2))
            .await
            .unwrap()
            .unwrap();
    }
    // Both ask until each has its half, from the owner.
    eventually("the owner gives each its half", async || {
        let mut slots = Vec::new();
        for (_, _, leases) in &nodes {
            let lease = leases.lease("site", need).await;
            slots.push((lease.slots, lease.source));
        }
        slots == [(SITE_LIMIT / 2, LeaseSource::Owner); 2]
    })
    .await;
    server.kill();
    eventually("the loss is seen", async || nodes.iter().all(|(host, _, _)| !host.bus.is_connected())).await;
    let owner = nodes[0].1.is_mine(b"site", "smtp-out");
    for (index, (_, _, leases)) in nodes.iter().enumerate() {
        let lease = leases.lease("site", need).await;
        // The owner itself needs no way to itself.
        let expected = if owner == (index == 0) { LeaseSource::Owner } else { LeaseSource::Share };
        assert_eq!((lease.source, lease.messages), (expected, 5));
        assert!(lease.slots >= SITE_LIMIT / 2);
    }
}
