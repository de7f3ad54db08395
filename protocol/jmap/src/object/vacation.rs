//! Vacation responses (RFC 8621 §8).

use serde_json::Value;

use crate::Object;
use crate::arguments;
use crate::error::SetError;

/// The properties of the vacation response.
pub const PROPERTIES: [&str; 7] =
    ["id", "isEnabled", "fromDate", "toDate", "subject", "textBody", "htmlBody"];

/// The id of the only one that an account has.
pub const SINGLETON: &str = "singleton";

/// What a client says of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Whether it answers.
    pub is_enabled: Option<bool>,
    /// From when on, in seconds since 1970.
    pub from_date: Option<Option<i64>>,
    /// Until when.
    pub to_date: Option<Option<i64>>,
    /// Of the answers.
    pub subject: Option<Option<String>>,
    /// As plain text.
    pub text_body: Option<Option<String>>,
    /// As HTML.
    pub html_body: Option<Option<String>>,
}

impl Wanted {
    /// Reads what a client may set.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let mut wanted = Self::default();
        for (name, value) in object {
            let wrong = |expected: &str| SetError::property(name.as_str(), format!("not {expected}"));
            let text = || match value {
                Value::Null => Ok(None),
                value => value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| wrong("a string")),
            };
            let date = || match value {
                Value::Null => Ok(None),
                value => arguments::utc_date(value).map(Some).ok_or_else(|| wrong("a UTC date")),
            };
            match name.as_str() {
                "isEnabled" => {
                    wanted.is_enabled = Some(value.as_bool().ok_or_else(|| wrong("a boolean"))?);
                }
                "fromDate" => wanted.from_date = Some(date()?),
                "toDate" => wanted.to_date = Some(date()?),
                "subject" => wanted.subject = Some(text()?),
                "textBody" => wanted.text_body = Some(text()?),
                "htmlBody" => wanted.html_body = Some(text()?),
                _ => return Err(SetError::property(name.as_str(), "cannot be set")),
            }
        }
        Ok(wanted)
    }
}
