//! Chunks: the items of a shard that are due in one hour, some hundred of them together, and the pages that they are
//! stored in. Finished items stay in their chunk as history.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{FoldError, FormatError};
use mail::address::ReversePath;
use mail::id::QueueId;
use serde::{Deserialize, Serialize};

use crate::entry::{Departure, Operation, Place, decode_versioned};
use crate::item::{
    Derivation, Destination, FATES_MAX, Fate, Finished, Item, Outcome, Progress, RemoteRecipient,
    RemoteState, Targets,
};
use crate::state;

/// Items that go into one chunk, in all. A page is then some 100 KB: small enough to be written again after a change,
/// large enough that a fortnight's history is a few hundred of them.
pub const CHUNK_ITEMS_MAX: u32 = 256;

/// A chunk in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// Unfinished items by number.
    live: BTreeMap<u64, Arc<Item>>,
    /// Finished ones, in the order in which they finished.
    finished: Vec<Arc<Finished>>,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    live: Vec<Arc<Item>>,
    finished: Vec<Arc<Finished>>,
}

const VERSION: u8 = 2;

/// A page as it was before history kept Message-IDs.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct StoredV1 {
    live: Vec<Arc<Item>>,
    finished: Vec<FinishedV1>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct FinishedV1 {
    number: u64,
    queue_id: QueueId,
    accepted: u64,
    finished: u64,
    size: u64,
    reverse_path: ReversePath,
    attempts: u32,
    derived: Option<Derivation>,
    targets: u32,
    departure: Option<Departure>,
    fates: Vec<Fate>,
}

impl From<StoredV1> for Stored {
    fn from(stored: StoredV1) -> Self {
        let finished = stored.finished.into_iter().map(|before| {
            Arc::new(Finished {
                number: before.number,
                queue_id: before.queue_id,
                accepted: before.accepted,
                finished: before.finished,
                size: before.size,
                reverse_path: before.reverse_path,
                attempts: before.attempts,
                derived: before.derived,
                targets: before.targets,
                departure: before.departure,
                fates: before.fates,
                message_id: None,
            })
        });
        Self { live: stored.live, finished: finished.collect() }
    }
}

impl Chunk {
    /// An unfinished item.
    pub fn get(&self, number: u64) -> Option<&Arc<Item>> {
        self.live.get(&number)
    }

