//! A full disk and a disk that fails: mail is refused for now, never lost, what is there stays readable, and the server
//! recovers without hand work once there is room.
//!
//! The full disk is a small file system in memory, which needs the right to mount; the failing disk is made by strace.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use end_to_end::innocent::{self, Leaves};
use end_to_end::{run, sending, submit_as_alice, traced};
use testkit::dns::{Data, Dns};
use testkit::imap::{self, Imap};
use testkit::message;
use testkit::reports;
use testkit::server::{Options, PASSWORD, Server};
use testkit::sink::Sink;
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";

/// A small file system, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, mebibytes: u32) -> Result<Self> {
        std::fs::create_dir_all(&path)?;
        let size = format!("size={mebibytes}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path.to_string_lossy()])?;
        Ok(Self(path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

/// Messages in INBOX by number, each with how often it is there.
fn read(server: &Server) -> Result<std::collections::BTreeMap<u64, usize>> {
    let mut client = Imap::login(server.imap(), ALICE, PASSWORD)?;
    client.ok("SELECT INBOX")?;
    let mut found = std::collections::BTreeMap::new();
    for line in client.ok("UID FETCH 1:* (BODY.PEEK[HEADER])")?.text() {
        if let Some(id) = message::id_of(&line) {
            *found.entry(id).or_default() += 1;
        }
    }
    Ok(found)
}

fn wait_until_all(server: &Server, accepted: &[u64]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = read(server)?;
        ensure!(found.values().all(|count| *count == 1), "a message is doubled");
        if accepted.iter().all(|id| found.contains_key(id)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} of {} are there", found.len(), accepted.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn full_disk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = Small::mount(folder.path().join("disk"), 512)?;
    let options = Options::new(&disk.0.join("data"));
    let server = Server::start(&options)?;
    let mut accepted = Vec::new();
    let mut smtp = Smtp::hello(server.smtp())?;
    for id in 1..=20 {
        ensure!(smtp.send("a@example.net", &[ALICE], message::numbered(id, 4_000).as_bytes())?.code == 250);
        accepted.push(id);
    }
    wait_until_all(&server, &accepted)?;

    // Something else fills the disk; mail comes in until it is refused, for now and not for ever.
    let filler = disk.0.join("filler");
    run("sh", &["-c", &format!("dd if=/dev/zero of={} bs=64k 2>/dev/null; true", filler.display())])?;
    let mut refused = 0;
    innocent::beside(&server, "full disk", Leaves::Working, || {
        for id in 21..=400 {
            let text = message::numbered(id, 200_000);
            let Ok(mut smtp) = Smtp::hello(server.smtp()) else {
                refused += 1;
                continue;
            };
            let Ok(()) = smtp.begin("a@example.net", &[ALICE]) else {
                refused += 1;
                continue;
            };
            smtp.raw(&testkit::smtp::stuff(text.as_bytes()))?;
            smtp.raw(b".\r\n")?;
            let reply = smtp.reply().with_context(|| server.log_tail(9))?;
            match reply.code {
                250 => accepted.push(id),
                421 | 451 | 452 => refused += 1,
                _ => anyhow::bail!("{reply:?}"),
            }
            if refused >= 20 {
                break;
            }
        }
        ensure!(refused >= 20, "the disk never became full: {} accepted", accepted.len());
        Ok(refused)
    })?;
    // What was there can be read.
    let found = read(&server)?;
    ensure!((1..=20).all(|id| found.contains_key(&id)), "old mail cannot be read");

    // Room again: within a while mail is accepted without anybody's help, at most after a restart by a supervisor.
    std::fs::remove_file(&filler)?;
    let mut server = server;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut restarts = 0;
    loop {
        if server.ended() {
            restarts += 1;
            server = Server::start(&options)?;
        }
        let sent = Smtp::hello(server.smtp()).and_then(|mut smtp| {
            smtp.send("a@example.net", &[ALICE], message::numbered(9_999, 4_000).as_bytes())
        });
        if sent.is_ok_and(|reply| reply.code == 250) {
            break;
        }
        ensure!(Instant::now() < deadline, "no mail is accepted again:\n{}", server.log_tail(20));
        std::thread::sleep(Duration::from_millis(200));
    }
    accepted.push(9_999);
    wait_until_all(&server, &accepted)?;
    server.stop(Duration::from_secs(30))?;
    println!(
        "full disk: {} accepted, {refused} refused for now, {restarts} restarts, lost 0, doubled 0",
        accepted.len()
    );
    Ok(())
}

/// While mail goes out: nobody is dialled whose lease cannot be written, what another host has taken is not lost sight of,
/// and everything goes out once there is room.
#[test]
fn full_disk_while_sending() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = Small::mount(folder.path().join("disk"), 512)?;
    let (live, dead) = (Ipv4Addr::new(127, 0, 7, 1), Ipv4Addr::new(127, 0, 7, 99));
    let sink = Sink::start(&[live])?;
    let dns = Dns::start()?;
    dns.exchanger("other.test", 10, "mx.other.test", dead);
    let options = sending(&disk.0.join("data"), &dns, sink.port())?;
    let mut server = Server::start(&options)?;
    let send = |server: &Server, id| submit_as_alice(server, id, &format!("user-{id}@other.test"), 4_000);
    let mut accepted = Vec::new();
    for id in 1..=40 {
        ensure!(send(&server, id)? == 250);
        accepted.push(id);
    }
    // The host comes to life while the disk is full: then nothing can be leased, and nothing is dialled.
    let filler = disk.0.join("filler");
    let fill = format!("dd if=/dev/zero of={} bs=64k 2>/dev/null; true", filler.display());
    run("sh", &["-c", &fill])?;
    dns.remove("mx.other.test").add("mx.other.test", Data::A(live));
    let mut refused = 0;
    for id in 41..=80 {
        match send(&server, id) {
            Ok(250) => accepted.push(id),
            Ok(421 | 451 | 452) | Err(_) => refused += 1,
            Ok(code) => anyhow::bail!("{code}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(refused > 0, "the disk never became full");
    let while_full = sink.count();
    std::fs::remove_file(&filler)?;
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut restarts = 0;
    loop {
        if server.ended() {
            restarts += 1;
            server = Server::start(&options)?;
        }
        let taken = sink.taken();
        if accepted.iter().all(|id| taken.iter().any(|one| one.id == *id)) {
            break;
        }
        ensure!(Instant::now() < deadline, "only {} went out:\n{}", taken.len(), server.log_tail(20));
        std::thread::sleep(Duration::from_millis(200));
    }
    // What went out twice was in doubt, and its history says so.
    let mut doubled = 0;
    let taken = sink.taken();
    for id in &accepted {
        let copies = taken.iter().filter(|one| one.id == *id).count() as u64;
        let doubts = traced(&server, *id)?.iter().filter_map(|one| one["doubts"].as_u64()).max().unwrap_or(0);
        ensure!(copies <= 1 + doubts, "message {id} went out {copies} times with {doubts} doubts");
        doubled += copies - 1;
    }
    ensure!(reports::reported(server.imap(), ALICE)?.is_empty(), "somebody was told of a failure");
    server.stop(Duration::from_secs(30))?;
    println!(
        "full disk while sending: {} accepted, {refused} refused for now, {while_full} went out meanwhile, \
         {doubled} twice in doubt, {restarts} restarts, lost 0",
        accepted.len()
    );
    Ok(())
}

#[test]
fn failing_sync() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut options = Options::new(&folder.path().join("data"));
    // The 400th sync and all after it fail, as a dying disk's do.
    options.wrapper = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-q",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync,fsync",
        "-e",
        "inject=fdatasync,fsync:error=EIO:when=400+",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut server = Server::start(&options)?;
    let mut accepted = Vec::new();
    let mut refused = 0;
    innocent::beside(&server, "syncs that fail", Leaves::Ended, || {
        for id in 1..=400 {
            let sent = Smtp::hello(server.smtp()).and_then(|mut smtp| {
                smtp.send("a@example.net", &[ALICE], message::numbered(id, 4_000).as_bytes())
            });
            match sent {
                Ok(reply) if reply.code == 250 => accepted.push(id),
                Ok(reply) => {
                    ensure!(reply.code / 100 == 4, "{reply:?}");
                    refused += 1;
                }
                // The server no longer accepts connections, or has ended.
                Err(_) => refused += 1,
            }
        }
        Ok(refused)
    })?;
    ensure!(!accepted.is_empty() && refused > 0, "{} accepted, {refused} refused", accepted.len());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.ended() && Smtp::hello(server.smtp()).is_ok() {
        ensure!(Instant::now() < deadline, "the server goes on over a disk that does not sync");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(
        server.log().to_lowercase().contains("sync") || server.log().contains("poison"),
        "{}",
        server.log_tail(20)
    );
    if !server.ended() {
        // strace passes no signal on, so its child is told; it may be ending by itself at this very moment.
        let killed = server.process().and_then(|process| run("kill", &["-9", &process.to_string()]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !server.ended() {
            ensure!(Instant::now() < deadline, "neither killed ({killed:?}) nor ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(server);
    options.wrapper.clear();
    let server = Server::start(&options)?;
    wait_until_all(&server, &accepted)?;
    let mut client = Imap::login(server.imap(), ALICE, PASSWORD)?;
    let status = client.ok("STATUS INBOX (MESSAGES)")?.text().join(" ");
    let there = imap::number_after(&status, "MESSAGES").unwrap_or_default();
    // Mail that was not acknowledged may be there or not; it must not be there twice, which has been checked.
    ensure!(there >= accepted.len() as u64);
    println!("failing sync: {} accepted, {refused} refused, lost 0, doubled 0", accepted.len());
    Ok(())
}
