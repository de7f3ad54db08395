//! The world outside: two hundred domains with all that the DNS can say of them, Postfix and smtp-sink with its fault flags
//! behind them, and thousands of messages. Every recipient ends delivered once, bounced once, cancelled, or is still
//! queued, as its domain has it, and the counts of both sides agree.
//!
//! `POSTRIDER_WORLD=MESSAGES,DOMAINS` sets how much of it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was counted is for people")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use end_to_end::Scene;
use serde_json::Value;
use testkit::dns::{Data, Dns};
use testkit::message;
use testkit::postfix::{self, Onward, Postfix};
use testkit::reports;
use testkit::server::binary;
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
const LOGIN: &str = "AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=";
/// Users that submit side by side.
const SENDERS: usize = 8;

/// What a recipient comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Delivered,
    Bounced,
    Queued,
    Cancelled,
}

/// What there is behind a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Three exchangers of one preference, one of them dead.
    Equal,
    /// The preferred exchanger is dead.
    SecondBest,
    Postfix,
    /// No exchanger, but an address.
    Implicit,
    /// Another name for a domain with an exchanger.
    Alias,
    SixOnly,
    /// RFC 7505.
    NullMx,
    Missing,
    Dead,
    /// Dead, and its operator takes the mail back.
    TakenBack,
    /// smtp-sink with these of [`FLAGS`].
    Flagged(usize),
}

const PLAIN: [Kind; 10] = [
    Kind::Equal,
    Kind::SecondBest,
    Kind::Postfix,
    Kind::Implicit,
    Kind::Alias,
    Kind::SixOnly,
    Kind::NullMx,
    Kind::Missing,
    Kind::Dead,
    Kind::TakenBack,
];

/// What smtp-sink can do to whoever sends, and what becomes of the mail.
const FLAGS: [(&[&str], End); 28] = [
    // Refused, put off, and cut off without and with a reply, at each step.
    // A host that is not in service may not be the only one, nor for ever.
    (&["-f", "connect"], End::Queued),
    (&["-r", "connect"], End::Queued),
    (&["-q", "connect"], End::Queued),
    (&["-Q", "connect"], End::Queued),
    (&["-f", "ehlo"], End::Delivered),
    (&["-q", "ehlo"], End::Queued),
    (&["-f", "mail"], End::Bounced),
    (&["-r", "mail"], End::Queued),
    (&["-q", "mail"], End::Queued),
    (&["-Q", "mail"], End::Queued),
    (&["-f", "rcpt"], End::Bounced),
    (&["-r", "rcpt"], End::Queued),
    (&["-q", "rcpt"], End::Queued),
    (&["-f", "data"], End::Bounced),
    (&["-r", "data"], End::Queued),
    (&["-q", "data"], End::Queued),
    (&["-f", "."], End::Bounced),
    (&["-r", "."], End::Queued),
    (&["-q", "."], End::Queued),
    (&["-Q", "."], End::Queued),
    (&["-f", "quit,rset"], End::Delivered),
    // Texts of their own.
    (&["-r", "rcpt", "-b", "451 4.7.1 Greylisted, please try again in 5 minutes"], End::Queued),
    (&["-f", "rcpt", "-B", "552 5.2.2 Mailbox full"], End::Bounced),
    // Gone after DATA, without reading.
    (&["-A", "0"], End::Bounced),
    // Not -H, -w and -W, slow hosts: smtp-sink does not survive its own timers with many connections. Nor -m: five sites
    // share one host here, and what one keeps open for the next message is what another waits for.
    // Old.
    (&["-e"], End::Delivered),
    (&["-p"], End::Delivered),
    (&["-8", "-E", "-N", "-a", "-C", "-F"], End::Delivered),
    (&["-P"], End::Delivered),
];

impl Kind {
    fn of(domain: usize) -> Self {
        let kind = domain % (PLAIN.len() + FLAGS.len());
        PLAIN.get(kind).copied().unwrap_or_else(|| Self::Flagged(kind - PLAIN.len()))
    }

    fn end(self) -> End {
        match self {
            Self::Equal | Self::SecondBest | Self::Postfix | Self::Implicit | Self::Alias | Self::SixOnly => {
                End::Delivered
            }
            Self::NullMx | Self::Missing => End::Bounced,
            Self::Dead => End::Queued,
            Self::TakenBack => End::Cancelled,
            Self::Flagged(number) => FLAGS[number].1,
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Flagged(number) => FLAGS[number].0,
            _ => &[],
        }
    }
}

