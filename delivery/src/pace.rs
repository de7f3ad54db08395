//! How many items are worked on at one time: as many as accounts take without becoming slow.
//!
//! Each delivery waits for a commit to its account's log. More of them at once make larger groups, up to what the engine
//! can do; beyond that each only waits longer, and so does everybody else who commits: who has a message accepted, who
//! sets a flag. In a cluster the engine then answers too late, is asked again, and does less than before. So the number
//! grows while commits are quick, doubling first and then by one at a time, and falls by a fifth when most of them are
//! slow. One account that is slow by itself, among many that are not, changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What it begins with, and never falls below: with fewer there would be no groups.
const LEAST: usize = 16;
/// Commits that take longer are slow.
const SLOW: Duration = Duration::from_millis(500);
/// Commits that are looked at together, at least; and when there are fewer, for how long they are waited for.
const WINDOW: usize = 16;
const WINDOW_TIME: Duration = Duration::from_millis(500);

/// Places for items, of which there are more or fewer.
#[derive(Debug)]
pub(crate) struct Pace {
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

/// Pure bookkeeping.
#[derive(Debug)]
struct State {
    most: usize,
    limit: usize,
    /// It has never been too many.
    doubling: bool,
    /// Places that go when they are given back.
    owed: usize,
    since: Instant,
    quick: usize,
    slow: usize,
}

/// A place. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    pace: &'a Pace,
    permit: Option<OwnedSemaphorePermit>,
}

impl Pace {
    /// At most so many.
    pub(crate) fn new(most: usize) -> Self {
        let state = State::new(most.max(1), Instant::now());
        Self { places: Arc::new(Semaphore::new(state.limit)), state: Mutex::new(state) }
    }

    /// Waits for a place.
    pub(crate) async fn place(&self) -> Held<'_> {
        // It is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        Held { pace: self, permit }
    }

    /// A commit to an account took so long.
    pub(crate) fn took(&self, time: Duration) {
        let more = self.state.lock().took(time, Instant::now());
        self.places.add_permits(more);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.pace.state.lock().pays()
        {
            permit.forget();
        }
    }
}

impl State {
    fn new(most: usize, now: Instant) -> Self {
        Self { most, limit: LEAST.min(most), doubling: true, owed: 0, since: now, quick: 0, slow: 0 }
    }

    /// How many places there are more.
    fn took(&mut self, time: Duration, now: Instant) -> usize {
        if time < SLOW {
            self.quick += 1;
        } else {
            self.slow += 1;
        }
        let all = self.quick + self.slow;
        // A whole round, so that what is seen is what the number of now does.
        if all < WINDOW.max(self.limit) && (all < WINDOW || now.duration_since(self.since) < WINDOW_TIME) {
            return 0;
        }
        let slow = self.slow * 2 > all;
        (self.since, self.quick, self.slow) = (now, 0, 0);
        let before = self.limit;
        if slow {
            self.doubling = false;
            self.limit = (before * 4 / 5).max(LEAST.min(self.most));
            self.owed += before - self.limit;
            return 0;
        }
        self.limit = if self.doubling { before * 2 } else { before + 1 }.min(self.most);
        // Places that were to go stay.
        let more = self.limit - before;
        let stay = more.min(self.owed);
        self.owed -= stay;
        more - stay
    }

    /// Whether a place that is given back goes.
    fn pays(&mut self) -> bool {
        let pays = self.owed > 0;
        self.owed -= usize::from(pays);
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    /// A round of commits that all take so long.
    fn round(state: &mut State, now: &mut Instant, time: Duration) -> usize {
        let count = state.limit.max(WINDOW);
        (0..count)
            .map(|_| {
                *now += time / u32::try_from(count).unwrap_or(u32::MAX);
                state.took(time, *now)
            })
            .sum()
    }

    #[test]
    fn it_doubles_until_it_is_too_much_and_then_goes_slowly() {
        let mut now = Instant::now();
        let mut state = State::new(1_024, now);
        assert_eq!(round(&mut state, &mut now, QUICK), 16);
        assert_eq!(round(&mut state, &mut now, QUICK), 32);
        assert_eq!(state.limit, 64);
        assert_eq!(round(&mut state, &mut now, 2 * SLOW), 0);
        assert_eq!((state.limit, state.owed), (51, 13));
        assert_eq!(round(&mut state, &mut now, QUICK), 0);
        assert_eq!((state.limit, state.owed), (52, 12));
        assert!((0..12).all(|_| state.pays()) && !state.pays());
        assert_eq!(round(&mut state, &mut now, QUICK), 1);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut now = Instant::now();
        let mut state = State::new(100, now);
        for _ in 0..10 {
            round(&mut state, &mut now, QUICK);
        }
        assert_eq!(state.limit, 100);
        for _ in 0..50 {
            round(&mut state, &mut now, 2 * SLOW);
        }
        assert_eq!(state.limit, LEAST);
        assert_eq!(State::new(3, now).limit, 3);
    }

    #[test]
    fn a_slow_account_among_others_changes_nothing() {
        let mut now = Instant::now();
        let mut state = State::new(1_024, now);
        for _ in 0..1_000 {
            now += QUICK;
            state.took(4 * SLOW, now);
            state.took(QUICK, now);
            state.took(QUICK, now);
        }
        assert_eq!(state.limit, 1_024);
    }
}
