//! Long tests. What they count is appended to docs/campaigns.tsv and holds until the code under it changes.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::{Context, Result, bail};

use crate::process::{self, command};
use crate::{ci, fuzz};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which one: kill, power-cut, two-actors, planted, fuzz, soak.
    name: String,
    /// How long it runs.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Seed of its random choices; the time when it is not given.
    #[arg(long)]
    seed: Option<u64>,
}

const HEADER: &str = "date\tcommit\tcampaign\tminutes\tseed\tfault\tcounts\n";

/// Runs the campaign and appends a line per fault that it reports, or per fuzz target.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let commit = process::output(&mut command("git", ["rev-parse", "--short=12", "HEAD"]))?;
    let changed = process::output(&mut command("git", ["status", "--porcelain", "--untracked-files=no"]))?;
    if !changed.trim().is_empty() {
        bail!("a result counts for a commit: commit or put aside what has changed first");
    }
    let date = process::output(&mut command("date", ["-u", "+%Y-%m-%d"]))?;
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    };
    let minutes = arguments.minutes.to_string();
    let (text, broken) = match arguments.name.as_str() {
        "fuzz" => fuzz::campaign(arguments.minutes, seed)?,
        name => (crashes(name, &minutes, seed)?, Vec::new()),
    };
    let path = process::root().join("docs/campaigns.tsv");
    let fresh = !path.exists();
    let mut table = OpenOptions::new().create(true).append(true).open(&path).context("docs/campaigns.tsv")?;
    if fresh {
        table.write_all(HEADER.as_bytes())?;
    }
    let mut lines = 0;
    for line in text.lines() {
        println!("{line}");
        if let Some(result) = line.strip_prefix("result\t") {
            writeln!(
                table,
                "{}\t{}\t{}\t{minutes}\t{seed}\t{result}",
                date.trim(),
                commit.trim(),
                arguments.name
            )?;
            lines += 1;
        }
    }
    if lines == 0 {
        bail!("the campaign reported no result");
    }
    if !broken.is_empty() {
        bail!("{} targets broke:\n{}", broken.len(), broken.join("\n\n"));
    }
    Ok(())
}

/// Runs a campaign of tests/crash in the release build; gives what it prints.
fn crashes(name: &str, minutes: &str, seed: u64) -> Result<String> {
    let build = ["build", "--release", "--locked", "--bin", "postrider", "--bin", "crash"];
    process::run(&mut ci::cargo(&build)?)?;
    let seed = seed.to_string();
    process::output(&mut ci::built("crash", "release", &[name, "--minutes", minutes, "--seed", &seed])?)
}
