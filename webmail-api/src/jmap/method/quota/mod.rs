//! Quotas (RFC 9425). They cannot be set here.

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod query;
pub(crate) mod query_changes;

use jmap_protocol::MethodError;

use crate::jmap::context::Context;
use crate::jmap::quota::Levels;
use crate::jmap::session::MAIL;

/// The quotas as they are now.
async fn now(context: &Context) -> Result<Levels, MethodError> {
    Ok(Levels::of(&context.fresh_account().await?.state().quota()))
}

/// RFC 9425 §4.1: a client that does not use mail is not told of quotas for it, and there are no others.
fn is_seen(context: &Context) -> bool {
    context.uses(MAIL)
}
