//! Many sessions that wait.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::message;
use testkit::server::PASSWORD;
use testkit::smtp::Smtp;

use super::{Costs, NODES};

const WAITER: &str = "alice@example.test";
/// Threads that open sessions at a node: a login costs processor time by design.
const OPENERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

/// With one file descriptor, of which a process has some thousands.
type Waiting = BufReader<TcpStream>;

/// So many sessions in IDLE, spread over all nodes; then one message, and all hear of it. A line that says what that took.
pub fn idle(costs: &Costs, sessions: usize) -> Result<String> {
    let memory = |costs: &Costs| -> Result<f64> {
        let resident: Result<Vec<u64>> =
            (0..NODES).map(|number| costs.cluster.node(number)?.resident()).collect();
        Ok(resident?.into_iter().sum::<u64>() as f64)
    };
    // The first of each node makes what all share.
    let mut waiting = open(costs, NODES)?;
    let before = memory(costs)?;
    let started = Instant::now();
    waiting.extend(open(costs, sessions - NODES)?);
    let opened = started.elapsed();
    let each = (memory(costs)? - before) / 1024.0 / (sessions - NODES) as f64;
    let mut client = Smtp::hello(costs.cluster.node(0)?.smtp())?;
    let (told, hears) = mpsc::channel();
    let hearer = std::thread::spawn(move || -> Result<Vec<Waiting>> {
        for session in &mut waiting {
            until(session, |line| line.ends_with(" EXISTS"))?;
        }
        told.send(Instant::now())?;
        Ok(waiting)
    });
    let sent = Instant::now();
    let reply = client.send("load@example.net", &[WAITER], message::numbered(0, 2_000).as_bytes())?;
    ensure!(reply.code == 250, "{reply:?}");
    let last = hears.recv_timeout(PATIENCE).context("not all have heard")?;
    hearer.join().expect("no panic")?;
    Ok(format!(
        "{sessions} sessions over {NODES} nodes: opened in {:.0} s, {each:.1} KiB each, the last hears of a message after {:.0} ms",
        opened.as_secs_f64(),
        last.duration_since(sent).as_secs_f64() * 1e3
    ))
}

fn open(costs: &Costs, sessions: usize) -> Result<Vec<Waiting>> {
    let places: Result<Vec<SocketAddr>> =
        (0..NODES).map(|number| Ok(costs.cluster.node(number)?.imap())).collect();
    let places = places?;
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| {
                let places = &places;
                scope.spawn(move || {
                    (opener..sessions).step_by(OPENERS).map(|number| wait(places[number % NODES])).collect()
                })
            })
            .collect();
        let opened: Result<Vec<Vec<Waiting>>> =
            openers.into_iter().map(|opener| opener.join().expect("no panic")).collect();
        Ok(opened?.into_iter().flatten().collect())
    })
}

fn wait(place: SocketAddr) -> Result<Waiting> {
    let stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut session = BufReader::new(stream);
    for (command, answer) in [
        (format!("a LOGIN {WAITER} {PASSWORD}\r\n"), "a OK"),
        ("b SELECT INBOX\r\n".to_owned(), "b OK"),
        ("c IDLE\r\n".to_owned(), "+ "),
    ] {
        session.get_mut().write_all(command.as_bytes())?;
        until(&mut session, |line| line.starts_with(answer))?;
    }
    Ok(session)
}

fn until(session: &mut Waiting, is_it: impl Fn(&str) -> bool) -> Result<()> {
    let mut line = String::new();
    while !is_it(line.trim_end()) {
        line.clear();
        ensure!(session.read_line(&mut line)? > 0, "a session has ended");
    }
    Ok(())
}
