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
use crate::service::{Inner, Role};
use crate::session::{Client, Transaction};
use crate::{place, submission, trace};

/// Decides about the message of the transaction, which is over with that.
pub(crate) async fn decide(
    service: &Inner,
    client: &Client,
    transaction: Transaction,
    writer: Writer,
) -> Vec<Reply> {
    let recipients = transaction.envelope.recipients.len();
    let replies = match writer {
        Writer::Queue(writer) => match writer.finish().await {
            Ok(body) => vec![enqueue(service, client, transaction, body).await],
            Err(error) => {
                warn!(%error, cause = ?std::error::Error::source(&error), "body not finished");
                vec![policy::for_body(&error)]
            }
        },
        Writer::Account(account, AccountWriter(writer)) => match writer.finish().await {
            Ok(body) => place::each(service, client, &transaction, account, body).await,
            Err(error) => {
                warn!(%error, cause = ?std::error::Error::source(&error), "body not finished");
                vec![policy::for_write(&error)]
            }
        },
    };
    for reply in &replies {
        let outcome = match reply.code / 100 {
            2 => "accepted",
            4 => "deferred",
            _ => "refused",
        };
        counter!("postrider_smtp_messages_total", "role" => client.role.name(), "outcome" => outcome)
            .increment(1);
        if !reply.is_positive() {
            info!(recipients, %reply, "message not accepted");
        }
    }
    replies
}

async fn enqueue(service: &Inner, client: &Client, transaction: Transaction, body: Body) -> Reply {
    match check(service, &transaction, body.facts()).await {
        Ok(()) => {}
        Err(reply) => return reply,
    }
    let Transaction { envelope, resolved, .. } = transaction;
    let queue_id = body.queue_id().to_string();
    let hostname = &service.config.hostname;
    let mut prefix = trace::received(client, hostname, &envelope, &queue_id);
    if client.role == Role::Submission {
        submission::complete(&mut prefix, body.facts(), hostname);
    }
    let size = body.size();
    let recipients = envelope.recipients.len();
    let sender = envelope.reverse_path.to_string();
    let origin = Origin {
        principal: client.principal.as_ref().map(|principal| principal.account),
        remote_ip: client.peer.remote.ip(),
        session_id: client.session_id.clone(),
    };
    let prefix = prefix.into();
    match service.queue.submit(Submission { envelope, resolved, body, prefix, origin }).await {
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
async fn check(service: &Inner, transaction: &Transaction, facts: &Facts) -> Result<(), Reply> {
    if facts.received_count >= service.config.received_max {
        return Err(policy::loops());
    }
    // SMTP has one answer for all. While anybody has room, the message is taken; the others' senders hear of it later.
    let mut full = None;
    for resolved in &transaction.resolved {
        let Some(account) = account_of(resolved) else { return Ok(()) };
        match check_quota(&service.storage, account, facts.size).await {
            Ok(()) => return Ok(()),
            Err(reply) => full = Some(reply),
        }
    }
    full.map_or(Ok(()), Err)
}