    /// Unfinished items, by number.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.live.values()
    }

    /// Finished items, in the order in which they finished.
    pub fn finished(&self) -> impl Iterator<Item = &Arc<Finished>> {
        self.finished.iter()
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored { live: self.live.values().cloned().collect(), finished: self.finished.clone() };
        let mut bytes =
            postcard::to_extend(&stored, vec![VERSION]).expect("items have nothing that cannot be encoded");
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reverse of [`Self::encode`].
    pub fn decode(page: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "queue page";
        let Some((bytes, sum)) = page.split_last_chunk::<4>() else {
            return Err(FormatError::malformed(WHAT, "too short"));
        };
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return Err(FormatError::malformed(WHAT, "checksum does not match"));
        }
        let stored: Stored = match bytes.first() {
            Some(1) => decode_versioned::<StoredV1>(WHAT, 1, bytes)?.into(),
            _ => decode_versioned(WHAT, VERSION, bytes)?,
        };
        let live: Vec<Arc<Item>> = stored.live.into_iter().map(current).collect();
        let weight = live.iter().map(|item| item_weight(item)).sum::<usize>()
            + stored.finished.iter().map(|item| finished_weight(item)).sum::<usize>();
        if !live.is_sorted_by_key(|item| item.number) {
            return Err(FormatError::malformed(WHAT, "items out of order"));
        }
        let live = live.into_iter().map(|item| (item.number, item)).collect();
        Ok(Self { live, finished: stored.finished, bytes: weight })
    }

    /// Applies what an operation does in this chunk.
    pub fn apply(&mut self, chunk: u32, seq: u64, operation: &Operation) -> Result<(), FoldError> {
        let refuse = |reason: &'static str| FoldError::new(seq, reason);
        match operation {
            Operation::Accepted { due, message, progress, .. } => self.insert(Item {
                number: seq,
                message: Arc::new((**message).clone()),
                due: *due,
                attempts: 0,
                began: None,
                crashes: 0,
                progress: progress.clone().current(),
            }),
            Operation::Expanded { place, expanded, owners, slice } => self.change(seq, *place, |item| {
                let mut expansion =
                    state::expand(item, *expanded, slice.as_ref()).map_err(|e| refuse(e.0))?;
                expansion.owners.extend(owners.iter().cloned());
                item.progress = Progress::Ingest(expansion);
                Ok(())
            })?,
            Operation::Settled { place, outcomes, placed, finished } => {
                self.change(seq, *place, |item| {
                    let Progress::Ingest(expansion) = &item.progress else {
                        return Err(refuse("only ingest items are settled so"));
                    };
                    let next = state::settle(expansion, outcomes, *placed).map_err(|e| refuse(e.0))?;
                    if finished.is_some() && !state::is_done(&next, item.message.details.recipients()) {
                        return Err(refuse("item is not done"));
                    }
                    item.progress = Progress::Ingest(next);
                    Ok(())
                })?;
                if let Some(at) = finished {
                    self.finish(seq, *place, *at, None)?;
                }
            }
            Operation::RemoteSettled { place, states, finished } => {
                self.change(seq, *place, |item| {
                    let recipients = remote_of(item).map_err(refuse)?;
                    for (index, to) in states {
                        let recipient =
                            recipients.get_mut(*index as usize).ok_or_else(|| refuse("no such recipient"))?;
                        state::advance(&recipient.state, to).map_err(|e| refuse(e.0))?;
                        recipient.state = to.clone();
                    }
                    if finished.is_some() && !recipients.iter().all(|recipient| recipient.state.is_final()) {
                        return Err(refuse("item is not done"));
                    }
                    Ok(())
                })?;
                if let Some(at) = finished {
                    self.finish(seq, *place, *at, None)?;
                }
            }
            Operation::Remote { place, changes, attempts, due, finished } => {
                self.change(seq, *place, |item| {
                    item.attempts = *attempts;
                    item.due = due.unwrap_or(item.due);
                    let recipients = remote_of(item).map_err(refuse)?;
                    for (index, change) in changes {
                        let recipient =
                            recipients.get_mut(*index as usize).ok_or_else(|| refuse("no such recipient"))?;
                        *recipient = state::step(recipient, change).map_err(|e| refuse(e.0))?;
                    }
                    if finished.is_some() && !recipients.iter().all(|recipient| recipient.state.is_final()) {
                        return Err(refuse("item is not done"));
                    }
                    Ok(())
                })?;
                if let Some(at) = finished {
                    self.finish(seq, *place, *at, None)?;
                }
            }
            Operation::Rerouted { place, route } => {
                self.change(seq, *place, |item| match &mut item.progress {
                    Progress::Sending(sending) => {
                        sending.route.clone_from(route);
                        Ok(())
                    }
                    _ => Err(refuse("only outbound items have a route")),
                })?;
            }
            Operation::PutOff { place, due } => self.change(seq, *place, |item| {
                item.due = *due;
                item.attempts += 1;
                item.began = None;
                Ok(())
            })?,
            Operation::Moved { from, chunk: to, item, .. } => {
                // An item that stays in its chunk is replaced; it must not be lost between the two halves.
                if from.chunk == chunk {
                    let gone = self.live.remove(&from.number).ok_or_else(|| refuse("no such item"))?;
                    self.bytes -= item_weight(&gone);
                }
                if *to == chunk {
                    let mut item = (**item).clone();
                    item.progress = item.progress.current();
                    self.insert(item);
                }
            }
            Operation::Began { place, boot, crashes } => self.change(seq, *place, |item| {
                item.began = Some(*boot);
                item.crashes = *crashes;
                Ok(())
            })?,
            Operation::Left { place, at, departure } => self.finish(seq, *place, *at, Some(*departure))?,
            Operation::Booted { .. }
            | Operation::Window { .. }
            | Operation::Forgotten { .. }
            | Operation::Watermark { .. }
            | Operation::Cursor { .. }
            | Operation::Archived { .. } => return Err(refuse("operation has no effect on a chunk")),
        }
        Ok(())
    }

    fn insert(&mut self, item: Item) {
        self.bytes += item_weight(&item);
        self.live.insert(item.number, Arc::new(item));
    }

    fn change(
        &mut self,
        seq: u64,
        place: Place,
        change: impl FnOnce(&mut Item) -> Result<(), FoldError>,
    ) -> Result<(), FoldError> {
        let slot = self.live.get_mut(&place.number).ok_or_else(|| FoldError::new(seq, "no such item"))?;
        self.bytes -= item_weight(slot);
        let item = Arc::make_mut(slot);
        let result = change(item);
        self.bytes += item_weight(item);
        result
    }

    fn finish(
        &mut self,
        seq: u64,
        place: Place,
        at: u64,
        departure: Option<Departure>,
    ) -> Result<(), FoldError> {
        let item = self.live.remove(&place.number).ok_or_else(|| FoldError::new(seq, "no such item"))?;
        self.bytes -= item_weight(&item);
        let finished = finished(&item, at, departure);
        self.bytes += finished_weight(&finished);
        self.finished.push(Arc::new(finished));
        Ok(())
    }
}

