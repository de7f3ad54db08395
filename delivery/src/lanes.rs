//! Lanes: a place in the work per account, so that one account with much mail, or one that cannot be written for a
//! while, does not stand in the way of the others. Pure bookkeeping over whatever waits.

use std::collections::{HashMap, VecDeque};

use mail::id::AccountId;

/// Who may run, and who waits for whom.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: HashMap<AccountId, Lane<T>>,
    running_max: usize,
    waiting_max: usize,
}

#[derive(Debug)]
struct Lane<T> {
    running: usize,
    waiting: VecDeque<T>,
    /// Something has left the lane since it last was full.
    moves: bool,
}

/// What a lane says to one more.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Admission<T> {
    /// Go: and call [`Lanes::leave`] at the end.
    Run(T),
    /// Kept; comes out of [`Lanes::leave`] when it is its turn.
    Waits,
    /// The lane is full. `stuck`: nothing has left it since it was full the last time.
    Full { item: T, stuck: bool },
}

impl<T> Lanes<T> {
    pub(crate) fn new(running_max: usize, waiting_max: usize) -> Self {
        Self { lanes: HashMap::new(), running_max: running_max.max(1), waiting_max }
    }

    pub(crate) fn admit(&mut self, account: AccountId, item: T) -> Admission<T> {
        let lane = self.lanes.entry(account).or_insert_with(|| Lane {
            running: 0,
            waiting: VecDeque::new(),
            moves: true,
        });
        if lane.running < self.running_max {
            lane.running += 1;
            return Admission::Run(item);
        }
        if lane.waiting.len() < self.waiting_max {
            lane.waiting.push_back(item);
            return Admission::Waits;
        }
        Admission::Full { item, stuck: !std::mem::take(&mut lane.moves) }
    }

    /// One that ran is at its end; the next one, if any, runs in its place.
    pub(crate) fn leave(&mut self, account: AccountId) -> Option<T> {
        let lane = self.lanes.get_mut(&account)?;
        lane.moves = true;
        if let Some(next) = lane.waiting.pop_front() {
            return Some(next);
        }
        lane.running -= 1;
        if lane.running == 0 {
            self.lanes.remove(&account);
        }
        None
    }

    /// Everything that waits: for the end.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_does_not_take_the_places_of_another() {
        let account = |number| AccountId(uuid::Uuid::from_u128(number));
        let (busy, other) = (account(1), account(2));
        let mut lanes = Lanes::new(2, 2);
        assert_eq!(lanes.admit(busy, 1), Admission::Run(1));
        assert_eq!(lanes.admit(busy, 2), Admission::Run(2));
        assert_eq!(lanes.admit(busy, 3), Admission::Waits);
        assert_eq!(lanes.admit(busy, 4), Admission::Waits);
        assert_eq!(lanes.admit(busy, 5), Admission::Full { item: 5, stuck: false });
        assert_eq!(lanes.admit(busy, 6), Admission::Full { item: 6, stuck: true });
        assert_eq!(lanes.admit(other, 7), Admission::Run(7));
        assert_eq!(lanes.leave(busy), Some(3));
        assert_eq!(lanes.admit(busy, 8), Admission::Waits);
        assert_eq!(lanes.admit(busy, 9), Admission::Full { item: 9, stuck: false });
        assert_eq!(lanes.leave(busy), Some(4));
        assert_eq!(lanes.leave(busy), Some(8));
        assert_eq!(lanes.leave(busy), None);
        assert_eq!(lanes.leave(busy), None);
        assert_eq!(lanes.leave(other), None);
        assert!(lanes.lanes.is_empty());
    }
}
