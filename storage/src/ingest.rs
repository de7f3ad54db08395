//! What was delivered: for each producer, which of its items are done.
//!
//! A producer is a shard of the queue. Everything it sends carries its low watermark, below which all its items are
//! done; so only what lies above has to be remembered, and nothing is remembered by the clock.
//!
//! Shards have the same names in every installation. So of an account that has moved, what was delivered is kept by the
//! installation whose shards are meant, and what is asked and noted is always about those of where the account is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::{Delivered, IngestId};
use crate::entry::Ingest;
use crate::index::StoredPage;
use crate::pack::row_digest;

/// All producers are of the installation where the account is.
const VERSION: u8 = 1;
/// Each has its home beside its name.
const VERSION_WITH_HOMES: u8 = 2;

/// What became of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It was put into a mailbox, under a UID.
    Placed { mailbox: u32, uid: u32 },
    /// It will never be.
    Rejected,
    /// It lies below the producer's watermark: done, and no more is known.
    Done,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Producer {
    below: u64,
    done: BTreeMap<(u64, u32), Outcome>,
}

/// An installation, by a hash of its region's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Home([u8; 16]);

impl Home {
    /// Wherever the account is.
    const HERE: Self = Self([0; 16]);

    fn of(region: &str) -> Self {
        let hash = blake3::derive_key("postrider storage 2026 home of producers", region.as_bytes());
        Self(hash[..16].try_into().expect("a hash is longer than that"))
    }
}

type Known = BTreeMap<(Home, Uuid), Arc<Producer>>;

#[derive(Clone, Debug)]
enum Effect {
    Outcome(IngestId, Outcome),
    Watermark(Uuid, u64),
    Moved { from: Home, into: Home },
}

/// All producers, on one page. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Producers {
    /// Where the page is stored, as long as nothing has changed since.
    stored: Option<StoredPage>,
    loaded: Option<Arc<Known>>,
    pending: Vec<Effect>,
}

/// What a snapshot did, to be taken over when it is current.
#[derive(Debug)]
pub(crate) struct ProducersWritten {
    written: Option<Arc<Known>>,
    pub(crate) stored: Option<StoredPage>,
}

impl Producers {
    pub(crate) fn from_stored(stored: Option<StoredPage>) -> Self {
        Self { stored, loaded: stored.is_none().then(Arc::default), pending: Vec::new() }
    }

    /// What became of an item. `Err`: the page is not loaded.
    pub(crate) fn get(&self, id: IngestId) -> Result<Option<Outcome>, Option<PageId>> {
        let loaded = self.loaded.as_ref().ok_or(self.stored.map(|stored| stored.id))?;
        Ok(loaded.get(&(Home::HERE, id.producer)).and_then(|producer| producer.outcome(id)))
    }

    /// Whether the account has ever moved. `Err`: the page is not loaded.
    pub(crate) fn have_moved(&self) -> Result<bool, Option<PageId>> {
        let loaded = self.loaded.as_ref().ok_or(self.stored.map(|stored| stored.id))?;
        Ok(loaded.keys().any(|(home, _)| *home != Home::HERE))
    }

    /// What was delivered where the account is. `Err`: the page is not loaded.
    pub(crate) fn of_here(&self) -> Result<Deliveries, Option<PageId>> {
        let loaded = self.loaded.as_ref().ok_or(self.stored.map(|stored| stored.id))?;
        let here = loaded.iter().filter(|((home, _), _)| *home == Home::HERE);
        Ok(Deliveries(here.map(|((_, id), producer)| (*id, Arc::clone(producer))).collect()))
    }

    /// The account has come from one region into another: what was delivered there is put aside under its name, and what
    /// was delivered here before, if it ever was here, counts again.
    pub(crate) fn moved(&mut self, from: &str, into: &str) {
        self.apply(Effect::Moved { from: Home::of(from), into: Home::of(into) });
    }

    pub(crate) fn done(&mut self, ingest: &Ingest, outcome: Outcome) {
        self.apply(Effect::Outcome(ingest.id, outcome));
        self.watermark(ingest.id.producer, ingest.watermark);
    }

