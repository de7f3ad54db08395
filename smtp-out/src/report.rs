//! Results on their way back to the queue: in groups, so that a busy server commits once for many messages, and again
//! and again while their leases last. What cannot be reported in time is in doubt, which the queue knows by itself.

use std::sync::Arc;
use std::time::Duration;

use queue::{AttemptReport, Outbound, Unreported};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Reports that wait to be committed; beyond this whoever has one waits.
const WAITING_MAX: usize = 1_024;
/// Reports of one commit.
const GROUP_MAX: usize = 256;
/// Groups that are being committed at one time: a shard that cannot be written holds up no other's for long.
const GROUPS_MAX: usize = 8;
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where results go.
pub(crate) type Reports = mpsc::Sender<AttemptReport>;

/// Starts to report. It ends when all senders are gone and everything is reported, or can no longer be.
pub(crate) fn start(outbound: Outbound) -> (Reports, tokio::task::JoinHandle<()>) {
    let (sender, inbox) = mpsc::channel(WAITING_MAX);
    (sender, tokio::spawn(run(outbound, inbox)))
}

async fn run(outbound: Outbound, mut inbox: mpsc::Receiver<AttemptReport>) {
    let places = Arc::new(Semaphore::new(GROUPS_MAX));
    let mut groups = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let mut reports = Vec::new();
        if inbox.recv_many(&mut reports, GROUP_MAX).await == 0 {
            break;
        }
        let outbound = outbound.clone();
        groups.spawn(async move {
            commit(&outbound, reports).await;
            drop(place);
        });
        while groups.try_join_next().is_some() {}
    }
    while groups.join_next().await.is_some() {}
}

async fn commit(outbound: &Outbound, mut reports: Vec<AttemptReport>) {
    let mut pause = PAUSE_MIN;
    loop {
        let mut left = Vec::new();
        for outcome in outbound.report(reports).await {
            match outcome {
                Ok(reported) if reported.late > 0 => {
                    metrics::counter!("postrider_smtp_out_late_results_total")
                        .increment(u64::from(reported.late));
                }
                Ok(_) => {}
                Err(Unreported { report, error }) => {
                    let queue_id = report.leased.queue_id();
                    if report.leased.is_live() {
                        tracing::warn!(%queue_id, %error, "a result cannot be reported yet");
                        left.push(*report);
                    } else {
                        tracing::error!(%queue_id, %error, "a result could not be reported, its recipients are in doubt");
                    }
                }
            }
        }
        if left.is_empty() {
            return;
        }
        reports = left;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
