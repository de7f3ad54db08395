//! Rounds with all faults, and with planted defects that must be noticed.

use super::nodes::{Outcome, Setup, run};
use crate::memory::Faults;
use crate::options::Sabotage;
use crate::stats::LogStats;

/// Rounds of the ordinary test run; `POSTRIDER_HISTORY_ROUNDS` asks for more.
const ROUNDS: u64 = 12;

/// A defect that is not noticed in so many rounds is not noticed.
const SABOTAGE_ROUNDS: u64 = 60;

fn rounds() -> u64 {
    std::env::var("POSTRIDER_HISTORY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Runs a round on a clock of its own, which jumps when everybody waits.
fn round(setup: Setup) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run(setup))
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    let mut total = LogStats::default();
    let (mut acknowledged, mut unknown) = (0, 0);
    for seed in 0..rounds() {
        let outcome = round(Setup::new(seed));
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        assert!(outcome.acknowledged > 60, "seed {seed}: {outcome:?}");
        total = total.plus(outcome.stats);
        acknowledged += outcome.acknowledged;
        unknown += outcome.unknown;
    }
    println!("{} rounds, {acknowledged} acknowledged, {unknown} unknown\n{total:#?}", rounds());
    let seen = [
        total.conflicts,
        total.unknowns,
        total.unknowns_applied,
        total.loads,
        total.entries_followed,
        total.snapshots,
        total.swings,
        total.swings_lost,
        total.pages_collected,
        total.trims,
        total.archives,
        total.evictions,
    ];
    assert!(seen.iter().all(|count| *count > 0), "every mechanism was at work: {total:#?}");
}

#[test]
fn a_quiet_engine_and_one_node_answer_everything() {
    let mut setup = Setup::new(1);
    setup.nodes = 1;
    setup.options.shared = false;
    setup.crashes = 0.0;
    setup.faults = Faults { latency: setup.faults.latency, ..Faults::default() };
    let outcome = round(setup);
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
    assert_eq!(outcome.unknown, 0);
    assert!(outcome.entries < outcome.acknowledged, "commits share entries");
}

/// Plants a defect, and counts the rounds until a violation is noticed.
fn check_caught(sabotage: Sabotage, adjust: fn(&mut Setup)) {
    for seed in 0..SABOTAGE_ROUNDS {
        let mut setup = Setup::new(seed);
        setup.options.sabotage = Some(sabotage);
        adjust(&mut setup);
        let outcome = round(setup);
        if let Some(violation) = outcome.violations.first() {
            println!(
                "\nresult\t{sabotage:?}, small state\tcaught_in_round={} problem={violation:.60}",
                seed + 1
            );
            return;
        }
    }
    panic!("{sabotage:?} was not noticed in {SABOTAGE_ROUNDS} rounds");
}

#[test]
fn a_new_nonce_after_an_unknown_outcome_is_noticed() {
    check_caught(Sabotage::NewNonceAfterUnknown, |_| {});
}

#[test]
fn a_conflict_taken_as_lost_is_noticed() {
    check_caught(Sabotage::ConflictTakenAsLost, |_| {});
}

#[test]
fn a_number_taken_before_the_compare_and_swap_is_noticed() {
    check_caught(Sabotage::BuiltBeforeCas, |_| {});
}

#[test]
fn a_page_collected_too_early_is_noticed() {
    check_caught(Sabotage::CollectNotListed, |setup| {
        // Collectors that are slow meet snapshots that came after theirs.
        setup.options.snapshot_entries_min = 1;
        setup.options.snapshot_share_percent = 0;
    });
}

#[test]
fn a_trim_beyond_the_snapshot_is_noticed() {
    check_caught(Sabotage::TrimBeyondSnapshot, |_| {});
}

#[test]
fn an_answer_before_the_compare_and_swap_is_noticed() {
    check_caught(Sabotage::AnswerBeforeCas, |_| {});
}
