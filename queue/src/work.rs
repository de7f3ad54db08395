//! What delivery does with a claimed item besides delivering it: each step is durable when it returns, and can be
//! taken again.

use std::collections::BTreeMap;
use std::sync::Arc;

use blob::Holder;
use bytes::Bytes;
use futures_util::FutureExt;
use mail::address::{Address, Domain};

use crate::claim::Claimed;
use crate::entry::Change;
use crate::error::WorkError;
use crate::item::{
    Destination, Details, Expansion, Failure, Item, Message, MessageDetails, OutboundRecipient, Outcome,
    Progress, RemoteRecipient, RemoteState, Sending, Slice, Target, Targets,
};
use crate::queue::{Held, Inner, Queue, expiry};
use crate::remote;
use crate::schedule::Waits;
use crate::shard::{Accepted, Altered, Arrival, Settled, Settlement, ShardError};
use crate::shard_id::outbound_index;
use crate::window::Ticket;

/// Recipients of one outbound item. RFC 5321 §4.5.3.1.8: at least so many must be taken by every host.
const OUTBOUND_RECIPIENTS_MAX: usize = 100;

/// Which item somebody works on, and how many crashes it will have seen if that ends in one.
#[derive(Clone, Copy, Debug)]
pub struct CrashMark {
    ticket: Ticket,
    crashes: u8,
}

/// Something to be told about a recipient elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Which one of the item's.
    pub index: u32,
    /// The recipient, with what was heard of it.
    pub recipient: RemoteRecipient,
    /// What is to be told.
    pub event: Event,
}

/// What is to be told about a recipient elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It failed.
    Failed(Failure),
    /// It was given up after too long a time.
    Expired,
    /// It was given up since the time is over that its sender had set (RFC 2852).
    Late,
    /// It takes longer.
    Delayed,
    /// Another host has taken it, which tells nobody.
    Relayed,
}

/// The delay of a target is told under a number of its own, so that its end can be told too.
const DELAY_PART: u32 = 1 << 31;

impl News {
    /// What the notification is named after, beside the message.
    pub fn part(&self) -> u32 {
        match self.event {
            Event::Delayed => self.recipient.target | DELAY_PART,
            Event::Failed(_) | Event::Expired | Event::Late | Event::Relayed => self.recipient.target,
        }
    }

    /// What is committed when it has been told.
    pub fn told(&self) -> (u32, Change) {
        match self.event {
            Event::Delayed => (self.index, Change::DelayTold),
            Event::Failed(_) | Event::Expired | Event::Late | Event::Relayed => (self.index, Change::Told),
        }
    }
}

impl Queue {
    /// What is to be told about the recipients of a claimed outbound item.
    pub fn news(&self, claimed: &Claimed) -> Vec<News> {
        let item = claimed.item();
        let (now, delay) = (self.inner.clock.now(), self.inner.times(item).delay);
        let event = |recipient: &RemoteRecipient| match &recipient.state {
            RemoteState::Failed { failure, settled: false } => Some(Event::Failed(failure.clone())),
            RemoteState::Expired { settled: false } if remote::is_late(&item.message) => Some(Event::Late),
            RemoteState::Expired { settled: false } => Some(Event::Expired),
            RemoteState::Relayed => Some(Event::Relayed),
            _ if remote::is_delayed(&item.message, recipient, delay, now) => Some(Event::Delayed),
            _ => None,
        };
        (0..)
            .zip(remote::recipients(item))
            .filter_map(|(index, recipient)| {
                Some(News { index, recipient: recipient.clone(), event: event(recipient)? })
            })
            .collect()
    }

    /// Where an address elsewhere waits to be sent.
    pub fn remote(&self, address: Address) -> Destination {
        let shard = outbound_index(address.domain(), self.inner.layout().outbound);
        Destination::Remote { address, shard }
    }

    /// Commits what the recipients before `expanded` became, beyond those that were expanded before. Once: when
    /// somebody else was faster, the claim then holds what they found.
    pub async fn expand(
        &self,
        claimed: &mut Claimed,
        expanded: u32,
        owners: Vec<Address>,
        targets: Vec<Target>,
    ) -> Result<(), WorkError> {
        let expansion = claimed.expansion().ok_or(WorkError::Misused("only ingest items are expanded"))?;
        let first = expansion.targets();
        let slice = if targets.is_empty() {
            None
        } else {
            let count = targets.len() as u32;
            let targets = self.inner.keep_targets(claimed, targets).await?;
            Some(Slice { first, count, targets, outcomes: Vec::new(), placed: false })
        };
        let shard = self.inner.shard_of(claimed)?;
        // Model queue: Rule::ExpandedOnce.
        claimed.item = shard.expand(claimed.place(), expanded, owners, slice).await?;
        Ok(())
    }