fn name(domain: usize) -> String {
    format!("d{domain}.world.test")
}

const fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 4, last)
}

const fn flagged(number: usize) -> Ipv4Addr {
    host(101 + number as u8)
}

const POSTFIX: Ipv4Addr = host(20);
const DEAD: Ipv4Addr = host(99);

/// smtp-sink at some address, with flags; what it takes lies in files, where it is to take something.
struct Sink {
    child: Child,
    address: SocketAddr,
    flags: Vec<String>,
    keeps: bool,
}

impl Sink {
    fn start(address: SocketAddr, flags: &[&str], dump: Option<&Path>) -> Result<Self> {
        let child = Self::spawn(address, flags, dump)?;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        postfix::wait_for(address)?;
        Ok(Self { child, address, flags, keeps: dump.is_some() })
    }

    /// Some of its faults are too much for itself now and then. One that takes nothing is started again.
    fn keep_up(&mut self) -> Result<()> {
        if !self.keeps
            && let Some(status) = self.child.try_wait()?
        {
            eprintln!("smtp-sink {:?} ended with {status}", self.flags);
            let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
            self.child = Self::spawn(self.address, &flags, None)?;
        }
        Ok(())
    }

    fn spawn(address: SocketAddr, flags: &[&str], dump: Option<&Path>) -> Result<Child> {
        let mut command = Command::new("smtp-sink");
        command.args(["-u", "postfix"]).args(flags);
        if let Some(dump) = dump {
            command.arg("-d").arg(dump.join("%M."));
        }
        let listen = match address.ip() {
            IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
            IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
        };
        command.args([&format!("inet:{listen}"), "500"]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All hosts, and what they have taken.
struct World {
    dns: Dns,
    port: u16,
    postfix: Postfix,
    dump: PathBuf,
    sinks: Vec<Sink>,
}

impl World {
    fn start(domains: usize, folder: &Path) -> Result<Self> {
        let port = postfix::free_port()?;
        let dump = folder.join("taken");
        fs::create_dir(&dump)?;
        open_to_all(folder)?;
        open_to_all(&dump)?;
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        let mut sinks = Vec::new();
        for last in [1, 2, 3] {
            sinks.push(Sink::start(at(host(last).into()), &[], Some(&dump))?);
        }
        sinks.push(Sink::start(at(Ipv6Addr::LOCALHOST.into()), &[], Some(&dump))?);
        for (number, (flags, end)) in FLAGS.iter().enumerate() {
            let dump = (*end == End::Delivered).then_some(dump.as_path());
            sinks.push(Sink::start(at(flagged(number).into()), flags, dump)?);
        }
        let dns = Dns::start()?;
        for domain in 0..domains {
            add(&dns, domain);
        }
        let postfix = Postfix::start_at(at(POSTFIX.into()), Onward::Discard)?;
        Ok(Self { dns, port, postfix, dump, sinks })
    }

    /// How often each recipient's message was taken, by message and address.
    fn taken(&self) -> Result<BTreeMap<(u64, String), u32>> {
        let mut taken = BTreeMap::new();
        for entry in fs::read_dir(&self.dump)? {
            let text = fs::read(entry?.path())?;
            let text = String::from_utf8_lossy(&text);
            // A file that is being written has no end yet, and is complete at the next look.
            let Some(id) = message::id_of(&text) else { continue };
            let recipients = text.lines().filter_map(|line| line.strip_prefix("X-Rcpt-Args: <"));
            for recipient in recipients.filter_map(|rest| rest.split('>').next()) {
                *taken.entry((id, recipient.to_owned())).or_default() += 1;
            }
        }
        for ((message_id, recipient), count) in self.postfix.sent()? {
            let id = message_id.split('@').next().and_then(|id| id.parse().ok());
            *taken.entry((id.context("a Message-ID of nobody")?, recipient)).or_default() += count;
        }
        Ok(taken)
    }
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?)
}

fn add(dns: &Dns, domain: usize) {
    let name = name(domain);
    let mx = |preference: u16, last: Ipv4Addr| {
        dns.exchanger(&name, preference, &format!("mx{}.{name}", last.octets()[3]), last);
    };
    match Kind::of(domain) {
        Kind::Equal => [host(1), host(2), DEAD].into_iter().for_each(|last| mx(10, last)),
        Kind::SecondBest => {
            mx(10, DEAD);
            mx(20, host(2));
        }
        Kind::Postfix => mx(10, POSTFIX),
        Kind::Implicit => {
            dns.add(&name, Data::A(host(3)));
        }
        Kind::Alias => {
            let other = format!("real.{name}");
            dns.add(&name, Data::Cname(other.clone()));
            dns.exchanger(&other, 10, &format!("mx.{other}"), host(3));
        }
        Kind::SixOnly => {
            dns.add(&name, Data::Mx(10, format!("six.{name}")));
            dns.add(&format!("six.{name}"), Data::Aaaa(Ipv6Addr::LOCALHOST));
        }
        Kind::NullMx => {
            dns.add(&name, Data::Mx(0, String::new()));
        }
        Kind::Missing => {}
        Kind::Dead | Kind::TakenBack => mx(10, DEAD),
        Kind::Flagged(number) => mx(10, flagged(number)),
    }
}

/// Submits all messages; their recipients, by number.
fn submit(scene: &Scene, messages: u64, domains: usize) -> Result<BTreeMap<u64, Vec<String>>> {
    let (next, sent) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let work = || -> Result<()> {
        let connect = || -> Result<Smtp> {
            let mut client = Smtp::hello(scene.server.submission())?;
            client.command(LOGIN, 235)?;
            Ok(client)
        };
        let mut client = connect()?;
        for turn in 1.. {
            let id = next.fetch_add(1, Ordering::SeqCst) + 1;
            if id > messages {
                break;
            }
            // A session takes so many messages and no more.
            if turn % 500 == 0 {
                client = connect()?;
            }
            // Three of a thousand recipients each, and now and then two at one domain.
            let recipients: Vec<String> = (0..=(id % 3))
                .map(|number| {
                    let domain = (id as usize * 7 + number as usize * (id as usize % 4)) % domains;
                    format!("u{id}-{number}@{}", name(domain))
                })
                .collect();
            let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
            let reply = client.send(ALICE, &to, message::numbered(id, 2_000).as_bytes())?;
            ensure!(reply.code == 250, "{} {:?}", reply.code, reply.lines);
            sent.lock().expect("nobody panics with the lock").insert(id, recipients);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SENDERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    Ok(sent.into_inner().expect("nobody panics with the lock"))
}

/// Recipients that wait.
fn queued(scene: &Scene) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    let mut from = String::new();
    loop {
        let path = format!("/admin/v1/queue/items?kind=outbound&limit=500{from}");
        let page: Value = serde_json::from_str(&scene.server.get(&path)?)?;
        for item in page["items"].as_array().into_iter().flatten() {
            for recipient in item["recipients"].as_array().into_iter().flatten() {
                let waits = matches!(recipient["state"].as_str(), Some("pending" | "leased" | "in doubt"));
                if let (true, Some(address)) = (waits, recipient["address"].as_str()) {
                    *found.entry(address.to_owned()).or_default() += 1;
                }
            }
        }
        match page["next"].as_str() {
            Some(next) => from = format!("&from={next}"),
            None => return Ok(found),
        }
    }
}

/// Takes back what waits for a domain; how many recipients that were.
fn cancel(scene: &Scene, domain: &str) -> Result<u64> {
    let data = scene.path("data");
    let output = Command::new(binary()?)
        .args(["queue", "cancel", "--domain", domain, "--json", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "queue cancel: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    answer["recipients"].as_u64().context("a number of recipients")
}

#[test]
fn every_recipient_is_accounted_for() -> Result<()> {
    let wanted = std::env::var("POSTRIDER_WORLD").unwrap_or_else(|_| "760,76".to_owned());
    let (messages, domains) = wanted.split_once(',').context("POSTRIDER_WORLD=MESSAGES,DOMAINS")?;
    let (messages, domains): (u64, usize) = (messages.parse()?, domains.parse()?);
    let folder = tempfile::tempdir()?;
    let mut world = World::start(domains, folder.path())?;
    let settings = folder.path().join("postrider.toml");
    // What is put off comes again soon, and several times within the test.
    fs::write(
        &settings,
        "[smtp_in]\nsubmission_without_tls = true\nuser_recipients_per_hour_max = 0\n[queue]\npoll_seconds = 1\n\
         [queue.retry]\nseconds_min = 5\nseconds_max = 20\n",
    )?;
    let (resolver, port) = (world.dns.address().to_string(), world.port.to_string());
    let scene = Scene::start_with(&[
        "--config",
        &settings.to_string_lossy(),
        "--resolver",
        &resolver,
        "--mx-port",
        &port,
    ])?;
    let started = Instant::now();
    let sent = submit(&scene, messages, domains)?;
    let submitted = started.elapsed();
    let ends: BTreeMap<&str, (u64, Kind)> = sent
        .iter()
        .flat_map(|(id, recipients)| recipients.iter().map(|recipient| (*id, recipient.as_str())))
        .map(|(id, recipient)| {
            let domain = recipient.split('@').nth(1).and_then(|name| name[1..].split('.').next());
            let domain: usize =
                domain.and_then(|number| number.parse().ok()).expect("a domain of this world");
            (recipient, (id, Kind::of(domain)))
        })
        .collect();
    let expected = |end: End| ends.values().filter(|(_, kind)| kind.end() == end).count();
    // What does not come to its end in time is found in the account below.
    let mut wait = |enough: &mut dyn FnMut(&World) -> Result<bool>| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120 + messages / 50);
        while !enough(&world)? && Instant::now() < deadline {
            world.sinks.iter_mut().try_for_each(Sink::keep_up)?;
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    };
    wait(&mut |world| Ok(world.taken()?.len() >= expected(End::Delivered)))?;
    let bounced = || reports::reported(scene.server.imap(), ALICE);
    wait(&mut |_| Ok(bounced()?.len() >= expected(End::Bounced)))?;
    let elapsed = started.elapsed();
    let mut cancelled = 0;
    let taken_back: Vec<usize> = (0..domains).filter(|domain| Kind::of(*domain) == Kind::TakenBack).collect();
    // What is being tried at the moment of an act is left alone, so it is acted again.
    wait(&mut |_| {
        for domain in &taken_back {
            cancelled += cancel(&scene, &name(*domain))?;
        }
        Ok(cancelled >= expected(End::Cancelled) as u64)
    })?;
    // Everything has been tried once more by now; nobody has got or heard anything twice.
    std::thread::sleep(Duration::from_secs(25));
    let (taken, bounced, queued) = (world.taken()?, bounced()?, queued(&scene)?);
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Of each kind one.
    let mut shown: Vec<(u64, String)> = Vec::new();
    for (recipient, (id, kind)) in &ends {
        let copies = taken.get(&(*id, (*recipient).to_owned())).copied().unwrap_or(0);
        let failures = bounced.get(&((*recipient).to_owned(), "failed".to_owned())).copied().unwrap_or(0);
        let waiting = queued.get(*recipient).copied().unwrap_or(0);
        let counts = match kind.end() {
            End::Delivered => (1, 0, 0),
            End::Bounced => (0, 1, 0),
            End::Queued => (0, 0, 1),
            End::Cancelled => (0, 0, 0),
        };
        if (copies, failures, waiting) != counts {
            let kinds = wrong.len();
            let what = format!("{recipient}: taken {copies}, bounced {failures}, queued {waiting}");
            wrong.entry(format!("{kind:?} {:?}", kind.flags())).or_default().push(what);
            if wrong.len() > kinds {
                shown.push((*id, (*recipient).to_owned()));
            }
        }
    }
    let mut wrong: Vec<String> = wrong
        .into_iter()
        .map(|(kind, recipients)| format!("{kind}: {} recipients, {}", recipients.len(), recipients[0]))
        .collect();
    if !wrong.is_empty() {
        // Whether it was a host that failed, or our side.
        for sink in &mut world.sinks {
            if let Some(status) = sink.child.try_wait()? {
                wrong.push(format!("smtp-sink {:?} at {} ended with {status}", sink.flags, sink.address));
            }
        }
        for (id, recipient) in &shown {
            let path = format!("/admin/v1/queue/trace?id={}", message::message_id(*id));
            wrong.push(format!("{recipient}: {}", scene.server.get(&path)?));
        }
        bail!("not every recipient is where it should be:\n{}", wrong.join("\n"));
    }
    // Nothing besides.
    let count = |counts: &[u32]| counts.iter().map(|count| *count as usize).sum::<usize>();
    let delivered = count(&taken.into_values().collect::<Vec<_>>());
    let failed = count(&bounced.into_values().collect::<Vec<_>>());
    let waiting = count(&queued.into_values().collect::<Vec<_>>());
    ensure!(delivered == expected(End::Delivered) && failed == expected(End::Bounced));
    ensure!(waiting == expected(End::Queued) && cancelled == expected(End::Cancelled) as u64);
    scene.log_is_quiet(&[])?;
    println!(
        "result\toutside world\tmessages={messages} domains={domains} recipients={} delivered={delivered} bounced={failed} \
         queued={waiting} cancelled={cancelled} unaccounted=0 submitted_in={}s settled_in={}s",
        ends.len(),
        submitted.as_secs(),
        elapsed.as_secs(),
    );
    Ok(())
}
