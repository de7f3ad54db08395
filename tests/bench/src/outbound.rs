//! Mail going out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;
use testkit::dns::Dns;
use testkit::ledger;
use testkit::message;
use testkit::metrics;
use testkit::postfix::{Onward, Postfix};
use testkit::server::{Options, Server};
use testkit::sink::Sink;
use testkit::smtp::Smtp;

use crate::Plan;
use crate::peer::{CountingSink, user};
use crate::table::{Table, Unit};

/// Users that submit side by side.
const SESSIONS: usize = 20;
/// The first account's name and password in base64 (RFC 4616 §2).
const LOGIN: &str = "AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=";
/// As many connections to one host as Postfix is given.
const SETTINGS: &str = "[smtp_in]\nsubmission_without_tls = true\nuser_recipients_per_hour_max = 0\n\
     [smtp_out.limits]\nconnections_initial = 50\nconnections_max = 50\n";
const PATIENCE: Duration = Duration::from_secs(300);

/// A Postrider that sends where the arguments say.
fn postrider(settings: &str, arguments: &[String]) -> Result<(TempDir, Options, Server)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("postrider.toml");
    std::fs::write(&file, settings)?;
    let mut options = Options::new(&folder.path().join("data"));
    options.arguments = vec!["--config".into(), file.to_string_lossy().into_owned()];
    options.arguments.extend_from_slice(arguments);
    let server = Server::start(&options)?;
    Ok((folder, options, server))
}

fn relay(port: u16) -> [String; 2] {
    ["--relay".to_owned(), format!("127.0.0.1:{port}")]
}

/// A session that may send to other hosts.
fn session(address: SocketAddr, login: bool) -> Result<Smtp> {
    let mut client = Smtp::hello(address)?;
    if login {
        client.command(LOGIN, 235)?;
    }
    Ok(client)
}

/// All sessions, before any clock runs: neither connections nor passwords are what is measured, and only one side has
/// passwords.
fn sessions(address: SocketAddr, login: bool) -> Result<Vec<Smtp>> {
    (0..SESSIONS).map(|_| session(address, login)).collect()
}

/// Submits so many messages, in sessions that last.
fn submit(
    sessions: Vec<Smtp>,
    messages: usize,
    message: impl Fn(usize) -> (Vec<String>, String) + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = |mut client: Smtp| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= messages {
                return Ok(());
            }
            let (to, text) = message(number);
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            let reply = client.send(&user(0), &to, text.as_bytes())?;
            ensure!(reply.code == 250, "{} {:?}", reply.code, reply.lines);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = sessions.into_iter().map(|client| scope.spawn(|| work(client))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })
}

