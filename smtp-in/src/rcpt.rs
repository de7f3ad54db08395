//! RCPT: may this recipient have it? What is wrong is said here, where the sender can still do something about it.

use ::mail::address::Address;
use ::mail::envelope::Recipient;
use ::mail::id::AccountId;
use directory::Resolution;
use queue::Resolved;
use smtp_protocol::parameter::RcptParameters;
use smtp_protocol::reply::{Reply, ok};
use smtp_protocol::server::ForwardPath;
use smtp_protocol::status::status;
use storage::Storage;
use tracing::{debug, info, warn};

use crate::elsewhere;
use crate::policy;
use crate::service::{Inner, Role};
use crate::session::{Client, Transaction};

/// Adds a recipient to the transaction, or says why not.
pub(crate) async fn add(
    service: &Inner,
    client: &Client,
    transaction: &mut Transaction,
    path: ForwardPath,
    parameters: RcptParameters,
) -> Reply {
    match check(service, client, transaction, &path).await {
        Ok(found) => {
            for (address, resolved) in found {
                let recipient =
                    Recipient { address, notify: parameters.notify, orcpt: parameters.orcpt.clone() };
                transaction.envelope.recipients.push(recipient);
                transaction.resolved.push(resolved);
            }
            ok(status(2, 1, 5), "Recipient OK")
        }
        Err(reply) => {
            info!(recipient = %Shown(&path), %reply, "recipient refused");
            reply
        }
    }
}

/// What the path stands for. One recipient, but for `<Postmaster>`, which can be several.
async fn check(
    service: &Inner,
    client: &Client,
    transaction: &Transaction,
    path: &ForwardPath,
) -> Result<Vec<(Address, Resolved)>, Reply> {
    let limit = service.config.null_sender_recipients_max as usize;
    if transaction.envelope.reverse_path.is_null()
        && client.role == Role::Mx
        && transaction.envelope.recipients.len() >= limit
    {
        return Err(policy::too_many_for_null_sender());
    }
    if let Some(principal) = &client.principal
        && !service.sender_limit.take(principal.account, std::time::Instant::now())
    {
        info!(account_id = %principal.account, "user has written to as many as they may in an hour");
        return Err(policy::too_many_for_user());
    }
    let directory = &service.directory;
    let resolution = match path {
        ForwardPath::Address(address) => directory.resolve(address).await,
        ForwardPath::Postmaster => directory.resolve_postmaster().await,
    };
    let resolution = resolution.map_err(|error| {
        warn!(%error, "recipient not decided");
        policy::later()
    })?;
    match (resolution, path) {
        (Resolution::Account(route), path) => {
            check_quota(&service.storage, route.account, transaction.declared_size.unwrap_or(0)).await?;
            let address = match path {
                ForwardPath::Address(address) => address.clone(),
                ForwardPath::Postmaster => route.address,
            };
            Ok(vec![(address, Resolved::Account { id: route.account, detail: route.detail })])
        }
        (Resolution::Elsewhere { region, address }, _) => {
            elsewhere::recipient(service, &region, &address, transaction.declared_size.unwrap_or(0)).await?;
            Ok(vec![(address, Resolved::Later)])
        }
        (Resolution::Alias { .. } | Resolution::List { .. }, ForwardPath::Address(address)) => {
            Ok(vec![(address.clone(), Resolved::Later)])
        }
        (
            Resolution::Alias { targets } | Resolution::List { members: targets, .. },
            ForwardPath::Postmaster,
        ) => Ok(targets.into_iter().map(|target| (target, Resolved::Later)).collect()),
        (Resolution::NotLocal, ForwardPath::Address(address)) if client.principal.is_some() => {
            Ok(vec![(address.clone(), Resolved::Remote)])
        }
        (Resolution::NotLocal, _) => Err(policy::no_relay()),
        (Resolution::Disabled, _) => Err(policy::mailbox_disabled()),
        (Resolution::NoSuchUser, _) => Err(policy::no_such_user()),
    }
}

/// Whether an account has room for so much more.
pub(crate) async fn check_quota(storage: &Storage, account: AccountId, size: u64) -> Result<(), Reply> {
    match storage.account(&storage::Principal::Delivery, account).await {
        Ok(account) if account.state().quota().has_room(1, size) => Ok(()),
        Ok(_) => {
            debug!(account_id = %account, "over quota");
            Err(policy::mailbox_full())
        }
        Err(error) => {
            // An account that the directory knows and the storage does not is being made or deleted at this moment.
            warn!(account_id = %account, %error, "account not opened");
            Err(policy::later())
        }
    }
}

struct Shown<'a>(&'a ForwardPath);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ForwardPath::Address(address) => address.fmt(f),
            ForwardPath::Postmaster => f.write_str("Postmaster"),
        }
    }
}
