//! Long tests. What they count is appended to docs/campaigns.tsv and holds until the code under it changes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, command};
use crate::{ci, fuzz};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which one: kill, power-cut, sending, cluster, cluster-planted, simulation, outside-world, two-actors, planted,
    /// bad-input, model, fuzz.
    name: String,
    /// How long it runs.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Seed of its random choices; the time when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Of the fuzz targets, only those whose name begins with one of these (with commas between them); of the faults of
    /// `cluster`, only those of these names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Of `cluster`: seconds that every fault lasts, in place of times by chance.
    #[arg(long)]
    seconds: Option<u64>,
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
        "fuzz" => fuzz::campaign(arguments.minutes, seed, &arguments.only)?,
        "outside-world" => (outside_world()?, Vec::new()),
        "two-actors" => (two_actors(arguments.minutes, seed)?, Vec::new()),
        "simulation" => (simulation(arguments.minutes, seed)?, Vec::new()),
        "planted" => (planted(seed)?, Vec::new()),
        "bad-input" => (bad_input(commit.trim())?, Vec::new()),
        "model" => (model(&minutes)?, Vec::new()),
        "cluster" => faults(arguments, seed)?,
        "cluster-planted" => planted_cluster(&minutes, seed)?,
        name => (rounds(name, &minutes, seed)?, Vec::new()),
    };
    // Some take as long as they take.
    let minutes = if matches!(arguments.name.as_str(), "planted" | "bad-input" | "outside-world") {
        "-"
    } else {
        minutes.as_str()
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
    if !broken.is_empty() {
        bail!("{} broke:\n{}", broken.len(), broken.join("\n\n"));
    }
    if lines == 0 {
        bail!("the campaign reported no result");
    }
    Ok(())
}

/// Runs a campaign of tests/crash in the release build; gives what it prints.
fn rounds(name: &str, minutes: &str, seed: u64) -> Result<String> {
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    let seed = seed.to_string();
    process::output(&mut ci::built("crash", "release", &[name, "--minutes", minutes, "--seed", &seed])?)
}

/// Rounds with a fault in each. What was found before one broke counts all the same.
fn faults(arguments: &Arguments, seed: u64) -> Result<(String, Vec<String>)> {
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    let (minutes, seed) = (arguments.minutes.to_string(), seed.to_string());
    let mut program = ci::built("cluster-tests", "release", &["--minutes", &minutes, "--seed", &seed])?;
    if !arguments.only.is_empty() {
        program.args(["--only", &arguments.only.join(",")]);
    }
    if let Some(seconds) = arguments.seconds {
        program.args(["--seconds", &seconds.to_string()]);
    }
    let output = program.stderr(Stdio::inherit()).output()?;
    let broken = if output.status.success() {
        Vec::new()
    } else {
        vec![format!("the rounds ended with {}, see above", output.status)]
    };
    Ok((String::from_utf8(output.stdout).context("its output is not UTF-8")?, broken))
}

/// Ten thousand messages to two hundred domains.
fn outside_world() -> Result<String> {
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    process::output(ci::scenarios(&["outside_world"], "release")?.env("POSTRIDER_WORLD", "10000,200"))
}

/// Two nodes on one account while a tenth of the compare-and-swaps times out.
fn two_actors(minutes: u32, seed: u64) -> Result<String> {
    let name = "two_actors::nothing_is_lost_doubled_or_out_of_order";
    let mut test = tests(&["--test", "suite"], &["--exact", name])?;
    test.env("POSTRIDER_TWO_ACTORS_SECONDS", (minutes * 60).to_string());
    process::output(test.env("POSTRIDER_SEED", seed.to_string()))
}

/// Three simulated nodes, seed after seed. The first that finds something wrong ends it and is said, so that `--seed` with
/// it does the same again.
fn simulation(minutes: u32, seed: u64) -> Result<String> {
    let name = "seeds::nothing_is_lost_doubled_or_wrong";
    let mut test = tests(&["--test", "suite"], &["--exact", name])?;
    test.env("POSTRIDER_SIMULATION_SECONDS", (minutes * 60).to_string());
    process::output(test.env("POSTRIDER_SEED", seed.to_string()))
}

/// Defects that are planted to see that the checkers notice them; a test fails when its defect is not noticed.
fn planted(seed: u64) -> Result<String> {
    let programs: [(&[&str], &[&str]); 2] =
        [(&["--lib"], &["is_noticed"]), (&["--test", "suite"], &["is_noticed", "are_noticed", "planted"])];
    let mut text = planted_server(seed)?;
    for (target, filter) in programs {
        text.push_str(&process::output(&mut tests(target, filter)?)?);
    }
    Ok(text)
}

