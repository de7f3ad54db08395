//! The task that keeps the queue going when nobody tells it anything: finds what is due, what has expired, and what
//! history may go. Wake-ups are hints; this is what is relied upon.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cluster::View;
use tokio::sync::watch;

use crate::entry::Place;
use crate::fold::ShardState;
use crate::queue::Inner;
use crate::schedule::{Waits, hour_of};
use crate::shard::{Altered, Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind};
use crate::sharing::Sharing;
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
            inner.follow_all();
        }
        let _ = tokio::time::timeout(interval, scan.notified()).await;
    }
}

/// Looks at once for what other nodes put into a shard that this one works on.
pub(crate) async fn follow(inner: Weak<Inner>, shard: Shard) {
    /// What comes within this is looked for together.
    const GATHER: Duration = Duration::from_millis(10);
    let mut others = shard.handle.watch_others();
    while others.changed().await.is_ok() {
        tokio::time::sleep(GATHER).await;
        others.mark_unchanged();
        let Some(inner) = inner.upgrade() else { return };
        if !inner.works_on(shard.id) {
            continue;
        }
        if let Err(error) = inner.find_in(&shard, shard.state(), false).await {
            tracing::debug!(shard = %shard.id, %error, "what others put there is looked for in the next round");
        }
    }
}

/// Has shards change hands as soon as nodes come and go.
pub(crate) async fn follow_nodes(inner: Weak<Inner>, mut nodes: watch::Receiver<Arc<View>>) {
    while nodes.changed().await.is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        inner.scan.notify_one();
    }
}

