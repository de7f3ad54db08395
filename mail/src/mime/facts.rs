//! What is known of a message once its bytes have passed.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::open::OpenPart;
use super::part::Part;
use super::preview::PreviewSource;
use crate::header::HeaderSummary;

/// The facts of a message: all that listing, sorting, threading and IMAP's FETCH need without reading the bytes again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Octets of the message (RFC822.SIZE).
    pub size: u64,
    /// Line ends in the message.
    pub lines: u64,
    /// Octets of the header, with the empty line that ends it.
    pub header_len: u64,
    /// IMAP's ENVELOPE.
    pub summary: HeaderSummary,
    /// IMAP's BODYSTRUCTURE, with the byte range of every part.
    pub structure: Part,
    /// The beginning of the text, for people (RFC 8970).
    pub preview: String,
    /// Whether some part is meant to be saved rather than read (RFC 8621 §4.1.4 `hasAttachment`).
    pub has_attachment: bool,
    /// The Date field as a moment.
    pub sent_date: Option<SentDate>,
    /// The message-id without its angle brackets.
    pub message_id: Option<String>,
    /// The message-ids of In-Reply-To.
    pub in_reply_to: Vec<String>,
    /// The message-ids of References, oldest first.
    pub references: Vec<String>,
    /// The subject without `Re:` and the like (RFC 5256 §2.1).
    pub base_subject: String,
    /// Received fields at the top, the guard against mail loops (RFC 5321 §6.3).
    pub received_count: u32,
}

/// A moment with the offset from UTC at which its writer lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SentDate {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_seconds: i64,
    /// Minutes east of UTC.
    pub offset_minutes: i16,
}

impl Facts {
    /// Puts together what the splitter found.
    pub(crate) fn of_message(
        root: OpenPart,
        size: u64,
        lines: u64,
        preview: PreviewSource,
        limits: &Limits,
    ) -> Self {
        let received_count = root.received_count;
        let (mut structure, summary) = root.close(size, lines);
        if structure.is_default() {
            // Most mail; `TEXT/PLAIN; charset=US-ASCII` need not be stored to say what nothing says.
            structure.media = None;
            structure.parameters.clear();
            structure.encoding = None;
        }
        Self {
            size,
            lines,
            header_len: structure.header.end,
            preview: preview.text(limits.preview_characters),
            summary,
            structure,
            received_count,
            ..Self::default()
        }
    }
}
