//! What an operator sees and does: counts, lists, traces, taking back, releasing from quarantine.

use std::sync::Arc;

use mail::address::ReversePath;
use mail::id::QueueId;
use serde::Serialize;

use crate::entry::{Departure, Place};
use crate::error::WorkError;
use crate::item::{Fate, Finished, Item, Progress, QuarantineReason};
use crate::queue::Queue;
use crate::remote;
use crate::schedule::HOUR;
use crate::shard::{Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind};

/// How much is in the queue.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Overview {
    /// Unfinished items in ingest shards.
    pub ingest: u64,
    /// Unfinished items in outbound shards that are open.
    pub outbound: u64,
    /// Items in quarantine.
    pub quarantined: u64,
    /// Items that this process is working on.
    pub in_flight: usize,
}

/// An item as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ItemView {
    /// Its id.
    pub queue_id: QueueId,
    /// The shard.
    pub shard: String,
    /// Its number there.
    pub number: u64,
    /// Who sent it.
    pub reverse_path: ReversePath,
    /// Octets of the message.
    pub size: u64,
    /// When it was accepted (unix seconds).
    pub accepted: u64,
    /// When it expires.
    pub expires: u64,
    /// What it waits for, or what became of it.
    pub standing: Standing,
}

/// Where an item stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Standing {
    /// Waits to be worked on, or is being worked on.
    Open {
        /// Not before (unix seconds).
        due: u64,
        /// How often it was put off.
        attempts: u32,
        /// Crashes that it was part of.
        crashes: u8,
        /// Targets or recipients that are not settled, so far.
        pending: u32,
    },
    /// In quarantine.
    Quarantined {
        /// Why.
        reason: String,
        /// Since when (unix seconds).
        since: u64,
    },
    /// Done.
    Finished {
        /// When (unix seconds).
        at: u64,
        /// What became of its targets.
        fates: Vec<Fate>,
    },
}

impl Queue {
    /// How much is in the queue.
    pub fn overview(&self) -> Overview {
        let inner = &self.inner;
        let (_, in_flight) = inner.window.lock().counts();
        Overview {
            ingest: inner.ingest.iter().map(|shard| shard.state().live()).sum(),
            outbound: (0..inner.layout().outbound)
                .filter_map(|index| inner.opened(ShardId::outbound(index)))
                .map(|shard| shard.state().live())
                .sum(),
            quarantined: inner.quarantine.state().live(),
            in_flight,
        }
    }

    /// Unfinished items of one kind of shard, at most so many.
    pub async fn list(&self, kind: ShardKind, limit: usize) -> Result<Vec<ItemView>, WorkError> {
        let mut views = Vec::new();
        for shard in self.shards(kind).await? {
            let state = shard.state();
            for chunk in state.chunks().filter(|chunk| chunk.live > 0) {
                let state = shard.with(&[chunk.id]).await?;
                for item in state.chunk(chunk.id).into_iter().flat_map(|content| content.live()) {
                    if views.len() == limit {
                        return Ok(views);
                    }
                    views.push(view(&shard, item));
                }
            }
        }
        Ok(views)
    }