/// An item as it was stored, in the form that is worked with.
fn current(item: Arc<Item>) -> Arc<Item> {
    if !matches!(item.progress, Progress::Outbound(_)) {
        return item;
    }
    let mut item = Arc::unwrap_or_clone(item);
    item.progress = item.progress.current();
    Arc::new(item)
}

/// The recipients of an outbound item.
fn remote_of(item: &mut Item) -> Result<&mut Vec<RemoteRecipient>, &'static str> {
    match &mut item.progress {
        Progress::Sending(sending) => Ok(&mut sending.recipients),
        _ => Err("only outbound items have remote recipients"),
    }
}

/// What stays of an item in history.
fn finished(item: &Item, at: u64, departure: Option<Departure>) -> Finished {
    let message = &item.message;
    let recipients = message.details.here().map(|details| details.recipients.as_slice()).unwrap_or_default();
    let left = match departure {
        Some(Departure::Quarantined) => Some(Outcome::Quarantined),
        Some(Departure::Dropped) => Some(Outcome::Cancelled),
        Some(Departure::Released) | None => None,
    };
    let mut fates = Vec::new();
    let mut targets = 0;
    match &item.progress {
        // What is read as the older form has become the newer one.
        Progress::Outbound(_) => {}
        Progress::Sending(sending) => {
            targets = sending.recipients.len() as u32;
            fates.extend(sending.recipients.iter().take(FATES_MAX).map(|recipient| Fate {
                address: Some(recipient.recipient.address.clone()),
                account: None,
                outcome: remote_outcome(recipient, message.sender.reverse_path.is_null()),
            }));
        }
        Progress::Ingest(expansion)
        | Progress::Quarantined(crate::item::Quarantined { rest: expansion, .. }) => {
            for slice in &expansion.slices {
                targets += slice.count;
                let Targets::Here(held) = &slice.targets else { continue };
                for (number, target) in (slice.first..).zip(held.iter()) {
                    if fates.len() == FATES_MAX {
                        break;
                    }
                    let outcome = slice.outcome(number).cloned().or_else(|| {
                        if slice.placed { Some(Outcome::placed(&target.to)) } else { left.clone() }
                    });
                    let Some(outcome) = outcome else { continue };
                    let own =
                        recipients.get(target.recipient as usize).map(|recipient| recipient.address.clone());
                    fates.push(match &target.to {
                        Destination::Local { account, .. } => {
                            Fate { address: own, account: Some(*account), outcome }
                        }
                        Destination::Remote { address, .. } => {
                            Fate { address: Some(address.clone()), account: None, outcome }
                        }
                        Destination::Unreachable { address, .. } => {
                            Fate { address: address.clone().or(own), account: None, outcome }
                        }
                        Destination::Same { .. } => Fate { address: own, account: None, outcome },
                    });
                }
            }
        }
    }
    Finished {
        number: item.number,
        queue_id: message.queue_id,
        accepted: message.accepted,
        finished: at,
        size: message.body.size,
        reverse_path: message.sender.reverse_path.clone(),
        attempts: item.attempts,
        derived: message.derived,
        targets,
        departure,
        fates,
        message_id: message.details.notes().and_then(|notes| notes.message_id.clone()),
    }
}

