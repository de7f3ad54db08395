//! Mailbox/set (RFC 8621 §2.5). Each mailbox is a commit of its own.

use std::collections::{BTreeMap, BTreeSet};

use jmap_protocol::method::{Set, SetAnswer, object};
use jmap_protocol::object::mailbox::Wanted;
use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind};
use mail::id::MailboxId;
use serde_json::{Value, json};
use storage::{MailboxError, MailboxPatch, MailboxSetError, NewMailbox, OnDestroy, Role};

use super::get::show;
use super::role;
use crate::jmap::context::{Context, record_trouble, trouble};
use crate::jmap::ids;

/// What the client gave, so that it need not be told.
const GIVEN: [&str; 5] = ["name", "parentId", "role", "sortOrder", "isSubscribed"];

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let set = Set::take(arguments, context.config().objects_in_set_max)?;
    let removes_emails = arguments.boolean("onDestroyRemoveEmails", false)?;
    std::mem::take(arguments).finish()?;
    let mut condition = super::super::if_in_state(set.if_in_state.as_deref())?;
    let old_state = context.view().await?.mailbox_state();
    set.check_state(&old_state)?;
    let mut answer = SetAnswer::default();

    for (key, wanted) in in_order(set.create) {
        match create(context, &wanted, condition).await? {
            Ok(id) => {
                condition = None;
                let view = context.view().await?;
                let mut shown = match view.mailbox(id) {
                    Some(mailbox) => show(&view, &mailbox, view.counts(id)),
                    None => object(json!({"id": ids::mailbox(id)})),
                };
                // A name may have become another one.
                shown
                    .retain(|name, value| !GIVEN.contains(&name.as_str()) || wanted.get(name) != Some(value));
                context.created_ids.insert(key.clone(), ids::mailbox(id));
                answer.created.insert(key, Value::Object(shown));
            }
            Err(error) => drop(answer.not_created.insert(key, error)),
        }
    }
    for (id, patch) in set.update {
        match update(context, &id, &patch, condition).await? {
            Ok(id) => {
                condition = None;
                answer.updated.insert(id.to_string(), Value::Null);
            }
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    // Those within others go first, so that a whole tree can be destroyed at once.
    let view = context.view().await?;
    let depth = |id: &IdOrReference| {
        let mailbox =
            context.resolve(id).as_ref().and_then(ids::parse_mailbox).and_then(|id| view.mailbox(id));
        mailbox.map_or(0, |mailbox| mailbox.name.matches(storage::mailbox::SEPARATOR).count())
    };
    let mut destroy: Vec<(usize, IdOrReference)> =
        set.destroy.into_iter().map(|id| (depth(&id), id)).collect();
    destroy.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    let emails = if removes_emails { OnDestroy::RemoveEmails } else { OnDestroy::Refuse };
    for (_, id) in destroy {
        let Some((resolved, number)) = named(context, &id) else {
            answer.not_destroyed.insert(id.to_string(), missing());
            continue;
        };
        match context.account().destroy_mailbox(number, emails, condition).await {
            Ok(_) => {
                condition = None;
                answer.destroyed.push(resolved);
            }
            Err(error) => drop(answer.not_destroyed.insert(id.to_string(), refused(&error)?)),
        }
    }
    let new_state = context.view().await?.mailbox_state();
    Ok(answer.into_object(&account, Some(&old_state), &new_state))
}

/// What is created within something that is created by the same call comes after it. What goes round in a circle comes
/// last, and will be refused for a parent that is not there.
fn in_order(create: BTreeMap<Id, Object>) -> Vec<(Id, Object)> {
    let parents: BTreeMap<Id, Option<Id>> = create
        .iter()
        .map(|(key, wanted)| {
            let parent = wanted.get("parentId").and_then(IdOrReference::from_value);
            let created = match parent {
                Some(IdOrReference::Created(parent)) if create.contains_key(&parent) => Some(parent),
                _ => None,
            };
            (key.clone(), created)
        })
        .collect();
    let mut depths: BTreeMap<&Id, usize> = BTreeMap::new();
    for key in parents.keys() {
        let (mut path, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = Some(key);
        let mut depth = 0;
        while let Some(key) = next {
            if let Some(known) = depths.get(key) {
                depth = known.saturating_add(1);
                break;
            }
            if !seen.insert(key) {
                depth = usize::MAX;
                break;
            }
            path.push(key);
            next = parents.get(key).and_then(Option::as_ref);
        }
        for key in path.into_iter().rev() {
            depths.insert(key, depth);
            depth = depth.saturating_add(1);
        }
    }
    let mut ordered: Vec<(usize, Id, Object)> = create
        .into_iter()
        .map(|(key, wanted)| (depths.get(&key).copied().unwrap_or(0), key, wanted))
        .collect();
    ordered.sort_by_key(|(depth, ..)| *depth);
    ordered.into_iter().map(|(_, key, wanted)| (key, wanted)).collect()
}

type Outcome<T> = Result<Result<T, SetError>, MethodError>;

async fn create(context: &Context, wanted: &Object, condition: Option<storage::Since>) -> Outcome<MailboxId> {
    let wanted = match Wanted::parse(wanted) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Err(error)),
    };
    let Some(name) = wanted.name else { return Ok(Err(SetError::property("name", "missing"))) };
    if let Err(error) = check_name(&name) {
        return Ok(Err(error));
    }
    let parent = match wanted.parent.flatten().map(|parent| named(context, &parent)) {
        None => None,
        Some(Some((_, parent))) => Some(parent),
        Some(None) => return Ok(Err(SetError::property("parentId", "there is no such mailbox"))),
    };
    let role = match wanted.role.flatten().map(|name| role(&name)) {
        None => None,
        Some(Some(role)) => Some(role),
        Some(None) => return Ok(Err(SetError::property("role", "there is no such role here"))),
    };
    let new = NewMailbox {
        parent,
        name,
        role,
        sort_order: wanted.sort_order.unwrap_or(0),
        is_subscribed: wanted.is_subscribed.unwrap_or(false),
    };
    match context.account().create_mailbox_in(new, condition).await {
        Ok(set) => Ok(Ok(set.answer.id)),
        Err(error) => Ok(Err(refused(&error)?)),
    }
}

