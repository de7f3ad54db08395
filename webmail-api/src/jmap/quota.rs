//! The quotas of an account, as clients see them (RFC 9425): one for octets and one for messages, each where there is a
//! limit. What has none is no quota, since a quota without a limit cannot be told.
//!
//! A state is the values themselves. So another use is another state whatever led to it, and what has changed since any
//! state that was ever told is known without a history.

use std::fmt::Write as _;

use jmap_protocol::arguments::INT_MAX;
use jmap_protocol::method::object;
use jmap_protocol::{Id, Object};
use serde_json::json;
use storage::Quota;

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Octets of messages.
    Octets,
    /// Messages.
    Count,
}

/// In the order in which states have them.
pub(crate) const RESOURCES: [Resource; 2] = [Resource::Octets, Resource::Count];

/// Use and limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// All quotas of an account at one moment. `None`: no limit, no quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels([Option<Level>; RESOURCES.len()]);

impl Resource {
    pub(crate) fn id(self) -> Id {
        let name = match self {
            Self::Octets => "octets",
            Self::Count => "count",
        };
        Id::new(name).expect("it is letters")
    }

    pub(crate) fn parse(id: &Id) -> Option<Self> {
        RESOURCES.into_iter().find(|resource| resource.id() == *id)
    }

    /// As RFC 9425 §3.2 calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Octets => "octets",
            Self::Count => "count",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Octets => "Mail",
            Self::Count => "Messages",
        }
    }
}

/// Whose quota it is: RFC 9425 §3.1 has the account, its domain, and everything.
pub(crate) const SCOPE: &str = "account";
/// The types of objects that use it (RFC 9425 §4.1 `types`).
pub(crate) const TYPE: &str = "Email";

impl Levels {
    pub(crate) fn of(quota: &Quota) -> Self {
        // JSON has no larger numbers (RFC 8620 §1.3).
        let most = INT_MAX.unsigned_abs();
        let level = |used: u64, limit: Option<u64>| {
            limit.map(|limit| Level { used: used.min(most), limit: limit.min(most) })
        };
        Self([level(quota.bytes, quota.bytes_max), level(quota.messages, quota.messages_max)])
    }

    pub(crate) fn get(&self, resource: Resource) -> Option<Level> {
        self.0[resource as usize]
    }

    pub(crate) fn set(&mut self, resource: Resource, level: Option<Level>) {
        self.0[resource as usize] = level;
    }

    /// `120/1000.3/50`; a hyphen stands for what has no limit.
    pub(crate) fn state(&self) -> String {
        let mut state = String::new();
        for (at, level) in self.0.iter().enumerate() {
            if at > 0 {
                state.push('.');
            }
            match level {
                Some(Level { used, limit }) => {
                    let _ = write!(state, "{used}/{limit}");
                }
                None => state.push('-'),
            }
        }
        state
    }

    /// What a state says. `None`: it is none that was ever told.
    pub(crate) fn parse(state: &str) -> Option<Self> {
        let mut pieces = state.split('.');
        let mut levels = Self([None; RESOURCES.len()]);
        for level in &mut levels.0 {
            let piece = pieces.next()?;
            if piece != "-" {
                let (used, limit) = piece.split_once('/')?;
                *level = Some(Level { used: used.parse().ok()?, limit: limit.parse().ok()? });
            }
        }
        // Only as it is written: nothing has two states.
        (levels.state() == state).then_some(levels)
    }

    /// A quota as a record.
    pub(crate) fn show(&self, resource: Resource) -> Option<Object> {
        let level = self.get(resource)?;
        Some(object(json!({
            "id": resource.id(),
            "resourceType": resource.name(),
            "used": level.used,
            "hardLimit": level.limit,
            "scope": SCOPE,
            "name": resource.title(),
            "types": [TYPE],
            "warnLimit": null,
            "softLimit": null,
            "description": match resource {
                Resource::Octets => "Octets of messages; one that is in several mailboxes counts in each.",
                Resource::Count => "Messages; one that is in several mailboxes counts in each.",
            },
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_values() {
        let quota = Quota { bytes: 120, messages: 3, bytes_max: Some(1000), messages_max: None };
        let levels = Levels::of(&quota);
        assert_eq!(levels.state(), "120/1000.-");
        assert_eq!(Levels::parse("120/1000.-"), Some(levels));
        let other = Levels::of(&Quota { messages: 4, ..quota });
        assert_eq!(other.state(), levels.state(), "what has no limit is no quota");
        let other = Levels::of(&Quota { bytes: 121, ..quota });
        assert_ne!(other.state(), levels.state());
        for bad in ["", "1", "0120/1000.-", "1/2.3/4.5", "1/2", "a/b.-", "+1/2.-", "1/2.- "] {
            assert_eq!(Levels::parse(bad), None, "{bad}");
        }
        let huge = Levels::of(&Quota { bytes_max: Some(u64::MAX), ..quota });
        assert_eq!(huge.get(Resource::Octets).map(|level| level.limit), Some((1 << 53) - 1));
    }
}
