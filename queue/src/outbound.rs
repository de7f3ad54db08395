//! What waits for other hosts, as the service that dials sees it.
//!
//! A domain's *turn* gives *claims*, which live in memory alone. A *lease* is durable before anybody dials: it says that
//! an attempt has so much time, and nobody else tries, and nothing expires, before it has passed. A *report* says what
//! became of each recipient and names its attempt, so that what comes late cannot undo what happened since. A lease that
//! nobody reported lapses: its recipients are in doubt, and are tried again.

use std::sync::Arc;
use std::time::Duration;

use blob::{BlobReader, ReadError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use mail::address::Domain;
use mail::envelope::{DeliverBy, Recipient};
use mail::id::QueueId;
use mail::mime::Facts;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error::WorkError;
use crate::item::{Failure, Item, Message, Progress, Said, Sender};
use crate::queue::{Inner, Queue};
use crate::schedule::Waits;
use crate::sending::SendGuard;

/// What waits for other hosts. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    inner: Arc<Inner>,
}

impl Queue {
    /// What waits for other hosts.
    pub fn outbound(&self) -> Outbound {
        Outbound { inner: self.inner.clone() }
    }
}

impl Outbound {
    /// Waits until domains have something due that nobody works on; at most `max` of them, each in its turn. A domain
    /// has one turn out at a time in this process. Dropping the future loses nothing.
    pub async fn turns(&self, max: usize) -> Vec<Turn> {
        let inner = &self.inner;
        loop {
            let woken = inner.send_wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let turns = self.turns_now(max);
            if !turns.is_empty() {
                if inner.lineup.lock().has_turns(inner.clock.now()) {
                    inner.send_wake.notify_one();
                }
                return turns;
            }
            let now = inner.clock.now();
            let next = inner.lineup.lock().next_due();
            let due = next.map_or(u64::MAX, |due| due.saturating_sub(now).max(1));
            let wait = inner.poll_interval().min(Duration::from_secs(due));
            let _ = tokio::time::timeout(wait, woken).await;
        }
    }

    /// What [`Self::turns`] would give without waiting.
    pub fn turns_now(&self, max: usize) -> Vec<Turn> {
        let domains = self.inner.lineup.lock().turns(max, self.inner.clock.now());
        let turn = |domain: Arc<Domain>| {
            let hastened = self.inner.lineup.lock().take_hastened(&domain);
            Turn { inner: self.inner.clone(), domain, hastened, paused: None }
        };
        domains.into_iter().map(turn).collect()
    }

    /// Commits leases, to be done before dialling; those of one shard go into one entry. An attempt has `duration`,
    /// counted on this process's monotonic clock from before the commit. A claim that cannot be leased comes again by
    /// itself, if anything of it is left.
    pub async fn lease(
        &self,
        claims: Vec<OutboundClaim>,
        duration: Duration,
    ) -> Vec<Result<Leased, WorkError>> {
        let most = self.inner.config.outbound_lease_seconds_max;
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(most).clamp(1, most);
        let leases = claims.into_iter().map(|claim| self.inner.lease(claim, seconds));
        futures_util::future::join_all(leases).await
    }

    /// Commits what became of attempts; those of one shard go into one entry. What it gives back was not committed, as
    /// far as is known, and can be reported again: what is never reported is in doubt.
    pub async fn report(&self, reports: Vec<AttemptReport>) -> Vec<Result<Reported, Unreported>> {
        let reports = reports.into_iter().map(|report| self.inner.report_attempt(report));
        futures_util::future::join_all(reports).await
    }

    /// The message as it is sent: what is put before it, and its own bytes.
    pub async fn body(&self, claim: &OutboundClaim) -> Result<OutboundBody, WorkError> {
        let message = claim.message();
        let details = self.inner.details_of(message).await?;
        let reader = self.inner.blobs.open(&message.body, message.body.key).await?;
        Ok(OutboundBody { prefix: Bytes::copy_from_slice(&details.prefix), reader })
    }

    /// What the splitter found in the message, without what is put before it.
    pub async fn facts(&self, claim: &OutboundClaim) -> Result<Arc<Facts>, WorkError> {
        self.inner.facts_of(claim.message()).await
    }

