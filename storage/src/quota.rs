//! How much an account may hold.

use serde::{Deserialize, Serialize};

/// Limits of an account, and what it uses of them. A message counts once for each mailbox that it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Octets used.
    pub bytes: u64,
    /// Messages held.
    pub messages: u64,
    /// Octets allowed; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// Messages allowed; `None`: no limit.
    pub messages_max: Option<u64>,
}

impl Quota {
    /// Whether so much more fits.
    pub fn has_room(&self, messages: u64, bytes: u64) -> bool {
        within(self.bytes, bytes, self.bytes_max) && within(self.messages, messages, self.messages_max)
    }

    /// Whether so much more fits when the limits are raised by a tenth: what was accepted while there was room is
    /// placed even when others came in between.
    pub fn has_room_for_delivery(&self, messages: u64, bytes: u64) -> bool {
        let raised = |limit: Option<u64>| limit.map(|limit| limit.saturating_add(limit / 10));
        within(self.bytes, bytes, raised(self.bytes_max))
            && within(self.messages, messages, raised(self.messages_max))
    }
}

/// An operation that adds nothing is within any limit, even one that was lowered below the use.
fn within(used: u64, more: u64, limit: Option<u64>) -> bool {
    more == 0 || limit.is_none_or(|limit| used.saturating_add(more) <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_left_up_to_the_limit() {
        let quota = Quota { bytes: 90, messages: 9, bytes_max: Some(100), messages_max: Some(10) };
        for (messages, bytes, client, delivery) in [
            (1, 10, true, true),
            (1, 11, false, true),
            (1, 20, false, true),
            (1, 21, false, false),
            (2, 0, false, true),
            (3, 0, false, false),
        ] {
            assert_eq!(quota.has_room(messages, bytes), client, "{messages} {bytes}");
            assert_eq!(quota.has_room_for_delivery(messages, bytes), delivery, "{messages} {bytes}");
        }
        assert!(Quota { bytes: 500, ..quota }.has_room(0, 0));
        assert!(Quota::default().has_room(u64::MAX, u64::MAX));
    }
}
