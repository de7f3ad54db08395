//! Crashes from outside: the server is killed, or its disk loses what was not synced, while clients work; then it is
//! started again and what clients find is judged against what had been acknowledged to them.
//!
//! `crash smoke` is the short form for every run of the tests; `crash kill|power-cut|sending` with `--minutes` are campaigns.
//! A campaign prints lines `result<TAB>fault<TAB>counts`.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod counts;
mod image;
mod kill;
mod power;
mod sending;
mod strace;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A few rounds of each.
    Smoke {
        /// Seed of all random choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// SIGKILL with commits in flight.
    Kill {
        /// How long to go on.
        #[arg(long)]
        minutes: u64,
        /// Seed of all random choices.
        #[arg(long)]
        seed: u64,
    },
    /// Power cuts: images of the disk at each sync, with unsynced writes dropped, kept and torn.
    PowerCut {
        /// How long to go on.
        #[arg(long)]
        minutes: u64,
        /// Seed of all random choices.
        #[arg(long)]
        seed: u64,
    },
    /// SIGKILL while mail is sent.
    Sending {
        /// How long to go on; two thirds of it are kills, the rest power cuts.
        #[arg(long)]
        minutes: u64,
        /// Seed of all random choices.
        #[arg(long)]
        seed: u64,
    },
    /// Power cuts of a server that answers before the sync (built with its feature `sabotage`): has to be noticed.
    Planted {
        /// Seed of all random choices.
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let done: Result<()> = match Arguments::parse().command {
        Command::Smoke { seed } => kill::run(kill::Plan { rounds: 4, limit: None, seed, between: 150 })
            .and_then(|()| power::run(power::Plan { images: 24, limit: None, seed, operations: 400 }))
            .and_then(|()| {
                sending::kill(&sending::Plan { rounds: 4, images: 0, limit: None, seed, between: 60 })
            })
            .and_then(|()| {
                sending::power(&sending::Plan { rounds: 0, images: 9, limit: None, seed, between: 60 })
            }),
        Command::Kill { minutes, seed } => kill::run(kill::Plan {
            rounds: usize::MAX,
            limit: Some(Duration::from_secs(minutes * 60)),
            seed,
            between: 400,
        }),
        Command::PowerCut { minutes, seed } => power::run(power::Plan {
            images: usize::MAX,
            limit: Some(Duration::from_secs(minutes * 60)),
            seed,
            operations: 1_500,
        }),
        Command::Sending { minutes, seed } => {
            let plan = |seconds, between| sending::Plan {
                rounds: usize::MAX,
                images: usize::MAX,
                limit: Some(Duration::from_secs(seconds)),
                seed,
                between,
            };
            sending::kill(&plan(minutes * 40, 120)).and_then(|()| sending::power(&plan(minutes * 20, 500)))
        }
        Command::Planted { seed } => power::planted(seed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}
