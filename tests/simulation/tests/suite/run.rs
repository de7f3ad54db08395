//! A run, in a process of its own: some numbers count in a whole process, and would be others in a second run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use directory::admin::{NewAccount, NewPassword};
use directory::entry::DomainSettings;
use futures_util::future::join_all;
use mail::address::Domain;
use parking_lot::Mutex;
use rand_for_mad_turmoil::SeedableRng;

use crate::bug::Bug;
use crate::clients::PASSWORD;
use crate::counts::Counts;
use crate::follow::Follower;
use crate::judge::judge;
use crate::load::{ACCOUNTS, NOWHERE, SENDER, Worker, send};
use crate::node::{self, address, faultless, name};
use crate::storm::Storm;
use crate::world::{CLIENTS, NODES, World};

/// Seed and defect of the run that a process is for.
const VARIABLE: &str = "POSTRIDER_SIMULATION_RUN";
/// The turns that hosts take one after the other, in milliseconds; one of these in a run. Within its turn a host's own
/// timers go on as they are set.
const TICKS: [u64; 3] = [2, 3, 7];
const SENDERS: u64 = 4;
const WORKERS: u64 = 6;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    /// The hash of all that happened.
    pub(crate) trace: String,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
}

/// Runs a seed in a process of its own.
pub(crate) fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome> {
    let bug = bug.map_or_else(|| "none".to_owned(), Bug::name);
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", "run::the_run_of_this_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{seed} {bug}"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if std::env::var_os("POSTRIDER_SIMULATION_TRACE").is_some() {
        eprintln!("{errors}");
    }
    let mut outcome = Outcome { trace: String::new(), counts: Counts::default(), violations: Vec::new() };
    for line in text.lines() {
        // The harness says the test's name without an end of line.
        let line = line.find("simulation\t").map_or("", |at| &line[at..]);
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["simulation", "trace", trace] => trace.clone_into(&mut outcome.trace),
            ["simulation", "counts", counts] => outcome.counts = Counts::parse(counts),
            ["simulation", "violation", violation] => outcome.violations.push(violation.to_owned()),
            _ => {}
        }
    }
    if outcome.trace.is_empty() {
        bail!("seed {seed} came to no end: {text}{errors}");
    }
    Ok(outcome)
}

/// Not a test, but the process that [`run`] starts.
#[test]
#[ignore = "is started for one seed by the others"]
fn the_run_of_this_process() {
    let Ok(what) = std::env::var(VARIABLE) else { return };
    let (seed, bug) = what.split_once(' ').expect("seed and defect");
    let seed: u64 = seed.parse().expect("a seed is a number");
    mad_turmoil::rand::set_rng(rand_for_mad_turmoil::rngs::StdRng::seed_from_u64(seed));
    // A thread of its own: what the standard library draws once for a thread is then drawn from the seed.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let named = Bug::named(bug);
    let done = thread.spawn(move || simulate(seed, named)).expect("a thread can be had").join();
    let outcome = done.expect("the simulation itself does not panic");
    println!("\nsimulation\ttrace\t{}", outcome.trace);
    println!("simulation\tcounts\t{}", outcome.counts);
    for violation in outcome.violations {
        println!("simulation\tviolation\t{}", violation.replace(['\n', '\t'], " "));
    }
}

fn simulate(seed: u64, bug: Option<Bug>) -> Outcome {
    if std::env::var_os("POSTRIDER_SIMULATION_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        PANICS.lock().push(format!("panic: {panic}"));
    }));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let world = World::new(seed, bug);
    let mut sim = turmoil::Builder::new()
        .tick_duration(Duration::from_millis(TICKS[seed as usize % TICKS.len()]))
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(10))
        .tcp_capacity(1_024)
        .udp_capacity(1_024)
        .rng_seed(seed)
        .build();
    for node in 0..NODES {
        let world = world.clone();
        sim.host(name(node), move || node::run(world.clone(), node));
    }
    let violations = Arc::new(Mutex::new(Vec::new()));
    sim.client(CLIENTS, {
        let (world, violations) = (world.clone(), violations.clone());
        async move {
            prepare(&world).await.map_err(|error| format!("{error:#}"))?;
            let found = clients(&world).await;
            *violations.lock() = found;
            Ok(())
        }
    });
    let mut storm = Storm::new(&world);
    let ended = loop {
        storm.step(&world, &mut sim);
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let mut violations = std::mem::take(&mut *violations.lock());
    violations.extend(ended.err().map(|error| format!("a host ended: {error}")));
    violations.append(&mut PANICS.lock());
    let mut counts = world.counts();
    counts.add("simulated_seconds", sim.elapsed().as_secs());
    let ledger = world.ledger.lock();
    counts.add("acknowledged", ledger.acknowledged);
    counts.add("undecided", ledger.undecided);
    counts.add("refusals", ledger.refused);
    Outcome { trace: world.trace(), counts, violations }
}

/// Makes the accounts.
async fn prepare(world: &Arc<World>) -> Result<()> {
    let services = faultless(world, true).await?;
    let domain = Domain::parse("example.test").map_err(|error| anyhow!("{error}"))?;
    services.directory.create_domain(&domain, DomainSettings::default()).await?;
    for name in ACCOUNTS.into_iter().chain([SENDER]) {
        let new = NewAccount { password: NewPassword::Clear(PASSWORD.to_owned()), ..NewAccount::default() };
        services.directory.create_account(&address(name)?, new).await?;
    }
    services.directory.create_alias(&address(NOWHERE)?, vec![address("nobody")?], true).await?;
    services.close();
    world.is_ready.store(true, Ordering::Relaxed);
    Ok(())
}

/// All clients, and after them the judge.
async fn clients(world: &Arc<World>) -> Vec<String> {
    let senders = (0..SENDERS).map(|number| tokio::task::spawn_local(send(world.clone(), number)));
    let workers =
        (0..WORKERS).map(|number| tokio::task::spawn_local(Worker::new(world.clone(), number).run()));
    let all: Vec<_> = senders.chain(workers).collect();
    let followed = ACCOUNTS.into_iter().flat_map(|account| [(account, "INBOX"), (account, "Archive")]);
    let followers: Vec<_> = (0..)
        .zip(followed)
        .map(|(number, (account, mailbox))| {
            tokio::task::spawn_local(Follower::new(account, mailbox).run(world.clone(), number))
        })
        .collect();
    join_all(all).await;
    world.load_is_over.store(true, Ordering::Relaxed);
    while !world.is_calm.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut followers: Vec<Follower> = join_all(followers).await.into_iter().filter_map(Result::ok).collect();
    judge(world, &mut followers).await
}
