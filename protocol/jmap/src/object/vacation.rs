//! Vacation responses (RFC 8621 §8).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// The vacation response, as it is stored, and as clients see it. Fields are only added, and each that is has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vacation {
    /// Whether it answers.
    pub is_enabled: bool,
    /// From when on, in seconds since 1970.
    pub from_date: Option<i64>,
    /// Until when.
    pub to_date: Option<i64>,
    /// Of the answers; `None`: one that says what is answered.
    pub subject: Option<String>,
    /// As plain text.
    pub text_body: Option<String>,
    /// As HTML.
    pub html_body: Option<String>,
}

impl Vacation {
    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Whether a message that arrives now is answered (RFC 8621 §8 `fromDate`, `toDate`).
    pub fn is_on(&self, now: i64) -> bool {
        self.is_enabled
            && self.from_date.is_none_or(|from| now >= from)
            && self.to_date.is_none_or(|to| now < to)
    }

    /// Takes over what a client says.
    pub fn take(&mut self, wanted: Wanted) {
        let Wanted { is_enabled, from_date, to_date, subject, text_body, html_body } = wanted;
        self.is_enabled = is_enabled.unwrap_or(self.is_enabled);
        self.from_date = from_date.unwrap_or(self.from_date);
        self.to_date = to_date.unwrap_or(self.to_date);
        if let Some(subject) = subject {
            self.subject = subject;
        }
        if let Some(text) = text_body {
            self.text_body = text;
        }
        if let Some(html) = html_body {
            self.html_body = html;
        }
    }

    /// With all properties.
    pub fn to_object(&self) -> Object {
        let at = |date: Option<i64>| date.map(crate::date::utc);
        crate::method::object(json!({
            "id": SINGLETON,
            "isEnabled": self.is_enabled,
            "fromDate": at(self.from_date),
            "toDate": at(self.to_date),
            "subject": self.subject,
            "textBody": self.text_body,
            "htmlBody": self.html_body,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored has to stay readable.
    #[test]
    fn the_stored_form_is_frozen() {
        let stored = br#"{"is_enabled":true,"from_date":5,"subject":"Away"}"#;
        let vacation = Vacation::decode(stored).unwrap();
        let expected = json!({
            "id": "singleton", "isEnabled": true, "fromDate": "1970-01-01T00:00:05Z", "toDate": null,
            "subject": "Away", "textBody": null, "htmlBody": null,
        });
        assert_eq!(Value::Object(vacation.to_object()), expected);
        assert_eq!(Vacation::decode(&vacation.encode()).unwrap(), vacation);
    }

    #[test]
    fn it_answers_within_its_time() {
        let check = |vacation: Vacation, expected: [bool; 4]| {
            assert_eq!([4, 5, 8, 9].map(|now| vacation.is_on(now)), expected, "{vacation:?}");
        };
        let on = Vacation { is_enabled: true, ..Vacation::default() };
        check(Vacation::default(), [false; 4]);
        check(on.clone(), [true; 4]);
        check(Vacation { from_date: Some(5), to_date: Some(9), ..on.clone() }, [false, true, true, false]);
        check(Vacation { from_date: Some(5), is_enabled: false, ..on }, [false; 4]);
    }
}
