//! Body parts (RFC 8621 §4.1.4).

use super::header::HeaderProperty;
use crate::error::MethodError;

/// A property of a body part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Property {
    PartId,
    BlobId,
    Size,
    Headers,
    Name,
    Type,
    Charset,
    Disposition,
    Cid,
    Language,
    Location,
    SubParts,
    Header(HeaderProperty),
}

impl Property {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self, MethodError> {
        let unknown = |why: &dyn std::fmt::Display| {
            Err(MethodError::InvalidArguments(format!("bodyProperties: {name:?}: {why}")))
        };
        Ok(match name {
            "partId" => Self::PartId,
            "blobId" => Self::BlobId,
            "size" => Self::Size,
            "headers" => Self::Headers,
            "name" => Self::Name,
            "type" => Self::Type,
            "charset" => Self::Charset,
            "disposition" => Self::Disposition,
            "cid" => Self::Cid,
            "language" => Self::Language,
            "location" => Self::Location,
            "subParts" => Self::SubParts,
            _ if name.starts_with("header:") => match HeaderProperty::parse(name) {
                Ok(property) => Self::Header(property),
                Err(error) => return unknown(&error),
            },
            _ => return unknown(&"no such property"),
        })
    }

    /// What is told when nothing is asked for (RFC 8621 §4.2).
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::PartId,
            Self::BlobId,
            Self::Size,
            Self::Name,
            Self::Type,
            Self::Charset,
            Self::Disposition,
            Self::Cid,
            Self::Language,
            Self::Location,
        ]
    }
}
