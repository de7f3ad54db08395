//! Identity/changes (RFC 8621 §6.2).

use jmap_protocol::method::Changes;
use jmap_protocol::{Arguments, MethodError, Object};
use storage::ObjectKind;

use super::super::{at_most, changes, changes_trouble, since, stored_id};
use crate::jmap::context::Context;
use crate::jmap::send::identity::DEFAULT;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let (state, most) = (since(&asked.since_state)?, at_most(context, asked.max_changes));
    let changed = context.fresh_account().await?.object_changes(ObjectKind::IDENTITY, state, most).await;
    let mut changed = changed.map_err(|error| changes_trouble(&error))?;
    // The one that every account has was there before it was stored.
    if let Some(at) = changed.created.iter().position(|id| id == DEFAULT) {
        changed.updated.push(changed.created.remove(at));
    }
    Ok(changes(context, &asked.since_state, &changed, |id| stored_id(id)))
}
