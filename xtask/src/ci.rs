//! Every check and test, fast ones first.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::process::{self, command};
use crate::{corpus, deploy, layers, rfc, sources, tidy, tools};

/// What a step came to.
enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
}

/// One check with its name and the programs it cannot do without.
struct Step {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", needs: &[], run: fmt },
    Step { name: "layers", needs: &[], run: layers::run },
    Step { name: "tidy", needs: &[], run: tidy::run },
    Step { name: "rfc", needs: &[], run: || rfc::run(true) },
    Step { name: "units", needs: &["systemd-analyze"], run: deploy::units },
    Step { name: "compose", needs: &["docker-compose"], run: deploy::compose },
    Step { name: "deny", needs: &["cargo-deny"], run: deny },
    Step { name: "clippy", needs: &[], run: clippy },
    Step { name: "test", needs: &[], run: test },
    Step { name: "docs", needs: &[], run: docs },
    Step { name: "build", needs: &[], run: build },
    Step { name: "settings", needs: &[], run: deploy::settings },
    Step { name: "crash", needs: &["strace"], run: crash },
    Step { name: "end-to-end", needs: CLIENTS, run: end_to_end },
    Step { name: "outside-world", needs: &["root", "/usr/sbin/postfix", "smtp-sink"], run: outside_world },
    Step { name: "storage-trouble", needs: &["root", "strace"], run: storage_trouble },
    Step { name: "conformance", needs: DOVECOT, run: conformance },
    Step { name: "engines", needs: ENGINES, run: on_engines },
    Step { name: "cluster", needs: CLUSTER, run: cluster },
    Step { name: "faults", needs: FAULTS, run: faults },
    Step { name: "bench-smoke", needs: PEERS, run: bench_smoke },
];

const CLIENTS: &[&str] = &[
    "npm",
    "python3",
    "swaks",
    "perl:Net::SSLeay",
    "curl",
    "mbsync",
    "neomutt",
    "tmux",
    "imapclient-interact",
    "python:jmapc",
    "faketime",
];
const DOVECOT: &[&str] = &["npm", "python3", "/usr/lib/dovecot/imap"];
const ENGINES: &[&str] = &["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "mvn", "go", "python3", "curl"];
const CLUSTER: &[&str] = &[
    "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
    "mvn",
    "go",
    "python3",
    "curl",
    "swaks",
    "mbsync",
    "openssl",
    "faketime",
];
const FAULTS: &[&str] = ENGINES;
const PEERS: &[&str] =
    &["/usr/sbin/postfix", "smtp-source", "smtp-sink", "/usr/lib/dovecot/imap", "/usr/lib/dovecot/lmtp"];

/// Runs the steps, all or those named. With `CI=true` in the environment a step left out is a failure.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        bail!("no step is called «{unknown}»");
    }
    if only.is_empty() {
        tools::install();
    }
    let started = Instant::now();
    let compiling = sources::begin()?;
    let mut outcomes = Vec::new();
    for step in STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)) {
        println!("\n=== {} ===", step.name);
        let began = Instant::now();
        let missing: Vec<&str> = step.needs.iter().copied().filter(|tool| !tools::found(tool)).collect();
        let outcome = if missing.is_empty() {
            match (step.run)() {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            }
        } else {
            Outcome::LeftOut(format!("not found: {}", missing.join(", ")))
        };
        outcomes.push((step.name, outcome, began.elapsed()));
        // A red formatter or compiler makes the rest noise; tests are all run, so that one look shows them all.
        if matches!(outcomes.last(), Some(("fmt" | "clippy" | "build", Outcome::Failed(_), _))) {
            break;
        }
    }
    let ended = compiling.end();
    println!("\n=== summary after {} s ===", started.elapsed().as_secs());
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    for (name, outcome, took) in &outcomes {
        let seconds = took.as_secs();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("passed    {name} ({seconds} s)");
            }
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAILED    {name} ({seconds} s): {why}");
            }
            Outcome::LeftOut(why) => {
                left_out += 1;
                println!("left out  {name}: {why}");
            }
        }
    }
    if left_out == 0 {
        println!("nothing was left out");
    }
    println!("{passed} passed, {failed} failed, {left_out} skipped");
    ended?;
    if failed > 0 || (strict && left_out > 0) {
        bail!("not everything passed");
    }
    Ok(())
}

/// A cargo command that compiles into the folder that all checks share.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command("cargo", arguments);
    cargo.env("CARGO_TARGET_DIR", process::target()?).env("CARGO_INCREMENTAL", "0");
    Ok(cargo)
}

fn fmt() -> Result<()> {
    process::run(&mut command("cargo", ["fmt", "--all", "--check"]))
}

fn deny() -> Result<()> {
    process::run(&mut command("cargo-deny", ["--all-features", "check", "bans", "licenses", "sources"]))
}

fn clippy() -> Result<()> {
    process::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?)
}

/// Unit, property, transcript and contract tests: all that needs no server of its own.
fn test() -> Result<()> {
    process::run(&mut cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--exclude",
        "end-to-end",
        "--exclude",
        "crash",
        "--exclude",
        "bench",
        "--exclude",
        "cluster-tests",
    ])?)
}

