//! Claims: what delivery works on. A claim is held in memory alone; what keeps a message from being lost is that it
//! stays in its shard until its end is committed, and what keeps it from being delivered twice are its ids.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mail::mime::Facts;
use uuid::Uuid;

use crate::body::decode_facts;
use crate::entry::Place;
use crate::error::WorkError;
use crate::fold::ShardState;
use crate::item::{Derivation, Expansion, Item, Message, MessageDetails, Progress, Slice, Target, Targets};
use crate::queue::{Inner, Queue};
use crate::remote::{self, Next};
use crate::shard::{Shard, ShardError};
use crate::shard_id::ShardKind;
use crate::sharing::Sharing;
use crate::window::Ticket;

/// What is to be done with a claimed item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Expand it, and place its targets.
    Deliver,
    /// It has seen too many crashes: secure what can be secured, and move it to quarantine.
    Quarantine,
    /// An outbound item with news about recipients, good or bad: tell whoever is to hear of it. [`Queue::news`] has it.
    Notify,
}

/// An item that is being worked on. Dropped, it comes again after a while.
pub struct Claimed {
    pub(crate) guard: Guard,
    pub(crate) item: Arc<Item>,
    pub(crate) producer: Uuid,
    pub(crate) watermark: u64,
    work: Work,
    expired: bool,
}

impl Claimed {
    /// The item, as of the claim or of what was committed about it since.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.item.message
    }

    /// What is to be done with it.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Whether it has been tried for long enough: what can still be done at once is done, the rest is given up.
    pub fn expired(&self) -> bool {
        self.expired
    }

    /// How far an ingest item is expanded; `None` for others.
    pub fn expansion(&self) -> Option<&Expansion> {
        match &self.item.progress {
            Progress::Ingest(expansion) => Some(expansion),
            _ => None,
        }
    }

    /// The shard's log, by which other logs know the item's producer.
    pub fn producer(&self) -> Uuid {
        self.producer
    }

    /// The item's number.
    pub fn number(&self) -> u64 {
        self.item.number
    }

    /// All of the producer's items below this are done.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    pub(crate) fn place(&self) -> Place {
        self.guard.ticket.place
    }

    /// What an append on behalf of one target carries.
    pub(crate) fn derivation(&self, part: u32) -> (Derivation, u64) {
        (Derivation { producer: self.producer, number: self.item.number, part }, self.watermark)
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed({} as {:?} of {:?})", self.message().queue_id, self.work, self.guard.ticket)
    }
}

/// Keeps a ticket taken.
pub(crate) struct Guard {
    inner: Arc<Inner>,
    pub(crate) ticket: Ticket,
    open: bool,
}

impl Guard {
    pub(crate) fn new(inner: Arc<Inner>, ticket: Ticket) -> Self {
        Self { inner, ticket, open: true }
    }

    /// The item needs no more work.
    pub(crate) fn complete(mut self) {
        self.open = false;
        self.inner.complete(self.ticket);
    }

    /// The item is to be taken again at `due`, and lies at `place` now.
    pub(crate) fn give_back(mut self, place: Place, due: u64) {
        self.open = false;
        self.inner.give_back(Ticket { place, ..self.ticket }, due);
    }

    /// The item must be taken alone.
    fn take_care(mut self) {
        self.open = false;
        self.inner.window.lock().take_care(self.ticket);
        self.inner.wake.notify_one();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.open {
            let due = self.inner.clock.now() + self.inner.config.retry_seconds_min;
            self.inner.give_back(self.ticket, due);
        }
    }
}

/// With how much care an item is to be handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Care {
    /// Its beginning need not be recorded.
    None,
    /// It is recorded durably before work begins.
    Recorded { crashes: u8 },
    /// It has been, or may have been, part of a crash: recorded, and alone.
    Alone { crashes: u8, recorded: bool },
}

/// Whoever begins without a record is suspected after a crash; who begins on record is known. New items go without, so
/// that they cost no commit: after a crash all of them that were within the window count as part of it, once.
fn care_of(item: &Item, state: &ShardState, boot: Uuid, sharing: &Sharing) -> Care {
    match item.began {
        Some(began) if began == boot && item.crashes == 0 => Care::None,
        // The shard has another owner now; the one before goes on, so that was no crash.
        Some(began) if began != boot && item.crashes == 0 && sharing.lives(began) => {
            Care::Recorded { crashes: 0 }
        }
        Some(began) if began == boot => Care::Alone { crashes: item.crashes, recorded: true },
        Some(_) => Care::Alone { crashes: item.crashes.saturating_add(1), recorded: false },
        None if item.crashes > 0 => Care::Alone { crashes: item.crashes, recorded: false },
        None if item.attempts > 0 => Care::Recorded { crashes: item.crashes },
        // Model quarantine: Rule::SuspectsCounted.
        None if item.number < state.suspect_below() => Care::Alone { crashes: 1, recorded: false },
        None => Care::None,
    }
}

