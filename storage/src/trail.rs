//! Trails: what happened, in the order of the log, kept for a while and forgotten from its old end.
//!
//! An account has three: which messages were expunged (for clients that resynchronise), what they were (for undelete),
//! and what else happened (for clients that ask for changes).
//! New entries go to the end and old ones leave as whole pages, so a trail is never reordered.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use mail::uid::UidSet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::entry::PlacedRow;
use crate::index::StoredPage;
use crate::pack::{packed_numbers, packed_uids, row_digest};

const VERSION: u8 = 1;

/// Where an entry stands: the operation that made it, and a number within it.
pub(crate) type Place = (u64, u32);

/// What a trail remembers.
pub(crate) trait Trace: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// For digests: no two kinds have the same.
    const TABLE: u8;
    /// The most bytes that its stored form may have; for what is said of damaged pages.
    const NAME: &'static str;

    /// Sum of the digests of the rows it stands for.
    fn digest(&self, place: Place) -> u128 {
        let bytes = postcard::to_stdvec(&(place, self)).expect("traces hold nothing that postcard refuses");
        row_digest(Self::TABLE, &bytes)
    }
}

/// Messages that left a mailbox by one operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ExpungedTrace {
    pub(crate) mailbox: u32,
    #[serde(with = "packed_uids")]
    pub(crate) uids: UidSet,
    /// Emails that are in no mailbox since.
    #[serde(with = "packed_numbers")]
    pub(crate) destroyed: Vec<u64>,
}

/// What messages were that one operation expunged from one mailbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RetainedTrace {
    pub(crate) mailbox: u32,
    /// UIDs, ascending, one for each row.
    #[serde(with = "packed_uids")]
    pub(crate) uids: UidSet,
    #[serde(with = "crate::entry::packed_rows")]
    pub(crate) rows: Vec<PlacedRow>,
}

impl Trace for ExpungedTrace {
    const TABLE: u8 = 3;
    const NAME: &'static str = "page of expunges";
}

impl Trace for RetainedTrace {
    const TABLE: u8 = 4;
    const NAME: &'static str = "page of retained messages";

    /// By message, since how messages of one operation are grouped depends on the pages that they lay in.
    fn digest(&self, (seq, _): Place) -> u128 {
        self.uids.iter().zip(&self.rows).fold(0, |sum, (uid, row)| {
            let one =
                (seq, self.mailbox, uid.get(), row.email, row.thread, row.marks, row.size, row.internal_date);
            let bytes = postcard::to_stdvec(&one).expect("numbers only");
            sum.wrapping_add(row_digest(Self::TABLE, &bytes))
        })
    }
}

/// A trail. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Trail<T: Trace> {
    /// Entries up to this operation are forgotten.
    below: u64,
    slots: Vec<Slot<T>>,
    /// What the snapshot does not have. Not always behind all stored entries: what was retained is known only once the
    /// page that a message was in has been loaded.
    recent: Arc<BTreeMap<Place, Arc<T>>>,
}

type Entries<T> = Vec<(Place, Arc<T>)>;

#[derive(Clone, Debug)]
struct Slot<T> {
    first: Place,
    last: Place,
    count: u32,
    stored: StoredPage,
    entries: Option<Arc<Entries<T>>>,
}

/// A trail as the root lists it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StoredTrail {
    below: u64,
    slots: Vec<StoredTrailSlot>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct StoredTrailSlot {
    first: Place,
    last: Place,
    count: u32,
    page: StoredPage,
}

/// What a snapshot did, to be taken over when it is current.
#[derive(Debug)]
pub(crate) struct TrailWritten<T: Trace> {
    below: u64,
    slots: Vec<Slot<T>>,
    recent: Arc<BTreeMap<Place, Arc<T>>>,
}

impl<T: Trace> Default for Trail<T> {
    fn default() -> Self {
        Self { below: 0, slots: Vec::new(), recent: Arc::default() }
    }
}

impl<T: Trace> Trail<T> {
    pub(crate) fn from_stored(stored: StoredTrail) -> Self {
        let slot = |slot: StoredTrailSlot| Slot {
            first: slot.first,
            last: slot.last,
            count: slot.count,
            stored: slot.page,
            entries: None,
        };
        Self {
            below: stored.below,
            slots: stored.slots.into_iter().map(slot).collect(),
            recent: Arc::default(),
        }
    }

    /// Nothing is known from before this operation.
    pub(crate) fn unknown_before(seq: u64) -> Self {
        Self { below: seq, ..Self::default() }
    }

    /// Entries up to this operation are forgotten.
    pub(crate) fn horizon(&self) -> u64 {
        self.below
    }