impl Inner {
    /// One round over all shards.
    pub(crate) async fn keep(&self) {
        let may_expire = self.may_expire(self.clock.now());
        if self.clocks.lock().take_went_back() {
            self.clock_went_back();
        }
        let far = self.far.swap(false, Ordering::Relaxed);
        for shard in &self.ingest {
            match self.hold(shard).await {
                Ok(true) => {}
                Ok(false) => {
                    // Should it come back, everything in it is looked for again.
                    self.looked_ahead.lock().retain(|(of, _), _| *of != shard.id);
                    continue;
                }
                Err(error) => {
                    self.look_again(far);
                    tracing::warn!(shard = %shard.id, %error, "shard cannot be taken over");
                    continue;
                }
            }
            if let Err(error) = self.find(shard, far).await {
                self.look_again(far);
                tracing::warn!(shard = %shard.id, %error, "due items cannot be looked for");
            }
        }
        let ingest = self.ingest.iter().chain([&self.quarantine]);
        let mut shards: Vec<&Shard> = ingest.filter(|shard| self.works_on(shard.id)).collect();
        for index in 0..self.layout().outbound {
            let id = ShardId::outbound(index);
            if !self.works_on(id) {
                // Should it come back, everything in it is looked for again.
                self.scanned.lock().retain(|(of, _), _| *of != id);
                continue;
            }
            match self.outbound_made(index).await {
                Ok(Some(shard)) => {
                    if let Err(error) = self.find(shard, far).await {
                        self.look_again(far);
                        tracing::warn!(shard = %shard.id, %error, "what is to be sent cannot be looked for");
                    }
                    shards.push(shard);
                }
                Ok(None) => {}
                Err(error) => {
                    self.look_again(far);
                    tracing::warn!(%error, "outbound shard cannot be opened");
                }
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
        let (known, taken) = self.lineup.lock().counts();
        metrics::gauge!("postrider_queue_lineup_items").set(known as f64);
        metrics::gauge!("postrider_queue_sending_items").set(taken as f64);
        let mine = self.ingest.iter().filter(|shard| self.works_on(shard.id));
        let live: u64 = mine.map(|shard| shard.state().live()).sum();
        metrics::gauge!("postrider_queue_ingest_items").set(live as f64);
        metrics::gauge!("postrider_queue_quarantined_items").set(self.quarantine.state().live() as f64);
    }

    /// What this process keeps in mind for certain times was put there by a clock that was ahead. It is looked for again.
    fn clock_went_back(&self) {
        self.window.lock().forget_waiting();
        self.lineup.lock().forget_waiting();
        self.scanned.lock().clear();
        self.looked_ahead.lock().clear();
        self.far.store(true, Ordering::Relaxed);
        self.send_wake.notify_one();
    }

    /// What a look that went far has not seen is looked for in the next round.
    fn look_again(&self, far: bool) {
        if far {
            self.far.store(true, Ordering::Relaxed);
        }
    }

    /// Where other nodes commit to the same shards, each that is open here is followed.
    fn follow_all(self: &Arc<Self>) {
        if !matches!(self.sharing, Sharing::Nodes(_)) {
            return;
        }
        let mut followers = self.followers.lock();
        for shard in self.shards_open() {
            let follow = || tokio::spawn(follow(Arc::downgrade(self), shard.clone())).abort_handle();
            followers.entry(shard.id).or_insert_with(follow);
        }
    }

    /// Looks for what is due in a shard, as of its head.
    async fn find(&self, shard: &Shard, far: bool) -> Result<(), ShardError> {
        let state = shard.refresh().await?;
        self.find_in(shard, state, far).await
    }

    async fn find_in(&self, shard: &Shard, state: Arc<ShardState>, far: bool) -> Result<(), ShardError> {
        match shard.id.kind {
            ShardKind::Ingest => self.find_due(shard, state, far).await,
            ShardKind::Outbound => self.find_outbound(shard, state, far).await,
            ShardKind::Quarantine => Ok(()),
        }
    }

    /// Tells the window of items that are due in this hour, and of those that come later in it. With `far` also of those
    /// that nobody would put off so long, see [`Self::clock_went_back`]. In later hours there can be what a node accepted
    /// whose clock is ahead: those chunks are looked at when something has come into them.
    async fn find_due(&self, shard: &Shard, state: Arc<ShardState>, far: bool) -> Result<(), ShardError> {
        let now = self.clock.now();
        let this_hour = hour_of(now);
        let near = hour_of(now.saturating_add(Waits::local(&self.config).longest()));
        let mut chunks = Vec::new();
        {
            let mut looked = self.looked_ahead.lock();
            looked.retain(|(of, id), _| {
                *of != shard.id || state.hour_of(*id).is_some_and(|hour| hour > this_hour)
            });
            for chunk in state.chunks().filter(|chunk| chunk.live > 0) {
                let ahead = chunk.hour > this_hour;
                let changed = looked.get(&(shard.id, chunk.id)) != Some(&chunk.items);
                if !ahead || changed || (far && chunk.hour > near) {
                    chunks.push((chunk.id, ahead.then_some(chunk.items)));
                }
            }
        }
        for (chunk, ahead) in chunks {
            let state = shard.with(&[chunk]).await?;
            let mut window = self.window.lock();
            let Some(content) = state.chunk(chunk) else { continue };
            for item in content.live() {
                let place = Place { chunk, number: item.number };
                // Due when it was accepted, whatever time the clock of that node had. With a later time its sender wanted
                // it to be held.
                let at_once = item.attempts == 0 && item.due <= item.message.accepted;
                // Nobody puts it off so long.
                let wrong = far && item.attempts > 0 && hour_of(item.due) > near;
                let due = match hour_of(item.due) > this_hour {
                    _ if at_once || wrong => 0,
                    true => continue,
                    false => item.due,
                };
                if !window.add(Ticket { shard: shard.id, place }, due, now) {
                    self.look_again(far);
                    return Ok(());
                }
            }
            drop(window);
            if let Some(items) = ahead {
                self.looked_ahead.lock().insert((shard.id, chunk), items);
            }
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Tells the line-up of what is due in this hour. A chunk of which everything is known already is not looked at
    /// again: so a round costs what is new, and not what waits.
    async fn find_outbound(
        &self,
        shard: &Shard,
        state: Arc<ShardState>,
        far: bool,
    ) -> Result<(), ShardError> {
        /// Chunks in a row that gave nothing because there is no room; then the next round goes on.
        const FUTILE_MAX: usize = 16;
        let now = self.clock.now();
        let this_hour = hour_of(now);
        let near = hour_of(now.saturating_add(Waits::longest_remote(&self.config)));
        let mut chunks = Vec::new();
        {
            let mut scanned = self.scanned.lock();
            scanned.retain(|(of, id), _| *of != shard.id || state.hour_of(*id).is_some());
            for chunk in state.chunks() {
                if chunk.live == 0 {
                    scanned.remove(&(shard.id, chunk.id));
                } else if (chunk.hour <= this_hour || (far && chunk.hour > near))
                    && scanned.get(&(shard.id, chunk.id)) != Some(&chunk.items)
                {
                    chunks.push((chunk.id, chunk.items));
                }
            }
        }
        // Not always from the first: what has no room must not be in front of what has.
        if !chunks.is_empty() {
            let from = {
                let mut scans = self.scans.lock();
                let scan = scans.entry(shard.id).or_default();
                *scan = scan.wrapping_add(1);
                scan.wrapping_mul(FUTILE_MAX) % chunks.len()
            };
            chunks.rotate_left(from);
        }
        let mut futile = 0;
        for (chunk, items) in chunks {
            let state = shard.with(&[chunk]).await?;
            let (mut fits, mut found) = (true, false);
            for item in state.chunk(chunk).into_iter().flat_map(|content| content.live()) {
                let ticket = Ticket { shard: shard.id, place: Place { chunk, number: item.number } };
                let fit = self.learn_of(ticket, item, false);
                fits &= fit;
                found |= fit;
            }
            if fits {
                self.scanned.lock().insert((shard.id, chunk), items);
            }
            if !fits {
                self.look_again(far);
            }
            futile = if found { 0 } else { futile + 1 };
            if futile == FUTILE_MAX {
                break;
            }
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
        if may_expire && !old.is_empty() {
            shard.forget(old).await?;
        }
        self.spread_watermark(shard).await
    }

    /// What has expired is claimed at once, whatever it waited for.
    async fn expire(&self, shard: &Shard, chunk: u32, now: u64) -> Result<(), ShardError> {
        let state = shard.with(&[chunk]).await?;
        for place in expired_items(&state, chunk, now) {
            if shard.id.kind == ShardKind::Outbound {
                self.expire_remote(shard, &state, place).await?;
                continue;
            }
            self.window.lock().hasten(Ticket { shard: shard.id, place }, now);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whoever works on an item looks at its expiry themselves.
    async fn expire_remote(&self, shard: &Shard, state: &ShardState, place: Place) -> Result<(), ShardError> {
        let Some(item) = state.item(place) else { return Ok(()) };
        let changes = crate::remote::expired(item);
        if changes.is_empty() || self.lineup.lock().is_taken(shard.id, place.number) {
            return Ok(());
        }
        if let Altered::Open { item, place, .. } = self.alter(shard, place, changes).await? {
            self.learn_of(Ticket { shard: shard.id, place }, &item, true);
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

    pub(crate) fn shards_open(&self) -> impl Iterator<Item = &Shard> {
        let outbound = (0..self.layout().outbound).filter_map(|index| self.opened(ShardId::outbound(index)));
        self.ingest.iter().chain([&self.quarantine]).chain(outbound)
    }
}
