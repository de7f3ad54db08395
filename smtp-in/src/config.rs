//! What can be configured of receiving.

use serde::{Deserialize, Serialize};
use smtp_protocol::server::Limits;

/// Settings of all roles of this service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name that this host goes by in greetings and `Received` lines. It should resolve to this host.
    pub hostname: String,
    /// Limits of one session.
    pub limits: Limits,
    /// `Received` lines from which a message is taken to go in circles (RFC 5321 §6.3: not below 100).
    pub received_max: u32,
    /// Recipients of one message with the null reverse-path from a stranger. Notifications have one; more come in the
    /// next transaction (452), so that nothing honest is lost.
    pub null_sender_recipients_max: u32,
    /// Users may only send from addresses that are theirs.
    pub sender_login_check: bool,
    /// Submission without TLS: logins that send the password work, and MAIL does not ask for STARTTLS. For loopback.
    pub submission_without_tls: bool,
    /// Recipients that a user may write to within an hour, so that a stolen password is of little use; more are put off
    /// (450). Zero: no limit.
    pub user_recipients_per_hour_max: u32,
    /// How many seconds a user may have a message held before it is delivered (FUTURERELEASE). Zero: not offered.
    pub hold_seconds_max: u64,
    /// The shortest time, in seconds, within which a user may ask for delivery (DELIVERBY). Zero: not offered.
    pub deliver_by_seconds_min: u64,
    /// Users may say which of their messages go first (MT-PRIORITY).
    pub priorities: bool,
    /// Seconds for which a client may take none of our replies.
    pub write_stall_seconds_max: u64,
    /// The detail of an address (`alice+lists@…`) chooses a mailbox, which is delivery's affair: LMTP mail for such an
    /// address goes through the queue. Set by the process, from what delivery does.
    #[serde(skip)]
    pub details_are_filed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            limits: Limits::default(),
            received_max: 100,
            null_sender_recipients_max: 5,
            sender_login_check: true,
            submission_without_tls: false,
            // Ten times what a busy person writes; whoever runs lists on an account raises it.
            user_recipients_per_hour_max: 10_000,
            // Mail for the first day after a long holiday.
            hold_seconds_max: 60 * 86_400,
            // A greeting, a few answers and a commit at each host on the way.
            deliver_by_seconds_min: 60,
            priorities: true,
            // Replies are a few hundred bytes; who does not take them within a minute is gone.
            write_stall_seconds_max: 60,
            details_are_filed: false,
        }
    }
}