    pub(crate) fn push(&mut self, place: Place, trace: T) {
        if place.0 > self.below {
            Arc::make_mut(&mut self.recent).insert(place, Arc::new(trace));
        }
    }

    /// Forgets entries up to an operation.
    pub(crate) fn forget(&mut self, to: u64) {
        if to <= self.below {
            return;
        }
        self.below = to;
        self.slots.retain(|slot| slot.last.0 > to);
        if self.recent.first_key_value().is_some_and(|((seq, _), _)| *seq <= to) {
            Arc::make_mut(&mut self.recent).retain(|(seq, _), _| *seq > to);
        }
    }

    /// Up to which operation has to be forgotten so that the stored entries take no more than so many bytes. `None`: they
    /// do not. Whole pages, and never the last.
    pub(crate) fn excess(&self, bytes_max: usize) -> Option<u64> {
        let mut bytes: usize = self.slots.iter().map(|slot| slot.stored.bytes as usize).sum();
        let mut slots = self.slots.iter().peekable();
        let mut to = None;
        while bytes > bytes_max
            && let Some(slot) = slots.next()
            && slots.peek().is_some()
        {
            bytes -= slot.stored.bytes as usize;
            to = Some(slot.last.0);
        }
        to
    }

    /// Entries after an operation, in order. `Err`: a page is not loaded.
    pub(crate) fn since(&self, seq: u64) -> Result<Vec<(u64, &T)>, PageId> {
        let mut found = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.last.0 > seq) {
            let entries = slot.entries.as_ref().ok_or(slot.stored.id)?;
            found.extend(entries.iter().map(|(place, trace)| (*place, &**trace)));
        }
        found.extend(self.recent.iter().map(|(place, trace)| (*place, &**trace)));
        found.retain(|(place, _)| place.0 > seq && place.0 > self.below);
        found.sort_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(place, trace)| (place.0, trace)).collect())
    }

    /// Pages to load before [`Self::since`] can answer.
    pub(crate) fn missing(&self, since: u64) -> Vec<PageId> {
        let slots = self.slots.iter().filter(|slot| slot.last.0 > since && slot.entries.is_none());
        slots.map(|slot| slot.stored.id).collect()
    }

    /// Pages to load before [`Self::store`] can be called.
    pub(crate) fn missing_for_store(&self, page_bytes: usize) -> Vec<PageId> {
        let rewritten = self.slots[..self.cut()].iter().chain(&self.slots[self.slots_kept(page_bytes)..]);
        rewritten.filter(|slot| slot.entries.is_none()).map(|slot| slot.stored.id).collect()
    }

    /// Whether there is something to store.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.recent.is_empty() || self.cut() > 0
    }

    /// Number of pages at the old end of which a part is forgotten: none or one.
    fn cut(&self) -> usize {
        usize::from(self.slots.first().is_some_and(|slot| slot.first.0 <= self.below))
    }

    /// Up to where pages stay as they are when what is recent is stored. A last page that is not a quarter full is taken
    /// up again.
    fn slots_kept(&self, page_bytes: usize) -> usize {
        let Some(((first, _), _)) = self.recent.first_key_value() else { return self.slots.len() };
        let behind = self.slots.partition_point(|slot| slot.last.0 < *first);
        match self.slots[..behind].last() {
            Some(last) if (last.stored.bytes as usize) < page_bytes / 4 => behind - 1,
            _ => behind,
        }
    }

    pub(crate) fn install(&mut self, pages: &[(PageId, Bytes)]) -> Result<(), FormatError> {
        for slot in self.slots.iter_mut().filter(|slot| slot.entries.is_none()) {
            let Some((_, bytes)) = pages.iter().find(|(id, _)| *id == slot.stored.id) else { continue };
            let entries = decode::<T>(bytes)?;
            let ends = entries.first().zip(entries.last());
            if ends.is_none_or(|(first, last)| (first.0, last.0) != (slot.first, slot.last)) {
                return Err(FormatError::malformed(T::NAME, "not what the root says"));
            }
            slot.entries = Some(Arc::new(entries));
        }
        Ok(())
    }

    pub(crate) fn store(
        &self,
        page_bytes: usize,
        mut write: impl FnMut(Vec<u8>, u128) -> StoredPage,
    ) -> TrailWritten<T> {
        let (cut, kept) = (self.cut(), self.slots_kept(page_bytes));
        let mut slots = Vec::new();
        let entries_of = |slots: &[Slot<T>]| -> Entries<T> {
            let entries = slots.iter().filter_map(|slot| slot.entries.as_deref()).flatten();
            entries.filter(|(place, _)| place.0 > self.below).cloned().collect()
        };
        if cut > 0 && kept >= cut {
            write_slots(entries_of(&self.slots[..cut]), page_bytes, &mut slots, &mut write);
        }
        slots.extend_from_slice(&self.slots[cut.min(kept)..kept]);
        let mut entries = entries_of(&self.slots[kept..]);
        entries.extend(self.recent.iter().map(|(place, trace)| (*place, trace.clone())));
        entries.sort_by_key(|(place, _)| *place);
        write_slots(entries, page_bytes, &mut slots, &mut write);
        TrailWritten { below: self.below, slots, recent: self.recent.clone() }
    }

    /// What was recent then is stored now; what came since stays recent.
    pub(crate) fn stored(&mut self, written: &TrailWritten<T>) {
        self.slots.clone_from(&written.slots);
        let below = self.below;
        self.slots.retain(|slot| slot.last.0 > below);
        if Arc::ptr_eq(&self.recent, &written.recent) {
            self.recent = Arc::default();
        } else if !written.recent.is_empty() {
            Arc::make_mut(&mut self.recent).retain(|place, _| !written.recent.contains_key(place));
        }
    }

    /// Nothing may be missing for a store.
    pub(crate) fn digest(&self) -> u128 {
        let cut = self.cut();
        let loaded = self.slots[..cut].iter().filter_map(|slot| slot.entries.as_deref()).flatten();
        let left =
            loaded.filter(|(place, _)| place.0 > self.below).map(|(place, trace)| trace.digest(*place));
        let stored = self.slots[cut..].iter().map(|slot| slot.stored.digest);
        let recent = self.recent.iter().map(|(place, trace)| trace.digest(*place));
        left.chain(stored).chain(recent).fold(0, u128::wrapping_add)
    }

    pub(crate) fn dirty_bytes(&self, page_bytes: usize) -> usize {
        if !self.is_dirty() {
            return 0;
        }
        let rewritten: usize =
            self.slots[self.slots_kept(page_bytes)..].iter().map(|slot| slot.stored.bytes as usize).sum();
        rewritten + self.recent.len() * 32
    }

    pub(crate) fn weight(&self) -> usize {
        // An entry in memory is a few times its stored form.
        let loaded: usize = self
            .slots
            .iter()
            .filter(|slot| slot.entries.is_some())
            .map(|slot| slot.stored.bytes as usize)
            .sum();
        loaded * 3 + self.recent.len() * 160 + self.slots.len() * size_of::<Slot<T>>()
    }

    pub(crate) fn shed(&mut self) -> usize {
        let loaded = self.slots.iter_mut().filter_map(|slot| slot.entries.take().map(|_| slot.stored.bytes));
        loaded.map(|bytes| bytes as usize * 3).sum()
    }

    pub(crate) fn pages(&self) -> usize {
        self.slots.len()
    }

    /// The list for a root, of what is stored.
    pub(crate) fn list(&self) -> StoredTrail {
        list(self.below, &self.slots)
    }
}