async fn update(
    context: &Context,
    id: &IdOrReference,
    patch: &Object,
    condition: Option<storage::Since>,
) -> Outcome<Id> {
    let Some((resolved, number)) = named(context, id) else { return Ok(Err(missing())) };
    let view = context.view().await?;
    let Some(mailbox) = view.mailbox(number) else { return Ok(Err(missing())) };
    let mut changed = Object::new();
    let shown = show(&view, &mailbox, view.counts(number));
    for (name, value) in patch {
        if name.contains('/') {
            let error = SetError::new(
                SetErrorKind::InvalidPatch,
                format!("{name}: points into nothing that can be set"),
            );
            return Ok(Err(error));
        }
        // RFC 8620 §5.3: what the server sets may be given as it is.
        if GIVEN.contains(&name.as_str()) || shown.get(name) != Some(value) {
            changed.insert(name.clone(), value.clone());
        }
    }
    let mut wanted = match Wanted::parse(&changed) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Err(error)),
    };
    // Its name for JMAP is not the one that the account has, and stays if it stays.
    if mailbox.role == Some(Role::Inbox) && wanted.name.as_deref() == Some(super::own_name(&mailbox)) {
        wanted.name = None;
    }
    if let Some(Err(error)) = wanted.name.as_deref().map(check_name) {
        return Ok(Err(error));
    }
    let parent = match wanted.parent {
        None => None,
        Some(None) => Some(None),
        Some(Some(parent)) => match named(context, &parent) {
            Some((_, parent)) => Some(Some(parent)),
            None => return Ok(Err(SetError::property("parentId", "there is no such mailbox"))),
        },
    };
    let role = match wanted.role {
        None => None,
        Some(None) => Some(None),
        Some(Some(name)) => match role(&name) {
            Some(role) => Some(Some(role)),
            None => return Ok(Err(SetError::property("role", "there is no such role here"))),
        },
    };
    let patch = MailboxPatch {
        // The place that it is in already is no change, which INBOX could not have.
        parent: parent.filter(|parent| *parent != view.account.parent(number)),
        name: wanted.name,
        role,
        sort_order: wanted.sort_order,
        is_subscribed: wanted.is_subscribed,
    };
    match context.account().update_mailbox(number, patch, condition).await {
        Ok(_) => Ok(Ok(resolved)),
        Err(error) => Ok(Err(refused(&error)?)),
    }
}