    pub(crate) fn watermark(&mut self, producer: Uuid, below: u64) {
        if below > 0 {
            self.apply(Effect::Watermark(producer, below));
        }
    }

    fn apply(&mut self, effect: Effect) {
        let Some(loaded) = &mut self.loaded else {
            self.pending.push(effect);
            return;
        };
        match effect {
            Effect::Outcome(id, outcome) => {
                let known = Arc::make_mut(loaded).entry((Home::HERE, id.producer)).or_default();
                if id.item >= known.below {
                    Arc::make_mut(known).done.insert((id.item, id.part), outcome);
                }
            }
            Effect::Watermark(producer, below) => {
                let key = (Home::HERE, producer);
                if loaded.get(&key).is_some_and(|known| known.below >= below) {
                    return;
                }
                let known = Arc::make_mut(Arc::make_mut(loaded).entry(key).or_default());
                known.below = below;
                known.done = known.done.split_off(&(below, 0));
            }
            Effect::Moved { from, into } => *loaded = Arc::new(rehomed(loaded, from, into)),
        }
        self.stored = None;
    }

    pub(crate) fn missing(&self) -> Vec<PageId> {
        if self.loaded.is_some() { Vec::new() } else { self.stored.iter().map(|stored| stored.id).collect() }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
            || self.stored.is_none() && self.loaded.as_ref().is_some_and(|loaded| !loaded.is_empty())
    }

    pub(crate) fn install(&mut self, pages: &[(PageId, Bytes)]) -> Result<(), FormatError> {
        let (None, Some(stored)) = (&self.loaded, self.stored) else { return Ok(()) };
        let Some((_, bytes)) = pages.iter().find(|(id, _)| *id == stored.id) else { return Ok(()) };
        self.loaded = Some(Arc::new(decode(bytes)?));
        for effect in std::mem::take(&mut self.pending) {
            self.apply(effect);
        }
        Ok(())
    }

    pub(crate) fn store(&self, mut write: impl FnMut(Vec<u8>, u128) -> StoredPage) -> ProducersWritten {
        match (&self.loaded, self.stored) {
            (Some(loaded), None) if !loaded.is_empty() => {
                let stored = write(encode(loaded), self.digest());
                ProducersWritten { written: Some(loaded.clone()), stored: Some(stored) }
            }
            (_, stored) => ProducersWritten { written: None, stored },
        }
    }

    pub(crate) fn stored(&mut self, written: &ProducersWritten) {
        if let (Some(loaded), Some(stored)) = (&self.loaded, &written.written)
            && Arc::ptr_eq(loaded, stored)
        {
            self.stored = written.stored;
        }
    }

    /// Nothing may be pending.
    pub(crate) fn digest(&self) -> u128 {
        match (&self.loaded, self.stored) {
            (_, Some(stored)) => stored.digest,
            (Some(loaded), None) => loaded.iter().fold(0, |sum, ((home, id), producer)| {
                let bytes = if *home == Home::HERE {
                    postcard::to_stdvec(&(id, producer))
                } else {
                    postcard::to_stdvec(&(home, id, producer))
                };
                sum.wrapping_add(row_digest(5, &bytes.expect("ids and numbers only")))
            }),
            (None, None) => 0,
        }
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.is_dirty() { self.weight() / 2 } else { 0 }
    }

    pub(crate) fn weight(&self) -> usize {
        let loaded = self.loaded.iter().flat_map(|loaded| loaded.values());
        loaded.map(|producer| 80 + producer.done.len() * 40).sum::<usize>() + self.pending.len() * 48
    }

    pub(crate) fn shed(&mut self) -> usize {
        let weight = self.weight();
        if self.stored.is_some() && self.loaded.take().is_some() { weight } else { 0 }
    }
}

impl Producer {
    fn outcome(&self, id: IngestId) -> Option<Outcome> {
        if id.item < self.below {
            return Some(Outcome::Done);
        }
        self.done.get(&(id.item, id.part)).copied()
    }
}

/// What was delivered to an account in the region where it was: for whoever has items there that were for it, when it
/// has gone.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(BTreeMap<Uuid, Arc<Producer>>);