fn docs() -> Result<()> {
    process::run(
        cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"])?
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// The binary that the steps below run, and the programs that drive it. With the tests, since without them the features
/// that only tests ask for are left out of tokio and others, and all that stands on those is compiled once more. Without
/// those features `docs` checks the libraries, and the release builds of the campaigns and the bench are made.
pub(crate) fn build() -> Result<()> {
    process::run(&mut cargo(&["build", "--locked", "--workspace", "--bins", "--tests"])?)
}

/// Runs a program of this workspace that [`build`] has made.
pub(crate) fn built(program: &str, profile: &str, arguments: &[&str]) -> Result<Command> {
    let folder = process::target()?.join(profile);
    let mut command = command(&folder.join(program).to_string_lossy(), arguments);
    command.env("POSTRIDER_BIN", folder.join("postrider"));
    Ok(command)
}

fn crash() -> Result<()> {
    process::run(&mut built("crash", "debug", &["smoke", "--seed", "1"])?)
}

fn end_to_end() -> Result<()> {
    let corpus = corpus::fetch()?;
    process::run(
        scenarios(
            &["corpus", "real_clients", "bad_input", "sending", "jmap_sending", "clock_jumps", "life", "ending"],
            "debug",
        )?
        .env("POSTRIDER_CORPUS", corpus),
    )
}

/// Many domains, Postfix and smtp-sink: every recipient is accounted for.
fn outside_world() -> Result<()> {
    process::run(&mut scenarios(&["outside_world"], "debug")?)
}

/// A full and a failing disk: the first is mounted for the test.
fn storage_trouble() -> Result<()> {
    process::run(&mut scenarios(&["storage_trouble"], "debug")?)
}

/// Tests of `tests/e2e` against the binary of a profile.
pub(crate) fn scenarios(names: &[&str], profile: &str) -> Result<Command> {
    // Of the whole workspace, so that nothing is compiled with other features than before.
    let mut arguments = vec!["test", "--locked", "--workspace"];
    arguments.extend(names.iter().flat_map(|name| ["--test", name]));
    arguments.extend(["--", "--nocapture"]);
    let mut cargo = cargo(&arguments)?;
    cargo.env("POSTRIDER_BIN", process::target()?.join(profile).join("postrider"));
    Ok(cargo)
}

/// What IMAP answers over its socket, beside Dovecot: commands right and wrong, and what is told of real messages on the
/// same bytes. Every difference is listed, none is stale.
fn conformance() -> Result<()> {
    build()?;
    let python = |script: &str, arguments: &[&Path]| -> Result<()> {
        let mut script = command("python3", [format!("tests/conformance/{script}")]);
        script.args(arguments).env("POSTRIDER_BIN", process::target()?.join("debug/postrider"));
        process::run(&mut script)
    };
    python("answers.py", &[])?;
    let corpus = corpus::fetch()?;
    let folder = process::target()?.join("conformance");
    std::fs::create_dir_all(&folder)?;
    let (peer, ours) = (folder.join("peer"), folder.join("ours"));
    let (spam, cpython) = (corpus.join("spam-assassin"), corpus.join("cpython"));
    let edges = Path::new("tests/conformance/edges");
    python("structure.py", &[Path::new("peer"), &peer, &spam, &cpython, edges])?;
    python("structure.py", &[Path::new("ours"), &ours, &spam, &cpython, edges])?;
    let list = Path::new("tests/conformance/differences.tsv");
    python("structure.py", &[Path::new("compare"), &peer, &ours, Path::new("--list"), list])
}

/// The engines themselves are started, killed and started again; then the suites that every back end passes, on Cassandra
/// and S3, and hints and requests over NATS. `test` passes these too, without engines; here they must be there.
fn on_engines() -> Result<()> {
    process::run(&mut scenarios(&["s3_and_nats"], "debug")?)?;
    let wanted = engines::Options { cassandra_nodes: 1, s3: true, nats: true, ..engines::Options::default() };
    let engines = engines::Engines::start(&wanted)?;
    let suites = ["test", "--locked", "--workspace", "--lib", "--", "--nocapture"];
    let suites = suites.iter().chain(&["on_real_nodes", "keeps_the_contract_on_a_real_service"]).copied();
    let suites: Vec<&str> = suites.collect();
    process::run(cargo(&suites)?.envs(engines.environment()))?;
    process::run(scenarios(&["nats"], "debug")?.envs(engines.environment()))
}

/// The guide to many machines as it stands, on three nodes of Cassandra, S3 and NATS: mail at one is everywhere.
/// Then nodes of two releases, and with wrong clocks; two regions; and a server moves from its folder to such engines, and
/// back.
fn cluster() -> Result<()> {
    // Of the one package that `test` leaves out for its engines; of the whole workspace for the features' sake.
    let units = ["test", "--locked", "--workspace", "--lib", "--", "guide::", "between::"];
    process::run(&mut cargo(&units)?)?;
    process::run(&mut scenarios(&["guide"], "debug")?)?;
    // Each has engines of its own, for which it waits most of the time. Built before, so that none waits for another's build.
    let lanes: [&[&str]; 2] = [&["joining", "regions"], &["migrate"]];
    process::run(scenarios(&lanes.concat(), "debug")?.arg("--list"))?;
    let mut tests = lanes.map(|names| scenarios(names, "debug")).into_iter().collect::<Result<Vec<_>>>()?;
    let corpus = corpus::fetch()?;
    for test in &mut tests {
        test.env("POSTRIDER_CORPUS", &corpus);
    }
    process::run_beside(&mut tests)
}

/// Five minutes of load on the same, with a fault in each round. What a clock that was wrong puts off takes longer than that.
fn faults() -> Result<()> {
    let kinds = "kill-node,pause-node,kill-cassandra,kill-s3,s3-lies,lose-answers,cut-all-cassandras";
    let flags = ["--minutes", "5", "--seed", "1", "--seconds-max", "10", "--only", kinds];
    process::run(&mut built("cluster-tests", "debug", &flags)?)
}

fn bench_smoke() -> Result<()> {
    process::run(&mut built("bench", "debug", &["--smoke"])?)
}