    /// Commits what became of some targets, or of all of the slice, and goes on with the item. `false`: nothing is
    /// left of it, and the claim is of no use any more.
    pub async fn settle(
        &self,
        claimed: &mut Claimed,
        outcomes: Vec<(u32, Outcome)>,
        placed: bool,
    ) -> Result<bool, WorkError> {
        let shard = self.inner.shard_of(claimed)?;
        let (id, place) = (shard.id, claimed.place());
        // Model queue: Rule::PlacedThenDone.
        let settlement = Settlement { place, outcomes, placed };
        match shard.settle(vec![settlement], self.inner.clock.now()).await?.pop() {
            Some(Settled::Open(item)) => {
                claimed.item = item;
                Ok(true)
            }
            Some(Settled::Finished) => Ok(false),
            Some(Settled::Illegal(illegal)) => {
                Err(ShardError::Illegal { shard: id, number: place.number, illegal }.into())
            }
            Some(Settled::Gone) | None => Err(ShardError::Gone { shard: id, number: place.number }.into()),
        }
    }

    /// A claimed item that [`Self::settle`] said is done.
    pub fn finish(&self, claimed: Claimed) {
        claimed.guard.complete();
        metrics::counter!("postrider_queue_finished_total").increment(1);
    }

    /// Puts an item off after temporary trouble: twice as long each time.
    pub async fn put_off(&self, claimed: Claimed) {
        let inner = &self.inner;
        let message = &claimed.item.message;
        let now = inner.clock.now();
        let attempts = claimed.item.attempts;
        let due = Waits::local(&inner.config).next_due(message.queue_id, attempts, now, message.expires);
        if matches!(claimed.item.progress, Progress::Sending(_)) {
            // What could not be told is told later; when the rest is due is not for this to say.
            let place = claimed.place();
            claimed.guard.give_back(place, now + inner.config.retry_seconds_min);
            return;
        }
        let put_off = match inner.shard_of(&claimed) {
            Ok(shard) => shard.put_off(claimed.place(), due).await,
            Err(_) => return,
        };
        match put_off {
            Ok(place) => claimed.guard.give_back(place, due),
            Err(ShardError::Gone { .. }) => claimed.guard.complete(),
            Err(error) => {
                // Not durable, so the item has the care of one that was begun; it waits all the same.
                tracing::warn!(queue_id = %message.queue_id, %error, "an item cannot be put off");
                let place = claimed.place();
                claimed.guard.give_back(place, due);
            }
        }
    }

    /// Gives an item back that cannot be worked on now because others are in front of it: it comes again after so many
    /// seconds, and nothing is counted or written.
    pub fn step_back(&self, claimed: Claimed, seconds: u64) {
        let due = self.inner.clock.now() + seconds;
        let place = claimed.place();
        claimed.guard.give_back(place, due);
    }

    /// What [`Self::crashed`] needs to know, to be taken down before work begins.
    pub fn crash_mark(&self, claimed: &Claimed) -> CrashMark {
        CrashMark { ticket: claimed.guard.ticket, crashes: claimed.item.crashes.saturating_add(1) }
    }

    /// Work on an item panicked, which took its claim along: counts as a crash.
    pub async fn crashed(&self, mark: CrashMark) {
        let CrashMark { ticket, crashes } = mark;
        let number = ticket.place.number;
        tracing::error!(shard = %ticket.shard, number, crashes, "work on an item panicked");
        let Some(shard) = self.inner.opened(ticket.shard) else { return };
        if let Err(error) = shard.begin(vec![(ticket.place, crashes)], self.inner.boot).await {
            tracing::warn!(shard = %ticket.shard, number, %error, "a crash cannot be counted");
        }
    }

    /// Places these targets, by number, of a claimed item in the outbound shards of their domains. A target that is
    /// there already stays as it is.
    pub async fn place_remote(
        &self,
        claimed: &Claimed,
        details: &MessageDetails,
        targets: &[(u32, &Target)],
    ) -> Result<(), WorkError> {
        let expansion = claimed.expansion().ok_or(WorkError::Misused("only ingest items have targets"))?;
        let mut groups: BTreeMap<(u16, &Domain, Option<u16>), Vec<RemoteRecipient>> = BTreeMap::new();
        for (number, target) in targets {
            let Destination::Remote { address, shard } = &target.to else { continue };
            let original = details
                .recipients
                .get(target.recipient as usize)
                .ok_or(WorkError::Misused("a target has no recipient"))?;
            let mut recipient = original.clone();
            // An address that is not the one the sender gave says so, for the notification (RFC 3461 §5.2.3).
            if recipient.address != *address {
                // RFC 6533 §3.
                let kind = if original.address.needs_smtputf8() { "utf-8" } else { "rfc822" };
                let given = || format!("{kind};{}", original.address);
                recipient.orcpt = recipient.orcpt.or_else(|| Some(given()));
                recipient.address = address.clone();
            }
            let (target, owner) = (*number, target.owner);
            let group = groups.entry((*shard, address.domain(), owner)).or_default();
            group.push(OutboundRecipient { target, recipient, state: RemoteState::Pending }.into());
        }
        let mut placing = Vec::new();
        for ((shard, _, owner), recipients) in groups {
            for recipients in recipients.chunks(OUTBOUND_RECIPIENTS_MAX) {
                let recipients = recipients.to_vec();
                let group =
                    self.inner.place_group(claimed, &details.prefix, expansion, shard, owner, recipients);
                placing.push(group.boxed());
            }
        }
        futures_util::future::try_join_all(placing).await?;
        Ok(())
    }

