//! Messages that lie far away: every read of one is a request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use blob_s3::stand_in::{Fate, Seen, Server};
use imap::Config;
use tokio::sync::Semaphore;

use crate::world::{World, plain};

/// Blocks that the store fetches ahead at once.
const IN_FLIGHT_MAX: usize = 16;
/// Messages that a FETCH opens ahead of the one that it sends, without reading ahead.
const OPENED_AHEAD: usize = 4;

struct Far {
    server: Server,
    world: World,
    _cache: tempfile::TempDir,
}

impl Far {
    /// Alice's INBOX has `messages` messages of `octets` octets of text, each in a segment of its own.
    async fn new(config: Config, in_flight_max: usize, messages: usize, octets: usize) -> Self {
        let mut server = Server::start().await;
        let cache = tempfile::tempdir().unwrap();
        server.config.cache_folder = Some(cache.path().into());
        server.config.read_ahead_in_flight_max = in_flight_max;
        let world = World::over(config, Arc::new(server.blobs().await)).await;
        let mut alice = world.alice().await;
        for number in 1..=messages {
            alice.append("INBOX", "", &message(number, octets)).await;
        }
        assert_eq!(server.count(Seen::is_get), 0, "what was written was not read");
        Self { server, world, _cache: cache }
    }

    /// Waits for so many requests of reads.
    async fn reads(&self, count: usize) {
        let reads = async {
            while self.server.count(Seen::is_get) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), reads).await;
        waited.unwrap_or_else(|_| panic!("only {} reads", self.server.count(Seen::is_get)));
    }
}

/// Text that does not compress well.
fn message(number: usize, octets: usize) -> String {
    let mut text = String::new();
    let mut state = number as u64;
    while text.len() < octets {
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            write!(text, "{:016x}", state ^ (state >> 29)).unwrap();
        }
        text.push_str("\r\n");
    }
    plain(&format!("number-{number}"), &text)
}

/// A FETCH of many messages does not wait for one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_messages_come_while_one_is_sent() {
    const MESSAGES: usize = 40;
    let far = Far::new(Config::default(), IN_FLIGHT_MAX, MESSAGES, 2_000).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    far.server.plan(move |seen| if seen.is_get() { Fate::Held(Arc::clone(&held)) } else { Fate::Pass });
    let mut alice = far.world.selected("INBOX").await;
    alice.send(format!("f UID FETCH 1:{MESSAGES} (BODY.PEEK[])\r\n").as_bytes()).await;
    // The first message has not come yet.
    far.reads(IN_FLIGHT_MAX).await;
    assert_eq!(far.server.count(Seen::is_get), IN_FLIGHT_MAX, "no more at once than may be");
    gate.close();
    let reply = alice.read_to("f").await;
    assert!(reply.tagged.starts_with("OK "), "{}", reply.tagged);
    assert_eq!(reply.untagged.len(), MESSAGES);
    for (number, response) in (1..).zip(&reply.untagged) {
        let (start, text) = (format!("* {number} FETCH (UID {number} BODY[] "), message(number, 2_000));
        assert!(response.starts_with(&start) && response.contains(&text), "{start}: {response}");
    }
    assert_eq!(far.server.count(Seen::is_get), MESSAGES, "nothing was fetched twice");
}

/// What can be seen in the other tests is what reading ahead does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reading_ahead_few_are_under_way() {
    const MESSAGES: usize = 40;
    let config = Config { fetch_ahead_messages_max: 0, ..Config::default() };
    let far = Far::new(config, IN_FLIGHT_MAX, MESSAGES, 2_000).await;
    far.server.plan(|seen| if seen.is_get() { Fate::Late(Duration::from_millis(5)) } else { Fate::Pass });
    let mut alice = far.world.selected("INBOX").await;
    let reply = alice.ok(&format!("UID FETCH 1:{MESSAGES} (BODY.PEEK[])")).await;
    assert_eq!((reply.untagged.len(), far.server.count(Seen::is_get)), (MESSAGES, MESSAGES));
    let most = far.server.most_at_once();
    assert!(most <= OPENED_AHEAD, "{most} at once");
}

/// A client that takes nothing, and one that goes away, do not have the whole mailbox read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_no_further_is_not_read_for() {
    const MESSAGES: usize = 40;
    const AHEAD: usize = 5;
    /// What fits between server and client, in messages: two buffers of 64 KiB, and what is being sent.
    const BUFFERED: usize = 4;
    let config = Config { fetch_ahead_messages_max: AHEAD, ..Config::default() };
    let far = Far::new(config, MESSAGES, MESSAGES, 60_000).await;
    let mut alice = far.world.selected("INBOX").await;
    alice.send(format!("f UID FETCH 1:{MESSAGES} (BODY.PEEK[])\r\n").as_bytes()).await;
    far.reads(AHEAD).await;
    drop(alice);
    let drained = far.world.shutdown.finish(Duration::from_secs(20)).await;
    assert_eq!(drained.aborted, 0, "the session has ended by itself");
    let reads = far.server.count(Seen::is_get);
    assert!(reads <= BUFFERED + AHEAD, "{reads} reads for a client that went away");
}
