//! Sets of UIDs: what STORE, COPY, EXPUNGE and VANISHED speak about (RFC 9051 §9 `sequence-set`, RFC 4315).

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Uid;

/// A set of UIDs, kept as ascending ranges that neither overlap nor touch. A million consecutive UIDs cost as much as
/// one.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct UidSet {
    ranges: Vec<UidRange>,
}

/// The UIDs from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UidRange {
    /// The lowest.
    pub first: Uid,
    /// The highest; never below `first`.
    pub last: Uid,
}

/// Why a text is not a set of UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UidSetError {
    /// Empty, or an empty element between commas.
    #[error("empty element in UID set")]
    Empty,
    /// Not a number from 1 to 4294967295. `*` is one of these: only the session that knows the mailbox can resolve it.
    #[error("invalid number in UID set")]
    InvalidNumber,
}

impl UidRange {
    /// A range from two ends in any order (RFC 9051: `2:4` and `4:2` are the same).
    pub fn new(one: Uid, other: Uid) -> Self {
        Self { first: one.min(other), last: one.max(other) }
    }

    /// The number of UIDs in it.
    pub fn len(self) -> u64 {
        u64::from(self.last.get()) - u64::from(self.first.get()) + 1
    }

    /// Never: a range holds at least its first UID.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Whether the UID lies in it.
    pub fn contains(self, uid: Uid) -> bool {
        self.first <= uid && uid <= self.last
    }

    /// Its UIDs, ascending.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Uid> {
        (self.first.get()..=self.last.get()).filter_map(Uid::new)
    }
}

impl UidSet {
    /// No UIDs.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All UIDs from one to the other.
    pub fn from_range(first: Uid, last: Uid) -> Self {
        Self { ranges: vec![UidRange::new(first, last)] }
    }

    /// Reads `1,3:5,9` in any order, overlapping or not; `*` is refused.
    pub fn parse(text: &str) -> Result<Self, UidSetError> {
        let number = |text: &str| {
            let digits_only = text.bytes().all(|b| b.is_ascii_digit());
            let number = if digits_only { text.parse().ok() } else { None };
            number.and_then(Uid::new).ok_or(UidSetError::InvalidNumber)
        };
        let mut ranges = Vec::new();
        for element in text.split(',') {
            if element.is_empty() {
                return Err(UidSetError::Empty);
            }
            let (one, other) = element.split_once(':').unwrap_or((element, element));
            ranges.push(UidRange::new(number(one)?, number(other)?));
        }
        Ok(ranges.into_iter().collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many UIDs it holds.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// The lowest UID.
    pub fn first(&self) -> Option<Uid> {
        self.ranges.first().map(|range| range.first)
    }

    /// The highest UID.
    pub fn last(&self) -> Option<Uid> {
        self.ranges.last().map(|range| range.last)
    }

    /// Whether it holds this UID; a binary search.
    pub fn contains(&self, uid: Uid) -> bool {
        let at = self.ranges.partition_point(|range| range.last < uid);
        self.ranges.get(at).is_some_and(|range| range.contains(uid))
    }

    /// Its ranges, ascending.
    pub fn ranges(&self) -> &[UidRange] {
        &self.ranges
    }

    /// Its UIDs, ascending. The set may stand for four thousand million of them: clip it to what exists first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Uid> {
        self.ranges.iter().flat_map(|range| range.iter())
    }

    /// Adds a UID. Adding in ascending order costs nothing.
    pub fn insert(&mut self, uid: Uid) {
        self.insert_range(UidRange::new(uid, uid));
    }

    /// Adds a range.
    pub fn insert_range(&mut self, range: UidRange) {
        // The ranges that the new one overlaps or touches become one with it.
        let begin = self.ranges.partition_point(|old| leaves_gap(old.last, range.first));
        let end = self.ranges.partition_point(|old| !leaves_gap(range.last, old.first));
        if begin == end {
            self.ranges.insert(begin, range);
            return;
        }
        let joined = UidRange {
            first: self.ranges[begin].first.min(range.first),
            last: self.ranges[end - 1].last.max(range.last),
        };
        self.ranges.splice(begin..end, [joined]);
    }

    /// Takes a UID out.
    pub fn remove(&mut self, uid: Uid) {
        if self.contains(uid) {
            *self = self.difference(&Self::from_range(uid, uid));
        }
    }

    /// The UIDs in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges.iter().chain(&other.ranges).copied().collect()
    }

