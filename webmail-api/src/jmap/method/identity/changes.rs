//! Identity/changes (RFC 8621 §6.2).

use jmap_protocol::method::Changes;
use jmap_protocol::{Arguments, MethodError, Object};
use serde_json::json;
use storage::ObjectKind;

use super::super::{at_most, changes, changes_trouble, since, stored_id};
use crate::jmap::context::Context;
use crate::jmap::send::identity::{DEFAULT, known, stored_part};
use crate::jmap::send::known::is_of_alias;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let known = known(context).await?;
    // What the directory said before is not kept.
    let stored = stored_part(&asked.since_state, &known).ok_or(MethodError::CannotCalculateChanges)?;
    let (state, most) = (since(stored)?, at_most(context, asked.max_changes));
    let changed = context.fresh_account().await?.object_changes(ObjectKind::IDENTITY, state, most).await;
    let mut changed = changed.map_err(|error| changes_trouble(&error))?;
    // Those that are there from the beginning were there before they were stored.
    let (before, created): (Vec<String>, Vec<String>) =
        std::mem::take(&mut changed.created).into_iter().partition(|id: &String| {
            id == DEFAULT || is_of_alias(id) && known.aliases.iter().any(|(alias, _)| alias.as_str() == id)
        });
    changed.created = created;
    changed.updated.extend(before);
    let mut answer = changes(context, &asked.since_state, &changed, |id| stored_id(id));
    answer.insert("newState".to_owned(), json!(format!("{}{}", changed.new_state, known.mark())));
    Ok(answer)
}
