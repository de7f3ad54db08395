//! Seeds: fixed ones for every day, as many as there is time for in a campaign, and those that have to find a defect.

use crate::bug::Bug;
use crate::counts::Counts;
use crate::run::run;

/// Seeds of the ordinary test run.
const SEEDS: u64 = 4;
/// A defect that is not noticed in so many seeds is not noticed.
const BUG_SEEDS: u64 = 10;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Seconds since the machine was started. The clocks of this process are those of a simulation.
fn uptime_seconds() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

#[test]
fn nothing_is_lost_doubled_or_wrong() {
    let start = variable("POSTRIDER_SEED").unwrap_or(1);
    let limit = variable("POSTRIDER_SIMULATION_SECONDS");
    let (began, mut seeds, mut counts) = (uptime_seconds(), 0, Counts::default());
    while limit.map_or(seeds < SEEDS, |limit| uptime_seconds() - began < limit) {
        let seed = start + seeds;
        let outcome = run(seed, None).unwrap();
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        counts.plus(&outcome.counts);
        seeds += 1;
    }
    println!("\nresult\tsimulation of three nodes\tseeds={seeds} {counts} lost=0 doubled=0 wrong=0");
    let happened = [
        "acknowledged",
        "items_ended",
        "crash",
        "partition",
        "lost_call",
        "lost_answer",
        "late",
        "hint_lost",
    ];
    for what in happened {
        assert!(counts.of(what) > 0, "{what} happened: {counts}");
    }
}

/// In this one a STORE by UID told its change without the UID: the look at what had changed failed, and what came later took
/// it for another's.
#[test]
fn a_change_that_is_told_late_has_its_uid() {
    assert_eq!(run(177, None).unwrap().violations, Vec::<String>::new());
}

#[test]
fn a_seed_is_a_run() {
    let (one, other) = (run(7, None).unwrap(), run(7, None).unwrap());
    assert_eq!(one, other);
    assert_ne!(one.trace, run(8, None).unwrap().trace);
}

/// Plants a defect, and counts the seeds until something wrong is noticed.
fn check_caught(bug: Bug) {
    for seed in 1..=BUG_SEEDS {
        if let Some(problem) = run(seed, Some(bug)).unwrap().violations.first() {
            println!("\nresult\t{bug:?}, simulation\tcaught_in_round={seed} problem={problem:.80}");
            return;
        }
    }
    panic!("{bug:?} was not noticed in {BUG_SEEDS} seeds");
}

#[test]
fn a_success_that_was_none_is_noticed() {
    check_caught(Bug::AppliedWithoutEffect);
}

#[test]
fn an_unknown_taken_for_a_success_is_noticed() {
    check_caught(Bug::UnknownIsSuccess);
}

#[test]
fn a_segment_that_was_not_stored_is_noticed() {
    check_caught(Bug::LostSegment);
}

#[test]
fn a_page_that_was_not_written_is_noticed() {
    check_caught(Bug::LostPage);
}

#[test]
fn a_refusal_that_was_none_is_noticed() {
    check_caught(Bug::RefusedWithEffect);
}

#[test]
fn a_head_that_is_not_looked_at_is_noticed() {
    check_caught(Bug::TrustedHints);
}
