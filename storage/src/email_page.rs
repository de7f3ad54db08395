//! Email pages: the records of an account's emails, by number.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use serde::{Deserialize, Serialize};

use crate::index::StoredPage;
use crate::pack::{Unpack, put_varint, row_digest};

const VERSION: u8 = 1;
/// The most records a page may hold, whatever the account's own layout says.
const RECORDS_MAX: usize = 1024;
/// A page is closed when it has reached this size.
const PAGE_BYTES: usize = 256 << 10;
/// What has come since the snapshot is kept in pieces of so many records, so that adding one copies few.
const PIECE_RECORDS: usize = 64;

/// A page of records.
#[derive(Debug)]
pub(crate) struct EmailPage {
    ids: Vec<u64>,
    ends: Vec<u32>,
    records: Bytes,
}

type Record = (u64, Bytes);

/// All records of an account. Cheap to clone. Stored ones are read from their pages by whoever needs them, not kept
/// here.
#[derive(Clone, Debug, Default)]
pub(crate) struct EmailPages {
    slots: Vec<Slot>,
    /// What the snapshot does not have, ascending and after all that is stored.
    recent: Vec<Arc<Vec<Record>>>,
    recent_bytes: usize,
    /// Stored records that are gone.
    forgotten: Arc<BTreeSet<u64>>,
}

#[derive(Clone, Debug)]
struct Slot {
    list: StoredEmailSlot,
    /// Seldom loaded, mostly to be written anew.
    page: Option<Arc<EmailPage>>,
}

/// A page as the root lists it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StoredEmailSlot {
    first: u64,
    last: u64,
    count: u32,
    page: StoredPage,
}

/// Where a record is.
pub(crate) enum Located {
    /// Here.
    Here(Bytes),
    /// On this page, if anywhere.
    Stored(PageId),
    /// Nowhere.
    Nowhere,
}

/// What a snapshot did, to be taken over when it is current.
#[derive(Debug)]
pub(crate) struct EmailsWritten {
    slots: Vec<StoredEmailSlot>,
    last: u64,
    forgotten: Arc<BTreeSet<u64>>,
}

impl EmailPages {
    pub(crate) fn from_stored(slots: Vec<StoredEmailSlot>) -> Result<Self, FormatError> {
        let overlap = slots.windows(2).any(|pair| pair[0].last >= pair[1].first);
        if overlap || slots.iter().any(|slot| slot.first > slot.last) {
            return Err(FormatError::malformed("account root", "email pages overlap"));
        }
        let slots = slots.into_iter().map(|list| Slot { list, page: None }).collect();
        Ok(Self { slots, ..Self::default() })
    }

    pub(crate) fn locate(&self, email: u64) -> Located {
        if let Some(first) = self.recent.first().and_then(|piece| piece.first())
            && email >= first.0
        {
            let piece = self.recent.partition_point(|piece| piece.last().is_some_and(|last| last.0 < email));
            let piece = self.recent.get(piece).map_or(&[][..], |piece| piece);
            return match piece.binary_search_by_key(&email, |record| record.0) {
                Ok(at) => Located::Here(piece[at].1.clone()),
                Err(_) => Located::Nowhere,
            };
        }
        let slot = self.slots.partition_point(|slot| slot.list.last < email);
        match self.slots.get(slot) {
            Some(slot) if slot.list.first <= email && !self.forgotten.contains(&email) => match &slot.page {
                Some(page) => page.get(email).map_or(Located::Nowhere, Located::Here),
                None => Located::Stored(slot.list.page.id),
            },
            _ => Located::Nowhere,
        }
    }

    /// The page to load before [`Self::locate`] has the record itself.
    pub(crate) fn missing(&self, email: u64) -> Vec<PageId> {
        match self.locate(email) {
            Located::Stored(page) => vec![page],
            Located::Here(_) | Located::Nowhere => Vec::new(),
        }
    }

