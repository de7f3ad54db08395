//! Placing: slice by slice, each target where it goes. A local one into its account, a remote one into the outbound
//! shard of its domain. What cannot be placed is told to its sender.

use std::sync::Arc;

use directory::journey::Journey;
use futures_util::{FutureExt, StreamExt};
use mail::address::{Address, ReversePath};
use mail::dsn::Action;
use mail::flag::FlagSet;
use mail::id::AccountId;
use mail::mime::Facts;
use queue::item::{Destination, Failure, MessageDetails, Outcome, Slice, Target};
use queue::{Claimed, WorkError};
use storage::{AppendError, AppendRequest, Delivered, IngestId, StorageError};

use crate::agent::{Inner, Next, Trouble};
use crate::bounce::{self, News};
use crate::config::Subaddress;
use crate::whereabouts::{self, Whereabouts};
use crate::{expand, suppression, trace, vacation};

/// Works on an ingest item until nothing is left of it, or until something has to wait.
pub(crate) async fn item(agent: &Inner, claimed: &mut Claimed) -> Result<Next, Trouble> {
    let details = agent.queue.details(claimed).await?;
    let recipients = details.recipients.len() as u32;
    loop {
        let expansion = claimed.expansion().ok_or(WorkError::Misused("only ingest items are placed"))?;
        if expansion.pending() == 0 {
            if expansion.expanded == recipients {
                return Ok(Next::Report { outcomes: Vec::new(), placed: true });
            }
            let more = more(agent, claimed, &details).await?;
            agent.queue.expand(claimed, more.expanded, more.owners, more.targets).await?;
            continue;
        }
        let last = expansion.expanded == recipients;
        let slice = expansion.slices.last().ok_or(WorkError::Misused("there is no slice"))?.clone();
        let placed = place_slice(agent, claimed, &details, &slice).await?;
        if let Some(failure) = placed.held {
            let open = agent.queue.settle(claimed, placed.outcomes, false).await?;
            return Ok(if open { Next::Hold(failure) } else { Next::Finished });
        }
        if let Some(trouble) = placed.trouble {
            // What is done stays done, so that the next attempt does not have to find out again.
            if !placed.outcomes.is_empty() {
                agent.queue.settle(claimed, placed.outcomes, false).await?;
            }
            return Err(trouble);
        }
        if placed.partial {
            if !agent.queue.settle(claimed, placed.outcomes, false).await? {
                return Ok(Next::Finished);
            }
            continue;
        }
        // What went where it was to go need not be listed.
        let outcomes: Vec<_> = placed
            .outcomes
            .into_iter()
            .filter(|(_, outcome)| !matches!(outcome, Outcome::Delivered | Outcome::Queued | Outcome::Merged))
            .collect();
        if last {
            return Ok(Next::Report { outcomes, placed: true });
        }
        if !agent.queue.settle(claimed, outcomes, true).await? {
            return Ok(Next::Finished);
        }
    }
}

/// The next recipients' targets. When the message has expired and the directory still does not answer, they end here.
async fn more(agent: &Inner, claimed: &Claimed, details: &MessageDetails) -> Result<expand::More, Trouble> {
    let expansion = claimed.expansion().ok_or(WorkError::Misused("only ingest items are expanded"))?;
    let (from, first) = (expansion.expanded, expansion.targets());
    let enough = agent.config.slice_targets.max(1);
    let known = &expansion.owners;
    let recipients = &details.recipients;
    match expand::more(&agent.directory, &agent.queue, recipients, from, known, first, enough).await {
        Ok(more) => Ok(more),
        Err(_) if claimed.expired() => {
            let failure = Failure::new("4.4.3", "the recipient could not be looked up for too long a time");
            let to = || Destination::Unreachable { address: None, failure: failure.clone() };
            let targets = (from..recipients.len() as u32)
                .take(enough)
                .map(|recipient| Target { recipient, owner: None, to: to() })
                .collect::<Vec<_>>();
            let expanded = from + targets.len() as u32;
            Ok(expand::More { expanded, owners: Vec::new(), targets })
        }
        Err(temporary) => Err(temporary.into()),
    }
}

/// What became of a slice's targets.
#[derive(Default)]
struct PlacedSlice {
    /// Of those that have come to an end.
    outcomes: Vec<(u32, Outcome)>,
    /// One at least has to be tried again.
    trouble: Option<Trouble>,
    /// One at least failed, and nobody can be told.
    held: Option<Failure>,
    /// Targets elsewhere are placed when these outcomes are committed.
    partial: bool,
}

