//! Text of attachments that have to be taken apart: office documents and PDF.
//!
//! Taking apart what strangers send is done in a process of its own, which has neither files nor time nor memory to
//! spare: see [`Extractor`] for this side and [`serve`] for the other.

mod child;
mod office;
mod pdf;
mod process;

use mail::mime::Part;

pub use child::serve;
pub use process::{ExtractError, Extractor};

/// Formats that text is taken from. Text parts are read where they stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Word documents.
    Docx,
    /// Excel workbooks.
    Xlsx,
    /// PowerPoint presentations.
    Pptx,
    /// `OpenDocument`: texts, tables and presentations.
    Odf,
    /// PDF.
    Pdf,
}

/// Names by which the two processes call the formats, and file names end in.
const NAMES: [(&str, Format); 7] = [
    ("docx", Format::Docx),
    ("xlsx", Format::Xlsx),
    ("pptx", Format::Pptx),
    ("odt", Format::Odf),
    ("ods", Format::Odf),
    ("odp", Format::Odf),
    ("pdf", Format::Pdf),
];

impl Format {
    /// The format of a part, by its type, or by its name where the type says nothing.
    pub fn of(part: &Part, file_name: Option<&str>) -> Option<Self> {
        let shown = part.shown_type();
        let is_application = shown.kind.eq_ignore_ascii_case(b"application");
        let subtype = shown.subtype.to_ascii_lowercase();
        let ends = |end: &str| is_application && subtype.ends_with(end.as_bytes());
        if ends("wordprocessingml.document") {
            Some(Self::Docx)
        } else if ends("spreadsheetml.sheet") {
            Some(Self::Xlsx)
        } else if ends("presentationml.presentation") {
            Some(Self::Pptx)
        } else if is_application && subtype.starts_with(b"vnd.oasis.opendocument.") {
            Some(Self::Odf)
        } else if is_application && subtype == b"pdf" {
            Some(Self::Pdf)
        } else if is_application {
            Self::named(&file_name?.rsplit_once('.')?.1.to_ascii_lowercase())
        } else {
            None
        }
    }

    fn named(name: &str) -> Option<Self> {
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    fn name(self) -> &'static str {
        NAMES.into_iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}
