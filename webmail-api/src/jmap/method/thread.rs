//! Thread/get and Thread/changes (RFC 8621 §3).

use jmap_protocol::method::{Changes, Get, got, object, project};
use jmap_protocol::object::thread::PROPERTIES;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use mail::id::ThreadId;
use serde_json::json;

use super::{at_most, changes_trouble, since, spend_on};
use crate::jmap::context::Context;
use crate::jmap::ids;

pub(crate) async fn get(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let view = context.view().await?;
    let wanted: Vec<Id> = match &get.ids {
        Some(ids) => ids.clone(),
        None => {
            let mut threads: Vec<ThreadId> = view.emails().map(|email| email.thread).collect();
            threads.sort_unstable();
            threads.dedup();
            if threads.len() > context.config().objects_in_get_max {
                return Err(MethodError::RequestTooLarge(
                    "the account has more threads than that".to_owned(),
                ));
            }
            threads.into_iter().map(ids::thread).collect()
        }
    };
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for id in wanted {
        let Some(emails) = ids::parse_thread(&id).and_then(|thread| view.thread(thread)) else {
            not_found.push(id);
            continue;
        };
        let emails: Vec<Id> = emails.into_iter().map(ids::email).collect();
        let record = project(object(json!({"id": id, "emailIds": emails})), &get);
        spend_on(context, &record)?;
        list.push(record);
    }
    Ok(got(&account, &view.thread_state(), list, &not_found))
}

pub(crate) async fn changes(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let asked = Changes::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let (state, most) = (since(&asked.since_state)?, at_most(context, asked.max_changes));
    let changed = context.fresh_account().await?.thread_changes(state, most).await;
    let changed = changed.map_err(|error| changes_trouble(&error))?;
    Ok(super::changes(context, &asked.since_state, &changed, |thread| ids::thread(*thread)))
}
