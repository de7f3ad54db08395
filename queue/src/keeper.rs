//! The task that keeps the queue going when nobody tells it anything: finds what is due, what has expired, and what
//! history may go. Wake-ups are hints; this is what is relied upon.

use std::sync::Weak;

use crate::entry::Place;
use crate::queue::Inner;
use crate::schedule::hour_of;
use crate::shard::{Shard, ShardError};
use crate::shard_id::ShardKind;
use crate::sweep::{expired_chunks, expired_items, forgettable_chunks};
use crate::window::Ticket;

pub(crate) async fn run(inner: Weak<Inner>) {
    let Some(first) = inner.upgrade() else { return };
    let (interval, scan) = (first.poll_interval(), first.scan.clone());
    drop(first);
    loop {
        {
            let Some(inner) = inner.upgrade() else { return };
            inner.keep().await;
        }
        let _ = tokio::time::timeout(interval, scan.notified()).await;
    }
}

impl Inner {
    /// One round over all shards.
    pub(crate) async fn keep(&self) {
        let may_expire = self.may_expire(self.clock.now());
        for shard in &self.ingest {
            if let Err(error) = self.find_due(shard).await {
                tracing::warn!(shard = %shard.id, %error, "due items cannot be looked for");
            }
        }
        let mut shards: Vec<&Shard> = self.ingest.iter().chain([&self.quarantine]).collect();
        for index in 0..self.layout().outbound {
            match self.outbound_made(index).await {
                Ok(shard) => shards.extend(shard),
                Err(error) => tracing::warn!(%error, "outbound shard cannot be opened"),
            }
        }
        for shard in shards {
            if let Err(error) = self.look_after(shard, may_expire).await {
                tracing::warn!(shard = %shard.id, %error, "shard cannot be looked after");
            }
        }
        let (known, taken) = self.window.lock().counts();
        metrics::gauge!("postrider_queue_window_items").set(known as f64);
        metrics::gauge!("postrider_queue_taken_items").set(taken as f64);
        let live: u64 = self.ingest.iter().map(|shard| shard.state().live()).sum();
        metrics::gauge!("postrider_queue_ingest_items").set(live as f64);
        metrics::gauge!("postrider_queue_quarantined_items").set(self.quarantine.state().live() as f64);
    }

    /// Tells the window of items that are due in this hour, and of those that come later in it.
    async fn find_due(&self, shard: &Shard) -> Result<(), ShardError> {
        let now = self.clock.now();
        let state = shard.handle.refresh(&[]).await.map_err(|error| ShardError::Unavailable {
            shard: shard.id,
            reason: crate::shard::chain(&error),
        })?;
        let this_hour = hour_of(now);
        let chunks: Vec<u32> = state
            .chunks()
            .filter(|chunk| chunk.live > 0 && chunk.hour <= this_hour)
            .map(|chunk| chunk.id)
            .collect();
        for chunk in chunks {
            let state = shard.with(&[chunk]).await?;
            let mut window = self.window.lock();
            let Some(content) = state.chunk(chunk) else { continue };
            for item in content.live() {
                let place = Place { chunk, number: item.number };
                if !window.add(Ticket { shard: shard.id, place }, item.due, now) {
                    return Ok(());
                }
            }
            drop(window);
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn look_after(&self, shard: &Shard, may_expire: bool) -> Result<(), ShardError> {
        let now = self.clock.now();
        let state = shard.state();
        if may_expire && shard.id.kind != ShardKind::Quarantine {
            for chunk in expired_chunks(&state, now) {
                self.expire(shard, chunk, now).await?;
            }
        }
        let old = forgettable_chunks(&state, now, self.config.history_seconds);
        if !old.is_empty() {
            shard.forget(old).await?;
        }
        self.spread_watermark(shard).await
    }

    /// What has expired is claimed at once, whatever it waited for.
    async fn expire(&self, shard: &Shard, chunk: u32, now: u64) -> Result<(), ShardError> {
        let state = shard.with(&[chunk]).await?;
        for place in expired_items(&state, chunk, now) {
            if shard.id.kind == ShardKind::Outbound {
                let Some(item) = state.item(place) else { continue };
                let states = crate::remote::expired(item);
                if !states.is_empty() {
                    shard.settle_remote(place, states, now).await?;
                }
            }
            self.window.lock().hasten(Ticket { shard: shard.id, place }, now);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// What an idle shard has learnt of its producers stays until they tell it more; this does.
    async fn spread_watermark(&self, shard: &Shard) -> Result<(), ShardError> {
        /// Below this it does not matter.
        const REMEMBERED_MIN: usize = 256;
        if shard.state().remembered() < REMEMBERED_MIN {
            return Ok(());
        }
        let producers: Vec<Shard> = self.shards_open().cloned().collect();
        for producer in producers {
            shard.learn(producer.log, producer.state().watermark()).await?;
        }
        Ok(())
    }

    fn shards_open(&self) -> impl Iterator<Item = &Shard> {
        let outbound = (0..self.layout().outbound)
            .filter_map(|index| self.opened(crate::shard_id::ShardId::outbound(index)));
        self.ingest.iter().chain([&self.quarantine]).chain(outbound)
    }
}
