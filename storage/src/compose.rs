//! Changes between two states, put together from what happened between them (RFC 8620 §5.2).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mail::id::ModSeq;

/// A state that a client knows: an operation, and where a client was told of a part of that operation only, which part.
///
/// An operation may change more than a client wants to be told at once. What one operation did is told in the order of
/// ids, so that the last one told is a place to go on from, whatever happens to them meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Since {
    /// Everything before this operation is known.
    seq: u64,
    /// What it did to things up to this number is known; [`Self::ALL`]: to all.
    told: u64,
}

impl Since {
    const ALL: u64 = u64::MAX;

    /// The state after an operation.
    pub const fn operation(seq: u64) -> Self {
        Self { seq, told: Self::ALL }
    }

    /// The operation that was the last of which something was told.
    pub const fn seq(self) -> u64 {
        self.seq
    }

    /// The last operation of which everything was told.
    fn whole(self) -> u64 {
        if self.told == Self::ALL { self.seq } else { self.seq.saturating_sub(1) }
    }

    /// History after this operation is needed to go on from here.
    pub(crate) fn needs(self) -> u64 {
        self.whole()
    }
}

impl From<ModSeq> for Since {
    fn from(modseq: ModSeq) -> Self {
        Self::operation(modseq.0)
    }
}

/// As clients are given it: `17`, or `17.250` in the middle of an operation.
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.told {
            Self::ALL => write!(f, "{}", self.seq),
            told => write!(f, "{}.{told}", self.seq),
        }
    }
}

/// Not a state that was ever given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a state")]
pub struct NotAState;

impl FromStr for Since {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_number).ok_or(NotAState)
        };
        let (seq, told) = match text.split_once('.') {
            Some((seq, told)) => (seq, number(told)?),
            None => (text, Self::ALL),
        };
        Ok(Self { seq: number(seq)?, told })
    }
}

/// What has changed between two states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeSet<I> {
    /// What there is now and was not.
    pub created: Vec<I>,
    /// What there was, is now, and may be another.
    pub updated: Vec<I>,
    /// What there was and is not.
    pub destroyed: Vec<I>,
    /// The state that this leads to: a client that takes it over asks from here the next time.
    pub new_state: Since,
    /// Whether more has changed after that.
    pub has_more: bool,
}

impl<I> ChangeSet<I> {
    /// Nothing has changed.
    pub(crate) fn nothing(new_state: Since) -> Self {
        let (created, updated, destroyed) = (Vec::new(), Vec::new(), Vec::new());
        Self { created, updated, destroyed, new_state, has_more: false }
    }
}

/// Why changes cannot be said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangesError {
    /// The state lies in the future, or so far in the past that what happened since is forgotten (RFC 8620 §5.2
    /// `cannotCalculateChanges`).
    #[error("changes since then are not known")]
    Forgotten,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] crate::error::StorageError),
}

/// What happened to one thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// It came to be.
    Created,
    /// It became another.
    Changed,
    /// It is gone.
    Destroyed,
}

/// Ids in the order in which they are told. Where one operation can change several, no two have the same number.
pub(crate) trait Numbered: Ord + Clone {
    fn number(&self) -> u64;
}

impl Numbered for u64 {
    fn number(&self) -> u64 {
        *self
    }
}

impl Numbered for u32 {
    fn number(&self) -> u64 {
        (*self).into()
    }
}

/// An operation changes one object.
impl Numbered for String {
    fn number(&self) -> u64 {
        0
    }
}

/// What happened to all things, in any order.
#[derive(Debug)]
pub(crate) struct Events<I>(Vec<(u64, I, Event)>);

impl<I> Default for Events<I> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<I: Numbered> Events<I> {
    pub(crate) fn push(&mut self, seq: u64, id: I, event: Event) {
        self.0.push((seq, id, event));
    }

