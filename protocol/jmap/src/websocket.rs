//! What is said over a WebSocket (RFC 8887 §4.3): requests with a name of their own, and push switched on and off.

use serde_json::{Value, json};

use crate::Object;
use crate::error::RequestError;
use crate::request::{Limits, Request, not_request, read_object};

/// Octets of the `id` that a client gives a request. It comes back with the answer, and is kept until then.
const ID_BYTES_MAX: usize = 255;
/// Types that a client may ask push for. There are fewer, and a client may know of some that are not here.
const TYPES_MAX: usize = 64;

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A request of methods (RFC 8887 §4.3.2).
    Request {
        /// What the client calls it.
        id: Option<String>,
        /// The request.
        request: Request,
    },
    /// Push is wanted (RFC 8887 §4.3.5.2).
    PushEnable {
        /// Of these types. `None`: of all.
        types: Option<Vec<String>>,
        /// What the client was told last.
        push_state: Option<String>,
    },
    /// Push is not wanted any more (RFC 8887 §4.3.5.3).
    PushDisable,
}

/// Why a message was refused, and the `id` it had, as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    pub error: RequestError,
    /// What the client calls it.
    pub request_id: Option<String>,
}

impl Message {
    /// Reads a message. `is_known` says which capabilities there are.
    pub fn parse(bytes: &[u8], limits: Limits, is_known: impl Fn(&str) -> bool) -> Result<Self, Refused> {
        let nameless = |error| Refused { error, request_id: None };
        let mut object = read_object(bytes, limits).map_err(nameless)?;
        let id = match object.remove("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) if id.len() <= ID_BYTES_MAX => Some(id),
            Some(_) => return not_request("id: not a short string").map_err(nameless),
        };
        let refused = |error| Refused { error, request_id: id.clone() };
        let kind = object.remove("@type");
        match kind.as_ref().and_then(Value::as_str) {
            Some("Request") => {
                let request = Request::from_object(object, limits, is_known).map_err(refused)?;
                Ok(Self::Request { id, request })
            }
            Some("WebSocketPushEnable") => push_enable(object).map_err(refused),
            Some("WebSocketPushDisable") => Ok(Self::PushDisable),
            _ => not_request("@type: not one of a client").map_err(refused),
        }
    }
}

fn push_enable(mut object: Object) -> Result<Message, RequestError> {
    let types = match object.remove("dataTypes") {
        None | Some(Value::Null) => None,
        Some(Value::Array(types)) if types.len() <= TYPES_MAX => {
            let types = types.into_iter().map(|name| match name {
                Value::String(name) => Ok(name),
                _ => not_request("dataTypes: not a list of strings"),
            });
            Some(types.collect::<Result<_, _>>()?)
        }
        Some(_) => return not_request("dataTypes: not a short list of strings"),
    };
    let push_state = match object.remove("pushState") {
        None | Some(Value::Null) => None,
        Some(Value::String(state)) => Some(state),
        Some(_) => return not_request("pushState: not a string"),
    };
    Ok(Message::PushEnable { types, push_state })
}

/// Makes an answer, as HTTP has it, one of a WebSocket (RFC 8887 §4.3.3, §4.3.4).
pub fn answer(kind: &str, mut body: Value, request_id: Option<&str>) -> Value {
    body["@type"] = json!(kind);
    // RFC 8887 §4.3.4: null where the request had none, or none that could be read; in a Response it is left out.
    if request_id.is_some() || kind == "RequestError" {
        body["requestId"] = json!(request_id);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { request_bytes_max: 4096, calls_max: 16, depth_max: 32, values_max: 1_000 };

    fn read(text: &str) -> Result<Message, Refused> {
        Message::parse(text.as_bytes(), LIMITS, |capability| capability == "urn:ietf:params:jmap:core")
    }

    /// RFC 8887 §4.3
    #[test]
    fn what_clients_say() {
        let text = r#"{"@type": "Request", "id": "R1", "using": ["urn:ietf:params:jmap:core"],
            "methodCalls": [["Core/echo", {"a": 1}, "c"]]}"#;
        let Message::Request { id, request } = read(text).unwrap() else { panic!("a request") };
        assert_eq!(id.as_deref(), Some("R1"));
        assert_eq!(request.calls[0].name, "Core/echo");
        let types = Some(vec!["Mailbox".to_owned(), "Email".to_owned()]);
        assert_eq!(
            read(
                r#"{"@type": "WebSocketPushEnable", "dataTypes": ["Mailbox", "Email"], "pushState": "aaa"}"#
            ),
            Ok(Message::PushEnable { types, push_state: Some("aaa".to_owned()) })
        );
        assert_eq!(
            read(r#"{"@type": "WebSocketPushEnable", "dataTypes": null}"#),
            Ok(Message::PushEnable { types: None, push_state: None })
        );
        assert_eq!(read(r#"{"@type": "WebSocketPushDisable"}"#), Ok(Message::PushDisable));
    }

    #[test]
    fn what_is_refused() {
        let long = format!(r#"{{"@type": "WebSocketPushDisable", "id": "{}"}}"#, "x".repeat(256));
        for (text, name, id) in [
            ("{", "notJSON", None),
            ("[]", "notRequest", None),
            ("{}", "notRequest", None),
            (r#"{"@type": "Response", "id": "a"}"#, "notRequest", Some("a")),
            (r#"{"@type": "Request", "id": "a"}"#, "notRequest", Some("a")),
            (r#"{"@type": "Request", "id": 1}"#, "notRequest", None),
            (
                r#"{"@type": "Request", "id": "b", "using": ["x"], "methodCalls": []}"#,
                "unknownCapability",
                Some("b"),
            ),
            (r#"{"@type": "WebSocketPushEnable", "dataTypes": "Email"}"#, "notRequest", None),
            (r#"{"@type": "WebSocketPushEnable", "dataTypes": [1]}"#, "notRequest", None),
            (r#"{"@type": "WebSocketPushEnable", "pushState": 1}"#, "notRequest", None),
            (long.as_str(), "notRequest", None),
            (" ".repeat(4097).as_str(), "limit", None),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!((refused.error.name(), refused.request_id.as_deref()), (name, id), "{text}");
        }
    }
}
