//! When next: how long an item waits after temporary trouble. Pure.

use mail::id::QueueId;

use crate::config::Config;

/// Seconds in an hour: chunks are by the hour.
pub const HOUR: u64 = 3_600;

/// The hour that a time (unix seconds) lies in.
pub fn hour_of(at: u64) -> u32 {
    (at / HOUR) as u32
}

/// When an item is tried again that has been put off `attempts` times before: twice as long each time, within the
/// configured bounds, a fifth more or less so that what failed together does not come back together, and at the latest
/// when the message expires and its end has to be looked after.
pub fn next_due(config: &Config, queue_id: QueueId, attempts: u32, now: u64, expires: u64) -> u64 {
    let wait = config
        .retry_seconds_min
        .saturating_mul(1 << attempts.min(20))
        .clamp(config.retry_seconds_min, config.retry_seconds_max.max(config.retry_seconds_min));
    let spread = u64::from(queue_id.0.as_bytes()[15] ^ (attempts as u8).wrapping_mul(37));
    let wait = wait * 4 / 5 + wait * 2 / 5 * spread / 255;
    let due = now + wait.max(1);
    if expires > now { due.min(expires) } else { due }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds() {
        let config = Config { retry_seconds_min: 10, retry_seconds_max: 1_000, ..Config::default() };
        let id = QueueId(uuid::Uuid::from_u128(0x80));
        for attempts in 0..100 {
            let base = 10_u64.saturating_mul(1 << attempts.min(20)).min(1_000);
            let due = next_due(&config, id, attempts, 5_000, u64::MAX) - 5_000;
            assert!((base * 4 / 5..=base * 6 / 5).contains(&due), "attempt {attempts}: {due}");
        }
    }

    #[test]
    fn nobody_waits_beyond_the_end() {
        let config = Config::default();
        let id = QueueId(uuid::Uuid::nil());
        assert_eq!(next_due(&config, id, 15, 1_000, 1_500), 1_500);
        assert_eq!(next_due(&config, id, 0, 2_000, 1_500), 2_004);
    }
}
