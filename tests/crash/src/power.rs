//! Power cuts. One run under load is recorded call by call; then the disk is rebuilt as it may have been at each sync,
//! a server is started on it, and what clients find is judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testkit::server::{Options, Server};

use crate::counts::{self, Counts};
use crate::image::{Disk, Unsynced};
use crate::kill;
use crate::strace::{self, Change, Event};
use testkit::load::{Load, Run};
use testkit::observe;
use testkit::observe::Damage;

/// How much of it.
pub(crate) struct Plan {
    pub(crate) images: usize,
    pub(crate) limit: Option<Duration>,
    pub(crate) seed: u64,
    /// Acknowledged operations in one recording.
    pub(crate) operations: usize,
}

/// Records and judges until the plan is fulfilled; an error is a loss.
pub(crate) fn run(plan: Plan) -> Result<()> {
    let started = Instant::now();
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut work = Counts::default();
    let (mut images, mut acknowledged, mut recording) = (0, 0, 0_u64);
    while images < plan.images && plan.limit.is_none_or(|limit| started.elapsed() < limit) {
        let folder = tempfile::tempdir()?;
        let seed = plan.seed.wrapping_add(recording);
        let (run, events, root) = record_load(folder.path(), seed, plan.operations, &mut work)?;
        acknowledged += run.ledger.acknowledged();
        let deadline = plan.limit.map(|limit| started + limit);
        let part = Part { seed, images: plan.images - images, deadline };
        images += judge(folder.path(), &run, &events, &root, &part, &mut counts)?;
        recording += 1;
    }
    work.require()?;
    for (fault, count) in counts {
        println!(
            "result\tpower cut, {fault}\timages={count} recordings={recording} acknowledged={acknowledged} lost=0 doubled=0 check=clean {work}"
        );
    }
    Ok(())
}

/// Recordings and images of each in which a planted defect has to be noticed.
const PLANTED: (u64, usize) = (4, 60);

/// Judges a server that answers before the sync, until that is noticed; an error when it is not.
pub(crate) fn planted(seed: u64) -> Result<()> {
    let mut counts = BTreeMap::new();
    let (recordings, images) = PLANTED;
    for recording in 0..recordings {
        let folder = tempfile::tempdir()?;
        let seed = seed.wrapping_add(recording);
        let (run, events, root) = record_load(folder.path(), seed, 400, &mut Counts::default())?;
        // What was recorded is whole, so what goes wrong now is what a client or `check` meets after the power cut.
        let part = Part { seed, images, deadline: None };
        if let Err(problem) = judge(folder.path(), &run, &events, &root, &part, &mut counts) {
            // Trouble of the test itself is no proof of anything.
            if !problem.is::<Damage>() {
                return Err(problem);
            }
            let image = counts.values().sum::<usize>() + 1;
            let problem = format!("{problem:#}").replace(['\t', '\n'], " ");
            println!(
                "result\t250 before the sync, power cut\tcaught_in_image={image} problem={problem:.200}"
            );
            return Ok(());
        }
    }
    bail!("an answer before the sync was not noticed: {counts:?}")
}

