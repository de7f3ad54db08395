//! Outbound items between line-up, attempts and notifications: claims, leases, reports, lapses.

use std::sync::Arc;
use std::time::Duration;

use mail::address::Domain;
use tokio::time::Instant;

use crate::entry::{Change, Place};
use crate::error::WorkError;
use crate::item::{Item, Said};
use crate::lineup::{Line, Watched};
use crate::outbound::{AttemptReport, AttemptResult, Due, Leased, OutboundClaim, Reported, Unreported};
use crate::queue::Inner;
use crate::remote::{self, Next, Times};
use crate::schedule::Waits;
use crate::shard::{Alteration, Altered, LeaseAnswer, LeaseRequest, Shard, ShardError};
use crate::window::Ticket;

/// Keeps a ticket of the line-up taken.
pub(crate) struct SendGuard {
    inner: Arc<Inner>,
    ticket: Ticket,
    pub(crate) line: Line,
    lease: Option<(u32, Instant)>,
    open: bool,
}

impl SendGuard {
    pub(crate) fn new(inner: &Arc<Inner>, ticket: Ticket, line: Line) -> Self {
        Self { inner: inner.clone(), ticket, line, lease: None, open: true }
    }

    /// The item lies at `place` now, as `item`: to whatever is next.
    fn hand_on(mut self, place: Place, item: &Item) {
        self.open = false;
        let ticket = Ticket { place, ..self.ticket };
        self.inner.hand_on(ticket, item, self.lease);
    }

    /// Nothing is left to do.
    fn complete(mut self) {
        self.open = false;
        self.inner.complete_send(self.ticket);
    }
}

impl Drop for SendGuard {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let now = self.inner.clock.now();
        {
            let mut lineup = self.inner.lineup.lock();
            match self.lease {
                None => lineup.give_back(self.ticket, now + 1, now),
                Some((attempt, lapses)) => {
                    lineup.complete(self.ticket);
                    if !lineup.watch(Watched { ticket: self.ticket, attempt, lapses }) {
                        self.inner.scan_again(self.ticket);
                    }
                }
            }
        }
        self.inner.send_wake.notify_one();
        self.inner.lapse_wake.notify_one();
    }
}

impl Inner {
    /// An outbound item that this process has just learnt of, or learnt something about: to whatever is next. `false`:
    /// there is no room to keep it in mind.
    pub(crate) fn learn_of(&self, ticket: Ticket, item: &Item, fresh: bool) -> bool {
        let now = self.clock.now();
        let Some(domain) = remote::domain(item) else { return true };
        let fits = match remote::next(item, self.times(item), now) {
            Next::Tell => {
                let fits = self.window.lock().add(ticket, 0, now);
                self.wake.notify_one();
                fits
            }
            Next::Try { due } if self.is_near(due, now) => {
                let line = line_of(item, domain);
                let mut lineup = self.lineup.lock();
                if fresh {
                    lineup.add_fresh(ticket, line, due, now)
                } else {
                    lineup.add(ticket, line, due, now)
                }
            }
            Next::Watch { attempt, seconds } => {
                let ended = remote::leases(item).all(|(_, boot, _)| self.sharing.has_ended(boot, self.boot));
                // Model queue: Rule::LeaseSeenInFull.
                let lapses = remote::lapses(Instant::now(), if ended { 0 } else { seconds });
                let mut lineup = self.lineup.lock();
                let taken = lineup.is_taken(ticket.shard, ticket.place.number);
                let fits = taken || lineup.watch(Watched { ticket, attempt, lapses });
                drop(lineup);
                self.lapse_wake.notify_one();
                fits
            }
            Next::Try { .. } | Next::Held | Next::Nothing => true,
        };
        if !fits {
            self.scan_again(ticket);
        }
        self.send_wake.notify_one();
        fits
    }

    /// Something in a chunk is not kept in mind: it has to be looked for again.
    fn scan_again(&self, ticket: Ticket) {
        self.scanned.lock().remove(&(ticket.shard, ticket.place.chunk));
    }

    /// An operator changed an item: what it waited for counts no more.
    pub(crate) fn hasten(&self, ticket: Ticket, item: &Item) {
        let now = self.clock.now();
        if let (Next::Try { due }, Some(domain)) =
            (remote::next(item, self.times(item), now), remote::domain(item))
            && due <= now
        {
            self.lineup.lock().hasten(ticket, line_of(item, domain), now);
            self.send_wake.notify_one();
        } else {
            self.learn_of(ticket, item, true);
        }
    }

