//! A wall clock that jumps ten days ahead or back while mail waits to be sent, and is put right: nothing expires, nobody is
//! told of a delay, nothing is tried without end, and nothing waits for the wrong time to come. The clock is libfaketime's.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::dns::{Data, Dns};
use testkit::message;
use testkit::reports;
use testkit::server::{Options, Server};
use testkit::sink::Sink;
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
const MESSAGES: u64 = 10;

/// Where the library is that tells programs another time.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().context("libfaketime is not installed")
}

fn send(server: &Server, id: u64, to: &str) -> Result<()> {
    let mut smtp = Smtp::hello(server.submission())?;
    smtp.command("AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=", 235)?;
    let reply = smtp.send(ALICE, &[to], message::numbered(id, 2_000).as_bytes())?;
    ensure!(reply.code == 250, "{reply:?}");
    Ok(())
}

/// How often each message to the dead host was deferred.
fn deferrals(server: &Server) -> Result<Vec<u64>> {
    (1..=MESSAGES)
        .map(|id| {
            let text = server.get(&format!("/admin/v1/queue/trace?id={}", message::message_id(id)))?;
            let items: Value = serde_json::from_str(&text)?;
            let items = items.as_array().into_iter().flatten();
            let recipients = items.flat_map(|item| item["recipients"].as_array().into_iter().flatten());
            Ok(recipients.filter_map(|one| one["deferrals"].as_u64()).max().unwrap_or(0))
        })
        .collect()
}

fn wait(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached()? {
        ensure!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn set(clock: &Path, offset: &str) -> Result<()> {
    // Moved into place, so that nobody reads half of it.
    let fresh = clock.with_extension("new");
    std::fs::write(&fresh, format!("{offset}\n"))?;
    Ok(std::fs::rename(fresh, clock)?)
}

fn jump(offset: &str, seconds: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = folder.path().join("clock");
    set(&clock, "+0")?;
    let (live, dead) = (Ipv4Addr::new(127, 0, 8, 1), Ipv4Addr::new(127, 0, 8, 99));
    let sink = Sink::start(&[live])?;
    let dns = Dns::start()?;
    dns.exchanger("other.test", 10, "mx.other.test", dead);
    dns.exchanger("quick.test", 10, "mx.quick.test", live);
    let settings = folder.path().join("postrider.toml");
    std::fs::write(
        &settings,
        "[smtp_in]\nsubmission_without_tls = true\n\n[queue]\npoll_seconds = 1\n\n\
         [queue.retry]\nseconds_min = 1\nseconds_max = 2\n\n\
         [smtp_out.limits]\nsuspend_seconds_min = 1\nsuspend_seconds_max = 1\n",
    )?;
    let mut options = Options::new(&folder.path().join("data"));
    let (resolver, port) = (dns.address().to_string(), sink.port().to_string());
    let config = settings.to_string_lossy();
    options.arguments =
        ["--config", &config, "--resolver", &resolver, "--mx-port", &port].map(str::to_owned).to_vec();
    options.environment = [
        ("LD_PRELOAD", library()?.to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let server = Server::start(&options)?;
    for id in 1..=MESSAGES {
        send(&server, id, &format!("user-{id}@other.test"))?;
    }
    wait("first attempts", || Ok(deferrals(&server)?.iter().all(|count| *count > 0)))?;

    set(&clock, offset)?;
    let (began, before) = (Instant::now(), deferrals(&server)?);
    send(&server, MESSAGES + 1, "user@quick.test")?;
    wait("mail at the wrong time", || Ok(sink.count() == 1))?;
    std::thread::sleep(Duration::from_secs(seconds));
    let during = deferrals(&server)?;
    // At least half a second apart, of which the looks of the queue take some.
    let most = 2 * began.elapsed().as_secs() + 2;
    for (before, during) in before.iter().zip(&during) {
        ensure!(
            during - before <= most,
            "tried {} times in {} s",
            during - before,
            began.elapsed().as_secs()
        );
    }

    set(&clock, "+0")?;
    dns.remove("mx.other.test").add("mx.other.test", Data::A(live));
    wait("what waits goes out", || Ok(sink.count() as u64 == MESSAGES + 1))?;
    send(&server, MESSAGES + 2, "user@quick.test")?;
    wait("mail at the right time", || Ok(sink.count() as u64 == MESSAGES + 2))?;
    let mut taken: Vec<u64> = sink.taken().into_iter().map(|one| one.id).collect();
    taken.sort_unstable();
    ensure!(taken == (1..=MESSAGES + 2).collect::<Vec<u64>>(), "{taken:?}");
    let told = reports::reported(server.imap(), ALICE)?;
    ensure!(told.is_empty(), "somebody was told: {told:?}");
    server.stop(Duration::from_secs(30))?;
    println!(
        "clock {offset}: {before:?} attempts before, {during:?} at its end, all delivered once, nobody told"
    );
    Ok(())
}

#[test]
fn ten_days_ahead_and_put_right() -> Result<()> {
    jump("+10d", 5)
}

#[test]
fn ten_days_back_and_put_right() -> Result<()> {
    jump("-10d", 5)
}
