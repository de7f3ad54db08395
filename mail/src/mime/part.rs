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
