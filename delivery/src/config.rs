//! What an operator can set, each with its default and the reason for it.

use mail::address::Address;
use serde::{Deserialize, Serialize};

/// Limits and choices of local delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This host's name, in notifications. Empty: as the server is called.
    pub hostname: String,
    /// Items that are worked on at one time. Most of that is waiting for commits, which are grouped: more of them make
    /// larger groups.
    pub concurrent_max: usize,
    /// Items for one account that are worked on at one time. What is beyond waits without taking a place from others.
    pub account_concurrent_max: usize,
    /// Items that wait so for one account. What is beyond goes back to the queue for a while.
    pub account_waiting_max: usize,
    /// Targets of one message that are placed side by side.
    pub targets_concurrent_max: usize,
    /// Targets that one slice of an expansion holds at least before it is committed. One recipient's targets always
    /// stay together, so a slice can be larger by one expansion.
    pub slice_targets: usize,
    /// What the part of an address behind the delimiter does (`alice+lists@…`).
    pub subaddress: Subaddress,
    /// Seconds within which a sender has one vacation response of an account (RFC 5230 §4.2), however often they write.
    pub vacation_pause_seconds: u32,
    /// Octets of the message's header that a notification returns at most.
    pub returned_header_bytes_max: u64,
    /// Whoever hears of every failure besides its sender, such as `postmaster@example.org`. Empty: nobody.
    pub failure_copies_to: String,
    /// Octets up to which a whole message is returned when `RET=FULL` asks for it (RFC 3461 §4.3); larger ones are
    /// returned as their header.
    pub returned_message_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            concurrent_max: 1_024,
            account_concurrent_max: 64,
            account_waiting_max: 4_096,
            targets_concurrent_max: 32,
            slice_targets: 1_000,
            subaddress: Subaddress::Inbox,
            vacation_pause_seconds: 7 * 86_400,
            returned_header_bytes_max: 64 << 10,
            failure_copies_to: String::new(),
            returned_message_bytes_max: 256 << 10,
        }
    }
}

impl Config {
    /// What cannot be, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.failure_copies_to.is_empty() {
            return Ok(());
        }
        let address = Address::parse(&self.failure_copies_to);
        address.map(drop).map_err(|error| format!("failure_copies_to: {error}"))
    }
}

/// What the part of an address behind the delimiter does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subaddress {
    /// Nothing: the message goes to INBOX, and filters can look at the address.
    #[default]
    Inbox,
    /// Names the mailbox, if there is one of that name.
    Mailbox,
    /// Names the mailbox, which is made when it is missing. Whoever knows the address can make mailboxes so.
    MakeMailbox,
}
