//! Blob/lookup (RFC 9404 §4.3): what a blob belongs to. An email's own bytes and each of its parts belong to that email,
//! its thread and its mailboxes; what was uploaded belongs to nothing until it is made into something else.

use jmap_protocol::arguments;
use jmap_protocol::method::object;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use mail::id::MailboxId;
use serde_json::{Map, Value, json};

use super::super::spend_on;
use crate::jmap::blob;
use crate::jmap::context::{Context, body_trouble};
use crate::jmap::ids::{self, BlobRoot};
use crate::jmap::session::MAIL;
use crate::jmap::view::View;

/// The types of objects that can be asked for; the session announces them.
pub(crate) const TYPES: [&str; 3] = ["Email", "Mailbox", "Thread"];

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let types = arguments.required("typeNames", "a list of strings", |value| {
        arguments::list(value, |value| value.as_str().map(str::to_owned))
    })?;
    let asked = arguments.required("ids", "a list of ids", |value| arguments::list(value, Id::from_value))?;
    std::mem::take(arguments).finish()?;
    if asked.len() > context.config().objects_in_get_max {
        return Err(MethodError::RequestTooLarge("too many ids".to_owned()));
    }
    // RFC 9404 §4.3: the capability that a type is of has to be used as well, and all of these are of mail.
    if !types.iter().all(|name| TYPES.contains(&name.as_str()) && context.uses(MAIL)) {
        return Err(MethodError::UnknownDataType);
    }
    let view = context.view().await?;
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    for id in asked {
        if !seen.insert(id.clone()) {
            continue;
        }
        let found = blob::find(context.account(), &id).await.map_err(|error| body_trouble(&error))?;
        let matched = found.and_then(|blob| matched(&view, blob.name.root, &types));
        let Some(matched) = matched else {
            not_found.push(id);
            continue;
        };
        let shown = json!({"id": id, "matchedIds": matched});
        spend_on(context, &shown)?;
        list.push(shown);
    }
    Ok(object(json!({"accountId": account, "list": list, "notFound": not_found})))
}

/// `None`: the email is gone.
fn matched(view: &View, root: BlobRoot, types: &[String]) -> Option<Map<String, Value>> {
    let email = match root {
        BlobRoot::Email(email) => Some(view.email(email)?),
        BlobRoot::Upload(_) => None,
    };
    let matched = types.iter().map(|name| {
        let ids: Vec<Id> = match (&email, name.as_str()) {
            (None, _) => Vec::new(),
            (Some(email), "Email") => vec![ids::email(email.id)],
            (Some(email), "Thread") => vec![ids::thread(email.thread)],
            (Some(email), _) => {
                let mut mailboxes: Vec<MailboxId> = email.places.iter().map(|(id, _)| *id).collect();
                mailboxes.sort_unstable();
                mailboxes.dedup();
                mailboxes.into_iter().map(ids::mailbox).collect()
            }
        };
        (name.clone(), json!(ids))
    });
    Some(matched.collect())
}