    /// The UIDs in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                ranges.push(UidRange { first, last });
            }
            if a.last < b.last {
                left.next();
            } else {
                right.next();
            }
        }
        Self { ranges }
    }

    /// The UIDs in this and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().copied().peekable();
        for range in &self.ranges {
            let mut next = u64::from(range.first.get());
            let last = u64::from(range.last.get());
            while holes.next_if(|hole| hole.last < range.first).is_some() {}
            // A hole may reach into the next range of ours, so it is looked at and not taken.
            let mut following = holes.clone();
            while let Some(hole) = following.next_if(|hole| hole.first <= range.last) {
                push_numbers(&mut ranges, next, u64::from(hole.first.get()).saturating_sub(1));
                next = u64::from(hole.last.get()) + 1;
            }
            push_numbers(&mut ranges, next, last);
        }
        Self { ranges }
    }

    /// The UIDs of this set that lie between two bounds, both included.
    #[must_use]
    pub fn clip(&self, bounds: RangeInclusive<Uid>) -> Self {
        let (low, high) = bounds.into_inner();
        if low > high {
            return Self::new();
        }
        let begin = self.ranges.partition_point(|range| range.last < low);
        let end = self.ranges.partition_point(|range| range.first <= high);
        let ranges = self.ranges[begin..end.max(begin)]
            .iter()
            .map(|range| UidRange { first: range.first.max(low), last: range.last.min(high) })
            .collect();
        Self { ranges }
    }
}

/// Whether a range ending at `last` leaves a gap before one that begins at `first`.
fn leaves_gap(last: Uid, first: Uid) -> bool {
    u64::from(last.get()) + 1 < u64::from(first.get())
}

fn push_numbers(ranges: &mut Vec<UidRange>, first: u64, last: u64) {
    if first <= last
        && let (Some(first), Some(last)) = (Uid::new(first as u32), Uid::new(last as u32))
    {
        ranges.push(UidRange { first, last });
    }
}

impl FromIterator<UidRange> for UidSet {
    fn from_iter<I: IntoIterator<Item = UidRange>>(ranges: I) -> Self {
        let mut sorted: Vec<UidRange> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut set = Self::new();
        for range in sorted {
            match set.ranges.last_mut() {
                Some(end) if !leaves_gap(end.last, range.first) => end.last = end.last.max(range.last),
                _ => set.ranges.push(range),
            }
        }
        set
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        let mut set = Self::new();
        let mut disorder = Vec::new();
        for uid in uids {
            match set.ranges.last_mut() {
                Some(end) if end.last.get().checked_add(1) == Some(uid.get()) => end.last = uid,
                Some(end) if uid <= end.last => disorder.push(UidRange::new(uid, uid)),
                _ => set.ranges.push(UidRange::new(uid, uid)),
            }
        }
        if disorder.is_empty() { set } else { set.ranges.into_iter().chain(disorder).collect() }
    }
}

impl From<Uid> for UidSet {
    fn from(uid: Uid) -> Self {
        Self::from_range(uid, uid)
    }
}

impl fmt::Display for UidSet {
    /// As IMAP writes it; empty for the empty set, which IMAP cannot write.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if range.first == range.last {
                write!(f, "{}", range.first)?;
            } else {
                write!(f, "{}:{}", range.first, range.last)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UidSet({self})")
    }
}

/// Stored as pairs (gap since the end of the range before, length - 1), so that postcard's varints stay short.
impl Serialize for UidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut end = 0;
        let pairs = self.ranges.iter().map(|range| {
            let (first, last) = (range.first.get(), range.last.get());
            let pair = (first - end, last - first);
            end = last;
            pair
        });
        serializer.collect_seq(pairs.collect::<Vec<(u32, u32)>>())
    }
}

