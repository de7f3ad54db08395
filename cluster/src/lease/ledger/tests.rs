use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::share::Shares;
use super::*;

const LASTS: Duration = Duration::from_secs(1);

fn budget(slots_max: u32) -> Budget {
    Budget { slots_max, messages_per_minute_max: 0 }
}

fn wants(slots_wanted: u32) -> Need {
    Need { slots_wanted, ..Need::default() }
}

/// An owner that has been one for long.
struct Owner {
    ledger: Ledger,
    since: Instant,
    now: Instant,
}

impl Owner {
    fn new() -> Self {
        let since = Instant::now();
        Self { ledger: Ledger::new(LASTS), since, now: since + LASTS }
    }

    fn slots(&mut self, budget: Budget, holder: Boot, need: Need) -> u32 {
        self.ledger.grant(self.now, self.since, "s", budget, holder, need).slots
    }
}

#[test]
fn one_gets_all_until_another_comes_and_then_each_its_part() {
    let mut owner = Owner::new();
    let (a, b) = (Boot::fresh(), Boot::fresh());
    assert_eq!(owner.slots(budget(10), a, wants(50)), 10);
    assert_eq!(owner.slots(budget(10), b, wants(50)), 0, "all is granted");
    // At its next turn the first gives way, as far as it does not use what it has.
    let half_used = Need { slots_in_use: 7, slots_wanted: 50, ..Need::default() };
    assert_eq!(owner.slots(budget(10), a, half_used), 7);
    assert_eq!(owner.slots(budget(10), b, wants(50)), 3);
    assert_eq!(owner.slots(budget(10), a, wants(50)), 5);
    assert_eq!(owner.slots(budget(10), b, wants(50)), 5);
    // The modest one leaves the rest.
    assert_eq!(owner.slots(budget(10), b, wants(2)), 2);
    assert_eq!(owner.slots(budget(10), a, wants(50)), 8);
}

#[test]
fn what_a_dead_node_held_is_free_when_its_lease_ends() {
    let mut owner = Owner::new();
    let (a, b) = (Boot::fresh(), Boot::fresh());
    assert_eq!(owner.slots(budget(4), a, wants(4)), 4);
    owner.now += Duration::from_millis(999);
    assert_eq!(owner.slots(budget(4), b, wants(4)), 0);
    owner.now += Duration::from_millis(1);
    assert_eq!(owner.slots(budget(4), b, wants(4)), 4);
}

#[test]
fn a_new_owner_grants_what_is_in_use_or_one_until_earlier_leases_have_ended() {
    let since = Instant::now();
    let mut ledger = Ledger::new(LASTS);
    let (a, b) = (Boot::fresh(), Boot::fresh());
    let mut slots = |now, holder, need| ledger.grant(now, since, "s", budget(10), holder, need).slots;
    assert_eq!(slots(since, a, wants(10)), 1);
    assert_eq!(slots(since, b, Need { slots_in_use: 6, slots_wanted: 10, ..Need::default() }), 6);
    let half = LASTS / 2;
    assert_eq!(slots(since + half, b, Need { slots_in_use: 6, slots_wanted: 10, ..Need::default() }), 6);
    assert_eq!(slots(since + LASTS, a, wants(10)), 4, "then what is free");
    assert_eq!(slots(since + LASTS + half, a, wants(10)), 10, "and what has ended");
}

#[test]
fn messages_go_by_the_rate_and_come_back() {
    let mut owner = Owner::new();
    let budget = Budget { slots_max: 5, messages_per_minute_max: 60 };
    let mut messages = |after: u64, messages_wanted, messages_unused| {
        let need = Need { messages_wanted, messages_unused, ..Need::default() };
        let now = owner.now + Duration::from_secs(after);
        owner.ledger.grant(now, owner.since, "s", budget, Boot::fresh(), need).messages
    };
    assert_eq!(messages(0, 50, 0), 50);
    assert_eq!(messages(0, 50, 0), 10);
    assert_eq!(messages(0, 5, 3), 3);
    assert_eq!(messages(4, 50, 0), 4);
    assert_eq!(messages(1_000, 500, 7), 60, "a minute's worth is saved up, no more");
}

