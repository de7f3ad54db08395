//! What was delivered: for each producer, which of its items are done.
//!
//! A producer is a shard of the queue. Everything it sends carries its low watermark, below which all its items are
//! done; so only what lies above has to be remembered, and nothing is remembered by the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::append::IngestId;
use crate::entry::Ingest;
use crate::index::StoredPage;
use crate::pack::row_digest;

const VERSION: u8 = 1;

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

#[derive(Clone, Debug)]
enum Effect {
    Outcome(IngestId, Outcome),
    Watermark(Uuid, u64),
}

/// All producers, on one page. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Producers {
    /// Where the page is stored, as long as nothing has changed since.
    stored: Option<StoredPage>,
    loaded: Option<Arc<BTreeMap<Uuid, Arc<Producer>>>>,
    pending: Vec<Effect>,
}

/// What a snapshot did, to be taken over when it is current.
#[derive(Debug)]
pub(crate) struct ProducersWritten {
    written: Option<Arc<BTreeMap<Uuid, Arc<Producer>>>>,
    pub(crate) stored: Option<StoredPage>,
}

impl Producers {
    pub(crate) fn from_stored(stored: Option<StoredPage>) -> Self {
        Self { stored, loaded: stored.is_none().then(Arc::default), pending: Vec::new() }
    }

    /// What became of an item. `Err`: the page is not loaded.
    pub(crate) fn get(&self, id: IngestId) -> Result<Option<Outcome>, Option<PageId>> {
        let loaded = self.loaded.as_ref().ok_or(self.stored.map(|stored| stored.id))?;
        let Some(producer) = loaded.get(&id.producer) else { return Ok(None) };
        if id.item < producer.below {
            return Ok(Some(Outcome::Done));
        }
        Ok(producer.done.get(&(id.item, id.part)).copied())
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
        let (producer, changes) = match effect {
            Effect::Outcome(id, _) => (id.producer, true),
            Effect::Watermark(producer, below) => {
                (producer, loaded.get(&producer).is_none_or(|known| known.below < below))
            }
        };
        if !changes {
            return;
        }
        self.stored = None;
        let known = Arc::make_mut(Arc::make_mut(loaded).entry(producer).or_default());
        match effect {
            Effect::Outcome(id, outcome) if id.item >= known.below => {
                known.done.insert((id.item, id.part), outcome);
            }
            Effect::Outcome(..) => {}
            Effect::Watermark(_, below) => {
                known.below = below;
                known.done = known.done.split_off(&(below, 0));
            }
        }
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
            (Some(loaded), None) => loaded.iter().fold(0, |sum, producer| {
                let bytes = postcard::to_stdvec(&producer).expect("ids and numbers only");
                sum.wrapping_add(row_digest(5, &bytes))
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

fn encode(producers: &BTreeMap<Uuid, Arc<Producer>>) -> Vec<u8> {
    postcard::to_extend(producers, vec![VERSION]).expect("ids and numbers only")
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<Uuid, Arc<Producer>>, FormatError> {
    let (version, payload) =
        bytes.split_first().ok_or_else(|| FormatError::malformed("page of producers", "empty"))?;
    if *version != VERSION {
        return Err(FormatError::Unknown { what: "version of page of producers", number: (*version).into() });
    }
    postcard::from_bytes(payload).map_err(|error| FormatError::malformed("page of producers", error))
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
}
