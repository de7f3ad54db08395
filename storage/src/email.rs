//! Email records: what never changes about a message, whatever mailbox it is in.

use blob::{BlobAddress, Nonce, Reference};
use bytes::Bytes;
use engine::FormatError;
use mail::header::HeaderSummary;
use mail::id::EmailId;
use mail::mime::part::Kind;
use mail::mime::{Facts, Part};
use serde::{Deserialize, Serialize};

use crate::date::InternalDate;

const VERSION: u8 = 1;

/// What is known of an email without reading its bytes. Its body is `prefix`, then the original bytes; sizes and
/// offsets count both.
///
/// Values that are seldom needed together are parsed when they are asked for.
#[derive(Clone, Debug)]
pub struct EmailRecord {
    /// Its number.
    pub id: EmailId,
    /// Where the original bytes lie.
    pub address: BlobAddress,
    /// The account's reference to them.
    pub reference: Nonce,
    /// Octets in all (RFC822.SIZE).
    pub size: u64,
    /// Octets of the header, prefix included, with the empty line that ends it.
    pub header_len: u64,
    /// Line ends in all.
    pub lines: u64,
    /// Whether some part is an attachment.
    pub has_attachment: bool,
    /// The Date field as a moment.
    pub sent_date: Option<InternalDate>,
    /// Trace fields that were added on delivery.
    pub prefix: Bytes,
    preview: Bytes,
    summary: Bytes,
    structure: Bytes,
    /// Whether summary, structure and preview are here; else they lie in the facts frame beside the original bytes.
    inline: bool,
}

/// The first part of a stored record. What follows it are the pieces whose lengths it gives.
#[derive(Serialize, Deserialize)]
struct Head {
    address: BlobAddress,
    reference: Nonce,
    original_size: u64,
    original_header_len: u64,
    original_lines: u64,
    has_attachment: bool,
    sent_date: Option<InternalDate>,
    prefix_len: u32,
    /// `None`: these three lie in the facts frame.
    inline: Option<Inline>,
}

#[derive(Serialize, Deserialize)]
struct Inline {
    preview_len: u32,
    summary_len: u32,
    structure_len: u32,
}

impl EmailRecord {
    /// IMAP's ENVELOPE.
    pub fn summary(&self) -> Result<HeaderSummary, FormatError> {
        postcard::from_bytes(&self.summary).map_err(|error| FormatError::malformed("header summary", error))
    }

    /// IMAP's BODYSTRUCTURE; ranges count from the first octet of the prefix.
    pub fn structure(&self) -> Result<Part, FormatError> {
        let mut part: Part = postcard::from_bytes(&self.structure)
            .map_err(|error| FormatError::malformed("body structure", error))?;
        if !self.prefix.is_empty() {
            let added = self.prefix.len() as u64;
            shift(&mut part, added);
            part.header.start = 0;
        }
        Ok(part)
    }

    /// Beginning of the text, for people (RFC 8970).
    pub fn preview(&self) -> &str {
        std::str::from_utf8(&self.preview).unwrap_or_default()
    }