    /// How long things may take for an item. Nobody hears of a delay while the clock is in doubt.
    pub(crate) fn times(&self, item: &Item) -> Times {
        let may_expire = self.may_expire(self.clock.now());
        let Some(domain) = remote::domain(item) else {
            return Times { delay: 0, longest: u64::MAX, may_expire };
        };
        let delay = if may_expire { self.config.retry_for(domain).delay_notice_seconds } else { 0 };
        Times { delay, longest: Waits::remote(&self.config, domain).longest(), may_expire }
    }

    /// A taken item goes to whatever is next.
    fn hand_on(&self, ticket: Ticket, item: &Item, lease: Option<(u32, Instant)>) {
        let now = self.clock.now();
        let next = remote::next(item, self.times(item), now);
        let mut lineup = self.lineup.lock();
        match next {
            Next::Try { due } if self.is_near(due, now) => {
                lineup.give_back(ticket, due, now);
                drop(lineup);
            }
            Next::Watch { attempt, seconds } => {
                let lapses = match lease {
                    Some((mine, deadline)) if mine == attempt => deadline,
                    _ => remote::lapses(Instant::now(), seconds),
                };
                lineup.complete(ticket);
                let fits = lineup.watch(Watched { ticket, attempt, lapses });
                drop(lineup);
                if !fits {
                    self.scan_again(ticket);
                }
                self.lapse_wake.notify_one();
            }
            Next::Tell => {
                lineup.complete(ticket);
                drop(lineup);
                if !self.window.lock().add(ticket, 0, now) {
                    self.scan_again(ticket);
                }
                self.wake.notify_one();
            }
            Next::Try { .. } | Next::Held | Next::Nothing => {
                drop(lineup);
                self.complete_send(ticket);
            }
        }
        self.send_wake.notify_one();
    }

    fn complete_send(&self, ticket: Ticket) {
        let wants_scan = {
            let mut lineup = self.lineup.lock();
            lineup.complete(ticket);
            lineup.wants_scan()
        };
        if wants_scan {
            self.scan.notify_one();
        }
        self.send_wake.notify_one();
    }

    /// Whether the line-up should know of something that is due then; what is later is found when its hour comes.
    fn is_near(&self, due: u64, now: u64) -> bool {
        due <= now + 2 * self.config.poll_seconds.max(30)
            || crate::schedule::hour_of(due) <= crate::schedule::hour_of(now)
    }