    /// Adds a record, whose number is greater than all others.
    pub(crate) fn push(&mut self, email: u64, record: Bytes) {
        self.recent_bytes += record.len() + 16;
        match self.recent.last_mut() {
            Some(piece) if piece.len() < PIECE_RECORDS => Arc::make_mut(piece).push((email, record)),
            _ => self.recent.push(Arc::new(vec![(email, record)])),
        }
    }

    /// Drops records. They are remembered until a snapshot without them is current, since one with them may be under
    /// way.
    pub(crate) fn forget(&mut self, emails: &[u64]) {
        if emails.is_empty() {
            return;
        }
        let forgotten = Arc::make_mut(&mut self.forgotten);
        forgotten.extend(emails);
        let recent = std::mem::take(&mut self.recent);
        self.recent_bytes = 0;
        for (email, record) in recent.iter().flat_map(|piece| piece.iter()) {
            if !self.forgotten.contains(email) {
                self.push(*email, record.clone());
            }
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.recent.is_empty() || !self.forgotten.is_empty()
    }

    /// Whether this page is written anew by the next store.
    fn is_rewritten(&self, at: usize, page_records: usize) -> bool {
        let list = &self.slots[at].list;
        let is_last_and_small = at + 1 == self.slots.len()
            && !self.recent.is_empty()
            && (list.count as usize) < page_records / 2
            && (list.page.bytes as usize) < PAGE_BYTES / 2;
        is_last_and_small || self.forgotten.range(list.first..=list.last).next().is_some()
    }

    pub(crate) fn missing_for_store(&self, page_records: usize) -> Vec<PageId> {
        let missing = (0..self.slots.len())
            .filter(|at| self.slots[*at].page.is_none() && self.is_rewritten(*at, page_records));
        missing.map(|at| self.slots[at].list.page.id).collect()
    }

    pub(crate) fn install(&mut self, pages: &[(PageId, Bytes)]) -> Result<(), FormatError> {
        for slot in self.slots.iter_mut().filter(|slot| slot.page.is_none()) {
            let Some((_, bytes)) = pages.iter().find(|(id, _)| *id == slot.list.page.id) else { continue };
            let page = EmailPage::decode(bytes)?;
            let ends = page.ids.first().zip(page.ids.last());
            if ends != Some((&slot.list.first, &slot.list.last)) {
                return Err(FormatError::malformed("email page", "not what the root says"));
            }
            slot.page = Some(Arc::new(page));
        }
        Ok(())
    }

    pub(crate) fn store(
        &self,
        page_records: usize,
        mut write: impl FnMut(Vec<u8>, u128) -> StoredPage,
    ) -> EmailsWritten {
        let mut slots = Vec::with_capacity(self.slots.len() + 1);
        let mut records: Vec<Record> = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            match &slot.page {
                Some(page) if self.is_rewritten(at, page_records) => {
                    records = page.iter().filter(|record| !self.forgotten.contains(&record.0)).collect();
                    if at + 1 < self.slots.len() {
                        write_pages(std::mem::take(&mut records), page_records, &mut slots, &mut write);
                    }
                }
                _ => slots.push(slot.list),
            }
        }
        records.extend(self.recent.iter().flat_map(|piece| piece.iter().cloned()));
        write_pages(records, page_records, &mut slots, &mut write);
        let last = self.recent.last().and_then(|piece| piece.last()).map_or(0, |record| record.0);
        EmailsWritten { slots, last, forgotten: self.forgotten.clone() }
    }

    /// What was recent then is stored now; what came since stays recent.
    pub(crate) fn stored(&mut self, written: &EmailsWritten) {
        self.slots = written.slots.iter().map(|list| Slot { list: *list, page: None }).collect();
        let recent = std::mem::take(&mut self.recent);
        self.recent_bytes = 0;
        for (email, record) in recent.iter().flat_map(|piece| piece.iter()) {
            if *email > written.last {
                self.push(*email, record.clone());
            }
        }
        // What was forgotten in between of what has become stored in between is to be forgotten there.
        let covers =
            |email: &u64| written.slots.iter().any(|slot| slot.first <= *email && *email <= slot.last);
        if !self.forgotten.is_empty() {
            let forgotten = Arc::make_mut(&mut self.forgotten);
            forgotten.retain(|email| !written.forgotten.contains(email) && covers(email));
        }
    }

