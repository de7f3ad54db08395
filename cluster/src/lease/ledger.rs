//! What an owner has granted. Pure; times are given.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::message::Grant;
use super::{Budget, Need};
use crate::node::Boot;

/// Sites that are remembered; those without a lease are forgotten beyond it.
const SITES_MAX: usize = 65_536;

/// All sites that somebody has asked for.
#[derive(Debug)]
pub(super) struct Ledger {
    lasts: Duration,
    sites: HashMap<String, Site>,
}

#[derive(Debug)]
struct Site {
    holders: HashMap<Boot, Holding>,
    messages: Bucket,
}

/// What a node was granted last.
#[derive(Clone, Copy, Debug)]
struct Holding {
    slots: u32,
    wanted: u32,
    until: Instant,
}

impl Ledger {
    pub(super) fn new(lasts: Duration) -> Self {
        Self { lasts, sites: HashMap::new() }
    }

    /// What `holder` may use of a site from now on, in place of what it could before. `owned_since` is since when nobody
    /// else can have granted anything.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        owned_since: Instant,
        site: &str,
        budget: Budget,
        holder: Boot,
        need: Need,
    ) -> Grant {
        let settling = now < owned_since + self.lasts;
        self.make_room(now, site);
        let site = self.sites.entry(site.to_owned()).or_insert_with(|| Site::new(now, budget, settling));
        site.forget_lapsed(now);
        let slots = site.slots(budget, holder, need, settling);
        let wanted = need.slots_wanted.max(need.slots_in_use);
        site.holders.insert(holder, Holding { slots, wanted, until: now + self.lasts });
        Grant { slots, messages: site.messages(now, budget, need) }
    }

    /// Sites that nobody holds anything of are forgotten when there are too many; then, whoever asks first begins anew.
    fn make_room(&mut self, now: Instant, site: &str) {
        if self.sites.len() < SITES_MAX || self.sites.contains_key(site) {
            return;
        }
        self.sites.retain(|_, site| {
            site.forget_lapsed(now);
            !site.holders.is_empty()
        });
    }
}

impl Site {
    /// After a change of owners the one before may have spent what the rate allows.
    fn new(now: Instant, budget: Budget, settling: bool) -> Self {
        let per_minute = f64::from(budget.messages_per_minute_max);
        let messages =
            if settling { Bucket::cautious(now, per_minute) } else { Bucket::full(now, per_minute) };
        Self { holders: HashMap::new(), messages }
    }

    fn forget_lapsed(&mut self, now: Instant) {
        self.holders.retain(|_, holding| now < holding.until);
    }

    fn slots(&self, budget: Budget, holder: Boot, need: Need, settling: bool) -> u32 {
        let others = || self.holders.iter().filter(|(boot, _)| **boot != holder).map(|(_, holding)| holding);
        let granted: u64 = others().map(|holding| u64::from(holding.slots)).sum();
        let free = u64::from(budget.slots_max).saturating_sub(granted) as u32;
        let wanted = need.slots_wanted.max(need.slots_in_use);
        let fair = fair_part(budget.slots_max, wanted, others().map(|holding| holding.wanted));
        let mut slots = wanted.min(fair).max(need.slots_in_use);
        if settling {
            slots = slots.min(need.slots_in_use.max(1));
        }
        slots.min(free)
    }

    fn messages(&mut self, now: Instant, budget: Budget, need: Need) -> u32 {
        match budget.messages_per_minute_max {
            0 => need.messages_wanted,
            rate => self.messages.take(now, f64::from(rate), need.messages_wanted, need.messages_unused),
        }
    }
}

/// How much of `limit` is right for one who wants `own` beside others who want theirs: nobody gets more than it wants,
/// and who wants more than an equal part gets an equal part of what the modest leave.
fn fair_part(limit: u32, own: u32, others: impl Iterator<Item = u32>) -> u32 {
    let mut wants: Vec<u32> = others.collect();
    wants.push(own);
    wants.sort_unstable();
    let (mut left, mut count) = (limit, wants.len() as u32);
    for want in wants {
        let part = left.div_ceil(count);
        if own <= part {
            return own;
        }
        if want > part {
            return part;
        }
        left -= want;
        count -= 1;
    }
    own
}

#[cfg(test)]
mod tests;