impl Queue {
    /// Waits until something is due, and takes up to `max` items. Dropping the future loses nothing.
    pub async fn claim(&self, max: usize) -> Vec<Claimed> {
        let inner = &self.inner;
        loop {
            let woken = inner.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let claimed = inner.claim_now(max).await;
            if !claimed.is_empty() {
                if inner.window.lock().has_work(inner.clock.now()) {
                    inner.wake.notify_one();
                }
                return claimed;
            }
            let now = inner.clock.now();
            let (next, more) = {
                let mut window = inner.window.lock();
                (window.next_due(), window.has_work(now))
            };
            if more {
                continue;
            }
            let due = next.map_or(u64::MAX, |due| due.saturating_sub(now).max(1));
            let wait = inner.poll_interval().min(Duration::from_secs(due));
            let _ = tokio::time::timeout(wait, woken).await;
        }
    }

    /// What [`Self::claim`] would take without waiting.
    pub async fn claim_now(&self, max: usize) -> Vec<Claimed> {
        self.inner.claim_now(max).await
    }

    /// The recipients of a claimed item and what is put before the message.
    pub async fn details(&self, claimed: &Claimed) -> Result<Arc<MessageDetails>, WorkError> {
        self.inner.details_of(claimed.message()).await
    }

    /// The targets of a slice.
    pub async fn targets(&self, slice: &Slice) -> Result<Arc<Vec<Target>>, WorkError> {
        match &slice.targets {
            Targets::Here(targets) => Ok(targets.clone()),
            Targets::Apart { address, .. } => {
                let bytes = self.inner.read_all(address).await?;
                let targets: Vec<Target> = postcard::from_bytes(&bytes)
                    .map_err(|error| engine::FormatError::malformed("targets of a message", error))?;
                if targets.len() != slice.count as usize {
                    return Err(engine::FormatError::malformed("targets of a message", "other number").into());
                }
                Ok(Arc::new(targets))
            }
        }
    }

    /// What the splitter found in a claimed message.
    pub async fn facts(&self, claimed: &Claimed) -> Result<Arc<Facts>, WorkError> {
        self.inner.facts_of(claimed.message()).await
    }
}

impl Inner {
    async fn claim_now(self: &Arc<Self>, max: usize) -> Vec<Claimed> {
        let now = self.clock.now();
        let mut by_shard: BTreeMap<_, Vec<Guard>> = BTreeMap::new();
        let taken = self.window.lock().take(max, now);
        for ticket in taken {
            // Another node's by now, which finds it by itself.
            if !self.works_on(ticket.shard) {
                self.complete(ticket);
                continue;
            }
            by_shard.entry(ticket.shard).or_default().push(self.guard(ticket));
        }
        let mut preparing = Vec::with_capacity(by_shard.len());
        for (id, guards) in by_shard {
            // Tickets come from shards that are open.
            let Some(shard) = self.opened(id) else { continue };
            preparing.push(self.prepare(shard, guards, now));
        }
        let mut claimed = Vec::new();
        for prepared in futures_util::future::join_all(preparing).await {
            match prepared {
                Ok(prepared) => claimed.extend(prepared),
                Err(error) => tracing::warn!(%error, "items cannot be claimed"),
            }
        }
        claimed
    }

