//! What a client says of a new email, and the rules for it.

use std::collections::{BTreeMap, BTreeSet};

use jmap_protocol::arguments::utc_date;
use jmap_protocol::object::email::{keywords, mailbox_ids};
use jmap_protocol::object::header::HeaderProperty;
use jmap_protocol::{IdOrReference, Object, SetError};
use serde_json::Value;

use super::field;
use super::part::{Content, PartDraft};

/// A new email, as it is to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) mailboxes: BTreeSet<IdOrReference>,
    pub(crate) keywords: BTreeSet<String>,
    pub(crate) received_at: Option<i64>,
    /// Each a name, and a value that is written as it stands.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: PartDraft,
}

impl Draft {
    /// Reads an email of `create`.
    pub(crate) fn parse(wanted: &Object) -> Result<Self, SetError> {
        let mut wanted: BTreeMap<&str, &Value> = wanted
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, it)| (name.as_str(), it))
            .collect();
        let mailboxes = wanted.remove("mailboxIds").and_then(mailbox_ids).filter(|ids| !ids.is_empty());
        let mailboxes =
            mailboxes.ok_or_else(|| SetError::property("mailboxIds", "not a set of one mailbox at least"))?;
        let words = match wanted.remove("keywords") {
            None => BTreeSet::new(),
            Some(value) => {
                keywords(value).ok_or_else(|| SetError::property("keywords", "not a set of keywords"))?
            }
        };
        let received_at = match wanted.remove("receivedAt") {
            None => None,
            Some(value) => {
                Some(utc_date(value).ok_or_else(|| SetError::property("receivedAt", "not a UTC date"))?)
            }
        };
        let values = bodies(wanted.remove("bodyValues"))?;
        let body = body(&mut wanted, &values)?;
        let mut fields = Vec::new();
        for (name, value) in wanted {
            let property = match HeaderProperty::of_convenience(name) {
                Some(property) => property,
                None if name.starts_with("header:") => HeaderProperty::parse(name)
                    .map_err(|error| SetError::property(name, error.to_string()))?,
                None => return Err(SetError::property(name, "cannot be set")),
            };
            let field = property.field.to_ascii_lowercase();
            if field.starts_with("content-") || field == "mime-version" {
                return Err(SetError::property(name, "belongs to a body part, or is the server's to write"));
            }
            field::push(&mut fields, &property, value)
                .map_err(|why| SetError::property(name, why.to_owned()))?;
        }
        check_twice(&fields)?;
        Ok(Self { mailboxes, keywords: words, received_at, fields, body })
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field))
    }
}

/// Fields that a message has once (RFC 5322 §3.6), which two properties may not both give.
fn check_twice(fields: &[(String, String)]) -> Result<(), SetError> {
    const ONCE: [&str; 11] = [
        "date",
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "message-id",
        "in-reply-to",
        "references",
        "subject",
    ];
    let mut seen = BTreeSet::new();
    for (name, _) in fields {
        let name = name.to_ascii_lowercase();
        if ONCE.contains(&name.as_str()) && !seen.insert(name.clone()) {
            return Err(SetError::property(format!("header:{name}"), "given twice"));
        }
    }
    Ok(())
}

/// `bodyValues`: texts by part id.
fn bodies(value: Option<&Value>) -> Result<BTreeMap<String, String>, SetError> {
    let wrong = |why: &str| SetError::property("bodyValues", why.to_owned());
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let object = value.as_object().ok_or_else(|| wrong("not an object"))?;
    let mut values = BTreeMap::new();
    for (id, body) in object {
        let body = body.as_object().ok_or_else(|| wrong("not an object of objects"))?;
        for (name, value) in body {
            match name.as_str() {
                "value" => {}
                // RFC 8621 §4.6: what is written is whole.
                "isEncodingProblem" | "isTruncated" if *value == Value::Bool(false) => {}
                _ => return Err(wrong("has what cannot be written")),
            }
        }
        let text = body.get("value").and_then(Value::as_str).ok_or_else(|| wrong("has no text"))?;
        values.insert(id.clone(), text.to_owned());
    }
    Ok(values)
}

fn body(
    wanted: &mut BTreeMap<&str, &Value>,
    values: &BTreeMap<String, String>,
) -> Result<PartDraft, SetError> {
    let structure = wanted.remove("bodyStructure");
    let [text, html, attachments] =
        ["textBody", "htmlBody", "attachments"].map(|name| (name, wanted.remove(name)));
    if let Some(structure) = structure {
        if text.1.is_some() || html.1.is_some() || attachments.1.is_some() {
            return Err(SetError::property("bodyStructure", "stands alone, without textBody and the like"));
        }
        return PartDraft::parse(structure, values, "bodyStructure");
    }
    let list = |(name, value): (&'static str, Option<&Value>)| -> Result<Vec<PartDraft>, SetError> {
        let Some(value) = value else { return Ok(Vec::new()) };
        let parts = value.as_array().ok_or_else(|| SetError::property(name, "not a list of body parts"))?;
        parts.iter().map(|part| PartDraft::parse(part, values, name)).collect()
    };
    let only = |(name, value): (&'static str, Option<&Value>), media: &str| {
        let mut parts = list((name, value))?;
        let is_one = parts.len() <= 1 && parts.iter().all(|part| part.media == media);
        if value.is_some() && (parts.is_empty() || !is_one) {
            return Err(SetError::property(name, format!("not exactly one part of type {media}")));
        }
        Ok(parts.pop())
    };
    let (text, html) = (only(text, "text/plain")?, only(html, "text/html")?);
    let mut attachments = list(attachments)?;
    // What the HTML shows in its place stands beside it.
    let html = html.map(|html| {
        let (related, others): (Vec<_>, Vec<_>) =
            attachments.drain(..).partition(PartDraft::is_shown_in_html);
        attachments = others;
        if related.is_empty() {
            html
        } else {
            PartDraft::multipart("related", [html].into_iter().chain(related))
        }
    });
    let body = match (text, html) {
        (Some(text), Some(html)) => PartDraft::multipart("alternative", [text, html]),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) if attachments.is_empty() => PartDraft::text(String::new()),
        (None, None) => return Ok(PartDraft::multipart("mixed", attachments)),
    };
    if attachments.is_empty() {
        return Ok(body);
    }
    Ok(PartDraft::multipart("mixed", [body].into_iter().chain(attachments)))
}

impl PartDraft {
    fn is_shown_in_html(&self) -> bool {
        let is_inline = self
            .fields
            .iter()
            .any(|(name, value)| name == "Content-Disposition" && value.trim_start().starts_with("inline"));
        let has_id = self.fields.iter().any(|(name, _)| name == "Content-ID");
        is_inline && has_id && !matches!(self.content, Content::Multipart(_))
    }
}
