//! What whoever submitted a message may see of it later, and do: where it is, and taking it back while it is held.
//!
//! An operator's trace looks everywhere. A submitter asks often, and about messages of their own of which it is known where
//! they were put, so this looks there alone, and stops where it has found them.

use std::collections::BTreeSet;

use mail::address::Domain;
use mail::id::QueueId;

use crate::admin::{ItemView, Standing, finished_view, view};
use crate::entry::Place;
use crate::error::WorkError;
use crate::item::{Item, Outcome, Progress};
use crate::queue::Queue;
use crate::schedule::hour_of;
use crate::shard::{Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind, outbound_index};

/// Chunks that are looked through for one message. It lies in the first or second but where it was put off again and again,
/// and a shard that does not have it must not be read whole for that.
const CHUNKS_MAX: usize = 128;

/// What became of a submission so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The message where it was accepted. `None`: it is not there, or not any more.
    pub ingest: Option<ItemView>,
    /// What went to other hosts: an item for each domain.
    pub outbound: Vec<ItemView>,
}

impl Followed {
    /// Whether all of it is held and nothing was sent, at `now`.
    pub fn is_held(&self, now: u64) -> bool {
        let standing = self.ingest.as_ref().map(|item| &item.standing);
        matches!(standing, Some(Standing::Open { due, attempts: 0, crashes: 0, .. }) if *due > now)
    }

    /// Whether it left before it was due, which nothing does but what is taken back.
    pub fn is_withdrawn(&self, due: u64) -> bool {
        let standing = self.ingest.as_ref().map(|item| &item.standing);
        matches!(standing, Some(Standing::Finished { at, .. }) if *at < due)
    }
}

impl Queue {
    /// Where a message is that was put into this shard, to be delivered from `due` on (unix seconds).
    pub async fn follow(&self, queue_id: QueueId, shard: ShardId, due: u64) -> Result<Followed, WorkError> {
        let Some(shard) = self.ingest_of(shard) else { return Ok(Followed::default()) };
        let found = look(&shard, queue_id, due, |_| true).await?;
        let Some(ingest) = found.into_iter().next() else { return Ok(Followed::default()) };
        let mut outbound: Vec<ItemView> = Vec::new();
        for domain in domains(&ingest) {
            if outbound.iter().any(|item| is_for(item, &domain)) {
                continue;
            }
            let index = outbound_index(&domain, self.inner.layout().outbound);
            let Some(shard) = self.inner.outbound_made(index).await?.cloned() else { continue };
            let found = look(&shard, queue_id, due, |item| is_for(item, &domain)).await?;
            let known: BTreeSet<(String, u64)> =
                outbound.iter().map(|item| (item.shard.clone(), item.number)).collect();
            let new = |item: &ItemView| !known.contains(&(item.shard.clone(), item.number));
            outbound.extend(found.into_iter().filter(new));
        }
        Ok(Followed { ingest: Some(ingest), outbound })
    }

    /// Takes back a message that is held in this shard until later than `later_than` (unix seconds), all of it. `false`: it
    /// is not there, or somebody may have begun with it.
    pub async fn withdraw(
        &self,
        queue_id: QueueId,
        shard: ShardId,
        later_than: u64,
    ) -> Result<bool, WorkError> {
        let Some(shard) = self.ingest_of(shard) else { return Ok(false) };
        let now = self.inner.clock.now();
        let Some(place) = held(&shard, queue_id, later_than).await? else { return Ok(false) };
        let withdrawn = shard.withdraw(place, later_than, now).await?;
        if withdrawn {
            metrics::counter!("postrider_queue_withdrawn_total").increment(1);
            tracing::info!(%queue_id, shard = %shard.id, "taken back by its sender");
        }
        Ok(withdrawn)
    }

    fn ingest_of(&self, shard: ShardId) -> Option<Shard> {
        (shard.kind == ShardKind::Ingest).then(|| self.inner.opened(shard).cloned()).flatten()
    }
}

/// Whether nobody has begun with an item that is to be worked on later.
pub(crate) fn is_untouched(item: &Item, later_than: u64) -> bool {
    let is_whole = match &item.progress {
        Progress::Ingest(expansion) => {
            expansion.slices.iter().all(|slice| !slice.placed && slice.outcomes.is_empty())
        }
        _ => false,
    };
    is_whole && item.due > later_than && item.attempts == 0 && item.crashes == 0 && item.began.is_none()
}

/// Where a message lies that is held until later than this.
async fn held(shard: &Shard, queue_id: QueueId, later_than: u64) -> Result<Option<Place>, ShardError> {
    for chunk in shard.chunks_from(hour_of(later_than)).await? {
        let state = shard.with(&[chunk]).await?;
        let mut items = state.chunk(chunk).into_iter().flat_map(|content| content.live());
        if let Some(item) = items.find(|item| item.message.queue_id == queue_id) {
            return Ok(Some(Place { chunk, number: item.number }));
        }
    }
    Ok(None)
}

/// What a shard has of a message, up to the first that is `enough`.
async fn look(
    shard: &Shard,
    queue_id: QueueId,
    due: u64,
    enough: impl Fn(&ItemView) -> bool,
) -> Result<Vec<ItemView>, ShardError> {
    let mut views = Vec::new();
    for chunk in shard.chunks_from(hour_of(due)).await?.into_iter().take(CHUNKS_MAX) {
        let state = shard.with(&[chunk]).await?;
        let Some(content) = state.chunk(chunk) else { continue };
        let live = content.live().filter(|item| item.message.queue_id == queue_id);
        views.extend(live.map(|item| view(shard, item)));
        let finished = content.finished().filter(|finished| finished.queue_id == queue_id);
        views.extend(finished.map(|finished| finished_view(shard, finished)));
        if views.iter().any(&enough) {
            break;
        }
    }
    Ok(views)
}

/// Other hosts' domains that a message went to.
fn domains(ingest: &ItemView) -> BTreeSet<Domain> {
    let Standing::Finished { fates, .. } = &ingest.standing else { return BTreeSet::new() };
    let sent_on = fates.iter().filter(|fate| fate.outcome == Outcome::Queued);
    sent_on.filter_map(|fate| fate.address.as_ref()).map(|address| address.domain().clone()).collect()
}

/// Whether an outbound item is for a domain.
fn is_for(item: &ItemView, domain: &Domain) -> bool {
    match &item.standing {
        Standing::Finished { fates, .. } => {
            fates.iter().filter_map(|fate| fate.address.as_ref()).any(|address| address.domain() == domain)
        }
        _ => item.recipients.iter().any(|recipient| {
            mail::address::Address::parse(&recipient.address).is_ok_and(|address| address.domain() == domain)
        }),
    }
}
