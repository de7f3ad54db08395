//! Crashes while mail is sent: the server is killed, or the power goes, again and again; then everything is sent that is
//! left, and what the hosts outside have taken is held against what was acknowledged to the senders.
//!
//! Nothing may be lost. A recipient may get a message twice only where an attempt was in doubt: the history says so.
//! Whoever does not exist has one notification, and nobody else has any.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use testkit::dns::Dns;
use testkit::ledger;
use testkit::message;
use testkit::reports;
use testkit::server::{Options, Server};
use testkit::sink::{Sink, Taken, manners};

use crate::counts::{self, Counts};
use crate::image::Unsynced;
use crate::kill;
use crate::power;
use testkit::load::{ACCOUNTS, log_in};
use testkit::observe::Damage;

/// Rounds over one data folder, at the end of which everything is looked at.
const ROUNDS_PER_FOLDER: usize = 10;
/// Domains outside, each with a host of its own.
const DOMAINS: u8 = 5;
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

/// The hosts outside, and how they are found.
struct Outside {
    dns: Dns,
    sink: Sink,
}

impl Outside {
    fn start() -> Result<Self> {
        let addresses: Vec<Ipv4Addr> =
            (0..DOMAINS).map(|number| Ipv4Addr::new(127, 0, 3, number + 1)).collect();
        let sink = Sink::start(&addresses)?;
        let dns = Dns::start()?;
        for (number, address) in addresses.into_iter().enumerate() {
            dns.exchanger(&format!("d{number}.test"), 10, &format!("mx.d{number}.test"), address);
        }
        Ok(Self { dns, sink })
    }

    /// How to start a server that sends there, and that comes back to what was put off within seconds.
    fn options(&self, data: &Path) -> Result<Options> {
        let mut options = counts::options(data)?;
        let file = data.with_extension("toml");
        let mut settings = std::fs::read_to_string(&file)?;
        // Hosts that leave messages in doubt break connections, and are left alone for it.
        settings.push_str(
            "\n[queue]\npoll_seconds = 1\n\n[queue.retry]\nseconds_min = 1\nseconds_max = 2\n\n\
             [smtp_out.limits]\nsuspend_seconds_min = 1\nsuspend_seconds_max = 1\n",
        );
        std::fs::write(&file, settings)?;
        let (resolver, port) = (self.dns.address().to_string(), self.sink.port().to_string());
        options.arguments.extend(["--resolver".to_owned(), resolver, "--mx-port".to_owned(), port]);
        Ok(options)
    }
}

/// A message as it was handed in.
#[derive(Clone, Debug)]
struct Sent {
    recipients: Vec<String>,
    acknowledged: Option<f64>,
}