    /// Makes claims of tickets of one domain, which are all of one shard.
    pub(crate) async fn prepare_claims(
        self: &Arc<Self>,
        guards: Vec<SendGuard>,
        now: u64,
    ) -> Vec<OutboundClaim> {
        let Some(shard) = guards.first().and_then(|guard| self.opened(guard.ticket.shard)) else {
            return Vec::new();
        };
        if !self.works_on(shard.id) {
            guards.into_iter().for_each(SendGuard::complete);
            return Vec::new();
        }
        let mut chunks: Vec<u32> = guards.iter().map(|guard| guard.ticket.place.chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let state = match shard.with(&chunks).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(shard = %shard.id, %error, "items cannot be claimed for sending");
                return Vec::new();
            }
        };
        let mut claims = Vec::with_capacity(guards.len());
        for guard in guards {
            let place = guard.ticket.place;
            let Some(item) = state.item(place) else {
                guard.complete();
                continue;
            };
            let times = self.times(item);
            let next = remote::next(item, times, now);
            if !matches!(next, Next::Try { due } if due <= now) {
                guard.hand_on(place, item);
                continue;
            }
            if item.message.expires <= now && times.may_expire {
                match self.alter(shard, place, remote::expired(item)).await {
                    Ok(Altered::Open { item, place, .. }) => guard.hand_on(place, &item),
                    Ok(Altered::Finished { .. } | Altered::Gone) => guard.complete(),
                    Err(error) => tracing::warn!(shard = %shard.id, %error, "an item cannot expire"),
                }
                continue;
            }
            let due = (0..)
                .zip(remote::recipients(item))
                .filter(|(_, recipient)| {
                    let not_before = remote::not_before(recipient, times.longest, now);
                    recipient.state.is_waiting() && not_before <= now
                })
                .map(|(index, recipient)| Due {
                    index,
                    recipient: recipient.recipient.clone(),
                    deferrals: recipient.deferrals,
                    doubts: recipient.doubts,
                    last: recipient.last.clone(),
                })
                .collect();
            claims.push(OutboundClaim { guard, item: item.clone(), due });
        }
        claims
    }

    pub(crate) async fn lease(&self, mut claim: OutboundClaim, seconds: u32) -> Result<Leased, WorkError> {
        // The holder's time begins before the commit, an observer's when they see it: so the holder's ends first.
        let deadline = remote::lapses(Instant::now(), seconds);
        let ticket = claim.guard.ticket;
        let shard = self.opened(ticket.shard).ok_or(WorkError::Misused("the claim has no shard"))?;
        let recipients = claim.due.iter().map(|due| due.index).collect();
        let request = LeaseRequest { place: ticket.place, recipients, seconds };
        let gone = || ShardError::Gone { shard: shard.id, number: ticket.place.number };
        // Model queue: Rule::LeaseThenDial.
        match shard.lease(request, self.boot).await? {
            LeaseAnswer::Leased { item, recipients } => {
                let attempt = item.attempts;
                claim.guard.lease = Some((attempt, deadline));
                claim.due.retain(|due| recipients.contains(&due.index));
                claim.item = item;
                Ok(Leased { claim, attempt, deadline })
            }
            LeaseAnswer::Nothing(item) => {
                claim.guard.hand_on(ticket.place, &item);
                Err(gone().into())
            }
            LeaseAnswer::Gone => {
                claim.guard.complete();
                Err(gone().into())
            }
        }
    }

    pub(crate) async fn report_attempt(&self, report: AttemptReport) -> Result<Reported, Unreported> {
        let ticket = report.leased.guard.ticket;
        let Some(shard) = self.opened(ticket.shard) else {
            let error = WorkError::Misused("the claim has no shard");
            return Err(Unreported { report: Box::new(report), error });
        };
        let changes = self.changes_of(&report);
        let altered = match self.alter_found(shard, ticket.place, changes.clone()).await {
            Ok(altered) => altered,
            Err(error) => return Err(Unreported { report: Box::new(report), error: error.into() }),
        };
        let guard = report.leased.claim.guard;
        let left_out = match altered {
            Altered::Open { item, place, left_out } => {
                guard.hand_on(place, &item);
                left_out
            }
            Altered::Finished { left_out } => {
                guard.complete();
                metrics::counter!("postrider_queue_outbound_finished_total").increment(1);
                left_out
            }
            Altered::Gone => {
                guard.complete();
                (0..changes.len()).collect()
            }
        };
        Ok(count(&changes, &left_out))
    }

    /// What the results of an attempt change.
    fn changes_of(&self, report: &AttemptReport) -> Vec<(u32, Change)> {
        let AttemptReport { leased, results } = report;
        let now = self.clock.now();
        let message = leased.message();
        let expires = message.expires;
        let over = expires <= now && self.may_expire(now);
        let attempt = leased.attempt;
        let waits = Waits::remote(&self.config, leased.domain());
        let mut changes = Vec::with_capacity(results.len());
        for (index, result) in results {
            let Some(due) = leased.due.iter().find(|due| due.index == *index) else { continue };
            let next = |deferrals| waits.next_due(message.queue_id, deferrals, now, expires);
            let named = |said: &Said| Said { attempt, ..said.clone() };
            let change = match result {
                AttemptResult::Delivered { said, passed_on } => Change::Delivered {
                    said: named(said),
                    owed: remote::is_owed(message, &due.recipient, *passed_on),
                },
                AttemptResult::Deferred { said, not_before } => Change::Deferred {
                    said: named(said),
                    not_before: not_before.unwrap_or_else(|| next(due.deferrals)),
                },
                AttemptResult::Failed { failure, said } => {
                    Change::Failed { failure: failure.clone(), said: Some(named(said)) }
                }
                AttemptResult::InDoubt { said } => Change::Doubted {
                    attempt,
                    said: Some(named(said)),
                    not_before: next(due.deferrals + due.doubts),
                },
                AttemptResult::Untried { seconds } => Change::Untried { attempt, not_before: now + seconds },
            };
            let waits = matches!(change, Change::Deferred { .. } | Change::Doubted { .. });
            changes.push((*index, change));
            if over && waits {
                changes.push((*index, Change::Expired));
            }
        }
        changes
    }

    pub(crate) async fn alter(
        &self,
        shard: &Shard,
        place: Place,
        changes: Vec<(u32, Change)>,
    ) -> Result<Altered, ShardError> {
        shard.alter(Alteration { place, changes }, self.clock.now()).await
    }

    /// As [`Self::alter`], for an item that may have been put elsewhere since: a success counts wherever it is.
    async fn alter_found(
        &self,
        shard: &Shard,
        place: Place,
        changes: Vec<(u32, Change)>,
    ) -> Result<Altered, ShardError> {
        let altered = self.alter(shard, place, changes.clone()).await?;
        let succeeded = changes.iter().any(|(_, change)| matches!(change, Change::Delivered { .. }));
        if !matches!(altered, Altered::Gone) || !succeeded {
            return Ok(altered);
        }
        // Model queue: Rule::SuccessFromAnyAttempt.
        match shard.locate(place.number).await? {
            Some(place) => self.alter(shard, place, changes).await,
            None => Ok(altered),
        }
    }

    /// Leases that have had their full time: what they held is in doubt, and is tried again.
    pub(crate) async fn lapse(&self) {
        let lapsed = self.lineup.lock().lapsed(Instant::now());
        for Watched { ticket, attempt, .. } in lapsed {
            let Some(shard) = self.opened(ticket.shard) else { continue };
            if let Err(error) = self.lapse_one(shard, ticket, attempt).await {
                tracing::warn!(shard = %shard.id, number = ticket.place.number, %error, "a lease cannot lapse");
                let lapses = Instant::now() + self.poll_interval();
                if !self.lineup.lock().watch(Watched { ticket, attempt, lapses }) {
                    self.scan_again(ticket);
                }
            }
        }
    }

    async fn lapse_one(&self, shard: &Shard, ticket: Ticket, attempt: u32) -> Result<(), ShardError> {
        let state = shard.with(&[ticket.place.chunk]).await?;
        let Some(item) = state.item(ticket.place) else { return Ok(()) };
        let changes = remote::lapsed(item, attempt, self.clock.now());
        let count = changes.len() as u64;
        if let Altered::Open { item, place, .. } = self.alter(shard, ticket.place, changes).await? {
            if count > 0 {
                metrics::counter!("postrider_queue_doubts_total").increment(count);
                let queue_id = item.message.queue_id;
                tracing::warn!(%queue_id, attempt, recipients = count, "attempt without a result, in doubt");
            }
            self.learn_of(Ticket { place, ..ticket }, &item, true);
        }
        Ok(())
    }
}

