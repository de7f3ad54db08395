//! EmailSubmission/changes (RFC 8621 §7.2).

use jmap_protocol::method::Changes;
use jmap_protocol::{Arguments, MethodError, Object};
use storage::ObjectKind;

use super::super::{at_most, changes, changes_trouble, since, stored_id};
use super::look_at;
use crate::jmap::context::Context;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let (state, most) = (since(&asked.since_state)?, at_most(context, asked.max_changes));
    look_at(context, None).await;
    let account = context.fresh_account().await?;
    let changed = account.object_changes(ObjectKind::EMAIL_SUBMISSION, state, most).await;
    let changed = changed.map_err(|error| changes_trouble(&error))?;
    Ok(changes(context, &asked.since_state, &changed, |id| stored_id(id)))
}
