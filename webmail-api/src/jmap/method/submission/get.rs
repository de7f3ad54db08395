//! EmailSubmission/get (RFC 8621 §7.1).

use jmap_protocol::date;
use jmap_protocol::method::{Get, got, object, project};
use jmap_protocol::object::submission::PROPERTIES;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use queue::Followed;
use serde_json::{Value, json};
use storage::ObjectKind;

use super::super::spend_on;
use super::{follow, undo};
use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::send::record::Record;
use crate::jmap::send::status::{Undo, deliveries};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let state = context.fresh_account().await?.state();
    let wanted: Vec<(Id, Option<Record>)> = match &get.ids {
        Some(ids) => ids.iter().map(|id| (id.clone(), Record::find(&state, id))).collect(),
        None => Record::all(&state).map(|(id, record)| (id, Some(record))).collect(),
    };
    if wanted.len() > context.config().objects_in_get_max {
        return Err(MethodError::RequestTooLarge("the account has more submissions than that".to_owned()));
    }
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for (id, record) in wanted {
        let Some(record) = record else {
            not_found.push(id);
            continue;
        };
        let shown = show(context, &id, &record, &get).await?;
        let shown = project(shown, &get);
        spend_on(context, &shown)?;
        list.push(shown);
    }
    let state = state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string();
    Ok(got(&account, &state, list, &not_found))
}

/// With all properties, but those for which the queue would have to be asked and that nobody wants.
async fn show(context: &Context, id: &Id, record: &Record, get: &Get) -> Result<Object, MethodError> {
    if get.wants("deliveryStatus") {
        let followed = follow(context, record).await?;
        let sending = context.sending()?;
        let undo = Undo::of(record, &followed, sending.queue.clock().now(), &sending.rules);
        return Ok(properties(id, record, undo, &deliveries_of(record, undo, &followed)));
    }
    let undo = if get.wants("undoStatus") { undo(context, record).await? } else { Undo::Final };
    Ok(properties(id, record, undo, &Value::Null))
}

fn deliveries_of(record: &Record, undo: Undo, followed: &Followed) -> Value {
    // Nothing was sent, so there is nothing to tell about anybody.
    if undo == Undo::Canceled { Value::Null } else { deliveries(record, followed) }
}

/// A submission as clients see it.
pub(super) fn properties(id: &Id, record: &Record, undo: Undo, deliveries: &Value) -> Object {
    object(json!({
        "id": id,
        "identityId": record.identity,
        "emailId": ids::email(record.email()),
        "threadId": ids::thread(record.thread()),
        "envelope": record.envelope().to_value(),
        "sendAt": date::utc(i64::try_from(record.send_at).unwrap_or(i64::MAX)),
        "undoStatus": undo.as_str(),
        "deliveryStatus": deliveries,
        // Which messages are answers to it is not known here.
        "dsnBlobIds": [],
        "mdnBlobIds": [],
    }))
}
