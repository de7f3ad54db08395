//! An innocent session beside whatever trouble a test makes, and a row of what it went through.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::imap::Imap;
use testkit::server::{PASSWORD, Server};
use testkit::smtp::Smtp;

/// What trouble may add to the server's memory at the very most, whatever it is.
const RESIDENT_MAX: u64 = 400 * 1024 * 1024;

/// However short the trouble was, there are enough turns that a p99 is more than the slowest of them.
const TURNS_MIN: u32 = 200;

/// How the trouble is to leave the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// Working: the innocent session never fails.
    Working,
    /// Ended, since it must not go on: the innocent session is measured until then.
    Ended,
}

/// Makes trouble with an innocent session beside it and prints a row: the kind, how often it happened, the peak of
/// resident memory meanwhile, and the p99 of the session's turns.
pub fn beside(
    server: &Server,
    kind: &str,
    leaves: Leaves,
    trouble: impl FnOnce() -> Result<usize>,
) -> Result<()> {
    let (latencies, over) = (Mutex::<Vec<Duration>>::default(), AtomicBool::new(false));
    // As the kernel counts it, so that no short peak is missed.
    server.reset_peak()?;
    let mut peak = 0;
    let count = std::thread::scope(|scope| -> Result<usize> {
        let session = scope.spawn(|| work(server, &latencies, &over));
        let count = trouble().with_context(|| kind.to_owned());
        over.store(true, Ordering::SeqCst);
        peak = server.peak_resident().unwrap_or_default();
        let session = session.join().expect("the session does not panic");
        match leaves {
            Leaves::Working => session.with_context(|| format!("{kind}: the innocent session"))?,
            Leaves::Ended => {}
        }
        count
    })?;
    let mut latencies = latencies.into_inner().unwrap_or_default();
    latencies.sort();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied();
    let p99 = p99.with_context(|| format!("{kind}: the innocent session had no turn"))?;
    ensure!(peak < RESIDENT_MAX, "{kind}: {peak} bytes resident");
    ensure!(peak > 0 || leaves == Leaves::Ended, "{kind}: no memory was seen");
    ensure!(count > 0, "{kind}: nothing was done");
    println!("| {kind} | {count} | {} MiB | {:.1} ms |", peak / 1024 / 1024, p99.as_secs_f64() * 1_000.0);
    Ok(())
}

fn work(server: &Server, latencies: &Mutex<Vec<Duration>>, over: &AtomicBool) -> Result<()> {
    let mut imap = Imap::login(server.imap(), "bob@example.test", PASSWORD)?;
    let mut smtp = Smtp::hello(server.smtp())?;
    let mut turns = 0;
    while !over.load(Ordering::SeqCst) || turns < TURNS_MIN {
        turns += 1;
        // A session that only says NOOP is sent away after a while, and rightly.
        if turns % 40 == 0 {
            smtp = Smtp::hello(server.smtp())?;
        }
        let started = Instant::now();
        imap.ok("STATUS INBOX (MESSAGES)")?;
        smtp.command("NOOP", 250)?;
        latencies.lock().expect("not poisoned").push(started.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
