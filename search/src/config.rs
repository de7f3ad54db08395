//! Limits of the search index, each with its reason.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Limits of the search index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the index lies.
    pub dir: PathBuf,
    /// How many shards accounts are spread over. Each has its files and, while it is written, a writer. Another number
    /// takes effect with the next rebuild.
    pub shards: u16,
    /// How much of a message is looked at.
    pub text: TextLimits,
    /// How attachments that have to be taken apart are.
    pub attachments: AttachmentConfig,
    /// Emails looked at before they are handed to the writer together; octets of their text that may be in memory for
    /// that.
    pub batch_emails: usize,
    /// See `batch_emails`.
    pub batch_bytes: usize,
    /// A commit costs some 50 ms and makes files; it takes up to so many emails …
    pub commit_emails: usize,
    /// … or what came in so many seconds. What is not committed is found all the same, by looking at it.
    pub commit_seconds: u64,
    /// Memory that a writer may fill before it writes a segment. Not below 15 MB.
    pub writer_bytes: usize,
    /// Writers open at the same time, whatever the number of shards. Each has some threads.
    pub writers_max: usize,
    /// Accounts waiting to be followed. When there are more the rest is not remembered, which makes it late and not
    /// wrong: an account comes again with its next mail and its next question.
    pub queue_max: usize,
    /// An account that was not read for so many days is indexed when it is read again.
    pub lazy_days: u32,
    /// How many searches may use a processor at the same time.
    pub searches_max: usize,
    /// Grams of a needle that are asked for. More make the question dearer and hardly sharper.
    pub needle_grams_max: usize,
    /// Emails that a word search finds at most, the best ones.
    pub hits_max: usize,
    /// Emails above the mark that a word search looks at by itself; beyond it says that it is not complete.
    pub tail_max: usize,
    /// The checksums of a shard up to this size are verified before its first answer, of a larger one behind it.
    pub verify_bytes_max: u64,
}

/// How much of a message is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextLimits {
    /// Octets of decoded text, markup included. A message with more is a candidate whatever is asked, and is then
    /// looked at itself. One in some thousand is longer than a megabyte.
    pub text_bytes_max: usize,
    /// Octets of text without markup from which words are taken; for word search what is beyond does not exist.
    pub words_bytes_max: usize,
    /// Octets of one kind of header field (all To fields, say) and of file names from which words are taken.
    pub field_bytes_max: usize,
    /// Different grams of a message; with more it is a candidate whatever is asked. A megabyte of prose has some
    /// twenty thousand.
    pub grams_max: usize,
}

/// How attachments are taken apart: each in a process of its own, which has limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttachmentConfig {
    /// Whether it is done at all. Not yet by itself: it is for searches by words, which no service asks for so far.
    pub enabled: bool,
    /// The program that does it, and what stands before its arguments: whoever wires the server knows.
    #[serde(skip)]
    pub program: Option<(PathBuf, Vec<String>)>,
    /// Octets of an attachment; a larger one is not looked at.
    pub attachment_bytes_max: u64,
    /// Octets of text of one attachment. Of a message at most `search.text.words_bytes_max` are kept.
    pub text_bytes_max: usize,
    /// Attachments of one message that are looked at.
    pub per_message_max: usize,
    /// Octets of memory (address space) of the process; the program itself counts.
    pub memory_bytes_max: u64,
    /// Seconds that an attachment may take, by the clock and of the processor. After one that took longer the rest of
    /// its message is not looked at.
    pub seconds_max: u64,
    /// Processes at the same time.
    pub processes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("search"),
            shards: 4,
            text: TextLimits::default(),
            attachments: AttachmentConfig::default(),
            batch_emails: 64,
            batch_bytes: 8 << 20,
            commit_emails: 2_000,
            commit_seconds: 5,
            writer_bytes: 32 << 20,
            writers_max: 2,
            queue_max: 10_000,
            lazy_days: 31,
            searches_max: 8,
            needle_grams_max: 24,
            hits_max: 100_000,
            tail_max: 1_000,
            verify_bytes_max: 1 << 30,
        }
    }
}

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            text_bytes_max: 1 << 20,
            words_bytes_max: 256 << 10,
            field_bytes_max: 64 << 10,
            grams_max: 65_536,
        }
    }
}

impl Default for AttachmentConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            program: None,
            attachment_bytes_max: 16 << 20,
            text_bytes_max: 256 << 10,
            per_message_max: 8,
            memory_bytes_max: 512 << 20,
            seconds_max: 10,
            processes_max: 2,
        }
    }
}
