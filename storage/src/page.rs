//! Index pages: some messages of a mailbox, in columns.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use engine::FormatError;
use mail::id::{EmailId, ModSeq, ThreadId, Uid};
use mail::uid::UidSet;

use crate::date::InternalDate;
use crate::index::MessageRow;
use crate::marks::Marks;
use crate::pack::{Unpack, put_delta, put_varint, put_zigzag, row_digest};

const VERSION: u8 = 1;
/// The most messages that a page may hold, whatever the account's own layout says.
pub(crate) const MESSAGES_MAX: usize = 4096;
/// Memory per message: what the columns below take.
pub(crate) const ROW_BYTES: usize = 60;

/// Messages, ascending by UID. Columns that a STORE changes stand apart from those that never change, so that flags
/// of a whole mailbox are set by copying 16 bytes per message.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexPage {
    fixed: Arc<Fixed>,
    modseq: Vec<u64>,
    /// Lower half of the marks: system flags and the first 56 keywords.
    low: Vec<u64>,
    /// Upper half; empty as long as no message here has any of the other keywords.
    high: Vec<u64>,
    digest: OnceLock<u128>,
    newest: OnceLock<u64>,
}

#[derive(Clone, Debug, Default)]
struct Fixed {
    uid: Vec<u32>,
    email: Vec<u64>,
    created: Vec<u64>,
    size: Vec<u32>,
    internal_date: Vec<i64>,
    saved_date: Vec<u32>,
    thread: Vec<u64>,
}

impl IndexPage {
    pub(crate) fn len(&self) -> usize {
        self.fixed.uid.len()
    }

    pub(crate) fn uids(&self) -> &[u32] {
        &self.fixed.uid
    }

    pub(crate) fn emails(&self) -> &[u64] {
        &self.fixed.email
    }

    pub(crate) fn modseqs(&self) -> &[u64] {
        &self.modseq
    }

    /// The highest MODSEQ of its messages. Computed once.
    pub(crate) fn newest(&self) -> u64 {
        *self.newest.get_or_init(|| self.modseq.iter().copied().max().unwrap_or(0))
    }

    /// Lower half of the marks.
    pub(crate) fn low_marks(&self) -> &[u64] {
        &self.low
    }

    pub(crate) fn marks(&self, at: usize) -> Marks {
        let high = self.high.get(at).copied().unwrap_or(0);
        Marks::from_bits(u128::from(self.low[at]) | u128::from(high) << 64)
    }

    pub(crate) fn row(&self, at: usize) -> MessageRow {
        let fixed = &*self.fixed;
        MessageRow {
            uid: Uid::new(fixed.uid[at]).expect("zero is refused on the way in"),
            email: EmailId(fixed.email[at]),
            modseq: ModSeq(self.modseq[at]),
            created: ModSeq(fixed.created[at]),
            marks: self.marks(at),
            size: fixed.size[at],
            internal_date: InternalDate::from_packed(fixed.internal_date[at]),
            saved_date: fixed.saved_date[at],
            thread: ThreadId(fixed.thread[at]),
        }
    }

    /// Adds a message, whose UID is greater than all others.
    pub(crate) fn push(&mut self, row: &MessageRow) {
        debug_assert!(self.fixed.uid.last().is_none_or(|last| *last < row.uid.get()));
        self.digest = OnceLock::new();
        self.newest = OnceLock::new();
        let fixed = Arc::make_mut(&mut self.fixed);
        fixed.uid.push(row.uid.get());
        fixed.email.push(row.email.0);
        fixed.created.push(row.created.0);
        fixed.size.push(row.size);
        fixed.internal_date.push(row.internal_date.packed());
        fixed.saved_date.push(row.saved_date);
        fixed.thread.push(row.thread.0);
        self.modseq.push(row.modseq.0);
        let bits = row.marks.bits();
        self.low.push(bits as u64);
        let high = (bits >> 64) as u64;
        if high != 0 || !self.high.is_empty() {
            self.high.resize(self.low.len() - 1, 0);
            self.high.push(high);
        }
    }

    /// Adds the messages of a page that follows.
    pub(crate) fn extend(&mut self, other: &Self) {
        for at in 0..other.len() {
            self.push(&other.row(at));
        }
    }