async fn place_slice(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    slice: &Slice,
) -> Result<PlacedSlice, Trouble> {
    let targets = agent.queue.targets(slice).await?;
    let open: Vec<(u32, &Target)> =
        (slice.first..).zip(targets.iter()).filter(|(number, _)| !slice.is_settled(*number)).collect();
    let (mut remote, mut here) = (Vec::new(), Vec::new());
    for (number, target) in open {
        let stopped = suppression::stops(agent, claimed, number, target).await?;
        match (&target.to, stopped) {
            (Destination::Remote { .. }, None) => remote.push((number, target)),
            (_, stopped) => here.push((number, target, stopped)),
        }
    }
    // Whoever is stopped is settled before others are placed: the attempt after a crash, which asks no list, has to find
    // the same groups, since they are known by their first target.
    let stopping = here.iter().any(|(.., stopped)| stopped.is_some());
    let mut placed = PlacedSlice { partial: stopping && !remote.is_empty(), ..PlacedSlice::default() };
    let facts = LazyFacts::default();
    let works: Vec<_> = here
        .into_iter()
        .map(|(number, target, stopped)| {
            let facts = &facts;
            async move {
                let end = match stopped {
                    Some(failure) => fail(agent, claimed, details, facts, number, target, failure).await,
                    None => end_of(agent, claimed, details, facts, number, target).await,
                };
                (number, end)
            }
            .boxed()
        })
        .collect();
    let mut works =
        futures_util::stream::iter(works).buffer_unordered(agent.config.targets_concurrent_max.max(1));
    while let Some((number, end)) = works.next().await {
        match end {
            Ok(End::Outcome(outcome)) => placed.outcomes.push((number, outcome)),
            Ok(End::Held(failure)) => placed.held = Some(failure),
            Err(trouble) => placed.trouble = Some(trouble),
        }
    }
    if !remote.is_empty() && !placed.partial {
        match agent.queue.place_remote(claimed, details, &remote).await {
            Ok(()) => placed.outcomes.extend(remote.iter().map(|(number, _)| (*number, Outcome::Queued))),
            Err(error) => placed.trouble = Some(error.into()),
        }
    }
    placed.outcomes.sort_by_key(|(number, _)| *number);
    // Trouble goes first: what is held can be held after the next attempt.
    if placed.trouble.is_some() {
        placed.held = None;
    }
    Ok(placed)
}

/// The end of one target.
pub(crate) enum End {
    Outcome(Outcome),
    /// It failed, and nobody can be told.
    Held(Failure),
}

/// Facts of the message, read when first needed.
#[derive(Default)]
pub(crate) struct LazyFacts {
    facts: tokio::sync::OnceCell<Arc<Facts>>,
    forbidden: bool,
}

impl LazyFacts {
    /// Facts that are not to be looked at.
    pub(crate) fn unread() -> Self {
        Self { forbidden: true, ..Self::default() }
    }

    pub(crate) async fn get(&self, agent: &Inner, claimed: &Claimed) -> Result<Arc<Facts>, WorkError> {
        if self.forbidden {
            return Err(WorkError::Misused("the message is not to be read"));
        }
        Ok(self.facts.get_or_try_init(|| agent.queue.facts(claimed)).await?.clone())
    }
}

async fn end_of(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    number: u32,
    target: &Target,
) -> Result<End, Trouble> {
    match &target.to {
        Destination::Local { account, detail } => {
            let fate =
                place_local(agent, claimed, details, facts, number, target, *account, detail.as_deref());
            match fate.await? {
                Fate::Delivered => {
                    metrics::counter!("postrider_delivery_delivered_total").increment(1);
                    bounce::success(agent, claimed, details, facts, number, target).await?;
                    Ok(End::Outcome(Outcome::Delivered))
                }
                Fate::Failed(failure) => fail(agent, claimed, details, facts, number, target, failure).await,
                Fate::Moved(address) => {
                    send_after(agent, claimed, details, number, target, address).await?;
                    Ok(End::Outcome(Outcome::Queued))
                }
                Fate::Expired => {
                    let failure = expired();
                    let news = News { number, target, action: Action::Failed, failure: &failure };
                    let notified = bounce::notify(agent, claimed, details, facts, news).await?;
                    Ok(End::Outcome(Outcome::Expired { notified }))
                }
            }
        }
        Destination::Unreachable { failure, .. } => {
            fail(agent, claimed, details, facts, number, target, failure.clone()).await
        }
        Destination::Same { .. } => Ok(End::Outcome(Outcome::Merged)),
        Destination::Remote { .. } => Ok(End::Outcome(Outcome::Queued)),
    }
}

/// Sends a message after an account that has moved, as somebody else's mail is sent. Done again it does nothing.
pub(crate) async fn send_after(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    number: u32,
    target: &Target,
    address: Address,
) -> Result<(), WorkError> {
    let written_to = details.recipients.get(target.recipient as usize).map(|recipient| &recipient.address);
    // With the detail that the sender has written.
    let detailed = written_to.filter(|written_to| {
        let base = written_to.local_key();
        written_to.domain() == address.domain() && base.starts_with(&address.local_key())
    });
    let detailed =
        matches!(&target.to, Destination::Local { detail: Some(_), .. }).then_some(detailed).flatten();
    let to = agent.queue.remote(detailed.unwrap_or(&address).clone());
    let onward = Target { to, ..target.clone() };
    agent.queue.place_remote(claimed, details, &[(number, &onward)]).await
}

