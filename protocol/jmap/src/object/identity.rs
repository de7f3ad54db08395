//! Identities (RFC 8621 §6).

use serde_json::Value;

use crate::Object;
use crate::error::SetError;

/// The properties of an identity.
pub const PROPERTIES: [&str; 8] =
    ["id", "name", "email", "replyTo", "bcc", "textSignature", "htmlSignature", "mayDelete"];

/// An address with a name (RFC 8621 §4.1.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailAddress {
    /// The name.
    pub name: Option<String>,
    /// The address.
    pub email: String,
}

/// What a client says of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The name that mail is sent under.
    pub name: Option<String>,
    /// The address; it cannot be changed.
    pub email: Option<String>,
    /// Where answers go.
    pub reply_to: Option<Option<Vec<EmailAddress>>>,
    /// Who gets a copy.
    pub bcc: Option<Option<Vec<EmailAddress>>>,
    /// What stands below plain text.
    pub text_signature: Option<String>,
    /// What stands below HTML.
    pub html_signature: Option<String>,
}

impl Wanted {
    /// Reads what a client may set.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let mut wanted = Self::default();
        for (name, value) in object {
            let wrong = |expected: &str| SetError::property(name.as_str(), format!("not {expected}"));
            let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
            let list = || match value {
                Value::Null => Ok(None),
                value => addresses(value).map(Some).ok_or_else(|| wrong("a list of addresses")),
            };
            match name.as_str() {
                "name" => wanted.name = Some(text()?),
                "email" => wanted.email = Some(text()?),
                "replyTo" => wanted.reply_to = Some(list()?),
                "bcc" => wanted.bcc = Some(list()?),
                "textSignature" => wanted.text_signature = Some(text()?),
                "htmlSignature" => wanted.html_signature = Some(text()?),
                _ => return Err(SetError::property(name.as_str(), "cannot be set")),
            }
        }
        Ok(wanted)
    }
}

/// `EmailAddress[]`
pub fn addresses(value: &Value) -> Option<Vec<EmailAddress>> {
    crate::arguments::list(value, |value| {
        let object = value.as_object()?;
        let known = object.keys().all(|name| matches!(name.as_str(), "name" | "email"));
        let name = match object.get("name") {
            None | Some(Value::Null) => None,
            Some(name) => Some(name.as_str()?.to_owned()),
        };
        let email = object.get("email")?.as_str()?.to_owned();
        known.then_some(EmailAddress { name, email })
    })
}
