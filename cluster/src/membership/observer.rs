//! What an observer makes of the rows that it sees. Pure; times are given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::view::{Member, Standing};
use crate::config::Config;
use crate::node::{Boot, Node, NodeId};

/// A row as it was read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    boot: Boot,
    counter: u64,
    /// `None`: not understood. Its row is somebody's heartbeat all the same, and is forgotten as late as another's.
    node: Option<Node>,
}

impl Seen {
    /// `None`: no heartbeat, whatever it is.
    pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let boot = Boot::from_bytes(key)?;
        let (counter, record) = value.split_first_chunk::<8>()?;
        let node = serde_json::from_slice::<Node>(record).ok().filter(|node| node.boot == boot);
        Some(Self { boot, counter: u64::from_be_bytes(*counter), node })
    }
}

#[derive(Debug)]
pub(super) struct Observer {
    heartbeat: Duration,
    dead_after: Duration,
    forget_after: Duration,
    sightings: HashMap<Boot, Sighting>,
    /// When the last look that saw something ended.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Sighting {
    counter: u64,
    node: Option<Arc<Node>>,
    /// For how long it is known to have been silent.
    silent: Duration,
}

impl Observer {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            heartbeat: config.heartbeat(),
            dead_after: config.dead_after(),
            forget_after: config.forget_after(),
            sightings: HashMap::new(),
            looked: None,
        }
    }

    /// Takes in what a look saw that lasted from `begun` to `ended`. Gives the rows that are to be deleted.
    pub(super) fn observe(&mut self, begun: Instant, ended: Instant, rows: Vec<Seen>) -> Vec<Boot> {
        // What stands between two looks is the only time in which silence was heard. A long one says little: the
        // observer was paused, or could not read, and perhaps nobody could write. It counts as two heartbeats, so that
        // whoever lives has had time for another before it is held for dead.
        let passed = self.looked.map_or(Duration::ZERO, |looked| begun.saturating_duration_since(looked));
        let passed = passed.min(2 * self.heartbeat);
        self.looked = Some(ended);
        let mut before = std::mem::take(&mut self.sightings);
        let mut forgotten = Vec::new();
        for seen in rows {
            let sighting = match before.remove(&seen.boot) {
                // Not "another number": an old write that comes late is no sign of life.
                Some(mut sighting) if seen.counter <= sighting.counter => {
                    sighting.silent += passed;
                    sighting
                }
                known => {
                    // A record that says the same as before is the same one.
                    let known = known.and_then(|known| known.node);
                    let node = match (known, seen.node) {
                        (Some(known), Some(node)) if *known == node => Some(known),
                        (_, node) => node.map(Arc::new),
                    };
                    Sighting { counter: seen.counter, node, silent: Duration::ZERO }
                }
            };
            if sighting.silent >= self.forget_after.max(self.dead_after) {
                forgotten.push(seen.boot);
            }
            self.sightings.insert(seen.boot, sighting);
        }
        forgotten
    }

    /// All nodes that were seen, by name and generation.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut newest = BTreeMap::<&NodeId, (u64, Boot)>::new();
        for node in self.nodes() {
            let own = (node.generation, node.boot);
            newest.entry(&node.id).and_modify(|newest| *newest = own.max(*newest)).or_insert(own);
        }
        let mut members: Vec<Member> = self
            .sightings
            .values()
            .filter_map(|sighting| Some((sighting, sighting.node.as_ref()?)))
            .map(|(sighting, node)| {
                let standing = if newest[&node.id].1 != node.boot {
                    Standing::Superseded
                } else if sighting.silent >= self.dead_after {
                    Standing::Silent
                } else if node.leaving {
                    Standing::Leaving
                } else {
                    Standing::Live
                };
                Member { node: node.clone(), standing }
            })
            .collect();
        let order = |member: &Member| (member.node.id.clone(), member.node.generation, member.node.boot);
        members.sort_by_cached_key(order);
        members
    }

    /// The generation of a boot that starts now. `None`: nothing has been seen yet.
    pub(super) fn next_generation(&self, node: &Node) -> Option<u64> {
        self.looked?;
        let earlier = self.nodes().filter(|other| other.id == node.id && other.boot != node.boot);
        Some(earlier.map(|other| other.generation.saturating_add(1)).max().unwrap_or(0))
    }

    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.sightings.values().filter_map(|sighting| sighting.node.as_ref())
    }
}
