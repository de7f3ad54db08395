//! What is known of a message once its bytes have passed.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::open::OpenPart;
use super::part::Part;
use super::preview::PreviewSource;
use crate::date::SentDate;
use crate::header::decode::decode_header_text;
use crate::header::{HeaderSummary, RawText};
use crate::thread::{base_subject, bounded_references, message_id, message_ids};

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
    /// The decoded subject without `Re:` and the like (RFC 5256 §2.1).
    pub base_subject: String,
    /// Whether such a mark was there: threads are joined by subject only then.
    pub is_reply_or_forward: bool,
    /// Received fields at the top, the guard against mail loops (RFC 5321 §6.3).
    pub received_count: u32,
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
        let references = root.references.clone();
        let (mut structure, summary) = root.close(size, lines);
        if structure.is_default() {
            // Most mail; `TEXT/PLAIN; charset=US-ASCII` need not be stored to say what nothing says.
            structure.media = None;
            structure.parameters.clear();
            structure.encoding = None;
        }
        let subject = summary
            .subject
            .as_ref()
            .map(|subject| decode_header_text(subject.as_bytes()))
            .unwrap_or_default();
        let base = base_subject(&subject);
        let ids = |text: Option<&RawText>| {
            let ids = text
                .map(|text| message_ids(text.as_bytes(), limits.message_id_bytes_max))
                .unwrap_or_default();
            bounded_references(ids, limits.references_max)
        };
        Self {
            size,
            lines,
            header_len: structure.header.end,
            preview: preview.text(limits.preview_characters),
            has_attachment: structure.has_attachment(),
            sent_date: summary.date.as_ref().and_then(|date| SentDate::parse(date.as_bytes())),
            message_id: summary
                .message_id
                .as_ref()
                .and_then(|id| message_id(id.as_bytes(), limits.message_id_bytes_max)),
            in_reply_to: ids(summary.in_reply_to.as_ref()),
            references: ids(references.as_ref()),
            base_subject: base.text,
            is_reply_or_forward: base.is_reply_or_forward,
            received_count,
            summary,
            structure,
        }
    }
}
