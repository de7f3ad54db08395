//! Email/changes (RFC 8621 §4.3).

use jmap_protocol::method::Changes;
use jmap_protocol::{Arguments, MethodError, Object};

use super::super::{at_most, changes, changes_trouble, since};
use crate::jmap::context::Context;
use crate::jmap::ids;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let (state, most) = (since(&asked.since_state)?, at_most(context, asked.max_changes));
    let changed = context.fresh_account().await?.email_changes(state, most).await;
    let changed = changed.map_err(|error| changes_trouble(&error))?;
    Ok(changes(context, &asked.since_state, &changed, |email| ids::email(*email)))
}
