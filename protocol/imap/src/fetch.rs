//! What FETCH can be asked for (RFC 9051 §6.4.5), and the sections of `BODY[…]`.

/// An item of a FETCH command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchItem {
    /// UID
    Uid,
    /// FLAGS
    Flags,
    /// INTERNALDATE
    InternalDate,
    /// RFC822.SIZE
    Rfc822Size,
    /// ENVELOPE
    Envelope,
    /// BODY: the structure without extension data.
    Body,
    /// BODYSTRUCTURE
    BodyStructure,
    /// MODSEQ (RFC 7162 §3.1.5)
    ModSeq,
    /// PREVIEW (RFC 8970), with or without LAZY: a preview is made when the message comes and is at hand ever after, so
    /// that nobody has to do without one, and none is ever made for a FETCH.
    Preview,
    /// RFC822 (RFC 3501 §6.4.5): `BODY[]` under its old name.
    Rfc822,
    /// RFC822.HEADER: `BODY.PEEK[HEADER]` under its old name.
    Rfc822Header,
    /// RFC822.TEXT: `BODY[TEXT]` under its old name.
    Rfc822Text,
    /// `BODY[…]` and `BODY.PEEK[…]`
    Section {
        /// What part of the message.
        section: Section,
        /// `<offset.length>`
        partial: Option<Partial>,
        /// PEEK: `\Seen` is not set.
        peek: bool,
    },
}

impl FetchItem {
    /// Whether asking for this sets `\Seen` (RFC 9051 §6.4.5).
    pub fn sets_seen(&self) -> bool {
        match self {
            Self::Rfc822 | Self::Rfc822Text => true,
            Self::Section { peek, .. } => !peek,
            _ => false,
        }
    }
}

/// The octets of a section that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first octet, from 0.
    pub offset: u64,
    /// How many at most; never zero.
    pub length: u64,
}

/// A section specification: what stands between the brackets.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Section {
    /// The part numbers, from the outermost in; empty for the message itself.
    pub part: Vec<u32>,
    /// What of that part.
    pub text: SectionText,
}

/// What of a message or part is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum SectionText {
    /// Nothing named: the whole message, or the part's content.
    #[default]
    Whole,
    /// HEADER
    Header,
    /// HEADER.FIELDS: the names as the client wrote them.
    HeaderFields(Vec<Vec<u8>>),
    /// HEADER.FIELDS.NOT
    HeaderFieldsNot(Vec<Vec<u8>>),
    /// TEXT
    Text,
    /// MIME: the part's own header.
    Mime,
}
