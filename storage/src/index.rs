//! The index of a mailbox: one row per message, ascending by UID, in pages that are loaded when they are needed.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use mail::flag::Flag;
use mail::id::{EmailId, ModSeq, ThreadId, Uid};
use mail::uid::UidSet;
use serde::{Deserialize, Serialize};

use crate::date::InternalDate;
use crate::marks::Marks;
use crate::page::{IndexPage, ROW_BYTES};

/// A message in a mailbox: all that listing, sorting and resynchronising need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRow {
    /// Its UID.
    pub uid: Uid,
    /// The email it is.
    pub email: EmailId,
    /// The operation that last changed it.
    pub modseq: ModSeq,
    /// The operation that put it here.
    pub created: ModSeq,
    /// Flags and keywords; names of keywords stand in the account's root.
    pub marks: Marks,
    /// RFC822.SIZE.
    pub size: u32,
    /// INTERNALDATE.
    pub internal_date: InternalDate,
    /// When it was put here (RFC 8514), in seconds since 1970.
    pub saved_date: u32,
    /// Its thread.
    pub thread: ThreadId,
}

/// What a change of flags needs to know of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkedRow {
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub marks: Marks,
    /// The operation that last changed it.
    pub modseq: ModSeq,
}

/// The messages of a mailbox. Cheap to clone.
///
/// What services get from [`crate::AccountState::index`] is loaded, and methods that look at messages may be called.
#[derive(Clone, Debug, Default)]
pub struct MailboxIndex {
    slots: Vec<Slot>,
    /// For each slot, how many messages are before it; and the number of all messages at the end.
    starts: Vec<u32>,
}

/// A page stored in the snapshot that the state started from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct StoredPage {
    pub(crate) id: PageId,
    /// Sum of the digests of its rows.
    pub(crate) digest: u128,
    /// Its size.
    pub(crate) bytes: u32,
}

/// A page of the index as the root lists it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StoredSlot {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) count: u32,
    pub(crate) page: StoredPage,
}

/// Pages that were written, as they were then.
pub(crate) type WrittenPages = Vec<(Arc<IndexPage>, StoredPage)>;

/// A page of the index, in memory or not.
#[derive(Clone, Debug)]
struct Slot {
    /// Bounds of its UIDs: no message outside, though not necessarily one at them.
    first: u32,
    last: u32,
    count: u32,
    /// Where the page is stored, as long as it has not changed since.
    stored: Option<StoredPage>,
    /// The page, when it is loaded.
    page: Option<Arc<IndexPage>>,
    /// What happened to the page while it was not loaded.
    pending: Vec<Arc<Effect>>,
}

/// A change of rows that exist.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Marks change.
    Mark { uids: UidSet, add: Marks, remove: Marks, modseq: Option<u64> },
    /// Messages go.
    Remove { uids: UidSet, seq: u64, retain: bool },
}

/// Messages that an effect took out of a page and that are to be remembered.
pub(crate) struct Removed {
    /// The operation.
    pub(crate) seq: u64,
    /// The messages.
    pub(crate) rows: Vec<MessageRow>,
}