    /// Everything that is known of a message: unfinished items and history, in all shards.
    pub async fn trace(&self, queue_id: QueueId) -> Result<Vec<ItemView>, WorkError> {
        // Ids of accepted messages hold the time of acceptance, and nothing of them lies in chunks of earlier hours.
        let since = queue_id.0.get_timestamp().map_or(0, |time| time.to_unix().0 / HOUR).saturating_sub(1);
        let mut views = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound, ShardKind::Quarantine] {
            for shard in self.shards(kind).await? {
                let state = shard.state();
                for chunk in state.chunks().filter(|chunk| u64::from(chunk.hour) >= since) {
                    let state = shard.with(&[chunk.id]).await?;
                    let Some(content) = state.chunk(chunk.id) else { continue };
                    let live = content.live().filter(|item| item.message.queue_id == queue_id);
                    views.extend(live.map(|item| view(&shard, item)));
                    let done = content.finished().filter(|finished| finished.queue_id == queue_id);
                    views.extend(done.map(|finished| finished_view(&shard, finished)));
                }
            }
        }
        Ok(views)
    }

    /// Finished items of one kind of shard, at most so many, those of the newest chunks first.
    pub async fn history(&self, kind: ShardKind, limit: usize) -> Result<Vec<ItemView>, WorkError> {
        let mut views = Vec::new();
        for shard in self.shards(kind).await? {
            let state = shard.state();
            let mut chunks: Vec<u32> =
                state.chunks().filter(|chunk| chunk.done > 0).map(|chunk| chunk.id).collect();
            chunks.reverse();
            for chunk in chunks {
                let state = shard.with(&[chunk]).await?;
                for finished in state.chunk(chunk).into_iter().flat_map(|content| content.finished()) {
                    if views.len() == limit {
                        return Ok(views);
                    }
                    views.push(finished_view(&shard, finished));
                }
            }
        }
        Ok(views)
    }

    /// Takes back what waits to be sent to other hosts of this message. Answers how many recipients that were.
    pub async fn cancel(&self, queue_id: QueueId) -> Result<usize, WorkError> {
        let mut cancelled = 0;
        let now = self.inner.clock.now();
        for (shard, place, item) in self.find(ShardKind::Outbound, queue_id).await? {
            let states = remote::cancelled(&item);
            if !states.is_empty() {
                cancelled += states.len();
                shard.settle_remote(place, states, now).await?;
            }
        }
        Ok(cancelled)
    }

    /// Lets a message in quarantine be delivered again. `false`: it is not there.
    pub async fn release(&self, queue_id: QueueId) -> Result<bool, WorkError> {
        let found = self.find(ShardKind::Quarantine, queue_id).await?;
        for (_, place, _) in &found {
            self.release_place(*place).await?;
        }
        Ok(!found.is_empty())
    }

    /// Gives up what is left of a message in quarantine. Nobody is told. `false`: it is not there.
    pub async fn drop_quarantined(&self, queue_id: QueueId) -> Result<bool, WorkError> {
        let found = self.find(ShardKind::Quarantine, queue_id).await?;
        let now = self.inner.clock.now();
        for (shard, place, _) in &found {
            shard.leave(*place, Departure::Dropped, now).await?;
        }
        Ok(!found.is_empty())
    }

    async fn find(
        &self,
        kind: ShardKind,
        queue_id: QueueId,
    ) -> Result<Vec<(Shard, Place, Arc<Item>)>, WorkError> {
        let mut found = Vec::new();
        for shard in self.shards(kind).await? {
            let state = shard.state();
            for chunk in state.chunks().filter(|chunk| chunk.live > 0) {
                let state = shard.with(&[chunk.id]).await?;
                for item in state.chunk(chunk.id).into_iter().flat_map(|content| content.live()) {
                    if item.message.queue_id == queue_id {
                        let place = Place { chunk: chunk.id, number: item.number };
                        found.push((shard.clone(), place, item.clone()));
                    }
                }
            }
        }
        Ok(found)
    }

    async fn shards(&self, kind: ShardKind) -> Result<Vec<Shard>, ShardError> {
        let inner = &self.inner;
        Ok(match kind {
            ShardKind::Ingest => inner.ingest.clone(),
            ShardKind::Quarantine => vec![inner.quarantine.clone()],
            ShardKind::Outbound => {
                let mut shards = Vec::new();
                for index in 0..inner.layout().outbound {
                    shards.extend(inner.outbound_made(index).await?.cloned());
                }
                shards
            }
        })
    }
}

fn view(shard: &Shard, item: &Item) -> ItemView {
    let pending = match &item.progress {
        Progress::Ingest(expansion) => {
            expansion.pending() + item.message.details.recipients().saturating_sub(expansion.expanded)
        }
        Progress::Outbound(recipients) => {
            recipients.iter().filter(|recipient| !recipient.state.is_final()).count() as u32
        }
        Progress::Quarantined(quarantined) => quarantined.rest.pending(),
    };
    let standing = match &item.progress {
        Progress::Quarantined(quarantined) => Standing::Quarantined {
            reason: match &quarantined.reason {
                QuarantineReason::Crashed { crashes } => format!("{crashes} crashes"),
                QuarantineReason::Undeliverable { failure } => {
                    format!("undeliverable: {} {}", failure.status, failure.text)
                }
            },
            since: quarantined.since,
        },
        _ => Standing::Open { due: item.due, attempts: item.attempts, crashes: item.crashes, pending },
    };
    let message = &item.message;
    ItemView {
        queue_id: message.queue_id,
        shard: shard.id.to_string(),
        number: item.number,
        reverse_path: message.sender.reverse_path.clone(),
        size: message.body.size,
        accepted: message.accepted,
        expires: message.expires,
        standing,
    }
}

fn finished_view(shard: &Shard, finished: &Finished) -> ItemView {
    ItemView {
        queue_id: finished.queue_id,
        shard: shard.id.to_string(),
        number: finished.number,
        reverse_path: finished.reverse_path.clone(),
        size: finished.size,
        accepted: finished.accepted,
        expires: finished.finished,
        standing: Standing::Finished { at: finished.finished, fates: finished.fates.clone() },
    }
}
