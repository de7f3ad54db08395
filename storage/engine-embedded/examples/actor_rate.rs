//! Commits per second through actors: `actor_rate FOLDER LOGS CALLERS SECONDS`. Callers are spread over the logs and wait
//! for each commit before the next; callers of one log share entries.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::contract::notes::{Notes, Operation};
use engine::seal::Unencrypted;
use engine::{Build, LogId, LogOptions, Logs};
use engine_embedded::{Config, Embedded};
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "actor-rate-data".into());
    let mut number = |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (logs_count, callers, seconds) = (number(64), number(64), number(5));
    let engine = Embedded::open(Path::new(&folder), Config::default()).unwrap();
    let logs = Logs::<Notes>::new(engine.engine(), LogOptions::default(), None);
    let mut handles = Vec::new();
    for _ in 0..logs_count {
        let id = LogId::account(Uuid::new_v4());
        handles.push(logs.create(id, Notes::new(), Arc::new(Unencrypted)).await.unwrap());
    }
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let handle = handles[(caller % logs_count) as usize].clone();
            tokio::spawn(async move {
                let mut count = 0_u64;
                while Instant::now() < until {
                    let id = caller << 32 | count;
                    let put = move |state: &Notes| {
                        let put =
                            Operation::Put { shelf: (id % 4) as u8, number: state.next, id, delivery: None };
                        Ok::<_, ()>(Build::new(vec![put], ()))
                    };
                    handle.commit(vec![], put).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut commits = 0;
    for task in tasks {
        commits += task.await.unwrap();
    }
    let rate = commits as f64 / started.elapsed().as_secs_f64();
    println!("{logs_count} logs, {callers} callers: {rate:.0} commits/s\n{:?}", logs.stats());
}
