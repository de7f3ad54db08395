//! Addresses that are not written to any more: notifications say that they do not exist, and the next message to them
//! comes back at once instead of troubling hosts that count such attempts against us.
//!
//! A notification is believed where it is about a message that went from its addressee to the address that it names.

use std::collections::HashSet;

use bytes::BytesMut;
use futures_util::StreamExt;
use mail::address::{Address, Domain};
use mail::dsn::{Action, Status};
use mail::mime::Facts;
use mail::status_report::{self, ReportedRecipient};
use queue::item::{Destination, Failure, Target};
use queue::{Claimed, ItemView, ShardKind, Standing, WorkError};
use storage::{Account, Principal, StorageError, Suppressed};

use crate::agent::{Inner, Trouble};

/// Messages that one report can be about. A returned header names those that it came through; ours comes first or last.
const IDS_MAX: usize = 4;
/// Domains that one report can name.
const DOMAINS_MAX: usize = 4;
/// Statuses that say that an address does not exist (RFC 3463 §3.2, RFC 7505 §4): a mailbox, a system, a syntax, one
/// of several, moved away, and a domain that takes no mail.
fn says_that_it_does_not_exist(status: Status) -> bool {
    let Status(class, subject, detail) = status;
    class == 5 && subject == 1 && matches!(detail, 1 | 2 | 3 | 4 | 6 | 10)
}

/// Why a target elsewhere is not sent to. A message that was begun before goes the way that it went then, so that it
/// does not go both ways.
pub(crate) async fn stops(
    agent: &Inner,
    claimed: &Claimed,
    number: u32,
    target: &Target,
) -> Result<Option<Failure>, Trouble> {
    let Destination::Remote { address, .. } = &target.to else { return Ok(None) };
    let Some(principal) = claimed.message().origin.principal else { return Ok(None) };
    if target.owner.is_some() {
        return Ok(None);
    }
    let item = claimed.item();
    let told = || Failure::new("5.1.1", "mail to this address is not sent, since it was said not to exist");
    if item.attempts > 0 || item.crashes > 0 {
        return Ok(agent.queue.is_notified(claimed, number).await?.then(told));
    }
    let opened = match agent.storage.account(&Principal::Delivery, principal).await {
        Ok(opened) => opened,
        // Whoever is gone has no list.
        Err(storage::OpenError::Missing) => return Ok(None),
        Err(error) => return Err(Trouble::Account { account: principal, reason: error.to_string() }),
    };
    Ok(opened.state().suppressed(address).map(|why| {
        let date = mail::date::SentDate::utc(i64::try_from(why.since).unwrap_or(i64::MAX)).rfc3339();
        let text = format!(
            "mail to this address is not sent: {date} was said: {} (take it off the list of suppressed addresses to try again)",
            if why.reason.is_empty() { &why.status } else { &why.reason }
        );
        Failure::new(&why.status, text)
    }))
}

/// Takes note of what a notification says that comes to an account. Nothing here keeps it from coming.
pub(crate) async fn learn(
    agent: &Inner,
    claimed: &Claimed,
    facts: &Facts,
    addressee: &Address,
    account: &Account,
) {
    if !claimed.message().sender.reverse_path.is_null() {
        return;
    }
    let Some(parts) = status_report::parts(&facts.structure) else { return };
    let report = Report { agent, claimed, parts };
    if let Err(error) = report.learn(addressee, account).await {
        let queue_id = claimed.message().queue_id;
        tracing::warn!(%queue_id, %error, "what a notification says cannot be taken note of");
    }
}

#[derive(Debug, thiserror::Error)]
enum LearnError {
    #[error(transparent)]
    Queue(#[from] WorkError),
    #[error(transparent)]
    Read(#[from] blob::ReadError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

struct Report<'a> {
    agent: &'a Inner,
    claimed: &'a Claimed,
    parts: status_report::ReportParts,
}

impl Report<'_> {
    async fn learn(&self, addressee: &Address, account: &Account) -> Result<(), LearnError> {
        let recipients = status_report::recipients(&self.read(&self.parts.status).await?);
        let gone: Vec<&ReportedRecipient> = recipients
            .iter()
            .filter(|one| one.action == Action::Failed && says_that_it_does_not_exist(one.status))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let now = self.agent.queue.clock().now();
        let mut ids = status_report::queue_ids(&self.read(&self.parts.returned).await?);
        // Ours say when they were made. Anybody can write a report, and what it names costs a look at a shard's history.
        ids.retain(|id| id.0.get_timestamp().is_some());
        ids.dedup();
        ids.truncate(IDS_MAX);
        let mut domains: Vec<&Domain> = Vec::new();
        for one in &gone {
            let named = [one.original.as_ref(), Some(&one.recipient)].into_iter().flatten();
            for domain in named.map(Address::domain) {
                if domains.len() < DOMAINS_MAX && !domains.contains(&domain) {
                    domains.push(domain);
                }
            }
        }
        // One at a time; whoever finds somebody looking learns it from the next report.
        let Ok(_alone) = self.agent.tracing.try_acquire() else { return Ok(()) };
        for id in ids {
            let mut sent: HashSet<String> = HashSet::new();
            for domain in &domains {
                let views = self.agent.queue.trace_to(id, domain).await?;
                let from = |view: &&ItemView| {
                    view.reverse_path.address().is_some_and(|from| from.key() == addressee.key())
                };
                sent.extend(views.iter().filter(from).flat_map(elsewhere));
            }
            for one in &gone {
                let named = [Some(&one.recipient), one.original.as_ref()].into_iter().flatten();
                for address in named.filter(|address| sent.contains(&address.key())) {
                    let why = Suppressed::new(now, &one.status.to_string(), &one.diagnostic);
                    if account.suppress(address, why).await? {
                        metrics::counter!("postrider_delivery_suppressed_total").increment(1);
                        tracing::info!(account = %account.id(), %address, status = %one.status, "not written to any more");
                    }
                }
            }
        }
        Ok(())
    }

    async fn read(&self, range: &std::ops::Range<u64>) -> Result<Vec<u8>, LearnError> {
        let body = &self.claimed.message().body;
        let reader = self.agent.queue.blobs().open(body, body.key).await?;
        let mut bytes = BytesMut::new();
        let mut pieces = reader.read_range(range.clone());
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes.to_vec())
    }
}

/// Addresses elsewhere that a message was to be sent to.
fn elsewhere(view: &ItemView) -> Vec<String> {
    if view.kind != ShardKind::Outbound {
        return Vec::new();
    }
    let key = |text: &str| Address::parse(text).ok().map(|address| address.key());
    let waiting = view.recipients.iter().filter_map(|recipient| key(&recipient.address));
    let mut addresses: Vec<String> = waiting.collect();
    if let Standing::Finished { fates, .. } = &view.standing {
        addresses.extend(fates.iter().filter_map(|fate| fate.address.as_ref()).map(Address::key));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_about_addresses() {
        let check = |status, expected| assert_eq!(says_that_it_does_not_exist(status), expected, "{status}");
        for detail in [1, 2, 3, 4, 6, 10] {
            check(Status(5, 1, detail), true);
        }
        // 5.1.0, 5.1.7 and 5.1.8 are about the sender or nothing in particular.
        for status in [
            Status(5, 1, 0),
            Status(5, 1, 7),
            Status(5, 1, 8),
            Status(4, 1, 1),
            Status(5, 2, 1),
            Status(5, 7, 1),
        ] {
            check(status, false);
        }
    }
}
