//! Names of regions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name.
const LENGTH_MAX: usize = 32;

/// The name of a region: an installation with stores and keys of its own, beside others that serve the same domains.
/// Lower-case letters, digits and hyphens, a letter first, at most 32 of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(String);

/// Why a text is not the name of a region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a region: lower-case letters, digits and hyphens, a letter first, at most 32")]
pub struct NotARegion(String);

impl Region {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = NotARegion;

    fn from_str(text: &str) -> Result<Self, NotARegion> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if first && text.len() <= LENGTH_MAX && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotARegion(text.to_owned()))
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({})", self.0)
    }
}

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        #[track_caller]
        fn check(text: &str, expected: bool) {
            assert_eq!(text.parse::<Region>().is_ok(), expected, "{text:?}");
        }
        check("eu", true);
        check("us-east-1", true);
        check("", false);
        check("1eu", false);
        check("EU", false);
        check("e u", false);
        check(&"e".repeat(32), true);
        check(&"e".repeat(33), false);
    }
}
