//! Power cuts while mail is delivered: whatever was accepted is in its mailboxes once, or its sender was told once.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use engine::memory::Faults;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::world::{Disk, World};

/// Whom a message goes to, and what has to come of it: copies in mailboxes, notifications to its sender.
type Kind = (&'static [&'static str], &'static [(&'static str, usize)], usize);

const KINDS: [Kind; 6] = [
    (&["alice@example.test"], &[("alice", 1)], 0),
    (&["bob@example.test", "alice@example.test"], &[("alice", 1), ("bob", 1)], 0),
    (&["info@example.test"], &[("alice", 1)], 1),
    (&["loop@example.test", "alice@example.test"], &[("alice", 1)], 1),
    (&["small@example.test", "bob@example.test"], &[("bob", 1), ("small", 0)], 1),
    (&["far@where.test"], &[], 1),
];

async fn history(seed: u64, lives: u32) -> BTreeMap<&'static str, u64> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut disk = Disk::new();
    let config = || delivery::Config { slice_targets: 1, ..delivery::Config::default() };
    World::new(&disk).await.queue.close();
    let mut accepted: Vec<(String, usize)> = Vec::new();
    for life in 0..lives {
        let last = life + 1 == lives;
        let cut = (!last).then(|| disk.engine.syncs() + 60 + dice.random_range(0..120));
        disk.engine.set_faults(Faults { seed, power_cut_after_sync: cut, ..Faults::default() });
        if let Some(world) = World::open(&disk, config()).await {
            for round in 0..if last { 3 } else { 60 } {
                let kind = dice.random_range(0..KINDS.len());
                let id = format!("{seed}-{life}-{round}@a.test");
                let filler = "x".repeat(if kind == 4 { 2_000 } else { 10 });
                let text = format!("Subject: x\r\nMessage-ID: <{id}>\r\n\r\n{filler}\r\n");
                let looked_up = dice.random_bool(0.5);
                if world.submit("sender@example.test", KINDS[kind].0, &text, looked_up).await.is_ok() {
                    accepted.push((id, kind));
                }
                world.delivery.run_once().await;
                tokio::time::sleep(Duration::from_millis(dice.random_range(0..3) * 400)).await;
                disk.clock.set(disk.clock.now() + 1);
                if disk.engine.power_is_cut() {
                    *counts.entry("power cuts").or_default() += 1;
                    break;
                }
            }
            if last {
                settled(&disk, &world).await;
                check(seed, &world, &accepted, &mut counts).await;
            }
            world.queue.close();
        }
        disk = disk.after_power_cut(Faults { seed: seed + u64::from(life), ..Faults::default() });
    }
    counts
}

/// Delivers everything, and lets what waits to be sent expire.
async fn settled(disk: &Disk, world: &World) {
    // What had been begun comes alone, and what was put off comes later.
    for _ in 0..4 {
        disk.clock.set(disk.clock.now() + 3_600);
        world.settle().await;
    }
    disk.clock.set(disk.clock.now() + 6 * 86_400);
    world.settle().await;
    let left = world.queue.overview();
    assert_eq!((left.ingest, left.outbound, left.quarantined), (0, 0, 0));
}

async fn check(
    seed: u64,
    world: &World,
    accepted: &[(String, usize)],
    counts: &mut BTreeMap<&'static str, u64>,
) {
    let mut inboxes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in ["alice", "bob", "small", "sender"] {
        inboxes.insert(name, world.inbox(name).await);
    }
    let holds = |name: &str, part: &str| inboxes[name].iter().filter(|text| text.contains(part)).count();
    for (id, kind) in accepted {
        let (to, copies, told) = &KINDS[*kind];
        let own = format!("Message-ID: <{id}>\r\n\r\n");
        for (name, expected) in *copies {
            assert_eq!(holds(name, &own), *expected, "seed {seed}: {id} to {to:?} in {name}'s mailbox");
        }
        let about = format!("In-Reply-To: <{id}>");
        assert_eq!(holds("sender", &about), *told, "seed {seed}: notifications about {id} to {to:?}");
        *counts.entry("accepted").or_default() += 1;
        *counts.entry("told").or_default() += *told as u64;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_lost_or_doubled_across_power_cuts() {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..12 {
        for (what, count) in history(seed, 5).await {
            *total.entry(what).or_default() += count;
        }
    }
    for what in ["power cuts", "accepted", "told"] {
        assert!(total.get(what).is_some_and(|count| *count > 30), "{what} in {total:?}");
    }
}
