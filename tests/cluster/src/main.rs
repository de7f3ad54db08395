//! Rounds of load and faults over three nodes, until the time is over: a campaign. Prints a line
//! `result<TAB>cluster FAULT<TAB>counts` for each round.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use cluster_tests::faults::{Fault, Kind};
use cluster_tests::rounds::Rounds;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use testkit::observe::Damage;

#[derive(Parser)]
struct Arguments {
    /// How long to go on.
    #[arg(long)]
    minutes: u64,
    /// Seed of all random choices.
    #[arg(long)]
    seed: u64,
    /// Of the faults, only these (with commas between them).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The longest time that a fault lasts, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds_max: u64,
    /// Seconds that every fault lasts, in place of a time by chance.
    #[arg(long)]
    seconds: Option<u64>,
    /// Rounds between two runs of `postrider check`.
    #[arg(long, default_value_t = 8)]
    check_every: usize,
    /// The nodes have a defect that `POSTRIDER_SABOTAGE` names: go on until it is noticed, which it has to be.
    #[arg(long)]
    planted: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match &arguments.planted {
        Some(defect) => until_noticed(&arguments, defect),
        None => run(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Rounds with a defect in the nodes, until one of them finds damage. Every other error is none of its merit.
fn until_noticed(arguments: &Arguments, defect: &str) -> Result<()> {
    let began = Instant::now();
    match run(arguments) {
        Ok(()) => bail!("{defect} was not noticed in {} minutes", arguments.minutes),
        Err(error) if error.is::<Damage>() => {
            let problem: String = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
            let problem: String = problem.chars().take(200).collect();
            let seconds = began.elapsed().as_secs();
            println!("result\tcluster planted {defect}\tcaught_after_s={seconds} problem={problem}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut kinds = match &arguments.only[..] {
        [] => Kind::at_hand(),
        names => names.iter().map(|name| Kind::named(name)).collect::<Result<_>>()?,
    };
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut rounds = Rounds::start(arguments.seed)?;
    let started = Instant::now();
    let limit = Duration::from_secs(arguments.minutes * 60);
    let mut number = 0;
    let mut waiting: Vec<Kind> = Vec::new();
    while started.elapsed() < limit {
        // Every kind has its turn before one comes again.
        let kind = match waiting.pop() {
            Some(kind) => kind,
            None => {
                kinds.shuffle(&mut random);
                waiting.clone_from(&kinds);
                continue;
            }
        };
        let mut fault = Fault::of(kind, &mut random, arguments.seconds_max);
        fault.seconds = arguments.seconds.unwrap_or(fault.seconds);
        let seed = arguments.seed.wrapping_mul(1_000).wrapping_add(number as u64);
        let report = rounds.round(&fault, seed)?;
        number += 1;
        let line = format!(
            "cluster {}\tseed={seed} whom={} seconds={} {report}",
            kind.name(),
            fault.whom,
            fault.seconds
        );
        // That a round did not notice a defect says nothing.
        println!("{}\t{line}", if arguments.planted.is_some() { "not noticed" } else { "result" });
        if number % arguments.check_every == 0 {
            rounds.check()?;
        }
    }
    if number % arguments.check_every != 0 {
        rounds.check()?;
    }
    println!("result\tcluster check\trounds={number} check=clean");
    Ok(())
}
