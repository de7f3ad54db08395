//! Mailbox/changes (RFC 8621 §2.2).

use jmap_protocol::method::Changes;
use jmap_protocol::{Arguments, MethodError, Object};
use serde_json::Value;

use super::super::no_changes;
use crate::jmap::context::Context;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let changes = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let view = context.view().await?;
    let more = [("updatedProperties", Value::Null)];
    no_changes(context, &changes.since_state, &view.mailbox_state(), &more)
}
