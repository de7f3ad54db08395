//! Requests (RFC 8620 §3.3): a list of method calls.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Object;
use crate::error::RequestError;
use crate::id::Id;
use crate::json::{self, JsonError};

/// How much of a request is read. What the session announces of it is named as RFC 8620 §2 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `maxSizeRequest`
    pub request_bytes_max: usize,
    /// `maxCallsInRequest`
    pub calls_max: usize,
    /// Levels of nesting.
    pub depth_max: usize,
    /// Values in all.
    pub values_max: usize,
}

/// A method call, or the answer to one.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// `Email/get`
    pub name: String,
    /// Its named arguments.
    pub arguments: Object,
    /// What the client calls this call.
    pub call_id: String,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The capabilities it uses.
    pub using: Vec<String>,
    /// The calls, to be made one after the other.
    pub calls: Vec<Invocation>,
    /// Creation ids that earlier requests have given. `None`: the client does not want to hear of them.
    pub created_ids: Option<BTreeMap<Id, Id>>,
}

impl Request {
    /// Reads a request. `is_known` says which capabilities there are.
    pub fn parse(
        bytes: &[u8],
        limits: Limits,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, RequestError> {
        Self::from_object(read_object(bytes, limits)?, limits, is_known)
    }

    /// Takes a request from its members.
    pub(crate) fn from_object(
        mut request: Object,
        limits: Limits,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, RequestError> {
        let Some(Value::Array(using)) = request.remove("using") else {
            return not_request("using: not a list of strings");
        };
        let using = using.into_iter().map(|capability| match capability {
            Value::String(capability) => Ok(capability),
            _ => not_request("using: not a list of strings"),
        });
        let using: Vec<String> = using.collect::<Result<_, _>>()?;
        let Some(Value::Array(calls)) = request.remove("methodCalls") else {
            return not_request("methodCalls: not a list");
        };
        if calls.len() > limits.calls_max {
            return Err(RequestError::Limit("maxCallsInRequest"));
        }
        let calls = calls.into_iter().map(Invocation::from_value).collect::<Option<_>>();
        let Some(calls) = calls else { return not_request("methodCalls: not a list of [name, object, id]") };
        let created_ids = match request.remove("createdIds") {
            None | Some(Value::Null) => None,
            Some(Value::Object(ids)) => {
                let ids = ids.into_iter().map(|(key, id)| Some((Id::new(key)?, Id::from_value(&id)?)));
                let Some(ids) = ids.collect() else { return not_request("createdIds: not ids to ids") };
                Some(ids)
            }
            Some(_) => return not_request("createdIds: not an object"),
        };
        // Members that nobody knows may be those of an extension; RFC 8620 §3.3 does not forbid them.
        if let Some(unknown) = using.iter().find(|capability| !is_known(capability)) {
            return Err(RequestError::UnknownCapability(unknown.clone()));
        }
        Ok(Self { using, calls, created_ids })
    }
}

impl Invocation {
    fn from_value(value: Value) -> Option<Self> {
        let Value::Array(list) = value else { return None };
        let [Value::String(name), Value::Object(arguments), Value::String(call_id)] =
            <[Value; 3]>::try_from(list).ok()?
        else {
            return None;
        };
        Some(Self { name, arguments, call_id })
    }

    /// As JSON.
    pub fn into_value(self) -> Value {
        Value::Array(vec![self.name.into(), self.arguments.into(), self.call_id.into()])
    }
}

/// Reads an object within the limits.
pub(crate) fn read_object(bytes: &[u8], limits: Limits) -> Result<Object, RequestError> {
    if bytes.len() > limits.request_bytes_max {
        return Err(RequestError::Limit("maxSizeRequest"));
    }
    let value = json::parse(bytes, limits.depth_max, limits.values_max).map_err(|error| match error {
        // So many values are a size as well, and clients know no other name for it.
        JsonError::TooMany(_) => RequestError::Limit("maxSizeRequest"),
        JsonError::TooDeep(_) | JsonError::Syntax(_) | JsonError::Duplicate(_) => {
            RequestError::NotJson(error.to_string())
        }
    })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => not_request("not an object"),
    }
}

pub(crate) fn not_request<T>(why: &str) -> Result<T, RequestError> {
    Err(RequestError::NotRequest(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { request_bytes_max: 10 << 20, calls_max: 16, depth_max: 32, values_max: 100_000 };

    fn read(text: &str) -> Result<Request, RequestError> {
        Request::parse(text.as_bytes(), LIMITS, |capability| capability.starts_with("urn:ietf:params:jmap:"))
    }

    fn refused(text: &str, name: &str) {
        assert_eq!(read(text).unwrap_err().name(), name, "{text}");
    }

    /// RFC 8620 §3.3.1
    #[test]
    fn the_example_of_the_rfc() {
        let request = read(
            r#"{"using": [ "urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail" ],
                "methodCalls": [
                  [ "method1", { "arg1": "arg1data", "arg2": "arg2data" }, "c1" ],
                  [ "method2", { "arg1": "arg1data" }, "c2" ],
                  [ "method3", {}, "c3" ]]}"#,
        )
        .unwrap();
        assert_eq!(request.calls.len(), 3);
        assert_eq!(request.calls[1].name, "method2");
        assert_eq!(request.calls[0].arguments["arg2"], "arg2data");
        assert_eq!(request.created_ids, None);
    }

    /// RFC 8620 §3.6.1
    #[test]
    fn request_errors() {
        refused("<html>", "notJSON");
        refused(r#"{"using": [], "using": [], "methodCalls": []}"#, "notJSON");
        for text in [
            "[]",
            "{}",
            r#"{"using": [], "methodCalls": {}}"#,
            r#"{"using": "urn:ietf:params:jmap:core", "methodCalls": []}"#,
            r#"{"using": [1], "methodCalls": []}"#,
            r#"{"using": [], "methodCalls": [["a", {}]]}"#,
            r#"{"using": [], "methodCalls": [["a", [], "c"]]}"#,
            r#"{"using": [], "methodCalls": [["a", {}, "c", 1]]}"#,
            r#"{"using": [], "methodCalls": [], "createdIds": {"a": 1}}"#,
            r#"{"using": [], "methodCalls": [], "createdIds": []}"#,
        ] {
            refused(text, "notRequest");
        }
        refused(r#"{"using": ["https://example.com/apis/foobar"], "methodCalls": []}"#, "unknownCapability");
        let calls = vec![r#"["Core/echo", {}, "c"]"#; 17].join(",");
        refused(&format!(r#"{{"using": [], "methodCalls": [{calls}]}}"#), "limit");
        let error = read(&format!(r#"{{"using": [], "methodCalls": [{calls}]}}"#)).unwrap_err();
        assert_eq!(error.problem()["limit"], "maxCallsInRequest");
        assert_eq!(error.problem()["type"], "urn:ietf:params:jmap:error:limit");
        let many = "1,".repeat(200_000);
        refused(&format!(r#"{{"using": [], "methodCalls": [["a", {{"x": [{many}1]}}, "c"]]}}"#), "limit");
        refused(&"[".repeat(10 << 20), "notJSON");
        refused(&"[".repeat((10 << 20) + 1), "limit");
    }
}
