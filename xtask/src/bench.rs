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
    /// Where the table is written. Without it, and without `--only`: docs/benchmarks.md.
    #[arg(long)]
    output: Option<String>,
}

/// Builds, installs the peers where that is possible, and runs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    tools::install();
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    let rounds = arguments.rounds.to_string();
    let mut flags = vec!["--rounds", rounds.as_str()];
    let mut output = arguments.output.as_deref();
    match &arguments.only {
        Some(only) => flags.extend(["--only", only]),
        // Some rows do not replace the table of all.
        None => output = output.or(Some("docs/benchmarks.md")),
    }
    if let Some(output) = output {
        flags.extend(["--output", output]);
    }
    process::run(&mut ci::built("bench", "release", &flags)?)
}