    /// When a recipient at a domain is tried again after its `deferrals`-th deferral, counted from zero.
    pub fn next_attempt(
        &self,
        domain: &Domain,
        queue_id: QueueId,
        deferrals: u32,
        now: u64,
        expires: u64,
    ) -> u64 {
        Waits::remote(&self.inner.config, domain).next_due(queue_id, deferrals, now, expires)
    }

    /// The time, as the queue sees it.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

/// A domain's turn. Dropped, the domain gets another as soon as something of it is due.
pub struct Turn {
    inner: Arc<Inner>,
    domain: Arc<Domain>,
    hastened: bool,
    paused: Option<u64>,
}

impl Turn {
    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// An operator wants something of it tried at once, whatever its hosts said before.
    pub fn is_hastened(&self) -> bool {
        self.hastened
    }

    /// Items that are due, as far as this process keeps in mind.
    pub fn due(&self) -> usize {
        self.inner.lineup.lock().load(&self.domain).0
    }

    /// The highest priority among them.
    pub fn priority(&self) -> i8 {
        self.inner.lineup.lock().load(&self.domain).1
    }

    /// Up to `max` items. Senders take turns, and a higher priority goes first, except that one in eight comes from those
    /// below it, in turn. With none, nothing is due now.
    pub async fn claim(&mut self, max: usize) -> Vec<OutboundClaim> {
        loop {
            let now = self.inner.clock.now();
            let taken = self.inner.lineup.lock().take(&self.domain, max, now);
            if taken.is_empty() {
                return Vec::new();
            }
            let guards = taken.into_iter().map(|(ticket, line)| SendGuard::new(&self.inner, ticket, line));
            let claims = self.inner.prepare_claims(guards.collect(), now).await;
            if !claims.is_empty() {
                return claims;
            }
        }
    }

    /// The domain gets no other turn before so many seconds, whatever comes: its hosts are to be left alone. Kept in
    /// memory only.
    pub fn pause(mut self, seconds: u64) {
        self.paused = Some(self.inner.clock.now() + seconds);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.lineup.lock().end_turn(&self.domain, self.paused);
        self.inner.send_wake.notify_one();
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({})", self.domain)
    }
}

/// A recipient that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Which one of its item.
    pub index: u32,
    /// Its address and what the sender asked for.
    pub recipient: Recipient,
    /// Attempts before that ended in a deferral.
    pub deferrals: u32,
    /// Attempts before of which nobody knows whether they delivered it.
    pub doubts: u32,
    /// What the last attempt heard.
    pub last: Option<Said>,
}

/// A message with recipients at one domain that are due, a hundred at most. Dropped, it comes again; nothing was
/// committed.
pub struct OutboundClaim {
    pub(crate) guard: SendGuard,
    pub(crate) item: Arc<Item>,
    pub(crate) due: Vec<Due>,
}

impl OutboundClaim {
    /// The message's id.
    pub fn queue_id(&self) -> QueueId {
        self.item.message.queue_id
    }

    /// The destination.
    pub fn domain(&self) -> &Domain {
        &self.guard.line.domain
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.item.message
    }

    /// Its envelope without the recipients.
    pub fn sender(&self) -> &Sender {
        &self.item.message.sender
    }

    /// The recipients that are due.
    pub fn recipients(&self) -> &[Due] {
        &self.due
    }

    /// Leaves recipients out. They come again with the item.
    pub fn retain(&mut self, which: impl FnMut(&Due) -> bool) {
        self.due.retain(which);
    }

    /// Where an operator sends it instead: `host`, `host:port`, `[address]:port`.
    pub fn route(&self) -> Option<&str> {
        match &self.item.progress {
            Progress::Sending(sending) => sending.route.as_deref(),
            _ => None,
        }
    }

    /// MT-PRIORITY, -9 to 9 (RFC 6710).
    pub fn priority(&self) -> i8 {
        self.guard.line.priority
    }

    /// By when the sender wants it delivered, and what is to happen else (RFC 2852).
    pub fn deliver_by(&self) -> Option<DeliverBy> {
        self.item.message.details.notes().and_then(|notes| notes.deliver_by)
    }