/// Everything that was handed in, by number.
#[derive(Debug, Default)]
struct Book {
    sent: Mutex<BTreeMap<u64, Sent>>,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Book {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Sent>> {
        self.sent.lock().expect("nobody panics with the lock")
    }

    fn acknowledged(&self) -> usize {
        self.lock().values().filter(|sent| sent.acknowledged.is_some()).count()
    }
}

/// Users who submit until they are told to stop.
struct Load {
    book: Arc<Book>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(book: &Arc<Book>, submission: SocketAddr, seed: u64) -> Self {
        book.stop.store(false, Ordering::SeqCst);
        let mut workers = Vec::new();
        for worker in 0..SENDERS {
            let book = Arc::clone(book);
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000) + worker);
            workers.push(std::thread::spawn(move || {
                while !book.stop.load(Ordering::SeqCst) {
                    // Any error means that the server has gone: what it had not answered is undecided.
                    let _ = submit(&book, submission, &mut random);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        Self { book: Arc::clone(book), workers }
    }

    fn stop(self) {
        self.book.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            let _ = worker.join();
        }
    }
}

fn submit(book: &Book, submission: SocketAddr, random: &mut StdRng) -> Result<()> {
    let mut client = log_in(submission, ACCOUNTS[0])?;
    while !book.stop.load(Ordering::SeqCst) {
        let id = book.next.fetch_add(1, Ordering::SeqCst) + 1;
        let count = random.random_range(1..5);
        let recipients: Vec<String> = (0..count)
            .map(|number| {
                let manner = match random.random_range(0..10) {
                    0 => manners::GONE,
                    1 => manners::LATER,
                    2 => manners::DOUBT,
                    _ => "user",
                };
                format!("{manner}-{id}-{number}@d{}.test", random.random_range(0..DOMAINS))
            })
            .collect();
        book.lock().insert(id, Sent { recipients: recipients.clone(), acknowledged: None });
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let text = message::numbered(id, if id.is_multiple_of(20) { 60_000 } else { 900 });
        let reply = client.send(ACCOUNTS[0], &to, text.as_bytes())?;
        if reply.code == 250
            && let Some(sent) = book.lock().get_mut(&id)
        {
            sent.acknowledged = Some(ledger::now());
        }
    }
    Ok(())
}

/// What became of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    messages: usize,
    recipients: usize,
    delivered: usize,
    bounced: usize,
    doubled: usize,
    doubts: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.delivered += other.delivered;
        self.bounced += other.bounced;
        self.doubled += other.doubled;
        self.doubts += other.doubts;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, recipients, delivered, bounced, doubled, doubts } = self;
        write!(
            f,
            "acknowledged={messages} recipients={recipients} delivered={delivered} bounced={bounced} \
             doubled_in_doubt={doubled} doubts={doubts} lost=0 doubled_without_doubt=0"
        )
    }
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

/// Attempts in doubt in the history of a recipient.
fn doubts(server: &Server, id: u64, recipient: &str) -> Result<u64> {
    let path = format!("/admin/v1/queue/trace?id={}", message::message_id(id));
    let traced: Value = serde_json::from_str(&server.get(&path)?)?;
    let items = traced.as_array().into_iter().flatten();
    let recipients = items.flat_map(|item| item["recipients"].as_array().into_iter().flatten());
    let found = recipients.filter(|one| one["address"] == recipient).filter_map(|one| one["doubts"].as_u64());
    Ok(found.max().unwrap_or(0))
}

/// Holds what was taken until `instant`, and since, against what was acknowledged by then.
fn judge(server: &Server, book: &Book, taken: &[Taken], instant: f64) -> Result<Tally> {
    let mut copies: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for one in taken {
        *copies.entry((one.id, &one.recipient)).or_default() += 1;
    }
    let told = reports::reported(server.imap(), ACCOUNTS[0])?;
    if let Some((recipient, action)) = told.keys().find(|(_, action)| action != "failed") {
        bail!(Damage(format!("a notification of {action:?} about {recipient}")));
    }
    let mut tally = Tally::default();
    let book = book.lock();
    for (id, sent) in book.iter() {
        let acknowledged = sent.acknowledged.is_some_and(|at| at <= instant);
        tally.messages += usize::from(acknowledged);
        for recipient in &sent.recipients {
            let copies = copies.get(&(*id, recipient.as_str())).copied().unwrap_or(0);
            let told = told.get(&(recipient.clone(), "failed".to_owned())).copied().unwrap_or(0);
            let gone = recipient.starts_with(manners::GONE);
            let about = |what: &str| Damage(format!("message {id} to {recipient}: {what}"));
            if told > u32::from(gone) {
                bail!(about(&format!("{told} notifications of failure")));
            }
            if acknowledged {
                tally.recipients += 1;
                if gone && told == 0 {
                    bail!(about("no notification"));
                }
                if !gone && copies == 0 {
                    bail!(about("lost"));
                }
                tally.bounced += usize::from(gone);
                tally.delivered += usize::from(!gone);
            }
            if copies > 1 {
                let doubts = doubts(server, *id, recipient)?;
                if copies > 1 + doubts {
                    bail!(about(&format!("{copies} copies with {doubts} attempts in doubt")));
                }
                tally.doubled += 1;
                tally.doubts += doubts;
            }
        }
    }
    Ok(tally)
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
        let options = outside.options(&folder.path().join("data"))?;
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
        let judged =
            drain(&server).and_then(|()| judge(&server, &book, &outside.sink.taken(), ledger::now()));
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
        let options = outside.options(&folder.path().join("data"))?;
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
            let options = after.options(image)?;
            let server = Server::start(&options)?;
            drain(&server)?;
            let mut taken: Vec<Taken> = before.iter().filter(|one| one.at <= instant).cloned().collect();
            taken.extend(after.sink.taken());
            let found = judge(&server, &book, &taken, instant)?;
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
