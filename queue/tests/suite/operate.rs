//! What operators see and do: listing by filters and in parts, tracing, and every act.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::time::Duration;

use bytes::Bytes;
use engine::memory::MemoryEngine;
use mail::address::{Domain, ReversePath};
use mail::envelope::{ByMode, DeliverBy, Envelope, Recipient};
use mail::id::QueueId;
use queue::item::{Failure, Outcome, Said};
use queue::{
    Acted, Action, AttemptReport, AttemptResult, Event, Filter, Leased, Origin, PassedOn, Queue, Resolved,
    SenderFilter, ShardKind, Standing, StateFilter, Submission,
};

use crate::setup::{Disk, address};

pub(crate) struct Bench {
    pub(crate) disk: Disk,
    pub(crate) engine: MemoryEngine,
    pub(crate) queue: Queue,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(Disk::new()).await
    }

    async fn on(disk: Disk) -> Self {
        let engine = MemoryEngine::new();
        let queue = disk.open(&engine, Disk::config()).await.unwrap();
        Self { disk, engine, queue }
    }

    fn wait(&self, seconds: u64) {
        self.disk.clock.set(self.disk.clock.now() + seconds);
    }

    /// Submits a message and places it in the outbound shards.
    pub(crate) async fn send(&self, from: &str, to: &[&str], change: impl FnOnce(&mut Envelope)) -> QueueId {
        let mut envelope = Envelope::new(ReversePath(Some(address(from))));
        envelope.recipients = to.iter().map(|to| Recipient::new(address(to))).collect();
        change(&mut envelope);
        let mut writer = self.queue.body_writer(None).await.unwrap();
        let id = writer.queue_id();
        writer.write(format!("Message-ID: <{id}@x.test>\r\n\r\nhello\r\n").into()).await.unwrap();
        let body = writer.finish().await.unwrap();
        let (resolved, prefix) =
            (vec![Resolved::Remote; to.len()], Bytes::from_static(b"Received: here\r\n"));
        let submission = Submission { envelope, resolved, body, prefix, origin: Origin::default() };
        self.queue.submit(submission).await.unwrap();
        self.place().await;
        id
    }

    pub(crate) async fn place(&self) {
        for claimed in self.queue.claim_now(99).await {
            let details = self.queue.details(&claimed).await.unwrap();
            let slice = claimed.expansion().unwrap().slices[0].clone();
            let targets = self.queue.targets(&slice).await.unwrap();
            let targets: Vec<_> = (slice.first..).zip(targets.iter()).collect();
            self.queue.place_remote(&claimed, &details, &targets).await.unwrap();
            self.queue.report(claimed, Vec::new(), true).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    /// Leases everything that is due.
    pub(crate) async fn lease(&self) -> Vec<Leased> {
        let outbound = self.queue.outbound();
        let mut leases = Vec::new();
        for mut turn in outbound.turns_now(99) {
            let claims = turn.claim(99).await;
            leases.extend(
                outbound.lease(claims, Duration::from_secs(60)).await.into_iter().map(Result::unwrap),
            );
        }
        leases
    }

    pub(crate) async fn report(&self, leased: Vec<Leased>, result: &AttemptResult) {
        let reports = leased.into_iter().map(|leased| AttemptReport::all(leased, result)).collect();
        for reported in self.queue.outbound().report(reports).await {
            reported.unwrap();
        }
    }

    async fn act(&self, filter: Filter, action: Action) -> (u64, u64, u64) {
        let Acted { items, recipients, in_flight } = self.queue.act(&filter, &action).await.unwrap();
        (items, recipients, in_flight)
    }

    async fn ids(&self, filter: Filter) -> Vec<QueueId> {
        let filter = Filter { kind: Some(ShardKind::Outbound), ..filter };
        let page = self.queue.select(&filter, None, 999).await.unwrap();
        let mut ids: Vec<QueueId> = page.items.iter().map(|item| item.queue_id).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// States of a message's recipients elsewhere.
    async fn states(&self, id: QueueId) -> Vec<String> {
        let views = self.queue.trace(id).await.unwrap();
        let outbound = views.iter().filter(|view| view.shard.starts_with("outbound"));
        outbound
            .flat_map(|view| match &view.standing {
                Standing::Finished { fates, .. } => {
                    fates.iter().map(|fate| fate.outcome.as_str().to_owned()).collect::<Vec<_>>()
                }
                _ => view.recipients.iter().map(|one| one.state.to_owned()).collect(),
            })
            .collect()
    }
}

fn one(id: QueueId) -> Filter {
    Filter { queue_id: Some(id), ..Filter::default() }
}

fn said(reply: &str) -> Said {
    Said { host: Some("mx.test".to_owned()), ..Said::new(7, reply) }
}

fn deferred() -> AttemptResult {
    AttemptResult::Deferred { said: said("451 later"), not_before: None }
}

#[tokio::test(start_paused = true)]
async fn filters_choose() {
    let bench = Bench::new().await;
    let first = bench.send("a@one.test", &["x@far.test"], |_| {}).await;
    bench.report(bench.lease().await, &deferred()).await;
    bench.wait(100);
    let second = bench.send("b@two.test", &["y@far.test", "y@near.test"], |_| {}).await;
    let now = bench.disk.clock.now();
    let sorted = |mut ids: Vec<QueueId>| {
        ids.sort();
        ids
    };
    let domain = |name: &str| Some(Domain::parse(name).unwrap());
    let check = async |filter: Filter, expected: &[QueueId]| {
        assert_eq!(bench.ids(filter.clone()).await, sorted(expected.to_vec()), "{filter:?}");
    };
    check(Filter::default(), &[first, second]).await;
    check(Filter { domain: domain("far.test"), ..Filter::default() }, &[first, second]).await;
    check(Filter { domain: domain("near.test"), ..Filter::default() }, &[second]).await;
    let sender = Some(SenderFilter::Domain(Domain::parse("one.test").unwrap()));
    check(Filter { sender, ..Filter::default() }, &[first]).await;
    let sender = Some(SenderFilter::Address(address("B@two.test")));
    check(Filter { sender, ..Filter::default() }, &[second]).await;
    check(Filter { sender: Some(SenderFilter::Null), ..Filter::default() }, &[]).await;
    check(Filter { state: Some(StateFilter::Deferred), ..Filter::default() }, &[first]).await;
    check(Filter { state: Some(StateFilter::Pending), ..Filter::default() }, &[first, second]).await;
    check(Filter { accepted_before: Some(now), ..Filter::default() }, &[first]).await;
    check(Filter { accepted_since: Some(now), ..Filter::default() }, &[second]).await;
    let summary = bench.queue.summary().await.unwrap();
    assert_eq!((summary.items, summary.states["pending"]), (3, 3));
    let far = summary.domains.iter().find(|domain| domain.domain == "far.test").unwrap();
    assert_eq!((far.recipients, far.deferred, far.oldest), (2, 1, now - 100));
}

#[tokio::test(start_paused = true)]
async fn listings_come_in_parts() {
    let bench = Bench::new().await;
    for number in 0..25 {
        bench.send("a@one.test", &[&format!("x@d{}.test", number % 7)], |_| {}).await;
    }
    let filter = Filter { kind: Some(ShardKind::Outbound), ..Filter::default() };
    let (mut seen, mut from) = (Vec::new(), None);
    loop {
        let page = bench.queue.select(&filter, from.as_deref(), 4).await.unwrap();
        seen.extend(page.items.iter().map(|item| (item.shard.clone(), item.number)));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
    assert!(bench.queue.select(&filter, Some("nonsense"), 4).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn acts_change_what_waits() {
    let bench = Bench::new().await;
    let id = bench.send("a@one.test", &["x@far.test", "y@far.test"], |_| {}).await;
    bench.report(bench.lease().await, &deferred()).await;
    assert!(bench.lease().await.is_empty(), "it waits");
    assert_eq!(bench.act(one(id), Action::Retry).await, (1, 2, 0));
    let leased = bench.lease().await;
    assert_eq!(leased.len(), 1);
    // What is being sent is left alone.
    for action in [Action::Hold, Action::Cancel, Action::Expire, Action::Retry] {
        assert_eq!(bench.act(one(id), action).await, (0, 0, 2));
    }
    bench.report(leased, &deferred()).await;
    assert_eq!(bench.act(one(id), Action::Hold).await, (1, 2, 0));
    bench.wait(6 * 86_400);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.states(id).await, ["held", "held"], "what is held does not expire");
    assert!(bench.lease().await.is_empty());
    assert_eq!(bench.act(one(id), Action::Retry).await, (0, 0, 0));
    assert_eq!(bench.act(one(id), Action::Cancel).await, (1, 2, 0));
    assert_eq!(bench.states(id).await, ["cancelled", "cancelled"]);
    assert_eq!(bench.queue.overview().outbound, 0);
}

#[tokio::test(start_paused = true)]
async fn rerouted_mail_goes_elsewhere_at_once() {
    let bench = Bench::new().await;
    let id = bench.send("a@one.test", &["x@far.test"], |_| {}).await;
    bench.report(bench.lease().await, &deferred()).await;
    assert_eq!(bench.act(one(id), Action::Reroute(Some("mx.other.test:26".to_owned()))).await, (1, 1, 0));
    let leased = bench.lease().await;
    assert_eq!(leased[0].route(), Some("mx.other.test:26"));
    bench.report(leased, &deferred()).await;
    bench.act(one(id), Action::Reroute(None)).await;
    assert_eq!(bench.lease().await[0].route(), None);
}

#[tokio::test(start_paused = true)]
async fn released_and_expired_by_hand() {
    let bench = Bench::new().await;
    let (kept, lost) = (
        bench.send("a@one.test", &["x@far.test"], |_| {}).await,
        bench.send("a@one.test", &["y@far.test"], |_| {}).await,
    );
    assert_eq!(bench.act(Filter::default(), Action::Hold).await, (2, 2, 0));
    assert_eq!(bench.act(one(lost), Action::Expire).await, (1, 1, 0));
    let held = Filter { state: Some(StateFilter::Held), ..Filter::default() };
    assert_eq!(bench.act(held, Action::Release).await, (1, 1, 0));
    assert_eq!(bench.lease().await[0].queue_id(), kept);
    let news: Vec<_> =
        bench.queue.claim_now(9).await.iter().flat_map(|claimed| bench.queue.news(claimed)).collect();
    assert_eq!(news.iter().map(|news| news.event.clone()).collect::<Vec<_>>(), [Event::Expired]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_traced_for_two_weeks_after_its_end() {
    let bench = Bench::new().await;
    let id = bench.send("a@one.test", &["x@far.test"], |_| {}).await;
    let delivered = AttemptResult::Delivered { said: said("250 ok"), passed_on: PassedOn::ALL };
    bench.report(bench.lease().await, &delivered).await;
    let traced = async |days: u64| {
        bench.wait(days * 86_400);
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.queue.trace_message_id(&format!("<{id}@x.test>")).await.unwrap()
    };
    let views = traced(13).await;
    let sent = views.iter().flat_map(|view| match &view.standing {
        Standing::Finished { fates, .. } => fates.clone(),
        other => panic!("{other:?}"),
    });
    let replies: Vec<_> = sent
        .filter_map(|fate| match fate.outcome {
            Outcome::Sent { said, doubts: 0 } => Some((said.attempt, said.reply, said.host)),
            _ => None,
        })
        .collect();
    assert_eq!(replies, [(1, "250 ok".to_owned(), Some("mx.test".to_owned()))]);
    assert_eq!(bench.queue.trace(id).await.unwrap(), views);
    assert!(traced(2).await.is_empty());
}

/// A success counts from any attempt, anything else from the current one; nobody tries while a lease lasts.
#[tokio::test(start_paused = true)]
async fn late_results() {
    let mut disk = Disk::new();
    // Processes look at what others have committed.
    disk.log_options.shared = true;
    let bench = Bench::on(disk).await;
    let id = bench.send("a@one.test", &["x@far.test", "y@far.test"], |_| {}).await;
    let slow = bench.lease().await;
    assert!(slow[0].is_live());
    // Another process gives the lease its full time.
    let other = bench.disk.open(&bench.engine, Disk::config()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(other.outbound().turns_now(9).is_empty());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!slow[0].is_live());
    let outbound = other.outbound();
    let mut turns = outbound.turns_now(9);
    let claims = turns[0].claim(9).await;
    assert_eq!(claims[0].recipients().iter().map(|due| due.doubts).collect::<Vec<_>>(), [1, 1]);
    let second = outbound.lease(claims, Duration::from_secs(60)).await.pop().unwrap().unwrap();
    assert_eq!((slow[0].attempt(), second.attempt()), (1, 2));
    let slow = slow.into_iter().next().unwrap();
    let failure = Failure::new("5.1.1", "550 no");
    let results = vec![
        (0, AttemptResult::Delivered { said: said("250 ok"), passed_on: PassedOn::ALL }),
        (1, AttemptResult::Failed { failure, said: said("550 no") }),
    ];
    let reported = bench.queue.outbound().report(vec![AttemptReport { leased: slow, results }]).await;
    let reported = reported.into_iter().next().unwrap().unwrap();
    assert_eq!((reported.delivered, reported.failed, reported.late), (1, 0, 1));
    let reported =
        outbound.report(vec![AttemptReport::all(second, &deferred())]).await.pop().unwrap().unwrap();
    assert_eq!((reported.deferred, reported.late), (1, 1));
    // Its keeper looks at what the other process did.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.states(id).await, ["delivered", "pending"]);
    other.close();
}

/// Under the store's lock a lease of another boot is that of a dead process.
#[tokio::test(start_paused = true)]
async fn a_predecessor_is_not_waited_for() {
    let mut bench = Bench::new().await;
    bench.send("a@one.test", &["x@far.test"], |_| {}).await;
    let leased = bench.lease().await;
    bench.queue.close();
    bench.disk.exclusive = true;
    bench.queue = bench.disk.open(&bench.engine, Disk::config()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.lease().await[0].recipients()[0].doubts, 1);
    drop(leased);
}

/// FUTURERELEASE, MT-PRIORITY and DELIVERBY, as far as the queue obeys them.
#[tokio::test(start_paused = true)]
async fn wishes_are_obeyed() {
    let bench = Bench::new().await;
    let now = bench.disk.clock.now();
    bench.send("a@one.test", &["x@far.test"], |envelope| envelope.hold_until = Some(now + 7_200)).await;
    assert!(bench.lease().await.is_empty());
    bench.wait(7_199);
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.place().await;
    assert!(bench.lease().await.is_empty());
    bench.wait(1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.place().await;
    let leased = bench.lease().await;
    assert_eq!(leased.len(), 1);
    let delivered = AttemptResult::Delivered { said: said("250 ok"), passed_on: PassedOn::ALL };
    bench.report(leased, &delivered).await;

    let low = bench.send("a@one.test", &["x@far.test"], |envelope| envelope.priority = -4).await;
    let high = bench.send("b@one.test", &["x@far.test"], |envelope| envelope.priority = 4).await;
    let order: Vec<QueueId> = bench.lease().await.iter().map(|leased| leased.queue_id()).collect();
    assert_eq!(order, [high, low]);

    let until = bench.disk.clock.now() + 600;
    let by = |mode| Some(DeliverBy { until, mode, trace: false });
    let back = bench.send("a@one.test", &["x@away.test"], |e| e.deliver_by = by(ByMode::Return)).await;
    let told = bench.send("a@one.test", &["y@away.test"], |e| e.deliver_by = by(ByMode::Notify)).await;
    bench.wait(601);
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The line-up notices when it is asked.
    assert!(bench.lease().await.iter().all(|leased| ![back, told].contains(&leased.queue_id())));
    let mut events: Vec<_> = Vec::new();
    for claimed in bench.queue.claim_now(9).await {
        let id = claimed.message().queue_id;
        events.extend(bench.queue.news(&claimed).into_iter().map(|news| (id, news.event)));
    }
    events.sort_by_key(|(id, _)| *id);
    assert_eq!(events, [(back, Event::Late), (told, Event::Delayed)]);
}
