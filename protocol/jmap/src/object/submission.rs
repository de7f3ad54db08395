//! Submissions (RFC 8621 §7).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Object;
use crate::arguments;
use crate::date;
use crate::error::{MethodError, SetError, SetErrorKind};
use crate::filter::Comparator;
use crate::id::IdOrReference;
use crate::object::filter::check_collation;

/// The properties of a submission.
pub const PROPERTIES: [&str; 10] = [
    "id",
    "identityId",
    "emailId",
    "threadId",
    "envelope",
    "sendAt",
    "undoStatus",
    "deliveryStatus",
    "dsnBlobIds",
    "mdnBlobIds",
];

/// Parameters of one address; each with a value, or without one.
pub type Parameters = BTreeMap<String, Option<String>>;

/// An address of an envelope, with the parameters of its command (RFC 8621 §7 `Address`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeAddress {
    /// As in RCPT or MAIL; empty for the null reverse-path.
    pub email: String,
    /// Parameters, decoded from xtext.
    pub parameters: Option<Parameters>,
}

/// An envelope as a client writes it (RFC 8621 §7 `Envelope`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who sends.
    pub mail_from: EnvelopeAddress,
    /// Who receives.
    pub rcpt_to: Vec<EnvelopeAddress>,
}

impl EnvelopeAddress {
    fn parse(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        if object.keys().any(|name| !matches!(name.as_str(), "email" | "parameters")) {
            return None;
        }
        let parameter = |(name, value): (&String, &Value)| match value {
            Value::Null => Some((name.clone(), None)),
            value => Some((name.clone(), Some(value.as_str()?.to_owned()))),
        };
        let parameters = match object.get("parameters") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_object()?.iter().map(parameter).collect::<Option<_>>()?),
        };
        Some(Self { email: object.get("email")?.as_str()?.to_owned(), parameters })
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        json!({"email": self.email, "parameters": self.parameters})
    }
}

impl Envelope {
    fn parse(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        if object.keys().any(|name| !matches!(name.as_str(), "mailFrom" | "rcptTo")) {
            return None;
        }
        Some(Self {
            mail_from: EnvelopeAddress::parse(object.get("mailFrom")?)?,
            rcpt_to: arguments::list(object.get("rcptTo")?, EnvelopeAddress::parse)?,
        })
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        let recipients: Vec<Value> = self.rcpt_to.iter().map(EnvelopeAddress::to_value).collect();
        json!({"mailFrom": self.mail_from.to_value(), "rcptTo": recipients})
    }
}

/// A submission to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Under which identity.
    pub identity: IdOrReference,
    /// What is sent.
    pub email: IdOrReference,
    /// To whom; `None`: whom the message names.
    pub envelope: Option<Envelope>,
}

impl New {
    /// Reads one of `create`.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let known = ["identityId", "emailId", "envelope"];
        if let Some(name) = object.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(SetError::property(name.as_str(), "cannot be set"));
        }
        let id = |name: &str| {
            let id = object.get(name).and_then(IdOrReference::from_value);
            id.ok_or_else(|| SetError::property(name, "not an id"))
        };
        let envelope = match object.get("envelope") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let envelope = Envelope::parse(value);
                Some(envelope.ok_or_else(|| SetError::property("envelope", "not an envelope"))?)
            }
        };
        Ok(Self { identity: id("identityId")?, email: id("emailId")?, envelope })
    }
}

/// Whether an update takes a submission back; that is all that can be changed (RFC 8621 §7.5). `shown` is the submission as
/// it is.
pub fn is_cancellation(shown: &Object, patch: &Object) -> Result<bool, SetError> {
    let mut cancels = false;
    for (path, value) in patch {
        if path.contains('/') {
            return Err(SetError::new(SetErrorKind::InvalidPatch, format!("{path}: cannot be changed")));
        }
        match shown.get(path) {
            // RFC 8620 §5.3: what cannot be changed may be given as it is.
            Some(known) if known == value => {}
            Some(_) if path == "undoStatus" && value.as_str() == Some("canceled") => cancels = true,
            _ => return Err(SetError::property(path.as_str(), "cannot be changed")),
        }
    }
    Ok(cancels)
}

/// One member of a FilterCondition of EmailSubmission/query (RFC 8621 §7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Test {
    IdentityIds(BTreeSet<String>),
    EmailIds(BTreeSet<String>),
    ThreadIds(BTreeSet<String>),
    UndoStatus(String),
    /// In seconds since 1970.
    Before(i64),
    After(i64),
}

/// Reads a FilterCondition.
pub fn condition(object: &Object) -> Result<Vec<Test>, MethodError> {
    let read = |(name, value): (&String, &Value)| {
        let wrong = |expected: &str| MethodError::argument(&format!("filter/{name}"), expected);
        let ids = || {
            let ids = arguments::list(value, |id| crate::Id::from_value(id).map(|id| id.to_string()));
            ids.map(|ids| ids.into_iter().collect()).ok_or_else(|| wrong("a list of ids"))
        };
        let moment = || {
            let moment = value.as_str().and_then(date::parse_utc);
            moment.ok_or_else(|| wrong("a UTC date"))
        };
        Ok(match name.as_str() {
            "identityIds" => Test::IdentityIds(ids()?),
            "emailIds" => Test::EmailIds(ids()?),
            "threadIds" => Test::ThreadIds(ids()?),
            "undoStatus" => {
                let status = value.as_str().filter(|it| matches!(*it, "pending" | "final" | "canceled"));
                Test::UndoStatus(status.ok_or_else(|| wrong("an undo status"))?.to_owned())
            }
            "before" => Test::Before(moment()?),
            "after" => Test::After(moment()?),
            _ => return Err(MethodError::UnsupportedFilter(format!("there is no filter by {name:?}"))),
        })
    };
    object.iter().map(read).collect()
}

