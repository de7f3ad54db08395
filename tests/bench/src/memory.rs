//! What a large message and an idle session cost in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::imap::Imap;
use testkit::message;
use testkit::server::{PASSWORD, Server};
use testkit::smtp::Smtp;

use crate::Plan;
use crate::peer::user;
use crate::smtp::{configured, postrider};
use crate::table::{Table, Unit};

/// Watches resident memory while something happens; returns the most that it was above the start, in KiB.
fn grown(server: &Server, happen: impl FnOnce() -> Result<()> + Send) -> Result<f64> {
    let before = server.resident()?;
    let (most, over) = (AtomicU64::new(before), AtomicBool::new(false));
    std::thread::scope(|scope| -> Result<()> {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(server.resident().unwrap_or_default(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let done = happen();
        over.store(true, Ordering::SeqCst);
        watch.join().expect("the watch does not panic");
        done
    })?;
    Ok((most.load(Ordering::SeqCst) - before) as f64 / 1024.0)
}

/// A message of 1 GB in over SMTP and out over IMAP.
pub(crate) fn large_message(plan: &Plan, table: &mut Table) -> Result<()> {
    let name = "1 GB message in and out: added RSS";
    if !plan.wants(name) {
        return Ok(());
    }
    let bytes = plan.size(1_000_000_000);
    let (_folder, server) = configured(2, "[smtp_in.limits]\nmessage_bytes_max = 2000000000\n")?;
    // Allocators and caches are warm after some ordinary mail, and the 19 MiB that checking a password takes are there
    // after a login: they are not the message's.
    Imap::login(server.imap(), &user(1), PASSWORD)?;
    let mut smtp = Smtp::hello(server.smtp())?;
    for id in 0..200 {
        smtp.send("load@example.net", &[&user(0)], message::numbered(id, 10_000).as_bytes())?;
    }
    let used = grown(&server, || {
        let mut smtp = Smtp::hello(server.smtp())?;
        smtp.stream().set_read_timeout(Some(Duration::from_secs(600)))?;
        smtp.begin("load@example.net", &[&user(1)])?;
        smtp.raw(message::numbered(1, 500).as_bytes())?;
        let line = [b"0123456789abcdef".repeat(4).as_slice(), b"\r\n"].concat();
        let block = line.repeat(1_000);
        for _ in 0..bytes / block.len() {
            smtp.raw(&block)?;
        }
        smtp.raw(b".\r\n")?;
        smtp.expect(250)?;
        let mut imap = Imap::login(server.imap(), &user(1), PASSWORD)?;
        imap.stream().set_read_timeout(Some(Duration::from_secs(600)))?;
        loop {
            let answer = imap.ok("SELECT INBOX")?;
            if answer.text().iter().any(|line| line == "* 1 EXISTS") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Read in pieces, so that it is the server's memory that is measured.
        imap.raw(b"x FETCH 1 BODY.PEEK[]\r\n")?;
        let mut reader = BufReader::with_capacity(256 * 1024, imap.stream().try_clone()?);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let size: usize = head
            .rsplit('{')
            .next()
            .and_then(|rest| rest.trim_end().trim_end_matches('}').parse().ok())
            .context(head.clone())?;
        ensure!(size >= bytes / 66_000 * 66_000, "{size} bytes came back");
        let read = std::io::copy(&mut reader.by_ref().take(size as u64), &mut std::io::sink())?;
        ensure!(read == size as u64, "the message was cut");
        Ok(())
    })?;
    table.add(name, "–", Unit::KiB, vec![used], Vec::new(), "≤ 16 MiB");
    Ok(())
}

/// Sessions over TLS that have logged in, selected a mailbox of 100 messages and idle.
pub(crate) fn idle_sessions(plan: &Plan, table: &mut Table) -> Result<()> {
    let name = "idle session, TLS, mailbox of 100 selected: RSS";
    if !plan.wants(name) {
        return Ok(());
    }
    let sessions = plan.size(1_000).min(1_000);
    let (_folder, server) = postrider(2)?;
    let mut client = Imap::login(server.imap(), &user(0), PASSWORD)?;
    for id in 0..100 {
        client.append("INBOX", "", message::numbered(id, 1_000).as_bytes())?;
    }
    // The bench is run in the root folder.
    let script = "tests/bench/idle.py";
    let port = server.imaps().port().to_string();
    // A first batch warms allocators, so that what is measured is what a session adds.
    let batch = |count: usize| -> Result<std::process::Child> {
        let mut child = Command::new("python3")
            .args([script, &port, &user(0), PASSWORD, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line.trim() == "idling", "{line}");
        Ok(child)
    };
    let mut first = batch(50)?;
    let before = server.resident()?;
    let mut second = batch(sessions)?;
    std::thread::sleep(Duration::from_secs(2));
    let used = server.resident()?.saturating_sub(before) as f64 / 1024.0 / sessions as f64;
    for child in [&mut first, &mut second] {
        child.stdin.take().context("its input")?.write_all(b"end\n")?;
        child.wait()?;
    }
    table.add(name, "–", Unit::KiB, vec![used], Vec::new(), "≤ 40 KiB");
    Ok(())
}
