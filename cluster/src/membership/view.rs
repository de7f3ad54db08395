//! The nodes, as one of them sees them.

use std::sync::Arc;

use tokio::time::Instant;

use crate::node::{Boot, Node};
use crate::ownership;

/// The nodes, as one of them sees them.
#[derive(Clone, Debug)]
pub struct View {
    /// All that have a row, by name.
    pub members: Vec<Member>,
    /// They could not be looked at the last time, so they are as they were before. Also before the first look.
    pub stale: bool,
    /// Since when the same ones live. Who has come to own something since then does not know yet what the owner before
    /// has promised.
    pub live_since: Instant,
}

/// A node in somebody's view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// What it said of itself.
    pub node: Arc<Node>,
    /// How it stands.
    pub standing: Standing,
}

/// How a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It gives heartbeats.
    Live,
    /// It is about to end, and owns nothing any more.
    Leaving,
    /// It is held for dead.
    Silent,
    /// A later boot has its name.
    Superseded,
}

impl View {
    pub(super) fn unknown(now: Instant) -> Self {
        Self { members: Vec::new(), stale: true, live_since: now }
    }

    /// Those that live.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Node>> {
        let live = |member: &&Member| member.standing == Standing::Live;
        self.members.iter().filter(live).map(|member| &member.node)
    }

    /// How many of those that live have `role`.
    pub fn count(&self, role: &str) -> usize {
        self.live().filter(|node| node.has_role(role)).count()
    }

    /// The node that lives with this boot.
    pub fn with_boot(&self, boot: Boot) -> Option<&Arc<Node>> {
        self.live().find(|node| node.boot == boot)
    }

    /// Who owns `key` among those that live and have `role`.
    pub fn owner(&self, key: &[u8], role: &str) -> Option<&Node> {
        ownership::owner(self.live().map(|node| &**node), key, role)
    }

    /// The level up to which all can read, those included that may only seem to be dead. `None`: nobody is known.
    pub fn feature_level(&self) -> Option<u32> {
        let counts = |member: &&Member| member.standing != Standing::Superseded;
        self.members.iter().filter(counts).map(|member| member.node.feature_level).min()
    }

    /// The greatest level of the installation that anybody says it has. Also who is silent or was superseded has seen it.
    pub fn agreed_level(&self) -> u32 {
        self.members.iter().map(|member| member.node.agreed_level).max().unwrap_or(0)
    }

    /// Whether it was not old before.
    pub(super) fn grow_stale(view: &mut Arc<Self>) -> bool {
        let fresh = !view.stale;
        if fresh {
            *view = Arc::new(Self { stale: true, ..Self::clone(view) });
        }
        fresh
    }

    /// Whether something is different.
    pub(super) fn update(view: &mut Arc<Self>, members: Vec<Member>, now: Instant) -> bool {
        if !view.stale && view.members == members {
            return false;
        }
        let mut new = Self { members, stale: false, live_since: view.live_since };
        let same = new.live().map(|node| node.boot).eq(view.live().map(|node| node.boot));
        if !same {
            new.live_since = now;
        }
        *view = Arc::new(new);
        true
    }
}
