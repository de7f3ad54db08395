//! Emails (RFC 8621 §4): their properties, and what Email/get, /import and /parse take besides.

use std::collections::BTreeSet;

use serde_json::Value;

use super::header::HeaderProperty;
use crate::arguments::{self, Arguments};
use crate::error::MethodError;
use crate::id::{Id, IdOrReference};

/// A property of an email.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Property {
    Id,
    BlobId,
    ThreadId,
    MailboxIds,
    Keywords,
    Size,
    ReceivedAt,
    Headers,
    BodyStructure,
    BodyValues,
    TextBody,
    HtmlBody,
    Attachments,
    HasAttachment,
    Preview,
    /// One of the names for often wanted fields, `subject`, with what it stands for.
    Convenience(&'static str, HeaderProperty),
    Header(HeaderProperty),
}

const CONVENIENCE: [&str; 11] = [
    "messageId",
    "inReplyTo",
    "references",
    "sender",
    "from",
    "to",
    "cc",
    "bcc",
    "replyTo",
    "subject",
    "sentAt",
];

/// What Email/get tells when nothing is asked for (RFC 8621 §4.2).
pub const DEFAULT_PROPERTIES: [&str; 24] = [
    "id",
    "blobId",
    "threadId",
    "mailboxIds",
    "keywords",
    "size",
    "receivedAt",
    "messageId",
    "inReplyTo",
    "references",
    "sender",
    "from",
    "to",
    "cc",
    "bcc",
    "replyTo",
    "subject",
    "sentAt",
    "hasAttachment",
    "preview",
    "bodyValues",
    "textBody",
    "htmlBody",
    "attachments",
];

/// What Email/parse tells when nothing is asked for (RFC 8621 §4.9).
pub const DEFAULT_PARSE_PROPERTIES: [&str; 17] = [
    "messageId",
    "inReplyTo",
    "references",
    "sender",
    "from",
    "to",
    "cc",
    "bcc",
    "replyTo",
    "subject",
    "sentAt",
    "hasAttachment",
    "preview",
    "bodyValues",
    "textBody",
    "htmlBody",
    "attachments",
];

impl Property {
    /// Reads a name.
    pub fn parse(name: &str) -> Result<Self, MethodError> {
        let unknown = |why: &dyn std::fmt::Display| {
            Err(MethodError::InvalidArguments(format!("properties: {name:?}: {why}")))
        };
        Ok(match name {
            "id" => Self::Id,
            "blobId" => Self::BlobId,
            "threadId" => Self::ThreadId,
            "mailboxIds" => Self::MailboxIds,
            "keywords" => Self::Keywords,
            "size" => Self::Size,
            "receivedAt" => Self::ReceivedAt,
            "headers" => Self::Headers,
            "bodyStructure" => Self::BodyStructure,
            "bodyValues" => Self::BodyValues,
            "textBody" => Self::TextBody,
            "htmlBody" => Self::HtmlBody,
            "attachments" => Self::Attachments,
            "hasAttachment" => Self::HasAttachment,
            "preview" => Self::Preview,
            _ if name.starts_with("header:") => match HeaderProperty::parse(name) {
                Ok(property) => Self::Header(property),
                Err(error) => return unknown(&error),
            },
            _ => {
                let known = CONVENIENCE.into_iter().find(|known| *known == name);
                let known = known.and_then(|known| Some((known, HeaderProperty::of_convenience(known)?)));
                match known {
                    Some((name, field)) => Self::Convenience(name, field),
                    None => return unknown(&"no such property"),
                }
            }
        })
    }

    /// Its name in the answer.
    pub fn name(&self) -> String {
        match self {
            Self::Id => "id".to_owned(),
            Self::BlobId => "blobId".to_owned(),
            Self::ThreadId => "threadId".to_owned(),
            Self::MailboxIds => "mailboxIds".to_owned(),
            Self::Keywords => "keywords".to_owned(),
            Self::Size => "size".to_owned(),
            Self::ReceivedAt => "receivedAt".to_owned(),
            Self::Headers => "headers".to_owned(),
            Self::BodyStructure => "bodyStructure".to_owned(),
            Self::BodyValues => "bodyValues".to_owned(),
            Self::TextBody => "textBody".to_owned(),
            Self::HtmlBody => "htmlBody".to_owned(),
            Self::Attachments => "attachments".to_owned(),
            Self::HasAttachment => "hasAttachment".to_owned(),
            Self::Preview => "preview".to_owned(),
            Self::Convenience(name, _) => (*name).to_owned(),
            Self::Header(property) => property.to_string(),
        }
    }

    /// The field that it tells.
    pub fn header(&self) -> Option<&HeaderProperty> {
        match self {
            Self::Convenience(_, property) | Self::Header(property) => Some(property),
            _ => None,
        }
    }

    /// Whether it can be told of an email that only exists as a blob (RFC 8621 §4.9: the metadata is null).
    pub fn is_metadata(&self) -> bool {
        matches!(self, Self::Id | Self::MailboxIds | Self::Keywords | Self::ReceivedAt | Self::ThreadId)
    }
}