impl MailboxIndex {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0) as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message at a position (IMAP's sequence number less one).
    pub fn get(&self, position: usize) -> Option<MessageRow> {
        let (slot, at) = self.place(position)?;
        Some(self.page(slot).row(at))
    }

    /// The UID at a position.
    pub fn uid_at(&self, position: usize) -> Option<Uid> {
        let (slot, at) = self.place(position)?;
        Uid::new(self.page(slot).uids()[at])
    }

    /// The position of a UID; `Err`: where it would stand.
    pub fn find(&self, uid: Uid) -> Result<usize, usize> {
        let slot = self.slots.partition_point(|slot| slot.last < uid.get());
        if slot == self.slots.len() {
            return Err(self.len());
        }
        let start = self.starts[slot] as usize;
        match self.page(slot).uids().binary_search(&uid.get()) {
            Ok(at) => Ok(start + at),
            Err(at) => Err(start + at),
        }
    }

    /// The message with this UID.
    pub fn by_uid(&self, uid: Uid) -> Option<MessageRow> {
        self.find(uid).ok().and_then(|position| self.get(position))
    }

    /// All messages, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = MessageRow> + '_ {
        self.range(0..self.len())
    }

    /// The messages at these positions, clipped to what there is.
    pub fn range(&self, positions: Range<usize>) -> impl DoubleEndedIterator<Item = MessageRow> + '_ {
        self.pieces(positions).flat_map(|(page, range)| range.map(move |at| page.row(at)))
    }

    /// The messages of a set of UIDs that exist, ascending.
    pub fn select<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = MessageRow> + 'a {
        self.hits(uids).flat_map(|(page, range)| range.map(move |at| page.row(at)))
    }

    /// Flags of the messages of a set of UIDs that exist, ascending. Looks at three columns.
    pub fn marked<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = MarkedRow> + 'a {
        self.hits(uids).flat_map(|(page, range)| {
            range.map(move |at| MarkedRow {
                uid: Uid::new(page.uids()[at]).unwrap_or(Uid::MIN),
                marks: page.marks(at),
                modseq: ModSeq(page.modseqs()[at]),
            })
        })
    }

    /// The emails of all messages.
    pub(crate) fn emails(&self) -> impl Iterator<Item = u64> {
        self.loaded().flat_map(|page| page.emails().iter().copied())
    }

    /// The UIDs of all messages, ascending.
    pub fn uids(&self) -> impl DoubleEndedIterator<Item = Uid> + '_ {
        self.loaded().flat_map(|page| page.uids().iter().filter_map(|uid| Uid::new(*uid)))
    }

    /// Those UIDs of the set that exist.
    pub fn existing(&self, uids: &UidSet) -> UidSet {
        self.hits(uids)
            .flat_map(|(page, range)| page.uids()[range].iter().filter_map(|uid| Uid::new(*uid)))
            .collect()
    }

    /// UIDs of the messages that changed after `since`. Looks at one column, of pages that have such a message.
    pub fn changed_since(&self, since: ModSeq) -> UidSet {
        self.loaded()
            .filter(|page| page.newest() > since.0)
            .flat_map(|page| {
                let changed =
                    page.modseqs().iter().zip(page.uids()).filter(move |(modseq, _)| **modseq > since.0);
                changed.filter_map(|(_, uid)| Uid::new(*uid))
            })
            .collect()
    }

    /// The messages that changed after `since`, ascending by UID.
    pub fn rows_since(&self, since: ModSeq) -> impl Iterator<Item = MessageRow> + '_ {
        self.loaded().filter(move |page| page.newest() > since.0).flat_map(move |page| {
            let changed = page.modseqs().iter().enumerate().filter(move |(_, modseq)| **modseq > since.0);
            changed.map(|(at, _)| page.row(at))
        })
    }

    /// How an earlier index of this mailbox became this one: the rows of all pages that are not the same, there and
    /// here, each ascending by UID. Pages that have not changed are not looked into. Both must be loaded.
    pub(crate) fn rows_apart(&self, earlier: &Self) -> (Vec<MessageRow>, Vec<MessageRow>) {
        let is_same = |one: &Slot, other: &Slot| match (&one.page, &other.page) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let (mut old, mut new) = (&earlier.slots[..], &self.slots[..]);
        let begin = old.iter().zip(new).take_while(|(old, new)| is_same(old, new)).count();
        (old, new) = (&old[begin..], &new[begin..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| is_same(old, new)).count();
        (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
        let pages = |slots: &[Slot]| -> HashSet<*const IndexPage> {
            slots.iter().filter_map(|slot| slot.page.as_ref().map(Arc::as_ptr)).collect()
        };
        let stored = |slots: &[Slot]| -> HashSet<PageId> {
            slots.iter().filter_map(|slot| slot.stored.map(|stored| stored.id)).collect()
        };
        let rows = |slots: &[Slot], pages: &HashSet<*const IndexPage>, stored: &HashSet<PageId>| {
            let mut rows = Vec::new();
            for slot in slots {
                let Some(page) = &slot.page else { continue };
                let is_there = pages.contains(&Arc::as_ptr(page))
                    || slot.stored.is_some_and(|own| stored.contains(&own.id));
                if !is_there {
                    rows.extend((0..page.len()).map(|at| page.row(at)));
                }
            }
            rows
        };
        (rows(old, &pages(new), &stored(new)), rows(new, &pages(old), &stored(old)))
    }

    /// UIDs of the messages that have this flag. Looks at one column.
    pub fn with_flag(&self, flag: Flag) -> UidSet {
        self.loaded()
            .flat_map(|page| {
                let hits =
                    page.low_marks().iter().zip(page.uids()).filter(move |(low, _)| **low & flag as u64 != 0);
                hits.filter_map(|(_, uid)| Uid::new(*uid))
            })
            .collect()
    }

    /// The highest UID.
    pub fn last_uid(&self) -> Option<Uid> {
        self.len().checked_sub(1).and_then(|position| self.uid_at(position))
    }

    /// Position of the first message without `\Seen`.
    pub fn first_unseen(&self) -> Option<usize> {
        let mut start = 0;
        for page in self.loaded() {
            if let Some(at) = page.low_marks().iter().position(|low| *low & Flag::Seen as u64 == 0) {
                return Some(start + at);
            }
            start += page.len();
        }
        None
    }

    fn place(&self, position: usize) -> Option<(usize, usize)> {
        if position >= self.len() {
            return None;
        }
        let slot = self.starts.partition_point(|start| *start as usize <= position) - 1;
        Some((slot, position - self.starts[slot] as usize))
    }

    fn page(&self, slot: usize) -> &IndexPage {
        self.slots[slot].page.as_deref().expect("services are given loaded indexes only")
    }

    fn loaded(&self) -> impl DoubleEndedIterator<Item = &IndexPage> {
        (0..self.slots.len()).map(|slot| self.page(slot))
    }

    fn pieces(&self, positions: Range<usize>) -> impl DoubleEndedIterator<Item = (&IndexPage, Range<usize>)> {
        let end = positions.end.min(self.len());
        let begin = positions.start.min(end);
        let first = self.starts.partition_point(|start| *start as usize <= begin).saturating_sub(1);
        let last = self.slots.len().min(self.starts.partition_point(|start| (*start as usize) < end));
        (first..last.max(first)).map(move |slot| {
            let start = self.starts[slot] as usize;
            let page = self.page(slot);
            (page, begin.saturating_sub(start)..(end - start).min(page.len()))
        })
    }

    fn hits<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = (&'a IndexPage, Range<usize>)> {
        let first = uids.first().map_or(u32::MAX, Uid::get);
        let last = uids.last().map_or(0, Uid::get);
        let begin = self.slots.partition_point(|slot| slot.last < first);
        (begin..self.slots.len()).take_while(move |slot| self.slots[*slot].first <= last).flat_map(
            move |slot| {
                let page = self.page(slot);
                page.positions(uids).map(move |range| (page, range))
            },
        )
    }
}

/// Changing and storing: the affair of the state.
impl MailboxIndex {
    pub(crate) fn from_stored(slots: Vec<StoredSlot>) -> Result<Self, FormatError> {
        let mut index = Self::default();
        let mut before = 0;
        for slot in slots {
            if slot.first <= before || slot.last < slot.first || slot.count == 0 {
                return Err(FormatError::malformed("account root", "index pages overlap"));
            }
            before = slot.last;
            index.slots.push(Slot {
                first: slot.first,
                last: slot.last,
                count: slot.count,
                stored: Some(slot.page),
                page: None,
                pending: Vec::new(),
            });
        }
        index.count();
        Ok(index)
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.slots.iter().all(|slot| slot.page.is_some())
    }

    /// Whether a page has to be loaded before this can be stored.
    pub(crate) fn has_pending(&self) -> bool {
        self.slots.iter().any(|slot| !slot.pending.is_empty())
    }

    /// Pages that are not loaded; only those that something has happened to if `pending_only`.
    pub(crate) fn missing(&self, pending_only: bool) -> Vec<PageId> {
        self.slots
            .iter()
            .filter(|slot| slot.page.is_none() && !(pending_only && slot.pending.is_empty()))
            .filter_map(|slot| slot.stored.map(|stored| stored.id))
            .collect()
    }

    /// Adds messages after all others.
    pub(crate) fn insert(&mut self, rows: &[MessageRow], page_messages: usize) {
        for row in rows {
            let uid = row.uid.get();
            let last = self.slots.last_mut().filter(|slot| (slot.count as usize) < page_messages);
            if let Some(slot) = last
                && let Some(page) = &mut slot.page
            {
                Arc::make_mut(page).push(row);
                slot.last = uid;
                slot.count += 1;
                slot.stored = None;
                continue;
            }
            // The page before is full or not in memory: a new one, which joins it later.
            let mut page = IndexPage::default();
            page.push(row);
            self.slots.push(Slot {
                first: uid,
                last: uid,
                count: 1,
                stored: None,
                page: Some(Arc::new(page)),
                pending: Vec::new(),
            });
        }
        self.count();
    }

    /// Applies an effect to what is loaded, and remembers it for what is not.
    pub(crate) fn apply(&mut self, effect: Effect, page_messages: usize) -> Vec<Removed> {
        let effect = Arc::new(effect);
        let uids = effect.uids();
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Vec::new() };
        let begin = self.slots.partition_point(|slot| slot.last < first.get());
        let mut removed = Vec::new();
        for slot in self.slots[begin..].iter_mut().take_while(|slot| slot.first <= last.get()) {
            if slot.page.is_some() {
                removed.extend(slot.apply(&effect));
            } else if let Some(within) = slot.clip(uids) {
                if matches!(*effect, Effect::Remove { .. }) {
                    slot.count = slot.count.saturating_sub(within.len() as u32);
                }
                slot.pending.push(effect.clone());
            }
        }
        if matches!(*effect, Effect::Remove { .. }) {
            self.join(page_messages);
        }
        removed
    }

    /// Brings pages into memory.
    pub(crate) fn install(
        &mut self,
        pages: &[(PageId, Bytes)],
        page_messages: usize,
    ) -> Result<Vec<Removed>, FormatError> {
        let mut removed = Vec::new();
        for slot in &mut self.slots {
            let (None, Some(stored)) = (&slot.page, slot.stored) else { continue };
            let Some((_, bytes)) = pages.iter().find(|(id, _)| *id == stored.id) else { continue };
            let page = IndexPage::decode(bytes)?;
            let bounds_hold = page.uids().first().is_some_and(|first| *first >= slot.first)
                && page.uids().last().is_some_and(|last| *last <= slot.last);
            if !bounds_hold {
                return Err(FormatError::malformed("index page", "UIDs are not those that the root says"));
            }
            let expected = slot.count;
            slot.count = page.len() as u32;
            slot.page = Some(Arc::new(page));
            for effect in std::mem::take(&mut slot.pending) {
                removed.extend(slot.apply(&effect));
            }
            if slot.count != expected {
                return Err(FormatError::malformed("index page", "not as many messages as the root says"));
            }
        }
        self.join(page_messages);
        Ok(removed)
    }

    /// Joins neighbours that are loaded and small, and drops empty pages: what comes and goes must not leave a trail of
    /// nearly empty pages.
    fn join(&mut self, page_messages: usize) {
        self.slots.retain(|slot| slot.count > 0 || slot.page.is_none());
        let mut at = 1;
        while at < self.slots.len() {
            let (left, right) = (&self.slots[at - 1], &self.slots[at]);
            let small = (left.count + right.count) as usize <= page_messages / 2
                || (left.count as usize) < page_messages / 4 && at + 1 == self.slots.len();
            let fits = (left.count + right.count) as usize <= page_messages;
            if small && fits && left.page.is_some() && right.page.is_some() {
                let right = self.slots.remove(at);
                let left = &mut self.slots[at - 1];
                if let (Some(page), Some(more)) = (&mut left.page, right.page) {
                    Arc::make_mut(page).extend(&more);
                }
                left.last = right.last;
                left.count += right.count;
                left.stored = None;
            } else {
                at += 1;
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.starts.clear();
        let mut start = 0;
        self.starts.push(start);
        for slot in &self.slots {
            start += slot.count;
            self.starts.push(start);
        }
    }

    /// Sum of the digests of all rows. Nothing may be pending.
    pub(crate) fn digest(&self, mailbox: u32) -> u128 {
        self.slots.iter().fold(0, |sum, slot| {
            let digest = match (&slot.stored, &slot.page) {
                (Some(stored), _) => stored.digest,
                (None, Some(page)) => page.digest(mailbox),
                (None, None) => 0,
            };
            sum.wrapping_add(digest)
        })
    }

    /// Encodes what changed. Gives the list for the root, and each page written with what it was.
    pub(crate) fn store(
        &self,
        mailbox: u32,
        mut write: impl FnMut(Vec<u8>, u128) -> StoredPage,
    ) -> (Vec<StoredSlot>, WrittenPages) {
        let mut written = Vec::new();
        let slots = self
            .slots
            .iter()
            .filter_map(|slot| {
                let page = match (slot.stored, &slot.page) {
                    (Some(stored), _) => stored,
                    (None, Some(page)) => {
                        let stored = write(page.encode(), page.digest(mailbox));
                        written.push((page.clone(), stored));
                        stored
                    }
                    (None, None) => return None,
                };
                Some(StoredSlot { first: slot.first, last: slot.last, count: slot.count, page })
            })
            .collect();
        (slots, written)
    }

    /// These pages are stored now; those that have changed since stay as they are.
    pub(crate) fn stored(&mut self, written: &[(Arc<IndexPage>, StoredPage)]) {
        for slot in &mut self.slots {
            if let (None, Some(page)) = (slot.stored, &slot.page) {
                slot.stored =
                    written.iter().find(|(written, _)| Arc::ptr_eq(written, page)).map(|(_, stored)| *stored);
            }
        }
    }

    /// Drops pages that are stored as they are. Returns how many bytes that freed.
    pub(crate) fn shed(&mut self) -> usize {
        let mut freed = 0;
        for slot in &mut self.slots {
            if slot.stored.is_some() && slot.page.take().is_some() {
                freed += slot.count as usize * ROW_BYTES;
            }
        }
        freed
    }

    pub(crate) fn can_shed(&self) -> bool {
        self.slots.iter().any(|slot| slot.stored.is_some() && slot.page.is_some())
    }

    /// Bytes in memory.
    pub(crate) fn weight(&self) -> usize {
        let rows: usize =
            self.slots.iter().filter(|slot| slot.page.is_some()).map(|slot| slot.count as usize).sum();
        rows * ROW_BYTES + self.slots.len() * std::mem::size_of::<Slot>()
    }

    /// About how many bytes storing this would write.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.stored.is_none() || !slot.pending.is_empty())
            .map(|slot| 32 + slot.count as usize * 20)
            .sum()
    }

    /// Number of pages, for the size of the root.
    pub(crate) fn pages(&self) -> usize {
        self.slots.len()
    }
}

impl Slot {
    fn clip(&self, uids: &UidSet) -> Option<UidSet> {
        let within = uids.clip(Uid::new(self.first)?..=Uid::new(self.last)?);
        (!within.is_empty()).then_some(within)
    }

    fn apply(&mut self, effect: &Effect) -> Option<Removed> {
        let page = self.page.as_mut()?;
        page.positions(effect.uids()).next()?;
        self.stored = None;
        let page = Arc::make_mut(page);
        match effect {
            Effect::Mark { uids, add, remove, modseq } => {
                page.mark(uids, *add, *remove, *modseq);
                None
            }
            Effect::Remove { uids, seq, retain } => {
                let rows = page.remove(uids);
                self.count = page.len() as u32;
                retain.then_some(Removed { seq: *seq, rows })
            }
        }
    }
}

impl Effect {
    fn uids(&self) -> &UidSet {
        match self {
            Self::Mark { uids, .. } | Self::Remove { uids, .. } => uids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    const PAGE: usize = 8;

    fn row(uid: u32, seq: u64) -> MessageRow {
        MessageRow {
            uid: Uid::new(uid).unwrap(),
            email: EmailId(u64::from(uid)),
            modseq: ModSeq(seq),
            created: ModSeq(seq),
            marks: Marks::EMPTY,
            size: uid,
            internal_date: InternalDate::utc(0),
            saved_date: 0,
            thread: ThreadId(1),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32),
        Mark(Vec<u32>, bool),
        Remove(Vec<u32>),
        Store,
        Unload,
        Load,
        LoadPending,
    }

    fn step() -> impl Strategy<Value = Step> {
        let uids = proptest::collection::vec(1u32..120, 1..20);
        prop_oneof![
            4 => (1u32..12).prop_map(Step::Insert),
            2 => (uids.clone(), any::<bool>()).prop_map(|(uids, set)| Step::Mark(uids, set)),
            2 => uids.prop_map(Step::Remove),
            2 => Just(Step::Store),
            2 => Just(Step::Unload),
            1 => Just(Step::Load),
            1 => Just(Step::LoadPending),
        ]
    }

    fn page_id(number: u32) -> PageId {
        PageId { base_seq: 0, attempt: Uuid::nil(), number }
    }

    fn load(index: &mut MailboxIndex, pages: &BTreeMap<PageId, Bytes>, pending_only: bool) -> Vec<Removed> {
        let wanted = index.missing(pending_only);
        let given: Vec<_> = wanted.into_iter().map(|id| (id, pages[&id].clone())).collect();
        index.install(&given, PAGE).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Whatever is loaded when: the rows are those of a plain map, and so are digest and what was removed.
        #[test]
        fn equals_a_map(steps in proptest::collection::vec(step(), 1..40)) {
            let mut index = MailboxIndex::default();
            let mut model: BTreeMap<u32, MessageRow> = BTreeMap::new();
            let mut pages = BTreeMap::new();
            let mut next_uid = 1;
            let mut number = 0;
            let (mut gone, mut gone_model) = (0, 0);
            for (seq, step) in steps.into_iter().enumerate() {
                let seq = seq as u64 + 1;
                let known = |uids: Vec<u32>, model: &BTreeMap<u32, MessageRow>| -> UidSet {
                    uids.into_iter().filter(|uid| model.contains_key(uid)).filter_map(Uid::new).collect()
                };
                match step {
                    Step::Insert(count) => {
                        let rows: Vec<_> = (next_uid..next_uid + count).map(|uid| row(uid, seq)).collect();
                        next_uid += count + 1;
                        index.insert(&rows, PAGE);
                        model.extend(rows.into_iter().map(|row| (row.uid.get(), row)));
                    }
                    Step::Mark(uids, set) => {
                        let uids = known(uids, &model);
                        let flag = Marks::from_keyword(60);
                        let (add, remove) = if set { (flag, Marks::EMPTY) } else { (Marks::EMPTY, flag) };
                        for uid in uids.iter() {
                            let row = model.get_mut(&uid.get()).unwrap();
                            row.marks = row.marks.difference(remove).union(add);
                            row.modseq = ModSeq(seq);
                        }
                        index.apply(Effect::Mark { uids, add, remove, modseq: Some(seq) }, PAGE);
                    }
                    Step::Remove(uids) => {
                        let uids = known(uids, &model);
                        gone_model += uids.len();
                        for uid in uids.iter() {
                            model.remove(&uid.get());
                        }
                        let removed = index.apply(Effect::Remove { uids, seq, retain: true }, PAGE);
                        gone += removed.iter().map(|removed| removed.rows.len() as u64).sum::<u64>();
                    }
                    Step::Store => {
                        gone += load(&mut index, &pages, true).iter().map(|r| r.rows.len() as u64).sum::<u64>();
                        let (slots, written) = index.store(5, |bytes, digest| {
                            number += 1;
                            let stored = StoredPage { id: page_id(number), digest, bytes: bytes.len() as u32 };
                            pages.insert(stored.id, Bytes::from(bytes));
                            stored
                        });
                        index.stored(&written);
                        prop_assert!(index.store(5, |_, _| panic!("nothing is dirty")).1.is_empty());
                        let reopened = MailboxIndex::from_stored(slots).unwrap();
                        prop_assert_eq!(reopened.len(), index.len());
                        prop_assert_eq!(reopened.digest(5), index.digest(5));
                    }
                    Step::Unload => {
                        index.shed();
                    }
                    Step::Load | Step::LoadPending => {
                        let pending_only = matches!(step, Step::LoadPending);
                        let removed = load(&mut index, &pages, pending_only);
                        gone += removed.iter().map(|r| r.rows.len() as u64).sum::<u64>();
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
            gone += load(&mut index, &pages, false).iter().map(|r| r.rows.len() as u64).sum::<u64>();
            prop_assert_eq!(gone, gone_model);
            let rows: Vec<_> = model.values().copied().collect();
            prop_assert_eq!(index.iter().collect::<Vec<_>>(), rows.clone());
            for (position, row) in rows.iter().enumerate() {
                prop_assert_eq!(index.get(position), Some(*row));
                prop_assert_eq!(index.find(row.uid), Ok(position));
            }
            let middle = rows.len() / 3..rows.len() * 2 / 3;
            prop_assert_eq!(index.range(middle.clone()).collect::<Vec<_>>(), rows[middle].to_vec());
            prop_assert_eq!(index.range(0..rows.len() * 2).rev().collect::<Vec<_>>().len(), rows.len());
            for uid in [1, 50, 500].into_iter().filter_map(Uid::new) {
                let position = rows.partition_point(|row| row.uid < uid);
                let expected = if model.contains_key(&uid.get()) { Ok(position) } else { Err(position) };
                prop_assert_eq!(index.find(uid), expected);
            }
            let mut fresh = MailboxIndex::default();
            fresh.insert(&rows, PAGE);
            prop_assert_eq!(fresh.digest(5), index.digest(5));
        }
    }

    #[test]
    fn questions_to_one_column() {
        let mut index = MailboxIndex::default();
        index.insert(&(1..=30).map(|uid| row(uid, u64::from(uid))).collect::<Vec<_>>(), PAGE);
        let seen = Marks::from_flags(Flag::Seen.into());
        let uids = UidSet::parse("1:11,20").unwrap();
        index.apply(
            Effect::Mark { uids: uids.clone(), add: seen, remove: Marks::EMPTY, modseq: Some(99) },
            PAGE,
        );
        assert_eq!(index.first_unseen(), Some(11));
        assert_eq!(index.with_flag(Flag::Seen), uids);
        assert_eq!(index.changed_since(ModSeq(28)).to_string(), "1:11,20,29:30");
        assert_eq!(index.existing(&UidSet::parse("29:4000000000").unwrap()).to_string(), "29:30");
        assert_eq!(index.last_uid(), Uid::new(30));
        assert_eq!(index.uids().count(), 30);
        assert_eq!(MailboxIndex::default().first_unseen(), None);
        assert_eq!(MailboxIndex::default().find(Uid::MIN), Err(0));
    }
}