    /// Nothing may be missing for a store.
    pub(crate) fn digest(&self) -> u128 {
        let stored = self.slots.iter().map(|slot| {
            let gone = self.forgotten.range(slot.list.first..=slot.list.last).next().is_some();
            match &slot.page {
                Some(page) if gone => page
                    .iter()
                    .filter(|record| !self.forgotten.contains(&record.0))
                    .map(|r| digest(&r))
                    .sum_wrapping(),
                _ => slot.list.page.digest,
            }
        });
        let recent = self.recent.iter().flat_map(|piece| piece.iter()).map(digest);
        stored.chain(recent).sum_wrapping()
    }

    pub(crate) fn dirty_bytes(&self, page_records: usize) -> usize {
        if !self.is_dirty() {
            return 0;
        }
        let rewritten = (0..self.slots.len()).filter(|at| self.is_rewritten(*at, page_records));
        self.recent_bytes + rewritten.map(|at| self.slots[at].list.page.bytes as usize).sum::<usize>()
    }

    pub(crate) fn weight(&self) -> usize {
        let loaded = self.slots.iter().filter_map(|slot| slot.page.as_ref());
        loaded.map(|page| page.weight()).sum::<usize>()
            + self.recent_bytes
            + self.slots.len() * size_of::<Slot>()
            + self.forgotten.len() * 16
    }

    pub(crate) fn shed(&mut self) -> usize {
        self.slots.iter_mut().filter_map(|slot| slot.page.take()).map(|page| page.weight()).sum()
    }

    pub(crate) fn pages(&self) -> usize {
        self.slots.len()
    }
}

impl EmailsWritten {
    /// The list for the root.
    pub(crate) fn list(&self) -> Vec<StoredEmailSlot> {
        self.slots.clone()
    }

    pub(crate) fn page_ids(&self) -> impl Iterator<Item = PageId> {
        self.slots.iter().map(|slot| slot.page.id)
    }
}

impl EmailPage {
    /// The record of an email.
    pub(crate) fn get(&self, email: u64) -> Option<Bytes> {
        self.ids.binary_search(&email).ok().map(|at| self.record(at))
    }

    pub(crate) fn weight(&self) -> usize {
        self.records.len() + self.ids.len() * 12
    }

    fn record(&self, at: usize) -> Bytes {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.records.slice(start..self.ends[at] as usize)
    }

    fn iter(&self) -> impl Iterator<Item = Record> {
        self.ids.iter().enumerate().map(|(at, id)| (*id, self.record(at)))
    }

    fn encode(records: &[Record]) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, records.len() as u64);
        let mut before = 0;
        for (email, record) in records {
            put_varint(&mut out, email - before);
            put_varint(&mut out, record.len() as u64);
            before = *email;
        }
        for (_, record) in records {
            out.extend_from_slice(record);
        }
        out
    }

    /// Takes a page apart; records are not copied.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let mut unpack = Unpack::new("email page", bytes);
        let version = unpack.byte()?;
        if version != VERSION {
            return Err(FormatError::Unknown { what: "version of email page", number: version.into() });
        }
        let count = unpack.count(RECORDS_MAX)?;
        let (mut ids, mut ends) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut before, mut end) = (0u64, 0u32);
        for _ in 0..count {
            let gap = unpack.varint()?;
            let length = unpack.varint_u32()?;
            before = before
                .checked_add(gap)
                .filter(|_| gap > 0)
                .ok_or_else(|| unpack.malformed("numbers do not ascend"))?;
            end = end.checked_add(length).ok_or_else(|| unpack.malformed("too long"))?;
            ids.push(before);
            ends.push(end);
        }
        if unpack.rest().len() != end as usize {
            return Err(unpack.malformed("records have another length"));
        }
        let records = bytes.slice(bytes.len() - end as usize..);
        Ok(Self { ids, ends, records })
    }
}