/// What of bodies Email/get and Email/parse tell (RFC 8621 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyOptions {
    /// Properties of each body part.
    pub body_properties: Vec<super::part::Property>,
    /// Values of the parts in `textBody`.
    pub fetch_text: bool,
    /// Values of the parts in `htmlBody`.
    pub fetch_html: bool,
    /// Values of all text parts.
    pub fetch_all: bool,
    /// Octets of one value at most; zero: as many as there are.
    pub max_value_bytes: u64,
}

impl BodyOptions {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments) -> Result<Self, MethodError> {
        let names = arguments.strings("bodyProperties")?;
        let body_properties = match names {
            Some(names) => {
                names.iter().map(|name| super::part::Property::parse(name)).collect::<Result<_, _>>()?
            }
            None => super::part::Property::defaults(),
        };
        Ok(Self {
            body_properties,
            fetch_text: arguments.boolean("fetchTextBodyValues", false)?,
            fetch_html: arguments.boolean("fetchHTMLBodyValues", false)?,
            fetch_all: arguments.boolean("fetchAllBodyValues", false)?,
            max_value_bytes: arguments.defaulted(
                "maxBodyValueBytes",
                "an unsigned integer",
                0,
                arguments::unsigned,
            )?,
        })
    }
}

/// The metadata of an email: what an update may say of it, if only that it stays.
pub fn settable() -> Vec<Property> {
    use Property::{BlobId, Id, Keywords, MailboxIds, ReceivedAt, Size, ThreadId};
    vec![Id, BlobId, ThreadId, MailboxIds, Keywords, Size, ReceivedAt]
}

/// Reads properties; `defaults` where there are none.
pub fn properties(names: Option<&[String]>, defaults: &[&str]) -> Result<Vec<Property>, MethodError> {
    match names {
        Some(names) => {
            let mut seen = BTreeSet::new();
            names.iter().filter(|name| seen.insert(name.as_str())).map(|name| Property::parse(name)).collect()
        }
        None => defaults.iter().map(|name| Property::parse(name)).collect(),
    }
}

/// A keyword (RFC 8621 §4.1.1), in lower case: 1 to 255 characters of printable ASCII but `( ) { ] % * " \`.
pub fn keyword(text: &str) -> Option<String> {
    let allowed = |byte: u8| (0x21..=0x7e).contains(&byte) && !b"(){]%*\"\\".contains(&byte);
    let is_keyword = (1..=255).contains(&text.len()) && text.bytes().all(allowed);
    is_keyword.then(|| text.to_ascii_lowercase())
}

/// `mailboxIds` as a client gives it.
pub fn mailbox_ids(value: &Value) -> Option<BTreeSet<IdOrReference>> {
    arguments::set(value, IdOrReference::new)
}

/// `keywords` as a client gives it.
pub fn keywords(value: &Value) -> Option<BTreeSet<String>> {
    arguments::set(value, keyword)
}

/// `Email/parse` (RFC 8621 §4.9).
#[derive(Clone, Debug)]
pub struct Parse {
    /// The blobs.
    pub blob_ids: Vec<Id>,
    /// What to tell of each.
    pub properties: Vec<Property>,
    /// And of bodies.
    pub body: BodyOptions,
}

impl Parse {
    /// Takes its arguments out of those of a call.
    pub fn take(arguments: &mut Arguments, objects_max: usize) -> Result<Self, MethodError> {
        let blob_ids =
            arguments.required("blobIds", "a list of ids", |value| arguments::list(value, Id::from_value))?;
        if blob_ids.len() > objects_max {
            return Err(MethodError::RequestTooLarge(format!("more than {objects_max} blobs")));
        }
        let names = arguments.strings("properties")?;
        let properties = properties(names.as_deref(), &DEFAULT_PARSE_PROPERTIES)?;
        Ok(Self { blob_ids, properties, body: BodyOptions::take(arguments)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_properties_keep_their_names() {
        for name in
            DEFAULT_PROPERTIES.into_iter().chain(["headers", "bodyStructure", "header:X-A:asText:all"])
        {
            assert_eq!(Property::parse(name).unwrap().name(), name);
        }
        for name in ["", "foo", "header:", "Subject", "header:Subject:asDate"] {
            assert_eq!(Property::parse(name).unwrap_err().name(), "invalidArguments", "{name}");
        }
    }

    #[test]
    fn keywords_rfc8621_4_1_1() {
        assert_eq!(keyword("$Seen").as_deref(), Some("$seen"));
        for bad in ["", "a b", "(", "a*", "a\"", "ä", &"k".repeat(256)] {
            assert_eq!(keyword(bad), None, "{bad}");
        }
        assert_eq!(keywords(&json!({"$Seen": true})).unwrap().len(), 1);
        assert!(keywords(&json!({"$seen": false})).is_none());
        assert!(keywords(&json!(["$seen"])).is_none());
    }
}