impl<T: Trace> TrailWritten<T> {
    /// The list for the root.
    pub(crate) fn list(&self) -> StoredTrail {
        list(self.below, &self.slots)
    }

    pub(crate) fn page_ids(&self) -> impl Iterator<Item = PageId> {
        self.slots.iter().map(|slot| slot.stored.id)
    }
}

fn list<T>(below: u64, slots: &[Slot<T>]) -> StoredTrail {
    let slot = |slot: &Slot<T>| StoredTrailSlot {
        first: slot.first,
        last: slot.last,
        count: slot.count,
        page: slot.stored,
    };
    StoredTrail { below, slots: slots.iter().map(slot).collect() }
}

fn write_slots<T: Trace>(
    entries: Entries<T>,
    page_bytes: usize,
    slots: &mut Vec<Slot<T>>,
    write: &mut impl FnMut(Vec<u8>, u128) -> StoredPage,
) {
    let mut page: Entries<T> = Vec::new();
    let mut bytes = vec![VERSION];
    let mut entries = entries.into_iter().peekable();
    while let Some((place, trace)) = entries.next() {
        bytes =
            postcard::to_extend(&(place, &*trace), bytes).expect("traces hold nothing that postcard refuses");
        page.push((place, trace));
        if bytes.len() >= page_bytes || entries.peek().is_none() {
            let digest =
                page.iter().fold(0u128, |sum, (place, trace)| sum.wrapping_add(trace.digest(*place)));
            let stored = write(std::mem::replace(&mut bytes, vec![VERSION]), digest);
            let page = std::mem::take(&mut page);
            if let (Some(first), Some(last)) = (page.first(), page.last()) {
                let (first, last, count) = (first.0, last.0, page.len() as u32);
                slots.push(Slot { first, last, count, stored, entries: Some(Arc::new(page)) });
            }
        }
    }
}

