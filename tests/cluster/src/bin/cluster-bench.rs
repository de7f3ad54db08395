//! What mail costs on the engines, as a page with tables. Nothing is asserted.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cluster_tests::costs::{COST_HEAD, Costs, cold, hot, idle};

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
    let raw = costs.raw_conditional_rate()?;
    println!("Commits like those of a node, by the driver alone: {raw:.0}/s.\n");
    println!("{COST_HEAD}");
    let wanted = |sessions: usize| arguments.only.is_empty() || arguments.only.contains(&sessions);
    for (sessions, messages) in MAIL.into_iter().filter(|(sessions, _)| wanted(*sessions)) {
        let cost = costs.mail(sessions.min(size(messages)), size(messages))?;
        println!("{cost}");
        if sessions == 500 {
            let bound = raw / cost.conditional();
            println!("\nOf {bound:.0}/s, which is what those commits allow: {:.2}×.", cost.rate() / bound);
        }
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
