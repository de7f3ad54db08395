//! What mail costs on the engines, as a page with tables. Nothing is asserted.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cluster_tests::costs::{COST_HEAD, Cost, Costs, cold, hot, idle};

#[derive(Parser)]
struct Arguments {
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A hundredth of everything.
    #[arg(long)]
    smoke: bool,
    /// Only mail, from so many sessions.
    #[arg(long, value_name = "SESSIONS")]
    only: Vec<usize>,
    /// Accounts that the mail is for.
    #[arg(long, default_value_t = 10_000)]
    accounts: usize,
}

/// Messages that so many sessions send.
const MAIL: [(usize, usize); 4] = [(1, 200), (8, 1_000), (64, 4_000), (500, 10_000)];

/// The row that is measured beside the engines alone.
const MANY: usize = 500;
/// How often both take turns: the engines become faster for half an hour, the later one would have the better ones.
const TURNS: usize = 3;
/// Commits that the driver alone makes in a turn, with each concurrency.
const RAW_COMMITS: usize = 5_000;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let size = |full: usize| if arguments.smoke { full.div_ceil(100) } else { full };
    let mut costs = Costs::start(size(arguments.accounts), arguments.seed)?;
    println!("At rest, all nodes together, in a second: {}.\n", costs.at_rest()?);
    println!("{COST_HEAD}");
    let wanted = |sessions: usize| arguments.only.is_empty() || arguments.only.contains(&sessions);
    let (mut raw, mut last) = (Vec::new(), Vec::new());
    for (sessions, messages) in MAIL.into_iter().filter(|(sessions, _)| wanted(*sessions)) {
        let turns = if sessions == MANY { TURNS } else { 1 };
        for _ in 0..turns {
            costs.settle()?;
            if sessions == MANY {
                raw.push(costs.raw_conditional_rate(size(RAW_COMMITS))?);
                costs.settle()?;
            }
            let cost = costs.mail(sessions.min(size(messages)), size(messages))?;
            println!("{cost}");
            if sessions == MANY {
                last.push(cost);
            }
        }
    }
    if !last.is_empty() {
        println!("\n{}.", share(&mut raw, &mut last));
    }
    if !arguments.only.is_empty() {
        return Ok(());
    }
    println!("\n| asked, 5 000 messages | node | one machine | ratio |\n|---|---|---|---|");
    for line in hot(&costs, if arguments.smoke { 1_000 } else { 5_000 })? {
        println!("{line}");
    }
    println!("\n| a node just started, 50 000 messages | |\n|---|---|");
    for line in cold(&mut costs, if arguments.smoke { 2_000 } else { 50_000 })? {
        println!("{line}");
    }
    println!("\n{}.", idle(&costs, size(10_000))?);
    Ok(())
}

/// What the nodes made of what the engines allow.
fn share(raw: &mut [f64], costs: &mut [Cost]) -> String {
    raw.sort_unstable_by(f64::total_cmp);
    costs.sort_unstable_by(|one, other| one.rate().total_cmp(&other.rate()));
    let (middle, cost) = (raw[raw.len() / 2], &costs[costs.len() / 2]);
    let bound = middle / cost.conditional();
    let each: Vec<String> = raw.iter().map(|rate| format!("{rate:.0}")).collect();
    format!(
        "Commits like those of a node, to as many logs, by the driver alone, in turn with the rows above: {middle:.0}/s [{}]. \
         Of {bound:.0}/s, which is what they allow, {:.0}/s were made: {:.2}×",
        each.join(", "),
        cost.rate(),
        cost.rate() / bound
    )
}
