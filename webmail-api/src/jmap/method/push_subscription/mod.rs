//! Push subscriptions (RFC 8620 §7.2). They are of no account but of a login: whoever has logged in otherwise does not see
//! them, and they have no state.

pub(crate) mod get;
pub(crate) mod set;

use directory::{KeptSubscription, SubscriptionId, Temporary};
use jmap_protocol::method::object;
use jmap_protocol::{Id, MethodError, Object, SetError, SetErrorKind, date};
use serde_json::json;

use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::push::{is_good, unix_now};

/// Those of this login that are not over.
async fn own(context: &Context) -> Result<Vec<KeptSubscription>, MethodError> {
    let principal = &context.user().principal;
    let kept =
        context.inner().directory.subscriptions(principal.account).await.map_err(|error| trouble(&error))?;
    let now = unix_now();
    Ok(kept.into_iter().filter(|kept| kept.subscription.is_of(principal) && is_good(kept, now)).collect())
}

/// One of them.
async fn one(context: &Context, id: &Id) -> Result<Option<KeptSubscription>, MethodError> {
    let Some(id) = ids::parse_subscription(id) else { return Ok(None) };
    one_of(context, id).await
}

async fn one_of(context: &Context, id: SubscriptionId) -> Result<Option<KeptSubscription>, MethodError> {
    let principal = &context.user().principal;
    let kept = context.inner().directory.subscription(principal.account, id).await;
    let kept = kept.map_err(|error| trouble(&error))?;
    let now = unix_now();
    Ok(kept.filter(|kept| kept.subscription.is_of(principal) && is_good(kept, now)))
}

/// A subscription, as its client is told. The code is not told before the client has said it: it is to come by push.
fn show(kept: &KeptSubscription) -> Object {
    let subscription = &kept.subscription;
    object(json!({
        "id": ids::subscription(kept.id),
        "deviceClientId": subscription.device,
        "verificationCode": subscription.is_verified.then_some(&subscription.code),
        "expires": date::utc(i64::try_from(subscription.expires).unwrap_or(i64::MAX)),
        "types": subscription.types,
    }))
}

fn missing() -> SetError {
    SetError::new(SetErrorKind::NotFound, "there is no such push subscription")
}

fn trouble(error: &Temporary) -> MethodError {
    tracing::warn!(%error, "directory unavailable");
    MethodError::ServerUnavailable
}
