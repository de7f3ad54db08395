//! PushSubscription/set (RFC 8620 §7.2.2).

use aws_lc_rs::{constant_time, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use directory::{KeptSubscription, Subscription, SubscriptionId};
use jmap_protocol::method::{Set, SetAnswer};
use jmap_protocol::object::push_subscription::Wanted;
use jmap_protocol::{Arguments, Id, MethodError, Object, SetError, SetErrorKind, date, patch};
use serde_json::{Value, json};

use super::{missing, one, one_of, show, trouble};
use crate::jmap::context::{self, Context};
use crate::jmap::push::{Endpoint, is_good, keys, unix_now};
use crate::jmap::{ids, view};

/// What the client gave and is kept as it is, so that it need not be told.
const GIVEN: [&str; 1] = ["deviceClientId"];
/// How often a change is made anew because something else changed the subscription.
const TRIES: usize = 4;
/// Random octets of a code.
const CODE: usize = 24;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let set = Set::take(arguments, context.config().objects_in_set_max)?;
    std::mem::take(arguments).finish()?;
    if set.if_in_state.is_some() {
        return Err(MethodError::InvalidArguments("ifInState: no such argument".to_owned()));
    }
    let mut answer = SetAnswer::default();
    for (key, wanted) in set.create {
        match create(context, &wanted).await? {
            Ok(kept) => {
                let mut shown = show(&kept);
                shown
                    .retain(|name, value| !GIVEN.contains(&name.as_str()) && wanted.get(name) != Some(value));
                context.created_ids.insert(key.clone(), ids::subscription(kept.id));
                answer.created.insert(key, Value::Object(shown));
            }
            Err(error) => drop(answer.not_created.insert(key, error)),
        }
    }
    for (id, patch) in set.update {
        let updated = match context.resolve(&id) {
            Some(resolved) => update(context, &resolved, &patch).await?.map(|shown| (resolved, shown)),
            None => Err(missing()),
        };
        match updated {
            Ok((resolved, shown)) => drop(answer.updated.insert(resolved.to_string(), shown)),
            Err(error) => drop(answer.not_updated.insert(id.to_string(), error)),
        }
    }
    for id in set.destroy {
        let kept = match context.resolve(&id) {
            Some(resolved) => one(context, &resolved).await?.map(|kept| (resolved, kept)),
            None => None,
        };
        let Some((resolved, kept)) = kept else {
            answer.not_destroyed.insert(id.to_string(), missing());
            continue;
        };
        let ended = context.inner().directory.unsubscribe(kept.account, kept.id).await;
        ended.map_err(|error| trouble(&error))?;
        answer.destroyed.push(resolved);
    }
    // RFC 8620 §7.2.2: neither account nor states.
    let mut answer = answer.into_object(&context.account_id(), None, "");
    for name in ["accountId", "oldState", "newState"] {
        answer.remove(name);
    }
    Ok(answer)
}

type Outcome<T> = Result<Result<T, SetError>, MethodError>;

async fn create(context: &Context, wanted: &Object) -> Outcome<KeptSubscription> {
    match new_subscription(context, wanted) {
        Ok(subscription) => keep(context, &subscription).await,
        Err(error) => Ok(Err(error)),
    }
}

fn new_subscription(context: &Context, wanted: &Object) -> Result<Subscription, SetError> {
    let principal = &context.user().principal;
    let config = context.inner().push.config();
    let wanted = Wanted::parse(wanted)?;
    let needed = |name: &'static str| SetError::property(name, "missing");
    let device = wanted.device.ok_or_else(|| needed("deviceClientId"))?;
    let url = wanted.url.ok_or_else(|| needed("url"))?;
    Endpoint::parse(&url, config).map_err(|why| SetError::property("url", why))?;
    // RFC 8620 §7.2: it comes by push, and cannot be known before.
    if wanted.code.flatten().is_some() {
        return Err(SetError::property("verificationCode", "cannot be known yet"));
    }
    let keys = match wanted.keys.flatten() {
        None => None,
        Some((p256dh, auth)) => {
            let keys = keys(&p256dh, &auth);
            Some(keys.ok_or_else(|| SetError::property("keys", "not keys of RFC 8291"))?)
        }
    };
    let now = unix_now();
    let mut code = [0; CODE];
    rand::fill(&mut code).map_err(|_| SetError::new(SetErrorKind::ServerFail, "no random numbers"))?;
    Ok(Subscription {
        address: principal.address.to_string(),
        by: principal.by.clone(),
        device,
        url,
        keys,
        code: URL_SAFE_NO_PAD.encode(code),
        is_verified: false,
        created: now,
        expires: expires(wanted.expires.flatten(), now, config.expires_seconds_max)?,
        types: wanted.types.flatten(),
        told: Vec::new(),
    })
}

