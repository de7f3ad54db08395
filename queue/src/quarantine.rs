//! Quarantine: a shard of its own for what crashed whoever touched it, and for what cannot be delivered while nobody
//! can be told. Never dropped, never in the way of others.
//!
//! Before an item moves here, delivery has settled what can be settled, and has committed *rejected* to the account of
//! every local target that was not placed. So the ids of what is left can never be placed any more, and its release
//! under new ids cannot double it.

use crate::claim::Claimed;
use crate::entry::{Departure, Place};
use crate::error::WorkError;
use crate::item::{Derivation, Message, Progress, QuarantineReason, Quarantined, WHOLE_ITEM};
use crate::queue::Queue;
use crate::shard::{Accepted, Arrival, ShardError};
use crate::shard_id::{ShardId, derived_index};
use crate::window::Ticket;

impl Queue {
    /// Moves what is left of a claimed ingest item to quarantine.
    pub async fn quarantine(&self, claimed: Claimed, reason: QuarantineReason) -> Result<(), WorkError> {
        let inner = &self.inner;
        let rest =
            claimed.expansion().ok_or(WorkError::Misused("only ingest items go to quarantine"))?.clone();
        let now = inner.clock.now();
        // Model quarantine: Rule::MovedOnce.
        let (derived, watermark) = claimed.derivation(WHOLE_ITEM);
        let message = self.rehold(claimed.message(), inner.quarantine.id, derived).await?;
        let progress = Progress::Quarantined(Quarantined { reason, since: now, rest });
        let arrival = Arrival { message, progress, due: now, claimable: false, watermark };
        // Model quarantine: Rule::AcceptedThenLeft, Rule::LeavesItsShard.
        inner.quarantine.accept(arrival, u64::MAX).await?;
        let shard = inner.shard_of(&claimed)?;
        match shard.leave(claimed.place(), Departure::Quarantined, now).await {
            Ok(()) | Err(ShardError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let queue_id = claimed.message().queue_id;
        tracing::error!(%queue_id, "item moved to quarantine");
        metrics::counter!("postrider_queue_quarantined_total").increment(1);
        claimed.guard.complete();
        Ok(())
    }

    /// Lets an item in quarantine be delivered again: in an ingest shard, under a new number.
    pub(crate) async fn release_place(&self, place: Place) -> Result<(), WorkError> {
        let inner = &self.inner;
        let quarantine = &inner.quarantine;
        let state = quarantine.with(&[place.chunk]).await?;
        let Some(item) = state.item(place) else {
            return Err(ShardError::Gone { shard: quarantine.id, number: place.number }.into());
        };
        let Progress::Quarantined(Quarantined { rest, .. }) = &item.progress else {
            return Err(WorkError::Misused("the item is not in quarantine"));
        };
        let now = inner.clock.now();
        let index = derived_index(item.message.queue_id, inner.layout().ingest);
        let shard = inner.opened(ShardId::ingest(index)).ok_or(WorkError::Misused("no such shard"))?;
        // Model quarantine: Rule::ReleasedOnce.
        let derived = Derivation { producer: quarantine.log, number: item.number, part: WHOLE_ITEM };
        let mut message = self.rehold(&item.message, shard.id, derived).await?;
        // It has waited for a person, so it gets its time once more.
        message.expires = now + inner.config.expire_seconds;
        let arrival = Arrival {
            message,
            progress: Progress::Ingest(rest.clone()),
            due: now,
            claimable: inner.has_room(),
            watermark: state.watermark(),
        };
        // Model quarantine: Rule::NewIds, Rule::AcceptedThenLeft.
        if let Accepted::New(place) = shard.accept(arrival, u64::MAX).await? {
            inner.announce(Ticket { shard: shard.id, place }, now);
        }
        quarantine.leave(place, Departure::Released, now).await?;
        Ok(())
    }

    /// The same message held by another shard, with references of its own.
    async fn rehold(
        &self,
        message: &Message,
        shard: ShardId,
        derived: Derivation,
    ) -> Result<Message, WorkError> {
        let holder = blob::Holder::Shard(shard.log_id());
        let body = self.inner.blobs.reference(&message.body, holder).await?;
        let mut details = message.details.clone();
        if let Some((address, _)) = details.apart() {
            let held = self.inner.blobs.reference(address, holder).await?;
            if let Some((address, reference)) = details.apart_mut() {
                (*address, *reference) = (held.address, held.nonce);
            }
        }
        Ok(Message {
            body: body.address,
            reference: body.nonce,
            details,
            derived: Some(derived),
            ..message.clone()
        })
    }
}