/// Where an item stands in line.
fn line_of(item: &Item, domain: &Domain) -> Line {
    let priority = item.message.details.notes().map_or(0, |notes| notes.priority);
    Line { domain: Arc::new(domain.clone()), sender: crate::lineup::sender_of(item), priority }
}

fn count(changes: &[(u32, Change)], left_out: &[usize]) -> Reported {
    let mut reported = Reported::default();
    for (at, (_, change)) in changes.iter().enumerate() {
        let counter = match change {
            _ if left_out.contains(&at) => &mut reported.late,
            Change::Delivered { .. } => &mut reported.delivered,
            Change::Failed { .. } => &mut reported.failed,
            Change::Doubted { .. } => &mut reported.in_doubt,
            Change::Deferred { .. } | Change::Untried { .. } => &mut reported.deferred,
            _ => continue,
        };
        *counter += 1;
    }
    reported
}

/// The task that lets leases lapse.
pub(crate) async fn run_lapses(inner: std::sync::Weak<Inner>) {
    loop {
        let (wake, next) = {
            let Some(inner) = inner.upgrade() else { return };
            inner.lapse().await;
            let next = inner.lineup.lock().next_lapse();
            (inner.lapse_wake.clone(), next)
        };
        let wait = next.map_or(Duration::from_secs(60), |at| at.saturating_duration_since(Instant::now()));
        let _ = tokio::time::timeout(wait, wake.notified()).await;
    }
}