/// Messages a second from the first that is submitted to the last that the host outside has.
fn throughput(
    address: SocketAddr,
    login: bool,
    sink: &CountingSink,
    messages: usize,
    bytes: usize,
) -> Result<f64> {
    let clients = sessions(address, login)?;
    let started = Instant::now();
    submit(clients, messages, |number| {
        (vec![format!("someone{number}@outside.test")], message::numbered(number as u64, bytes))
    })?;
    while sink.messages() < messages as u64 {
        if started.elapsed() > PATIENCE {
            bail!("only {} of {messages} messages came through", sink.messages());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(messages as f64 / started.elapsed().as_secs_f64())
}

/// From submission until another host has everything.
pub(crate) fn through(plan: &Plan, table: &mut Table) -> Result<()> {
    for (kilobytes, messages) in [(10, 6_000), (100, 3_000)] {
        let name = format!("outbound {kilobytes} KB to smtp-sink, {SESSIONS} sessions");
        if !plan.wants(&name) {
            continue;
        }
        let (bytes, messages) = (kilobytes * 1_024, plan.size(messages));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            {
                let sink = CountingSink::start()?;
                let (_folder, _, server) = postrider(SETTINGS, &relay(sink.address().port()))?;
                ours.push(throughput(server.submission(), true, &sink, messages, bytes)?);
            }
            let sink = CountingSink::start()?;
            let postfix = Postfix::start(Onward::Smtp(sink.address()))?;
            theirs.push(throughput(postfix.address(), false, &sink, messages, bytes)?);
        }
        table.add(&name, "Postfix", Unit::PerSecond, ours, theirs, "≥ 2×");
    }
    Ok(())
}

/// Milliseconds from the beginning of a transaction until another host has the message, for one message after the other.
fn latencies(address: SocketAddr, login: bool, sink: &Sink, messages: usize) -> Result<Vec<f64>> {
    let mut client = session(address, login)?;
    let mut times = Vec::with_capacity(messages);
    for number in 0..messages {
        let to = format!("someone{number}@outside.test");
        let started = ledger::now();
        let text = message::numbered(number as u64, 10_240);
        let reply = client.send(&user(0), &[&to], text.as_bytes())?;
        ensure!(reply.code == 250, "{} {:?}", reply.code, reply.lines);
        let deadline = Instant::now() + PATIENCE;
        let taken = loop {
            if let Some(last) = sink.last().filter(|last| last.recipient == to) {
                break last;
            }
            ensure!(Instant::now() < deadline, "message {number} does not come through");
            std::thread::sleep(Duration::from_micros(200));
        };
        times.push((taken.at - started) * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// How long a single message takes.
pub(crate) fn latency(plan: &Plan, table: &mut Table) -> Result<()> {
    let name = |share: usize| format!("submission to delivered outside, one by one, p{share}");
    if !plan.wants(&name(50)) && !plan.wants(&name(99)) {
        return Ok(());
    }
    let messages = plan.size(1_000);
    let at = |times: &[f64], share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..plan.rounds {
        let take = |times: &[f64], into: &mut [Vec<f64>; 2]| {
            into[0].push(at(times, 50));
            into[1].push(at(times, 99));
        };
        {
            let sink = Sink::start(&[Ipv4Addr::LOCALHOST])?;
            let (_folder, _, server) = postrider(SETTINGS, &relay(sink.port()))?;
            take(&latencies(server.submission(), true, &sink, messages)?, &mut ours);
        }
        let sink = Sink::start(&[Ipv4Addr::LOCALHOST])?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, sink.port()));
        let postfix = Postfix::start(Onward::Smtp(to))?;
        take(&latencies(postfix.address(), false, &sink, messages)?, &mut theirs);
    }
    let [ours50, ours99] = ours;
    let [theirs50, theirs99] = theirs;
    table.add(&name(50), "Postfix", Unit::Milliseconds, ours50, theirs50, "≥ 1×");
    table.add(&name(99), "Postfix", Unit::Milliseconds, ours99, theirs99, "≥ 1×");
    Ok(())
}

const DEAD_DOMAINS: usize = 1_000;
const FRESH: &str = "fresh.test";

/// The rate at which fresh mail goes through.
fn fresh(server: &Server, sink: &Sink, messages: usize, first: usize) -> Result<f64> {
    let before = sink.count();
    let clients = sessions(server.submission(), true)?;
    let started = Instant::now();
    submit(clients, messages, |number| {
        let number = first + number;
        (vec![format!("someone{number}@{FRESH}")], message::numbered(number as u64, 10_240))
    })?;
    while sink.count() < before + messages {
        ensure!(started.elapsed() < PATIENCE, "only {} messages came through", sink.count() - before);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(messages as f64 / started.elapsed().as_secs_f64())
}

/// Of two runs of the same size.
fn mean_rate(one: f64, other: f64) -> f64 {
    2.0 / (1.0 / one + 1.0 / other)
}

/// Recipients that were deferred, as the server counts them.
fn deferred(server: &Server) -> Result<u64> {
    let outcome = "outcome=\"deferred\"";
    Ok(metrics::sum(&server.metrics()?, "postrider_smtp_out_recipients_total", outcome) as u64)
}

/// A million recipients that wait: what they cost in memory, at the start, and for those who come fresh.
pub(crate) fn waiting(plan: &Plan, table: &mut Table) -> Result<()> {
    let name = |what: &str| format!("10^6 deferred recipients: {what}");
    if !["RSS", "restart", "fresh"].iter().any(|what| plan.wants(&name(what))) {
        return Ok(());
    }
    // A hundred recipients in each message.
    let messages = plan.size(10_000);
    let sink = Sink::start(&[Ipv4Addr::new(127, 0, 3, 1)])?;
    let dns = Dns::start()?;
    dns.exchanger(FRESH, 10, "mx.fresh.test", Ipv4Addr::new(127, 0, 3, 1));
    for number in 0..DEAD_DOMAINS {
        dns.exchanger(
            &format!("d{number}.dead.test"),
            10,
            &format!("mx.d{number}.dead.test"),
            Ipv4Addr::new(127, 0, 3, 99),
        );
    }
    let arguments = ["--resolver", &dns.address().to_string(), "--mx-port", &sink.port().to_string()];
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let settings = format!("{SETTINGS}[queue.retry]\nseconds_min = 7200\nseconds_max = 14400\n");
    let (_empty_folder, empty_options, empty) = postrider(&settings, &arguments)?;
    let (_folder, options, mut server) = postrider(&settings, &arguments)?;
    submit(sessions(server.submission(), true)?, messages, |number| {
        let domain = number % DEAD_DOMAINS;
        let to = (0..100).map(|user| format!("someone{number}x{user}@d{domain}.dead.test")).collect();
        (to, message::numbered(number as u64, 2_000))
    })?;
    let deadline = Instant::now() + Duration::from_secs(600);
    while deferred(&server)? < messages as u64 * 100 {
        ensure!(Instant::now() < deadline, "only {} recipients were deferred", deferred(&server)?);
        std::thread::sleep(Duration::from_millis(500));
    }
    let (mut memory, mut restart) = (Vec::new(), Vec::new());
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    let mut first = 0;
    let mut peer = empty;
    for _ in 0..plan.rounds {
        server.stop(Duration::from_secs(60))?;
        peer.stop(Duration::from_secs(60))?;
        let started = Instant::now();
        server = Server::start(&options)?;
        restart.push(started.elapsed().as_secs_f64() * 1_000.0);
        peer = Server::start(&empty_options)?;
        // Its keeper has looked at everything twice by then.
        std::thread::sleep(Duration::from_secs(if plan.smoke { 1 } else { 65 }));
        memory.push((server.resident()? as f64 - peer.resident()? as f64) / 1_024.0);
        let count = plan.size(5_000);
        let mut rate_of = |server: &Server| {
            first += count;
            fresh(server, &sink, count, first)
        };
        // In the order a b b a, so that what drifts meanwhile is the same for both.
        let (before, [one, other], after) =
            (rate_of(&server)?, [rate_of(&peer)?, rate_of(&peer)?], rate_of(&server)?);
        beside.push(mean_rate(before, after));
        alone.push(mean_rate(one, other));
    }
    table.add(&name("RSS over the empty server"), "–", Unit::KiB, memory, Vec::new(), "≤ 64 MiB");
    table.add(&name("restart until the greeting"), "–", Unit::Milliseconds, restart, Vec::new(), "≤ 3 s");
    table.add(&name("fresh mail"), "the empty server", Unit::PerSecond, beside, alone, "≥ 0.95×");
    Ok(())
}