impl Deliveries {
    /// What became of an item; `None`: nothing, and nothing ever will in that region.
    #[must_use]
    pub fn of(&self, id: IngestId) -> Option<Delivered> {
        self.0.get(&id.producer).and_then(|producer| producer.outcome(id)).map(Delivered::from)
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(&self.0, vec![VERSION]).expect("ids and numbers only")
    }

    /// Reverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        match bytes.split_first() {
            Some((&VERSION, payload)) => postcard::from_bytes(payload).map(Self).map_err(malformed),
            _ => Err(malformed("not version 1")),
        }
    }
}

/// What was of here is of `from`, and what was of `into` is of here. `from` stands there in any case, so that it can be seen
/// that the account has moved.
fn rehomed(known: &Known, from: Home, into: Home) -> Known {
    let moved = known.iter().map(|((home, id), producer)| {
        let home = match *home {
            Home::HERE => from,
            home if home == into => Home::HERE,
            home => home,
        };
        ((home, *id), Arc::clone(producer))
    });
    let mut moved: Known = moved.filter(|((home, id), _)| *home != Home::HERE || !id.is_nil()).collect();
    moved.entry((from, Uuid::nil())).or_default();
    moved
}

fn encode(producers: &Known) -> Vec<u8> {
    if producers.keys().any(|(home, _)| *home != Home::HERE) {
        return postcard::to_extend(producers, vec![VERSION_WITH_HOMES]).expect("ids and numbers only");
    }
    let here: BTreeMap<_, _> = producers.iter().map(|((_, id), producer)| (id, producer)).collect();
    postcard::to_extend(&here, vec![VERSION]).expect("ids and numbers only")
}

fn decode(bytes: &[u8]) -> Result<Known, FormatError> {
    let (version, payload) = bytes.split_first().ok_or_else(|| malformed("empty"))?;
    match *version {
        VERSION => {
            let here: BTreeMap<Uuid, Arc<Producer>> = postcard::from_bytes(payload).map_err(malformed)?;
            Ok(here.into_iter().map(|(id, producer)| ((Home::HERE, id), producer)).collect())
        }
        VERSION_WITH_HOMES => postcard::from_bytes(payload).map_err(malformed),
        other => Err(FormatError::Unknown { what: "version of page of producers", number: other.into() }),
    }
}

