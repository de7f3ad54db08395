//! Mailbox/changes (RFC 8621 §2.2).

use jmap_protocol::method::Changes;
use jmap_protocol::object::mailbox::COUNTS;
use jmap_protocol::{Arguments, MethodError, Object};
use serde_json::{Value, json};

use super::super::{at_most, changes, changes_trouble, since};
use crate::jmap::context::Context;
use crate::jmap::ids;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let (state, most) = (since(&asked.since_state)?, at_most(context, asked.max_changes));
    let changed = context.fresh_account().await?.mailbox_changes(state, most).await;
    let changed = changed.map_err(|error| changes_trouble(&error))?;
    let mut answer = changes(context, &asked.since_state, &changed.changes, |it| ids::mailbox(*it));
    let is_only_counts = changed.only_counts && !changed.changes.updated.is_empty();
    let properties = if is_only_counts { json!(COUNTS) } else { Value::Null };
    answer.insert("updatedProperties".to_owned(), properties);
    Ok(answer)
}
