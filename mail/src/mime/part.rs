//! Parts of a message: their byte ranges and what BODYSTRUCTURE tells of them (RFC 9051 §7.5.2).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::header::{HeaderSummary, RawText};

/// A part of a message, or the message itself. All offsets count from the first octet of the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The type as declared; `None` when nothing was, which means `text/plain`.
    pub media: Option<MediaType>,
    /// Parameters of the Content-Type, values as they stood.
    pub parameters: Vec<Parameter>,
    /// Content-Transfer-Encoding; `None` means `7bit`.
    pub encoding: Option<RawText>,
    /// Content-ID.
    pub id: Option<RawText>,
    /// Content-Description.
    pub description: Option<RawText>,
    /// Content-MD5.
    pub md5: Option<RawText>,
    /// Content-Disposition.
    pub disposition: Option<Disposition>,
    /// Content-Language.
    pub language: Vec<RawText>,
    /// Content-Location.
    pub location: Option<RawText>,
    /// The octets of the header, with the empty line that ends it.
    pub header: Range<u64>,
    /// The octets of the body, without the line end that belongs to the following boundary.
    pub body: Range<u64>,
    /// How many line ends the body has.
    pub lines: u64,
    /// What is inside.
    pub kind: Kind,
}

/// What is inside a part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing that has a structure.
    #[default]
    Leaf,
    /// The parts between the boundaries. May be empty, when there is no boundary in the body.
    Multipart(Vec<Part>),
    /// A message of its own, `message/rfc822`.
    Message(Box<EmbeddedMessage>),
}

/// The message in a `message/rfc822` part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddedMessage {
    /// Its header summary.
    pub summary: HeaderSummary,
    /// Its structure; its header begins where the enclosing part's body does.
    pub part: Part,
}

/// A media type as declared, in the case in which it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaType {
    /// `text`
    pub kind: RawText,
    /// `plain`; may be empty when the field was broken.
    pub subtype: RawText,
}

/// A parameter of Content-Type or Content-Disposition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// The name as written.
    pub name: RawText,
    /// The value, unquoted, not decoded.
    pub value: RawText,
}

/// Content-Disposition (RFC 2183).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disposition {
    /// `attachment`, `inline`…
    pub kind: RawText,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// What a part is to a client: its type with the defaults and degradations applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownType<'a> {
    /// `text`
    pub kind: &'a [u8],
    /// `plain`
    pub subtype: &'a [u8],
}

impl Part {
    /// The type to show in BODYSTRUCTURE. Without a Content-Type it is `text/plain` (RFC 2045 §5.2), in a digest
    /// `message/rfc822` (RFC 2046 §5.1.5); what should have a structure and has none, because a limit was reached, is
    /// `application/octet-stream`.
    pub fn shown_type(&self) -> ShownType<'_> {
        let (kind, subtype): (&[u8], &[u8]) = match (&self.kind, &self.media) {
            (Kind::Message(_), media)
                if media.as_ref().is_none_or(|media| !media.is("message", "global")) =>
            {
                (b"message", b"rfc822")
            }
            (Kind::Leaf, Some(media))
                if media.is_message() || media.kind.eq_ignore_ascii_case("multipart") =>
            {
                (b"application", b"octet-stream")
            }
            (_, Some(media)) => (media.kind.as_bytes(), media.subtype.as_bytes()),
            (_, None) => (b"text", b"plain"),
        };
        ShownType { kind, subtype }
    }

    /// Whether this is a text part, of which BODYSTRUCTURE tells the lines.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Leaf)
            && self.media.as_ref().is_none_or(|media| media.kind.eq_ignore_ascii_case("text"))
    }

    /// Whether the content fields say no more than having none would say: 7bit text/plain in US-ASCII.
    pub(crate) fn is_default(&self) -> bool {
        let plain = self.media.as_ref().is_none_or(|media| media.is("text", "plain"));
        let ascii = match &self.parameters[..] {
            [] => true,
            [only] => {
                only.name.eq_ignore_ascii_case("charset") && only.value.eq_ignore_ascii_case("us-ascii")
            }
            _ => false,
        };
        let seven_bit = self.encoding.as_ref().is_none_or(|encoding| encoding.eq_ignore_ascii_case("7bit"));
        let more = self.id.is_some()
            || self.description.is_some()
            || self.md5.is_some()
            || self.disposition.is_some()
            || self.location.is_some()
            || !self.language.is_empty();
        matches!(self.kind, Kind::Leaf) && plain && ascii && seven_bit && !more
    }

    /// Whether something in this message is meant to be saved rather than read (RFC 8621 §4.1.4 leaves the rule to us).
    ///
    /// That is a leaf that is declared an attachment, or has a file name and is not shown in place, or is of a type
    /// that is not text and not what a text embeds: images with a Content-ID, signatures, delivery reports.
    pub fn has_attachment(&self) -> bool {
        match &self.kind {
            Kind::Multipart(parts) => parts.iter().any(Self::has_attachment),
            Kind::Message(_) => !self.is_inline(),
            Kind::Leaf => self.is_attachment(),
        }
    }

    fn is_inline(&self) -> bool {
        self.disposition.as_ref().is_some_and(|disposition| disposition.kind.eq_ignore_ascii_case("inline"))
    }

    fn is_attachment(&self) -> bool {
        if self
            .disposition
            .as_ref()
            .is_some_and(|disposition| disposition.kind.eq_ignore_ascii_case("attachment"))
        {
            return true;
        }
        let shown = self.shown_type();
        if shown.kind.eq_ignore_ascii_case(b"text") {
            let named = self.parameter("name").is_some()
                || self
                    .disposition
                    .as_ref()
                    .is_some_and(|disposition| disposition.parameter("filename").is_some());
            return named && !self.is_inline();
        }
        let signature = ["pgp-signature", "pkcs7-signature", "x-pkcs7-signature", "pgp-encrypted"];
        let is_signature =
            signature.iter().any(|subtype| shown.subtype.eq_ignore_ascii_case(subtype.as_bytes()));
        let is_report = shown.kind.eq_ignore_ascii_case(b"message");
        let is_embedded = self.id.is_some() || self.is_inline();
        !(is_signature || is_report || is_embedded && shown.kind.eq_ignore_ascii_case(b"image"))
    }

    /// The octets of the body.
    pub fn body_len(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The value of a Content-Type parameter.
    pub fn parameter(&self, name: &str) -> Option<&RawText> {
        find_parameter(&self.parameters, name)
    }
}

impl Disposition {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&RawText> {
        find_parameter(&self.parameters, name)
    }
}

impl MediaType {
    /// Whether this is `kind/subtype`, in any case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether a message stands in the body: `message/rfc822`, or `message/global` (RFC 6532 §3.7).
    pub fn is_message(&self) -> bool {
        self.is("message", "rfc822") || self.is("message", "global")
    }
}

fn find_parameter<'a>(parameters: &'a [Parameter], name: &str) -> Option<&'a RawText> {
    parameters
        .iter()
        .find(|parameter| parameter.name.eq_ignore_ascii_case(name))
        .map(|parameter| &parameter.value)
}
