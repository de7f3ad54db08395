//! The methods, each in a file of its own.

pub(super) mod echo;
pub(super) mod email;
pub(super) mod mailbox;
pub(super) mod snippet;
pub(super) mod thread;

use jmap_protocol::{MethodError, Object};
use serde_json::Value;

use super::context::Context;

/// Counts a record that goes into an answer.
pub(super) fn spend_on(context: &mut Context, record: &Value) -> Result<(), MethodError> {
    context.spend(jmap_protocol::json::weight(record))
}

/// The answer of a /changes from which nothing has happened since, and the refusal of any other.
pub(super) fn no_changes(
    context: &Context,
    since: &str,
    state: &str,
    more: &[(&str, Value)],
) -> Result<Object, MethodError> {
    if since != state {
        return Err(MethodError::CannotCalculateChanges);
    }
    let mut answer = jmap_protocol::method::object(serde_json::json!({
        "accountId": context.account_id(),
        "oldState": since,
        "newState": state,
        "hasMoreChanges": false,
        "created": [],
        "updated": [],
        "destroyed": [],
    }));
    answer.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Ok(answer)
}
