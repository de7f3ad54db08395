//! Who works on the queue besides this process, and on which shards this one does.
//!
//! A shard has a soft owner. Two that both take themselves for it lose time and nothing else: claims are held in memory,
//! and what is committed is decided by the log.

use cluster::Membership;
use uuid::Uuid;

use crate::shard_id::{ShardId, ShardKind};

/// The role, as nodes say of themselves, of those who deliver into mailboxes.
const DELIVERY: &str = "delivery";
/// The role of those who send to other hosts.
const SMTP_OUT: &str = "smtp-out";

/// Who works on the same shards.
#[derive(Clone, Debug)]
pub enum Sharing {
    /// Nobody: this process holds the lock of the store. What another boot began, a dead process began.
    Alone,
    /// Others may, and nothing is known of them: this process works on every shard.
    Unknown,
    /// The nodes of a cluster, each on the shards that it owns.
    Nodes(Membership),
}

impl Sharing {
    /// What this process is called in the shards: its own boot among the nodes.
    pub(crate) fn boot(&self) -> Uuid {
        match self {
            Self::Nodes(nodes) => nodes.boot().uuid(),
            Self::Alone | Self::Unknown => Uuid::new_v4(),
        }
    }

    /// Whether this process works on the shard.
    pub(crate) fn is_mine(&self, shard: ShardId) -> bool {
        let Self::Nodes(nodes) = self else { return true };
        // What waits for other hosts also expires where nobody sends.
        let sends = shard.kind == ShardKind::Outbound && nodes.view().count(SMTP_OUT) > 0;
        nodes.is_mine(shard.log_id().as_bytes(), if sends { SMTP_OUT } else { DELIVERY })
    }

    /// Whether a process that began something is known to live, so that it has not been stopped by it.
    pub(crate) fn lives(&self, boot: Uuid) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.view().live().any(|node| node.boot.uuid() == boot),
            Self::Alone | Self::Unknown => false,
        }
    }

    /// Whether a process that holds a lease cannot be at work any more, so that it need not be waited for. Silence is no
    /// proof of that: who was paused goes on.
    pub(crate) fn has_ended(&self, boot: Uuid, own: Uuid) -> bool {
        matches!(self, Self::Alone) && boot != own
    }
}
