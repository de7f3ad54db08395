//! The message comes, and goes on into a segment as it comes.

use ::mail::id::AccountId;
use bytes::Bytes;
use metrics::counter;
use queue::{BodyWriter, Resolved};
use smtp_protocol::reply::Reply;
use storage::{Account, MessageWriter};
use tracing::warn;

use crate::policy;
use crate::service::{Inner, Role};
use crate::session::{Client, Transaction};

/// Where the message goes.
#[derive(Debug)]
pub(crate) enum Writer {
    /// To the queue.
    Queue(Box<BodyWriter>),
    /// To an account: LMTP, when every recipient is one mailbox append. The others take it over from this one.
    Account(Account, AccountWriter),
}

/// Has a name of its own because `MessageWriter` has no `Debug`.
pub(crate) struct AccountWriter(pub(crate) Box<MessageWriter>);

impl std::fmt::Debug for AccountWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountWriter({} octets)", self.0.size())
    }
}

/// Opens what the message is written to.
pub(crate) async fn begin(
    service: &Inner,
    client: &Client,
    transaction: Option<&Transaction>,
) -> Result<Writer, Reply> {
    let Some(transaction) = transaction else { return Err(policy::no_transaction()) };
    match accounts_only(client.role, transaction, service.config.details_are_filed) {
        Some(first) => {
            let account = service.storage.account(&storage::Principal::Delivery, first).await;
            let account = account.map_err(|error| {
                warn!(account_id = %first, %error, "account not opened");
                policy::for_open(&error)
            })?;
            let writer = AccountWriter(Box::new(account.body_writer()));
            Ok(Writer::Account(account, writer))
        }
        None => {
            let first = transaction.resolved.iter().find_map(account_of);
            let writer = service.queue.body_writer(first).await.map_err(|error| {
                warn!(%error, "body not begun");
                policy::for_body(&error)
            })?;
            Ok(Writer::Queue(Box::new(writer)))
        }
    }
}

/// Writes the next piece. Slow media slow the client down, since nothing is read from it meanwhile.
pub(crate) async fn write(writer: Option<&mut Writer>, piece: Bytes) -> Result<(), Reply> {
    counter!("postrider_smtp_body_bytes_total").increment(piece.len() as u64);
    match writer {
        Some(Writer::Queue(writer)) => writer.write(piece).await.map_err(|error| {
            warn!(%error, cause = ?std::error::Error::source(&error), "body not written");
            policy::for_body(&error)
        }),
        Some(Writer::Account(_, AccountWriter(writer))) => writer.write(piece).await.map_err(|error| {
            warn!(%error, cause = ?std::error::Error::source(&error), "body not written");
            policy::for_write(&error)
        }),
        None => Err(policy::no_transaction()),
    }
}

/// Under LMTP, the first recipient's account if every recipient is an account whose INBOX it is for.
fn accounts_only(role: Role, transaction: &Transaction, details_are_filed: bool) -> Option<AccountId> {
    let inbox = |resolved: &Resolved| match resolved {
        Resolved::Account { detail, .. } => !(details_are_filed && detail.is_some()),
        Resolved::Remote | Resolved::Later => false,
    };
    let all = transaction.resolved.iter().all(inbox);
    (role == Role::Lmtp && all).then(|| transaction.resolved.first().and_then(account_of))?
}

pub(crate) fn account_of(resolved: &Resolved) -> Option<AccountId> {
    match resolved {
        Resolved::Account { id, .. } => Some(*id),
        Resolved::Remote | Resolved::Later => None,
    }
}
