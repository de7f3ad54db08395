//! Crashes while mail is sent: the server is killed, or the power goes, again and again; then everything is sent that is
//! left, and what the hosts outside have taken is held against what was acknowledged to the senders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use testkit::ledger;
use testkit::load::{ACCOUNTS, log_in};
use testkit::observe::Damage;
use testkit::sending::{Book, Outside, Tally, judge};
use testkit::server::{Options, Server};
use testkit::sink::Taken;

use crate::counts::{self, Counts};
use crate::image::Unsynced;
use crate::kill;
use crate::power;

/// Rounds over one data folder, at the end of which everything is looked at.
const ROUNDS_PER_FOLDER: usize = 10;
/// Users that submit side by side.
const SENDERS: u64 = 4;

/// How much of it.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) images: usize,
    pub(crate) limit: Option<Duration>,
    pub(crate) seed: u64,
    /// Acknowledged messages between two kills, in the mean.
    pub(crate) between: usize,
}

/// How to start a server that sends there, and that comes back to what was put off within seconds.
fn options(outside: &Outside, data: &Path) -> Result<Options> {
    let mut options = counts::options(data)?;
    let file = data.with_extension("toml");
    let mut settings = std::fs::read_to_string(&file)?;
    // Hosts that leave messages in doubt break connections, and are left alone for it.
    settings.push_str(
        "\n[queue]\npoll_seconds = 1\n\n[queue.retry]\nseconds_min = 1\nseconds_max = 2\n\n\
         [smtp_out.limits]\nsuspend_seconds_min = 1\nsuspend_seconds_max = 1\n",
    );
    std::fs::write(&file, settings)?;
    options.arguments.extend(outside.arguments());
    Ok(options)
}

/// Users who submit until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(book: &Arc<Book>, submission: SocketAddr, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for worker in 0..SENDERS {
            let (book, stop) = (Arc::clone(book), Arc::clone(&stop));
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000) + worker);
            workers.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    // Any error means that the server has gone: what it had not answered is undecided.
                    let _ = submit(&book, &stop, submission, &mut random);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        Self { stop, workers }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            let _ = worker.join();
        }
    }
}

fn submit(book: &Book, stop: &AtomicBool, submission: SocketAddr, random: &mut StdRng) -> Result<()> {
    let mut client = log_in(submission, ACCOUNTS[0])?;
    while !stop.load(Ordering::SeqCst) {
        book.submit(&mut client, ACCOUNTS[0], random)?;
    }
    Ok(())
}

/// Waits until nothing waits any more.
fn drain(server: &Server) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let summary: Value = serde_json::from_str(&server.get("/admin/v1/queue")?)?;
        let count = |name: &str| summary[name].as_u64().unwrap_or(u64::MAX);
        if count("ingest") == 0 && count("outbound") == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(Damage(format!("the queue does not become empty: {summary}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kills; an error is a loss.
pub(crate) fn kill(plan: &Plan) -> Result<()> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let started = Instant::now();
    let (mut rounds, mut tally, mut counts) = (0, Tally::default(), Counts::default());
    let goes_on =
        |rounds: usize| rounds < plan.rounds && plan.limit.is_none_or(|limit| started.elapsed() < limit);
    while goes_on(rounds) {
        let folder = tempfile::tempdir()?;
        let outside = Outside::start()?;
        let options = self::options(&outside, &folder.path().join("data"))?;
        let book = Arc::new(Book::default());
        for _ in 0..ROUNDS_PER_FOLDER {
            let server = Server::start(&options)?;
            let before = book.acknowledged();
            let load = Load::start(&book, server.submission(), plan.seed.wrapping_add(rounds as u64));
            let aim = random.random_range(plan.between / 2..plan.between * 3 / 2);
            let deadline = Instant::now() + Duration::from_secs(60);
            while book.acknowledged() < before + aim && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            counts.add(&server)?;
            server.kill()?;
            load.stop();
            if book.acknowledged() == before {
                bail!("round {rounds}: nothing was acknowledged, so nothing was tested");
            }
            rounds += 1;
            if !goes_on(rounds) {
                break;
            }
        }
        let server = Server::start(&options)?;
        let judged = drain(&server)
            .and_then(|()| judge(&server, ACCOUNTS[0], &book, &outside.sink.taken(), ledger::now()));
        match judged {
            Ok(found) => tally.add(found),
            Err(error) => {
                let kept = folder.keep();
                return Err(error.context(format!("seed {}, kept in {}", plan.seed, kept.display())));
            }
        }
        counts.add(&server)?;
        server.stop(Duration::from_secs(30))?;
        kill::check(&options)?;
    }
    if tally.doubled == 0 || tally.bounced == 0 {
        bail!("nothing was in doubt, or nothing bounced, so it was not tested: {tally}");
    }
    counts.require()?;
    println!("result\tkill -9 while sending\trounds={rounds} {tally} check=clean {counts}");
    Ok(())
}

/// Power cuts; an error is a loss.
pub(crate) fn power(plan: &Plan) -> Result<()> {
    let started = Instant::now();
    let mut faults: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut counts, mut images, mut recordings) = (Counts::default(), 0, 0_u64);
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    while images < plan.images && plan.limit.is_none_or(|limit| started.elapsed() < limit) {
        let folder = tempfile::tempdir()?;
        let seed = plan.seed.wrapping_add(recordings);
        let book = Arc::new(Book::default());
        let outside = Outside::start()?;
        let options = self::options(&outside, &folder.path().join("data"))?;
        let (events, root) = power::record(folder.path(), options, |server| {
            let load = Load::start(&book, server.submission(), seed);
            let deadline = Instant::now() + Duration::from_secs(240);
            while book.acknowledged() < plan.between {
                if Instant::now() > deadline {
                    bail!("only {} messages in time:\n{}", book.acknowledged(), server.log_tail(20));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            load.stop();
            counts.add(server)
        })?;
        let before = outside.sink.taken();
        drop(outside);
        let look = |unsynced: Unsynced, image: &Path, instant: f64| {
            let after = Outside::start()?;
            let options = self::options(&after, image)?;
            let server = Server::start(&options)?;
            drain(&server)?;
            let mut taken: Vec<Taken> = before.iter().filter(|one| one.at <= instant).cloned().collect();
            taken.extend(after.sink.taken());
            let found = judge(&server, ACCOUNTS[0], &book, &taken, instant)?;
            tallies.entry(unsynced.name()).or_default().add(found);
            server.stop(Duration::from_secs(30))?;
            kill::check(&options)
        };
        let part = power::Part {
            seed,
            images: plan.images - images,
            deadline: plan.limit.map(|limit| started + limit),
        };
        images += power::rebuild(folder.path(), &events, &root, &part, &mut faults, look)?;
        recordings += 1;
    }
    counts.require()?;
    for (fault, count) in faults {
        // Each image is judged anew, so what was acknowledged counts once for each.
        let tally = tallies.get(fault).copied().unwrap_or_default();
        println!(
            "result\tpower cut while sending, {fault}\timages={count} recordings={recordings} {tally} check=clean {counts}"
        );
    }
    Ok(())
}