    /// What was told about recipients of a claimed outbound item, by index. The rest of it goes on its way.
    pub async fn told(&self, claimed: Claimed, told: Vec<(u32, Change)>) -> Result<(), WorkError> {
        let shard = self.inner.shard_of(&claimed)?;
        let ticket = claimed.guard.ticket;
        match self.inner.alter(shard, ticket.place, told).await? {
            Altered::Open { item, place, .. } => {
                claimed.guard.complete();
                self.inner.learn_of(Ticket { place, ..ticket }, &item, true);
            }
            Altered::Finished { .. } => {
                claimed.guard.complete();
                metrics::counter!("postrider_queue_outbound_finished_total").increment(1);
            }
            Altered::Gone => claimed.guard.complete(),
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) fn shard_of(&self, claimed: &Claimed) -> Result<&crate::shard::Shard, WorkError> {
        self.opened(claimed.guard.ticket.shard).ok_or(WorkError::Misused("the claim has no shard"))
    }

    /// Targets, in a blob where they are many.
    async fn keep_targets(&self, claimed: &Claimed, targets: Vec<Target>) -> Result<Targets, WorkError> {
        let bytes = postcard::to_stdvec(&targets).expect("targets have nothing that cannot be encoded");
        if bytes.len() <= self.config.inline_bytes_max {
            return Ok(Targets::Here(Arc::new(targets)));
        }
        let holder = Holder::Shard(claimed.producer);
        let mut writer = self.blobs.writer(holder, claimed.message().body.key);
        writer.write(bytes.into()).await.map_err(crate::error::BodyError::from)?;
        let stored = writer.finish(Bytes::new()).await.map_err(crate::error::BodyError::from)?;
        Ok(Targets::Apart { address: *stored.address(), reference: stored.nonce() })
    }

    async fn place_group(
        &self,
        claimed: &Claimed,
        prefix: &[u8],
        expansion: &Expansion,
        shard: u16,
        owner: Option<u16>,
        recipients: Vec<RemoteRecipient>,
    ) -> Result<(), WorkError> {
        let shard = self.outbound(shard).await?;
        let first = recipients.first().ok_or(WorkError::Misused("no recipients"))?;
        let domain = first.recipient.address.domain().clone();
        let first = first.target;
        let (derived, watermark) = claimed.derivation(first);
        // The shard looks again when it accepts. Model queue: Rule::OutboundIdDerived.
        if shard.state().seen(&derived) != crate::fold::Seen::New {
            return Ok(());
        }
        let message = claimed.message();
        let reference = self.blobs.reference(&message.body, Holder::Shard(shard.log)).await?;
        let now = self.clock.now();
        let notes = message.details.notes().cloned().unwrap_or_default();
        let given_up = now + self.config.retry_for(&domain).expire_seconds;
        let mut sender = message.sender.clone();
        if let Some(owner) = owner {
            let owner = expansion.owners.get(owner as usize);
            let owner = owner.ok_or(WorkError::Misused("a target names an owner that is not there"))?;
            sender.reverse_path = mail::address::ReversePath(Some(owner.clone()));
        }
        let message = Message {
            body: reference.address,
            reference: reference.nonce,
            sender,
            expires: expiry(given_up, notes.deliver_by),
            details: Details::Here(MessageDetails { recipients: Vec::new(), prefix: prefix.to_vec() })
                .noted(notes),
            derived: Some(derived),
            ..message.clone()
        };
        let progress = Progress::Sending(Sending { route: None, recipients });
        let arrival = Arrival { message, progress, due: now, claimable: true, watermark };
        let item = Item {
            number: 0,
            message: Arc::new(arrival.message.clone()),
            due: now,
            attempts: 0,
            began: None,
            crashes: 0,
            progress: arrival.progress.clone(),
        };
        let held = Held::of(&arrival.message);
        let accepted = shard.accept(arrival, self.config.items_max).await;
        if matches!(
            accepted,
            Ok(Accepted::Already) | Err(ShardError::Full { .. } | ShardError::Unavailable { .. })
        ) {
            held.release(&self.blobs, shard.log).await;
        }
        if let Accepted::New(place) = accepted? {
            let ticket = Ticket { shard: shard.id, place };
            self.learn_of(ticket, &Item { number: place.number, ..item }, true);
            metrics::counter!("postrider_queue_outbound_total").increment(1);
        }
        Ok(())
    }
}
