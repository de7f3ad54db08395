//! VacationResponse/set (RFC 8621 §8.2). It is there from the beginning, and stays.

use jmap_protocol::method::{Set, SetAnswer};
use jmap_protocol::object::vacation::{SINGLETON, Wanted};
use jmap_protocol::{
    Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind, patch,
};
use serde_json::{Value, json};
use storage::{ObjectKind, ObjectWrite, Since};

use super::super::{Outcome, write_one};
use super::{state, stored};
use crate::jmap::context::Context;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let set = Set::take(arguments, context.config().objects_in_set_max)?;
    std::mem::take(arguments).finish()?;
    let mut condition = super::super::if_in_state(set.if_in_state.as_deref())?;
    let old_state = state(context).await?;
    set.check_state(&old_state)?;
    let mut answer = SetAnswer::default();
    for (key, _) in set.create {
        answer.not_created.insert(key, singleton());
    }
    for (id, wanted) in set.update {
        match update(context, &id, &wanted, condition).await? {
            Ok(_) => {
                condition = None;
                answer.updated.insert(id.to_string(), Value::Null);
            }
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    for id in set.destroy {
        let error = if is_it(context, &id) { singleton() } else { missing() };
        answer.not_destroyed.insert(id.to_string(), error);
    }
    let new_state = state(context).await?;
    Ok(answer.into_object(&account, Some(&old_state), &new_state))
}

async fn update(
    context: &Context,
    id: &IdOrReference,
    wanted: &Object,
    condition: Option<Since>,
) -> Outcome<Id> {
    if !is_it(context, id) {
        return Ok(Err(missing()));
    }
    let (before, changed) = stored(&context.account().state())?;
    let shown = before.to_object();
    let patched = match patch::apply(&shown, wanted) {
        Ok(patched) => patched,
        Err(error) => return Ok(Err(error)),
    };
    let mut news = Object::new();
    for (name, value) in patched {
        if shown.get(&name) == Some(&value) {
            continue;
        }
        // RFC 8620 §5.3: null stands for the default.
        let value = if name == "isEnabled" && value.is_null() { json!(false) } else { value };
        news.insert(name, value);
    }
    let read = match Wanted::parse(&news) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    let mut vacation = before;
    vacation.take(read);
    let (id, value) = (SINGLETON.to_owned(), vacation.encode().into());
    let write = match changed {
        Some(since) => ObjectWrite::Replace { id, value, unchanged_since: Some(since) },
        None => ObjectWrite::Create { id: Some(id), value },
    };
    let written = write_one(context, ObjectKind::VACATION_RESPONSE, write, condition).await?;
    if written.is_ok() {
        forget_answered(context).await;
    }
    Ok(written)
}

/// With another text, or for another absence, everybody may have an answer again.
async fn forget_answered(context: &Context) {
    let gone: Vec<ObjectWrite> = context
        .account()
        .state()
        .objects(ObjectKind::VACATION_ANSWERED)
        .map(|(id, _)| ObjectWrite::Remove { id: id.to_owned() })
        .collect();
    if gone.is_empty() {
        return;
    }
    if let Err(error) = context.account().write_objects(ObjectKind::VACATION_ANSWERED, gone, None).await {
        tracing::warn!(%error, "who has a vacation response is not forgotten");
    }
}

fn is_it(context: &Context, id: &IdOrReference) -> bool {
    context.resolve(id).is_some_and(|id| id.as_str() == SINGLETON)
}

/// RFC 8620 §5.3 `singleton`
fn singleton() -> SetError {
    SetError::new(SetErrorKind::Singleton, "there is one, and there is always one")
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such vacation response")
}
