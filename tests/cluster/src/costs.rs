//! What mail costs on the engines, counted by the nodes themselves and by the proxies in front of the engines, beside what
//! the engines do in the same run without any mail.

mod engines_alone;
mod mailbox;
mod many;

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Sub;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::server::Server;
use testkit::smtp::Smtp;
use testkit::{message, metrics};

use crate::between::s3::Manner;
use crate::{Cluster, Setup};
use engines_alone::Alone;

pub use mailbox::{cold, hot};
pub use many::idle;

/// Nodes of Postrider, and of Cassandra.
const NODES: usize = 3;
/// Size of a message.
const MESSAGE_BYTES: usize = 10 * 1024;
/// Connections that make accounts, at once.
const MAKERS: usize = 8;
/// How long somebody who was put off waits.
const COMES_AGAIN: Duration = Duration::from_secs(1);
/// How long everything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// A cluster behind proxies, with many accounts.
#[derive(Debug)]
pub struct Costs {
    /// The nodes, and what they stand on.
    pub cluster: Cluster,
    accounts: usize,
    sent: AtomicUsize,
    alone: Option<Alone>,
}

/// What the nodes have counted since they were started.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    conditional: f64,
    writes: f64,
    reads: f64,
    puts: f64,
    gets: f64,
    delivered: f64,
    cql_bytes: f64,
    s3_bytes: f64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            conditional: self.conditional - before.conditional,
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            puts: self.puts - before.puts,
            gets: self.gets - before.gets,
            delivered: self.delivered - before.delivered,
            cql_bytes: self.cql_bytes - before.cql_bytes,
            s3_bytes: self.s3_bytes - before.s3_bytes,
        }
    }
}

/// What a message cost, from its acceptance to its mailbox, with so many sessions.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    sessions: usize,
    messages: usize,
    accepting: Duration,
    delivering: Duration,
    /// Attempts that were told to come again later.
    put_off: usize,
    /// How long the envelope took, and the message behind it, in the middle.
    envelope: Duration,
    message: Duration,
    counts: Counts,
}

impl Cost {
    /// Messages in a second, accepted and delivered.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.delivering.as_secs_f64()
    }

    /// Conditional writes for a message.
    pub fn conditional(&self) -> f64 {
        self.counts.conditional / self.messages as f64
    }
}

/// What sessions have to tell.
#[derive(Debug, Default)]
struct Sent {
    put_off: usize,
    envelopes: Vec<Duration>,
    messages: Vec<Duration>,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.put_off += other.put_off;
        self.envelopes.extend(other.envelopes);
        self.messages.extend(other.messages);
    }
}

fn middle(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |count: f64| count / self.messages as f64;
        let Counts { writes, reads, puts, gets, cql_bytes, s3_bytes, .. } = self.counts;
        write!(
            f,
            "| {} | {} | {} | {:.0} ms | {:.0} ms | {:.0}/s | {:.0}/s | {:.2} | {:.2} | {:.2} | {:.3} | {:.3} | {:.1} KB | {:.1} KB |",
            self.sessions,
            self.messages,
            self.put_off,
            self.envelope.as_secs_f64() * 1e3,
            self.message.as_secs_f64() * 1e3,
            self.messages as f64 / self.accepting.as_secs_f64(),
            self.rate(),
            self.conditional(),
            each(writes),
            each(reads),
            each(puts),
            each(gets),
            each(cql_bytes) / 1e3,
            each(s3_bytes) / 1e3,
        )
    }
}

/// The head of the table of [`Cost`]s.
pub const COST_HEAD: &str = "\
| sessions | messages | put off | envelope | final dot | accepted | delivered | LWT | other writes | reads | PUT | GET | CQL bytes | S3 bytes |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

impl Costs {
    /// Starts everything, with so many accounts.
    pub fn start(accounts: usize, seed: u64) -> Result<Self> {
        let cluster = Cluster::start_as(&Setup {
            cassandra_nodes: NODES,
            proxies: Some(seed),
            nodes: NODES,
            ..Setup::default()
        })?;
        let costs = Self { cluster, accounts, sent: AtomicUsize::new(0), alone: None };
        costs.make_accounts()?;
        Ok(costs)
    }

    /// What the engines do in a second of conditional writes like those of a commit, so many to as many logs as there are
    /// accounts, with the best of several concurrencies.
    pub fn raw_conditional_rate(&mut self, commits: usize) -> Result<f64> {
        self.alone()?.conditional_rate(commits)
    }

    /// Waits until the engines have put together what was written before.
    pub fn settle(&mut self) -> Result<()> {
        self.alone()?.settle()
    }

    fn alone(&mut self) -> Result<&mut Alone> {
        if self.alone.is_none() {
            self.alone = Some(Alone::connect(&self.cluster.engines, self.accounts)?);
        }
        self.alone.as_mut().context("it was made")
    }

