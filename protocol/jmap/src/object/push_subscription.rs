//! Push subscriptions (RFC 8620 §7.2).

use serde_json::Value;

use crate::Object;
use crate::arguments::{list, utc_date};
use crate::error::SetError;

/// The properties that are told of a push subscription.
pub const PROPERTIES: [&str; 5] = ["id", "deviceClientId", "verificationCode", "expires", "types"];
/// Those that are never told (RFC 8620 §7.2.1).
pub const UNTOLD: [&str; 2] = ["url", "keys"];

/// Octets of what a client calls itself and its device.
const DEVICE_BYTES_MAX: usize = 255;
/// Octets of a code; ours have fewer.
const CODE_BYTES_MAX: usize = 255;
/// Types that a client may name. There are fewer, and a client may know of some that are not here.
const TYPES_MAX: usize = 64;
/// Octets of the name of a type.
const TYPE_BYTES_MAX: usize = 64;

/// What a client says of a subscription, in a creation or as the result of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What it calls itself and the device it runs on.
    pub device: Option<String>,
    /// Where to push to.
    pub url: Option<String>,
    /// What to encrypt for, in Base64: `p256dh` and `auth`. `Some(None)`: nothing.
    pub keys: Option<Option<(String, String)>>,
    /// The code it was told.
    pub code: Option<Option<String>>,
    /// Until when, in seconds since 1970. `Some(None)`: as long as may be.
    pub expires: Option<Option<i64>>,
    /// Changes of what. `Some(None)`: of everything.
    pub types: Option<Option<Vec<String>>>,
}

impl Wanted {
    /// Reads what a client may set.
    pub fn parse(object: &Object) -> Result<Self, SetError> {
        let mut wanted = Self::default();
        for (name, value) in object {
            let wrong = |expected: &str| SetError::property(name.as_str(), format!("not {expected}"));
            let is_null = value.is_null();
            match name.as_str() {
                "deviceClientId" => {
                    let device = short(value, DEVICE_BYTES_MAX).filter(|device| !device.is_empty());
                    wanted.device = Some(device.ok_or_else(|| wrong("a short string"))?);
                }
                "url" => wanted.url = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned()),
                "keys" if is_null => wanted.keys = Some(None),
                "keys" => {
                    let key = |name: &str| value.get(name)?.as_str().map(str::to_owned);
                    let both = key("p256dh").zip(key("auth"));
                    wanted.keys = Some(Some(both.ok_or_else(|| wrong("an object with p256dh and auth"))?));
                }
                "verificationCode" if is_null => wanted.code = Some(None),
                "verificationCode" => {
                    let code = short(value, CODE_BYTES_MAX);
                    wanted.code = Some(Some(code.ok_or_else(|| wrong("a short string"))?));
                }
                "expires" if is_null => wanted.expires = Some(None),
                "expires" => {
                    wanted.expires = Some(Some(utc_date(value).ok_or_else(|| wrong("a UTCDate"))?));
                }
                "types" if is_null => wanted.types = Some(None),
                "types" => {
                    let types = list(value, |name| short(name, TYPE_BYTES_MAX));
                    let types = types.filter(|types| types.len() <= TYPES_MAX);
                    wanted.types = Some(Some(types.ok_or_else(|| wrong("a short list of types"))?));
                }
                _ => return Err(SetError::property(name.as_str(), "cannot be set")),
            }
        }
        Ok(wanted)
    }
}

fn short(value: &Value, bytes_max: usize) -> Option<String> {
    value.as_str().filter(|text| text.len() <= bytes_max).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_may_be_set() {
        let read = |value: Value| Wanted::parse(value.as_object().unwrap());
        // RFC 8620 §7.2.3
        let wanted = read(json!({
            "deviceClientId": "a889-ffea-910",
            "url": "https://example.com/push/?device=X8980fc&client=12c6d086",
            "keys": {"p256dh": "BC", "auth": "DE"},
            "expires": "2018-07-31T00:13:21Z",
            "types": null,
        }))
        .unwrap();
        assert_eq!(wanted.device.as_deref(), Some("a889-ffea-910"));
        assert_eq!(wanted.keys, Some(Some(("BC".to_owned(), "DE".to_owned()))));
        assert_eq!((wanted.expires, wanted.types), (Some(Some(1_532_996_001)), Some(None)));
        assert_eq!(wanted.code, None);
        for bad in [
            json!({"deviceClientId": ""}),
            json!({"deviceClientId": null}),
            json!({"deviceClientId": "x".repeat(256)}),
            json!({"url": null}),
            json!({"keys": {"p256dh": "BC"}}),
            json!({"keys": "BC"}),
            json!({"expires": "tomorrow"}),
            json!({"expires": 1_532_996_001}),
            json!({"types": "Email"}),
            json!({"types": [1]}),
            json!({"types": vec!["Email"; 65]}),
            json!({"verificationCode": 1}),
            json!({"id": "P1"}),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert_eq!(error.properties.len(), 1, "{bad}");
        }
    }
}