fn write_pages(
    records: Vec<Record>,
    page_records: usize,
    slots: &mut Vec<StoredEmailSlot>,
    write: &mut impl FnMut(Vec<u8>, u128) -> StoredPage,
) {
    let most = page_records.clamp(1, RECORDS_MAX);
    let mut rest = &records[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let count = rest.iter().take(most).take_while(|(_, record)| {
            let fits = bytes < PAGE_BYTES;
            bytes += record.len();
            fits
        });
        let (page, after) = rest.split_at(count.count());
        rest = after;
        let stored = write(EmailPage::encode(page), page.iter().map(digest).sum_wrapping());
        let (first, last) = (page[0].0, page[page.len() - 1].0);
        slots.push(StoredEmailSlot { first, last, count: page.len() as u32, page: stored });
    }
}

fn digest((email, record): &Record) -> u128 {
    let mut row = Vec::with_capacity(8 + record.len());
    row.extend_from_slice(&email.to_le_bytes());
    row.extend_from_slice(record);
    row_digest(6, &row)
}

trait SumWrapping {
    fn sum_wrapping(self) -> u128;
}

impl<I: Iterator<Item = u128>> SumWrapping for I {
    fn sum_wrapping(self) -> u128 {
        self.fold(0, u128::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    fn record(email: u64) -> Bytes {
        Bytes::from(vec![email as u8; email as usize % 50])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_map(steps in proptest::collection::vec((0u8..8, any::<u16>()), 1..60)) {
            let mut emails = EmailPages::default();
            let mut model: BTreeMap<u64, Bytes> = BTreeMap::new();
            let mut pages: BTreeMap<PageId, Bytes> = BTreeMap::new();
            let (mut next, mut number) = (1, 0);
            for (action, argument) in steps {
                let forget: Vec<u64> =
                    model.keys().copied().filter(|email| (email * 7 + u64::from(argument)) % 5 == 0).collect();
                match action {
                    0..=3 => {
                        for email in next..=next + u64::from(argument % 9) {
                            emails.push(email, record(email));
                            model.insert(email, record(email));
                        }
                        next += u64::from(argument % 9) + 1;
                    }
                    4 => {
                        emails.forget(&forget);
                        model.retain(|email, _| !forget.contains(email));
                    }
                    5 | 6 => {
                        let wanted: Vec<_> =
                            emails.missing_for_store(16).into_iter().map(|id| (id, pages[&id].clone())).collect();
                        emails.install(&wanted).unwrap();
                        let before = emails.clone();
                        let written = before.store(16, |bytes, digest| {
                            number += 1;
                            let id = PageId { base_seq: 0, attempt: Uuid::nil(), number };
                            let stored = StoredPage { id, digest, bytes: bytes.len() as u32 };
                            pages.insert(id, Bytes::from(bytes));
                            stored
                        });
                        if action == 6 {
                            emails.push(next, record(next));
                            model.insert(next, record(next));
                            next += 1;
                            emails.forget(&forget);
                            model.retain(|email, _| !forget.contains(email));
                        }
                        emails.stored(&written);
                        let reopened = EmailPages::from_stored(written.list()).unwrap();
                        prop_assert_eq!(reopened.digest(), before.digest());
                    }
                    _ => {
                        emails.shed();
                    }
                }
                for email in 0..next + 2 {
                    let found = match emails.locate(email) {
                        Located::Here(record) => Some(record),
                        Located::Stored(id) => EmailPage::decode(&pages[&id]).unwrap().get(email),
                        Located::Nowhere => None,
                    };
                    prop_assert_eq!(found.as_ref(), model.get(&email), "email {}", email);
                }
            }
            let wanted: Vec<_> = emails.missing_for_store(16).into_iter().map(|id| (id, pages[&id].clone())).collect();
            emails.install(&wanted).unwrap();
            let expected = model.iter().map(|(email, record)| digest(&(*email, record.clone()))).sum_wrapping();
            prop_assert_eq!(emails.digest(), expected);
        }

        #[test]
        fn any_bytes_are_a_page_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = EmailPage::decode(&Bytes::from(bytes));
        }
    }
}