/// What expired recipients are told.
pub(crate) fn expired() -> Failure {
    Failure::new("4.4.7", "the message could not be delivered for too long a time")
}

/// A target has failed, and its account, if it has one, knows that it will not come: its sender is told.
pub(crate) async fn fail(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    number: u32,
    target: &Target,
    failure: Failure,
) -> Result<End, Trouble> {
    let news = News { number, target, action: Action::Failed, failure: &failure };
    if bounce::addressee(claimed, target).is_none() && can_pass(&failure) {
        return Ok(End::Held(failure));
    }
    let notified = bounce::notify(agent, claimed, details, facts, news).await?;
    metrics::counter!("postrider_delivery_failed_total").increment(1);
    tracing::info!(queue_id = %claimed.message().queue_id, target = number, status = failure.status, notified, "failed");
    Ok(End::Outcome(Outcome::Failed { failure, notified }))
}

/// Whether a failure can pass, such as a full mailbox: then a message that nobody can be told about is held. One to
/// somebody who does not exist is a notification that went astray, and ends here.
fn can_pass(failure: &Failure) -> bool {
    failure.status.starts_with("5.2.")
}

/// What became of a local target, as its account's log says.
enum Fate {
    Delivered,
    /// It will not be delivered: the account has committed that, or is gone.
    Failed(Failure),
    Expired,
    /// The account is in another region now, under this address.
    Moved(Address),
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two halves of a target, beside what all steps of an item share"
)]
async fn place_local(
    agent: &Inner,
    claimed: &Claimed,
    details: &MessageDetails,
    facts: &LazyFacts,
    number: u32,
    target: &Target,
    account: AccountId,
    detail: Option<&str>,
) -> Result<Fate, Trouble> {
    let (opened, journey) = match whereabouts::find(agent, claimed, number, account).await? {
        Whereabouts::Here(opened, journey) => (opened, journey),
        Whereabouts::Nowhere => return Ok(Fate::Failed(gone())),
        Whereabouts::Onward(address) => return Ok(Fate::Moved(address)),
        Whereabouts::Ended(Delivered::Rejected) => return Ok(rejected_before(claimed)),
        Whereabouts::Ended(Delivered::Placed(_) | Delivered::Already) => return Ok(Fate::Delivered),
    };
    let attempt = Attempt { agent, claimed, number, account: &opened, journey: journey.as_ref() };
    let fate = attempt.place(details, facts, target, detail).await?;
    whereabouts::still_here(agent, account, journey.as_ref()).await?;
    Ok(fate)
}

/// An attempt that failed before has committed it, and did not come to report why.
fn rejected_before(claimed: &Claimed) -> Fate {
    if claimed.expired() {
        return Fate::Expired;
    }
    Fate::Failed(Failure::new("5.2.0", "the mailbox did not take the message"))
}

fn gone() -> Failure {
    Failure::new("5.1.1", "no such user")
}

fn inbox() -> storage::Target {
    storage::Target::Role(storage::Role::Inbox)
}

/// The mailbox for an address with a detail.
fn mailbox(subaddress: Subaddress, detail: Option<&str>) -> storage::Target {
    match (subaddress, detail) {
        (Subaddress::Inbox, _) | (_, None | Some("")) => inbox(),
        (Subaddress::Mailbox, Some(name)) => storage::Target::Name { name: name.to_owned(), create: false },
        (Subaddress::MakeMailbox, Some(name)) => {
            storage::Target::Name { name: name.to_owned(), create: true }
        }
    }
}

/// The reverse-path for a target: that of the list that it was reached through, or the sender's.
pub(crate) fn reverse_path(claimed: &Claimed, target: &Target) -> ReversePath {
    let owner = target.owner.and_then(|owner| claimed.expansion()?.owners.get(owner as usize));
    match owner {
        Some(owner) => ReversePath(Some(owner.clone())),
        None => claimed.message().sender.reverse_path.clone(),
    }
}

/// One target and its account.
pub(crate) struct Attempt<'a> {
    pub(crate) agent: &'a Inner,
    pub(crate) claimed: &'a Claimed,
    pub(crate) number: u32,
    pub(crate) account: &'a storage::Account,
    /// Of an account that was elsewhere before: as it was when the account was found here.
    pub(crate) journey: Option<&'a Journey>,
}

