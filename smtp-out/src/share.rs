//! What this node may use of the sites that it sends to, where several nodes send.
//!
//! A site's limits hold for all nodes together. Its owner leases parts of them, for a second; they are asked for again at
//! half of that as long as the site is in use. Without an answer a node uses its share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Budget, Lease, Need, SiteLeases};
use futures_util::StreamExt as _;
use futures_util::stream;

use crate::config::SiteLimits;
use crate::throttle::{Site, Throttle};

/// Sites that are asked for at one time.
const CONCURRENT: usize = 64;

/// What a site allows in all, as its owner grants it.
pub fn budget(limits: SiteLimits) -> Budget {
    Budget {
        slots_max: limits.connections_max.max(1),
        messages_per_minute_max: limits.messages_per_minute_max,
    }
}

/// Part of a site's limits that this node has for now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Connections in use at one time.
    pub(crate) slots: u32,
    /// Messages that may still go, where their rate is limited.
    pub(crate) messages: u32,
    /// Not after this.
    pub(crate) until: Instant,
}

impl From<Lease> for Share {
    fn from(lease: Lease) -> Self {
        Self { slots: lease.slots, messages: lease.messages, until: lease.until.into_std() }
    }
}

/// Keeps the leases of all sites that are in use, for ever.
pub(crate) async fn keep(throttle: &Throttle, leases: &SiteLeases) {
    let pause = leases.lasts() / 2;
    loop {
        let asked = Instant::now();
        let renewals = stream::iter(throttle.wanted()).map(|site| renew(site, leases));
        renewals.buffer_unordered(CONCURRENT).collect::<()>().await;
        let rest = pause.saturating_sub(asked.elapsed());
        // A site that is wanted for the first time is not kept waiting; one that was just asked for is.
        let _ = tokio::time::timeout(rest.max(Duration::from_millis(20)), throttle.want.notified()).await;
    }
}

async fn renew(site: Arc<Site>, leases: &SiteLeases) {
    let need: Need = site.need();
    let lease = leases.lease(&site.name, need).await;
    site.allow(lease.into(), need);
}
