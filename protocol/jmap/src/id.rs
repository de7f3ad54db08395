//! Ids (RFC 8620 §1.2), and references to what the same request creates (§5.3).

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Octets of an id (RFC 8620 §1.2).
const LENGTH_MAX: usize = 255;

/// An id: 1 to 255 letters, digits, hyphens and underscores of ASCII.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// `None`: not an id.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_id = (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed);
        is_id.then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From JSON.
    pub fn from_value(value: &Value) -> Option<Self> {
        value.as_str().and_then(Self::new)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// An id, or `#` and the creation id of a record that this request makes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum IdOrReference {
    /// The id itself.
    Id(Id),
    /// A creation id, without its `#`.
    Created(Id),
}

impl IdOrReference {
    /// `None`: neither.
    pub fn new(text: &str) -> Option<Self> {
        match text.strip_prefix('#') {
            Some(created) => Id::new(created).map(Self::Created),
            None => Id::new(text).map(Self::Id),
        }
    }

    /// From JSON.
    pub fn from_value(value: &Value) -> Option<Self> {
        value.as_str().and_then(Self::new)
    }
}

impl fmt::Display for IdOrReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Created(id) => write!(f, "#{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rfc8620_1_2() {
        for good in ["a", "M12", "-_-", &"x".repeat(255)] {
            assert_eq!(Id::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "ä", "#a", "a.b", "a\0", &"x".repeat(256)] {
            assert!(Id::new(bad).is_none(), "{bad}");
        }
        assert_eq!(IdOrReference::new("#k1"), Id::new("k1").map(IdOrReference::Created));
        assert_eq!(IdOrReference::new("k1"), Id::new("k1").map(IdOrReference::Id));
        assert_eq!(IdOrReference::new("##k1"), None);
        assert_eq!(IdOrReference::new("#"), None);
    }
}
