//! Expiry: a property of the message, independent of the stage that it is in.
//!
//! The sweep looks at every chunk in which something can have expired, whenever its items are due. What it finds is
//! claimed like anything else and comes to its end by the usual way, so that nothing expires under somebody's hands.
//! A wall clock that jumps must not expire the whole queue: [`ClockGuard`] notices.

use std::time::{Duration, Instant};

use crate::entry::Place;
use crate::fold::{ChunkView, ShardState};

/// Compares the wall clock with the monotonic one. After a start, and after a jump, nothing expires for a while: long
/// enough for one attempt, and for a wrong clock to be put right.
#[derive(Clone, Debug)]
pub struct ClockGuard {
    grace: Duration,
    last: Option<(u64, Instant)>,
    suspended_until: Option<Instant>,
    went_back: bool,
}

/// How far the clocks may drift apart between two looks before it counts as a jump. NTP slews far less in a minute;
/// a leap second is one.
const JUMP_SECONDS_MIN: u64 = 30;

impl ClockGuard {
    /// A guard that has seen nothing yet.
    pub fn new(grace: Duration) -> Self {
        Self { grace, last: None, suspended_until: None, went_back: false }
    }

    /// Whether something may expire now. `wall` in unix seconds.
    pub fn may_expire(&mut self, wall: u64, now: Instant) -> bool {
        let jumped = match self.last {
            None => true,
            Some((wall_before, before)) => {
                let expected = wall_before + now.saturating_duration_since(before).as_secs();
                self.went_back |= wall + JUMP_SECONDS_MIN < expected;
                wall.abs_diff(expected) > JUMP_SECONDS_MIN
            }
        };
        self.last = Some((wall, now));
        if jumped {
            self.suspended_until = Some(now + self.grace);
        }
        match self.suspended_until {
            Some(until) if now < until => false,
            _ => {
                self.suspended_until = None;
                true
            }
        }
    }

    /// Whether the wall clock went back since the last call: then what was put off is to be looked at again.
    pub fn take_went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }
}

/// Chunks in which something may have expired.
pub fn expired_chunks(state: &ShardState, now: u64) -> Vec<u32> {
    state.chunks().filter(|chunk| chunk.live > 0 && chunk.expires <= now).map(|chunk| chunk.id).collect()
}

/// Unfinished items of a loaded chunk that have expired.
pub fn expired_items(state: &ShardState, chunk: u32, now: u64) -> Vec<Place> {
    let items = state.chunk(chunk).into_iter().flat_map(|content| content.live());
    items
        .filter(|item| item.message.expires <= now)
        .map(|item| Place { chunk, number: item.number })
        .collect()
}

/// Chunks whose history is older than it has to be.
pub fn forgettable_chunks(state: &ShardState, now: u64, history_seconds: u64) -> Vec<u32> {
    let old = |chunk: &ChunkView| {
        chunk.live == 0 && chunk.done > 0 && chunk.finished.saturating_add(history_seconds) <= now
    };
    state.chunks().filter(old).map(|chunk| chunk.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_suspend_expiry() {
        let start = Instant::now();
        let mut guard = ClockGuard::new(Duration::from_secs(600));
        // A start is as good as a jump.
        let check = |guard: &mut ClockGuard, wall: u64, seconds: u64, expected: bool| {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(guard.may_expire(wall, now), expected, "at {seconds}");
        };
        check(&mut guard, 1_000_000, 0, false);
        check(&mut guard, 1_000_300, 300, false);
        check(&mut guard, 1_000_600, 600, true);
        check(&mut guard, 1_000_660, 660, true);
        // Five days forward in a minute, and back again.
        check(&mut guard, 1_432_720, 720, false);
        check(&mut guard, 1_432_780, 780, false);
        assert!(!guard.take_went_back());
        check(&mut guard, 1_000_840, 840, false);
        check(&mut guard, 1_001_380, 1_380, false);
        check(&mut guard, 1_001_440, 1_440, true);
        // A little drift is none.
        check(&mut guard, 1_001_520, 1_500, true);
        assert!(guard.take_went_back() && !guard.take_went_back());
    }
}
