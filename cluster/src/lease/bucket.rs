//! Messages that may go, by a rate. Pure; times are given.

use tokio::time::Instant;

/// What may go now, of what becomes free with time. No more than a minute's worth is saved up.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    refilled: Instant,
}

impl Bucket {
    /// With a minute's worth in it.
    pub(super) fn full(now: Instant, per_minute: f64) -> Self {
        Self { tokens: per_minute, refilled: now }
    }

    /// With a second's worth in it: for who does not know what others have taken lately.
    pub(super) fn cautious(now: Instant, per_minute: f64) -> Self {
        Self { tokens: per_minute / 60.0, refilled: now }
    }

    /// How many of `wanted` may go. `back`: of those that were taken before, and did not.
    pub(super) fn take(&mut self, now: Instant, per_minute: f64, wanted: u32, back: u32) -> u32 {
        self.refill(now, per_minute);
        self.tokens = (self.tokens + f64::from(back)).min(per_minute);
        let taken = wanted.min(self.tokens as u32);
        self.tokens -= f64::from(taken);
        taken
    }

    /// Whether it is as if nobody had taken anything.
    pub(super) fn is_full(&mut self, now: Instant, per_minute: f64) -> bool {
        self.refill(now, per_minute);
        self.tokens >= per_minute
    }

    fn refill(&mut self, now: Instant, per_minute: f64) {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + passed * per_minute / 60.0).min(per_minute);
    }
}
