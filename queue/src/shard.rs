//! An open shard: what can be committed to it. Each function is one commit on one log.

use std::sync::Arc;

use engine::{Build, CommitError, LogHandle, with_causes};
use mail::address::Address;
use uuid::Uuid;

use crate::entry::{Change, Departure, Operation, Place};
use crate::fold::{Seen, ShardState};
use crate::item::{Derivation, Item, Message, Outcome, Progress, Sending, Slice};
use crate::remote;
use crate::schedule::hour_of;
use crate::shard_id::ShardId;
use crate::state::{self, Illegal};
use crate::submitter::is_untouched;

/// A shard that is open. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    /// By which other logs know it.
    pub(crate) log: Uuid,
    pub(crate) handle: LogHandle<ShardState>,
}

/// Why a change of a shard was not made, or is not known to have been made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ShardError {
    /// Storage trouble. Temporary.
    #[error("shard {shard} cannot be used: {reason}")]
    Unavailable {
        /// The shard.
        shard: ShardId,
        /// What the storage engine said.
        reason: String,
    },
    /// The commit may have happened or not. Temporary: whoever tries again finds out.
    #[error("whether a commit to shard {shard} was applied is not known")]
    Undecided {
        /// The shard.
        shard: ShardId,
    },
    /// The item is not unfinished in its place any more: somebody else has finished it, or put it off.
    #[error("item {number} of shard {shard} is gone")]
    Gone {
        /// The shard.
        shard: ShardId,
        /// The item.
        number: u64,
    },
    /// As many items wait as the configuration allows. Temporary.
    #[error("shard {shard} holds as many items as it may")]
    Full {
        /// The shard.
        shard: ShardId,
    },
    /// The item does not allow that: a mistake of the caller.
    #[error("item {number} of shard {shard}: {illegal}")]
    Illegal {
        /// The shard.
        shard: ShardId,
        /// The item.
        number: u64,
        /// What it does not allow.
        illegal: Illegal,
    },
}

/// Something that comes to a shard.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) message: Message,
    pub(crate) progress: Progress,
    pub(crate) due: u64,
    pub(crate) claimable: bool,
    /// The producer's, for what is derived.
    pub(crate) watermark: u64,
}

/// What became of an arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accepted {
    /// It is there.
    New(Place),
    /// It came before.
    Already,
}

/// Targets of an ingest item that are to be settled.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) place: Place,
    pub(crate) outcomes: Vec<(u32, Outcome)>,
    pub(crate) placed: bool,
}

/// What became of a settlement.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    /// The item is done.
    Finished,
    /// More of it is to be done.
    Open(Arc<Item>),
    /// It is not there any more.
    Gone,
    /// It does not allow that.
    Illegal(Illegal),
}

/// Recipients of an outbound item, by index, that an attempt is to be made for.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRequest {
    pub(crate) place: Place,
    pub(crate) recipients: Vec<u32>,
    pub(crate) seconds: u32,
}

/// What became of a request for a lease.
#[derive(Clone, Debug)]
pub(crate) enum LeaseAnswer {
    /// These are leased.
    Leased { item: Arc<Item>, recipients: Vec<u32> },
    /// None of them waits any more.
    Nothing(Arc<Item>),
    /// The item is not there any more.
    Gone,
}

/// What is to happen to an outbound item.
#[derive(Clone, Debug)]
pub(crate) struct Alteration {
    pub(crate) place: Place,
    pub(crate) changes: Vec<(u32, Change)>,
}

/// What became of an alteration. Changes that were not legal any more are listed by their position.
#[derive(Clone, Debug)]
pub(crate) enum Altered {
    /// The item lies there now.
    Open { item: Arc<Item>, place: Place, left_out: Vec<usize> },
    /// The item is done.
    Finished { left_out: Vec<usize> },
    /// It is not there any more.
    Gone,
}

impl Shard {
    /// The newest state that this process has folded.
    pub(crate) fn state(&self) -> Arc<ShardState> {
        self.handle.state()
    }

    /// The state as of the log's head.
    pub(crate) async fn refresh(&self) -> Result<Arc<ShardState>, ShardError> {
        self.handle.refresh(&[]).await.map_err(|error| self.unavailable(&error))
    }

    /// The newest state, with these chunks loaded.
    pub(crate) async fn with(&self, chunks: &[u32]) -> Result<Arc<ShardState>, ShardError> {
        self.handle.with(chunks).await.map_err(|error| self.unavailable(&error))
    }

