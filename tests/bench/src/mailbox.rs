//! Reading and changing mailboxes over IMAP, beside Dovecot.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use testkit::imap::Imap;
use testkit::message;
use testkit::server::PASSWORD;

use crate::Plan;
use crate::peer::{Dovecot, user};
use crate::smtp::postrider;
use crate::table::{Table, Unit};

const BYTES: usize = 10_240;
const ROOM: &str = "INBOX";

type Measure = fn(SocketAddr, usize) -> Result<f64>;

/// Single APPENDs from ten sessions, each waiting for its answer, and APPENDs in a row from one session.
pub(crate) fn appends(plan: &Plan, table: &mut Table) -> Result<()> {
    let rows: [(&str, &str, Measure); 2] = [
        ("single APPENDs from 10 sessions", "≥ 10×", singles),
        ("pipelined APPENDs from one session", "≥ 1×", pipelined),
    ];
    for (name, aim, measure) in rows {
        if !plan.wants(name) {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            {
                let (_folder, server) = postrider(2)?;
                ours.push(measure(server.imap(), plan.size(4_000))?);
            }
            let dovecot = Dovecot::start()?;
            theirs.push(measure(dovecot.imap(), plan.size(2_000))?);
        }
        table.add(name, "Dovecot", Unit::PerSecond, ours, theirs, aim);
    }
    Ok(())
}

fn singles(address: SocketAddr, messages: usize) -> Result<f64> {
    let sessions = 10;
    let mut clients =
        (0..sessions).map(|_| Imap::login(address, &user(0), PASSWORD)).collect::<Result<Vec<_>>>()?;
    // Dovecot makes INBOX when it is first asked for, and two sessions that do so at one time get a NO.
    clients[0].ok("STATUS INBOX (MESSAGES)")?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(worker, client)| {
                scope.spawn(move || -> Result<()> {
                    for turn in 0..messages / sessions {
                        let text = message::numbered((worker * messages + turn) as u64, BYTES);
                        let answer = client.append(ROOM, "", text.as_bytes())?;
                        ensure!(answer.ok(), "{}", answer.tagged);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok((messages / sessions * sessions) as f64 / started.elapsed().as_secs_f64())
}

fn pipelined(address: SocketAddr, messages: usize) -> Result<f64> {
    let mut client = Imap::login(address, &user(0), PASSWORD)?;
    let started = Instant::now();
    fill(&mut client, ROOM, 0, messages, BYTES)?;
    Ok(messages as f64 / started.elapsed().as_secs_f64())
}

/// Appends with up to 50 commands under way.
fn fill(client: &mut Imap, mailbox: &str, first: u64, messages: usize, bytes: usize) -> Result<()> {
    let mut under_way = std::collections::VecDeque::new();
    for turn in 0..messages as u64 {
        under_way.push_back(client.append_send(
            mailbox,
            "",
            message::numbered(first + turn, bytes).as_bytes(),
        )?);
        if under_way.len() >= 50 {
            let tag = under_way.pop_front().unwrap_or_default();
            ensure!(client.finish(&tag)?.ok(), "an APPEND failed");
        }
    }
    for tag in under_way {
        ensure!(client.finish(&tag)?.ok(), "an APPEND failed");
    }
    Ok(())
}

/// What is asked of the large mailbox, in this order.
struct Asked {
    name: &'static str,
    aim: &'static str,
    /// How often within a round, one after the other. What takes milliseconds says little when a machine stalls for
    /// longer.
    times: u32,
    /// The command of each turn, counted from zero.
    command: fn(u32) -> String,
}

const ASKED: &[Asked] = &[
    Asked { name: "SELECT", aim: "≥ 1×", times: 1, command: |_| format!("SELECT {ROOM}") },
    Asked { name: "ENVELOPE, first time", aim: "≥ 3×", times: 1, command: envelope },
    Asked { name: "ENVELOPE, again", aim: "≥ 1×", times: 10, command: envelope },
    Asked { name: "FLAGS", aim: "≥ 1×", times: 10, command: |_| "FETCH 1:* (UID FLAGS)".to_owned() },
    Asked {
        name: "BODYSTRUCTURE",
        aim: "≥ 1×",
        times: 10,
        command: |_| "FETCH 1:* (UID BODYSTRUCTURE)".to_owned(),
    },
    Asked {
        name: "STORE all",
        aim: "≥ 1×",
        times: 10,
        command: |turn| format!("STORE 1:* {}FLAGS (\\Flagged)", if turn % 2 == 0 { '+' } else { '-' }),
    },
    Asked { name: "COPY 1 000", aim: "≥ 1×", times: 10, command: |turn| thousand("COPY", turn) },
    Asked { name: "MOVE 1 000", aim: "≥ 1×", times: 10, command: |turn| thousand("MOVE", turn + 10) },
    Asked {
        name: "MOVE 1 000 that were copied there before",
        aim: "–",
        times: 5,
        command: |turn| thousand("MOVE", turn),
    },
];

fn envelope(_: u32) -> String {
    "FETCH 1:* (UID ENVELOPE)".to_owned()
}

/// The *n*th thousand of messages.
fn thousand(verb: &str, turn: u32) -> String {
    format!("UID {verb} {}:{} Target", turn * 1_000 + 1, (turn + 1) * 1_000)
}

/// A mailbox of 50 000 messages.
pub(crate) fn large(plan: &Plan, table: &mut Table) -> Result<()> {
    if !plan.wants("50 000 messages") {
        return Ok(());
    }
    let count = plan.size(50_000);
    let mut ours = vec![Vec::new(); ASKED.len()];
    let mut theirs = ours.clone();
    for _ in 0..plan.rounds.min(2) {
        {
            let (_folder, server) = postrider(2)?;
            commands(server.imap(), count, &mut ours)?;
        }
        let dovecot = Dovecot::start()?;
        ensure!(dovecot.folder().exists(), "Dovecot's folder");
        commands(dovecot.imap(), count, &mut theirs)?;
    }
    for (asked, (ours, theirs)) in ASKED.iter().zip(ours.into_iter().zip(theirs)) {
        let row = format!("50 000 messages: {}", asked.name);
        table.add(&row, "Dovecot", Unit::Milliseconds, ours, theirs, asked.aim);
    }
    Ok(())
}

fn commands(address: SocketAddr, count: usize, figures: &mut [Vec<f64>]) -> Result<()> {
    let mut client = Imap::login(address, &user(0), PASSWORD)?;
    client.ok("CREATE Target")?;
    fill(&mut client, ROOM, 0, count, 1_000)?;
    client.ok("LOGOUT")?;
    let mut client = Imap::login(address, &user(0), PASSWORD)?;
    for (asked, figures) in ASKED.iter().zip(figures) {
        for turn in 0..asked.times {
            let command = (asked.command)(turn);
            let started = Instant::now();
            let answer = client.ok(&command)?;
            figures.push(started.elapsed().as_secs_f64() * 1_000.0);
            if command.starts_with("FETCH") || command.starts_with("STORE") {
                let fetched = answer
                    .untagged
                    .iter()
                    .filter(|line| line.windows(7).any(|part| part == b" FETCH "))
                    .count();
                ensure!(fetched == count, "{command}: {fetched} of {count} responses");
            }
        }
    }
    Ok(())
}