#[test]
fn sites_without_leases_are_forgotten_when_there_are_many() {
    let mut owner = Owner::new();
    let holder = Boot::fresh();
    for number in 0..SITES_MAX {
        owner.ledger.grant(owner.now, owner.since, &number.to_string(), budget(1), holder, wants(1));
    }
    owner.now += LASTS;
    owner.slots(budget(1), holder, wants(1));
    assert_eq!(owner.ledger.sites.len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A node asks the owner, wanting so much; it uses so many of what it is granted, in hundredths.
    Ask {
        node: usize,
        wanted: u32,
        used: u32,
    },
    Pass {
        ms: u64,
    },
    /// The owner dies; another begins with an empty ledger.
    Change,
    /// Nobody answers a node.
    Unanswered {
        node: usize,
        wanted: u32,
    },
}

const NODES: usize = 4;

fn asking() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..NODES, 0_u32..30, 0_u32..=100).prop_map(|(node, wanted, used)| Step::Ask { node, wanted, used }),
        (1_u64..700).prop_map(|ms| Step::Pass { ms }),
    ]
}

fn anything() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => asking(),
        1 => Just(Step::Change),
        3 => (0..NODES, 0_u32..30).prop_map(|(node, wanted)| Step::Unanswered { node, wanted }),
    ]
}

/// Nodes that keep what they were granted until it ends, and the most that they held together at any time.
fn most_held(limit: u32, steps: Vec<Step>) -> u32 {
    let mut now = Instant::now() + LASTS;
    let mut since = now - LASTS;
    let mut ledger = Ledger::new(LASTS);
    let mut shares = Shares::default();
    let boots: Vec<Boot> = (0..NODES).map(|_| Boot::fresh()).collect();
    let mut held = [(0, now, 0_u32); NODES];
    let mut most = 0;
    for step in steps {
        match step {
            Step::Pass { ms } => now += Duration::from_millis(ms),
            Step::Change => {
                ledger = Ledger::new(LASTS);
                since = now;
            }
            Step::Ask { node, wanted, used } => {
                let (slots, until, in_use) = held[node];
                let in_use = if now < until { in_use.min(slots) } else { 0 };
                let need = Need { slots_in_use: in_use, slots_wanted: wanted, ..Need::default() };
                let granted = ledger.grant(now, since, "s", budget(limit), boots[node], need).slots;
                held[node] = (granted, now + LASTS, granted * used / 100);
            }
            Step::Unanswered { node, wanted } => {
                let share = shares.take(now, "s", budget(limit), NODES, wants(wanted)).slots;
                let (slots, until, in_use) = held[node];
                // Until its lease ends, it is the better of the two.
                if now >= until || slots < share {
                    held[node] = (share, now + LASTS, in_use.min(share));
                }
            }
        }
        let holding = |(slots, until, _): &(u32, Instant, u32)| if now < *until { *slots } else { 0 };
        most = most.max(held.iter().map(holding).sum());
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn while_all_ask_the_owner_the_limit_holds(limit in 0_u32..20, steps in prop::collection::vec(asking(), 0..80)) {
        prop_assert!(most_held(limit, steps) <= limit);
    }

    /// Without an owner from the beginning: the limit and one for each node. Where owners change and some nodes are not
    /// answered while others hold all, those have their shares beside it.
    #[test]
    fn whatever_happens_there_is_a_bound(limit in 0_u32..20, steps in prop::collection::vec(anything(), 0..80)) {
        let nodes = NODES as u32;
        prop_assert!(most_held(limit, steps.clone()) <= 2 * limit + nodes);
        let alone = steps.into_iter().filter(|step| matches!(step, Step::Unanswered { .. } | Step::Pass { .. }));
        prop_assert!(most_held(limit, alone.collect()) <= limit + nodes);
    }

    #[test]
    fn fair_parts(limit in 0_u32..100, wants in prop::collection::vec(0_u32..100, 1..8)) {
        let part = |index: usize| {
            let others = wants.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, want)| *want);
            fair_part(limit, wants[index], others)
        };
        let parts: Vec<u32> = (0..wants.len()).map(part).collect();
        let sum: u32 = parts.iter().sum();
        let wanted: u32 = wants.iter().sum();
        prop_assert!(parts.iter().zip(&wants).all(|(part, want)| part <= want));
        prop_assert!(sum >= limit.min(wanted), "nothing is left over: {parts:?}");
        prop_assert!(sum <= limit + wants.len() as u32, "rounded up at most: {parts:?}");
    }
}
