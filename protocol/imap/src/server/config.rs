//! Limits of the server machine.

/// What the machine allows. Every number is a limit that a client can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether STARTTLS can be answered.
    pub starttls: bool,
    /// Octets of one command with its literals, but without the messages of APPEND. Dovecot's limit is the same; a
    /// sequence set of ten thousand scattered UIDs fits.
    pub command_bytes_max: usize,
    /// The same before login, when nobody has a reason for more than names and passwords.
    pub command_bytes_before_login_max: usize,
    /// Octets of one appended message.
    pub append_bytes_max: u64,
    /// Bad commands in a row after which the connection is ended.
    pub bad_commands_max: u32,
    /// Seconds without a command until a logged-in connection is ended; RFC 9051 §5.4 wants 30 minutes at least.
    pub autologout_seconds: u64,
    /// Seconds that a connection may take to log in.
    pub login_seconds_max: u64,
    /// Seconds without an octet in the middle of a command or a message.
    pub stall_seconds_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            starttls: false,
            command_bytes_max: 64 * 1024,
            command_bytes_before_login_max: 8 * 1024,
            append_bytes_max: 100 * 1024 * 1024,
            bad_commands_max: 20,
            autologout_seconds: 30 * 60,
            login_seconds_max: 3 * 60,
            stall_seconds_max: 5 * 60,
        }
    }
}