    /// Positions of the messages of the set, as ranges.
    pub(crate) fn positions<'a>(&'a self, uids: &'a UidSet) -> impl Iterator<Item = Range<usize>> + 'a {
        let own = &self.fixed.uid;
        let (first, last) = (own.first().copied().unwrap_or(1), own.last().copied().unwrap_or(0));
        let ranges = uids.ranges();
        let begin = ranges.partition_point(|range| range.last.get() < first);
        let mut from = 0;
        ranges[begin..].iter().take_while(move |range| range.first.get() <= last).filter_map(move |range| {
            // Sets of many small ranges go through the page from left to right, a step at a time.
            let start = from + seek(&own[from..], range.first.get());
            let end = match range.last.get().checked_add(1) {
                Some(beyond) => start + seek(&own[start..], beyond),
                None => own.len(),
            };
            from = end;
            (start < end).then_some(start..end)
        })
    }

    /// Clears and sets marks of the messages of the set; gives them this MODSEQ unless it is `None`.
    pub(crate) fn mark(&mut self, uids: &UidSet, add: Marks, remove: Marks, modseq: Option<u64>) {
        let ranges: Vec<Range<usize>> = self.positions(uids).collect();
        if ranges.is_empty() {
            return;
        }
        self.digest = OnceLock::new();
        self.newest = OnceLock::new();
        let (add, keep) = (add.bits(), !remove.bits());
        if (add >> 64) as u64 != 0 && self.high.is_empty() {
            self.high = vec![0; self.low.len()];
        }
        for range in ranges {
            for marks in &mut self.low[range.clone()] {
                *marks = *marks & keep as u64 | add as u64;
            }
            if !self.high.is_empty() {
                for marks in &mut self.high[range.clone()] {
                    *marks = *marks & (keep >> 64) as u64 | (add >> 64) as u64;
                }
            }
            if let Some(modseq) = modseq {
                self.modseq[range].fill(modseq);
            }
        }
    }

    /// Takes the messages of the set out, and returns them.
    pub(crate) fn remove(&mut self, uids: &UidSet) -> Vec<MessageRow> {
        let ranges: Vec<Range<usize>> = self.positions(uids).collect();
        if ranges.is_empty() {
            return Vec::new();
        }
        let removed = ranges.iter().cloned().flatten().map(|at| self.row(at)).collect();
        let mut kept = Self::default();
        let mut from = 0;
        for range in ranges {
            kept.extend_from(self, from..range.start);
            from = range.end;
        }
        kept.extend_from(self, from..self.len());
        *self = kept;
        removed
    }

    fn extend_from(&mut self, other: &Self, range: Range<usize>) {
        let fixed = Arc::make_mut(&mut self.fixed);
        let from = &*other.fixed;
        fixed.uid.extend_from_slice(&from.uid[range.clone()]);
        fixed.email.extend_from_slice(&from.email[range.clone()]);
        fixed.created.extend_from_slice(&from.created[range.clone()]);
        fixed.size.extend_from_slice(&from.size[range.clone()]);
        fixed.internal_date.extend_from_slice(&from.internal_date[range.clone()]);
        fixed.saved_date.extend_from_slice(&from.saved_date[range.clone()]);
        fixed.thread.extend_from_slice(&from.thread[range.clone()]);
        self.modseq.extend_from_slice(&other.modseq[range.clone()]);
        self.low.extend_from_slice(&other.low[range.clone()]);
        if !other.high.is_empty() {
            self.high.extend_from_slice(&other.high[range]);
        }
    }

    /// Sum of the digests of its rows. Computed once.
    pub(crate) fn digest(&self, mailbox: u32) -> u128 {
        *self.digest.get_or_init(|| {
            let mut row_bytes = Vec::with_capacity(96);
            (0..self.len()).fold(0u128, |sum, at| {
                let row = self.row(at);
                row_bytes.clear();
                row_bytes.extend_from_slice(&mailbox.to_le_bytes());
                row_bytes.extend_from_slice(&row.uid.get().to_le_bytes());
                for number in [row.email.0, row.modseq.0, row.created.0, row.thread.0] {
                    row_bytes.extend_from_slice(&number.to_le_bytes());
                }
                row_bytes.extend_from_slice(&row.marks.bits().to_le_bytes());
                row_bytes.extend_from_slice(&row.size.to_le_bytes());
                row_bytes.extend_from_slice(&row.saved_date.to_le_bytes());
                row_bytes.extend_from_slice(&row.internal_date.packed().to_le_bytes());
                sum.wrapping_add(row_digest(1, &row_bytes))
            })
        })
    }

