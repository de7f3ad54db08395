//! The methods, each in a file of its own.

pub(super) mod blob;
pub(super) mod echo;
pub(super) mod email;
pub(super) mod identity;
pub(super) mod mailbox;
pub(super) mod quota;
pub(super) mod snippet;
pub(super) mod submission;
pub(super) mod thread;
pub(super) mod vacation;

use jmap_protocol::{Id, MethodError, Object, SetError, SetErrorKind};
use serde_json::{Value, json};
use storage::{ChangeSet, ChangesError, ObjectError, ObjectKind, ObjectWrite, Since, WriteObjectsError};

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

/// A result within a result: trouble with one record, or with the whole call.
pub(super) type Outcome<T> = Result<Result<T, SetError>, MethodError>;

/// The id of an object of storage, which is one of JMAP as it is.
pub(super) fn stored_id(id: &str) -> Id {
    Id::new(id).expect("storage takes ids of RFC 8620 alone")
}

/// Changes one object, in a commit of its own.
pub(super) async fn write_one(
    context: &Context,
    kind: ObjectKind,
    write: ObjectWrite,
    condition: Option<Since>,
) -> Outcome<Id> {
    let written = context.account().write_objects(kind, vec![write], condition).await;
    let written = written.map_err(|error| match error {
        WriteObjectsError::StateMismatch => MethodError::StateMismatch,
        WriteObjectsError::TooLarge => MethodError::RequestTooLarge(error.to_string()),
        WriteObjectsError::Storage(error) => trouble(&error),
    })?;
    let Some(result) = written.results.into_iter().next() else {
        return Err(MethodError::ServerFail("nothing was written".to_owned()));
    };
    Ok(result.map(|id| stored_id(&id)).map_err(|error| {
        let kind = match error {
            ObjectError::Missing | ObjectError::InvalidId => SetErrorKind::NotFound,
            ObjectError::TooLarge => SetErrorKind::TooLarge,
            ObjectError::TooMany => SetErrorKind::OverQuota,
            // Somebody else was faster; the client sees what is so now, and tries again.
            ObjectError::Changed | ObjectError::Exists => SetErrorKind::ServerFail,
        };
        SetError::new(kind, error.to_string())
    }))
}
