//! Mailbox/get (RFC 8621 §2.1).

use jmap_protocol::method::{Get, got, object, project};
use jmap_protocol::object::mailbox::PROPERTIES;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use mail::id::MailboxId;
use serde_json::json;
use storage::{Mailbox, MailboxCounts, Role};

use super::super::spend_on;
use super::{own_name, parent, role_name, sort_order};
use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::view::View;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let view = context.view().await?;
    let wanted: Vec<(Id, Option<MailboxId>)> = match &get.ids {
        Some(ids) => ids.iter().map(|id| (id.clone(), ids::parse_mailbox(id))).collect(),
        None => view.account.mailboxes().map(|it| (ids::mailbox(it.id), Some(it.id))).collect(),
    };
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for (id, number) in wanted {
        let Some(mailbox) = number.and_then(|number| view.mailbox(number)) else {
            not_found.push(id);
            continue;
        };
        let record = project(show(&view, &mailbox, view.counts(mailbox.id)), &get);
        spend_on(context, &record)?;
        list.push(record);
    }
    Ok(got(&account, &view.mailbox_state(), list, &not_found))
}

pub(super) fn show(view: &View, mailbox: &Mailbox, counts: MailboxCounts) -> Object {
    let is_inbox = mailbox.role == Some(Role::Inbox);
    object(json!({
        "id": ids::mailbox(mailbox.id),
        "name": own_name(mailbox),
        "parentId": parent(&view.account, mailbox),
        "role": mailbox.role.map(role_name),
        "sortOrder": sort_order(mailbox),
        "totalEmails": counts.total_emails,
        "unreadEmails": counts.unread_emails,
        "totalThreads": counts.total_threads,
        "unreadThreads": counts.unread_threads,
        "myRights": {
            "mayReadItems": true,
            "mayAddItems": true,
            "mayRemoveItems": true,
            "maySetSeen": true,
            "maySetKeywords": true,
            "mayCreateChild": true,
            // RFC 9051 §5.1: INBOX is always there.
            "mayRename": !is_inbox,
            "mayDelete": !is_inbox,
            "maySubmit": true,
        },
        "isSubscribed": view.account.is_subscribed(&mailbox.name),
    }))
}
