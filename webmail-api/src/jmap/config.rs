//! What an operator can set, each with its default and the reason for it.

use serde::{Deserialize, Serialize};

/// Limits of JMAP, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients find this server, `https://mail.example.org`. Empty: by the name that a client uses itself, which is
    /// right unless a proxy changes it.
    pub base_url: String,
    /// Whether an account's own password is taken. A program keeps what it logs in with, so that it should be an
    /// application password, which can be withdrawn.
    pub account_passwords: bool,
    /// Origins (`https://webmail.example.org`) whose pages may use the API from a browser. Others may not, even with
    /// a password.
    pub cors_origins: Vec<String>,
    /// Octets of one request of methods; announced as `maxSizeRequest`. RFC 8620 §2 wants ten million at least.
    pub request_bytes_max: usize,
    /// Method calls in one request; announced as `maxCallsInRequest`. RFC 8620 §2 wants 16 at least.
    pub calls_max: usize,
    /// Objects that one call may ask for; announced as `maxObjectsInGet`. RFC 8620 §2 wants 500 at least.
    pub objects_in_get_max: usize,
    /// Objects that one call may change; announced as `maxObjectsInSet`. RFC 8620 §2 wants 500 at least.
    pub objects_in_set_max: usize,
    /// Requests that an account may have under way at one time; announced as `maxConcurrentRequests`. RFC 8620 §2 wants
    /// four at least.
    pub requests_at_once_max: usize,
    /// Uploads that an account may have under way at one time; announced as `maxConcurrentUpload`. RFC 8620 §2 wants four
    /// at least.
    pub uploads_at_once_max: usize,
    /// Octets of one upload; announced as `maxSizeUpload`. As large as a message may be that IMAP takes.
    pub upload_bytes_max: u64,
    /// Pieces that a blob can be made of in a request; announced as `maxDataSources`. RFC 9404 §3.1 wants 64 at least.
    pub blob_sources_max: usize,
    /// Levels of nesting in a request. Filters within filters need few.
    pub json_depth_max: usize,
    /// Values in one request. Each takes some forty octets of memory, whatever it takes of text.
    pub json_values_max: usize,
    /// Octets that one request's answers may have in memory. What would go beyond it is refused, and is to be asked for in
    /// smaller pieces.
    pub response_bytes_max: usize,
    /// Octets of one body value. Longer texts are cut, and say so; they can be downloaded whole.
    pub body_value_bytes_max: usize,
    /// Octets of a message's header that are looked at.
    pub header_bytes_max: u64,
    /// Results of one query; a client that wants more asks for the next ones.
    pub query_results_max: usize,
    /// Ids of changes that are told at once; a client that wants more goes on from there.
    pub changes_max: usize,
    /// Messages that one query may read to find a text, which are those that the search index does not know. A filter that
    /// leaves more than these to read is refused.
    pub query_texts_max: usize,
    /// Names that a domain may have for its aliases to be offered as identities to the accounts that may send as them; all
    /// names are looked through for that. In larger domains clients make such identities themselves. Zero: in no domain.
    pub alias_identities_names_max: usize,
    /// Recipients of one submission. It stands with them in the account's root, so that it must not be large; SMTP's own
    /// limit counts as well.
    pub submission_recipients_max: usize,
    /// Submissions that an account keeps. When there are more, the oldest go of which the queue has nothing more to tell.
    pub submissions_max: usize,
    /// Seconds after which a submission goes of which the queue has nothing more to tell.
    pub submission_seconds: u64,
    /// Seconds between looks at what becomes of a submission, while somebody listens to an event source. What takes long is
    /// looked at less often.
    pub submission_look_seconds: u64,
    /// Seconds for a request of methods to arrive, and for its answer to be made.
    pub request_seconds_max: u64,
    /// Seconds for an upload to arrive.
    pub upload_seconds_max: u64,
    /// Seconds that a client may take nothing of what is written to it.
    pub write_stall_seconds_max: u64,
    /// Seconds without a request after which a connection is closed.
    pub idle_seconds_max: u64,
    /// Streams of one HTTP/2 connection at one time.
    pub streams_max: u32,
    /// Event sources that an account may have open.
    pub event_sources_max: usize,
    /// Seconds after which an event source ends, so that the client opens it anew and shows again who it is.
    pub event_source_seconds_max: u64,
    /// Seconds between two pings that a client may ask for at least; without any a lost connection is not noticed.
    pub ping_seconds_min: u64,
    /// Seconds between two looks at the log's head while an event source is open, in case that the hint of another node's
    /// commit was lost. 0: never; right when this process is the only one that writes.
    pub idle_poll_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            account_passwords: false,
            cors_origins: Vec::new(),
            request_bytes_max: 10_000_000,
            calls_max: 32,
            objects_in_get_max: 1_000,
            objects_in_set_max: 1_000,
            requests_at_once_max: 8,
            uploads_at_once_max: 4,
            upload_bytes_max: 100 << 20,
            blob_sources_max: 64,
            json_depth_max: 64,
            json_values_max: 500_000,
            response_bytes_max: 64 << 20,
            body_value_bytes_max: 1 << 20,
            header_bytes_max: 1 << 20,
            query_results_max: 10_000,
            changes_max: 10_000,
            query_texts_max: 20_000,
            alias_identities_names_max: 1_000,
            submission_recipients_max: 500,
            submissions_max: 500,
            submission_seconds: 30 * 86_400,
            submission_look_seconds: 2,
            request_seconds_max: 60,
            upload_seconds_max: 3600,
            write_stall_seconds_max: 60,
            idle_seconds_max: 120,
            streams_max: 64,
            event_sources_max: 16,
            event_source_seconds_max: 3600,
            ping_seconds_min: 5,
            idle_poll_seconds: 20,
        }
    }
}

impl Config {
    /// What no single setting can tell.
    pub fn check(&self) -> Result<(), String> {
        let is_origin = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '\r', '\n']))
        };
        if !self.base_url.is_empty() && !is_origin(&self.base_url) {
            return Err(format!("base_url: {:?} is not a scheme and a host, without a path", self.base_url));
        }
        match self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => {
                Err(format!("cors_origins: {origin:?} is not a scheme and a host, without a path"))
            }
            None => Ok(()),
        }
    }

    /// How much of a request is read.
    pub(crate) fn limits(&self) -> jmap_protocol::Limits {
        jmap_protocol::Limits {
            request_bytes_max: self.request_bytes_max,
            calls_max: self.calls_max,
            depth_max: self.json_depth_max,
            values_max: self.json_values_max,
        }
    }
}
