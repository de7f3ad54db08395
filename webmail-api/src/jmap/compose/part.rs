//! Body parts of a new email.

use std::collections::BTreeMap;

use jmap_protocol::object::header::HeaderProperty;
use jmap_protocol::{Id, SetError};
use serde_json::Value;

use super::field;

/// Parts within parts.
const DEPTH_MAX: usize = 30;
/// Parts of one level.
const PARTS_MAX: usize = 1000;

/// A part to be written.
#[derive(Debug)]
pub(super) struct PartDraft {
    /// `text/plain`
    pub(super) media: String,
    /// What stands behind the media type: parameters.
    pub(super) parameters: String,
    /// Fields besides Content-Type and Content-Transfer-Encoding.
    pub(super) fields: Vec<(String, String)>,
    pub(super) content: Content,
}

/// What is in a part.
#[derive(Debug)]
pub(super) enum Content {
    /// This text.
    Text(String),
    /// What was uploaded, or is part of another email.
    Blob(Id),
    /// Parts.
    Multipart(Vec<PartDraft>),
}

impl PartDraft {
    pub(super) fn multipart(kind: &str, parts: impl IntoIterator<Item = Self>) -> Self {
        Self {
            media: format!("multipart/{kind}"),
            parameters: String::new(),
            fields: Vec::new(),
            content: Content::Multipart(parts.into_iter().collect()),
        }
    }

    pub(super) fn text(text: String) -> Self {
        Self {
            media: "text/plain".to_owned(),
            parameters: String::new(),
            fields: Vec::new(),
            content: Content::Text(text),
        }
    }

    /// Reads an EmailBodyPart. `within` is the property that it stands in.
    pub(super) fn parse(
        value: &Value,
        values: &BTreeMap<String, String>,
        within: &str,
    ) -> Result<Self, SetError> {
        Self::read(value, values, within, DEPTH_MAX)
    }

    fn read(
        value: &Value,
        values: &BTreeMap<String, String>,
        within: &str,
        depth: usize,
    ) -> Result<Self, SetError> {
        let wrong = |name: &str, why: &str| SetError::property(format!("{within}/{name}"), why.to_owned());
        let object = value.as_object().ok_or_else(|| SetError::property(within, "not a body part"))?;
        let given = |name: &str| object.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match given(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| wrong(name, "not a string")),
        };
        let known = [
            "partId",
            "blobId",
            "size",
            "name",
            "type",
            "charset",
            "disposition",
            "cid",
            "language",
            "location",
            "subParts",
        ];
        let mut fields = Vec::new();
        for (name, value) in object.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            if name == "headers" || !name.starts_with("header:") {
                return Err(wrong(name, "cannot be set"));
            }
            let property = HeaderProperty::parse(name).map_err(|error| wrong(name, &error.to_string()))?;
            let taken = [
                "content-transfer-encoding",
                "content-type",
                "content-disposition",
                "content-id",
                "mime-version",
            ];
            if taken.contains(&property.field.to_ascii_lowercase().as_str()) {
                return Err(wrong(name, "is said by another property, or is the server's to write"));
            }
            field::push(&mut fields, &property, value).map_err(|why| wrong(name, why))?;
        }
        let content = match (text("partId")?, text("blobId")?, given("subParts")) {
            (Some(part), None, None) => {
                if given("charset").is_some() || given("size").is_some() {
                    return Err(wrong("charset", "is the server's to choose, as is size"));
                }
                let text = values.get(part).ok_or_else(|| wrong("partId", "not in bodyValues"))?;
                Content::Text(text.clone())
            }
            (None, Some(blob), None) => {
                Content::Blob(Id::new(blob).ok_or_else(|| wrong("blobId", "not an id"))?)
            }
            (None, None, Some(parts)) => {
                let depth = depth.checked_sub(1).ok_or_else(|| wrong("subParts", "nested too deeply"))?;
                let parts = parts.as_array().filter(|parts| (1..=PARTS_MAX).contains(&parts.len()));
                let parts = parts.ok_or_else(|| wrong("subParts", "not a list of body parts"))?;
                let read = |part| Self::read(part, values, within, depth);
                Content::Multipart(parts.iter().map(read).collect::<Result<_, _>>()?)
            }
            _ => return Err(wrong("partId", "a part has one of partId, blobId and subParts")),
        };
        let default = match &content {
            Content::Text(_) => "text/plain",
            Content::Blob(_) => "application/octet-stream",
            Content::Multipart(_) => "multipart/mixed",
        };
        let media = text("type")?.unwrap_or(default).to_ascii_lowercase();
        let kind =
            media.split_once('/').filter(|(kind, sub)| token(kind) && token(sub)).map(|(kind, _)| kind);
        let fits = match (&content, kind) {
            (_, None) => false,
            (Content::Multipart(_), Some(kind)) => kind == "multipart",
            (Content::Text(_), Some(kind)) => kind == "text",
            (Content::Blob(_), Some(kind)) => kind != "multipart",
        };
        if !fits {
            return Err(wrong("type", "not a media type for such a part"));
        }
        let mut parameters = String::new();
        if let Some(charset) = text("charset")? {
            if !token(charset) {
                return Err(wrong("charset", "not the name of a charset"));
            }
            parameters.push_str(&field::parameter("charset", charset));
        }
        let name = text("name")?;
        if let Some(name) = name {
            parameters.push_str(&field::parameter("name", name));
        }
        if let Some(disposition) = text("disposition")? {
            if !token(disposition) {
                return Err(wrong("disposition", "not a word"));
            }
            let file = name.map(|name| field::parameter("filename", name)).unwrap_or_default();
            fields.push(("Content-Disposition".to_owned(), format!(" {disposition}{file}")));
        }
        if let Some(cid) = text("cid")? {
            let is_clean = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>');
            if cid.is_empty() || cid.len() > 900 || !cid.chars().all(is_clean) {
                return Err(wrong("cid", "not an id"));
            }
            fields.push(("Content-ID".to_owned(), format!(" <{cid}>")));
        }
        if let Some(language) = given("language") {
            let tags = jmap_protocol::arguments::list(language, |tag| {
                tag.as_str().filter(|tag| token(tag)).map(str::to_owned)
            });
            let tags = tags.ok_or_else(|| wrong("language", "not a list of language tags"))?;
            fields.push(("Content-Language".to_owned(), format!(" {}", tags.join(", "))));
        }
        if let Some(location) = text("location")? {
            if location.len() > 900 || !location.chars().all(|c| c.is_ascii_graphic()) {
                return Err(wrong("location", "not a URI"));
            }
            fields.push(("Content-Location".to_owned(), format!(" {location}")));
        }
        Ok(Self { media, parameters, fields, content })
    }
}

/// RFC 2045 §5.1
fn token(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
    (1..=100).contains(&text.len()) && text.chars().all(allowed)
}
