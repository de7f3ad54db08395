//! A wall clock that jumps ten days ahead or back while mail waits to be sent, and is put right: nothing expires, nobody is
//! told of a delay, nothing is tried without end, and nothing waits for the wrong time to come. The clock is libfaketime's.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use end_to_end::{sending, submit_as_alice, traced};
use testkit::dns::{Data, Dns};
use testkit::reports;
use testkit::server::Server;
use testkit::sink::Sink;

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
    let code = submit_as_alice(server, id, to, 2_000)?;
    ensure!(code == 250, "{code}");
    Ok(())
}

/// How often each message to the dead host was deferred.
fn deferrals(server: &Server) -> Result<Vec<u64>> {
    let most = |id| -> Result<u64> {
        Ok(traced(server, id)?.iter().filter_map(|one| one["deferrals"].as_u64()).max().unwrap_or(0))
    };
    (1..=MESSAGES).map(most).collect()
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
    let mut options = sending(&folder.path().join("data"), &dns, sink.port())?;
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