    /// Mail from so many sessions at once, spread over all nodes, to all accounts by turns; S3 is a tenth of a second away.
    pub fn mail(&self, sessions: usize, messages: usize) -> Result<Cost> {
        let between = self.cluster.between.as_ref().context("there are proxies")?;
        between.s3.set(Manner::IsFar);
        let before = self.counts()?;
        let started = Instant::now();
        let left = AtomicUsize::new(messages);
        let sent = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..sessions)
                .map(|number| {
                    let left = &left;
                    scope.spawn(move || self.session(number, left))
                })
                .collect();
            let mut sent = Sent::default();
            for worker in workers {
                sent.add(worker.join().expect("no panic")?);
            }
            anyhow::Ok(sent)
        })?;
        let accepting = started.elapsed();
        loop {
            let now = self.counts()?;
            if (now - before).delivered >= messages as f64 {
                between.s3.set(Manner::Sound);
                let delivering = started.elapsed();
                let Sent { put_off, envelopes, messages: dots } = sent;
                return Ok(Cost {
                    sessions,
                    messages,
                    put_off,
                    envelope: middle(envelopes),
                    message: middle(dots),
                    accepting,
                    delivering,
                    counts: now - before,
                });
            }
            if started.elapsed() > PATIENCE {
                bail!("only {} of {messages} messages were delivered", (now - before).delivered);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends messages until there are none left; one that is put off comes again, as from any server. How often that was.
    fn session(&self, number: usize, left: &AtomicUsize) -> Result<Sent> {
        let mut sent = Sent::default();
        let mut client = Smtp::hello(self.cluster.node(number % NODES)?.smtp())?;
        while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let id = self.sent.fetch_add(1, Ordering::Relaxed);
            // Neighbours in time are not neighbours in the table of accounts.
            let to = account(id.wrapping_mul(7_919) % self.accounts);
            let text = message::numbered(id as u64, MESSAGE_BYTES);
            loop {
                let started = Instant::now();
                let begun = client.begin("load@example.net", &[&to]);
                sent.envelopes.push(started.elapsed());
                if let Err(error) = begun {
                    // Told to come again at RCPT; whatever else was said is not worth a rule here.
                    if !format!("{error:#}").contains("got 451") {
                        return Err(error);
                    }
                    sent.put_off += 1;
                    std::thread::sleep(COMES_AGAIN);
                    client = Smtp::hello(self.cluster.node(number % NODES)?.smtp())?;
                    continue;
                }
                let started = Instant::now();
                let reply = client.body(text.as_bytes())?;
                sent.messages.push(started.elapsed());
                match reply.code {
                    250 => break,
                    451 => sent.put_off += 1,
                    code => bail!("{code} {}", reply.lines.join(" ")),
                }
                client.command("RSET", 250)?;
                std::thread::sleep(COMES_AGAIN);
            }
        }
        Ok(sent)
    }

    fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for number in 0..NODES {
            let shown = self.cluster.node(number)?.metrics()?;
            let sum = |name: &str, label: &str| metrics::sum(&shown, name, label);
            counts.conditional += sum("postrider_cql_calls_total", "kind=\"conditional\"");
            counts.writes += sum("postrider_cql_calls_total", "kind=\"write\"")
                + sum("postrider_cql_calls_total", "kind=\"delete\"")
                + sum("postrider_cql_calls_total", "kind=\"heartbeat\"");
            counts.reads += sum("postrider_cql_calls_total", "kind=\"read\"")
                + sum("postrider_cql_calls_total", "kind=\"read_once\"")
                + sum("postrider_cql_calls_total", "kind=\"serial_read\"");
            counts.puts += sum("postrider_s3_calls_total", "call=\"put\"")
                + sum("postrider_s3_calls_total", "call=\"put_part\"");
            counts.gets += sum("postrider_s3_calls_total", "call=\"get\"");
            counts.delivered += sum("postrider_delivery_delivered_total", "");
        }
        let between = self.cluster.between.as_ref().context("there are proxies")?;
        counts.cql_bytes = between.cql.bytes() as f64;
        counts.s3_bytes = between.s3.bytes() as f64;
        Ok(counts)
    }

    /// What the nodes do in a second when nobody wants anything.
    pub fn at_rest(&self) -> Result<String> {
        let (before, started) = (self.counts()?, Instant::now());
        std::thread::sleep(Duration::from_secs(20));
        let (counts, seconds) = (self.counts()? - before, started.elapsed().as_secs_f64());
        Ok(format!(
            "{:.1} LWT, {:.1} other writes, {:.1} reads, {:.2} PUT, {:.0} KB of CQL",
            counts.conditional / seconds,
            counts.writes / seconds,
            counts.reads / seconds,
            counts.puts / seconds,
            counts.cql_bytes / seconds / 1e3
        ))
    }

    /// Over the admin API, since that is one connection for many.
    fn make_accounts(&self) -> Result<()> {
        let node = self.cluster.node(0)?;
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..MAKERS)
                .map(|maker| {
                    let accounts = (maker..self.accounts).step_by(MAKERS);
                    scope.spawn(move || make_accounts(node, accounts))
                })
                .collect();
            makers.into_iter().try_for_each(|maker| maker.join().expect("no panic"))
        })
    }
}

fn account(number: usize) -> String {
    format!("u{number}@example.test")
}

/// Without passwords: to hash them is not what is measured.
fn make_accounts(node: &Server, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let token = node.admin_token()?;
    let mut stream = TcpStream::connect(node.admin())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for number in numbers {
        let body = format!("{{\"address\":\"{}\"}}", account(number));
        write!(
            stream,
            "POST /admin/v1/accounts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        if !head.starts_with("HTTP/1.1 201") {
            bail!("{head}{}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}
