//! The project's tooling: `cargo xtask COMMAND`.
//!
//! `ci` runs every check and test; the other commands are its parts, or what runs too long for it (`campaign`) or asks
//! for a quiet machine (`bench`).
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod bench;
mod campaign;
mod ci;
mod cluster;
mod corpus;
mod deploy;
mod earlier;
mod engines;
mod fuzz;
mod go;
mod layers;
mod process;
mod rfc;
mod sources;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Postrider's tooling")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every check and test, fast ones first, and ends with a list of what was left out.
    Ci {
        /// Runs only the steps with these names.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Checks the layer rule of ARCHITECTURE.md against `cargo metadata`.
    Layers,
    /// Refuses dumping-ground names; reports long files and functions.
    Tidy,
    /// Checks RFC citations against docs/rfc/index.tsv and writes docs/rfc/coverage.md.
    Rfc {
        /// Only checks; writes nothing.
        #[arg(long)]
        check: bool,
    },
    /// Checks everything in deploy/, the chart too, for which helm and kubectl-validate are built: minutes, the first time.
    Deploy,
    /// Fetches the test mail and prints the folder that holds it.
    Corpus,
    /// Measures Postrider beside its peers and writes docs/benchmarks.md.
    Bench(bench::Arguments),
    /// Starts, stops or shows real Cassandra, S3 and NATS on this machine.
    Engines(engines::Arguments),
    /// Starts, stops or shows a whole cluster on this machine, to try things with.
    Cluster(cluster::Arguments),
    /// Builds the server of an earlier commit, once, and prints where it is: for POSTRIDER_EARLIER_BIN, with which
    /// `campaign cluster` upgrades from it and goes back.
    Earlier {
        /// Which one.
        commit: String,
    },
    /// Runs a long test and appends what it counted to docs/campaigns.tsv.
    Campaign(campaign::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Ci { only } => ci::run(&only),
        Command::Layers => layers::run(),
        Command::Tidy => tidy::run(),
        Command::Rfc { check } => rfc::run(check),
        Command::Deploy => deploy::all(),
        Command::Corpus => corpus::fetch().map(|folder| println!("{}", folder.display())),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Engines(arguments) => engines::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Earlier { commit } => earlier::binary(&commit).map(|path| println!("{}", path.display())),
        Command::Campaign(arguments) => campaign::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