    /// The stored form: column after column, differences to the row before.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let fixed = &*self.fixed;
        let mut out = Vec::with_capacity(16 + self.len() * 20);
        out.push(VERSION);
        put_varint(&mut out, self.len() as u64);
        let mut before = 0;
        for uid in &fixed.uid {
            put_delta(&mut out, &mut before, u64::from(*uid));
        }
        put_deltas(&mut out, fixed.email.iter().copied());
        put_deltas(&mut out, fixed.created.iter().copied());
        for (modseq, created) in self.modseq.iter().zip(&fixed.created) {
            put_zigzag(&mut out, modseq.wrapping_sub(*created) as i64);
        }
        put_runs(&mut out, &self.low);
        put_runs(&mut out, &self.high);
        for size in &fixed.size {
            put_varint(&mut out, u64::from(*size));
        }
        put_deltas(&mut out, fixed.internal_date.iter().map(|date| *date as u64));
        put_deltas(&mut out, fixed.saved_date.iter().map(|date| u64::from(*date)));
        for (thread, email) in fixed.thread.iter().zip(&fixed.email) {
            put_zigzag(&mut out, email.wrapping_sub(*thread) as i64);
        }
        out
    }

    /// Reverse of [`Self::encode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut unpack = Unpack::new("index page", bytes);
        let version = unpack.byte()?;
        if version != VERSION {
            return Err(FormatError::Unknown { what: "version of index page", number: version.into() });
        }
        let count = unpack.count(MESSAGES_MAX)?;
        let mut fixed = Fixed { uid: Vec::with_capacity(count), ..Fixed::default() };
        let mut before = 0;
        for _ in 0..count {
            let (last, uid) = (before, unpack.delta(&mut before)?);
            if uid <= last || uid > u64::from(u32::MAX) {
                return Err(unpack.malformed("UIDs do not ascend"));
            }
            fixed.uid.push(uid as u32);
        }
        fixed.email = deltas(&mut unpack, count)?;
        fixed.created = deltas(&mut unpack, count)?;
        let mut modseq = Vec::with_capacity(count);
        for created in &fixed.created {
            modseq.push(created.wrapping_add(unpack.zigzag()? as u64));
        }
        let low = runs(&mut unpack, count)?;
        if low.len() != count {
            return Err(unpack.malformed("marks are missing"));
        }
        let high = runs(&mut unpack, count)?;
        if !high.is_empty() && high.len() != count {
            return Err(unpack.malformed("marks are missing"));
        }
        fixed.size = (0..count).map(|_| unpack.varint_u32()).collect::<Result<_, _>>()?;
        fixed.internal_date = deltas(&mut unpack, count)?.into_iter().map(|date| date as i64).collect();
        fixed.saved_date = deltas(&mut unpack, count)?
            .into_iter()
            .map(|date| u32::try_from(date).map_err(|_| unpack.malformed("saved date out of range")))
            .collect::<Result<_, _>>()?;
        fixed.thread = Vec::with_capacity(count);
        for email in &fixed.email {
            fixed.thread.push(email.wrapping_sub(unpack.zigzag()? as u64));
        }
        unpack.finish()?;
        Ok(Self {
            fixed: Arc::new(fixed),
            modseq,
            low,
            high,
            digest: OnceLock::new(),
            newest: OnceLock::new(),
        })
    }
}

/// How many leading numbers of an ascending slice are below `bound`; quick when it is few.
fn seek(numbers: &[u32], bound: u32) -> usize {
    let mut reach = 1;
    while reach < numbers.len() && numbers[reach] < bound {
        reach *= 2;
    }
    let low = reach / 2;
    let high = (reach + 1).min(numbers.len());
    low.min(high) + numbers[low.min(high)..high].partition_point(|number| *number < bound)
}

fn put_deltas(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    let mut before = 0;
    for number in numbers {
        put_delta(out, &mut before, number);
    }
}

fn deltas(unpack: &mut Unpack<'_>, count: usize) -> Result<Vec<u64>, FormatError> {
    let mut before = 0;
    (0..count).map(|_| unpack.delta(&mut before)).collect()
}

