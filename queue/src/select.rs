//! Choosing items for a listing or an act.

use mail::address::{Address, Domain};
use mail::id::QueueId;
use serde::{Deserialize, Serialize};

use crate::fold::ChunkView;
use crate::item::{Item, RemoteRecipient};
use crate::remote;
use crate::shard_id::ShardKind;

/// Which items: those for which everything that is said here is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In shards of this kind.
    pub kind: Option<ShardKind>,
    /// Of this message.
    pub queue_id: Option<QueueId>,
    /// To this domain, elsewhere.
    pub domain: Option<Domain>,
    /// Spoken to this host last, as its name is known from the DNS.
    pub site: Option<String>,
    /// From this sender.
    pub sender: Option<SenderFilter>,
    /// With a recipient in this state.
    pub state: Option<StateFilter>,
    /// Accepted before (unix seconds).
    pub accepted_before: Option<u64>,
    /// Accepted at this time or later.
    pub accepted_since: Option<u64>,
}

/// Which sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderFilter {
    /// The null reverse-path.
    Null,
    /// An address.
    Address(Address),
    /// Any address of a domain.
    Domain(Domain),
}

/// Which state of a recipient elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateFilter {
    /// Waits to be tried, for the first time or again.
    Pending,
    /// Waits to be tried again.
    Deferred,
    /// Is being tried.
    Leased,
    /// May have been delivered.
    InDoubt,
    /// Is kept back.
    Held,
    /// Has ended, and its sender is to be told.
    Telling,
}

impl Filter {
    /// Whether a chunk can hold such an item.
    pub(crate) fn may_hold(&self, chunk: &ChunkView) -> bool {
        // Nothing is due before it was accepted.
        self.accepted_since.is_none_or(|since| u64::from(chunk.hour) + 1 >= since / crate::schedule::HOUR)
    }

    /// Whether an item is one.
    pub(crate) fn lets_through(&self, item: &Item) -> bool {
        let message = &item.message;
        let sender = message.sender.reverse_path.address();
        self.queue_id.is_none_or(|id| message.queue_id == id)
            && self.accepted_before.is_none_or(|before| message.accepted < before)
            && self.accepted_since.is_none_or(|since| message.accepted >= since)
            && self
                .site
                .as_ref()
                .is_none_or(|site| remote::recipients(item).iter().any(|one| spoke_to(one, site)))
            && self.domain.as_ref().is_none_or(|domain| remote::domain(item) == Some(domain))
            && self.sender.as_ref().is_none_or(|wanted| match (wanted, sender) {
                (SenderFilter::Null, sender) => sender.is_none(),
                (SenderFilter::Address(wanted), Some(sender)) => wanted.key() == sender.key(),
                (SenderFilter::Domain(wanted), Some(sender)) => wanted == sender.domain(),
                (_, None) => false,
            })
            && self.state.is_none_or(|state| remote::recipients(item).iter().any(|one| state.is(one)))
    }

    /// Whether an act on an item is meant for this recipient of it.
    pub(crate) fn chooses(&self, recipient: &RemoteRecipient) -> bool {
        self.state.is_none_or(|state| state.is(recipient))
            && self.site.as_ref().is_none_or(|site| spoke_to(recipient, site))
    }
}

/// Whether the last attempt for a recipient spoke to this host.
fn spoke_to(recipient: &RemoteRecipient, site: &str) -> bool {
    let host = recipient.last.as_ref().and_then(|said| said.host.as_deref());
    host.is_some_and(|host| host.eq_ignore_ascii_case(site))
}
