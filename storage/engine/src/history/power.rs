//! Power cuts: whatever was acknowledged before one is there after it, at every point where one can happen.

use std::sync::Arc;
use std::time::Duration;

use super::{log_id, sealer};
use crate::Archive;
use crate::contract::notes::{Notes, Operation};
use crate::logs::Logs;
use crate::memory::{Faults, MemoryArchive, MemoryEngine};
use crate::options::LogOptions;
use crate::request::{Build, CommitError};
use crate::verify::verify;

const CLIENTS: u64 = 4;
const CUTS: u64 = 120;

fn options() -> LogOptions {
    LogOptions {
        snapshot_entries_min: 3,
        snapshot_entries_max: 6,
        backoff_ms_min: 1,
        backoff_ms_max: 5,
        retry_ms: 1,
        deadline_seconds: 1,
        ..LogOptions::default()
    }
}

fn logs(engine: &MemoryEngine, archive: &Arc<dyn Archive>) -> Logs<Notes> {
    Logs::new(engine.engine(), options(), Some(archive.clone()))
}

/// Commits until the power fails; the ids that were acknowledged.
async fn work(engine: &MemoryEngine, archive: &Arc<dyn Archive>, first: u64) -> Vec<u64> {
    let Ok(handle) = logs(engine, archive).open(log_id(1), sealer()).await else { return Vec::new() };
    let clients = (0..CLIENTS).map(|client| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..1_000 {
                let id = first + client * 1_000 + number;
                let put = move |state: &Notes| {
                    let operation =
                        Operation::Put { shelf: (id % 4) as u8, number: state.next, id, delivery: None };
                    Ok::<_, ()>(Build::new(vec![operation], ()))
                };
                match handle.commit(vec![], put).await {
                    Ok(_) => acknowledged.push(id),
                    Err(CommitError::Unknown | CommitError::Stopped(_) | CommitError::Unavailable(_)) => {
                        break;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            acknowledged
        })
    });
    let mut acknowledged = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        acknowledged.extend(client.await.unwrap());
    }
    acknowledged
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_a_power_cut_at_every_sync() {
    let latency = Some(Duration::from_micros(50)..Duration::from_millis(2));
    for cut in 1..CUTS {
        let faults = Faults { seed: cut, latency: latency.clone(), ..Faults::default() };
        let engine = MemoryEngine::with_faults(faults.clone());
        let archive: Arc<dyn Archive> = Arc::new(MemoryArchive::default());
        drop(logs(&engine, &archive).create(log_id(1), Notes::new(), sealer()).await.unwrap());
        engine.set_faults(Faults { power_cut_after_sync: Some(engine.syncs() + cut), ..faults.clone() });
        let mut acknowledged = work(&engine, &archive, 0).await;
        assert!(engine.power_is_cut());

        // Twice, since what a first recovery leaves must survive too.
        let again = engine.after_power_cut(Faults { power_cut_after_sync: Some(cut % 7 + 1), ..faults });
        acknowledged.extend(work(&again, &archive, 1_000_000).await);
        let after = again.after_power_cut(Faults::default());
        let handle = logs(&after, &archive).open(log_id(1), sealer()).await.unwrap();
        let state = handle.with(&Notes::all_shelves()).await.unwrap();
        let mut found: Vec<u64> =
            Notes::all_shelves().iter().flat_map(|shelf| state.notes(*shelf).values().copied()).collect();
        found.sort_unstable();
        assert_eq!(found.len() as u64, state.next - 1, "nothing doubled");
        found.dedup();
        assert_eq!(found.len() as i64, state.count, "cut {cut}: an id twice");
        let lost: Vec<&u64> = acknowledged.iter().filter(|id| found.binary_search(id).is_err()).collect();
        assert!(lost.is_empty(), "cut {cut}: {lost:?} lost");
        assert!(acknowledged.len() >= cut as usize / 4);
        let verified = verify::<Notes>(&after.engine(), log_id(1), sealer(), Some(archive)).await.unwrap();
        assert!(verified.is_sound(), "cut {cut}: {:?}", verified.problems);
    }
}
