//! Before quarantine: secures what can be secured of an item that has seen too many crashes, and sees to it that what
//! is left can be released later without doubling anything. It reads nothing of the message, which may be what crashed
//! whoever did.

use mail::dsn::Action;
use queue::item::{Destination, MessageDetails, Outcome, Target};
use queue::{Claimed, WorkError};
use storage::Delivered;

use crate::agent::{Inner, Next, Trouble};
use crate::bounce::{self, News};
use crate::place::{Attempt, LazyFacts, send_after};
use crate::whereabouts::{self, Whereabouts};

/// Settles remote and unreachable targets, and local ones whose end is known; commits *rejected* for the others.
pub(crate) async fn secure(agent: &Inner, claimed: &mut Claimed) -> Result<Next, Trouble> {
    let expansion = claimed.expansion().ok_or(WorkError::Misused("only ingest items go to quarantine"))?;
    let Some(slice) = expansion.slices.last().cloned() else { return Ok(Next::Quarantine) };
    let details = agent.queue.details(claimed).await?;
    let targets = agent.queue.targets(&slice).await?;
    let open: Vec<(u32, &Target)> =
        (slice.first..).zip(targets.iter()).filter(|(number, _)| !slice.is_settled(*number)).collect();
    let mut outcomes = Vec::new();
    let mut remote = Vec::new();
    for (number, target) in open {
        match &target.to {
            Destination::Local { .. } => {
                if let Some(outcome) = secure_local(agent, claimed, &details, number, target).await? {
                    outcomes.push((number, outcome));
                }
            }
            Destination::Remote { .. } => remote.push((number, target)),
            Destination::Unreachable { failure, .. } => {
                let news = News { number, target, action: Action::Failed, failure };
                let notified = bounce::notify(agent, claimed, &details, &LazyFacts::unread(), news).await?;
                outcomes.push((number, Outcome::Failed { failure: failure.clone(), notified }));
            }
            Destination::Same { .. } => outcomes.push((number, Outcome::Merged)),
        }
    }
    agent.queue.place_remote(claimed, &details, &remote).await?;
    outcomes.extend(remote.into_iter().map(|(number, _)| (number, Outcome::Queued)));
    outcomes.sort_by_key(|(number, _)| *number);
    let open = agent.queue.settle(claimed, outcomes, false).await?;
    Ok(if open { Next::Quarantine } else { Next::Finished })
}

/// The end of a local target, if it has come to one. `None`: it is left, and its account knows that it will not come.
async fn secure_local(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    number: u32,
    target: &Target,
) -> Result<Option<Outcome>, Trouble> {
    let Some(account) = bounce::account_of(target) else { return Ok(None) };
    let (opened, journey) = match whereabouts::find(agent, claimed, number, account).await? {
        Whereabouts::Here(opened, journey) => (opened, journey),
        Whereabouts::Nowhere => return Ok(None),
        Whereabouts::Onward(address) => {
            send_after(agent, claimed, details, number, target, address).await?;
            return Ok(Some(Outcome::Queued));
        }
        Whereabouts::Ended(Delivered::Placed(_) | Delivered::Already) => return Ok(Some(Outcome::Delivered)),
        Whereabouts::Ended(Delivered::Rejected) => return told_or_left(agent, claimed, number).await,
    };
    let attempt = Attempt { agent, claimed, number, account: &opened, journey: journey.as_ref() };
    // Model quarantine: Rule::RejectedThenMoved, Rule::PlacedCounts.
    if !attempt.commit_rejection().await? {
        return Ok(Some(Outcome::Delivered));
    }
    told_or_left(agent, claimed, number).await
}

/// The end of a target that was rejected: its sender may know.
async fn told_or_left(agent: &Inner, claimed: &Claimed, number: u32) -> Result<Option<Outcome>, Trouble> {
    // An attempt that has told the sender did not come to report it: then that was the end.
    // Model quarantine: Rule::ToldCounts.
    let failure = queue::item::Failure::new("5.2.0", "the mailbox did not take the message");
    Ok(agent.queue.is_notified(claimed, number).await?.then_some(Outcome::Failed { failure, notified: true }))
}