    /// The number that the next attempt will have unless somebody else is faster.
    pub fn attempt_next(&self) -> u32 {
        self.item.attempts.saturating_add(1)
    }
}

impl std::fmt::Debug for OutboundClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutboundClaim({}, {} at {})", self.queue_id(), self.due.len(), self.guard.line.domain)
    }
}

/// A claim with a lease that is durable. Dropped without a report, it lapses, and its recipients are in doubt.
#[derive(Debug)]
pub struct Leased {
    pub(crate) claim: OutboundClaim,
    pub(crate) attempt: u32,
    pub(crate) deadline: Instant,
}

impl Leased {
    /// The attempt's number.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When its time is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it has time left. To be asked before dialling, and before the final dot: without, neither is allowed.
    pub fn is_live(&self) -> bool {
        Instant::now() < self.deadline
    }
}

impl std::ops::Deref for Leased {
    type Target = OutboundClaim;

    fn deref(&self) -> &OutboundClaim {
        &self.claim
    }
}

/// What became of an attempt.
#[derive(Debug)]
pub struct AttemptReport {
    /// The attempt.
    pub leased: Leased,
    /// What became of its recipients, by [`Due::index`]. One that is not here lapses, and is in doubt.
    pub results: Vec<(u32, AttemptResult)>,
}

impl AttemptReport {
    /// The same for all recipients.
    pub fn all(leased: Leased, result: &AttemptResult) -> Self {
        let results = leased.due.iter().map(|due| (due.index, result.clone())).collect();
        Self { leased, results }
    }
}

/// What became of one recipient in an attempt. The attempt's number in what was said is filled in by the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttemptResult {
    /// Another host has taken the message.
    Delivered {
        /// What it said.
        said: Said,
        /// What the sender wants to hear and the host will tell, so that we do not.
        passed_on: PassedOn,
    },
    /// Not now.
    Deferred {
        /// What was said.
        said: Said,
        /// To be tried again then (unix seconds). `None`: as the schedule says.
        not_before: Option<u64>,
    },
    /// Not ever.
    Failed {
        /// Why, for the notification.
        failure: Failure,
        /// What was said.
        said: Said,
    },
    /// The connection was lost behind the final dot: nobody knows.
    InDoubt {
        /// What was found instead of an answer.
        said: Said,
    },
    /// The attempt ended before anything was said about this recipient. Counts as none.
    Untried {
        /// To be tried again after so many seconds.
        seconds: u64,
    },
}

/// What a host has been told of the sender's wishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassedOn {
    /// It offers DSN, and knows of what the sender wants to hear (RFC 3461 §5.2.2).
    pub dsn: bool,
    /// It offers DELIVERBY, and knows by when the sender wants the message delivered (RFC 2852 §4.2).
    pub deliver_by: bool,
}

impl PassedOn {
    /// All of them.
    pub const ALL: Self = Self { dsn: true, deliver_by: true };
}

/// What a report changed, in recipients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reported {
    /// Taken by other hosts.
    pub delivered: u32,
    /// To be tried again.
    pub deferred: u32,
    /// Failed, or given up.
    pub failed: u32,
    /// Nobody knows.
    pub in_doubt: u32,
    /// Came too late to change anything.
    pub late: u32,
}

/// A report that was not committed, or not known to be.
#[derive(Debug, thiserror::Error)]
#[error("an attempt cannot be reported")]
pub struct Unreported {
    /// The report, to be given again.
    pub report: Box<AttemptReport>,
    /// Why.
    #[source]
    pub error: WorkError,
}

/// A message as it is sent.
#[derive(Clone)]
pub struct OutboundBody {
    prefix: Bytes,
    reader: BlobReader,
}

impl OutboundBody {
    /// Its octets, to the last.
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.reader.size()
    }

    /// What is put before the message's own bytes.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// All of it, in pieces; nothing is read ahead. After an error nothing follows.
    pub fn stream(&self) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + Unpin + use<> {
        let prefix = (!self.prefix.is_empty()).then(|| Ok(self.prefix.clone()));
        stream::iter(prefix).chain(self.reader.read_range(0..self.reader.size()))
    }
}

impl std::fmt::Debug for OutboundBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutboundBody({} octets)", self.size())
    }
}
