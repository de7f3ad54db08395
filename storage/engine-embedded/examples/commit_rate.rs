//! Durable small commits per second: `commit_rate FOLDER WRITERS SECONDS [BYTES]`. Each writer has a log of its own and
//! waits for each commit before the next.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{EntryRow, Log, LogId, Outcome, SnapshotPointer};
use engine_embedded::{Config, Embedded};
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "commit-rate-data".into());
    let mut number = |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (writers, seconds, bytes) = (number(64), number(5), number(500));
    let engine = Embedded::open(Path::new(&folder), Config::default()).unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let log = LogId::account(Uuid::new_v4());
                let snapshot = SnapshotPointer { id: Uuid::new_v4(), seq: 0, base_seq: 0 };
                engine.create(log, snapshot).await.unwrap();
                let mut latencies = Vec::new();
                let mut seq = 0;
                while Instant::now() < until {
                    seq += 1;
                    let nonce = Uuid::new_v4();
                    let entry = EntryRow {
                        first_seq: seq,
                        last_seq: seq,
                        nonce,
                        bytes: vec![7; bytes as usize].into(),
                    };
                    let begun = Instant::now();
                    assert_eq!(engine.append(log, &entry, None).await.unwrap(), Outcome::Applied);
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let elapsed = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1_000.0;
    println!(
        "{writers} writers, {bytes} B: {:.0} commits/s, p50 {:.2} ms, p99 {:.2} ms",
        latencies.len() as f64 / elapsed,
        at(50),
        at(99)
    );
}
