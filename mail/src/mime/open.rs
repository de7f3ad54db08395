//! Parts whose end has not been seen yet, and the boundaries that may end them.

use super::content::apply_content_field;
use super::limits::Limits;
use super::part::{EmbeddedMessage, Kind, Part};
use crate::header::HeaderSummary;
use crate::header::lines::{Field, FieldJoiner};
use crate::header::summary::is_summary_field;
use crate::header::text::RawText;

/// A part that is being read.
#[derive(Debug, Default)]
pub(crate) struct OpenPart {
    /// What is known of it. Offsets and lines are completed when it ends.
    pub(crate) part: Part,
    /// The line ends of the message before its body.
    pub(crate) lines_before: u64,
    /// The length of the empty line that ended its header; 0 when there was none.
    pub(crate) empty_line: u64,
    /// It is the header of a message: the whole one, or one within.
    pub(crate) is_message: bool,
    /// A MIME-Version or Content-Type field was seen.
    is_mime: bool,
    pub(crate) summary: HeaderSummary,
    /// References, as it stood; of the whole message only.
    pub(crate) references: Option<RawText>,
    pub(crate) received_count: u32,
    /// The boundary, from the end of the header to the closing delimiter.
    pub(crate) boundary: Option<Box<[u8]>>,
    pub(crate) inside: Inside,
    pub(crate) fields: FieldJoiner,
}

/// What a part turned out to be at the end of its header.
#[derive(Debug, Default)]
pub(crate) enum Inside {
    #[default]
    Leaf,
    Multipart(Vec<Part>),
    Message(Option<Box<EmbeddedMessage>>),
}

/// A line that ends a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delimiter {
    /// The index of the multipart in the stack of open parts.
    pub(crate) owner: usize,
    /// Closed with two hyphens: no part follows.
    pub(crate) closing: bool,
}

impl OpenPart {
    pub(crate) fn message() -> Self {
        Self { is_message: true, ..Self::default() }
    }

    /// A part between boundaries; MIME needs no version there (RFC 2045 §4).
    pub(crate) fn body_part() -> Self {
        Self { is_mime: true, ..Self::default() }
    }

    /// Whether parts without a type are messages here (RFC 2046 §5.1.5).
    pub(crate) fn is_digest(&self) -> bool {
        matches!(self.inside, Inside::Multipart(_))
            && self.part.media.as_ref().is_some_and(|media| media.subtype.eq_ignore_ascii_case("digest"))
    }

    /// Takes a header line; `kept` counts the octets of header fields kept of the whole message.
    pub(crate) fn header_line(&mut self, line: &[u8], limits: &Limits, kept: &mut usize) {
        let is_message = self.is_message;
        let wanted = |name: &[u8]| {
            starts_with_content(name)
                || is_message
                    && (is_summary_field(name)
                        || [&b"MIME-Version"[..], b"References", b"Received"]
                            .iter()
                            .any(|known| name.eq_ignore_ascii_case(known)))
        };
        let ended = self.fields.line(line, limits.field_bytes_max, wanted);
        self.field(ended, limits, kept);
    }

    /// The header has ended.
    pub(crate) fn end_header(&mut self, limits: &Limits, kept: &mut usize) {
        let last = self.fields.take();
        self.field(last, limits, kept);
        if !self.is_mime {
            // RFC 2045 §4 leaves open what Content-* fields mean without a MIME-Version; with neither that nor a type
            // they are taken for something older than MIME.
            self.part = Part { header: self.part.header.clone(), ..Part::default() };
        }
    }

    fn field(&mut self, field: Option<Field>, limits: &Limits, kept: &mut usize) {
        let Some(Field { name, value }) = field else { return };
        if name.eq_ignore_ascii_case(b"Received") {
            self.received_count += 1;
            return;
        }
        if name.eq_ignore_ascii_case(b"MIME-Version") {
            self.is_mime = true;
            return;
        }
        if *kept + value.len() > limits.header_bytes_max {
            return;
        }
        *kept += value.len();
        if starts_with_content(&name) {
            self.is_mime |= name.eq_ignore_ascii_case(b"Content-Type");
            apply_content_field(&mut self.part, &name[8..], &value, limits.parameters_max);
        } else if name.eq_ignore_ascii_case(b"References") {
            self.references = Some(value.into());
        } else {
            self.summary.apply(&name, &value, limits.addresses_max);
        }
    }

    /// Gives up the empty line at the end of the header, when the body would begin at `offset`; says how long it was.
    pub(crate) fn give_back_empty_line(&mut self, offset: u64) -> u64 {
        if self.part.body.start != offset {
            return 0;
        }
        let length = std::mem::take(&mut self.empty_line);
        self.part.header.end -= length;
        self.part.body = self.part.header.end..self.part.header.end;
        self.lines_before -= length.min(1);
        length
    }

    /// The part with all that was found in it.
    pub(crate) fn close(mut self, end: u64, lines: u64) -> (Part, HeaderSummary) {
        self.part.body.end = end;
        self.part.lines = lines.saturating_sub(self.lines_before);
        self.part.kind = match self.inside {
            Inside::Leaf => Kind::Leaf,
            Inside::Multipart(parts) => Kind::Multipart(parts),
            Inside::Message(inner) => Kind::Message(inner.unwrap_or_default()),
        };
        (self.part, self.summary)
    }

    /// Takes a part that has ended into this one.
    pub(crate) fn adopt(&mut self, part: Part, summary: HeaderSummary) {
        match &mut self.inside {
            Inside::Multipart(parts) => parts.push(part),
            Inside::Message(inner) => *inner = Some(Box::new(EmbeddedMessage { summary, part })),
            Inside::Leaf => {}
        }
    }
}

fn starts_with_content(name: &[u8]) -> bool {
    name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"Content-"))
}

/// Whether a line (or its beginning) is a delimiter of one of the open multiparts.
///
/// The boundary must stand at the beginning of the line; what follows does not matter (RFC 2046 §5.1.1, note to
/// implementors). Where several match, the longest is meant, and of equal ones the innermost.
pub(crate) fn find_delimiter(open: &[OpenPart], line: &[u8]) -> Option<Delimiter> {
    let text = line.strip_prefix(b"--")?;
    let mut best: Option<(usize, usize)> = None;
    for (owner, part) in open.iter().enumerate().rev() {
        if let Some(boundary) = &part.boundary
            && text.starts_with(boundary)
            && best.is_none_or(|(_, length)| length < boundary.len())
        {
            best = Some((owner, boundary.len()));
        }
    }
    best.map(|(owner, length)| Delimiter { owner, closing: text[length..].starts_with(b"--") })
}
