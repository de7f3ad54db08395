//! Submissions (RFC 8621 §7).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod query;
pub(crate) mod set;

use jmap_protocol::MethodError;
use queue::Followed;
use storage::ObjectKind;

use crate::jmap::context::Context;
use crate::jmap::send::record::Record;
use crate::jmap::send::status::Undo;

/// Where a submission is in the queue.
pub(super) async fn follow(context: &Context, record: &Record) -> Result<Followed, MethodError> {
    let queue = &context.sending()?.queue;
    queue.follow(record.queue_id, record.shard(), record.send_at).await.map_err(|error| {
        tracing::warn!(queue_id = %record.queue_id, %error, "submission not followed");
        MethodError::ServerUnavailable
    })
}

/// Whether it can be taken back. The queue is asked only where that is not known without it.
pub(super) async fn undo(context: &Context, record: &Record) -> Result<Undo, MethodError> {
    let sending = context.sending()?;
    let followed =
        if record.held && !record.canceled { follow(context, record).await? } else { Followed::default() };
    Ok(Undo::of(record, &followed, sending.queue.clock().now(), &sending.rules))
}

/// The state of submissions. What becomes of them in the queue does not change it: it is told to those who ask.
pub(super) async fn state(context: &Context) -> Result<String, MethodError> {
    let state = context.fresh_account().await?.state();
    Ok(state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string())
}
