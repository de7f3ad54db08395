//! Limits of accounts, each with its reason.

use serde::{Deserialize, Serialize};

use crate::root::Layout;

/// Limits of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Mailboxes an account may have. All stand in its root, which is read and written whole; 10 000 make it about
    /// a megabyte.
    pub mailboxes_max: usize,
    /// Names an account may be subscribed to; they stand in the root as well.
    pub subscriptions_max: usize,
    /// Addresses that an account's mail is not sent to since somebody has said that they do not exist; when there are
    /// more, the oldest are tried again. They stand in the root as well. Zero: none are remembered.
    pub suppressions_max: usize,
    /// Longest mailbox name, in octets of UTF-8.
    pub mailbox_name_bytes_max: usize,
    /// Levels a mailbox name may have.
    pub mailbox_depth_max: usize,
    /// Facts of a message (header summary, body structure) up to this size are kept in its record; larger ones are read
    /// from beside the message's bytes. 4 KiB hold those of nearly every message and keep a page of 256 records below
    /// a megabyte.
    pub inline_facts_bytes: usize,
    /// How many bytes an account remembers of which messages were expunged; beyond it the oldest are forgotten, and a
    /// client that was away longer is given the full set. A megabyte holds the expunges of some 300 000 messages one by
    /// one, and far more where they were expunged together.
    pub expunged_bytes_max: usize,
    /// How many bytes an account remembers of what else happened, for clients that ask what has changed since; beyond
    /// it the oldest is forgotten, and a client that was away longer starts anew. A megabyte holds the arrival of some
    /// 150 000 messages.
    pub history_bytes_max: usize,
    /// Memory for views of accounts by email, of all accounts together: 120 bytes a message at most, half of which it
    /// mostly shares with the account itself. Views beyond it are made again when they are needed.
    pub view_cache_bytes: u64,
    /// Objects (identities, submissions and the like) that an account may have. They stand in the root as well.
    pub objects_max: usize,
    /// Octets of all of them. They make every snapshot larger.
    pub objects_bytes_max: usize,
    /// Octets of one. It stands in a log entry, which is bounded by 32 KiB.
    pub object_bytes_max: usize,
    /// Uploads that an account holds at once; they stand in the root as well.
    pub uploads_max: usize,
    /// Octets of all of them. The oldest go where a new one needs the room, but not before their time is over.
    pub uploads_bytes_max: u64,
    /// How long an upload that nothing uses is held, in seconds. RFC 8620 §6.1 asks for an hour at least.
    pub upload_seconds: u32,
    /// Memory for pages of email records, for all accounts together. A page has up to 256 records and some 200 KiB.
    pub email_cache_bytes: u64,
    /// How new accounts cut their pages.
    pub layout: Layout,
    /// How much of a message is remembered when it is written.
    pub mime: mail::mime::Limits,
    /// Largest prefix (trace fields) of a message. It stands in the log entry, which is bounded by 32 KiB.
    pub prefix_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mailboxes_max: 10_000,
            subscriptions_max: 10_000,
            suppressions_max: 1_000,
            mailbox_name_bytes_max: 1_000,
            mailbox_depth_max: 50,
            inline_facts_bytes: 4 << 10,
            expunged_bytes_max: 1 << 20,
            history_bytes_max: 2 << 20,
            view_cache_bytes: 256 << 20,
            objects_max: 2_000,
            objects_bytes_max: 512 << 10,
            object_bytes_max: 24 << 10,
            uploads_max: 1_000,
            uploads_bytes_max: 1 << 30,
            upload_seconds: 2 * 3600,
            email_cache_bytes: 64 << 20,
            layout: Layout::default(),
            mime: mail::mime::Limits::default(),
            prefix_bytes_max: 16 << 10,
        }
    }
}
