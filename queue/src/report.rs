//! Reports of finished work, in groups: one commit per shard for what came together. Until its commit is durable a
//! report is nothing but a hint; without it the item is worked on once more, and its ids are recognised.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use crate::claim::{Claimed, Guard};
use crate::item::Outcome;
use crate::queue::{Inner, Queue};
use crate::shard::{Settled, Settlement};
use crate::shard_id::ShardId;

/// What has become of an item.
pub(crate) struct Report {
    guard: Guard,
    settlement: Settlement,
}

/// Reports that go into one round of commits. At about 20 octets each, a shard's share stays within one entry.
const GROUP_MAX: usize = 1_024;

impl Queue {
    /// Says what became of targets of an ingest item: of those named, and with `placed` of all others, which are where
    /// they were to go. The item is done when nothing is left of it; else it comes again at once. Returns when the
    /// report is on its way, not when it is durable: nobody is told anything on the strength of it.
    pub async fn report(&self, claimed: Claimed, outcomes: Vec<(u32, Outcome)>, placed: bool) {
        let settlement = Settlement { place: claimed.place(), outcomes, placed };
        // It fails only when the queue was closed; then the item comes again after the next start.
        let _ = self.inner.reports.send(Report { guard: claimed.guard, settlement }).await;
    }
}

pub(crate) async fn run_reporter(inner: Weak<Inner>, mut inbox: mpsc::Receiver<Report>) {
    let mut reports = Vec::with_capacity(GROUP_MAX);
    while inbox.recv_many(&mut reports, GROUP_MAX).await > 0 {
        let Some(inner) = inner.upgrade() else { return };
        let mut by_shard: BTreeMap<ShardId, Vec<Report>> = BTreeMap::new();
        for report in reports.drain(..) {
            by_shard.entry(report.guard.ticket.shard).or_default().push(report);
        }
        let commits = by_shard.into_iter().map(|(shard, reports)| settle(&inner, shard, reports));
        futures_util::future::join_all(commits).await;
    }
}

async fn settle(inner: &Arc<Inner>, id: ShardId, reports: Vec<Report>) {
    let Some(shard) = inner.opened(id) else { return };
    let now = inner.clock.now();
    let settlements = reports.iter().map(|report| report.settlement.clone()).collect();
    let settled = match shard.settle(settlements, now).await {
        Ok(settled) => settled,
        Err(error) => {
            // The guards give the items back: they are worked on again after a while.
            tracing::warn!(shard = %id, %error, count = reports.len(), "finished items cannot be reported");
            return;
        }
    };
    let mut finished = 0;
    for (report, settled) in reports.into_iter().zip(settled) {
        match settled {
            Settled::Finished => {
                finished += 1;
                report.guard.complete();
            }
            Settled::Gone => report.guard.complete(),
            Settled::Open(_) => {
                let place = report.guard.ticket.place;
                report.guard.give_back(place, now);
            }
            Settled::Illegal(illegal) => {
                tracing::error!(shard = %id, number = report.guard.ticket.place.number, %illegal, "report refused");
            }
        }
    }
    metrics::counter!("postrider_queue_finished_total").increment(finished);
}
