//! The methods, each in a file of its own.

pub(super) mod blob;
pub(super) mod echo;
pub(super) mod email;
pub(super) mod mailbox;
pub(super) mod push_subscription;
pub(super) mod quota;
pub(super) mod snippet;
pub(super) mod thread;

use jmap_protocol::{Id, MethodError, Object};
use serde_json::{Value, json};
use storage::{ChangeSet, ChangesError, Since};

use super::context::{Context, trouble};

/// Counts a record that goes into an answer.
pub(super) fn spend_on(context: &mut Context, record: &Value) -> Result<(), MethodError> {
    context.spend(jmap_protocol::json::weight(record))
}

/// The answer of a /changes (RFC 8620 §5.2).
pub(super) fn changes<I>(
    context: &Context,
    since: &str,
    changes: &ChangeSet<I>,
    id: impl Fn(&I) -> Id,
) -> Object {
    let list = |changed: &[I]| changed.iter().map(&id).collect::<Vec<_>>();
    jmap_protocol::method::object(json!({
        "accountId": context.account_id(),
        "oldState": since,
        "newState": changes.new_state.to_string(),
        "hasMoreChanges": changes.has_more,
        "created": list(&changes.created),
        "updated": list(&changes.updated),
        "destroyed": list(&changes.destroyed),
    }))
}

/// The state that a client names. One that was never given out is one of which nothing is known.
pub(super) fn since(text: &str) -> Result<Since, MethodError> {
    text.parse().map_err(|_| MethodError::CannotCalculateChanges)
}

/// The state that a client wants it to be; one that was never given out it cannot be.
pub(super) fn if_in_state(text: Option<&str>) -> Result<Option<Since>, MethodError> {
    text.map(|text| text.parse().map_err(|_| MethodError::StateMismatch)).transpose()
}

/// How many changes are told at once.
pub(super) fn at_most(context: &Context, asked: Option<u64>) -> usize {
    let most = context.config().changes_max.max(1);
    asked.map_or(most, |asked| usize::try_from(asked).unwrap_or(usize::MAX).min(most))
}

pub(super) fn changes_trouble(error: &ChangesError) -> MethodError {
    match error {
        ChangesError::Forgotten => MethodError::CannotCalculateChanges,
        ChangesError::Storage(error) => trouble(error),
    }
}
