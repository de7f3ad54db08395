//! EmailSubmission/set (RFC 8621 §7.5): sending, taking back, and what is done to the emails that were sent.

use std::collections::BTreeMap;

use jmap_protocol::arguments::list;
use jmap_protocol::method::{Set, SetAnswer, object};
use jmap_protocol::object::submission::{New, is_cancellation};
use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind};
use mail::id::EmailId;
use serde_json::{Value, json};
use storage::{ObjectKind, ObjectWrite, Since};

use super::super::email;
use super::super::{Outcome, write_one};
use super::get::properties;
use super::undo;
use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::send::Sending;
use crate::jmap::send::record::Record;
use crate::jmap::send::status::Undo;
use crate::jmap::send::submit::{Submitted, is_given, submit};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let most = context.config().objects_in_set_max;
    let set = Set::take(arguments, most)?;
    let then = Then::take(arguments, most)?;
    std::mem::take(arguments).finish()?;
    let mut condition = super::super::if_in_state(set.if_in_state.as_deref())?;
    let old_state = super::state(context).await?;
    set.check_state(&old_state)?;
    let mut answer = SetAnswer::default();
    // The emails of those that succeeded, as the client names the submissions.
    let mut done: BTreeMap<IdOrReference, EmailId> = BTreeMap::new();
    for (key, wanted) in set.create {
        match settled(create(context, &wanted, condition).await)? {
            Ok((id, email, shown)) => {
                condition = None;
                done.insert(IdOrReference::Created(key.clone()), email);
                done.insert(IdOrReference::Id(id.clone()), email);
                context.created_ids.insert(key.clone(), id);
                answer.created.insert(key, shown);
            }
            Err(error) => drop(answer.not_created.insert(key, error)),
        }
    }
    for (id, patch) in set.update {
        match settled(update(context, &id, &patch, condition).await)? {
            Ok((resolved, email)) => {
                condition = None;
                done.insert(IdOrReference::Id(resolved), email);
                answer.updated.insert(id.to_string(), Value::Null);
                done.insert(id, email);
            }
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    for id in set.destroy {
        match settled(destroy(context, &id, condition).await)? {
            Ok((resolved, email)) => {
                condition = None;
                done.insert(IdOrReference::Id(resolved.clone()), email);
                answer.destroyed.push(resolved);
                done.insert(id, email);
            }
            Err(error) => drop(answer.not_destroyed.insert(id.to_string(), error)),
        }
    }
    // What was sent must be told, whatever cannot be read now.
    let state = context.account().state();
    let new_state = state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string();
    then.run(context, &account, &done).await;
    Ok(answer.into_object(&account, Some(&old_state), &new_state))
}

/// Trouble with one submission is told of that one: a client that heard nothing of those before it would send them again.
fn settled<T>(outcome: Outcome<T>) -> Outcome<T> {
    match outcome {
        // Then nothing was done before it.
        Err(MethodError::StateMismatch) => Err(MethodError::StateMismatch),
        Err(error) => Ok(Err(SetError::new(SetErrorKind::ServerFail, error.to_string()))),
        decided => decided,
    }
}

/// What is to be done with the emails of submissions that succeeded.
struct Then {
    update: BTreeMap<IdOrReference, Object>,
    destroy: Vec<IdOrReference>,
}

impl Then {
    fn take(arguments: &mut Arguments, most: usize) -> Result<Self, MethodError> {
        let update = arguments.objects_or_references("onSuccessUpdateEmail")?;
        let read = |value: &Value| list(value, IdOrReference::from_value);
        let destroy = arguments.nullable("onSuccessDestroyEmail", "a list of ids", read)?.unwrap_or_default();
        if update.len() + destroy.len() > most {
            return Err(MethodError::RequestTooLarge(format!("more than {most} objects")));
        }
        Ok(Self { update, destroy })
    }

    /// One implicit Email/set, whose answer stands behind this call's (RFC 8621 §7.5).
    async fn run(self, context: &mut Context, account: &Id, done: &BTreeMap<IdOrReference, EmailId>) {
        let find = |context: &Context, id: &IdOrReference| {
            let resolved = || context.resolve(id).map(IdOrReference::Id);
            done.get(id).or_else(|| done.get(&resolved()?)).map(|email| ids::email(*email).to_string())
        };
        let mut update = Object::new();
        for (id, patch) in self.update {
            let Some(email) = find(context, &id) else { continue };
            // Two submissions of one email: what is asked for by both is done once.
            if let Value::Object(together) = update.entry(email).or_insert_with(|| json!({})) {
                together.extend(patch);
            }
        }
        let mut destroy: Vec<String> = self.destroy.iter().filter_map(|id| find(context, id)).collect();
        destroy.sort_unstable();
        destroy.dedup();
        if update.is_empty() && destroy.is_empty() {
            return;
        }
        let asked = object(json!({"accountId": account, "update": update, "destroy": destroy}));
        let answered = Box::pin(email::set::run(context, &mut Arguments::new(asked))).await;
        context.more.push(match answered {
            Ok(answer) => ("Email/set", answer),
            Err(error) => ("error", error.arguments()),
        });
    }
}

async fn create(
    context: &Context,
    wanted: &Object,
    condition: Option<Since>,
) -> Outcome<(Id, EmailId, Value)> {
    let new = match New::parse(wanted) {
        Ok(new) => new,
        Err(error) => return Ok(Err(error)),
    };
    let Submitted { id, record } = match Box::pin(submit(context, &new, condition)).await? {
        Ok(submitted) => submitted,
        Err(error) => return Ok(Err(error)),
    };
    let sending = context.sending()?;
    let undo = Undo::at_first(&record, sending.queue.clock().now(), &sending.rules);
    let mut shown = properties(&id, &record, undo);
    shown.retain(|name, _| !is_given(name, &new));
    Ok(Ok((id, record.email(), Value::Object(shown))))
}

/// The only change is that it is taken back.
async fn update(
    context: &Context,
    id: &IdOrReference,
    patch: &Object,
    condition: Option<Since>,
) -> Outcome<(Id, EmailId)> {
    let Some((id, record)) = find(context, id) else { return Ok(Err(missing())) };
    let undo = undo(context, &record).await?;
    let mut shown = properties(&id, &record, undo);
    // Nobody can know these well enough to say that they stay.
    shown.remove("deliveryStatus");
    shown.remove("dsnBlobIds");
    match is_cancellation(&shown, patch) {
        Ok(true) => {}
        Ok(false) => return Ok(Ok((id, record.email()))),
        Err(error) => return Ok(Err(error)),
    }
    if undo == Undo::Final {
        return Ok(Err(cannot_unsend()));
    }
    let state = context.account().state();
    let known = state.objects_state(ObjectKind::EMAIL_SUBMISSION);
    if condition.is_some_and(|condition| condition != known) {
        return Err(MethodError::StateMismatch);
    }
    if undo == Undo::Pending && !withdraw(context, &record).await? {
        return Ok(Err(cannot_unsend()));
    }
    // From here on it is so. The record is only written so that it is known for longer than the queue knows it.
    let email = record.email();
    let value = Record { canceled: true, ..record }.encode();
    let write = ObjectWrite::Replace { id: id.to_string(), value, unchanged_since: None };
    match write_one(context, ObjectKind::EMAIL_SUBMISSION, write, None).await? {
        Ok(id) => Ok(Ok((id, email))),
        Err(error) => Ok(Err(error)),
    }
}

/// Takes it out of the queue. `false`: somebody has begun with it, or may have.
async fn withdraw(context: &Context, record: &Record) -> Result<bool, MethodError> {
    let Sending { queue, rules, .. } = context.sending()?;
    let sure = queue.clock().now().saturating_add(rules.undo_margin_seconds);
    queue.withdraw(record.queue_id, record.shard(), sure).await.map_err(|error| {
        tracing::warn!(queue_id = %record.queue_id, %error, "submission not taken back");
        MethodError::ServerUnavailable
    })
}

/// It is not remembered any more; what is in the queue stays there.
async fn destroy(context: &Context, id: &IdOrReference, condition: Option<Since>) -> Outcome<(Id, EmailId)> {
    let Some((id, record)) = find(context, id) else { return Ok(Err(missing())) };
    let write = ObjectWrite::Remove { id: id.to_string() };
    let removed = write_one(context, ObjectKind::EMAIL_SUBMISSION, write, condition).await?;
    Ok(removed.map(|id| (id, record.email())))
}

fn find(context: &Context, id: &IdOrReference) -> Option<(Id, Record)> {
    let id = context.resolve(id)?;
    let record = Record::find(&context.account().state(), &id)?;
    Some((id, record))
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such submission")
}

fn cannot_unsend() -> SetError {
    SetError::new(SetErrorKind::CannotUnsend, "it is sent, or on its way")
}