fn malformed(error: impl std::fmt::Display) -> FormatError {
    FormatError::malformed("page of producers", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingest(item: u64, part: u32, watermark: u64) -> Ingest {
        Ingest { id: IngestId { producer: Uuid::from_u128(1), item, part }, watermark }
    }

    #[test]
    fn items_below_the_watermark_are_done_and_forgotten() {
        let mut producers = Producers::from_stored(None);
        let placed = Outcome::Placed { mailbox: 1, uid: 2 };
        producers.done(&ingest(5, 0, 0), placed);
        producers.done(&ingest(5, 1, 0), Outcome::Rejected);
        producers.done(&ingest(7, 0, 6), placed);
        let get = |producers: &Producers, item, part| producers.get(ingest(item, part, 0).id).unwrap();
        assert_eq!(get(&producers, 5, 0), Some(Outcome::Done));
        assert_eq!(get(&producers, 4, 9), Some(Outcome::Done));
        assert_eq!(get(&producers, 6, 0), None);
        assert_eq!(get(&producers, 7, 0), Some(placed));
        producers.watermark(Uuid::from_u128(1), 3);
        assert_eq!(get(&producers, 4, 9), Some(Outcome::Done), "a watermark never sinks");
        assert_eq!(producers.loaded.as_ref().unwrap().values().next().unwrap().done.len(), 1);
        assert_eq!(producers.get(IngestId { producer: Uuid::from_u128(2), item: 1, part: 0 }), Ok(None));
    }

    #[test]
    fn what_happens_while_not_loaded_is_remembered() {
        let mut producers = Producers::from_stored(None);
        producers.done(&ingest(5, 0, 0), Outcome::Rejected);
        let mut page = Bytes::new();
        let id = PageId { base_seq: 0, attempt: Uuid::nil(), number: 1 };
        let written = producers.store(|bytes, digest| {
            page = Bytes::from(bytes);
            StoredPage { id, digest, bytes: 0 }
        });
        producers.stored(&written);
        assert!(!producers.is_dirty());
        let mut reopened = Producers::from_stored(written.stored);
        assert_eq!(reopened.digest(), producers.digest());
        assert!(reopened.get(ingest(5, 0, 0).id).is_err());
        for producers in [&mut producers, &mut reopened] {
            producers.done(&ingest(8, 0, 6), Outcome::Rejected);
        }
        assert!(reopened.is_dirty());
        reopened.install(&[(id, page)]).unwrap();
        assert_eq!(reopened.digest(), producers.digest());
        assert_eq!(reopened.get(ingest(5, 0, 0).id), Ok(Some(Outcome::Done)));
        assert_eq!(reopened.get(ingest(8, 0, 0).id), Ok(Some(Outcome::Rejected)));
    }

    /// Shards of two installations have the same names, and this one's are far behind.
    #[test]
    fn items_of_another_installation_are_other_items() {
        let mut producers = Producers::from_stored(None);
        let get = |producers: &Producers, item| producers.get(ingest(item, 0, 0).id).unwrap();
        producers.done(&ingest(1_007, 0, 1_000), Outcome::Rejected);
        assert_eq!(producers.have_moved(), Ok(false));
        let left = Deliveries::decode(&producers.of_here().unwrap().encode()).unwrap();
        producers.moved("eu", "us");
        assert_eq!(producers.have_moved(), Ok(true));
        for item in [1, 999, 1_007] {
            assert_eq!(get(&producers, item), None, "{item} of us");
        }
        producers.done(&ingest(3, 0, 2), Outcome::Rejected);
        assert_eq!(get(&producers, 1), Some(Outcome::Done));
        assert_eq!(get(&producers, 3), Some(Outcome::Rejected));
        // What stays where it came from.
        assert_eq!(left.of(ingest(999, 0, 0).id), Some(Delivered::Already));
        assert_eq!(left.of(ingest(1_007, 0, 0).id), Some(Delivered::Rejected));
        assert_eq!(left.of(ingest(1_008, 0, 0).id), None);
        // And what counts again, by way of a third.
        producers.moved("us", "asia");
        assert_eq!(get(&producers, 1), None);
        producers.moved("asia", "eu");
        assert_eq!(get(&producers, 999), Some(Outcome::Done), "delivered, and not reported, before all that");
        assert_eq!(get(&producers, 1_007), Some(Outcome::Rejected));
        assert_eq!(get(&producers, 1_008), None);
        producers.moved("eu", "us");
        assert_eq!(get(&producers, 3), Some(Outcome::Rejected));
        assert_eq!(get(&producers, 4), None);
    }

    #[test]
    fn a_move_is_folded_without_the_page() {
        let mut producers = Producers::from_stored(None);
        producers.done(&ingest(5, 0, 4), Outcome::Rejected);
        producers.moved("eu", "us");
        producers.done(&ingest(1, 0, 0), Outcome::Rejected);
        let mut page = Bytes::new();
        let id = PageId { base_seq: 0, attempt: Uuid::nil(), number: 1 };
        let written = producers.store(|bytes, digest| {
            page = Bytes::from(bytes);
            StoredPage { id, digest, bytes: 0 }
        });
        producers.stored(&written);
        assert_eq!(page[0], VERSION_WITH_HOMES);
        let mut reopened = Producers::from_stored(written.stored);
        for producers in [&mut producers, &mut reopened] {
            producers.moved("us", "eu");
            producers.done(&ingest(6, 0, 4), Outcome::Rejected);
        }
        reopened.install(&[(id, page)]).unwrap();
        assert_eq!(reopened.digest(), producers.digest());
        assert_eq!(reopened.get(ingest(3, 0, 0).id), Ok(Some(Outcome::Done)));
        assert_eq!(reopened.get(ingest(5, 0, 0).id), Ok(Some(Outcome::Rejected)));
    }
}