/// A server with defects, in a folder of its own so that nobody takes it for another.
fn sabotaged() -> Result<PathBuf> {
    let features = ["--bins", "--features", "server/sabotage"];
    process::run(ci::cargo(&["build", "--locked", "--workspace"])?.args(features))?;
    let folder = process::target()?.join("planted");
    std::fs::create_dir_all(&folder)?;
    let binary = folder.join("postrider");
    std::fs::copy(process::target()?.join("debug/postrider"), &binary)?;
    ci::build()?;
    Ok(binary)
}

/// The server that answers before the sync.
fn planted_server(seed: u64) -> Result<String> {
    let binary = sabotaged()?;
    let mut crash = ci::built("crash", "debug", &["planted", "--seed", &seed.to_string()])?;
    process::output(crash.env("POSTRIDER_BIN", binary))
}

/// Rules of the log that nodes leave out, one after the other.
const LEFT_OUT: [&str; 6] = [
    "AnswerBeforeCas",
    "NewNonceAfterUnknown",
    "ConflictTakenAsLost",
    "BuiltBeforeCas",
    "TrimBeyondSnapshot",
    "CollectNotListed",
];

/// What shows that: outcomes that are not known, nodes that meet, and nodes that load anew.
const SHOWN_BY: &str = "lose-answers,kill-node,keep-answers,rolling-restart";

/// Nodes on real engines that leave out a rule: the rounds have to notice each, in so many minutes.
fn planted_cluster(minutes: &str, seed: u64) -> Result<(String, Vec<String>)> {
    let binary = sabotaged()?;
    let (mut text, mut missed) = (String::new(), Vec::new());
    for rule in LEFT_OUT {
        let seed = seed.to_string();
        let arguments = [
            "--minutes",
            minutes,
            "--seed",
            &seed,
            "--only",
            SHOWN_BY,
            "--check-every",
            "1",
            "--planted",
            rule,
        ];
        let mut program = ci::built("cluster-tests", "debug", &arguments)?;
        program.env("POSTRIDER_BIN", &binary).env("POSTRIDER_SABOTAGE", rule);
        let output = program.stderr(Stdio::inherit()).output()?;
        text.push_str(&String::from_utf8(output.stdout).context("its output is not UTF-8")?);
        if !output.status.success() {
            missed.push(format!("{rule}, see above"));
        }
    }
    Ok((text, missed))
}

/// The checked models in wider bounds than the tests have. They stand apart from the code, and are built so.
fn model(minutes: &str) -> Result<String> {
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--package", "model"])?)?;
    process::output(&mut ci::built("model", "release", &["--minutes", minutes])?)
}

/// Every kind of bad input and of trouble with the disk, in the release build and one after the other: the table.
fn bad_input(commit: &str) -> Result<String> {
    process::run(&mut ci::cargo(&["build", "--release", "--locked", "--workspace", "--bins"])?)?;
    let mut test = ci::scenarios(&["bad_input", "storage_trouble"], "release")?;
    let text = process::output(test.arg("--test-threads=1"))?;
    // Where tests run one after the other their names stand before what they print first.
    let rows: Vec<&str> = text.lines().filter_map(|line| line.find("| ").map(|at| &line[at..])).collect();
    let table = format!(
        "# Bad input and faults\n\n\
         Written by `cargo xtask campaign bad-input` for commit {commit}: each kind, how often it happened, the server's \
         peak of\nresident memory meanwhile, and the p99 of the turns (an IMAP STATUS and an SMTP NOOP) of a session that \
         did nothing wrong.\nThe first row is that session alone, which is what the machine itself does to it. The tests are `tests/e2e/tests/bad_input.rs` and `storage_trouble.rs`.\n\n\
         | kind | times | peak RSS | innocent p99 |\n|---|---|---|---|\n{}\n",
        rows.join("\n")
    );
    std::fs::write(process::root().join("docs/bad-input.md"), table)?;
    Ok(format!("result\tbad input\tkinds={}\n", rows.len()))
}

fn tests(target: &[&str], filter: &[&str]) -> Result<Command> {
    // Of the whole workspace, so that nothing is compiled with other features than the gate's tests have.
    let mut arguments = vec!["test", "--locked", "--workspace"];
    arguments.extend(target);
    arguments.extend(["--", "--nocapture"]);
    arguments.extend(filter);
    ci::cargo(&arguments)
}