fn named(context: &Context, id: &IdOrReference) -> Option<(Id, MailboxId)> {
    let id = context.resolve(id)?;
    let number = ids::parse_mailbox(&id)?;
    Some((id, number))
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such mailbox")
}

/// RFC 8621 §2: Net-Unicode of one character at least. The separator of levels cannot stand in a level.
fn check_name(name: &str) -> Result<(), SetError> {
    if name.is_empty() || name.contains(storage::mailbox::SEPARATOR) || name.chars().any(char::is_control) {
        return Err(SetError::property("name", "not a name for a mailbox"));
    }
    Ok(())
}

/// What one mailbox met; trouble with the whole account ends the call.
fn refused(error: &MailboxSetError) -> Result<SetError, MethodError> {
    Ok(match error {
        MailboxSetError::StateMismatch => return Err(MethodError::StateMismatch),
        MailboxSetError::NoParent => SetError::property("parentId", error.to_string()),
        MailboxSetError::HasEmail => SetError::new(SetErrorKind::MailboxHasEmail, error.to_string()),
        MailboxSetError::Mailbox(error) => match error {
            MailboxError::Missing => missing(),
            // RFC 8621 §2: no two neighbours have the same name.
            MailboxError::Exists | MailboxError::InvalidName(_) => {
                SetError::property("name", error.to_string())
            }
            MailboxError::HasChildren => SetError::new(SetErrorKind::MailboxHasChild, error.to_string()),
            MailboxError::NotPossible(_) => SetError::new(SetErrorKind::Forbidden, error.to_string()),
            MailboxError::RoleTaken => SetError::property("role", error.to_string()),
            MailboxError::TooMany => SetError::new(SetErrorKind::OverQuota, error.to_string()),
            MailboxError::Storage(error) if matches!(error, storage::StorageError::Closed) => {
                return Err(trouble(error));
            }
            MailboxError::Storage(error) => record_trouble(error),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first() {
        let check = |create: Value, expected: &[&str]| {
            let Value::Object(create) = create else { panic!("an object") };
            let create = create
                .into_iter()
                .map(|(key, parent)| (Id::new(key).unwrap(), object(json!({"parentId": parent}))));
            let ordered = in_order(create.collect());
            assert_eq!(ordered.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), expected);
        };
        check(json!({"a": "#b", "b": "#c", "c": null, "d": "#c"}), &["c", "b", "d", "a"]);
        check(json!({"a": "#b", "b": "#a", "c": "M1", "d": "#x"}), &["c", "d", "a", "b"]);
        check(json!({"a": "#a"}), &["a"]);
        let chain: Object =
            (0..2000).map(|n| (format!("k{n:04}"), json!(format!("#k{:04}", n + 1)))).collect();
        let create =
            chain.into_iter().map(|(key, it)| (Id::new(key).unwrap(), object(json!({"parentId": it}))));
        let ordered = in_order(create.collect());
        assert_eq!(ordered[0].0.as_str(), "k1999");
    }
}
