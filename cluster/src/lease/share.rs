//! What a node uses of a site's limits when no owner answers: its share. Pure; times are given.

use std::collections::HashMap;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::message::Grant;
use super::{Budget, Need};

/// Sites whose rate is remembered; those that have not been used for a minute are forgotten beyond it.
const SITES_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Shares {
    /// With the rate that it fills at, in messages a minute.
    buckets: HashMap<String, (Bucket, f64)>,
}

impl Shares {
    /// A part of a site's limits, of as many as there are `nodes`. At least one connection and one message a minute.
    pub(super) fn take(
        &mut self,
        now: Instant,
        site: &str,
        budget: Budget,
        nodes: usize,
        need: Need,
    ) -> Grant {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        let slots = (budget.slots_max / nodes).max(1).min(need.slots_wanted.max(need.slots_in_use));
        let messages = match budget.messages_per_minute_max {
            0 => need.messages_wanted,
            rate => {
                let per_minute = f64::from((rate / nodes).max(1));
                if self.buckets.len() >= SITES_MAX && !self.buckets.contains_key(site) {
                    self.buckets.retain(|_, (bucket, rate)| !bucket.is_full(now, *rate));
                }
                // What the owner granted in the last minute counts too, and is not known any more.
                let cautious = || (Bucket::cautious(now, per_minute), per_minute);
                let (bucket, rate) = self.buckets.entry(site.to_owned()).or_insert_with(cautious);
                *rate = per_minute;
                bucket.take(now, per_minute, need.messages_wanted, need.messages_unused)
            }
        };
        Grant { slots, messages }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_is_the_limit_by_the_nodes_and_at_least_one() {
        let now = Instant::now();
        let need = Need { slots_wanted: 100, messages_wanted: 1_000, ..Need::default() };
        let check = |slots_max, nodes, expected| {
            let budget = Budget { slots_max, messages_per_minute_max: 0 };
            let grant = Shares::default().take(now, "s", budget, nodes, need);
            assert_eq!(grant, Grant { slots: expected, messages: 1_000 });
        };
        check(10, 3, 3);
        check(2, 5, 1);
        check(0, 1, 1);
        check(10, 0, 10);
        check(500, 2, 100);
    }

    #[test]
    fn a_share_of_the_rate_lasts_for_its_time() {
        let mut shares = Shares::default();
        let (start, budget) = (Instant::now(), Budget { slots_max: 1, messages_per_minute_max: 240 });
        let need = Need { messages_wanted: 1_000, ..Need::default() };
        // Asked every half second for ten minutes, by one of two nodes: half of the rate.
        let sent: u32 = (0..1200)
            .map(|step| shares.take(start + Duration::from_millis(500) * step, "s", budget, 2, need).messages)
            .sum();
        assert!((1_195..=1_202).contains(&sent), "{sent}");
    }
}