impl Attempt<'_> {
    pub(crate) fn ingest(&self) -> IngestId {
        IngestId { producer: self.claimed.producer(), item: self.claimed.number(), part: self.number }
    }

    /// Puts the message, unless that has happened.
    async fn place(
        &self,
        details: &MessageDetails,
        facts: &LazyFacts,
        target: &Target,
        detail: Option<&str>,
    ) -> Result<Fate, Trouble> {
        let &Self { agent, claimed, account, .. } = self;
        // After an attempt that may have got this far, asking is cheaper than doing it all again.
        let item = claimed.item();
        if (item.attempts > 0 || item.crashes > 0)
            && let Ok(Some(known)) = account.delivered(self.ingest()).await
        {
            match known {
                Delivered::Placed(_) | Delivered::Already => return Ok(Fate::Delivered),
                Delivered::Rejected => return Ok(rejected_before(claimed)),
            }
        }
        let facts = match facts.get(agent, claimed).await {
            Ok(facts) => facts,
            Err(error) => return self.give_up(error.into()).await,
        };
        let reverse_path = reverse_path(claimed, target);
        let recipient = details
            .recipients
            .get(target.recipient as usize)
            .ok_or(WorkError::Misused("a target has no recipient"))?;
        let prefix = trace::prefix(&reverse_path, &recipient.address, &details.prefix);
        let mut mailbox = mailbox(agent.config.subaddress, detail);
        loop {
            let body = &claimed.message().body;
            let adopted = account.adopt(body, body.key, (*facts).clone(), prefix.clone()).await;
            let body = match adopted {
                Ok(body) => body,
                Err(StorageError::Closed) => return self.closed().await,
                Err(error) => return self.give_up(self.trouble(&error)).await,
            };
            let request = AppendRequest {
                target: mailbox.clone(),
                body,
                flags: FlagSet::default(),
                internal_date: None,
            };
            let delivery =
                storage::Delivery { ingest: self.ingest(), watermark: claimed.watermark(), request };
            return match account.deliver(delivery).await {
                Ok(Delivered::Placed(_)) => {
                    suppression::learn(agent, claimed, &facts, &recipient.address, account).await;
                    let target = (self.number, target);
                    vacation::answer(agent, claimed, &facts, target, &recipient.address, account).await;
                    Ok(Fate::Delivered)
                }
                Ok(Delivered::Already) => Ok(Fate::Delivered),
                Ok(Delivered::Rejected) => Ok(rejected_before(claimed)),
                Err(AppendError::OverQuota) => {
                    self.reject(Failure::new("5.2.2", "the mailbox is full")).await
                }
                Err(AppendError::Mailbox(_) | AppendError::NoMailbox) if mailbox != inbox() => {
                    mailbox = inbox();
                    continue;
                }
                Err(AppendError::Storage(StorageError::Closed)) => self.closed().await,
                Err(AppendError::Storage(error)) => self.give_up(self.trouble(&error)).await,
                Err(error @ AppendError::TooLarge) => {
                    self.reject(Failure::new("5.3.4", error.to_string())).await
                }
                Err(error) => self.reject(Failure::new("5.2.0", error.to_string())).await,
            };
        }
    }

    /// The account has been closed meanwhile.
    async fn closed(&self) -> Result<Fate, Trouble> {
        whereabouts::is_deleted(self.agent, self.account.id()).await?;
        Ok(Fate::Failed(gone()))
    }

    fn trouble(&self, error: &StorageError) -> Trouble {
        Trouble::Account { account: self.account.id(), reason: error.to_string() }
    }

    /// Commits that the target will not be delivered. Unless it was.
    async fn reject(&self, failure: Failure) -> Result<Fate, Trouble> {
        // Model queue: Rule::RejectedThenTold.
        Ok(if self.commit_rejection().await? { Fate::Failed(failure) } else { Fate::Delivered })
    }

    /// `false`: it was delivered before.
    pub(crate) async fn commit_rejection(&self) -> Result<bool, Trouble> {
        let account = self.account.id();
        let rejected = match self.account.reject_ingest(self.ingest(), self.claimed.watermark()).await {
            Ok(Delivered::Rejected) => true,
            Ok(Delivered::Already | Delivered::Placed(_)) => false,
            // Nothing can be put into an account that is being deleted, which is as good.
            Err(StorageError::Closed) => {
                whereabouts::is_deleted(self.agent, account).await?;
                return Ok(true);
            }
            Err(error) => return Err(self.trouble(&error)),
        };
        whereabouts::still_here(self.agent, account, self.journey).await?;
        Ok(rejected)
    }

    /// Trouble that may pass: but not for a message that has expired.
    async fn give_up(&self, trouble: Trouble) -> Result<Fate, Trouble> {
        if !self.claimed.expired() {
            return Err(trouble);
        }
        tracing::info!(queue_id = %self.claimed.message().queue_id, target = self.number, %trouble, "expired");
        Ok(if self.commit_rejection().await? { Fate::Expired } else { Fate::Delivered })
    }
}