    /// An item comes.
    pub(crate) async fn accept(&self, arrival: Arrival, items_max: u64) -> Result<Accepted, ShardError> {
        let (shard, hour) = (self.id, hour_of(arrival.due));
        let derived = arrival.message.derived;
        let build = move |state: &ShardState| {
            if let Some(derived) = &derived
                && state.seen(derived) != Seen::New
            {
                return Ok(Build::nothing(None));
            }
            if state.live() >= items_max {
                return Err(ShardError::Full { shard });
            }
            let chunk = state.chunk_for(hour);
            let operation = Operation::Accepted {
                chunk,
                hour,
                due: arrival.due,
                message: Box::new(arrival.message.clone()),
                progress: arrival.progress.clone(),
                claimable: arrival.claimable,
                watermark: derived.map(|_| arrival.watermark),
            };
            Ok(Build::new(vec![operation], Some(chunk)))
        };
        let committed = self.handle.commit(Vec::new(), build).await.map_err(|error| self.refused(error))?;
        Ok(match committed.answer {
            Some(chunk) => Accepted::New(Place { chunk, number: committed.first_seq }),
            None => Accepted::Already,
        })
    }

    /// More recipients of an item are expanded. Answers the item as it is then; when somebody else was faster, with
    /// what they found.
    pub(crate) async fn expand(
        &self,
        place: Place,
        expanded: u32,
        owners: Vec<Address>,
        slice: Option<Slice>,
    ) -> Result<Arc<Item>, ShardError> {
        let this = self.id;
        let build = move |state: &ShardState| {
            let item = find(this, state, place)?;
            if matches!(&item.progress, Progress::Ingest(expansion) if expansion.expanded >= expanded) {
                return Ok(Build::nothing(item.clone()));
            }
            let mut next = state::expand(item, expanded, slice.as_ref())
                .map_err(|illegal| ShardError::Illegal { shard: this, number: place.number, illegal })?;
            next.owners.extend(owners.iter().cloned());
            let answer = Arc::new(Item { progress: Progress::Ingest(next), ..(**item).clone() });
            let operation =
                Operation::Expanded { place, expanded, owners: owners.clone(), slice: slice.clone() };
            Ok(Build::new(vec![operation], answer))
        };
        self.commit(vec![place.chunk], build).await
    }

