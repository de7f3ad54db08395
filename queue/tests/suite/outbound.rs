//! Crashes at every point of sending: a process that dies between any two commits, leases that lapse, results that come
//! late, are lost, or are of unknown fate. Whatever happens, every recipient ends once; another host gets a message
//! twice only where the attempt before was in doubt, which is counted; its sender hears of an end once at most.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::memory::{Faults, MemoryEngine};
use mail::address::ReversePath;
use mail::envelope::{Envelope, Recipient};
use mail::id::QueueId;
use parking_lot::Mutex;
use queue::item::{Destination, Failure, Outcome, Said};
use queue::{
    AttemptReport, AttemptResult, Claimed, Config, Event, Leased, Origin, Outbound, OutboundClaim, PassedOn,
    Queue, Resolved, Retry, ShardKind, Standing, Submission, Work, WorkError,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::setup::{Disk, account, address};

/// A defect to plant, so that the checks can be seen to notice it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    /// A result that comes late is taken for that of the attempt that is under way.
    ResultWithoutAttempt,
    /// The id of a notification is another in each attempt.
    NotificationIdPerAttempt,
    /// The lease is committed when the other host has answered.
    LeaseAfterDialling,
}

/// Recipient of a message.
type Label = (QueueId, String);

/// What outlives every crash.
struct World {
    plant: Plant,
    disk: Disk,
    /// Recipients of every message whose acceptance was told.
    accepted: Mutex<BTreeMap<QueueId, BTreeSet<String>>>,
    /// How often another host took it.
    copies: Mutex<BTreeMap<Label, u32>>,
    /// Which attempts heard that another host took it.
    heard: Mutex<BTreeSet<(Label, u32)>>,
    /// Recipients for which such an attempt was reported while its lease lasted: these are delivered, whatever else.
    confirmed: Mutex<BTreeSet<Label>>,
    /// Notifications that lie in the sender's mailbox, by their own id: what they are about.
    notifications: Mutex<BTreeMap<QueueId, (Label, &'static str)>>,
    /// What a notification that was written is about, by its own id.
    written: Mutex<BTreeMap<QueueId, (Label, &'static str)>>,
    dice: Mutex<StdRng>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// An attempt whose result is not reported yet.
struct Attempt {
    leased: Leased,
    results: Vec<(u32, AttemptResult)>,
    /// Rounds until it is.
    rounds: u32,
}

const LEASE: Duration = Duration::from_secs(20);

impl World {
    fn new(plant: Plant, seed: u64, exclusive: bool, pair: bool) -> Arc<Self> {
        let mut disk = Disk { exclusive, ..Disk::new() };
        // Processes look at what others have committed.
        disk.log_options.shared = pair;
        Arc::new(Self {
            plant,
            disk,
            accepted: Mutex::default(),
            copies: Mutex::default(),
            heard: Mutex::default(),
            confirmed: Mutex::default(),
            notifications: Mutex::default(),
            written: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            counts: Mutex::default(),
        })
    }

    fn config() -> Config {
        Config {
            retry: Retry { seconds_min: 2, seconds_max: 60, expire_seconds: 3_600, delay_notice_seconds: 20 },
            ..Disk::config()
        }
    }

    fn roll(&self, sides: u32) -> u32 {
        self.dice.lock().random_range(0..sides)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    async fn send(&self, queue: &Queue) {
        let mut envelope = Envelope::new(ReversePath(Some(address("sender@example.test"))));
        let mut names = BTreeSet::new();
        for number in 0..=self.roll(4) {
            // Some hosts never take anything, so that their mail expires.
            let domain = ["a.test", "b.test", "dead.test"][self.roll(3) as usize];
            names.insert(format!("user{number}@{domain}"));
        }
        for name in &names {
            envelope.recipients.push(Recipient::new(address(name)));
        }
        let Ok(mut writer) = queue.body_writer(None).await else { return };
        let queue_id = writer.queue_id();
        let written = writer.write(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await;
        let Ok(body) = writer.finish().await else { return };
        written.unwrap();
        let resolved = vec![Resolved::Remote; names.len()];
        let prefix = Bytes::from_static(b"Received: here\r\n");
        let submission = Submission { envelope, resolved, body, prefix, origin: Origin::default() };
        if queue.submit(submission).await.is_ok() {
            self.accepted.lock().insert(queue_id, names);
            self.count("accepted");
        }
    }

    /// What the delivery agent does.
    async fn deliver(&self, queue: &Queue, claimed: Claimed) -> Result<(), WorkError> {
        if claimed.work() == Work::Notify {
            return self.notify(queue, claimed).await;
        }
        let details = queue.details(&claimed).await?;
        let slice = claimed.expansion().unwrap().slices.last().unwrap().clone();
        let targets = queue.targets(&slice).await?;
        let mut remote = Vec::new();
        for (number, target) in (slice.first..).zip(targets.iter()) {
            match &target.to {
                Destination::Remote { .. } => remote.push((number, target)),
                // The sender's mailbox: a notification, which is recognised when it comes again.
                Destination::Local { .. } => {
                    let id = claimed.message().queue_id;
                    if let Some(about) = self.written.lock().get(&id).cloned() {
                        self.notifications.lock().insert(id, about);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        queue.place_remote(&claimed, &details, &remote).await?;
        queue.report(claimed, Vec::new(), true).await;
        Ok(())
    }

    async fn notify(&self, queue: &Queue, claimed: Claimed) -> Result<(), WorkError> {
        let mut told = Vec::new();
        for news in queue.news(&claimed) {
            let kind = match news.event {
                Event::Delayed => "delayed",
                Event::Failed(_) | Event::Expired | Event::Late => "ended",
                Event::Relayed => "relayed",
            };
            let planted = self.plant == Plant::NotificationIdPerAttempt;
            let writer = if planted {
                queue.body_writer(None).await?
            } else {
                queue.notification_writer(&claimed, news.part()).await?
            };
            let id = writer.queue_id();
            let label = (claimed.message().queue_id, news.recipient.recipient.address.to_string());
            self.written.lock().insert(id, (label, kind));
            let body = writer.finish().await?;
            let mut envelope = Envelope::new(ReversePath::NULL);
            envelope.recipients.push(Recipient::new(address("sender@example.test")));
            let resolved = vec![Resolved::Account { id: account(99), detail: None }];
            let origin = Origin::default();
            let submission = Submission { envelope, resolved, body, prefix: Bytes::new(), origin };
            if planted {
                queue.submit(submission).await?;
            } else {
                queue.submit_notification(&claimed, news.part(), submission).await?;
            }
            told.push(news.told());
            self.count(kind);
        }
        // The process may end here, or another one is told the same.
        if self.roll(8) == 0 {
            self.count("told lost");
            queue.step_back(claimed, 0);
            return Ok(());
        }
        queue.told(claimed, told).await
    }

    /// Offers a message to another host: what became of each recipient.
    fn dial(&self, claim: &OutboundClaim) -> Vec<(u32, AttemptResult)> {
        let said = |reply: &str| Said { host: Some("mx.test".to_owned()), ..Said::new(1, reply) };
        let due = claim.recipients().iter();
        due.map(|due| {
            let label = (claim.queue_id(), due.recipient.address.to_string());
            let dead = claim.domain().ascii() == "dead.test";
            let result = match self.roll(if dead { 3 } else { 12 }) {
                0 | 1 => AttemptResult::Deferred { said: said("451 later"), not_before: None },
                2 => AttemptResult::Untried { seconds: 1 },
                3 => {
                    self.count("refused");
                    let failure = Failure::new("5.1.1", "550 no such user");
                    AttemptResult::Failed { failure, said: said("550 no such user") }
                }
                lost @ (4 | 5) => {
                    // Behind the final dot: taken or not, nobody knows.
                    if lost == 4 {
                        *self.copies.lock().entry(label).or_default() += 1;
                    }
                    self.count("answer lost");
                    AttemptResult::InDoubt { said: said("connection lost") }
                }
                _ => {
                    *self.copies.lock().entry(label).or_default() += 1;
                    AttemptResult::Delivered { said: said("250 ok"), passed_on: PassedOn::ALL }
                }
            };
            (due.index, result)
        })
        .collect()
    }

    /// What the service that dials does, with a chance to stop after each step.
    async fn attempts(&self, outbound: &Outbound, open: &mut Vec<Attempt>) {
        for mut turn in outbound.turns_now(4) {
            let claims = turn.claim(3).await;
            if claims.is_empty() || self.roll(20) == 0 {
                self.count("turns left");
                continue;
            }
            if self.plant == Plant::LeaseAfterDialling {
                for claim in claims {
                    let results = self.dial(&claim);
                    if self.roll(6) == 0 {
                        // The process dies with the answer.
                        continue;
                    }
                    for leased in outbound.lease(vec![claim], LEASE).await.into_iter().flatten() {
                        open.push(Attempt { leased, results: results.clone(), rounds: 0 });
                    }
                }
                continue;
            }
            for leased in outbound.lease(claims, LEASE).await {
                let Ok(leased) = leased else {
                    self.count("not leased");
                    continue;
                };
                self.count("leased");
                if !leased.is_live() {
                    continue;
                }
                let results = self.dial(&leased);
                self.hear(&leased, &results);
                // What comes late meets what is under way more often where that matters.
                let sides = if self.plant == Plant::ResultWithoutAttempt { 4 } else { 12 };
                match self.roll(sides) {
                    0 => self.count("report lost"),
                    1 => open.push(Attempt { leased, results, rounds: 60 }),
                    rounds @ 2..5 => open.push(Attempt { leased, results, rounds }),
                    _ => open.push(Attempt { leased, results, rounds: 0 }),
                }
            }
        }
        let mut due = Vec::new();
        for attempt in std::mem::take(open) {
            match attempt.rounds {
                0 => due.push(attempt),
                rounds => open.push(Attempt { rounds: rounds - 1, ..attempt }),
            }
        }
        let standing: Vec<Vec<Label>> = due.iter().map(|attempt| self.standing(&attempt.leased)).collect();
        let reports = due
            .into_iter()
            .map(|Attempt { leased, results, .. }| AttemptReport { leased, results })
            .collect();
        for (reported, standing) in outbound.report(reports).await.into_iter().zip(standing) {
            let reported = match reported {
                Ok(reported) => reported,
                Err(unreported) => {
                    // Perhaps it was committed and perhaps not; the second report finds out.
                    self.count("reported again");
                    let again = outbound.report(vec![*unreported.report]).await.pop().unwrap();
                    let Ok(reported) = again else { continue };
                    reported
                }
            };
            if reported.late > 0 {
                self.count("late");
            }
            self.confirmed.lock().extend(standing);
        }
    }

    /// Takes down what an attempt heard.
    fn hear(&self, leased: &Leased, results: &[(u32, AttemptResult)]) {
        let taken = results.iter().filter(|(_, result)| matches!(result, AttemptResult::Delivered { .. }));
        for (index, _) in taken {
            let due = leased.recipients().iter().find(|due| due.index == *index).unwrap();
            let label = (leased.queue_id(), due.recipient.address.to_string());
            self.heard.lock().insert((label, leased.attempt()));
        }
    }

    /// Recipients of an attempt that are delivered once it is reported: it heard so, and its lease lasts.
    fn standing(&self, leased: &Leased) -> Vec<Label> {
        if !leased.is_live() {
            return Vec::new();
        }
        let heard = self.heard.lock();
        let labels =
            leased.recipients().iter().map(|due| (leased.queue_id(), due.recipient.address.to_string()));
        labels.filter(|label| heard.contains(&(label.clone(), leased.attempt()))).collect()
    }

    /// Says of the attempt under way what an earlier one of the same item heard.
    fn relabel(&self, open: &mut [Vec<Attempt>]) {
        let mut all: Vec<&mut Attempt> = open.iter_mut().flatten().collect();
        for late in 0..all.len() {
            for now in 0..all.len() {
                let (one, other) = (&all[late].leased, &all[now].leased);
                let same = one.queue_id() == other.queue_id() && one.domain() == other.domain();
                if same && one.attempt() < other.attempt() {
                    let results = std::mem::take(&mut all[late].results);
                    all[late].results = std::mem::replace(&mut all[now].results, results);
                    self.count("relabelled");
                }
            }
        }
    }
}

/// How a history goes.
#[derive(Clone, Copy)]
struct Course {
    plant: Plant,
    seed: u64,
    lives: u32,
    /// The process takes it that there is no other.
    exclusive: bool,
    /// Two processes work side by side on the same store.
    pair: bool,
}

/// Runs one history with crashes; answers what the checks say.
async fn history(course: Course) -> (Result<(), String>, BTreeMap<&'static str, u64>) {
    let Course { plant, seed, lives, exclusive, pair } = course;
    let world = World::new(plant, seed, exclusive, pair);
    let mut engine = MemoryEngine::with_faults(Faults { seed, ..Faults::default() });
    let mut result = Err("the last life did not begin".to_owned());
    for life in 0..lives {
        let last = life + 1 == lives;
        let cut = if last { None } else { Some(engine.syncs() + 20 + u64::from(world.roll(150))) };
        // In some lives the fate of commits is often unknown.
        let unknown = if !last && world.roll(3) == 0 { 0.05 } else { 0.0 };
        engine.set_faults(Faults {
            seed,
            power_cut_after_sync: cut,
            unknown_applied: unknown,
            unknown_not_applied: unknown,
            ..Faults::default()
        });
        let mut queues = Vec::new();
        for _ in 0..if pair { 2 } else { 1 } {
            queues.extend(world.disk.open(&engine, World::config()).await);
        }
        if !queues.is_empty() {
            live(&world, &queues, &engine, last).await;
        }
        if last && let Some(queue) = queues.first() {
            result = check(&world, queue).await;
        }
        for queue in &queues {
            queue.close();
        }
        // Half of the crashes take the power along, half the process alone.
        engine = if world.roll(2) == 0 || engine.power_is_cut() {
            engine.after_power_cut(Faults { seed: seed + u64::from(life), ..Faults::default() })
        } else {
            engine
        };
    }
    let counts = world.counts.lock().clone();
    (result, counts)
}

async fn live(world: &Arc<World>, queues: &[Queue], engine: &MemoryEngine, last: bool) {
    let mut open: Vec<Vec<Attempt>> = queues.iter().map(|_| Vec::new()).collect();
    let rounds = if last { 1_500 } else { 60 + world.roll(60) };
    for round in 0..rounds {
        if engine.power_is_cut() {
            world.count("power cuts");
            return;
        }
        let now = world.disk.clock.now() + if last && round > 400 { 20 } else { 1 };
        world.disk.clock.set(now);
        if world.plant == Plant::ResultWithoutAttempt {
            world.relabel(&mut open);
        }
        for (queue, open) in queues.iter().zip(&mut open) {
            if !last && world.roll(2) == 0 {
                world.send(queue).await;
            }
            for claimed in queue.claim_now(8).await {
                if world.deliver(queue, claimed).await.is_err() {
                    world.count("failed steps");
                }
            }
            world.attempts(&queue.outbound(), open).await;
        }
        // Reporter, keeper and leases get their turn; leases count on this clock.
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let left = queues[0].overview();
        if last && round > 100 && left.ingest + left.outbound == 0 {
            return;
        }
    }
}

/// Every recipient ended once, nothing came twice without a doubt, and every sender was told once.
async fn check(world: &World, queue: &Queue) -> Result<(), String> {
    let left = queue.overview();
    if left.ingest + left.outbound + left.quarantined > 0 {
        let open = queue.list(ShardKind::Outbound, 5).await.unwrap();
        return Err(format!("items are left in the queue: {left:?} {open:?}"));
    }
    let mut ends: BTreeMap<Label, Vec<Outcome>> = BTreeMap::new();
    for view in queue.history(ShardKind::Outbound, usize::MAX).await.unwrap() {
        let Standing::Finished { fates, .. } = view.standing else { continue };
        for fate in fates {
            let label = (view.queue_id, fate.address.unwrap().to_string());
            ends.entry(label).or_default().push(fate.outcome);
        }
    }
    let mut told: BTreeMap<Label, BTreeMap<&'static str, u32>> = BTreeMap::new();
    for (label, kind) in world.notifications.lock().values() {
        *told.entry(label.clone()).or_default().entry(kind).or_default() += 1;
    }
    let copies = world.copies.lock();
    for (queue_id, names) in world.accepted.lock().iter() {
        for name in names {
            let label = (*queue_id, name.clone());
            let ended = ends.get(&label).map(Vec::as_slice).unwrap_or_default();
            let [end] = ended else { return Err(format!("{label:?} ended {} times", ended.len())) };
            let copies = copies.get(&label).copied().unwrap_or(0);
            let told = told.get(&label).cloned().unwrap_or_default();
            let ends_told = told.get("ended").copied().unwrap_or(0);
            let delays_told = told.get("delayed").copied().unwrap_or(0);
            match end {
                Outcome::Sent { doubts, .. } => {
                    if copies == 0 || copies > 1 + doubts {
                        return Err(format!("{label:?}: {copies} copies sent with {doubts} doubts"));
                    }
                    if ends_told > 0 {
                        return Err(format!("{label:?} was delivered and bounced"));
                    }
                    if *doubts > 0 {
                        world.count("delivered with doubts");
                    }
                    if copies > 1 {
                        world.count("doubled");
                    }
                }
                Outcome::Failed { .. } | Outcome::Expired { .. } => {
                    if world.confirmed.lock().contains(&label) {
                        return Err(format!("{label:?} was delivered and bounced"));
                    }
                    if ends_told != 1 {
                        return Err(format!("{label:?}: {ends_told} notifications about the end"));
                    }
                }
                other => return Err(format!("{label:?} ended as {other:?}")),
            }
            if delays_told > 1 {
                return Err(format!("{label:?}: {delays_told} notifications about the delay"));
            }
        }
    }
    Ok(())
}

async fn histories(course: Course, seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds {
        let (result, counts) = history(Course { seed, ..course }).await;
        result.unwrap_or_else(|error| panic!("seed {seed}: {error} ({counts:?})"));
        for (what, count) in counts {
            *total.entry(what).or_default() += count;
        }
    }
    total
}

const COURSE: Course = Course { plant: Plant::Nothing, seed: 0, lives: 5, exclusive: false, pair: false };

fn check_counts(total: &BTreeMap<&'static str, u64>, expected: &[&str]) {
    for what in expected {
        assert!(total.get(what).is_some_and(|count| *count > 5), "{what} in {total:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn conserved_while_sending() {
    let total = histories(COURSE, 0..20).await;
    check_counts(
        &total,
        &[
            "power cuts",
            "accepted",
            "leased",
            "ended",
            "delayed",
            "answer lost",
            "report lost",
            "told lost",
            "delivered with doubts",
            "doubled",
        ],
    );
}

/// Under the store's lock, leases of the process before need not be waited for.
#[tokio::test(start_paused = true)]
async fn conserved_when_alone() {
    let total = histories(Course { exclusive: true, ..COURSE }, 100..115).await;
    check_counts(&total, &["power cuts", "leased", "delivered with doubts"]);
}

/// Two processes on one store: whoever is slower finds out.
#[tokio::test(start_paused = true)]
async fn conserved_side_by_side() {
    let total = histories(Course { pair: true, ..COURSE }, 200..210).await;
    check_counts(&total, &["leased", "late", "delivered with doubts"]);
}

#[tokio::test(start_paused = true)]
async fn planted_defects_are_caught() {
    let plants = [
        (Plant::ResultWithoutAttempt, "was delivered and bounced"),
        (Plant::NotificationIdPerAttempt, "notifications about the"),
        (Plant::LeaseAfterDialling, "copies sent with"),
    ];
    for (plant, symptom) in plants {
        let mut errors = Vec::new();
        for seed in 0..40 {
            // A second attempt beside a first that is alive takes a second process.
            let pair = plant == Plant::ResultWithoutAttempt;
            errors.extend(history(Course { plant, seed, pair, ..COURSE }).await.0.err());
            if errors.iter().any(|error| error.contains(symptom)) {
                break;
            }
        }
        assert!(errors.iter().any(|error| error.contains(symptom)), "{plant:?}: {errors:?}");
    }
}
