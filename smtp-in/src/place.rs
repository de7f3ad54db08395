//! LMTP into mailboxes: when the message is for nothing but INBOXes, it goes there at once, and each recipient is
//! answered for with its own account's commit.

use std::collections::HashMap;

use ::mail::id::AccountId;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use queue::Resolved;
use smtp_protocol::reply::{Reply, ok};
use smtp_protocol::status::status;
use storage::{Account, AppendRequest, Appended, Role, StoredBody, Target};
use tracing::{info, warn};

use crate::data::account_of;
use crate::policy;
use crate::rcpt::check_quota;
use crate::service::Inner;
use crate::session::{Client, Transaction};
use crate::trace;

/// Accounts that one session works on at the same time; a message to a thousand is not to stand in everybody's way.
const AT_ONCE: usize = 16;

/// Puts the message into each recipient's mailbox; one reply for each, in their order.
pub(crate) async fn each(
    service: &Inner,
    client: &Client,
    transaction: &Transaction,
    first: Account,
    body: StoredBody,
) -> Vec<Reply> {
    if let Err(reply) = loops(service, &body) {
        first.discard(body).await;
        return vec![reply];
    }
    // An account named twice (by two of its addresses) gets one copy, and both names the same answer.
    let mut accounts: Vec<(AccountId, usize)> = Vec::new();
    for (index, resolved) in transaction.resolved.iter().enumerate() {
        if let Some(account) = account_of(resolved)
            && !accounts.iter().any(|(known, _)| *known == account)
        {
            accounts.push((account, index));
        }
    }
    // Everybody takes the bytes over before anybody can give them up.
    let mut copies = Vec::with_capacity(accounts.len());
    for &(account, index) in &accounts {
        copies.push(copy(service, client, transaction, &first, &body, account, index));
    }
    let copies: Vec<_> = stream::iter(copies).buffered(AT_ONCE).collect().await;
    let first_was_copied =
        copies.iter().any(|copy| matches!(copy, Ok((account, _)) if account.id() == first.id()));
    let appends: Vec<_> = copies.into_iter().map(append).collect();
    let placed: Vec<Reply> = stream::iter(appends).buffered(AT_ONCE).collect().await;
    if !first_was_copied {
        first.discard(body).await;
    }
    let replies: HashMap<AccountId, Reply> =
        accounts.iter().map(|(account, _)| *account).zip(placed).collect();
    transaction
        .resolved
        .iter()
        .map(|resolved| match resolved {
            Resolved::Account { id, .. } => replies[id].clone(),
            Resolved::Remote | Resolved::Later => policy::later(),
        })
        .collect()
}

fn loops(service: &Inner, body: &StoredBody) -> Result<(), Reply> {
    if body.facts.received_count >= service.config.received_max {
        return Err(policy::loops());
    }
    Ok(())
}

/// The message as one account has it: its own reference, its own trace fields.
async fn copy(
    service: &Inner,
    client: &Client,
    transaction: &Transaction,
    first: &Account,
    body: &StoredBody,
    account: AccountId,
    index: usize,
) -> Result<(Account, StoredBody), Reply> {
    let prefix =
        Bytes::from(trace::delivered(client, &service.config.hostname, &transaction.envelope, index));
    if account == first.id() {
        return Ok((first.clone(), StoredBody { prefix, ..body.clone() }));
    }
    check_quota(&service.storage, account, body.facts.size).await?;
    let opened = service.storage.account(&storage::Principal::Delivery, account).await;
    let opened = opened.map_err(|error| {
        warn!(account_id = %account, %error, "account not opened");
        policy::for_open(&error)
    })?;
    let adopted = opened.adopt(&body.address, body.address.key, body.facts.clone(), prefix).await;
    match adopted {
        Ok(body) => Ok((opened, body)),
        Err(error) => {
            warn!(account_id = %account, %error, "message not taken over");
            Err(policy::for_storage(&error))
        }
    }
}

async fn append(copy: Result<(Account, StoredBody), Reply>) -> Reply {
    let (account, body) = match copy {
        Ok(copy) => copy,
        Err(reply) => return reply,
    };
    let request = AppendRequest {
        target: Target::Role(Role::Inbox),
        body: body.clone(),
        flags: ::mail::flag::FlagSet::default(),
        internal_date: None,
    };
    match account.append(request).await {
        Ok(appended) => {
            info!(account_id = %account.id(), uid = %appended.uid, size = body.facts.size, "message delivered");
            delivered(&appended)
        }
        Err(error) => {
            warn!(account_id = %account.id(), %error, "message not delivered");
            // After a commit that may yet happen the bytes must stay.
            if !matches!(error, storage::AppendError::Storage(storage::StorageError::Undecided)) {
                account.discard(body).await;
            }
            policy::for_append(&error)
        }
    }
}

/// 250 for a message in a mailbox. It takes the proof that it is there.
fn delivered(appended: &Appended) -> Reply {
    ok(status(2, 1, 5), format!("Delivered as {}", appended.email))
}
