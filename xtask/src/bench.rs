//! Measurements beside the peers. The work is done by the package `bench`, which is built in release here.

use anyhow::Result;

use crate::{ci, process, tools};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Rounds per row; Postrider and the peer take turns within one.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the table is written.
    #[arg(long, default_value = "docs/benchmarks.md")]
    output: String,
}

/// Builds, installs the peers where that is possible, and runs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install();
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    let rounds = arguments.rounds.to_string();
    let mut flags = vec!["--rounds", rounds.as_str(), "--output", arguments.output.as_str()];
    if let Some(only) = &arguments.only {
        flags.extend(["--only", only]);
    }
    process::run(&mut ci::built("bench", "release", &flags)?)
}
