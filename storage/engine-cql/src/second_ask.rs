//! When a call that may be repeated is asked of another node too.
//!
//! One node that says nothing must not hold up whoever asked it. But when all of them are slow, since they have too much to
//! do, then each second question makes them slower still. So what is waited for is at least the configured time, and a few
//! times what calls take in the middle: the middle tells the two apart, since one node of three is asked first by a third
//! of the calls and does not move it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scylla::policies::speculative_execution::{Context, SpeculativeExecutionPolicy};

/// How often a call is asked again at most.
const AGAIN_MAX: usize = 2;
/// So many times the middle is waited for.
const TIMES: u64 = 3;
/// The middle moves by this part of itself with each call, towards it: by half within some tens of calls.
const PART: u64 = 64;
/// The middle is not below this, so that a part of it is more than nothing.
const LEAST_MICROS: u64 = 1_000;

/// What calls take in the middle, and what follows from it.
#[derive(Debug)]
pub(crate) struct SecondAsk {
    least: Duration,
    middle_micros: AtomicU64,
}

impl SecondAsk {
    /// Never earlier than after `least`.
    pub(crate) fn new(least: Duration) -> Self {
        Self { least, middle_micros: AtomicU64::new(LEAST_MICROS) }
    }

    /// A call that may be repeated took so long, with all that it was asked.
    pub(crate) fn took(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let middle = self.middle_micros.load(Ordering::Relaxed);
        let moved = if time > middle { middle + middle / PART } else { middle - middle / PART };
        // Two at once may move it once: it is an estimate.
        self.middle_micros.store(moved.max(LEAST_MICROS), Ordering::Relaxed);
    }

    /// How long is waited before another node is asked.
    pub(crate) fn after(&self) -> Duration {
        self.least.max(Duration::from_micros(TIMES * self.middle_micros.load(Ordering::Relaxed)))
    }
}

/// The policy that the driver asks; what calls take is told to the same by whoever calls.
#[derive(Debug)]
pub(crate) struct Policy(pub(crate) std::sync::Arc<SecondAsk>);

impl SpeculativeExecutionPolicy for Policy {
    fn max_retry_count(&self, _: &Context) -> usize {
        AGAIN_MAX
    }

    fn retry_interval(&self, _: &Context) -> Duration {
        self.0.after()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(300);

    #[test]
    fn one_silent_node_of_three_is_asked_no_later() {
        let second = SecondAsk::new(LEAST);
        for number in 0..3_000 {
            second.took(if number % 3 == 0 { LEAST } else { Duration::from_millis(3) });
        }
        assert_eq!(second.after(), LEAST);
    }

    #[test]
    fn when_all_are_slow_they_are_not_asked_more_until_they_are_quick_again() {
        let second = SecondAsk::new(LEAST);
        for _ in 0..1_000 {
            second.took(Duration::from_millis(800));
        }
        assert!((2_300..2_500).contains(&second.after().as_millis()), "{:?}", second.after());
        for _ in 0..500 {
            second.took(Duration::from_millis(5));
        }
        assert_eq!(second.after(), LEAST);
    }
}