/// RFC 8620 §7.2: one is set where the client sets none, and one that is too far away is moved.
fn expires(wanted: Option<i64>, now: u64, seconds_max: u64) -> Result<u64, SetError> {
    let latest = now.saturating_add(seconds_max);
    match wanted.map(u64::try_from) {
        None => Ok(latest),
        Some(Ok(at)) if at > now => Ok(at.min(latest)),
        Some(_) => Err(SetError::property("expires", "is over")),
    }
}

async fn keep(context: &Context, subscription: &Subscription) -> Outcome<KeptSubscription> {
    let (push, directory) = (&context.inner().push, &context.inner().directory);
    let account = context.user().principal.account;
    let most = push.config().subscriptions_max;
    let there = directory.subscriptions(account).await.map_err(|error| trouble(&error))?;
    let now = unix_now();
    // Others' of this account count too, which are not told of otherwise.
    let (good, over): (Vec<_>, Vec<_>) = there.into_iter().partition(|kept| is_good(kept, now));
    for kept in over {
        directory.unsubscribe(account, kept.id).await.map_err(|error| trouble(&error))?;
    }
    if good.len() >= most {
        let why = format!("an account can have {most} push subscriptions");
        return Ok(Err(SetError::new(SetErrorKind::OverQuota, why)));
    }
    let Some(permit) = push.code_permit().filter(|_| push.may_subscribe(account)) else {
        let why = "too many push subscriptions were made lately";
        return Ok(Err(SetError::new(SetErrorKind::RateLimit, why)));
    };
    let kept = directory.subscribe(account, SubscriptionId::random(), subscription).await;
    let kept = kept.map_err(|error| trouble(&error))?;
    permit.say(kept.clone());
    push.watch(account);
    Ok(Ok(kept))
}

/// The answer is what the client could not know.
async fn update(context: &Context, id: &Id, changes: &Object) -> Outcome<Value> {
    let Some(mut before) = one(context, id).await? else { return Ok(Err(missing())) };
    for _ in 0..TRIES {
        let (mut after, wants_expiry) = match changed(context, &before, changes) {
            Ok(changed) => changed,
            Err(error) => return Ok(Err(error)),
        };
        if after.is_verified && !before.subscription.is_verified {
            // From now on it is told what changes from now on.
            let state = context.account().refresh().await.map_err(|error| context::trouble(&error))?;
            let states = view::states(&state).into_iter();
            after.told = states.map(|(name, state)| (name.to_owned(), state)).collect();
        }
        let directory = &context.inner().directory;
        let kept = if after == before.subscription {
            Some(before.clone())
        } else {
            directory.change_subscription(&before, &after).await.map_err(|error| trouble(&error))?
        };
        if let Some(kept) = kept {
            context.inner().push.watch(kept.account);
            let told = date::utc(i64::try_from(after.expires).unwrap_or(i64::MAX));
            let is_other = wants_expiry.is_some_and(|wanted| wanted != json!(told));
            return Ok(Ok(if is_other { json!({"expires": told}) } else { Value::Null }));
        }
        match one_of(context, before.id).await? {
            Some(found) => before = found,
            None => return Ok(Err(missing())),
        }
    }
    Err(MethodError::ServerUnavailable)
}

/// What a patch makes of a subscription, and the expiry that it asks for.
fn changed(
    context: &Context,
    before: &KeptSubscription,
    changes: &Object,
) -> Result<(Subscription, Option<Value>), SetError> {
    let shown = show(before);
    let patched = patch::apply(&shown, changes)?;
    let mut differs = Object::new();
    for (name, value) in patched {
        // RFC 8620 §5.3: what cannot be changed may be given as it is. The code is shown once it was right.
        if name != "verificationCode" && shown.get(&name) == Some(&value) {
            continue;
        }
        if matches!(name.as_str(), "id" | "deviceClientId" | "url" | "keys") {
            return Err(SetError::property(name, "cannot be changed"));
        }
        differs.insert(name, value);
    }
    let code_given = changes.contains_key("verificationCode");
    let asked = changes.get("expires").cloned();
    let wanted = Wanted::parse(&differs)?;
    let mut after = before.subscription.clone();
    if code_given {
        let code = wanted.code.flatten().unwrap_or_default();
        let is_right = constant_time::verify_slices_are_equal(code.as_bytes(), after.code.as_bytes());
        is_right.map_err(|_| SetError::property("verificationCode", "not the code that was pushed"))?;
        after.is_verified = true;
    }
    if let Some(expiry) = wanted.expires {
        let config = context.inner().push.config();
        after.expires = expires(expiry, unix_now(), config.expires_seconds_max)?;
    }
    if let Some(types) = wanted.types {
        after.types = types;
    }
    Ok((after, asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_has_its_limits() {
        assert_eq!(expires(None, 1_000, 500), Ok(1_500));
        assert_eq!(expires(Some(1_200), 1_000, 500), Ok(1_200));
        assert_eq!(expires(Some(9_000), 1_000, 500), Ok(1_500));
        assert!(expires(Some(1_000), 1_000, 500).is_err());
        assert!(expires(Some(-5), 1_000, 500).is_err());
    }
}
