//! Email/import (RFC 8621 §4.8).

use std::collections::BTreeSet;

use jmap_protocol::method::{check_state, object};
use jmap_protocol::object::import::Import;
use jmap_protocol::{Arguments, Id, MethodError, Object, SetError, SetErrorKind};
use mail::id::MailboxId;
use serde_json::{Map, Value, json};
use storage::{AppendError, ImportRequest, InternalDate, Since, StoredBody};

use super::set::{mailbox, refused};
use crate::jmap::blob::{self, is_message};
use crate::jmap::context::{Context, body_trouble, record_trouble};
use crate::jmap::ids::{self, BlobName, BlobRoot};
use crate::jmap::view::flag_set;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let state = arguments.string_or_null("ifInState")?;
    let emails = arguments.objects("emails")?;
    std::mem::take(arguments).finish()?;
    if emails.len() > context.config().objects_in_set_max {
        return Err(MethodError::RequestTooLarge("too many emails".to_owned()));
    }
    let mut condition = super::super::if_in_state(state.as_deref())?;
    let old_state = context.view().await?.email_state();
    check_state(state.as_deref(), &old_state)?;
    let (mut created, mut not_created) = (Map::new(), Map::new());
    for (key, wanted) in emails {
        let imported = match Import::parse(&wanted) {
            Ok(import) => one(context, &import, condition).await?,
            Err(error) => Err(error),
        };
        match imported {
            Ok((id, shown)) => {
                condition = None;
                context.created_ids.insert(key.clone(), id);
                created.insert(key.to_string(), shown);
            }
            Err(error) => drop(not_created.insert(key.to_string(), error.to_value())),
        }
    }
    let some = |map: Map<String, Value>| if map.is_empty() { Value::Null } else { Value::Object(map) };
    Ok(object(json!({
        "accountId": account,
        "oldState": old_state,
        "newState": context.view().await?.email_state(),
        "created": some(created),
        "notCreated": some(not_created),
    })))
}

async fn one(
    context: &Context,
    import: &Import,
    condition: Option<Since>,
) -> Result<Result<(Id, Value), SetError>, MethodError> {
    let mailboxes: Option<BTreeSet<MailboxId>> =
        import.mailboxes.iter().map(|id| mailbox(context, id)).collect();
    let Some(mailboxes) = mailboxes else {
        return Ok(Err(SetError::property("mailboxIds", "there is no such mailbox")));
    };
    let Some(flags) = flag_set(&import.keywords) else {
        return Ok(Err(SetError::property("keywords", "not a set of keywords")));
    };
    let body = match body(context, &import.blob).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error)),
    };
    let received = import.received_at.map(InternalDate::utc);
    put(context, ImportRequest { mailboxes, body, flags, received }, condition).await
}

/// The message that a blob is. What was uploaded need not be written again.
async fn body(context: &Context, id: &Id) -> Result<Result<StoredBody, SetError>, MethodError> {
    let missing =
        || SetError::new(SetErrorKind::BlobNotFound, "there is no such blob").with("notFound", json!([id]));
    let invalid = || SetError::new(SetErrorKind::InvalidEmail, "the blob is not a message");
    let trouble = |error: storage::BodyError| body_trouble(&error);
    let Some(name) = BlobName::parse(id) else { return Ok(Err(missing())) };
    if let (BlobRoot::Upload(upload), true) = (name.root, name.path.is_empty()) {
        let Some(body) = context.account().upload_as_message(upload).await.map_err(trouble)? else {
            return Ok(Err(missing()));
        };
        if !is_message(&body.facts) {
            context.account().discard(body).await;
            return Ok(Err(invalid()));
        }
        return Ok(Ok(body));
    }
    let Some(blob) = blob::find(context.account(), id).await.map_err(trouble)? else {
        return Ok(Err(missing()));
    };
    if !matches!(blob.media.as_str(), "message/rfc822" | "message/global") {
        return Ok(Err(invalid()));
    }
    use futures_util::StreamExt as _;
    let mut writer = context.account().body_writer();
    let mut pieces = blob.stream();
    while let Some(piece) = pieces.next().await {
        let failed = |error| {
            tracing::warn!(error = %error, "message not written");
            MethodError::ServerUnavailable
        };
        writer.write(piece.map_err(trouble)?).await.map_err(failed)?;
    }
    let failed = |error| {
        tracing::warn!(error = %error, "message not written");
        MethodError::ServerUnavailable
    };
    writer.finish().await.map(Ok).map_err(failed)
}

/// Puts a message, and tells what it has become.
pub(super) async fn put(
    context: &Context,
    request: ImportRequest,
    condition: Option<Since>,
) -> Result<Result<(Id, Value), SetError>, MethodError> {
    let put = context.account().import_emails(vec![request], condition).await.map_err(|it| refused(&it))?;
    let Some(result) = put.results.into_iter().next() else {
        return Err(MethodError::ServerFail("nothing was put".to_owned()));
    };
    Ok(match result {
        Ok(imported) => {
            let id = ids::email(imported.email);
            let shown = json!({
                "id": id,
                "blobId": BlobName::email(imported.email).to_string(),
                "threadId": ids::thread(imported.thread),
                "size": imported.size,
            });
            Ok((id, shown))
        }
        Err(error) => Err(match &error {
            AppendError::NoMailbox => SetError::property("mailboxIds", error.to_string()),
            AppendError::OverQuota => SetError::new(SetErrorKind::OverQuota, error.to_string()),
            AppendError::TooManyKeywords => SetError::new(SetErrorKind::TooManyKeywords, error.to_string()),
            AppendError::TooLarge => SetError::new(SetErrorKind::TooLarge, error.to_string()),
            AppendError::NoUids | AppendError::Mailbox(_) => {
                SetError::new(SetErrorKind::TooManyMailboxes, error.to_string())
            }
            AppendError::Storage(error) => record_trouble(error),
        }),
    })
}
