//! Sending (RFC 8621 §6, §7): who may write as whom, and how a stored message comes into the queue.
//!
//! A submission goes from `submit` (what may be sent, and to whom) through `header` (what the message says, and what of it
//! is not sent) and `envelope` into the same queue that SMTP submission fills, and leaves a `record` in the account. What
//! has become of it since is asked of the queue and written down when somebody wants to know (`look`, `status`).

pub(crate) mod envelope;
pub(crate) mod header;
pub(crate) mod identity;
pub(crate) mod known;
pub(crate) mod lines;
pub(crate) mod look;
pub(crate) mod record;
pub(crate) mod status;
pub(crate) mod submit;

use std::fmt;

use mail::id::AccountId;
use queue::Queue;

/// What sending works on.
pub struct Sending {
    /// Where messages go.
    pub queue: Queue,
    /// What is sent, and how.
    pub rules: SendingRules,
    /// Takes one recipient off what a user may write to within an hour, whichever way they write. `false`: it is used up.
    pub may_write_to_one_more: Box<dyn Fn(AccountId) -> bool + Send + Sync>,
}

/// The rules of submission, which are those of SMTP: it must not matter which way a message is handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingRules {
    /// The name of this host in `Received` fields, and in the Message-IDs that it gives.
    pub hostname: String,
    /// Received fields from which a message is taken to go in circles.
    pub received_max: u32,
    /// Users may only send from addresses that are theirs.
    pub sender_login_check: bool,
    /// Octets of a message.
    pub message_bytes_max: u64,
    /// Octets of a line, with its end (RFC 5321 §4.5.3.1.6).
    pub text_line_bytes_max: usize,
    /// Recipients of a message.
    pub recipients_max: usize,
    /// For how many seconds a message can be held (RFC 4865). Zero: for none.
    pub hold_seconds_max: u64,
    /// The shortest time in seconds within which delivery can be asked for (RFC 2852). Zero: it cannot be asked for.
    pub deliver_by_seconds_min: u64,
    /// Whether messages have priorities (RFC 6710).
    pub priorities: bool,
    /// Seconds before it is sent from which on a message that is held cannot be taken back any more: another node's clock
    /// may be ahead by so much, and it may hear so much later that it was taken back.
    pub undo_margin_seconds: u64,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl SendingRules {
    /// For tests of what obeys them.
    pub(crate) fn sample() -> Self {
        Self {
            hostname: "mx.test".to_owned(),
            received_max: 100,
            sender_login_check: true,
            message_bytes_max: 1 << 20,
            text_line_bytes_max: 1000,
            recipients_max: 10,
            hold_seconds_max: 1_000,
            deliver_by_seconds_min: 60,
            priorities: true,
            undo_margin_seconds: 2,
        }
    }
}