/// Records mixed load.
fn record_load(
    folder: &Path,
    seed: u64,
    operations: usize,
    counts: &mut Counts,
) -> Result<(Arc<Run>, Vec<Event>, PathBuf)> {
    let run = Arc::new(Run::default());
    let options = counts::options(&folder.join("data"))?;
    let (events, root) = record(folder, options, |server| {
        let load = Load::start(&run, server, seed);
        let deadline = Instant::now() + Duration::from_secs(240);
        while run.ledger.acknowledged() < operations {
            if Instant::now() > deadline {
                bail!("only {} operations in time:\n{}", run.ledger.acknowledged(), server.log_tail(20));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        load.stop();
        counts.add(server)
    })?;
    Ok((run, events, root))
}

/// Runs a server under strace while `work` is done, then stops it: what it did to its folder.
pub(crate) fn record(
    folder: &Path,
    mut options: Options,
    work: impl FnOnce(&Server) -> Result<()>,
) -> Result<(Vec<Event>, PathBuf)> {
    let trace = folder.join("trace");
    options.wrapper = strace::arguments(&trace);
    options.patience = Duration::from_secs(180);
    let server = Server::start(&options)?;
    work(&server)?;
    // The server is stopped in order, so that the record ends whole and can be compared with the folder.
    std::process::Command::new("kill").arg("-TERM").arg(server.process()?.to_string()).status()?;
    server.stop_wrapped(Duration::from_secs(60))?;
    let root = options.data.canonicalize()?;
    let events = strace::read(&trace, &root)?;
    std::fs::remove_file(&trace)?;
    let mut disk = Disk::default();
    for (index, event) in events.iter().enumerate() {
        disk.play(index, event);
    }
    disk.compare(&root).context("the record is not complete")?;
    Ok((events, root))
}

/// Which images are made of a record.
pub(crate) struct Part {
    pub(crate) seed: u64,
    /// At most so many.
    pub(crate) images: usize,
    pub(crate) deadline: Option<Instant>,
}

/// Judges what clients find after power cuts under mixed load.
fn judge(
    folder: &Path,
    run: &Run,
    events: &[Event],
    root: &Path,
    part: &Part,
    counts: &mut BTreeMap<&'static str, usize>,
) -> Result<usize> {
    rebuild(folder, events, root, part, counts, |_, image, instant| {
        let options = counts::options(image)?;
        let server = Server::start(&options)?;
        let found = observe::until(&server, Duration::from_secs(30), |found| {
            run.ledger.judge(found, instant).clean()
        })?;
        let verdict = run.ledger.judge(&found, instant);
        if !verdict.clean() {
            bail!(Damage(verdict.to_string()));
        }
        server.stop(Duration::from_secs(30))?;
        kill::check(&options)
    })
}

/// Rebuilds the folder as it may have been at syncs, and looks at each image: with the fault, at its folder, and with the
/// instant at which the power went.
pub(crate) fn rebuild(
    folder: &Path,
    events: &[Event],
    root: &Path,
    part: &Part,
    counts: &mut BTreeMap<&'static str, usize>,
    mut look: impl FnMut(Unsynced, &Path, f64) -> Result<()>,
) -> Result<usize> {
    let Part { seed, images, deadline } = *part;
    let mut random = StdRng::seed_from_u64(seed);
    let syncs: Vec<usize> =
        (0..events.len()).filter(|index| matches!(events[*index].change, Change::Sync { .. })).collect();
    // The first start makes the accounts; a cut before they exist is a first start again.
    let usable = syncs.len().saturating_sub(1);
    let chosen = images.div_ceil(Unsynced::ALL.len()).min(usable).min(400);
    if chosen == 0 {
        bail!("no sync was recorded");
    }
    let mut points: Vec<usize> = (0..chosen).map(|turn| turn * usable / chosen).collect();
    for point in &mut points {
        *point = (*point + random.random_range(0..usable.div_ceil(chosen))).min(usable - 1);
    }
    let mut disk = Disk::default();
    let mut played = 0;
    let mut done = 0;
    for point in points {
        // The power goes just before the next sync ends: whatever was acknowledged by then has to be there.
        let (next, instant) = (syncs[point + 1], events[syncs[point + 1]].ended);
        while played < next {
            disk.play(played, &events[played]);
            played += 1;
        }
        for unsynced in Unsynced::ALL {
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Ok(done);
            }
            let image = folder.join("image");
            let _ = std::fs::remove_dir_all(&image);
            disk.write(root, &image, unsynced, &mut random)?;
            look(unsynced, &image, instant)
                .with_context(|| format!("seed {seed}, sync {point} of {usable}, {}", unsynced.name()))?;
            *counts.entry(unsynced.name()).or_default() += 1;
            done += 1;
        }
    }
    Ok(done)
}
