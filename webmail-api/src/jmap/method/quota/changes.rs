//! Quota/changes (RFC 9425 §4.3): the state that the client names beside what is so now.

use jmap_protocol::method::{Changes, object};
use jmap_protocol::object::quota::USE;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::{Value, json};

use super::super::at_most;
use super::now;
use crate::jmap::context::Context;
use crate::jmap::quota::{Levels, RESOURCES};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let most = at_most(context, asked.max_changes);
    let mut known = Levels::parse(&asked.since_state).ok_or(MethodError::CannotCalculateChanges)?;
    let levels = now(context).await?;
    let (mut created, mut updated, mut destroyed): (Vec<Id>, Vec<Id>, Vec<Id>) =
        (Vec::new(), Vec::new(), Vec::new());
    let mut is_use_alone = true;
    let changed = RESOURCES.into_iter().filter(|resource| known.get(*resource) != levels.get(*resource));
    let changed: Vec<_> = changed.collect();
    // What is told is what the client knows then: that is the state between.
    for resource in changed.iter().take(most) {
        let (old, new) = (known.get(*resource), levels.get(*resource));
        match (old, new) {
            (None, _) => created.push(resource.id()),
            (_, None) => destroyed.push(resource.id()),
            (Some(old), Some(new)) => {
                is_use_alone &= old.limit == new.limit;
                updated.push(resource.id());
            }
        }
        known.set(*resource, new);
    }
    let properties = if is_use_alone && !updated.is_empty() { json!(USE) } else { Value::Null };
    Ok(object(json!({
        "accountId": account,
        "oldState": asked.since_state,
        "newState": known.state(),
        "hasMoreChanges": changed.len() > most,
        "created": created,
        "updated": updated,
        "destroyed": destroyed,
        "updatedProperties": properties,
    })))
}
