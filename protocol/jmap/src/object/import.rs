//! Email/import (RFC 8621 §4.8): messages that were uploaded become emails.

use std::collections::BTreeSet;

use crate::Object;
use crate::arguments;
use crate::error::SetError;
use crate::id::{Id, IdOrReference};

/// A message to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The uploaded message.
    pub blob: Id,
    /// The mailboxes it goes to, at least one.
    pub mailboxes: BTreeSet<IdOrReference>,
    /// Its keywords.
    pub keywords: BTreeSet<String>,
    /// When it was received, in seconds since 1970; `None`: now, or what its Received field says.
    pub received_at: Option<i64>,
}

impl Import {
    /// Reads one of `emails`.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let known = ["blobId", "mailboxIds", "keywords", "receivedAt"];
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(SetError::property(name.as_str(), "no such property"));
        }
        let given = |name: &str| object.get(name).filter(|value| !value.is_null());
        let blob = given("blobId").and_then(Id::from_value);
        let blob = blob.ok_or_else(|| SetError::property("blobId", "not an id"))?;
        let mailboxes = given("mailboxIds").and_then(super::email::mailbox_ids).filter(|ids| !ids.is_empty());
        let mailboxes = mailboxes.ok_or_else(|| SetError::property("mailboxIds", "not a set of ids"))?;
        let keywords = match given("keywords") {
            None => BTreeSet::new(),
            Some(value) => super::email::keywords(value)
                .ok_or_else(|| SetError::property("keywords", "not a set of keywords"))?,
        };
        let received_at = match given("receivedAt") {
            None => None,
            Some(value) => Some(
                arguments::utc_date(value)
                    .ok_or_else(|| SetError::property("receivedAt", "not a UTC date"))?,
            ),
        };
        Ok(Self { blob, mailboxes, keywords, received_at })
    }
}
