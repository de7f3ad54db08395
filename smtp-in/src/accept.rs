//! The message is complete: take it over, or say why not. Nothing here says 250 but with a commit in hand.

use ::mail::mime::Facts;
use metrics::counter;
use queue::{Body, Committed, Origin, Submission};
use smtp_protocol::reply::{Reply, ok};
use smtp_protocol::status::status;
use tracing::{info, warn};

use crate::data::{AccountWriter, Writer, account_of};
use crate::policy;
use crate::rcpt::check_quota;
use crate::service::Role;
use crate::session::{Session, Transaction};
use crate::{place, submission, trace};

/// Decides about the message of the transaction, which is over with that.
pub(crate) async fn decide(session: &mut Session) -> Vec<Reply> {
    let Some(mut transaction) = session.transaction.take() else { return vec![policy::no_transaction()] };
    let recipients = transaction.envelope.recipients.len();
    let replies = match transaction.writer.take() {
        Some(Writer::Queue(writer)) => match writer.finish().await {
            Ok(body) => vec![enqueue(session, transaction, body).await],
            Err(error) => {
                warn!(%error, cause = ?std::error::Error::source(&error), "body not finished");
                vec![policy::for_body(&error)]
            }
        },
        Some(Writer::Account(account, AccountWriter(writer))) => match writer.finish().await {
            Ok(body) => place::each(session, &transaction, account, body).await,
            Err(error) => {
                warn!(%error, cause = ?std::error::Error::source(&error), "body not finished");
                vec![policy::for_write(&error)]
            }
        },
        None => vec![policy::no_transaction()],
    };
    for reply in &replies {
        let outcome = match reply.code / 100 {
            2 => "accepted",
            4 => "deferred",
            _ => "refused",
        };
        counter!("postrider_smtp_messages_total", "role" => session.role.name(), "outcome" => outcome)
            .increment(1);
        if !reply.is_positive() {
            info!(recipients, %reply, "message not accepted");
        }
    }
    replies
}

async fn enqueue(session: &Session, transaction: Transaction, body: Body) -> Reply {
    match check(session, &transaction, body.facts()).await {
        Ok(()) => {}
        Err(reply) => return reply,
    }
    let Transaction { envelope, resolved, .. } = transaction;
    let queue_id = body.queue_id().to_string();
    let mut prefix = trace::received(session, &envelope, &queue_id);
    if session.role == Role::Submission {
        submission::complete(&mut prefix, body.facts(), &session.service.config.hostname);
    }
    let size = body.size();
    let recipients = envelope.recipients.len();
    let sender = envelope.reverse_path.to_string();
    let origin = Origin {
        principal: session.client.principal.as_ref().map(|principal| principal.account),
        remote_ip: session.pump.peer().remote.ip(),
        session_id: session.id.clone(),
    };
    let prefix = prefix.into();
    match session.service.queue.submit(Submission { envelope, resolved, body, prefix, origin }).await {
        Ok(committed) => {
            info!(queue_id, sender, recipients, size, "message accepted");
            queued(&committed)
        }
        Err(error) => {
            warn!(queue_id, %error, "message not queued");
            policy::for_submit(&error)
        }
    }
}

/// 250 for a queued message. It takes the proof that the queue has it.
fn queued(committed: &Committed) -> Reply {
    ok(status(2, 0, 0), format!("Queued as {}", committed.queue_id()))
}

/// What can be known only with the whole message.
pub(crate) async fn check(session: &Session, transaction: &Transaction, facts: &Facts) -> Result<(), Reply> {
    if facts.received_count >= session.service.config.received_max {
        return Err(policy::loops());
    }
    // SMTP has one answer for all. While anybody has room, the message is taken; the others' senders hear of it later.
    let mut full = None;
    for resolved in &transaction.resolved {
        let Some(account) = account_of(resolved) else { return Ok(()) };
        match check_quota(session, account, facts.size).await {
            Ok(()) => return Ok(()),
            Err(reply) => full = Some(reply),
        }
    }
    full.map_or(Ok(()), Err)
}