/// What submissions are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum SortKey {
    EmailId,
    ThreadId,
    SentAt,
}

/// Reads a sort: keys, with whether each goes up.
pub fn sort(comparators: &[Comparator]) -> Result<Vec<(SortKey, bool)>, MethodError> {
    let key = |comparator: &Comparator| {
        check_collation(comparator)?;
        let key = match comparator.property.as_str() {
            "emailId" => SortKey::EmailId,
            "threadId" => SortKey::ThreadId,
            // RFC 8621 §7.3 says `sentAt`; the property is `sendAt`, and clients ask for either.
            "sentAt" | "sendAt" => SortKey::SentAt,
            other => return Err(MethodError::UnsupportedSort(format!("there is no sort by {other:?}"))),
        };
        Ok((key, comparator.is_ascending))
    };
    comparators.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().cloned().unwrap()
    }

    /// RFC 8621 §7.5.1
    #[test]
    fn the_example_of_the_rfc() {
        let new = New::parse(&object(json!({
            "identityId": "I64588216",
            "emailId": "M7f6ed5bcfd7e2604d1753f6c",
            "envelope": {
                "mailFrom": {"email": "john@example.com", "parameters": null},
                "rcptTo": [{"email": "jane@example.com", "parameters": null}],
            },
        })))
        .unwrap();
        assert_eq!(new.envelope.as_ref().unwrap().rcpt_to[0].email, "jane@example.com");
        let shown = new.envelope.unwrap().to_value();
        assert_eq!(shown["mailFrom"], json!({"email": "john@example.com", "parameters": null}));
    }

    #[test]
    fn refuses_what_is_not_a_submission() {
        let check = |value: Value, property: &str| {
            let error = New::parse(&object(value.clone())).unwrap_err();
            assert_eq!(
                (error.kind, &error.properties[..]),
                (SetErrorKind::InvalidProperties, &[property.to_owned()][..]),
                "{value}"
            );
        };
        check(json!({"emailId": "M1"}), "identityId");
        check(json!({"identityId": "I", "emailId": null}), "emailId");
        check(json!({"identityId": "I", "emailId": "M1", "sendAt": "2026-01-01T00:00:00Z"}), "sendAt");
        check(json!({"identityId": "I", "emailId": "M1", "undoStatus": "canceled"}), "undoStatus");
        for envelope in [
            json!([]),
            json!({"mailFrom": {"email": "a@b.test"}}),
            json!({"mailFrom": "a@b.test", "rcptTo": []}),
            json!({"mailFrom": {"email": "a@b.test", "parameters": {"RET": 1}}, "rcptTo": []}),
            json!({"mailFrom": {"email": "a@b.test"}, "rcptTo": [{"name": "x"}]}),
        ] {
            check(json!({"identityId": "I", "emailId": "M1", "envelope": envelope}), "envelope");
        }
    }

    #[test]
    fn updates_cancel_or_change_nothing() {
        let shown = object(json!({"undoStatus": "pending", "emailId": "E1"}));
        let check = |patch: Value| is_cancellation(&shown, &object(patch)).map_err(|error| error.kind);
        assert_eq!(check(json!({"undoStatus": "canceled", "emailId": "E1"})), Ok(true));
        assert_eq!(check(json!({"undoStatus": "pending"})), Ok(false));
        assert_eq!(check(json!({"undoStatus": "final"})), Err(SetErrorKind::InvalidProperties));
        assert_eq!(check(json!({"emailId": "E2"})), Err(SetErrorKind::InvalidProperties));
        assert_eq!(check(json!({"none": 1})), Err(SetErrorKind::InvalidProperties));
        assert_eq!(check(json!({"envelope/rcptTo": []})), Err(SetErrorKind::InvalidPatch));
    }

    #[test]
    fn filters_rfc8621_7_3() {
        let read = |value: Value| condition(&object(value)).map_err(|error| error.name());
        assert_eq!(read(json!({"undoStatus": "final"})), Ok(vec![Test::UndoStatus("final".to_owned())]));
        assert_eq!(read(json!({"before": "1970-01-01T00:00:09Z"})), Ok(vec![Test::Before(9)]));
        assert_eq!(read(json!({"emailIds": ["E1"]})), Ok(vec![Test::EmailIds(["E1".to_owned()].into())]));
        for bad in [
            json!({"undoStatus": "maybe"}),
            json!({"emailIds": "E1"}),
            json!({"after": 5}),
            json!({"identityIds": [5]}),
        ] {
            assert_eq!(read(bad), Err("invalidArguments"));
        }
        assert_eq!(read(json!({"subject": "x"})), Err("unsupportedFilter"));
    }
}