/// Runs of equal numbers: most messages of a page have the same flags.
fn put_runs(out: &mut Vec<u8>, numbers: &[u64]) {
    put_varint(out, numbers.len() as u64);
    for run in numbers.chunk_by(|a, b| a == b) {
        put_varint(out, run.len() as u64);
        put_varint(out, run[0]);
    }
}

fn runs(unpack: &mut Unpack<'_>, at_most: usize) -> Result<Vec<u64>, FormatError> {
    let count = unpack.varint()? as usize;
    if count > at_most {
        return Err(unpack.malformed("too many marks"));
    }
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let run = unpack.varint()? as usize;
        let number = unpack.varint()?;
        if run == 0 || run > count - numbers.len() {
            return Err(unpack.malformed("run of marks too long"));
        }
        numbers.resize(numbers.len() + run, number);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::flag::{Flag, Flags};
    use proptest::prelude::*;

    fn row(uid: u32) -> MessageRow {
        let number = u64::from(uid);
        let seen = if uid.is_multiple_of(3) { Flags::EMPTY } else { Flag::Seen.into() };
        MessageRow {
            uid: Uid::new(uid).unwrap(),
            email: EmailId(number + 7),
            modseq: ModSeq(number + 20),
            created: ModSeq(number + 10),
            marks: Marks::from_flags(seen),
            size: uid / 2,
            internal_date: InternalDate::new(1_700_000_000 + i64::from(uid) * 60, 60),
            saved_date: 1_700_000_000 + uid / 2,
            thread: ThreadId(number / 2),
        }
    }

    fn page(uids: impl IntoIterator<Item = u32>) -> IndexPage {
        let mut page = IndexPage::default();
        for uid in uids {
            page.push(&row(uid));
        }
        page
    }

    fn rows(page: &IndexPage) -> Vec<MessageRow> {
        (0..page.len()).map(|at| page.row(at)).collect()
    }

    #[test]
    fn stored_form_survives_and_is_small() {
        for page in [IndexPage::default(), page([1]), page(1..=1024), page([1, 5, u32::MAX])] {
            let bytes = page.encode();
            assert!(bytes.len() <= 16 + page.len() * 20, "{} for {}", bytes.len(), page.len());
            let decoded = IndexPage::decode(&bytes).unwrap();
            assert_eq!(rows(&decoded), rows(&page));
            assert_eq!(decoded.digest(1), page.digest(1));
        }
    }

    #[test]
    fn marks_of_both_halves() {
        let mut page = page(1..=10);
        let set = UidSet::parse("2:4,9,11:20").unwrap();
        page.mark(&set, Marks::from_keyword(100), Marks::from_flags(Flags::ALL), Some(99));
        for at in 0..page.len() {
            let row = page.row(at);
            let hit = set.contains(row.uid);
            assert_eq!(row.marks.has_keyword(100), hit);
            assert_eq!(row.modseq == ModSeq(99), hit);
            assert!(!hit || row.marks.flags().is_empty());
        }
        let decoded = IndexPage::decode(&page.encode()).unwrap();
        assert_eq!(rows(&decoded), rows(&page));
        page.mark(&set, Marks::SHARED, Marks::EMPTY, None);
        assert_eq!(page.row(1).modseq, ModSeq(99), "the shared mark is not a change");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn removing_equals_filtering(uids in proptest::collection::btree_set(1u32..500, 0..200),
                                     gone in proptest::collection::btree_set(1u32..500, 0..200)) {
            let mut page = page(uids.iter().copied());
            let digest_before = page.digest(3);
            let set: UidSet = gone.iter().copied().filter_map(Uid::new).collect();
            let removed = page.remove(&set);
            let expected: Vec<_> = uids.intersection(&gone).map(|uid| row(*uid)).collect();
            prop_assert_eq!(removed.clone(), expected);
            let kept: Vec<_> = uids.difference(&gone).map(|uid| row(*uid)).collect();
            prop_assert_eq!(rows(&page), kept);
            let mut rest = IndexPage::default();
            for row in &removed {
                rest.push(row);
            }
            prop_assert_eq!(page.digest(3).wrapping_add(rest.digest(3)), digest_before);
        }

        #[test]
        fn any_bytes_are_a_page_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = IndexPage::decode(&bytes);
        }

        #[test]
        fn damaged_pages_never_panic(at in 0usize..400, bit in 0u8..8) {
            let mut bytes = page(1..=30).encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(page) = IndexPage::decode(&bytes) {
                let _ = rows(&page);
            }
        }
    }
}
