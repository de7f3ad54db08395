//! Email/set (RFC 8621 §4.6): keywords and mailboxes of emails, destroying them, and writing new ones.

use std::collections::BTreeSet;

use jmap_protocol::method::{Set, SetAnswer};
use jmap_protocol::object::email::{keyword, keywords, mailbox_ids};
use jmap_protocol::pointer::unescape;
use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind, patch};
use mail::id::{EmailId, MailboxId};
use serde_json::{Value, json};
use storage::{
    ChangeEmailsError, EmailUpdate, EmailUpdateError, ImportRequest, InternalDate, KeywordsPatch,
    MailboxesPatch, Since,
};

use super::get::metadata;
use super::import::put;
use crate::jmap::compose;
use crate::jmap::context::{Context, record_trouble, trouble};
use crate::jmap::ids;
use crate::jmap::view::{View, flag_set};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let set = Set::take(arguments, context.config().objects_in_set_max)?;
    std::mem::take(arguments).finish()?;
    let mut condition = super::super::if_in_state(set.if_in_state.as_deref())?;
    let view = context.view().await?;
    let old_state = view.email_state();
    set.check_state(&old_state)?;
    let mut answer = SetAnswer::default();
    for (key, wanted) in set.create {
        match create(context, &wanted, condition).await? {
            Ok((id, shown)) => {
                condition = None;
                context.created_ids.insert(key.clone(), id);
                answer.created.insert(key, shown);
            }
            Err(error) => drop(answer.not_created.insert(key, error)),
        }
    }
    let view = context.view().await?;
    let mut updates = Vec::new();
    for (id, patch) in &set.update {
        match update(context, &view, id, patch) {
            Ok((resolved, update)) => updates.push((resolved, update)),
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    if !updates.is_empty() {
        let wanted = updates.iter().map(|(_, update)| update.clone()).collect();
        let changed = context.account().update_emails(wanted, condition).await.map_err(|it| refused(&it))?;
        condition = None;
        for ((id, _), result) in updates.into_iter().zip(changed.results) {
            match result {
                Ok(()) => drop(answer.updated.insert(id.to_string(), Value::Null)),
                Err(error) => drop(answer.not_updated.insert(id.to_string(), not_changed(&error))),
            }
        }
    }
    let mut destroy: Vec<(Id, EmailId)> = Vec::new();
    for id in set.destroy {
        let resolved = context.resolve(&id);
        match resolved.and_then(|id| Some((ids::parse_email(&id)?, id))) {
            Some((email, id)) => destroy.push((id, email)),
            None => drop(answer.not_destroyed.insert(id.to_string(), missing())),
        }
    }
    if !destroy.is_empty() {
        let emails = destroy.iter().map(|(_, email)| *email).collect();
        let changed = context.account().destroy_emails(emails, condition).await.map_err(|it| refused(&it))?;
        for ((id, _), result) in destroy.into_iter().zip(changed.results) {
            match result {
                Ok(()) => answer.destroyed.push(id),
                Err(EmailUpdateError::Twice) => {}
                Err(error) => drop(answer.not_destroyed.insert(id.to_string(), not_changed(&error))),
            }
        }
    }
    let new_state = context.view().await?.email_state();
    Ok(answer.into_object(&account, Some(&old_state), &new_state))
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such email")
}

/// Trouble with the whole call.
pub(super) fn refused(error: &ChangeEmailsError) -> MethodError {
    match error {
        ChangeEmailsError::StateMismatch => MethodError::StateMismatch,
        ChangeEmailsError::Storage(error) => trouble(error),
    }
}

fn not_changed(error: &EmailUpdateError) -> SetError {
    match error {
        EmailUpdateError::NotFound => missing(),
        EmailUpdateError::Twice => SetError::new(SetErrorKind::InvalidPatch, error.to_string()),
        EmailUpdateError::TooManyKeywords => SetError::new(SetErrorKind::TooManyKeywords, error.to_string()),
        EmailUpdateError::OverQuota => SetError::new(SetErrorKind::OverQuota, error.to_string()),
        EmailUpdateError::NoMailbox(_) | EmailUpdateError::Nowhere => {
            SetError::property("mailboxIds", error.to_string())
        }
        EmailUpdateError::NoUids => SetError::new(SetErrorKind::TooManyMailboxes, error.to_string()),
        EmailUpdateError::Storage(error) => record_trouble(error),
    }
}

/// What a patch says. Paths below `keywords` and `mailboxIds` are taken as what comes and goes, so that two clients that
/// set different keywords at one time do not undo each other.
fn update(
    context: &Context,
    view: &View,
    id: &IdOrReference,
    wanted: &Object,
) -> Result<(Id, EmailUpdate), SetError> {
    let id = context.resolve(id).ok_or_else(missing)?;
    let email = ids::parse_email(&id).ok_or_else(missing)?;
    let viewed = view.email(email).ok_or_else(missing)?;
    // Whether it is a patch at all is for the rules that all objects have.
    let shown = metadata(view, &viewed, &jmap_protocol::object::email::settable());
    patch::apply(&shown, wanted)?;
    let (mut word_add, mut word_remove) = (BTreeSet::new(), BTreeSet::new());
    let (mut mailbox_add, mut mailbox_remove) = (BTreeSet::new(), BTreeSet::new());
    let mut update = EmailUpdate { email, keywords: None, mailboxes: None };
    for (path, value) in wanted {
        let wrong = |expected: &str| SetError::property(path.as_str(), format!("not {expected}"));
        let comes = || match value {
            Value::Bool(true) => Ok(true),
            Value::Null => Ok(false),
            _ => Err(wrong("true or null")),
        };
        match path.split_once('/') {
            None if path == "keywords" => {
                let value = if value.is_null() { &json!({}) } else { value };
                let words = keywords(value).ok_or_else(|| wrong("a set of keywords"))?;
                let flags = flag_set(&words).ok_or_else(|| wrong("a set of keywords"))?;
                update.keywords = Some(KeywordsPatch::Replace(flags));
            }
            None if path == "mailboxIds" => {
                let ids = mailbox_ids(value).ok_or_else(|| wrong("a set of ids"))?;
                let ids: Option<_> = ids.iter().map(|id| mailbox(context, id)).collect();
                update.mailboxes =
                    Some(MailboxesPatch::Replace(ids.ok_or_else(|| wrong("a set of mailboxes"))?));
            }
            Some(("keywords", word)) => {
                let word =
                    unescape(word).and_then(|word| keyword(&word)).ok_or_else(|| wrong("a keyword"))?;
                if comes()? {
                    word_add.insert(word)
                } else {
                    word_remove.insert(word)
                };
            }
            Some(("mailboxIds", id)) => {
                let id = unescape(id).and_then(|id| IdOrReference::new(&id));
                let id = id.and_then(|id| mailbox(context, &id)).ok_or_else(|| wrong("a mailbox"))?;
                if comes()? {
                    mailbox_add.insert(id)
                } else {
                    mailbox_remove.insert(id)
                };
            }
            // RFC 8620 §5.3: what cannot be changed may be given as it is.
            None if shown.get(path) == Some(value) => {}
            _ => return Err(SetError::property(path.as_str(), "cannot be changed")),
        }
    }
    if !(word_add.is_empty() && word_remove.is_empty()) {
        let set = |words| flag_set(words).ok_or_else(|| SetError::property("keywords", "not a keyword"));
        update.keywords = Some(KeywordsPatch::Change { add: set(&word_add)?, remove: set(&word_remove)? });
    }
    if !(mailbox_add.is_empty() && mailbox_remove.is_empty()) {
        update.mailboxes = Some(MailboxesPatch::Change { add: mailbox_add, remove: mailbox_remove });
    }
    Ok((id, update))
}

pub(super) fn mailbox(context: &Context, id: &IdOrReference) -> Option<MailboxId> {
    context.resolve(id).as_ref().and_then(ids::parse_mailbox)
}

/// Writes a message, and puts it.
async fn create(
    context: &Context,
    wanted: &Object,
    condition: Option<Since>,
) -> Result<Result<(Id, Value), SetError>, MethodError> {
    let draft = match compose::Draft::parse(wanted) {
        Ok(draft) => draft,
        Err(error) => return Ok(Err(error)),
    };
    let mailboxes: Option<BTreeSet<MailboxId>> =
        draft.mailboxes.iter().map(|id| mailbox(context, id)).collect();
    let Some(mailboxes) = mailboxes else {
        return Ok(Err(SetError::property("mailboxIds", "there is no such mailbox")));
    };
    let Some(flags) = flag_set(&draft.keywords) else {
        return Ok(Err(SetError::property("keywords", "not a set of keywords")));
    };
    let body = match compose::write(context, &draft).await? {
        Ok(body) => body,
        Err(error) => return Ok(Err(error)),
    };
    let received = draft.received_at.map(InternalDate::utc);
    let request = ImportRequest { mailboxes, body, flags, received };
    put(context, request, condition).await
}
