//! Reading mailboxes: of a node that knows them, beside one machine with its own disk; and of one that does not yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::imap::{self, Imap};
use testkit::message;
use testkit::server::{Options, PASSWORD, Server};

use super::Costs;

/// Whose mailboxes are read: one that every server of the tests has.
const READER: &str = "alice@example.test";
/// Messages that are appended; more come by copying these.
const APPENDED: u64 = 1_000;
/// Commands, and how often each is measured.
const ASKED: [&str; 4] = [
    "SELECT Large",
    "FETCH 1:* (UID FLAGS)",
    "FETCH 1:* (UID ENVELOPE)",
    "FETCH 1:* (UID FLAGS) (CHANGEDSINCE 1)",
];
const TIMES: usize = 9;

/// A mailbox of this many messages, asked at a node and at a server that stands alone. Lines of a table.
pub fn hot(costs: &Costs, messages: u64) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let alone = Server::start(&Options::new(&folder.path().join("data")))?;
    let places = [costs.cluster.node(1)?.imap(), alone.imap()];
    let mut clients = Vec::new();
    for place in places {
        fill(place, messages)?;
        clients.push(reader(place)?);
    }
    let mut lines = Vec::new();
    for command in ASKED {
        let mut seconds = [Vec::new(), Vec::new()];
        for _ in 0..TIMES {
            for (client, seconds) in clients.iter_mut().zip(&mut seconds) {
                let started = Instant::now();
                client.ok(command)?;
                seconds.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [ours, theirs] = seconds.map(median);
        lines.push(format!("| {command} | {ours:.1} ms | {theirs:.1} ms | {:.2}× |", ours / theirs));
    }
    Ok(lines)
}

/// The first look at a mailbox of this many messages at a node that has just been started. Lines of a table.
pub fn cold(costs: &mut Costs, messages: u64) -> Result<Vec<String>> {
    fill(costs.cluster.node(0)?.imap(), messages)?;
    costs.cluster.stop_node(2)?;
    costs.cluster.restart_node(2)?;
    let place = costs.cluster.node(2)?.imap();
    let started = Instant::now();
    let mut client = Imap::login_within(place, READER, PASSWORD, Duration::from_secs(120))?;
    let mut lines = vec![format!("| LOGIN | {:.0} ms |", started.elapsed().as_secs_f64() * 1e3)];
    let commands = [
        "SELECT Large".to_owned(),
        format!("FETCH {}:* (UID FLAGS ENVELOPE)", messages.saturating_sub(50).max(1)),
        "FETCH 1:* (UID FLAGS)".to_owned(),
        format!("FETCH {messages} (BODY.PEEK[])"),
    ];
    for command in commands {
        let started = Instant::now();
        client.ok(&command)?;
        lines.push(format!("| {command} | {:.0} ms |", started.elapsed().as_secs_f64() * 1e3));
    }
    Ok(lines)
}

fn reader(place: SocketAddr) -> Result<Imap> {
    let mut client = Imap::login_within(place, READER, PASSWORD, Duration::from_secs(120))?;
    client.ok("ENABLE CONDSTORE")?;
    client.ok("SELECT Large")?;
    Ok(client)
}

/// Brings the mailbox to so many messages, a multiple of [`APPENDED`].
fn fill(place: SocketAddr, messages: u64) -> Result<()> {
    let mut client = Imap::login_within(place, READER, PASSWORD, Duration::from_secs(120))?;
    if count(&mut client, "Source")? == 0 {
        client.ok("CREATE Source")?;
        client.ok("CREATE Large")?;
        let mut under_way = std::collections::VecDeque::new();
        for id in 0..APPENDED {
            let text = message::numbered(id, 2_000);
            under_way.push_back(client.append_send("Source", "", text.as_bytes())?);
            if under_way.len() >= 20 {
                let tag = under_way.pop_front().unwrap_or_default();
                ensure!(client.finish(&tag)?.ok(), "an APPEND failed");
            }
        }
        for tag in under_way {
            ensure!(client.finish(&tag)?.ok(), "an APPEND failed");
        }
    }
    client.ok("SELECT Source")?;
    while count(&mut client, "Large")? < messages {
        client.ok("COPY 1:* Large")?;
    }
    Ok(())
}

/// Zero where there is no such mailbox.
fn count(client: &mut Imap, mailbox: &str) -> Result<u64> {
    let answer = client.command(&format!("STATUS {mailbox} (MESSAGES)"))?;
    if !answer.ok() {
        return Ok(0);
    }
    answer.text().iter().find_map(|line| imap::number_after(line, "MESSAGES")).context("no STATUS")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
