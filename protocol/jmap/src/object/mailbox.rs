//! Mailboxes (RFC 8621 §2).

use serde_json::Value;

use crate::Object;
use crate::error::{MethodError, SetError};
use crate::id::IdOrReference;

/// The properties of a mailbox.
pub const PROPERTIES: [&str; 11] = [
    "id",
    "name",
    "parentId",
    "role",
    "sortOrder",
    "totalEmails",
    "unreadEmails",
    "totalThreads",
    "unreadThreads",
    "myRights",
    "isSubscribed",
];

/// Those that change when mail comes and goes; Mailbox/changes tells when nothing else did (RFC 8621 §2.2).
pub const COUNTS: [&str; 4] = ["totalEmails", "unreadEmails", "totalThreads", "unreadThreads"];

/// What a client says of a mailbox, in a creation or as the result of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its name, one level.
    pub name: Option<String>,
    /// What it lies in; `Some(None)`: at the top.
    pub parent: Option<Option<IdOrReference>>,
    /// Its role; `Some(None)`: none.
    pub role: Option<Option<String>>,
    /// Where it stands among others.
    pub sort_order: Option<u32>,
    /// Whether it is subscribed to.
    pub is_subscribed: Option<bool>,
}

impl Wanted {
    /// Reads what a client may set.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let mut wanted = Self::default();
        for (name, value) in object {
            let wrong = |expected: &str| SetError::property(name.as_str(), format!("not {expected}"));
            match name.as_str() {
                "name" => {
                    wanted.name = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned());
                }
                "parentId" => {
                    wanted.parent = Some(match value {
                        Value::Null => None,
                        value => Some(IdOrReference::from_value(value).ok_or_else(|| wrong("an id"))?),
                    });
                }
                "role" => {
                    wanted.role = Some(match value {
                        Value::Null => None,
                        value => Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned()),
                    });
                }
                "sortOrder" => {
                    let number = crate::arguments::unsigned(value).and_then(|number| {
                        // RFC 8621 §2: below 2^31.
                        u32::try_from(number).ok().filter(|number| *number < 1 << 31)
                    });
                    wanted.sort_order = Some(number.ok_or_else(|| wrong("an unsigned integer below 2^31"))?);
                }
                "isSubscribed" => {
                    wanted.is_subscribed = Some(value.as_bool().ok_or_else(|| wrong("a boolean"))?);
                }
                _ => return Err(SetError::property(name.as_str(), "cannot be set")),
            }
        }
        Ok(wanted)
    }
}

/// One member of a FilterCondition of Mailbox/query (RFC 8621 §2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are RFC 8621's words, one by one")]
pub enum Test {
    ParentId(Option<String>),
    Name(String),
    Role(Option<String>),
    HasAnyRole(bool),
    IsSubscribed(bool),
}

/// Reads a FilterCondition.
pub fn condition(object: &Object) -> Result<Vec<Test>, MethodError> {
    let read = |(name, value): (&String, &Value)| {
        let wrong = |expected: &str| MethodError::argument(&format!("filter/{name}"), expected);
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
        let text_or_null = || if value.is_null() { Ok(None) } else { text().map(Some) };
        let boolean = || value.as_bool().ok_or_else(|| wrong("a boolean"));
        Ok(match name.as_str() {
            "parentId" => Test::ParentId(text_or_null()?),
            "name" => Test::Name(text()?),
            "role" => Test::Role(text_or_null()?),
            "hasAnyRole" => Test::HasAnyRole(boolean()?),
            "isSubscribed" => Test::IsSubscribed(boolean()?),
            _ => return Err(MethodError::UnsupportedFilter(format!("there is no filter by {name:?}"))),
        })
    };
    object.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_be_set() {
        let read = |value: Value| Wanted::parse(value.as_object().unwrap());
        let wanted = read(json!({"name": "a", "parentId": "#k", "role": null, "sortOrder": 3})).unwrap();
        assert_eq!(wanted.parent, Some(IdOrReference::new("#k")));
        assert_eq!(wanted.role, Some(None));
        for bad in [
            json!({"name": 1}),
            json!({"name": null}),
            json!({"parentId": 1}),
            json!({"role": []}),
            json!({"sortOrder": -1}),
            json!({"sortOrder": 1_u64 << 31}),
            json!({"isSubscribed": "yes"}),
            json!({"totalEmails": 1}),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert_eq!(error.properties.len(), 1, "{bad}");
        }
    }
}
