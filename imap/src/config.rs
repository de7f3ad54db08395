//! Limits of the IMAP service.

use serde::{Deserialize, Serialize};

/// Limits of the IMAP service, each with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Octets of one command with its literals, but without the messages of APPEND. Dovecot's limit is the same; a
    /// sequence set of ten thousand scattered UIDs fits.
    pub command_bytes_max: usize,
    /// The same before login, when nobody has a reason for more than names and passwords.
    pub command_bytes_before_login_max: usize,
    /// Octets of one appended message; announced as APPENDLIMIT (RFC 7889). Larger than what most servers accept by
    /// SMTP, since people move old mail between servers.
    pub append_bytes_max: u64,
    /// Messages in one APPEND (MULTIAPPEND, RFC 3502). All are committed together, and an entry is bounded.
    pub append_messages_max: usize,
    /// APPENDs in a row that a client may send before the first of them is durable. Each may hold what is not yet written
    /// in memory, within what the store allows for all; more than this no group of writes takes up.
    pub append_pipeline_max: usize,
    /// Bad commands in a row after which a connection is ended.
    pub bad_commands_max: u32,
    /// Failed logins after which a connection is ended; the directory throttles beyond it.
    pub failed_logins_max: u32,
    /// Seconds without a command until a logged-in connection is ended. RFC 9051 §5.4 wants 30 minutes at least, and
    /// clients repeat IDLE just before those are over.
    pub autologout_seconds: u64,
    /// Seconds that a connection may take to log in.
    pub login_seconds_max: u64,
    /// Seconds without an octet in the middle of a command or a message.
    pub stall_seconds_max: u64,
    /// Seconds that a client may take nothing of what is written to it.
    pub write_stall_seconds_max: u64,
    /// Octets that wait to be written to one client before a command waits for it. With the TLS layer's own records
    /// this bounds what a slow reader costs.
    pub output_bytes_max: usize,
    /// Seconds between two looks at the log's head while a client idles, in case that the hint of another node's
    /// commit was lost. 0: never; right when this process is the only one that writes.
    pub idle_poll_seconds: u64,
    /// Octets of a selected header (`BODY[HEADER.FIELDS …]`) that are held in memory; a longer one is read twice
    /// instead, since its length has to be said first.
    pub header_bytes_held: usize,
    /// Messages that a FETCH of bodies has the store read ahead while one is being sent, where bodies are far away (S3
    /// with a cache, see `s3.read_ahead_in_flight_max`). A mailbox's messages lie in as many segments, so each is a
    /// request; of fifty milliseconds for one, a client that reads on notices nothing with some dozens. 0: none.
    pub fetch_ahead_messages_max: usize,
    /// Octets of those messages in all; the next one is read ahead however long. It bounds what a client that goes away
    /// leaves in the cache.
    pub fetch_ahead_bytes_max: u64,
    /// Different texts of one SEARCH that are found by their words where FUZZY is asked for (RFC 6203); each asks the index,
    /// and looks at the messages that it does not know yet. What is asked for beyond is looked for exactly.
    pub fuzzy_texts_max: usize,
    /// Mailboxes that one ESEARCH looks into (RFC 7377); each has its index loaded. An account with more of them is searched
    /// in parts.
    pub multisearch_mailboxes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            command_bytes_max: 64 * 1024,
            command_bytes_before_login_max: 8 * 1024,
            append_bytes_max: 100 * 1024 * 1024,
            append_messages_max: 100,
            append_pipeline_max: 64,
            bad_commands_max: 20,
            failed_logins_max: 5,
            autologout_seconds: 30 * 60,
            login_seconds_max: 3 * 60,
            stall_seconds_max: 5 * 60,
            write_stall_seconds_max: 5 * 60,
            output_bytes_max: 64 * 1024,
            idle_poll_seconds: 20,
            header_bytes_held: 64 * 1024,
            fetch_ahead_messages_max: 32,
            fetch_ahead_bytes_max: 4 << 20,
            fuzzy_texts_max: 8,
            multisearch_mailboxes_max: 1000,
        }
    }
}

impl Config {
    /// What of it is the machine's.
    pub(crate) fn machine(&self, starttls: bool) -> imap_protocol::server::Config {
        imap_protocol::server::Config {
            starttls,
            command_bytes_max: self.command_bytes_max,
            command_bytes_before_login_max: self.command_bytes_before_login_max,
            append_bytes_max: self.append_bytes_max,
            bad_commands_max: self.bad_commands_max,
            autologout_seconds: self.autologout_seconds,
            login_seconds_max: self.login_seconds_max,
            stall_seconds_max: self.stall_seconds_max,
        }
    }
}
