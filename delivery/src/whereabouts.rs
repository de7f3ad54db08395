//! Where a local target's account is, if it is one that has ever moved to another region.
//!
//! Shards of all regions have the same names, so an account's log says what became of an item only while the account is
//! here. What was delivered before it went is in the note that it left behind; what was sent after it is known to the
//! outbound shard. One of the three knows of every item that has come to an end, and none of them forgets it before the
//! item is done. `storage/DESIGN.md`, "Moving to another region", has the proof.

use directory::journey::{Journey, Stage};
use mail::address::Address;
use mail::id::AccountId;
use queue::Claimed;
use storage::{Account, Delivered, Deliveries, IngestId, OpenError, Principal, StorageError};

use crate::agent::{Inner, Trouble};

/// Where the account of a target is.
pub(crate) enum Whereabouts {
    /// Here. What is known of its journey, if it has ever been elsewhere.
    Here(Account, Option<Journey>),
    /// Deleted.
    Nowhere,
    /// In another region, and this item came to an end before it went.
    Ended(Delivered),
    /// In another region, under this address; the item goes there, or is on its way already.
    Onward(Address),
}

/// Looks for the account of a target.
pub(crate) async fn find(
    agent: &Inner,
    claimed: &Claimed,
    number: u32,
    account: AccountId,
) -> Result<Whereabouts, Trouble> {
    let trouble = |reason: String| Trouble::Account { account, reason };
    let opened = match agent.storage.account(&Principal::Delivery, account).await {
        Ok(opened) => opened,
        Err(OpenError::Missing) => return elsewhere(agent, claimed, number, account).await,
        Err(OpenError::Storage(error)) => return Err(trouble(error.to_string())),
    };
    if !agent.directory.has_regions() {
        return Ok(Whereabouts::Here(opened, None));
    }
    match opened.has_moved().await {
        Ok(false) => return Ok(Whereabouts::Here(opened, None)),
        Ok(true) => {}
        Err(StorageError::Closed) => return elsewhere(agent, claimed, number, account).await,
        Err(error) => return Err(trouble(error.to_string())),
    }
    match agent.directory.journey_of_open(account).await? {
        Some(journey) if journey.stage == Stage::Here => {
            // It was sent on while the account was away, and whoever did that did not come to report it.
            if agent.queue.was_sent_on(claimed, number, &journey.address).await? {
                return Ok(Whereabouts::Onward(journey.address));
            }
            Ok(Whereabouts::Here(opened, Some(journey)))
        }
        _ => elsewhere(agent, claimed, number, account).await,
    }
}

/// What the account's log had to say counts if it is still what it was when it was found here.
pub(crate) async fn still_here(
    agent: &Inner,
    account: AccountId,
    found: Option<&Journey>,
) -> Result<(), Trouble> {
    let Some(found) = found else { return Ok(()) };
    if agent.directory.journey(account).await?.as_ref() == Some(found) {
        return Ok(());
    }
    Err(under_way(account))
}

/// Of an account that is closed or gone: whether it was deleted. One that moves has to be waited for.
pub(crate) async fn is_deleted(agent: &Inner, account: AccountId) -> Result<(), Trouble> {
    match agent.directory.journey(account).await? {
        None => Ok(()),
        Some(_) => Err(under_way(account)),
    }
}

async fn elsewhere(
    agent: &Inner,
    claimed: &Claimed,
    number: u32,
    account: AccountId,
) -> Result<Whereabouts, Trouble> {
    let Some(journey) = agent.directory.journey(account).await? else { return Ok(Whereabouts::Nowhere) };
    let Stage::Away { delivered } = journey.stage else { return Err(under_way(account)) };
    let unreadable = |error| Trouble::Account { account, reason: format!("what it left behind: {error}") };
    let delivered = Deliveries::decode(&delivered).map_err(unreadable)?;
    let ingest = IngestId { producer: claimed.producer(), item: claimed.number(), part: number };
    Ok(match delivered.of(ingest) {
        Some(end) => Whereabouts::Ended(end),
        None => Whereabouts::Onward(journey.address),
    })
}

fn under_way(account: AccountId) -> Trouble {
    Trouble::Account { account, reason: "it is moving to another region".to_owned() }
}
