//! When next: how long an item waits after temporary trouble. Pure.

use mail::address::Domain;
use mail::id::QueueId;

use crate::config::Config;

/// Seconds in an hour: chunks are by the hour.
pub const HOUR: u64 = 3_600;

/// The hour that a time (unix seconds) lies in.
pub fn hour_of(at: u64) -> u32 {
    (at / HOUR) as u32
}

/// Between which bounds waits lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waits {
    /// The first.
    pub seconds_min: u64,
    /// The longest.
    pub seconds_max: u64,
}

impl Waits {
    /// For mail that stays here.
    pub fn local(config: &Config) -> Self {
        Self { seconds_min: config.retry_seconds_min, seconds_max: config.retry_seconds_max }
    }

    /// For mail to a domain elsewhere.
    pub fn remote(config: &Config, domain: &Domain) -> Self {
        let retry = config.retry_for(domain);
        Self { seconds_min: retry.seconds_min, seconds_max: retry.seconds_max }
    }

    /// When something is tried again that has been put off `attempts` times before: twice as long each time, within the
    /// bounds, a fifth more or less so that what failed together does not come back together, and at the latest when
    /// the message expires and its end has to be looked after.
    pub fn next_due(self, queue_id: QueueId, attempts: u32, now: u64, expires: u64) -> u64 {
        let Self { seconds_min, seconds_max } = self;
        let wait = seconds_min
            .saturating_mul(1 << attempts.min(20))
            .clamp(seconds_min, seconds_max.max(seconds_min));
        let spread = u64::from(queue_id.0.as_bytes()[15] ^ (attempts as u8).wrapping_mul(37));
        let wait = wait * 4 / 5 + wait * 2 / 5 * spread / 255;
        let due = now + wait.max(1);
        if expires > now { due.min(expires) } else { due }
    }

    /// The longest wait for any domain elsewhere, in seconds.
    pub(crate) fn longest_remote(config: &Config) -> u64 {
        let rules = config.retry_domains.iter().map(|rule| &rule.retry);
        let waits = rules
            .chain([&config.retry])
            .map(|retry| Self { seconds_min: retry.seconds_min, seconds_max: retry.seconds_max }.longest());
        waits.max().unwrap_or(u64::MAX)
    }

    /// The longest wait that there can be, in seconds: that of the last attempts, or what another host asks for, which is
    /// at most a day.
    pub fn longest(self) -> u64 {
        let longest = self.seconds_max.max(self.seconds_min);
        longest.saturating_add(longest / 5).max(86_400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Retry, RetryRule};

    #[test]
    fn waits_grow_within_bounds() {
        let config = Config { retry_seconds_min: 10, retry_seconds_max: 1_000, ..Config::default() };
        let id = QueueId(uuid::Uuid::from_u128(0x80));
        for attempts in 0..100 {
            let base = 10_u64.saturating_mul(1 << attempts.min(20)).min(1_000);
            let due = Waits::local(&config).next_due(id, attempts, 5_000, u64::MAX) - 5_000;
            assert!((base * 4 / 5..=base * 6 / 5).contains(&due), "attempt {attempts}: {due}");
            assert!(due <= Waits::local(&config).longest());
        }
    }

    #[test]
    fn nobody_waits_beyond_the_end() {
        let waits = Waits::local(&Config::default());
        let id = QueueId(uuid::Uuid::nil());
        assert_eq!(waits.next_due(id, 15, 1_000, 1_500), 1_500);
        assert_eq!(waits.next_due(id, 0, 2_000, 1_500), 2_004);
    }

    #[test]
    fn domains_have_their_own_times() {
        let rule = |domain: &str, seconds_min| RetryRule {
            domain: domain.to_owned(),
            retry: Retry { seconds_min, ..Retry::default() },
        };
        let config = Config {
            retry_domains: vec![rule("slow.test", 1), rule("*.slow.test", 2), rule("*.test", 3)],
            ..Config::default()
        };
        let check = |domain: &str, expected: u64| {
            let waits = Waits::remote(&config, &Domain::parse(domain).unwrap());
            assert_eq!(waits.seconds_min, expected, "{domain}");
        };
        check("Slow.test", 1);
        check("mx.slow.test", 2);
        check("notslow.test", 3);
        check("a.example", 300);
        check("[192.0.2.1]", 300);
    }
}
