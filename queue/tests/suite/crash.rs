//! Crashes at every point: the queue over an engine that forgets what was not synced, with consumers that remember what
//! they were given. Whatever happens, every accepted recipient ends delivered, bounced, placed outbound, or is still
//! queued; nothing is put into a mailbox twice, and there is at most one notification per recipient.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::memory::{Faults, MemoryEngine};
use mail::address::ReversePath;
use mail::envelope::{Envelope, Recipient};
use mail::id::{AccountId, QueueId};
use parking_lot::Mutex;
use queue::item::{Destination, Failure, Outcome, Target};
use queue::{Claimed, Event, Origin, Queue, Resolved, ShardKind, Standing, Submission, Work, WorkError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::setup::{Disk, account, address};

/// A defect to plant, so that the checks can be seen to notice it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    /// Accounts do not look at ingest ids.
    IngestIdIgnored,
    /// The id of a notification is another in each attempt.
    NotificationIdPerAttempt,
    /// A bounce is not preceded by `rejected` in the account's log.
    NotRejectedFirst,
}

/// An account's log, as far as deliveries are concerned: durable at once.
#[derive(Default)]
struct Mailbox {
    delivered: Vec<Label>,
    watermarks: BTreeMap<Uuid, u64>,
    done: BTreeMap<(Uuid, u64, u32), bool>,
}