    /// Makes claims of tickets: looks the items up, and records beginnings where that is needed.
    async fn prepare(
        self: &Arc<Self>,
        shard: &Shard,
        guards: Vec<Guard>,
        now: u64,
    ) -> Result<Vec<Claimed>, ShardError> {
        let mut chunks: Vec<u32> = guards.iter().map(|guard| guard.ticket.place.chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let mut state = shard.with(&chunks).await?;
        let highest = guards.iter().map(|guard| guard.ticket.place.number).max().unwrap_or(0);
        if shard.id.kind == ShardKind::Ingest && highest >= state.window_below() {
            // Some more than asked for: so this is one commit for many claims.
            const HEADROOM: u64 = 64;
            shard.widen((highest + 1 + HEADROOM).min(state.seq() + 1)).await?;
        }
        let alone = guards.len() == 1;
        let mut ready = Vec::new();
        let mut begin = Vec::new();
        for guard in guards {
            let Some(item) = state.item(guard.ticket.place) else {
                guard.complete();
                continue;
            };
            let care = match shard.id.kind {
                ShardKind::Ingest => care_of(item, &state, self.boot, &self.sharing),
                ShardKind::Outbound | ShardKind::Quarantine => Care::None,
            };
            match care {
                Care::None => {}
                Care::Recorded { crashes } => begin.push((guard.ticket.place, crashes)),
                // Model quarantine: Rule::AloneAfterCrash.
                Care::Alone { .. } if !alone || !self.window.lock().is_alone(guard.ticket) => {
                    guard.take_care();
                    continue;
                }
                Care::Alone { recorded: true, .. } => {}
                Care::Alone { crashes, recorded: false } => begin.push((guard.ticket.place, crashes)),
            }
            ready.push(guard);
        }
        if !begin.is_empty() {
            // Model quarantine: Rule::RecordedThenWorked.
            shard.begin(begin, self.boot).await?;
            state = shard.with(&chunks).await?;
        }
        let watermark = state.watermark();
        let may_expire = self.may_expire(now);
        let mut claimed = Vec::with_capacity(ready.len());
        for guard in ready {
            let Some(item) = state.item(guard.ticket.place).cloned() else {
                guard.complete();
                continue;
            };
            let Some(work) = self.work_of(&item, now) else {
                let ticket = guard.ticket;
                guard.complete();
                self.learn_of(ticket, &item, true);
                continue;
            };
            let expired = may_expire && item.message.expires <= now;
            claimed.push(Claimed { guard, item, producer: shard.log, watermark, work, expired });
        }
        Ok(claimed)
    }

    /// What delivery is to do with an item now. `None`: nothing; it only waits.
    fn work_of(&self, item: &Item, now: u64) -> Option<Work> {
        match &item.progress {
            // Model quarantine: Rule::QuarantinedAfterMany.
            Progress::Ingest(_) if item.crashes >= self.config.crashes_max => Some(Work::Quarantine),
            Progress::Ingest(_) => Some(Work::Deliver),
            Progress::Sending(_) => {
                (remote::next(item, self.times(item), now) == Next::Tell).then_some(Work::Notify)
            }
            Progress::Outbound(_) | Progress::Quarantined(_) => None,
        }
    }

    /// Recipients of a message and what is put before it, wherever they are.
    pub(crate) async fn details_of(&self, message: &Message) -> Result<Arc<MessageDetails>, WorkError> {
        if let Some(details) = message.details.here() {
            return Ok(Arc::new(details.clone()));
        }
        let Some((address, _)) = message.details.apart() else { return Ok(Arc::default()) };
        let bytes = self.read_all(address).await?;
        let details = postcard::from_bytes(&bytes)
            .map_err(|error| engine::FormatError::malformed("details of a message", error))?;
        Ok(Arc::new(details))
    }

    /// What the splitter found in a message.
    pub(crate) async fn facts_of(&self, message: &Message) -> Result<Arc<Facts>, WorkError> {
        if let Some(facts) = self.facts.lock().take(message.queue_id) {
            return Ok(facts);
        }
        let reader = self.blobs.open(&message.body, message.body.key).await?;
        Ok(Arc::new(decode_facts(&reader.facts().await?)?))
    }

    /// A blob of the queue's own, which its writer has kept within bounds.
    async fn read_all(&self, address: &blob::BlobAddress) -> Result<Vec<u8>, WorkError> {
        use futures_util::StreamExt;
        let reader = self.blobs.open(address, address.key).await?;
        let mut pieces = reader.read_range(0..address.size);
        let mut bytes = Vec::with_capacity(address.size as usize);
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tests::{item, state_with_suspects};

    #[test]
    fn care_follows_what_is_known() {
        let boot = Uuid::from_u128(1);
        let other = Uuid::from_u128(2);
        let state = state_with_suspects(100);
        let check = |number: u64, attempts: u32, crashes: u8, began: Option<Uuid>, expected: Care| {
            let item = Item { attempts, began, crashes, ..item(number) };
            assert_eq!(
                care_of(&item, &state, boot, &Sharing::Unknown),
                expected,
                "{number} {attempts} {crashes} {began:?}"
            );
        };
        check(200, 0, 0, None, Care::None);
        check(99, 0, 0, None, Care::Alone { crashes: 1, recorded: false });
        // Put off under the boot before: it was not being worked on then, unless that was recorded.
        check(99, 3, 0, None, Care::Recorded { crashes: 0 });
        check(99, 3, 0, Some(boot), Care::None);
        check(200, 0, 2, Some(boot), Care::Alone { crashes: 2, recorded: true });
        check(200, 3, 0, Some(other), Care::Alone { crashes: 1, recorded: false });
        check(200, 3, 4, Some(other), Care::Alone { crashes: 5, recorded: false });
        check(200, 3, 4, None, Care::Alone { crashes: 4, recorded: false });
    }
}
