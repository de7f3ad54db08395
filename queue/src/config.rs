//! What an operator can set, each with its default and the reason for it.

use mail::address::Domain;
use serde::{Deserialize, Serialize};

/// Limits and times of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Ingest shards. More of them commit side by side where a commit is slow (CQL); fixed once mail was accepted.
    pub ingest_shards: u16,
    /// Outbound shards. Fixed once mail was accepted, because a recipient's shard is a function of its domain.
    pub outbound_shards: u16,
    /// Recipients of one message. RFC 5321 §4.5.3.1.8 asks for at least 100; what SMTP takes is set there.
    pub recipients_max: usize,
    /// Octets of header fields put before one message.
    pub prefix_bytes_max: usize,
    /// Unfinished items of one shard; beyond this new mail is put off with 452.
    pub items_max: u64,
    /// Items that delivery holds at one time, most of them waiting for their turn: so that accounts which cannot be
    /// written for a while do not stand in the way of the others.
    pub in_flight_max: usize,
    /// Items of which this process keeps in mind that they are due. What is beyond is looked for when there is room.
    pub window_max: usize,
    /// Submissions that wait for their commit at one time; beyond this new mail is put off.
    pub submitting_max: usize,
    /// After this long an undelivered recipient is given up (RFC 5321 §4.5.4.1: at least 4 to 5 days).
    pub expire_seconds: u64,
    /// Finished items can be traced for this long.
    pub history_seconds: u64,
    /// First wait after temporary trouble; doubles with each attempt.
    pub retry_seconds_min: u64,
    /// Longest wait between two attempts.
    pub retry_seconds_max: u64,
    /// Crashes of the process that an item may be part of before it goes to quarantine.
    pub crashes_max: u8,
    /// How often shards are looked at without being told of work. Wake-ups are hints, this is what is relied upon.
    pub poll_seconds: u64,
    /// Recipients and prefix of a message, or targets of an expansion, up to this size stand in the entry itself; what
    /// is larger goes into a blob. Entries are to stay near 32 KiB.
    pub inline_bytes_max: usize,
    /// Facts of newly accepted messages that are kept in memory until delivery has used them.
    pub facts_bytes_max: usize,
    /// Limits of the MIME splitter.
    pub mime: mail::mime::Limits,
    /// Outbound items of which this process keeps in mind that they are due. A quarter is kept for mail that comes fresh.
    pub outbound_window_max: usize,
    /// Of these, one sender's at most: so that a large mailing is read from its shards bit by bit, and others' mail is
    /// seen beside it.
    pub outbound_sender_max: usize,
    /// Outbound items that are being sent at one time.
    pub outbound_in_flight_max: usize,
    /// The longest time that an attempt can have; not less than `smtp_out.timeouts.attempt`. After a crash of another
    /// node its recipients wait for it to pass.
    pub outbound_lease_seconds_max: u32,
    /// How mail to other hosts is tried again.
    pub retry: Retry,
    /// The same for some domains: the first that matches counts.
    pub retry_domains: Vec<RetryRule>,
    /// For how long nothing expires, and no sender hears of a delay, after a start or after the wall clock jumped, so that
    /// what waited gets one attempt and a wrong clock time to be put right.
    pub expiry_grace_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ingest_shards: 16,
            outbound_shards: 64,
            recipients_max: 10_000,
            prefix_bytes_max: 64 << 10,
            items_max: 1_000_000,
            in_flight_max: 16_384,
            window_max: 100_000,
            submitting_max: 4_096,
            expire_seconds: 5 * 86_400,
            history_seconds: 14 * 86_400,
            retry_seconds_min: 5,
            retry_seconds_max: 3_600,
            crashes_max: 5,
            poll_seconds: 30,
            inline_bytes_max: 16 << 10,
            facts_bytes_max: 16 << 20,
            mime: mail::mime::Limits::default(),
            outbound_window_max: 100_000,
            outbound_sender_max: 10_000,
            outbound_in_flight_max: 4_096,
            outbound_lease_seconds_max: 3_600,
            retry: Retry::default(),
            retry_domains: Vec::new(),
            expiry_grace_seconds: 600,
        }
    }
}

/// How mail to other hosts is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// First wait after an attempt that failed for now; doubles with each. RFC 5321 §4.5.4.1 asks for half an hour later
    /// on and allows for less at first, which gets mail past greylisting sooner.
    pub seconds_min: u64,
    /// Longest wait between two attempts.
    pub seconds_max: u64,
    /// After this long an undelivered recipient is given up (RFC 5321 §4.5.4.1: at least 4 to 5 days).
    pub expire_seconds: u64,
    /// The sender hears of a delay after this long, once. Zero: never.
    pub delay_notice_seconds: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            seconds_min: 300,
            seconds_max: 4 * 3_600,
            expire_seconds: 5 * 86_400,
            delay_notice_seconds: 4 * 3_600,
        }
    }
}

/// How mail to certain domains is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRule {
    /// `example.org`, or `*.example.org` for what is below it. Names in their ASCII form.
    pub domain: String,
    /// How, as in `[queue.retry]`: `{ seconds_min = 60 }`.
    pub retry: Retry,
}

impl RetryRule {
    /// Whether it is for this domain.
    pub fn matches(&self, domain: &Domain) -> bool {
        let domain = domain.ascii();
        match self.domain.strip_prefix("*.") {
            Some(parent) => {
                domain.len() > parent.len() + 1
                    && domain.to_ascii_lowercase().ends_with(&format!(".{}", parent.to_ascii_lowercase()))
            }
            None => self.domain == "*" || domain.eq_ignore_ascii_case(&self.domain),
        }
    }
}

impl Config {
    /// How mail to a domain is tried again.
    pub fn retry_for(&self, domain: &Domain) -> &Retry {
        self.retry_domains.iter().find(|rule| rule.matches(domain)).map_or(&self.retry, |rule| &rule.retry)
    }

    /// What cannot be, in words.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("ingest_shards", u64::from(self.ingest_shards)),
            ("outbound_shards", u64::from(self.outbound_shards)),
            ("recipients_max", self.recipients_max as u64),
            ("items_max", self.items_max),
            ("in_flight_max", self.in_flight_max as u64),
            ("window_max", self.window_max as u64),
            ("submitting_max", self.submitting_max as u64),
            ("expire_seconds", self.expire_seconds),
            ("retry_seconds_min", self.retry_seconds_min),
            ("crashes_max", u64::from(self.crashes_max)),
            ("outbound_window_max", self.outbound_window_max as u64),
            ("outbound_sender_max", self.outbound_sender_max as u64),
            ("outbound_in_flight_max", self.outbound_in_flight_max as u64),
            ("outbound_lease_seconds_max", u64::from(self.outbound_lease_seconds_max)),
            ("retry.seconds_min", self.retry.seconds_min),
            ("retry.expire_seconds", self.retry.expire_seconds),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must not be zero")),
            None if self.inline_bytes_max > 128 << 10 => {
                Err("inline_bytes_max must not exceed 131072: entries have to stay small".to_owned())
            }
            None => Ok(()),
        }
    }
}