    /// Settles targets of several items. An item with nothing left is done at `now`.
    pub(crate) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        now: u64,
    ) -> Result<Vec<Settled>, ShardError> {
        let chunks = chunks_of(settlements.iter().map(|settlement| settlement.place));
        let build = move |state: &ShardState| {
            let mut operations = Vec::new();
            let answers = settlements
                .iter()
                .map(|settlement| settle_one(state, settlement, now, &mut operations))
                .collect::<Vec<_>>();
            Ok(Build::new(operations, answers))
        };
        self.commit(chunks, build).await
    }

    /// Leases recipients of an outbound item that still wait. What several ask for at a time goes into one entry.
    pub(crate) async fn lease(&self, request: LeaseRequest, boot: Uuid) -> Result<LeaseAnswer, ShardError> {
        let chunks = vec![request.place.chunk];
        let build = move |state: &ShardState| {
            let (operation, answer) = lease_one(state, &request, boot);
            Ok(Build::new(operation.into_iter().collect(), answer))
        };
        self.commit(chunks, build).await
    }

    /// Changes recipients of an outbound item. What it does not allow any more is left out: whoever was faster has been
    /// right.
    pub(crate) async fn alter(&self, alteration: Alteration, now: u64) -> Result<Altered, ShardError> {
        let chunks = vec![alteration.place.chunk];
        let build = move |state: &ShardState| {
            let (operation, answer) = alter_one(state, &alteration, now);
            Ok(Build::new(operation.into_iter().collect(), answer))
        };
        self.commit(chunks, build).await
    }

    /// Where an item lies that was put elsewhere. Looks through all that is unfinished, so for what is rare.
    pub(crate) async fn locate(&self, number: u64) -> Result<Option<Place>, ShardError> {
        let chunks: Vec<u32> =
            self.state().chunks().filter(|chunk| chunk.live > 0).map(|chunk| chunk.id).collect();
        for chunk in chunks.into_iter().rev() {
            let place = Place { chunk, number };
            if self.with(&[chunk]).await?.item(place).is_some() {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Sends an outbound item elsewhere, or by its domain again.
    pub(crate) async fn reroute(&self, place: Place, route: Option<String>) -> Result<Arc<Item>, ShardError> {
        let this = self.id;
        let build = move |state: &ShardState| {
            let item = find(this, state, place)?;
            let Progress::Sending(sending) = &item.progress else {
                let illegal = Illegal("only outbound items have a route");
                return Err(ShardError::Illegal { shard: this, number: place.number, illegal });
            };
            let sending = Sending { route: route.clone(), ..sending.clone() };
            let answer = Arc::new(Item { progress: Progress::Sending(sending), ..(**item).clone() });
            Ok(Build::new(vec![Operation::Rerouted { place, route: route.clone() }], answer))
        };
        self.commit(vec![place.chunk], build).await
    }

    /// Whether the shard has taken what is derived like this. In the order of commits: whatever was asked for before, here or
    /// on another node, has been decided.
    pub(crate) async fn has_taken(&self, derived: Derivation) -> Result<bool, ShardError> {
        let build = move |state: &ShardState| Ok(Build::nothing(state.seen(&derived) != Seen::New));
        self.commit(Vec::new(), build).await
    }

    /// A consumer has read everything before `to`. `false`: there are too many.
    pub(crate) async fn move_cursor(&self, name: String, to: u64, most: usize) -> Result<bool, ShardError> {
        let build = move |state: &ShardState| {
            let known = state.cursors().find(|(known, _)| *known == name).map(|(_, to)| to);
            if known.unwrap_or(0) == to {
                return Ok(Build::nothing(true));
            }
            if known.is_none() && state.cursors().count() >= most {
                return Ok(Build::nothing(false));
            }
            Ok(Build::new(vec![Operation::Cursor { name: name.clone(), to }], true))
        };
        self.commit(Vec::new(), build).await
    }

    /// Puts an item off. Answers where it is then.
    pub(crate) async fn put_off(&self, place: Place, due: u64) -> Result<Place, ShardError> {
        let this = self.id;
        let build = move |state: &ShardState| {
            let item = find(this, state, place)?;
            let hour = hour_of(due);
            if state.hour_of(place.chunk) == Some(hour) {
                return Ok(Build::new(vec![Operation::PutOff { place, due }], place));
            }
            let chunk = state.chunk_for(hour);
            let item = Item { due, attempts: item.attempts + 1, began: None, ..(**item).clone() };
            let operation = Operation::Moved { from: place, chunk, hour, item: Box::new(item) };
            Ok(Build::new(vec![operation], Place { chunk, ..place }))
        };
        self.commit(vec![place.chunk], build).await
    }

    /// Work on these items begins, with so many crashes counted; on those that are still there.
    pub(crate) async fn begin(&self, items: Vec<(Place, u8)>, boot: Uuid) -> Result<(), ShardError> {
        let chunks = chunks_of(items.iter().map(|(place, _)| *place));
        let build = move |state: &ShardState| {
            let there = items.iter().filter(|(place, _)| state.item(*place).is_some());
            let operations =
                there.map(|(place, crashes)| Operation::Began { place: *place, boot, crashes: *crashes });
            Ok(Build::new(operations.collect(), ()))
        };
        self.commit(chunks, build).await
    }

    /// Delivery may begin with items below this number.
    pub(crate) async fn widen(&self, below: u64) -> Result<(), ShardError> {
        let build = move |state: &ShardState| {
            let operations =
                if state.window_below() < below { vec![Operation::Window { below }] } else { Vec::new() };
            Ok(Build::new(operations, ()))
        };
        self.commit(Vec::new(), build).await
    }

    /// A process begins to work on the shard. With nothing in it there is nothing to be careful with.
    pub(crate) async fn boot(&self, boot: Uuid, at: u64) -> Result<(), ShardError> {
        let build = move |state: &ShardState| {
            let operations = if state.live() > 0 { vec![Operation::Booted { boot, at }] } else { Vec::new() };
            Ok(Build::new(operations, ()))
        };
        self.commit(Vec::new(), build).await
    }

    /// An item leaves with what is left of it.
    pub(crate) async fn leave(&self, place: Place, departure: Departure, at: u64) -> Result<(), ShardError> {
        let this = self.id;
        let build = move |state: &ShardState| {
            find(this, state, place)?;
            Ok(Build::new(vec![Operation::Left { place, at, departure }], ()))
        };
        self.commit(vec![place.chunk], build).await
    }

    /// An item that nobody has begun with, and that is held until later than this, is given up. `false`: it is not such a
    /// one, or not any more.
    pub(crate) async fn withdraw(&self, place: Place, later_than: u64, at: u64) -> Result<bool, ShardError> {
        let build = move |state: &ShardState| {
            let untouched = state.item(place).is_some_and(|item| is_untouched(item, later_than));
            let left = Operation::Left { place, at, departure: Departure::Dropped };
            Ok(Build::new(untouched.then_some(left).into_iter().collect(), untouched))
        };
        self.commit(vec![place.chunk], build).await
    }

    /// Chunks with something in them that are for this hour or later, the earliest first, after a look whether another node
    /// has committed something.
    pub(crate) async fn chunks_from(&self, hour: u32) -> Result<Vec<u32>, ShardError> {
        let state = self.handle.refresh(&[]).await.map_err(|error| self.unavailable(&error))?;
        let mut chunks: Vec<(u32, u32)> = state
            .chunks()
            .filter(|chunk| chunk.hour >= hour && chunk.live + chunk.done > 0)
            .map(|chunk| (chunk.hour, chunk.id))
            .collect();
        chunks.sort_unstable();
        Ok(chunks.into_iter().map(|(_, id)| id).collect())
    }

    /// History goes.
    pub(crate) async fn forget(&self, chunks: Vec<u32>) -> Result<(), ShardError> {
        let build = move |state: &ShardState| {
            let gone: Vec<u32> = state
                .chunks()
                .filter(|chunk| chunk.live == 0 && chunks.contains(&chunk.id))
                .map(|chunk| chunk.id)
                .collect();
            let operations =
                if gone.is_empty() { Vec::new() } else { vec![Operation::Forgotten { chunks: gone }] };
            Ok(Build::new(operations, ()))
        };
        self.commit(Vec::new(), build).await
    }

    /// A producer's watermark, told without an item: so that what is remembered of an idle producer goes too.
    pub(crate) async fn learn(&self, producer: Uuid, watermark: u64) -> Result<(), ShardError> {
        let build = move |state: &ShardState| {
            let news = state.watermark_of(producer) < watermark;
            let operations =
                if news { vec![Operation::Watermark { producer, watermark }] } else { Vec::new() };
            Ok(Build::new(operations, ()))
        };
        self.commit(Vec::new(), build).await
    }

    async fn commit<R, F>(&self, chunks: Vec<u32>, build: F) -> Result<R, ShardError>
    where
        R: Send + 'static,
        F: FnMut(&ShardState) -> Result<Build<Operation, R>, ShardError> + Send + 'static,
    {
        let committed = self.handle.commit(chunks, build).await.map_err(|error| self.refused(error))?;
        Ok(committed.answer)
    }

    fn refused(&self, error: CommitError<ShardError>) -> ShardError {
        match error {
            CommitError::Rejected(error) => error,
            CommitError::Unknown => ShardError::Undecided { shard: self.id },
            other => self.unavailable(&other),
        }
    }

    fn unavailable(&self, error: &dyn std::error::Error) -> ShardError {
        ShardError::Unavailable { shard: self.id, reason: with_causes(error) }
    }
}

fn find(shard: ShardId, state: &ShardState, place: Place) -> Result<&Arc<Item>, ShardError> {
    state.item(place).ok_or(ShardError::Gone { shard, number: place.number })
}

fn chunks_of(places: impl Iterator<Item = Place>) -> Vec<u32> {
    let mut chunks: Vec<u32> = places.map(|place| place.chunk).collect();
    chunks.sort_unstable();
    chunks.dedup();
    chunks
}

fn lease_one(state: &ShardState, request: &LeaseRequest, boot: Uuid) -> (Option<Operation>, LeaseAnswer) {
    let place = request.place;
    let Some(item) = state.item(place) else { return (None, LeaseAnswer::Gone) };
    let Progress::Sending(sending) = &item.progress else { return (None, LeaseAnswer::Gone) };
    let attempts = item.attempts.saturating_add(1);
    let lease = Change::Leased { attempt: attempts, boot, seconds: request.seconds };
    let mut next = sending.clone();
    let mut recipients = Vec::new();
    for index in &request.recipients {
        let Some(recipient) = next.recipients.get_mut(*index as usize) else { continue };
        if let Ok(leased) = state::step(recipient, &lease) {
            *recipient = leased;
            recipients.push(*index);
        }
    }
    if recipients.is_empty() {
        return (None, LeaseAnswer::Nothing(item.clone()));
    }
    let changes = recipients.iter().map(|index| (*index, lease.clone())).collect();
    let operation = Operation::Remote { place, changes, attempts, due: None, finished: None };
    let item = Item { attempts, progress: Progress::Sending(next), ..(**item).clone() };
    (Some(operation), LeaseAnswer::Leased { item: Arc::new(item), recipients })
}

fn alter_one(state: &ShardState, alteration: &Alteration, now: u64) -> (Option<Operation>, Altered) {
    let Alteration { place, changes } = alteration;
    let place = *place;
    let Some(item) = state.item(place) else { return (None, Altered::Gone) };
    let Progress::Sending(sending) = &item.progress else { return (None, Altered::Gone) };
    let null = item.message.sender.reverse_path.is_null();
    let mut next = sending.clone();
    let (mut made, mut left_out) = (Vec::new(), Vec::new());
    for (at, (index, change)) in changes.iter().enumerate() {
        let recipient = next.recipients.get_mut(*index as usize);
        let Some((recipient, after)) = recipient
            .and_then(|recipient| state::step(recipient, change).ok().map(|after| (recipient, after)))
        else {
            left_out.push(at);
            continue;
        };
        *recipient = after;
        made.push((*index, change.clone()));
        // Where nobody is to be told there is nothing to wait for.
        if recipient.state.owes()
            && (null || !remote::wants_end(recipient))
            && let Ok(told) = state::step(recipient, &Change::Told)
        {
            *recipient = told;
            made.push((*index, Change::Told));
        }
    }
    let attempts = item.attempts;
    let mut item = (**item).clone();
    // Whoever is to be told something is told now, whatever the item had waited for.
    let owes = next.recipients.iter().any(|recipient| recipient.state.owes());
    let due = remote::due_of(&next, &item).min(if owes { now } else { u64::MAX });
    let done = next.recipients.iter().all(|recipient| recipient.state.is_final());
    item.progress = Progress::Sending(next);
    if done {
        let operation = Operation::Remote { place, changes: made, attempts, due: None, finished: Some(now) };
        return (Some(operation), Altered::Finished { left_out });
    }
    if made.is_empty() {
        return (None, Altered::Open { item: Arc::new(item), place, left_out });
    }
    item.due = due;
    let hour = hour_of(due);
    // What is due at once can stay in the chunk of an hour that is over.
    let stays = |here: u32| here == hour || (here <= hour_of(now) && due <= now);
    if state.hour_of(place.chunk).is_some_and(stays) {
        let operation = Operation::Remote { place, changes: made, attempts, due: Some(due), finished: None };
        return (Some(operation), Altered::Open { item: Arc::new(item), place, left_out });
    }
    let chunk = state.chunk_for(hour);
    let operation = Operation::Moved { from: place, chunk, hour, item: Box::new(item.clone()) };
    (Some(operation), Altered::Open { item: Arc::new(item), place: Place { chunk, ..place }, left_out })
}

fn settle_one(
    state: &ShardState,
    settlement: &Settlement,
    now: u64,
    operations: &mut Vec<Operation>,
) -> Settled {
    let Some(item) = state.item(settlement.place) else { return Settled::Gone };
    let Progress::Ingest(expansion) = &item.progress else {
        return Settled::Illegal(Illegal("only ingest items are settled so"));
    };
    // The first outcome stays, so what another worker has settled meanwhile is left out.
    let outcomes: Vec<(u32, Outcome)> = settlement
        .outcomes
        .iter()
        .filter(|(target, _)| {
            !expansion.slices.iter().any(|slice| slice.holds(*target) && slice.is_settled(*target))
        })
        .cloned()
        .collect();
    let next = match state::settle(expansion, &outcomes, settlement.placed) {
        Ok(next) => next,
        Err(illegal) => return Settled::Illegal(illegal),
    };
    let done = state::is_done(&next, item.message.details.recipients());
    if done || next != *expansion {
        operations.push(Operation::Settled {
            place: settlement.place,
            outcomes,
            placed: settlement.placed,
            finished: done.then_some(now),
        });
    }
    if done {
        Settled::Finished
    } else {
        Settled::Open(Arc::new(Item { progress: Progress::Ingest(next), ..(**item).clone() }))
    }
}
