//! What one session may ask for.

use serde::{Deserialize, Serialize};

/// Limits of one session. Each is generous for what real clients do and small for what a hostile one can cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest message in octets, announced as SIZE. 50 MiB takes what the large providers send.
    pub message_bytes_max: u64,
    /// Longest command line in octets with CRLF. RFC 5321 §4.5.3.1.4 has 512; SIZE, AUTH, ENVID, ORCPT and long
    /// addresses in UTF-8 add up to about 1 500.
    pub command_line_bytes_max: usize,
    /// Longest line of a SASL exchange in octets. RFC 4954 §4 has 12 288 for mechanisms with tickets; ours need less.
    pub auth_line_bytes_max: usize,
    /// Longest line of text in a message in octets with CRLF (RFC 5321 §4.5.3.1.6). Longer lines can come by BDAT with
    /// BODY=BINARYMIME.
    pub text_line_bytes_max: usize,
    /// Recipients of one transaction, announced as LIMITS RCPTMAX. RFC 5321 §4.5.3.1.8 wants 100 at least.
    pub recipients_max: u32,
    /// Transactions of one session, announced as LIMITS MAILMAX.
    pub transactions_max: u32,
    /// Errors (5xx) after which each is answered late. Beyond what a person at a keyboard makes.
    pub errors_before_delay: u32,
    /// How late, in milliseconds.
    pub error_delay_ms: u64,
    /// Errors after which the session is closed (421). An accepted message takes them all back.
    pub errors_max: u32,
    /// Octets that may come in while an answer is late; a client that sends more does not listen anyway.
    pub delayed_input_bytes_max: usize,
    /// Failed logins after which the session is closed (421).
    pub login_failures_max: u32,
    /// Commands in a row that bring no message forward (NOOP, RSET, HELP, EHLO…) before the session is
    /// closed (421).
    pub idle_commands_max: u32,
    /// Seconds that a client has for its next command, whole (RFC 5321 §4.5.3.2.7: at least five minutes).
    pub command_seconds_max: u64,
    /// Seconds between two pieces of a body (RFC 5321 §4.5.3.2.5 has three minutes for the sender).
    pub body_pause_seconds_max: u64,
    /// Octets per second that a body must have in the mean once it has taken longer than `body_pause_seconds_max`.
    /// Slower than any modem, so that only those are cut off who mean to be slow.
    pub body_bytes_per_second_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 50 * 1024 * 1024,
            command_line_bytes_max: 2048,
            auth_line_bytes_max: 8192,
            text_line_bytes_max: 1000,
            recipients_max: 1000,
            transactions_max: 1000,
            errors_before_delay: 10,
            error_delay_ms: 1000,
            errors_max: 40,
            delayed_input_bytes_max: 64 * 1024,
            login_failures_max: 3,
            idle_commands_max: 100,
            command_seconds_max: 300,
            body_pause_seconds_max: 180,
            body_bytes_per_second_min: 128,
        }
    }
}