    /// What has changed from `since` to `now`, or, where that is more than `at_most`, to a state between them. `is_told`
    /// hears of everything that the answer rests on.
    pub(crate) fn compose(
        mut self,
        since: Since,
        now: u64,
        at_most: usize,
        mut is_told: impl FnMut(&I, u64),
    ) -> ChangeSet<I> {
        let whole = since.whole();
        let is_known = |seq: u64, id: &I| seq <= whole || seq == since.seq && id.number() <= since.told;
        self.0.retain(|(seq, id, _)| *seq <= now && !is_known(*seq, id));
        self.0.sort_unstable();
        self.0.dedup();
        let mut fates: BTreeMap<I, Fate> = BTreeMap::new();
        // Where an operation ends, as far as everything fits.
        let mut taken = 0;
        let mut counted = 0;
        let mut last_whole = None;
        for (at, (seq, id, event)) in self.0.iter().enumerate() {
            let before = fates.get(id).map_or(0, |fate| fate.weight());
            let mut fate = fates.get(id).copied().unwrap_or(Fate::before(*event));
            fate.is_there = *event != Event::Destroyed;
            if counted - before + fate.weight() > at_most {
                break;
            }
            counted = counted - before + fate.weight();
            fates.insert(id.clone(), fate);
            taken = at + 1;
            let is_end = self.0.get(taken).is_none_or(|(next, ..)| next != seq);
            if is_end {
                last_whole = Some((taken, *seq));
            }
        }
        let (end, new_state, has_more) = match last_whole {
            _ if taken == self.0.len() => (taken, Since::operation(now), false),
            Some((end, seq)) => (end, Since::operation(seq), true),
            None => {
                let told = self.0[..taken]
                    .last()
                    .map_or(since, |(seq, id, _)| Since { seq: *seq, told: id.number() });
                (taken, told, true)
            }
        };
        if end < taken {
            fates.clear();
            for (_, id, event) in &self.0[..end] {
                let fate = fates.entry(id.clone()).or_insert(Fate::before(*event));
                fate.is_there = *event != Event::Destroyed;
            }
        }
        for (seq, id, _) in &self.0[..end] {
            is_told(id, *seq);
        }
        let mut changes = ChangeSet {
            created: Vec::new(),
            updated: Vec::new(),
            destroyed: Vec::new(),
            new_state,
            has_more,
        };
        for (id, fate) in fates {
            match (fate.was_there, fate.is_there) {
                (false, true) => changes.created.push(id),
                (true, true) => changes.updated.push(id),
                (true, false) => changes.destroyed.push(id),
                (false, false) => {}
            }
        }
        changes
    }
}

/// Whether something was there before, and is after.
#[derive(Clone, Copy)]
struct Fate {
    was_there: bool,
    is_there: bool,
}

impl Fate {
    /// What the first thing that happens to something says of the time before.
    fn before(first: Event) -> Self {
        let was_there = first != Event::Created;
        Self { was_there, is_there: was_there }
    }

    /// How many ids it takes to say so.
    fn weight(self) -> usize {
        usize::from(self.was_there || self.is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_are_written_and_read() {
        for text in ["0", "17", "18446744073709551615", "17.0", "17.250"] {
            assert_eq!(text.parse::<Since>().unwrap().to_string(), text);
        }
        for text in ["", "x", "-1", "+1", "1.", ".1", "1.2.3", "1.-2", "99999999999999999999", " 1"] {
            assert!(text.parse::<Since>().is_err(), "{text:?}");
        }
        assert_eq!(Since::from(ModSeq(5)).to_string(), "5");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// However many are told at once: taken over one after the other they lead from what there was to what there is,
        /// and nothing that has changed is left out.
        #[test]
        fn pieces_make_the_whole(steps in proptest::collection::vec((0u8..6, 0u32..9, any::<bool>()), 1..60),
                                 from in 0u64..60, at_most in 1usize..6) {
            let mut there: BTreeMap<u32, u64> = BTreeMap::new();
            let mut states = vec![there.clone()];
            let mut log: Vec<(u64, u32, Event)> = Vec::new();
            let mut seq = 1;
            for (action, id, next) in steps {
                if next {
                    states.push(there.clone());
                    seq += 1;
                }
                // An operation does one thing to each at most.
                if log.iter().any(|(at, known, _)| *at == seq && *known == id) {
                    continue;
                }
                let event = match (there.contains_key(&id), action) {
                    (false, _) => Event::Created,
                    (true, 0..=2) => Event::Changed,
                    (true, _) => Event::Destroyed,
                };
                if event == Event::Destroyed { there.remove(&id); } else { there.insert(id, seq); }
                log.push((seq, id, event));
            }
            states.push(there.clone());
            let from = from % states.len() as u64;
            let mut known = states[from as usize].clone();
            let mut since = Since::operation(from);
            let mut rounds = 0;
            loop {
                rounds += 1;
                prop_assert!(rounds < 200);
                let mut events = Events::default();
                for (seq, id, event) in &log {
                    events.push(*seq, *id, *event);
                }
                let changes = events.compose(since, seq, at_most, |_, _| {});
                prop_assert!(
                    changes.created.len() + changes.updated.len() + changes.destroyed.len() <= at_most);
                // A client sees things as they are now, whatever state it is told of.
                for id in &changes.created {
                    prop_assert!(known.insert(*id, there.get(id).copied().unwrap_or(0)).is_none());
                }
                for id in &changes.updated {
                    prop_assert!(known.insert(*id, there.get(id).copied().unwrap_or(0)).is_some());
                }
                for id in &changes.destroyed {
                    prop_assert!(known.remove(id).is_some());
                }
                prop_assert!(changes.new_state > since || !changes.has_more);
                since = changes.new_state.to_string().parse().unwrap();
                if !changes.has_more {
                    break;
                }
            }
            prop_assert_eq!(known, there);
            prop_assert_eq!(since, Since::operation(seq));
        }
    }
}
