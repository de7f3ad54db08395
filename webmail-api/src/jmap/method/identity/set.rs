//! Identity/set (RFC 8621 §6.3). Each identity is a commit of its own.

use jmap_protocol::method::{Set, SetAnswer, object};
use jmap_protocol::object::identity::Wanted;
use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind, patch};
use mail::address::Address;
use serde_json::{Value, json};
use storage::{ObjectKind, ObjectWrite, Since};

use super::super::{Outcome, write_one};
use crate::jmap::context::Context;
use crate::jmap::send::identity::{self, Identity, Says, forbidden, may_send_as, stored_part};

/// What the client gave, so that it need not be told.
const GIVEN: [&str; 6] = ["name", "email", "replyTo", "bcc", "textSignature", "htmlSignature"];

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let set = Set::take(arguments, context.config().objects_in_set_max)?;
    std::mem::take(arguments).finish()?;
    let known = identity::known(context).await?;
    let stored = set.if_in_state.as_deref().map(|state| stored_part(state, &known));
    let stored = stored.map(|stored| stored.ok_or(MethodError::StateMismatch)).transpose()?;
    let mut condition = super::super::if_in_state(stored)?;
    let old_state = identity::state_of(&context.fresh_account().await?.state(), &known);
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
    for (id, wanted) in set.update {
        match update(context, &id, &wanted, condition).await? {
            Ok(id) => {
                condition = None;
                answer.updated.insert(id.to_string(), Value::Null);
            }
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    for id in set.destroy {
        match destroy(context, &id, condition).await? {
            Ok(id) => {
                condition = None;
                answer.destroyed.push(id);
            }
            Err(error) => drop(answer.not_destroyed.insert(id.to_string(), error)),
        }
    }
    let new_state = identity::state_of(&context.fresh_account().await?.state(), &known);
    Ok(answer.into_object(&account, Some(&old_state), &new_state))
}

async fn create(context: &Context, wanted: &Object, condition: Option<Since>) -> Outcome<(Id, Value)> {
    let read = match Wanted::parse(wanted) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let email = read.email.as_deref().unwrap_or_default();
    let Ok(address) = Address::parse(email) else {
        return Ok(Err(SetError::property("email", "not an address")));
    };
    if !may_send_as(context, &address).await? {
        return Ok(Err(forbidden(SetErrorKind::ForbiddenFrom, email)));
    }
    let value = Identity::encode(email, &says(Says::default(), &read));
    let write = ObjectWrite::Create { id: None, value };
    let id = match write_one(context, ObjectKind::IDENTITY, write, condition).await? {
        Ok(id) => id,
        Err(error) => return Ok(Err(error)),
    };
    let identity = identity::find(context, &context.account().state(), &id).await?;
    let mut shown = identity.map_or_else(|| object(json!({"id": id})), |identity| identity.show());
    shown.retain(|name, value| !GIVEN.contains(&name.as_str()) || wanted.get(name) != Some(value));
    Ok(Ok((id, Value::Object(shown))))
}

async fn update(
    context: &Context,
    id: &IdOrReference,
    wanted: &Object,
    condition: Option<Since>,
) -> Outcome<Id> {
    let identity = match context.resolve(id) {
        Some(id) => identity::find(context, &context.account().state(), &id).await?,
        None => None,
    };
    let Some(identity) = identity else { return Ok(Err(missing())) };
    let shown = identity.show();
    let patched = match patch::apply(&shown, wanted) {
        Ok(patched) => patched,
        Err(error) => return Ok(Err(error)),
    };
    let mut changed = Object::new();
    for (name, value) in patched {
        if shown.get(&name) == Some(&value) {
            continue;
        }
        // RFC 8621 §6: an identity's address stays.
        if name == "email" {
            return Ok(Err(SetError::property("email", "cannot be changed")));
        }
        // RFC 8620 §5.3: null stands for the default.
        let is_text = matches!(name.as_str(), "name" | "textSignature" | "htmlSignature");
        let value = if is_text && value.is_null() { json!("") } else { value };
        changed.insert(name, value);
    }
    let read = match Wanted::parse(&changed) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    if changed.is_empty() {
        return Ok(Ok(identity.id));
    }
    let id = identity.id.to_string();
    let value = Identity::encode(&identity.email, &says(identity.says, &read));
    let write = match identity.changed {
        Some(since) => ObjectWrite::Replace { id, value, unchanged_since: Some(since) },
        None => ObjectWrite::Create { id: Some(id), value },
    };
    write_one(context, ObjectKind::IDENTITY, write, condition).await
}

async fn destroy(context: &Context, id: &IdOrReference, condition: Option<Since>) -> Outcome<Id> {
    let Some(id) = context.resolve(id) else { return Ok(Err(missing())) };
    let found = identity::find(context, &context.account().state(), &id).await?;
    if found.is_some_and(|identity| !identity.may_delete) {
        let why = "the identities of the account's own address and of its aliases stay";
        return Ok(Err(SetError::new(SetErrorKind::Forbidden, why)));
    }
    let write = ObjectWrite::Remove { id: id.to_string() };
    write_one(context, ObjectKind::IDENTITY, write, condition).await
}

/// What an identity says after a change.
fn says(mut says: Says, wanted: &Wanted) -> Says {
    let list = |list: &Option<Vec<_>>| list.clone().map(|list| list.into_iter().map(Into::into).collect());
    if let Some(name) = &wanted.name {
        says.name.clone_from(name);
    }
    if let Some(reply_to) = &wanted.reply_to {
        says.reply_to = list(reply_to);
    }
    if let Some(bcc) = &wanted.bcc {
        says.bcc = list(bcc);
    }
    if let Some(text) = &wanted.text_signature {
        says.text_signature.clone_from(text);
    }
    if let Some(html) = &wanted.html_signature {
        says.html_signature.clone_from(html);
    }
    says
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such identity")
}
