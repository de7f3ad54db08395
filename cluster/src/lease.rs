//! Leases: how nodes share what a site may be asked at one time.
//!
//! A site's limits belong to its owner, which grants parts of them for a second. Who gets no answer uses its share: the
//! limit divided by the nodes, and at least one. So while all ask the owner what they hold together is never above the
//! limit, and without an owner it is at most the limit and one for each node.
//!
//! An owner that has just become one does not know what the owner before has granted. For as long as that can last it
//! grants who asks no more than what is in use there, or one.

mod bucket;
mod ledger;
mod message;
mod share;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Config;
use crate::membership::Membership;
use crate::node::Boot;
use crate::request::{RequestError, Requests};
use ledger::Ledger;
use message::{Ask, Grant};
use share::Shares;

/// The name of the request.
const REQUEST: &str = "site-lease";

/// What a site allows in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Connections in use at one time.
    pub slots_max: u32,
    /// Messages a minute. Zero: any number.
    pub messages_per_minute_max: u32,
}

/// What a node needs of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Connections in use now.
    pub slots_in_use: u32,
    /// Connections that it would use, those in use included.
    pub slots_wanted: u32,
    /// Messages that it would send before the lease ends.
    pub messages_wanted: u32,
    /// Messages that it was granted before and has not sent. They are given back with this.
    pub messages_unused: u32,
}

/// What a node may use of a site, until the lease ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Connections in use at one time. Fewer than are in use: no more until they are fewer.
    pub slots: u32,
    /// Messages.
    pub messages: u32,
    /// When it ends.
    pub until: Instant,
    /// Who gave it.
    pub source: LeaseSource,
}

/// Who gave a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseSource {
    /// The site's owner.
    Owner,
    /// Nobody: it is this node's share.
    Share,
}

/// What all sites allow, by the owner's configuration.
type BudgetOf = Arc<dyn Fn(&str) -> Budget + Send + Sync>;

/// Leases of sites: those that this node is granted, and those that it grants as the owner. Cheap to clone.
#[derive(Clone)]
pub struct SiteLeases {
    shared: Arc<Shared>,
    requests: Requests,
}

struct Shared {
    membership: Membership,
    role: &'static str,
    lasts: Duration,
    budget_of: BudgetOf,
    ledger: Mutex<Ledger>,
    shares: Mutex<Shares>,
}

impl SiteLeases {
    /// Leases among the nodes that have `role`. Begins to grant what this node owns; `budget_of` says what a site allows.
    pub fn start(
        membership: Membership,
        requests: Requests,
        role: &'static str,
        config: &Config,
        budget_of: impl Fn(&str) -> Budget + Send + Sync + 'static,
    ) -> Self {
        let lasts = config.lease();
        let shared = Arc::new(Shared {
            membership,
            role,
            lasts,
            budget_of: Arc::new(budget_of),
            ledger: Mutex::new(Ledger::new(lasts)),
            shares: Mutex::default(),
        });
        // Weak: what is served must not keep its own server.
        let granting = Arc::downgrade(&shared);
        requests.serve(REQUEST, move |from, request| {
            let granting = granting.clone();
            async move {
                let granted = granting.upgrade().and_then(|shared| shared.grant(from, &request));
                granted.map_or_else(Bytes::new, |grant| grant.encode())
            }
        });
        Self { shared, requests }
    }

    /// How long a lease lasts. Ask again at half of that while the site is in use, so that it does not end meanwhile.
    pub fn lasts(&self) -> Duration {
        self.shared.lasts
    }

    /// A lease of `site`, in place of the one before. There always is one; it may be of nothing for now.
    pub async fn lease(&self, site: &str, need: Need) -> Lease {
        // Counted from before it is asked for, so that it ends here no later than at the owner.
        let until = Instant::now() + self.shared.lasts;
        let (grant, source) = match self.ask_owner(site, need).await {
            Some(grant) => (grant, LeaseSource::Owner),
            None => (self.shared.share(site, need), LeaseSource::Share),
        };
        Lease { slots: grant.slots, messages: grant.messages, until, source }
    }

    async fn ask_owner(&self, site: &str, need: Need) -> Option<Grant> {
        let shared = &self.shared;
        if shared.membership.is_isolated() {
            return None;
        }
        let owner = shared.membership.view().owner(site.as_bytes(), shared.role)?.boot;
        let ask = Ask { site: site.to_owned(), need };
        match self.requests.ask(owner, REQUEST, ask.encode()).await {
            Ok(answer) => Grant::decode(&answer),
            Err(RequestError::TooLarge) => {
                tracing::warn!(site, "site's name is too long to be asked for");
                None
            }
            Err(_) => None,
        }
    }
}

impl fmt::Debug for SiteLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteLeases").field("role", &self.shared.role).finish_non_exhaustive()
    }
}

impl Shared {
    /// `None`: this node does not own the site, or does not understand what is asked.
    fn grant(&self, from: Boot, request: &[u8]) -> Option<Grant> {
        let ask = Ask::decode(request)?;
        if !self.membership.is_mine(ask.site.as_bytes(), self.role) {
            return None;
        }
        let budget = (self.budget_of)(&ask.site);
        let owned_since = self.membership.view().live_since;
        Some(self.ledger.lock().grant(Instant::now(), owned_since, &ask.site, budget, from, ask.need))
    }

    /// What this node may use without asking.
    fn share(&self, site: &str, need: Need) -> Grant {
        let nodes = self.membership.view().count(self.role);
        self.shares.lock().take(Instant::now(), site, (self.budget_of)(site), nodes, need)
    }
}