    /// Bytes in memory.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.prefix.len() + self.preview.len() + self.summary.len() + self.structure.len()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.inline
    }

    /// Adds what the facts frame has.
    pub(crate) fn complete(&mut self, facts: &Facts) {
        self.preview = facts.preview.clone().into();
        self.summary = encoded(&facts.summary);
        self.structure = encoded(&facts.structure);
        self.inline = true;
    }

    /// The stored form of the record of a message.
    pub(crate) fn encode(
        address: &BlobAddress,
        reference: Nonce,
        prefix: &Bytes,
        facts: &Facts,
        inline_facts_bytes: usize,
    ) -> Bytes {
        let preview = facts.preview.as_bytes();
        let (summary, structure) = (encoded(&facts.summary), encoded(&facts.structure));
        let inline = preview.len() + summary.len() + structure.len() <= inline_facts_bytes;
        let head = Head {
            address: *address,
            reference,
            original_size: facts.size,
            original_header_len: facts.header_len,
            original_lines: facts.lines,
            has_attachment: facts.has_attachment,
            sent_date: facts.sent_date.map(|date| InternalDate::new(date.unix_seconds, date.offset_minutes)),
            prefix_len: prefix.len() as u32,
            inline: inline.then_some(Inline {
                preview_len: preview.len() as u32,
                summary_len: summary.len() as u32,
                structure_len: structure.len() as u32,
            }),
        };
        let mut out = postcard::to_extend(&head, vec![VERSION]).expect("ids and numbers only");
        out.extend_from_slice(prefix);
        if inline {
            out.extend_from_slice(preview);
            out.extend_from_slice(&summary);
            out.extend_from_slice(&structure);
        }
        out.into()
    }

    /// Reverse of [`Self::encode`]; nothing is copied.
    pub(crate) fn decode(id: EmailId, record: &Bytes) -> Result<Self, FormatError> {
        let malformed = |reason: &str| FormatError::malformed("email record", reason);
        let (version, payload) = record.split_first().ok_or_else(|| malformed("empty"))?;
        if *version != VERSION {
            return Err(FormatError::Unknown { what: "version of email record", number: (*version).into() });
        }
        let (head, rest): (Head, &[u8]) = postcard::take_from_bytes(payload)
            .map_err(|error| FormatError::malformed("email record", error))?;
        let mut at = record.len() - rest.len();
        let mut piece = |length: u32| {
            let end = at.checked_add(length as usize).filter(|end| *end <= record.len());
            let end = end.ok_or_else(|| malformed("too short"))?;
            let piece = record.slice(at..end);
            at = end;
            Ok(piece)
        };
        let prefix = piece(head.prefix_len)?;
        let [mut preview, mut summary, mut structure] = [const { Bytes::new() }; 3];
        if let Some(lengths) = &head.inline {
            preview = piece(lengths.preview_len)?;
            summary = piece(lengths.summary_len)?;
            structure = piece(lengths.structure_len)?;
        }
        if at != record.len() {
            return Err(malformed("bytes left over"));
        }
        let prefix_lines = prefix.split(|byte| *byte == b'\n').count() as u64 - 1;
        let prefix_len = u64::from(head.prefix_len);
        Ok(Self {
            id,
            address: head.address,
            reference: head.reference,
            size: prefix_len.saturating_add(head.original_size),
            header_len: prefix_len.saturating_add(head.original_header_len),
            lines: prefix_lines.saturating_add(head.original_lines),
            has_attachment: head.has_attachment,
            sent_date: head.sent_date,
            prefix,
            preview,
            summary,
            structure,
            inline: head.inline.is_some(),
        })
    }

    /// The stored form of the same email under another reference.
    pub(crate) fn encode_again(record: &Bytes, reference: &Reference) -> Result<Bytes, FormatError> {
        let payload = record.get(1..).ok_or_else(|| FormatError::malformed("email record", "empty"))?;
        let (mut head, rest): (Head, &[u8]) = postcard::take_from_bytes(payload)
            .map_err(|error| FormatError::malformed("email record", error))?;
        head.address = reference.address;
        head.reference = reference.nonce;
        let mut out = postcard::to_extend(&head, vec![VERSION]).expect("ids and numbers only");
        out.extend_from_slice(rest);
        Ok(out.into())
    }
}

fn encoded(value: &impl Serialize) -> Bytes {
    postcard::to_stdvec(value).expect("facts hold nothing that postcard refuses").into()
}

fn shift(part: &mut Part, by: u64) {
    for range in [&mut part.header, &mut part.body] {
        range.start += by;
        range.end += by;
    }
    match &mut part.kind {
        Kind::Leaf => {}
        Kind::Multipart(parts) => parts.iter_mut().for_each(|part| shift(part, by)),
        Kind::Message(message) => shift(&mut message.part, by),
    }
}
