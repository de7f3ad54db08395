//! Mail coming in.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use testkit::imap::{self, Imap};
use testkit::postfix::{Onward, Postfix};
use testkit::server::{Options, PASSWORD, Server, binary};

use crate::Plan;
use crate::peer::{self, Dovecot, Sink, user};
use crate::table::{Table, Unit};

const BYTES: usize = 10_240;

/// A fresh Postrider with this many users.
pub(crate) fn postrider(users: usize) -> Result<(TempDir, Server)> {
    configured(users, "")
}

/// The same with a configuration file.
pub(crate) fn configured(users: usize, config: &str) -> Result<(TempDir, Server)> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut options = Options::new(&data);
    if !config.is_empty() {
        let path = folder.path().join("postrider.toml");
        std::fs::write(&path, config)?;
        options.arguments = vec!["--config".into(), path.to_string_lossy().into_owned()];
    }
    let server = Server::start(&options)?;
    for number in 2..users {
        let mut command = Command::new(binary()?);
        command.args(["account", "add", &user(number), "--data"]).arg(&data);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("its input")?.write_all(format!("{PASSWORD}\n").as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "account add: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    Ok((folder, server))
}

/// Accepting 10 KB messages, one in each connection.
pub(crate) fn accept(plan: &Plan, table: &mut Table) -> Result<()> {
    for sessions in [20, 64] {
        let name = format!("accept 10 KB, {sessions} sessions");
        if !plan.wants(&name) {
            continue;
        }
        let messages = plan.size(6_000);
        let (mut ours, mut postfix, mut sink) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            {
                let (_folder, server) = postrider(2)?;
                ours.push(peer::source(server.smtp(), 1, sessions, messages, BYTES)?);
            }
            {
                let peer = Postfix::start(Onward::Discard)?;
                postfix.push(peer::source(peer.address(), 1, sessions, messages / 2, BYTES)?);
            }
            let peer = Sink::start()?;
            sink.push(peer::source(peer.address(), 1, sessions, messages, BYTES)?);
        }
        table.add(&name, "Postfix → discard", Unit::PerSecond, ours.clone(), postfix, "≥ 3×");
        table.add(&name, "smtp-sink (not durable)", Unit::PerSecond, ours, sink, "≥ 0.6×");
    }
    Ok(())
}

/// From the first connection until every message can be read.
pub(crate) fn visible(plan: &Plan, table: &mut Table) -> Result<()> {
    for users in [2, 10] {
        let name = format!("SMTP to visible in the mailbox, {users} users");
        if !plan.wants(&name) {
            continue;
        }
        let messages = plan.size(3_000);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            {
                let (_folder, server) = postrider(users)?;
                ours.push(measure(server.smtp(), server.imap(), users, messages)?);
            }
            let dovecot = Dovecot::start()?;
            let postfix = Postfix::start(Onward::Lmtp(dovecot.lmtp()))?;
            theirs.push(measure(postfix.address(), dovecot.imap(), users, messages / 3)?);
        }
        table.add(&name, "Postfix → Dovecot LMTP", Unit::PerSecond, ours, theirs, "≥ 3×");
    }
    Ok(())
}

fn measure(smtp: SocketAddr, imap: SocketAddr, users: usize, messages: usize) -> Result<f64> {
    let mut clients =
        (0..users).map(|number| Imap::login(imap, &user(number), PASSWORD)).collect::<Result<Vec<_>>>()?;
    // Dovecot makes INBOX when it is first asked for, and says NO where a delivery does so at the same time.
    for client in &mut clients {
        client.ok("STATUS INBOX (MESSAGES)")?;
    }
    let each = messages / users;
    let started = Instant::now();
    peer::source(smtp, users, 20, each * users, BYTES)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    for client in &mut clients {
        loop {
            let answer = client.ok("STATUS INBOX (MESSAGES)")?;
            let count = answer.text().iter().find_map(|line| imap::number_after(line, "MESSAGES"));
            if count.context("no STATUS")? >= each as u64 {
                break;
            }
            if Instant::now() > deadline {
                bail!("only {count:?} of {each} messages became visible");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok((each * users) as f64 / started.elapsed().as_secs_f64())
}