/// Recipient `1` of message `0`, whatever shards it comes through.
type Label = (QueueId, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivered {
    Placed,
    Already,
    Rejected,
}

impl Mailbox {
    fn seen(&mut self, id: (Uuid, u64, u32), watermark: u64) -> Option<Delivered> {
        let known = self.watermarks.entry(id.0).or_default();
        *known = (*known).max(watermark);
        if id.1 < *known && !self.done.contains_key(&id) {
            return Some(Delivered::Already);
        }
        self.done.get(&id).map(|placed| if *placed { Delivered::Already } else { Delivered::Rejected })
    }

    fn deliver(&mut self, plant: Plant, id: (Uuid, u64, u32), watermark: u64, label: Label) -> Delivered {
        if let Some(seen) = self.seen(id, watermark)
            && plant != Plant::IngestIdIgnored
        {
            return seen;
        }
        self.delivered.push(label);
        self.done.insert(id, true);
        Delivered::Placed
    }

    fn reject(&mut self, id: (Uuid, u64, u32), watermark: u64) -> Delivered {
        if let Some(seen) = self.seen(id, watermark) {
            return seen;
        }
        self.done.insert(id, false);
        Delivered::Rejected
    }
}

/// What outlives every crash.
struct World {
    plant: Plant,
    disk: Disk,
    mailboxes: Mutex<HashMap<AccountId, Mailbox>>,
    /// Accounts that are full: deliveries to them bounce.
    full: Mutex<BTreeSet<AccountId>>,
    /// Number of recipients of every message whose acceptance was told.
    accepted: Mutex<BTreeMap<QueueId, usize>>,
    /// Ids under which the notification about a target was submitted.
    notifications: Mutex<BTreeMap<Label, BTreeSet<QueueId>>>,
    dice: Mutex<StdRng>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl World {
    fn new(plant: Plant, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            plant,
            disk: Disk::new(),
            mailboxes: Mutex::default(),
            full: Mutex::default(),
            accepted: Mutex::default(),
            notifications: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            counts: Mutex::default(),
        })
    }

    fn roll(&self, sides: u32) -> u32 {
        self.dice.lock().random_range(0..sides)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    async fn send(&self, queue: &Queue) {
        let recipients = if self.roll(8) == 0 { 12 } else { 1 + self.roll(2) };
        let mut envelope = Envelope::new(ReversePath(Some(address("sender@example.test"))));
        let mut resolved = Vec::new();
        for _ in 0..recipients {
            let (to, found) = match self.roll(6) {
                0 => ("far@example.org".to_owned(), Resolved::Remote),
                1 => (format!("alias{}@example.test", self.roll(4)), Resolved::Later),
                _ => {
                    let number = self.roll(4);
                    let account = Resolved::Account { id: account(number), detail: None };
                    (format!("user{number}@example.test"), account)
                }
            };
            envelope.recipients.push(Recipient::new(address(&to)));
            resolved.push(found);
        }
        let first = resolved.iter().find_map(|found| match found {
            Resolved::Account { id, .. } => Some(*id),
            _ => None,
        });
        let Ok(mut writer) = queue.body_writer(first).await else { return };
        let queue_id = writer.queue_id();
        let written = writer.write(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await;
        let Ok(body) = writer.finish().await else { return };
        written.unwrap();
        let prefix = Bytes::from_static(b"Received: here\r\n");
        let submission = Submission { envelope, resolved, body, prefix, origin: Origin::default() };
        if queue.submit(submission).await.is_ok() {
            self.accepted.lock().insert(queue_id, recipients as usize);
            self.count("accepted");
        }
    }

    /// What the delivery agent does, with a chance to stop after each step.
    async fn work(&self, queue: &Queue, mut claimed: Claimed) -> Result<(), WorkError> {
        match claimed.work() {
            Work::Notify => return self.notify_remote(queue, claimed).await,
            Work::Quarantine | Work::Deliver => {}
        }
        let details = queue.details(&claimed).await?;
        loop {
            let expansion = claimed.expansion().unwrap().clone();
            if expansion.pending() == 0 && (expansion.expanded as usize) < details.recipients.len() {
                let from = expansion.expanded as usize;
                let to = (from + 3).min(details.recipients.len());
                let targets = details.recipients[from..to].iter().zip(from as u32..);
                let targets =
                    targets.flat_map(|(recipient, index)| self.expand(queue, recipient, index)).collect();
                queue.expand(&mut claimed, to as u32, Vec::new(), targets).await?;
                self.count("expanded");
                continue;
            }
            let slice = expansion.slices.last().unwrap();
            let targets = queue.targets(slice).await?;
            let mut outcomes = Vec::new();
            let mut remote = Vec::new();
            for (number, target) in (slice.first..).zip(targets.iter()) {
                if slice.is_settled(number) {
                    continue;
                }
                match &target.to {
                    Destination::Local { account, .. } => {
                        let bounced = self.place(queue, &claimed, *account, number).await?;
                        if let Some(outcome) = bounced {
                            outcomes.push((number, outcome));
                        }
                    }
                    Destination::Remote { .. } => remote.push((number, target)),
                    Destination::Unreachable { failure, .. } => {
                        self.bounce(queue, &claimed, number).await?;
                        outcomes.push((number, failed(failure.clone())));
                    }
                    Destination::Same { .. } => {}
                }
                tokio::task::yield_now().await;
            }
            queue.place_remote(&claimed, &details, &remote).await?;
            if (expansion.expanded as usize) < details.recipients.len() {
                assert!(queue.settle(&mut claimed, outcomes, true).await?);
                continue;
            }
            if self.roll(10) == 0 {
                // The report is lost: the item comes again.
                self.count("done lost");
                queue.step_back(claimed, 0);
                return Ok(());
            }
            queue.report(claimed, outcomes, true).await;
            return Ok(());
        }
    }

    fn expand(&self, queue: &Queue, recipient: &Recipient, index: u32) -> Vec<Target> {
        let target = |to| Target { recipient: index, owner: None, to };
        let local = recipient.address.local();
        if let Some(number) = local.strip_prefix("user") {
            let account = account(number.parse().unwrap());
            return vec![target(Destination::Local { account, detail: None })];
        }
        match local {
            // A changing answer, as from a directory that is edited: what was committed first stays.
            "alias0" if self.roll(2) == 0 => Vec::from(
                [0, 1].map(|number| target(Destination::Local { account: account(number), detail: None })),
            ),
            "alias0" | "alias1" => vec![target(Destination::Local { account: account(2), detail: None })],
            "far" | "alias2" => vec![target(queue.remote(address("far@example.org")))],
            _ => {
                let failure = Failure::new("5.1.1", "no such user");
                vec![target(Destination::Unreachable { address: None, failure })]
            }
        }
    }

    async fn place(
        &self,
        queue: &Queue,
        claimed: &Claimed,
        account: AccountId,
        number: u32,
    ) -> Result<Option<Outcome>, WorkError> {
        let id = (claimed.producer(), claimed.number(), number);
        let watermark = claimed.watermark();
        let full = self.full.lock().contains(&account);
        let answer = {
            let mut mailboxes = self.mailboxes.lock();
            let mailbox = mailboxes.entry(account).or_default();
            match full {
                true if self.plant == Plant::NotRejectedFirst => Delivered::Rejected,
                true => mailbox.reject(id, watermark),
                false => mailbox.deliver(self.plant, id, watermark, (claimed.message().queue_id, number)),
            }
        };
        Ok(match answer {
            Delivered::Placed => None,
            Delivered::Already => {
                self.count("recognised");
                None
            }
            Delivered::Rejected => {
                self.bounce(queue, claimed, number).await?;
                Some(failed(Failure::new("5.2.2", "full")))
            }
        })
    }

    async fn bounce(&self, queue: &Queue, claimed: &Claimed, number: u32) -> Result<(), WorkError> {
        if claimed.message().sender.reverse_path.is_null() {
            return Ok(());
        }
        let planted = self.plant == Plant::NotificationIdPerAttempt;
        let writer = if planted {
            queue.body_writer(None).await
        } else {
            queue.notification_writer(claimed, number).await
        };
        let mut writer = writer?;
        let text = format!("Subject: {} {number}\r\n\r\n", claimed.message().queue_id);
        writer.write(text.into()).await?;
        let body = writer.finish().await?;
        let mut envelope = Envelope::new(ReversePath::NULL);
        envelope.recipients.push(Recipient::new(address("sender@example.test")));
        let about = (claimed.message().queue_id, number);
        self.notifications.lock().entry(about).or_default().insert(body.queue_id());
        let resolved = vec![Resolved::Account { id: account(99), detail: None }];
        let origin = Origin::default();
        let submission = Submission { envelope, resolved, body, prefix: Bytes::new(), origin };
        if planted {
            queue.submit(submission).await?;
        } else {
            queue.submit_notification(claimed, number, submission).await?;
        }
        self.count("notified");
        Ok(())
    }

    async fn notify_remote(&self, queue: &Queue, claimed: Claimed) -> Result<(), WorkError> {
        let mut told = Vec::new();
        for news in queue.news(&claimed) {
            // What waits to be sent finds nobody here who would; so nothing but its end is told.
            assert_eq!(news.event, Event::Expired);
            self.bounce(queue, &claimed, news.part()).await?;
            told.push(news.told());
        }
        queue.told(claimed, told).await?;
        self.count("expired");
        Ok(())
    }
}

fn failed(failure: Failure) -> Outcome {
    Outcome::Failed { failure, notified: true }
}

/// Runs one history with power cuts; answers what the checks say.
async fn history(plant: Plant, seed: u64, lives: u32) -> (Result<(), String>, BTreeMap<&'static str, u64>) {
    let world = World::new(plant, seed);
    let mut engine = MemoryEngine::with_faults(Faults { seed, ..Faults::default() });
    let mut ledger = Ledger::default();
    for life in 0..lives {
        let last = life + 1 == lives;
        let cut = if last { None } else { Some(engine.syncs() + 20 + u64::from(world.roll(120))) };
        engine.set_faults(Faults { seed, power_cut_after_sync: cut, ..Faults::default() });
        *world.full.lock() = if world.roll(2) == 0 { BTreeSet::from([account(1)]) } else { BTreeSet::new() };
        if let Some(queue) = world.disk.open(&engine, Disk::config()).await {
            live(&world, &queue, &engine, last).await;
            if last {
                ledger = Ledger::take(&queue).await;
            }
            let stats = queue.log_stats();
            let mut counts = world.counts.lock();
            *counts.entry("snapshots").or_default() += stats.snapshots;
            drop(counts);
            queue.close();
        }
        engine = engine.after_power_cut(Faults { seed: seed + u64::from(life), ..Faults::default() });
    }
    let result = ledger.check(&world);
    let counts = world.counts.lock().clone();
    (result, counts)
}

async fn live(world: &Arc<World>, queue: &Queue, engine: &MemoryEngine, last: bool) {
    // However the threads of the engine are scheduled, the last life goes on until nothing is left to do.
    let rounds = if last { 10_000 } else { 400 };
    let (mut idle, mut aged) = (0, false);
    for round in 0..rounds {
        if engine.power_is_cut() {
            world.count("power cuts");
            return;
        }
        if !last || round < 10 {
            world.send(queue).await;
        }
        if last && !aged && round >= 30 && queue.overview().ingest == 0 {
            // What waits to be sent gets too old, and bounces.
            aged = true;
            world.disk.clock.set(world.disk.clock.now() + 6 * 86_400);
        } else {
            world.disk.clock.set(world.disk.clock.now() + 1);
        }
        let claimed = queue.claim_now(8).await;
        idle = if claimed.is_empty() { idle + 1 } else { 0 };
        let works = claimed.into_iter().map(|claimed| async {
            if let Err(error) = world.work(queue, claimed).await {
                world.count("failed steps");
                tracing::debug!(%error, "work failed");
            }
        });
        futures_util::future::join_all(works).await;
        // The reporter and the keeper get their turn.
        tokio::time::sleep(Duration::from_millis(if last { 20 } else { 1 })).await;
        if last && aged && idle > 60 {
            return;
        }
    }
}

/// What is left and what has ended at the end of all lives.
#[derive(Default)]
struct Ledger {
    left: Vec<queue::ItemView>,
    views: Vec<queue::ItemView>,
}

impl Ledger {
    async fn take(queue: &Queue) -> Self {
        let mut left = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound, ShardKind::Quarantine] {
            left.extend(queue.list(kind, usize::MAX).await.unwrap());
        }
        Self { left, views: queue.history(ShardKind::Ingest, usize::MAX).await.unwrap() }
    }

    fn check(&self, world: &World) -> Result<(), String> {
        if !self.left.is_empty() {
            return Err(format!("{} items are left in the queue: {:#?}", self.left.len(), self.left));
        }
        let mailboxes = world.mailboxes.lock();
        let mut copies: BTreeMap<Label, usize> = BTreeMap::new();
        for label in mailboxes.values().flat_map(|mailbox| &mailbox.delivered) {
            *copies.entry(*label).or_default() += 1;
        }
        if let Some((label, count)) = copies.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{label:?} was delivered {count} times"));
        }
        // Notifications that reached the sender, by what they are about.
        let mut told: BTreeMap<QueueId, Vec<u32>> = BTreeMap::new();
        for (about, ids) in world.notifications.lock().iter() {
            match ids.iter().filter(|id| copies.contains_key(&(**id, 0))).count() {
                0 => {}
                1 => told.entry(about.0).or_default().push(about.1),
                count => return Err(format!("{count} notifications about {about:?}")),
            }
            if copies.contains_key(about) && ids.iter().any(|id| copies.contains_key(&(*id, 0))) {
                return Err(format!("{about:?} was delivered and bounced"));
            }
        }
        let mut fates: BTreeMap<QueueId, Vec<&Outcome>> = BTreeMap::new();
        for view in &self.views {
            let Standing::Finished { fates: those, .. } = &view.standing else { continue };
            fates.entry(view.queue_id).or_default().extend(those.iter().map(|fate| &fate.outcome));
        }
        for (queue_id, recipients) in world.accepted.lock().iter() {
            let outcomes = fates.get(queue_id).map(Vec::as_slice).unwrap_or_default();
            let count = |what: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| what(outcome)).count();
            if outcomes.len() < *recipients {
                return Err(format!("{queue_id}: {} of {recipients} recipients ended", outcomes.len()));
            }
            let delivered = count(|outcome| *outcome == Outcome::Delivered);
            let there = copies.keys().filter(|(id, _)| id == queue_id).count();
            if delivered != there {
                return Err(format!("{queue_id}: {delivered} delivered, {there} in mailboxes"));
            }
            // What waited to be sent has expired by now, so that its sender was told as of a failure.
            let undelivered = count(|outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Queued));
            let told = told.get(queue_id).map_or(0, Vec::len);
            if told != undelivered {
                return Err(format!("{queue_id}: {undelivered} not delivered, {told} told"));
            }
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn conserved_across_power_cuts() {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..40 {
        let (result, counts) = history(Plant::Nothing, seed, 6).await;
        result.unwrap_or_else(|error| panic!("seed {seed}: {error} ({counts:?})"));
        for (what, count) in counts {
            *total.entry(what).or_default() += count;
        }
    }
    for what in
        ["power cuts", "accepted", "expanded", "notified", "expired", "done lost", "recognised", "snapshots"]
    {
        assert!(total.get(what).is_some_and(|count| *count > 10), "{what} in {total:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn planted_defects_are_caught() {
    let plants = [
        (Plant::IngestIdIgnored, "was delivered 2 times"),
        (Plant::NotificationIdPerAttempt, "2 notifications about"),
        (Plant::NotRejectedFirst, "was delivered and bounced"),
    ];
    for (plant, symptom) in plants {
        let mut errors = Vec::new();
        for seed in 0..40 {
            errors.extend(history(plant, seed, 6).await.0.err());
            if errors.last().is_some_and(|error| error.contains(symptom)) {
                println!("\nresult\tlost done and {plant:?}\tcaught_in_round={} problem={symptom}", seed + 1);
                break;
            }
        }
        assert!(errors.iter().any(|error| error.contains(symptom)), "{plant:?}: {errors:?}");
    }
}
