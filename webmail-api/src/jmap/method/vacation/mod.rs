//! The vacation response (RFC 8621 §8). There is one in each account; who sends it is `delivery`.

pub(crate) mod get;
pub(crate) mod set;

use jmap_protocol::MethodError;
use jmap_protocol::object::vacation::{SINGLETON, Vacation};
use storage::{AccountState, ObjectKind};

use crate::jmap::context::Context;

/// The vacation response, and the operation that last put it; `None`: nobody has.
fn stored(state: &AccountState) -> Result<(Vacation, Option<u64>), MethodError> {
    let Some(object) = state.object(ObjectKind::VACATION_RESPONSE, SINGLETON) else {
        return Ok((Vacation::default(), None));
    };
    match Vacation::decode(&object.value) {
        Ok(vacation) => Ok((vacation, Some(object.changed))),
        Err(error) => {
            tracing::error!(%error, "stored vacation response cannot be read");
            Err(MethodError::ServerFail("stored data cannot be read".to_owned()))
        }
    }
}

async fn state(context: &Context) -> Result<String, MethodError> {
    let state = context.fresh_account().await?.state();
    Ok(state.objects_state(ObjectKind::VACATION_RESPONSE).to_string())
}