impl<'de> Deserialize<'de> for UidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(u32, u32)>::deserialize(deserializer)?;
        let mut ranges = Vec::with_capacity(pairs.len());
        let mut end = 0_u32;
        for (at, (gap, rest)) in pairs.into_iter().enumerate() {
            let ordered = gap > u32::from(at > 0);
            let first = end.checked_add(gap).filter(|_| ordered).and_then(Uid::new);
            let last = first.and_then(|first| first.get().checked_add(rest)).and_then(Uid::new);
            let (Some(first), Some(last)) = (first, last) else {
                return Err(D::Error::custom("UID set is not in order"));
            };
            end = last.get();
            ranges.push(UidRange { first, last });
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    #[test]
    fn text_rfc9051_sequence_set() {
        let check = |text: &str, expected: Result<&str, UidSetError>| {
            assert_eq!(UidSet::parse(text).map(|set| set.to_string()), expected.map(str::to_owned), "{text}");
        };
        check("1", Ok("1"));
        check("4:2", Ok("2:4"));
        check("9,1:3,2:5,6", Ok("1:6,9"));
        check("1:4294967295", Ok("1:4294967295"));
        check("4294967295,4294967294", Ok("4294967294:4294967295"));
        check("", Err(UidSetError::Empty));
        check("1,,2", Err(UidSetError::Empty));
        check("0", Err(UidSetError::InvalidNumber));
        check("+1", Err(UidSetError::InvalidNumber));
        check("1:*", Err(UidSetError::InvalidNumber));
        check("4294967296", Err(UidSetError::InvalidNumber));
        check("1:2:3", Err(UidSetError::InvalidNumber));
    }

    #[test]
    fn whole_range_costs_one() {
        let all = UidSet::from_range(Uid::MIN, Uid::MAX);
        assert_eq!(all.len(), u64::from(u32::MAX));
        assert_eq!(all.clip(uid(5)..=uid(7)).to_string(), "5:7");
        assert_eq!(all.difference(&UidSet::from(Uid::MAX)).last(), Uid::new(u32::MAX - 1));
        assert_eq!(all.difference(&UidSet::from(Uid::MIN)).first(), Uid::new(2));
        let stored = postcard::to_stdvec(&all).unwrap();
        assert!(stored.len() <= 8);
    }

    #[test]
    fn stored_disorder_is_refused() {
        for pairs in [vec![(0_u32, 1_u32)], vec![(1, 0), (1, 0)], vec![(5, u32::MAX)], vec![(1, 0), (0, 0)]] {
            let stored = postcard::to_stdvec(&pairs).unwrap();
            assert!(postcard::from_bytes::<UidSet>(&stored).is_err(), "{pairs:?}");
        }
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<u32>> {
        proptest::collection::btree_set(1_u32..60, 0..40)
    }

    fn set_of(numbers: &BTreeSet<u32>) -> UidSet {
        numbers.iter().map(|n| uid(*n)).collect()
    }

    fn numbers_of(set: &UidSet) -> BTreeSet<u32> {
        set.iter().map(Uid::get).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            rng_seed: prop::test_runner::RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn behaves_like_a_set(a in numbers(), b in numbers(), one in 1_u32..60, low in 1_u32..60, high in 1_u32..60) {
            let (x, y) = (set_of(&a), set_of(&b));
            prop_assert_eq!(numbers_of(&x), a.clone());
            prop_assert_eq!(x.len(), a.len() as u64);
            prop_assert_eq!(numbers_of(&x.union(&y)), &a | &b);
            prop_assert_eq!(numbers_of(&x.intersection(&y)), &a & &b);
            prop_assert_eq!(numbers_of(&x.difference(&y)), &a - &b);
            prop_assert_eq!(x.contains(uid(one)), a.contains(&one));
            let clipped: BTreeSet<u32> = a.iter().copied().filter(|n| (low..=high).contains(n)).collect();
            prop_assert_eq!(numbers_of(&x.clip(uid(low)..=uid(high))), clipped);

            let (mut grown, mut reference) = (x.clone(), a.clone());
            for n in &b {
                grown.insert(uid(*n));
                reference.insert(*n);
            }
            prop_assert_eq!(&grown, &set_of(&reference));
            grown.remove(uid(one));
            reference.remove(&one);
            prop_assert_eq!(&grown, &set_of(&reference));
            for pair in grown.ranges().windows(2) {
                prop_assert!(pair[0].last.get() + 1 < pair[1].first.get());
            }

            if !a.is_empty() {
                prop_assert_eq!(UidSet::parse(&x.to_string()).unwrap(), x.clone());
            }
            let stored = postcard::to_stdvec(&x).unwrap();
            prop_assert_eq!(postcard::from_bytes::<UidSet>(&stored).unwrap(), x);
        }

        #[test]
        fn any_order_makes_the_same_set(mut list in proptest::collection::vec(1_u32..60, 0..40)) {
            let shuffled: UidSet = list.iter().map(|n| uid(*n)).collect();
            list.sort_unstable();
            prop_assert_eq!(shuffled, list.into_iter().map(uid).collect::<UidSet>());
        }
    }
}