fn decode<T: Trace>(bytes: &[u8]) -> Result<Entries<T>, FormatError> {
    let (version, mut rest) = bytes.split_first().ok_or_else(|| FormatError::malformed(T::NAME, "empty"))?;
    if *version != VERSION {
        return Err(FormatError::Unknown { what: T::NAME, number: (*version).into() });
    }
    let mut entries: Entries<T> = Vec::new();
    while !rest.is_empty() {
        let ((place, trace), after): ((Place, T), &[u8]) =
            postcard::take_from_bytes(rest).map_err(|error| FormatError::malformed(T::NAME, error))?;
        if entries.last().is_some_and(|(before, _)| *before >= place) {
            return Err(FormatError::malformed(T::NAME, "entries do not ascend"));
        }
        entries.push((place, Arc::new(trace)));
        rest = after;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::id::Uid;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn trace(seq: u64) -> ExpungedTrace {
        let uids = (1..=200 * (seq as u32 % 7) + 1).step_by(2).filter_map(Uid::new).collect();
        ExpungedTrace { mailbox: seq as u32 % 3, uids, destroyed: vec![seq; 300] }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_map(steps in proptest::collection::vec((0u8..8, any::<u16>()), 1..80)) {
            let mut trail = Trail::<ExpungedTrace>::default();
            let mut model: BTreeMap<Place, ExpungedTrace> = BTreeMap::new();
            let mut pages: BTreeMap<PageId, Bytes> = BTreeMap::new();
            let (mut number, mut below) = (0, 0);
            for (at, (action, argument)) in steps.into_iter().enumerate() {
                let seq = at as u64 * 2 + 10;
                let load = |trail: &mut Trail<ExpungedTrace>, wanted: Vec<PageId>, pages: &BTreeMap<PageId, Bytes>| {
                    let given: Vec<_> = wanted.into_iter().map(|id| (id, pages[&id].clone())).collect();
                    trail.install(&given).unwrap();
                };
                match action {
                    0..=3 => {
                        // Sometimes behind what is there already.
                        let seq = if action == 0 { seq - u64::from(argument % 9) } else { seq };
                        let place = (seq, u32::from(argument));
                        trail.push(place, trace(seq));
                        if seq > below {
                            model.insert(place, trace(seq));
                        }
                    }
                    4 => {
                        let wanted = trail.missing_for_store(2000);
                        load(&mut trail, wanted, &pages);
                        let before = trail.clone();
                        trail.push((seq, 0), trace(seq));
                        model.insert((seq, 0), trace(seq));
                        let written = before.store(2000, |bytes, digest| {
                            number += 1;
                            let id = PageId { base_seq: 0, attempt: Uuid::nil(), number };
                            let stored = StoredPage { id, digest, bytes: bytes.len() as u32 };
                            pages.insert(id, Bytes::from(bytes));
                            stored
                        });
                        trail.stored(&written);
                        let reopened = Trail::<ExpungedTrace>::from_stored(written.list());
                        prop_assert_eq!(reopened.digest(), before.digest());
                        prop_assert_eq!(trail.recent.len(), 1);
                    }
                    5 => {
                        below = below.max(u64::from(argument) % seq);
                        trail.forget(below);
                        model.retain(|(seq, _), _| *seq > below);
                    }
                    _ => {
                        trail.shed();
                    }
                }
                let since = u64::from(argument) % (seq + 5);
                let wanted = trail.missing(since);
                load(&mut trail, wanted, &pages);
                let found: Vec<(u64, ExpungedTrace)> =
                    trail.since(since).unwrap().into_iter().map(|(seq, trace)| (seq, trace.clone())).collect();
                let expected: Vec<_> =
                    model.iter().filter(|((seq, _), _)| *seq > since).map(|((seq, _), trace)| (*seq, trace.clone())).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn retained_messages_count_one_by_one() {
        let row = |number: u64| PlacedRow {
            email: number,
            thread: 1,
            marks: crate::marks::Marks::EMPTY,
            size: 5,
            internal_date: 6,
        };
        let trace = |uids: &str, rows: Vec<PlacedRow>| RetainedTrace {
            mailbox: 1,
            uids: UidSet::parse(uids).unwrap(),
            rows,
        };
        let mut together = Trail::default();
        together.push((9, 1), trace("1:3", vec![row(1), row(2), row(3)]));
        let mut apart = Trail::default();
        apart.push((9, 3), trace("3", vec![row(3)]));
        apart.push((9, 1), trace("1:2", vec![row(1), row(2)]));
        assert_eq!(together.digest(), apart.digest());
    }
}
