//! An account that moves between two regions while mail comes to both: each message is there once.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use directory::admin::Expected;
use directory::homes::Homes;
use directory::journey::Stage;
use directory::{Resolution, admin::NewAccount, admin::NewPassword};
use engine::memory::{Faults, MemoryEngine};
use engine::{LogId, LogOptions};
use engine_move::{carry_log, discard_log};
use futures_util::StreamExt;
use mail::address::Domain;
use mail::id::AccountId;
use queue::item::Said;
use queue::{AttemptReport, AttemptResult, ShardId, ShardKind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::{Delivered, IngestId, Principal, Storage};

use crate::world::{Disk, World, address};

const ALICE: &str = "alice@example.test";
const NAMES: [&str; 2] = ["eu", "us"];

/// Two regions and what they share.
struct Regions {
    disks: [Disk; 2],
    table: MemoryEngine,
    worlds: [World; 2],
    /// Where alice is.
    home: usize,
    accepted: Vec<String>,
}

/// Where a move can be cut short.
const STEPS: usize = 7;

impl Regions {
    async fn new() -> Self {
        let (disks, table) = ([Disk::new(), Disk::new()], MemoryEngine::new());
        let worlds = [open(&disks[0], &table, 0).await.unwrap(), open(&disks[1], &table, 1).await.unwrap()];
        for world in &worlds {
            let domain = Domain::parse("example.test").unwrap();
            world
                .directory
                .create_domain(&domain, directory::entry::DomainSettings::default())
                .await
                .unwrap();
        }
        let new =
            NewAccount { password: NewPassword::Clear("postrider".to_owned()), ..NewAccount::default() };
        worlds[0].directory.create_account(&address(ALICE), new).await.unwrap();
        Self { disks, table, worlds, home: 0, accepted: Vec::new() }
    }

    /// A message for alice at a region; it counts when it was accepted.
    async fn submit(&mut self, at: usize, looked_up: bool) {
        let subject = format!("Subject: {} at {}.\r\n", self.accepted.len(), NAMES[at]);
        let text = format!("{subject}\r\nbody\r\n");
        if self.worlds[at].submit("sender@far.test", &[ALICE], &text, looked_up).await.is_ok() {
            self.accepted.push(subject);
        }
    }

    /// What an operator's command does, as far as a step.
    async fn relocate(&mut self, steps: usize) {
        let (from, to) = (self.home, 1 - self.home);
        let [old, new] = [&self.worlds[from], &self.worlds[to]];
        let [here, there] = NAMES.map(|name| name.parse().unwrap());
        let [here, there] = if from == 0 { [here, there] } else { [there, here] };
        let alice = address(ALICE);
        let engines = [from, to].map(|at| self.disks[at].engine.engine());
        let moving = old.directory.account_entry(&alice).await.unwrap();
        let arrived = new.directory.account_entry(&alice).await.unwrap();
        let id = moving.as_ref().or(arrived.as_ref()).unwrap().id;
        // A process of its own, which knows nothing of what these have in memory.
        let [departing, coming] = [(old, &engines[0]), (new, &engines[1])].map(|(world, engine)| {
            let (logs, config) =
                (LogOptions { shared: true, ..LogOptions::default() }, storage::Config::default());
            Storage::new(engine.clone(), logs, None, world.queue.blobs().clone(), config)
        });
        let in_use = arrived.is_some_and(|account| account.status.receives());
        if !in_use {
            let moving = old.directory.begin_move(&alice).await.unwrap();
            if steps == 0 {
                return;
            }
            let expected = new.directory.expect_account(&alice, &moving).await.unwrap();
            let Expected::Attempt(attempt) = expected else { panic!("{expected:?}") };
            departing.close_account(id).await.unwrap();
            if steps == 1 {
                return;
            }
            if !matches!(coming.resting(id).await, Ok(None)) {
                self.copy(id, [from, to], &departing).await;
            }
            if steps == 2 {
                return;
            }
            let copy = Storage::new(
                engines[1].clone(),
                LogOptions { shared: true, ..LogOptions::default() },
                None,
                new.queue.blobs().clone(),
                storage::Config::default(),
            );
            copy.open_again(id, &here, &there).await.unwrap();
            if steps == 3 {
                return;
            }
            new.directory.adopt_account(&alice, id, attempt).await.unwrap();
        }
        if steps == 4 {
            return;
        }
        old.directory.hand_name_over(&alice, &there).await.unwrap();
        if steps == 5 {
            return;
        }
        if let Some(entry) = old.directory.account_entry(&alice).await.unwrap() {
            let journey = old.directory.journey(id).await.unwrap().unwrap();
            if matches!(journey.stage, Stage::Away { .. }) {
                old.directory.end_move_again(&alice, &entry).await.unwrap();
            } else {
                let delivered = departing.deliveries(id).await.unwrap().encode();
                old.directory.end_move(&alice, &entry, &journey, delivered).await.unwrap();
            }
        }
        if steps == 6 {
            return;
        }
        discard_log(&engines[0], LogId::account(id.0)).await.unwrap();
        old.queue.blobs().keys().withdraw(Storage::key_of(id)).await.unwrap();
        self.home = to;
    }

    async fn copy(&self, id: AccountId, [from, to]: [usize; 2], departing: &Storage) {
        let [from_blobs, into_blobs] = [from, to].map(|at| self.worlds[at].queue.blobs());
        into_blobs.keys().carry(from_blobs.keys(), Storage::key_of(id)).await.unwrap();
        let mut held = Vec::new();
        let each = async |some| {
            held.extend(some);
            Ok(())
        };
        departing.holdings(id, each).await.unwrap();
        for holding in held {
            into_blobs.carry(from_blobs, &holding.address, holding.nonce, Storage::holder(id)).await.unwrap();
        }
        let [source, target] = [from, to].map(|at| self.disks[at].engine.engine());
        carry_log(&source, &target, LogId::account(id.0)).await.unwrap().unwrap();
        // Opened anew, as whoever verifies it does.
        let resting = departing.resting(id).await.unwrap().unwrap();
        let logs = LogOptions { shared: true, ..LogOptions::default() };
        let copy = Storage::new(target, logs, None, into_blobs.clone(), storage::Config::default());
        assert_eq!(copy.resting(id).await.unwrap(), Some(resting));
        let report = copy.check(id, storage::CheckDepth::Bodies).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }

    /// Ends a region's process, by a power cut, and starts it anew.
    async fn restart(&mut self, at: usize, seed: u64) {
        self.worlds[at].queue.close();
        self.disks[at] = self.disks[at].after_power_cut(Faults { seed, ..Faults::default() });
        self.worlds[at] = open(&self.disks[at], &self.table, at).await.unwrap();
    }

    /// Brings what waits for the other region there, and delivers everything.
    async fn settle(&self) {
        for _ in 0..12 {
            for at in [0, 1] {
                let clock = &self.disks[at].clock;
                clock.set(clock.now() + 3_600);
                self.worlds[at].settle().await;
                self.cross(at).await;
            }
        }
        for world in &self.worlds {
            let left = world.queue.overview();
            assert_eq!((left.ingest, left.outbound, left.quarantined), (0, 0, 0));
        }
    }

    /// What waits in a region's outbound shards goes where alice is.
    async fn cross(&self, at: usize) {
        let outbound = self.worlds[at].queue.outbound();
        for mut turn in outbound.turns_now(9) {
            let claims = turn.claim(9).await;
            for leased in outbound.lease(claims, Duration::from_secs(60)).await {
                let leased = leased.unwrap();
                let text = text_of(&self.worlds[at], &leased).await;
                let to = match self.worlds[at].directory.resolve(&address(ALICE)).await.unwrap() {
                    Resolution::Account(_) => at,
                    Resolution::Elsewhere { .. } => 1 - at,
                    other => panic!("{other:?}"),
                };
                self.worlds[to].submit("sender@far.test", &[ALICE], &text, true).await.unwrap();
                let said = Said::new(self.worlds[at].queue.clock().now(), "");
                let delivered = AttemptResult::Delivered { said, passed_on: queue::PassedOn::default() };
                let report = AttemptReport::all(leased, &delivered);
                outbound.report(vec![report]).await.pop().unwrap().unwrap();
            }
        }
    }

    async fn check(&self, seed: u64) {
        let inbox = self.worlds[self.home].inbox("alice").await;
        for subject in &self.accepted {
            let count = inbox.iter().filter(|text| text.contains(subject.as_str())).count();
            assert_eq!(count, 1, "seed {seed}: {subject}");
        }
        assert_eq!(inbox.len(), self.accepted.len(), "seed {seed}");
    }

    async fn alice(&self) -> AccountId {
        self.worlds[self.home].account("alice").await
    }
}

async fn open(disk: &Disk, table: &MemoryEngine, at: usize) -> Option<World> {
    let homes = Homes::new(table.engine().rows, NAMES[at].parse().unwrap(), b"secret");
    World::open_in(disk, delivery::Config::default(), Some(homes)).await
}

async fn text_of(world: &World, leased: &queue::Leased) -> String {
    let body = world.queue.outbound().body(leased).await.unwrap();
    let mut pieces = body.stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// The queue of one region is far ahead of the other's, whose shards have the same ids.
#[tokio::test(start_paused = true)]
async fn another_regions_watermark_says_nothing_about_new_mail() {
    let mut regions = Regions::new().await;
    for home in [0, 1, 0, 1] {
        assert_eq!(regions.home, home);
        for _ in 0..if home == 0 { 30 } else { 2 } {
            regions.submit(home, true).await;
        }
        regions.settle().await;
        regions.check(0).await;
        regions.submit(home, true).await;
        regions.relocate(STEPS).await;
        // To be sent on from where she was, to be delivered where she is, and to be brought there.
        for at in [0, 1] {
            regions.submit(at, at == regions.home).await;
        }
        regions.settle().await;
        regions.check(0).await;
    }
}

/// An item that was put into the account, and whose shard was not told before the account went.
#[tokio::test(start_paused = true)]
async fn what_was_delivered_and_not_reported_is_not_delivered_again() {
    for (comes_back, restarted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut regions = Regions::new().await;
        regions.submit(0, true).await;
        regions.submit(0, true).await;
        let waiting = regions.worlds[0].queue.list(ShardKind::Ingest, 10).await.unwrap();
        assert_eq!(waiting.len(), 2);
        // The first of them is there.
        let shard: ShardId = waiting[0].shard.parse().unwrap();
        let ingest = IngestId { producer: shard.log_id(), item: waiting[0].number, part: 0 };
        let id = regions.alice().await;
        let alice = regions.worlds[0].storage.account(&Principal::Delivery, id).await.unwrap();
        let mut writer = alice.body_writer();
        writer.write(format!("{}\r\nbody\r\n", regions.accepted[0]).into_bytes().into()).await.unwrap();
        let body = writer.finish().await.unwrap();
        let target = storage::Target::Role(storage::Role::Inbox);
        let request = storage::AppendRequest {
            target,
            body,
            flags: mail::flag::FlagSet::default(),
            internal_date: None,
        };
        let delivery = storage::Delivery { ingest, watermark: 0, request };
        assert!(matches!(alice.deliver(delivery).await.unwrap(), Delivered::Placed(_)));
        drop(alice);
        regions.relocate(STEPS).await;
        if comes_back {
            regions.relocate(STEPS).await;
        }
        if restarted {
            // It remembers nothing of how the account was.
            regions.restart(0, 1).await;
        }
        regions.settle().await;
        regions.check(0).await;
        assert_eq!(regions.home, usize::from(!comes_back));
    }
}

/// An item that was sent after the account, and whose shard was not told before the account was back.
#[tokio::test(start_paused = true)]
async fn what_was_sent_on_and_not_reported_is_not_delivered_too() {
    let mut seen = Vec::new();
    for cut in 1..24 {
        let mut regions = Regions::new().await;
        regions.submit(0, true).await;
        regions.relocate(STEPS).await;
        regions.restart(0, 0).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let engine = &regions.disks[0].engine;
        let power_cut_after_sync = Some(engine.syncs() + cut);
        engine.set_faults(Faults { seed: cut, power_cut_after_sync, ..Faults::default() });
        for _ in 0..3 {
            // What was waiting at a start comes alone, and later.
            regions.disks[0].clock.set(regions.disks[0].clock.now() + 3_600);
            regions.worlds[0].delivery.run_once().await;
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        regions.restart(0, cut).await;
        let mut left = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound] {
            left.push(regions.worlds[0].queue.list(kind, 10).await.unwrap().len());
        }
        seen.push((left[0], left[1]));
        regions.relocate(STEPS).await;
        regions.settle().await;
        regions.check(cut).await;
    }
    assert!(seen.contains(&(1, 1)), "no power cut was between the two: {seen:?}");
}

/// Mail and moves, each cut short anywhere, by power cuts too.
async fn history(seed: u64, counts: &mut BTreeMap<&'static str, u64>) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut regions = Regions::new().await;
    for round in 0..40 {
        let at = dice.random_range(0..2);
        match dice.random_range(0..10) {
            0..5 => {
                regions.submit(at, dice.random_bool(0.7)).await;
            }
            5 => {
                let steps = dice.random_range(0..=STEPS);
                *counts.entry(if steps == STEPS { "moves" } else { "moves cut short" }).or_default() += 1;
                regions.relocate(steps).await;
            }
            6..8 => {
                // Some of what is durable then was not reported.
                let cut = regions.disks[at].engine.syncs() + dice.random_range(1..12);
                regions.disks[at].engine.set_faults(Faults {
                    seed,
                    power_cut_after_sync: Some(cut),
                    ..Faults::default()
                });
                regions.worlds[at].delivery.run_once().await;
                *counts.entry("power cuts").or_default() +=
                    u64::from(regions.disks[at].engine.power_is_cut());
                regions.restart(at, seed * 100 + round).await;
            }
            _ => {
                regions.worlds[at].delivery.run_once().await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        }
        for disk in &regions.disks {
            disk.clock.set(disk.clock.now() + 30);
        }
    }
    regions.relocate(STEPS).await;
    regions.settle().await;
    regions.check(seed).await;
    *counts.entry("accepted").or_default() += regions.accepted.len() as u64;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_while_an_account_moves() {
    let mut counts = BTreeMap::new();
    for seed in 0..24 {
        history(seed, &mut counts).await;
    }
    for what in ["moves", "moves cut short", "power cuts", "accepted"] {
        assert!(counts.get(what).is_some_and(|count| *count > 10), "{what} in {counts:?}");
    }
}