fn remote_outcome(recipient: &RemoteRecipient, null_sender: bool) -> Outcome {
    let told = !null_sender && crate::remote::wants_end(recipient);
    match (&recipient.state, &recipient.last) {
        (RemoteState::Delivered | RemoteState::Relayed, Some(said)) => {
            Outcome::Sent { said: Box::new(said.clone()), doubts: recipient.doubts }
        }
        (RemoteState::Delivered | RemoteState::Relayed, None) => Outcome::Delivered,
        (RemoteState::Failed { failure, settled }, _) => {
            Outcome::Failed { failure: failure.clone(), notified: *settled && told }
        }
        (RemoteState::Expired { settled }, _) => Outcome::Expired { notified: *settled && told },
        (RemoteState::Cancelled, _) => Outcome::Cancelled,
        (
            RemoteState::Pending
            | RemoteState::Leased { .. }
            | RemoteState::InDoubt { .. }
            | RemoteState::Held,
            _,
        ) => Outcome::Queued,
    }
}

/// Bytes in memory of an item and of what it holds; also about what it takes in a page.
fn item_weight(item: &Item) -> usize {
    const ITEM: usize = 480;
    const EACH: usize = 96;
    let details = match item.message.details.here() {
        Some(details) => details.prefix.len() + details.recipients.len() * EACH,
        None => 160,
    };
    let noted = item.message.details.notes().map_or(0, |_| 160);
    let progress = match &item.progress {
        Progress::Outbound(recipients) => recipients.len() * EACH,
        Progress::Sending(sending) => {
            let said =
                |recipient: &RemoteRecipient| recipient.last.as_ref().map_or(0, |said| 96 + said.reply.len());
            sending.recipients.iter().map(|recipient| 2 * EACH + said(recipient)).sum()
        }
        Progress::Ingest(expansion)
        | Progress::Quarantined(crate::item::Quarantined { rest: expansion, .. }) => expansion
            .slices
            .iter()
            .map(|slice| {
                let held = match &slice.targets {
                    Targets::Here(targets) => targets.len() * EACH,
                    Targets::Apart { .. } => 160,
                };
                held + slice.outcomes.len() * EACH
            })
            .sum(),
    };
    ITEM + details + noted + progress
}

fn finished_weight(finished: &Finished) -> usize {
    160 + finished.fates.len() * 80 + finished.message_id.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use mail::envelope::Recipient;
    use uuid::Uuid;

    use super::*;
    use crate::fold::tests::item;
    use crate::item::{OutboundRecipient, Sending};

    /// Pages that were written before are read, and items for other hosts come in the newer form.
    #[test]
    fn older_pages_are_read() {
        let address = mail::address::Address::parse("bob@example.org").unwrap();
        let pending = || OutboundRecipient {
            target: 3,
            recipient: Recipient::new(address.clone()),
            state: RemoteState::Pending,
        };
        let outbound = Item { progress: Progress::Outbound(vec![pending()]), ..item(2) };
        let finished = FinishedV1 {
            number: 9,
            queue_id: QueueId(Uuid::from_u128(9)),
            accepted: 5,
            finished: 6,
            size: 7,
            reverse_path: ReversePath::NULL,
            attempts: 1,
            derived: None,
            targets: 0,
            departure: None,
            fates: Vec::new(),
        };
        let stored = StoredV1 { live: vec![Arc::new(item(1)), Arc::new(outbound)], finished: vec![finished] };
        let mut page = postcard::to_extend(&stored, vec![1]).unwrap();
        page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
        let chunk = Chunk::decode(&page).unwrap();
        let expected = Sending { route: None, recipients: vec![pending().into()] };
        assert_eq!(chunk.get(2).unwrap().progress, Progress::Sending(expected));
        assert_eq!(chunk.get(1).unwrap().progress, item(1).progress);
        let finished: Vec<_> = chunk.finished().map(|done| (done.number, done.message_id.clone())).collect();
        assert_eq!(finished, [(9, None)]);
        assert_eq!(Chunk::decode(&chunk.encode()).unwrap(), chunk);
    }
}
