//! Answers (RFC 8620 §3.4).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Object;
use crate::error::MethodError;
use crate::id::Id;
use crate::request::Invocation;

/// The answer to a request, while it is made.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// What the calls answered, in their order.
    pub answers: Vec<Invocation>,
}

impl Response {
    /// Adds an answer.
    pub fn push(&mut self, name: &str, arguments: Object, call_id: &str) {
        self.answers.push(Invocation { name: name.to_owned(), arguments, call_id: call_id.to_owned() });
    }

    /// Adds an error.
    pub fn push_error(&mut self, error: &MethodError, call_id: &str) {
        self.push("error", error.arguments(), call_id);
    }

    /// The whole, as JSON.
    pub fn into_value(self, created_ids: Option<&BTreeMap<Id, Id>>, session_state: &str) -> Value {
        let answers = self.answers.into_iter().map(Invocation::into_value).collect();
        let mut response = Object::new();
        response.insert("methodResponses".to_owned(), Value::Array(answers));
        if let Some(ids) = created_ids {
            let ids: Object = ids.iter().map(|(key, id)| (key.to_string(), json!(id))).collect();
            response.insert("createdIds".to_owned(), Value::Object(ids));
        }
        response.insert("sessionState".to_owned(), json!(session_state));
        Value::Object(response)
    }
}
