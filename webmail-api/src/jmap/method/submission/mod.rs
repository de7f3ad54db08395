//! Submissions (RFC 8621 §7).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod query;
pub(crate) mod set;

use jmap_protocol::{Id, MethodError};
use queue::Followed;
use storage::ObjectKind;

use crate::jmap::context::Context;
use crate::jmap::send::look::{Seen, look};
use crate::jmap::send::record::Record;
use crate::jmap::send::status::Undo;

/// Writes down what has become of submissions, before they are told of. Where that cannot be done now, what was found last
/// is told, which the next look puts right.
async fn look_at(context: &Context, ids: Option<&[Id]>) {
    let Ok(sending) = context.sending() else { return };
    if let Err(error) = look(context.account(), sending, ids, &mut Seen::default()).await {
        tracing::warn!(%error, "submissions not looked at");
    }
}

/// Whether a submission can be taken back at this moment. The queue is asked only where that is not known without it.
async fn undo(context: &Context, record: &Record) -> Result<Undo, MethodError> {
    let sending = context.sending()?;
    let followed = if record.held && !record.is_settled() {
        let followed = sending.queue.follow(record.queue_id, record.shard(), record.send_at).await;
        followed.map_err(|error| {
            tracing::warn!(queue_id = %record.queue_id, %error, "submission not followed");
            MethodError::ServerUnavailable
        })?
    } else {
        Followed::default()
    };
    Ok(Undo::of(record, &followed, sending.queue.clock().now(), &sending.rules))
}

/// The state of submissions.
async fn state(context: &Context) -> Result<String, MethodError> {
    let state = context.fresh_account().await?.state();
    Ok(state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string())
}
