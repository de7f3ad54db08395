//! EmailSubmission/get (RFC 8621 §7.1).

use jmap_protocol::date;
use jmap_protocol::method::{Get, got, object, project};
use jmap_protocol::object::submission::PROPERTIES;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use mail::id::EmailId;
use serde_json::json;
use storage::ObjectKind;

use super::super::spend_on;
use super::look_at;
use crate::jmap::context::Context;
use crate::jmap::ids::{self, BlobName};
use crate::jmap::send::record::Record;
use crate::jmap::send::status::Undo;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    look_at(context, get.ids.as_deref()).await;
    let view = context.view().await?;
    let state = &view.account;
    let wanted: Vec<(Id, Option<Record>)> = match &get.ids {
        Some(ids) => ids.iter().map(|id| (id.clone(), Record::find(state, id))).collect(),
        None => Record::all(state).map(|(id, record)| (id, Some(record))).collect(),
    };
    if wanted.len() > context.config().objects_in_get_max {
        return Err(MethodError::RequestTooLarge("the account has more submissions than that".to_owned()));
    }
    let (rules, now) = (context.sending()?.rules.clone(), context.sending()?.queue.clock().now());
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for (id, record) in wanted {
        let Some(record) = record else {
            not_found.push(id);
            continue;
        };
        let mut shown = properties(&id, &record, record.undo(now, &rules));
        // What was destroyed cannot be read any more.
        let dsns = record.dsns.iter().map(|dsn| EmailId(*dsn)).filter(|dsn| view.email(*dsn).is_some());
        let dsns: Vec<String> = dsns.map(|dsn| BlobName::email(dsn).to_string()).collect();
        shown.insert("dsnBlobIds".to_owned(), json!(dsns));
        let shown = project(shown, &get);
        spend_on(context, &shown)?;
        list.push(shown);
    }
    let state = state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string();
    Ok(got(&account, &state, list, &not_found))
}

/// A submission as clients see it, where no DSN has come yet.
pub(super) fn properties(id: &Id, record: &Record, undo: Undo) -> Object {
    object(json!({
        "id": id,
        "identityId": record.identity,
        "emailId": ids::email(record.email()),
        "threadId": ids::thread(record.thread()),
        "envelope": record.envelope().to_value(),
        "sendAt": date::utc(i64::try_from(record.send_at).unwrap_or(i64::MAX)),
        "undoStatus": undo.as_str(),
        "deliveryStatus": record.deliveries(),
        "dsnBlobIds": [],
        // RFC 8621 §7: as far as they are known; notices that somebody has read it are not looked for.
        "mdnBlobIds": [],
    }))
}
