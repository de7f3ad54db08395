//! Rounds of load and faults over three nodes, until the time is over: a campaign. Prints a line
//! `result<TAB>cluster FAULT<TAB>counts` for each round.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use cluster_tests::faults::{Fault, Kind};
use cluster_tests::rounds::Rounds;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

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
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut kinds = match &arguments.only[..] {
        [] => Kind::ALL.to_vec(),
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
        println!(
            "result\tcluster {}\tseed={seed} whom={} seconds={} {report}",
            kind.name(),
            fault.whom,
            fault.seconds
        );
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
