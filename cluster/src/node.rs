//! What a node is: its name, which stays, and its boot, which is new with each start.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name of a node: that of a host.
const NAME_BYTES_MAX: usize = 253;

/// The name of a node. The same after a restart, so that it owns the same things.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// Why a text is no name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a node's name has 1 to 253 letters, digits, dots, hyphens and underscores")]
pub struct NodeIdError;

impl NodeId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(name: &str) -> Result<Self, NodeIdError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let named = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(good);
        named.then(|| Self(name.to_owned())).ok_or(NodeIdError)
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(name: String) -> Result<Self, NodeIdError> {
        name.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a node's process. What was said to or by an earlier one does not count for this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(Uuid);

impl Boot {
    /// A boot that never was before.
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }

    /// As rows of others name it.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a node says of itself with each heartbeat. Stored as JSON: later releases may add fields, which earlier ones do
/// not look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// This run of it.
    pub boot: Boot,
    /// How many boots of this name there were before, as far as this one found them. Of two, the greater one is the node;
    /// no clock has to tell.
    pub generation: u64,
    /// What it does, by the names that roles have in the configuration.
    pub roles: BTreeSet<String>,
    /// Where an operator can ask it how it is.
    pub address: String,
    /// The release that it runs.
    pub release: String,
    /// What it can read and write: everything up to this level.
    pub feature_level: u32,
    /// The level of the installation, as far as it knows: what may be written. Zero: it does not know, or is of a release
    /// that did not say it.
    #[serde(default)]
    pub agreed_level: u32,
    /// Whether it is about to end. It owns nothing more then.
    pub leaving: bool,
}

impl Node {
    /// A node that starts now.
    pub fn new(id: NodeId, roles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            id,
            boot: Boot::fresh(),
            generation: 0,
            roles: roles.into_iter().map(Into::into).collect(),
            address: String::new(),
            release: String::new(),
            feature_level: 0,
            agreed_level: 0,
            leaving: false,
        }
    }

    /// Whether it does this.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "mx1.example.org", "node_7-b"] {
            assert_eq!(good.parse::<NodeId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", "a/b", &"x".repeat(254)] {
            assert_eq!(bad.parse::<NodeId>(), Err(NodeIdError), "{bad}");
        }
        assert!(serde_json::from_str::<NodeId>(r#""a b""#).is_err());
    }

    #[test]
    fn a_record_of_a_later_release_is_understood() {
        let mut node = Node::new("a".parse().unwrap(), ["imap"]);
        node.feature_level = 3;
        let mut value = serde_json::to_value(&node).unwrap();
        value["rack"] = "r7".into();
        assert_eq!(serde_json::from_value::<Node>(value).unwrap(), node);
    }
}
