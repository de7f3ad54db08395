//! Who owns what: rendezvous hashing over the nodes that live and have a role.
//!
//! Every node that sees the same nodes comes to the same owner, without asking. When a node leaves only what it owned
//! moves, spread over all others. Ownership is soft: two nodes may both think that they own something for some seconds,
//! and nothing goes wrong by it, only slower.

use crate::node::{Node, NodeId};

/// The owner of `key` among those of `nodes` that have `role`. `None`: nobody has it.
pub fn owner<'a>(nodes: impl IntoIterator<Item = &'a Node>, key: &[u8], role: &str) -> Option<&'a Node> {
    let candidates = nodes.into_iter().filter(|node| node.has_role(role));
    // Equal weights are not to be expected, but all must then choose the same.
    candidates.max_by(|a, b| (weight(&a.id, key), &a.id).cmp(&(weight(&b.id, key), &b.id)))
}

/// How much a node wants a key. By its name, so that it owns the same after a restart. Frozen: nodes of different
/// releases must agree.
fn weight(id: &NodeId, key: &[u8]) -> u64 {
    let name = id.as_str().as_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(name.len() as u64).to_be_bytes()).update(name).update(key);
    let hash = hasher.finalize();
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn node(number: u32, roles: &[&str]) -> Node {
        Node::new(format!("node{number}").parse().unwrap(), roles.iter().copied())
    }

    #[test]
    fn the_hash_is_frozen() {
        let nodes: Vec<Node> = (0..4).map(|number| node(number, &["x"])).collect();
        let owners: Vec<&str> = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .iter()
            .map(|key| owner(&nodes, key.as_bytes(), "x").unwrap().id.as_str())
            .collect();
        assert_eq!(weight(&nodes[0].id, b"key"), 14_409_133_708_801_473_924);
        let expected = ["node2", "node2", "node3", "node3", "node2", "node2", "node1", "node1"];
        assert_eq!(owners, expected);
    }

    #[test]
    fn only_who_has_the_role_owns() {
        let nodes = [node(1, &["imap"]), node(2, &["smtp-out"]), node(3, &[])];
        for key in 0..50_u32 {
            assert_eq!(owner(&nodes, &key.to_be_bytes(), "smtp-out"), Some(&nodes[1]));
        }
        assert_eq!(owner(&nodes, b"key", "queue"), None);
    }

    #[test]
    fn everyone_owns_about_the_same() {
        let nodes: Vec<Node> = (0..10).map(|number| node(number, &["x"])).collect();
        let mut counts = BTreeMap::<&NodeId, u32>::new();
        for key in 0..10_000_u32 {
            *counts.entry(&owner(&nodes, &key.to_be_bytes(), "x").unwrap().id).or_default() += 1;
        }
        assert!(counts.len() == 10 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn when_a_node_leaves_only_its_keys_move(
            count in 2_u32..12,
            gone in any::<prop::sample::Index>(),
            keys in prop::collection::vec(any::<[u8; 4]>(), 1..40),
        ) {
            let nodes: Vec<Node> = (0..count).map(|number| node(number, &["x"])).collect();
            let gone = &nodes[gone.index(nodes.len())];
            let rest = || nodes.iter().rev().filter(|node| *node != gone);
            for key in &keys {
                let before = owner(&nodes, key, "x").unwrap();
                let after = owner(rest(), key, "x").unwrap();
                prop_assert!(after != gone);
                if before != gone {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }
}
