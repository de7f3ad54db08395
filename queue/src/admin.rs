//! What an operator sees and does: counts, lists, traces, and acting on what waits.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mail::address::{Domain, ReversePath};
use mail::id::{AccountId, QueueId};
use serde::Serialize;

use crate::entry::{Change, Departure, Place};
use crate::error::WorkError;
use crate::fold::ChunkView;
use crate::item::{Fate, Finished, Item, Progress, QuarantineReason, RemoteRecipient, RemoteState, Said};
use crate::queue::Queue;
use crate::remote;
use crate::schedule::HOUR;
use crate::select::{Filter, StateFilter};
use crate::shard::{Altered, Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind, outbound_index};
use crate::window::Ticket;

/// How much is in the queue.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Overview {
    /// Unfinished items in ingest shards.
    pub ingest: u64,
    /// Unfinished items in outbound shards that are open.
    pub outbound: u64,
    /// Items in quarantine.
    pub quarantined: u64,
    /// Items that this process is working on.
    pub in_flight: usize,
}

/// An item as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ItemView {
    /// Its id.
    pub queue_id: QueueId,
    /// Its Message-ID, where it was noted.
    pub message_id: Option<String>,
    /// The kind of the shard.
    pub kind: ShardKind,
    /// The shard.
    pub shard: String,
    /// Its number there.
    pub number: u64,
    /// Who sent it.
    pub reverse_path: ReversePath,
    /// Who had logged in to send it.
    pub principal: Option<AccountId>,
    /// Octets of the message.
    pub size: u64,
    /// When it was accepted (unix seconds).
    pub accepted: u64,
    /// When it expires.
    pub expires: u64,
    /// MT-PRIORITY.
    pub priority: i8,
    /// Where an operator sends it instead of where its domain says.
    pub route: Option<String>,
    /// What it waits for, or what became of it.
    pub standing: Standing,
    /// Its recipients elsewhere, while it waits for them.
    pub recipients: Vec<RecipientView>,
}

/// A recipient elsewhere as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecipientView {
    /// Its address.
    pub address: String,
    /// How far it is, in a word.
    pub state: &'static str,
    /// Not tried before (unix seconds).
    pub not_before: u64,
    /// Attempts that ended in a deferral.
    pub deferrals: u32,
    /// Attempts of which nobody knows whether they delivered it.
    pub doubts: u32,
    /// What the last attempt heard.
    pub last: Option<Said>,
}

/// Where an item stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Standing {
    /// Waits to be worked on, or is being worked on.
    Open {
        /// Not before (unix seconds).
        due: u64,
        /// How often it was tried, or put off.
        attempts: u32,
        /// Crashes that it was part of.
        crashes: u8,
        /// Targets or recipients that are not settled, so far.
        pending: u32,
    },
    /// In quarantine.
    Quarantined {
        /// Why.
        reason: String,
        /// Since when (unix seconds).
        since: u64,
    },
    /// Done.
    Finished {
        /// When (unix seconds).
        at: u64,
        /// What became of its targets.
        fates: Vec<Fate>,
    },
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Page {
    /// The items.
    pub items: Vec<ItemView>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<String>,
}

/// What an operator does to recipients elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tried now, whatever they wait for.
    Retry,
    /// Kept back.
    Hold,
    /// Let go again, and tried.
    Release,
    /// Taken back; nobody is told.
    Cancel,
    /// Given up; their senders are told.
    Expire,
    /// Sent there, `None`: where their domain says; and tried now.
    Reroute(Option<String>),
}

/// What an act did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Acted {
    /// Items that it changed.
    pub items: u64,
    /// Recipients that it changed.
    pub recipients: u64,
    /// Recipients that are being sent to at this moment, which it left alone.
    pub in_flight: u64,
}

/// What waits for other hosts, in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// Items.
    pub items: u64,
    /// Recipients that have not ended, by state.
    pub states: BTreeMap<&'static str, u64>,
    /// The same by age of the message: under an hour, six hours, a day, three days, and older.
    pub ages: BTreeMap<&'static str, u64>,
    /// Domains with the most of them.
    pub domains: Vec<DomainSummary>,
}

/// What waits for one domain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DomainSummary {
    /// The domain.
    pub domain: String,
    /// Recipients that have not ended.
    pub recipients: u64,
    /// Those of them that were deferred before.
    pub deferred: u64,
    /// When the oldest was accepted (unix seconds).
    pub oldest: u64,
    /// What was heard last.
    pub last: Option<Said>,
}

/// Domains that a summary names.
const SUMMARY_DOMAINS_MAX: usize = 50;
/// Domains that are counted apart while a summary is made; what is beyond is counted as `*`.
const COUNTED_DOMAINS_MAX: usize = 20_000;
/// Items that an act changes side by side.
const ACTS_MAX: usize = 64;

impl Queue {
    /// How much is in the queue.
    pub fn overview(&self) -> Overview {
        let inner = &self.inner;
        let (_, in_flight) = inner.window.lock().counts();
        let (_, sending) = inner.lineup.lock().counts();
        Overview {
            ingest: inner.ingest.iter().map(|shard| shard.state().live()).sum(),
            outbound: (0..inner.layout().outbound)
                .filter_map(|index| inner.opened(ShardId::outbound(index)))
                .map(|shard| shard.state().live())
                .sum(),
            quarantined: inner.quarantine.state().live(),
            in_flight: in_flight + sending,
        }
    }

    /// Unfinished items of one kind of shard, at most so many.
    pub async fn list(&self, kind: ShardKind, limit: usize) -> Result<Vec<ItemView>, WorkError> {
        let filter = Filter { kind: Some(kind), ..Filter::default() };
        Ok(self.select(&filter, None, limit).await?.items)
    }

    /// Unfinished items that a filter lets through, at most so many, from where another part ended.
    pub async fn select(&self, filter: &Filter, from: Option<&str>, limit: usize) -> Result<Page, WorkError> {
        let from = match from {
            Some(text) => {
                Some(Cursor::parse(text).ok_or(WorkError::Misused("not where a part of a listing ended"))?)
            }
            None => None,
        };
        let mut page = Page::default();
        for shard in self.shards_for(filter).await? {
            if from.as_ref().is_some_and(|from| from.shard > order(shard.id)) {
                continue;
            }
            let state = shard.state();
            let before = from.as_ref().filter(|from| from.shard == order(shard.id));
            let chunks = state.chunks().filter(|chunk| chunk.live > 0 && filter.may_hold(chunk));
            for chunk in chunks.filter(|chunk| before.is_none_or(|from| from.chunk <= chunk.id)) {
                let state = shard.with(&[chunk.id]).await?;
                for item in state.chunk(chunk.id).into_iter().flat_map(|content| content.live()) {
                    let after = before.is_none_or(|from| from.chunk < chunk.id || from.number <= item.number);
                    if !after || !filter.lets_through(item) {
                        continue;
                    }
                    if page.items.len() == limit {
                        let cursor = Cursor { shard: order(shard.id), chunk: chunk.id, number: item.number };
                        page.next = Some(cursor.to_string());
                        return Ok(page);
                    }
                    page.items.push(view(&shard, item));
                }
            }
        }
        Ok(page)
    }

    /// Everything that is known of a message: unfinished items and history, in all shards.
    pub async fn trace(&self, queue_id: QueueId) -> Result<Vec<ItemView>, WorkError> {
        let since = accepted_hour(queue_id);
        let views = self.trace_where(Wanted::Queue(queue_id), since).await?;
        // The clock may have been ahead then, and what was put off since lies in an hour before.
        if views.is_empty() && since > 0 {
            return self.trace_where(Wanted::Queue(queue_id), 0).await;
        }
        Ok(views)
    }

    /// As [`Self::trace`], of what went to one domain elsewhere alone: looks into one shard, from the hour on in which the
    /// message was accepted.
    pub async fn trace_to(&self, queue_id: QueueId, domain: &Domain) -> Result<Vec<ItemView>, WorkError> {
        let index = outbound_index(domain, self.inner.layout().outbound);
        let shards = self.inner.outbound_made(index).await?.cloned();
        trace_in(shards, &Wanted::Queue(queue_id), accepted_hour(queue_id)).await
    }

    /// As [`Self::trace`], for all messages with this Message-ID. Looks through the whole history.
    pub async fn trace_message_id(&self, message_id: &str) -> Result<Vec<ItemView>, WorkError> {
        let message_id = message_id.trim().trim_start_matches('<').trim_end_matches('>');
        self.trace_where(Wanted::Message(message_id), 0).await
    }

    async fn trace_where(&self, wanted: Wanted<'_>, since: u64) -> Result<Vec<ItemView>, WorkError> {
        let mut shards = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound, ShardKind::Quarantine] {
            shards.extend(self.shards(kind).await?);
        }
        trace_in(shards, &wanted, since).await
    }

    /// Finished items of one kind of shard, at most so many, those of the newest chunks first.
    pub async fn history(&self, kind: ShardKind, limit: usize) -> Result<Vec<ItemView>, WorkError> {
        let mut views = Vec::new();
        for shard in self.shards(kind).await? {
            let state = shard.state();
            let mut chunks: Vec<u32> =
                state.chunks().filter(|chunk| chunk.done > 0).map(|chunk| chunk.id).collect();
            chunks.reverse();
            for chunk in chunks {
                let state = shard.with(&[chunk]).await?;
                for finished in state.chunk(chunk).into_iter().flat_map(|content| content.finished()) {
                    if views.len() == limit {
                        return Ok(views);
                    }
                    views.push(finished_view(&shard, finished));
                }
            }
        }
        Ok(views)
    }

    /// What waits for other hosts, in numbers. Reads all of it.
    pub async fn summary(&self) -> Result<Summary, WorkError> {
        let now = self.inner.clock.now();
        let mut summary = Summary::default();
        let mut domains: BTreeMap<String, DomainSummary> = BTreeMap::new();
        for shard in self.shards(ShardKind::Outbound).await? {
            let state = shard.state();
            for chunk in state.chunks().filter(|chunk| chunk.live > 0) {
                let state = shard.with(&[chunk.id]).await?;
                for item in state.chunk(chunk.id).into_iter().flat_map(|content| content.live()) {
                    summarize(item, now, &mut summary, &mut domains);
                }
            }
        }
        let mut domains: Vec<DomainSummary> = domains.into_values().collect();
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.recipients));
        domains.truncate(SUMMARY_DOMAINS_MAX);
        summary.domains = domains;
        Ok(summary)
    }

    /// Acts on recipients elsewhere of all items that a filter lets through. What is being sent at this moment is left
    /// alone, and counted.
    pub async fn act(&self, filter: &Filter, action: &Action) -> Result<Acted, WorkError> {
        let filter = Filter { kind: Some(ShardKind::Outbound), ..filter.clone() };
        let mut acted = Acted::default();
        for shard in self.shards_for(&filter).await? {
            let chunks: Vec<ChunkView> =
                shard.state().chunks().filter(|chunk| chunk.live > 0 && filter.may_hold(chunk)).collect();
            // What an act moves to another chunk is not acted on again there.
            let mut seen = HashSet::new();
            for chunk in chunks {
                let state = shard.with(&[chunk.id]).await?;
                let items: Vec<Arc<Item>> = state
                    .chunk(chunk.id)
                    .into_iter()
                    .flat_map(|content| content.live())
                    .filter(|item| filter.lets_through(item) && seen.insert(item.number))
                    .cloned()
                    .collect();
                for group in items.chunks(ACTS_MAX) {
                    let acts = group.iter().map(|item| self.act_on(&shard, chunk.id, item, &filter, action));
                    let acts: Vec<_> = acts.collect();
                    for one in futures_util::future::join_all(acts).await {
                        let one = one?;
                        acted.items += one.items;
                        acted.recipients += one.recipients;
                        acted.in_flight += one.in_flight;
                    }
                }
            }
        }
        Ok(acted)
    }

    async fn act_on(
        &self,
        shard: &Shard,
        chunk: u32,
        item: &Item,
        filter: &Filter,
        action: &Action,
    ) -> Result<Acted, WorkError> {
        let mut place = Place { chunk, number: item.number };
        let now = self.inner.clock.now();
        let chosen = (0..).zip(remote::recipients(item)).filter(|(_, one)| filter.chooses(one));
        let in_flight = |one: &RemoteRecipient| matches!(one.state, RemoteState::Leased { .. });
        let mut acted = Acted::default();
        let mut changes = Vec::new();
        for (index, recipient) in chosen {
            if in_flight(recipient) {
                acted.in_flight += 1;
                continue;
            }
            let made = changes_for(action, recipient, now);
            acted.recipients += u64::from(!made.is_empty());
            changes.extend(made.into_iter().map(|change| (index, change)));
        }
        if let Action::Reroute(route) = action {
            match shard.reroute(place, route.clone()).await {
                Ok(_) => acted.items = 1,
                Err(ShardError::Gone { .. }) => return Ok(Acted::default()),
                Err(error) => return Err(error.into()),
            }
        }
        if changes.is_empty() {
            return Ok(acted);
        }
        acted.items = 1;
        match self.inner.alter(shard, place, changes).await? {
            Altered::Open { item, place: at, .. } => {
                place = at;
                self.inner.hasten(Ticket { shard: shard.id, place }, &item);
            }
            Altered::Finished { .. } => {}
            // Somebody was faster.
            Altered::Gone => return Ok(Acted::default()),
        }
        Ok(acted)
    }

    /// Takes back what waits to be sent to other hosts of this message. Answers how many recipients that were.
    pub async fn cancel(&self, queue_id: QueueId) -> Result<usize, WorkError> {
        let filter = Filter { queue_id: Some(queue_id), ..Filter::default() };
        Ok(self.act(&filter, &Action::Cancel).await?.recipients as usize)
    }

    /// Lets a message in quarantine be delivered again. `false`: it is not there.
    pub async fn release(&self, queue_id: QueueId) -> Result<bool, WorkError> {
        let found = self.find(ShardKind::Quarantine, queue_id).await?;
        for (_, place) in &found {
            self.release_place(*place).await?;
        }
        Ok(!found.is_empty())
    }

    /// Gives up what is left of a message in quarantine. Nobody is told. `false`: it is not there.
    pub async fn drop_quarantined(&self, queue_id: QueueId) -> Result<bool, WorkError> {
        let found = self.find(ShardKind::Quarantine, queue_id).await?;
        let now = self.inner.clock.now();
        for (shard, place) in &found {
            shard.leave(*place, Departure::Dropped, now).await?;
        }
        Ok(!found.is_empty())
    }

    async fn find(&self, kind: ShardKind, queue_id: QueueId) -> Result<Vec<(Shard, Place)>, WorkError> {
        let mut found = Vec::new();
        for shard in self.shards(kind).await? {
            let state = shard.state();
            for chunk in state.chunks().filter(|chunk| chunk.live > 0) {
                let state = shard.with(&[chunk.id]).await?;
                for item in state.chunk(chunk.id).into_iter().flat_map(|content| content.live()) {
                    if item.message.queue_id == queue_id {
                        found.push((shard.clone(), Place { chunk: chunk.id, number: item.number }));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Shards that can hold what a filter lets through, in the order of listings.
    async fn shards_for(&self, filter: &Filter) -> Result<Vec<Shard>, ShardError> {
        if let (Some(domain), None | Some(ShardKind::Outbound)) = (&filter.domain, filter.kind) {
            let index = outbound_index(domain, self.inner.layout().outbound);
            return Ok(self.inner.outbound_made(index).await?.cloned().into_iter().collect());
        }
        match filter.kind {
            Some(kind) => self.shards(kind).await,
            None => {
                let mut shards = self.shards(ShardKind::Ingest).await?;
                shards.extend(self.shards(ShardKind::Outbound).await?);
                shards.extend(self.shards(ShardKind::Quarantine).await?);
                Ok(shards)
            }
        }
    }

    pub(crate) async fn shards(&self, kind: ShardKind) -> Result<Vec<Shard>, ShardError> {
        let inner = &self.inner;
        Ok(match kind {
            ShardKind::Ingest => {
                // Those of other nodes are not attended to.
                let refreshing = inner.ingest.iter().map(Shard::refresh);
                futures_util::future::try_join_all(refreshing).await?;
                inner.ingest.clone()
            }
            ShardKind::Quarantine => vec![inner.quarantine.clone()],
            ShardKind::Outbound => {
                let mut shards = Vec::new();
                for index in 0..inner.layout().outbound {
                    shards.extend(inner.outbound_made(index).await?.cloned());
                }
                shards
            }
        })
    }
}

/// What an action changes about a recipient that is not being sent to.
fn changes_for(action: &Action, recipient: &RemoteRecipient, now: u64) -> Vec<Change> {
    let state = &recipient.state;
    let (waits, held) = (state.is_waiting(), *state == RemoteState::Held);
    match action {
        Action::Retry | Action::Reroute(_) if waits => vec![Change::Retried { not_before: now }],
        Action::Hold if waits => vec![Change::Held],
        Action::Release if held => vec![Change::Retried { not_before: now }],
        Action::Cancel if waits || held => vec![Change::Cancelled],
        Action::Expire if waits => vec![Change::Expired],
        Action::Expire if held => vec![Change::Retried { not_before: now }, Change::Expired],
        _ => Vec::new(),
    }
}

/// The hour in which a message was accepted, as its id says: nothing of it lies in chunks of earlier hours. Zero: it does
/// not say.
fn accepted_hour(queue_id: QueueId) -> u64 {
    queue_id.0.get_timestamp().map_or(0, |time| time.to_unix().0 / HOUR).saturating_sub(1)
}

/// What these shards know of a message in chunks of the hour `since` and later.
async fn trace_in(
    shards: impl IntoIterator<Item = Shard>,
    wanted: &Wanted<'_>,
    since: u64,
) -> Result<Vec<ItemView>, WorkError> {
    /// Enough for a message with many domains, and for a Message-ID that somebody uses again and again.
    const VIEWS_MAX: usize = 10_000;
    let mut views = Vec::new();
    for shard in shards {
        let state = shard.state();
        for chunk in state.chunks().filter(|chunk| u64::from(chunk.hour) >= since) {
            let state = shard.with(&[chunk.id]).await?;
            let Some(content) = state.chunk(chunk.id) else { continue };
            let live = content.live().filter(|item| wanted.is(item.message.queue_id, message_id(item)));
            views.extend(live.map(|item| view(&shard, item)));
            let done = content.finished();
            let done = done.filter(|done| wanted.is(done.queue_id, done.message_id.as_deref()));
            views.extend(done.map(|finished| finished_view(&shard, finished)));
            if views.len() >= VIEWS_MAX {
                views.truncate(VIEWS_MAX);
                return Ok(views);
            }
        }
    }
    Ok(views)
}

/// What a trace looks for.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Queue(QueueId),
    Message(&'a str),
}

impl Wanted<'_> {
    fn is(self, queue_id: QueueId, message_id: Option<&str>) -> bool {
        match self {
            Self::Queue(wanted) => wanted == queue_id,
            Self::Message(wanted) => message_id == Some(wanted),
        }
    }
}

fn message_id(item: &Item) -> Option<&str> {
    item.message.details.notes().and_then(|notes| notes.message_id.as_deref())
}

/// Where a part of a listing ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    shard: (u8, u16),
    chunk: u32,
    number: u64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?.parse().ok()?;
        let index = parts.next()?.parse().ok()?;
        let chunk = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { shard: (kind, index), chunk, number })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shard: (kind, index), chunk, number } = self;
        write!(f, "{kind}.{index}.{chunk}.{number}")
    }
}

fn order(shard: ShardId) -> (u8, u16) {
    (shard.kind as u8, shard.index)
}

fn summarize(item: &Item, now: u64, summary: &mut Summary, domains: &mut BTreeMap<String, DomainSummary>) {
    summary.items += 1;
    let age = match now.saturating_sub(item.message.accepted) / HOUR {
        0 => "1 under an hour",
        1..6 => "2 under six hours",
        6..24 => "3 under a day",
        24..72 => "4 under three days",
        _ => "5 older",
    };
    let Some(name) = remote::domain(item).map(Domain::to_string) else { return };
    let name =
        if domains.contains_key(&name) || domains.len() < COUNTED_DOMAINS_MAX { name } else { "*".into() };
    let domain = domains.entry(name.clone()).or_default();
    domain.domain = name;
    domain.oldest =
        if domain.recipients == 0 { item.message.accepted } else { domain.oldest.min(item.message.accepted) };
    for recipient in remote::recipients(item).iter().filter(|recipient| !recipient.state.is_final()) {
        *summary.states.entry(recipient.state.as_str()).or_default() += 1;
        *summary.ages.entry(age).or_default() += 1;
        domain.recipients += 1;
        domain.deferred += u64::from(recipient.deferrals > 0);
        if let Some(said) = &recipient.last
            && domain.last.as_ref().is_none_or(|last| last.at < said.at)
        {
            domain.last = Some(said.clone());
        }
    }
}

pub(crate) fn view(shard: &Shard, item: &Item) -> ItemView {
    let pending = match &item.progress {
        Progress::Ingest(expansion) => {
            expansion.pending() + item.message.details.recipients().saturating_sub(expansion.expanded)
        }
        Progress::Outbound(recipients) => recipients.len() as u32,
        Progress::Sending(sending) => {
            sending.recipients.iter().filter(|recipient| !recipient.state.is_final()).count() as u32
        }
        Progress::Quarantined(quarantined) => quarantined.rest.pending(),
    };
    let standing = match &item.progress {
        Progress::Quarantined(quarantined) => Standing::Quarantined {
            reason: match &quarantined.reason {
                QuarantineReason::Crashed { crashes } => format!("{crashes} crashes"),
                QuarantineReason::Undeliverable { failure } => {
                    format!("undeliverable: {} {}", failure.status, failure.text)
                }
            },
            since: quarantined.since,
        },
        _ => Standing::Open { due: item.due, attempts: item.attempts, crashes: item.crashes, pending },
    };
    let recipients = remote::recipients(item).iter().map(|recipient| RecipientView {
        address: recipient.recipient.address.to_string(),
        state: recipient.state.as_str(),
        not_before: recipient.not_before,
        deferrals: recipient.deferrals,
        doubts: recipient.doubts,
        last: recipient.last.clone(),
    });
    let message = &item.message;
    ItemView {
        queue_id: message.queue_id,
        message_id: message_id(item).map(str::to_owned),
        kind: shard.id.kind,
        shard: shard.id.to_string(),
        number: item.number,
        reverse_path: message.sender.reverse_path.clone(),
        principal: message.origin.principal,
        size: message.body.size,
        accepted: message.accepted,
        expires: message.expires,
        priority: message.details.notes().map_or(0, |notes| notes.priority),
        route: match &item.progress {
            Progress::Sending(sending) => sending.route.clone(),
            _ => None,
        },
        standing,
        recipients: recipients.collect(),
    }
}

pub(crate) fn finished_view(shard: &Shard, finished: &Finished) -> ItemView {
    ItemView {
        queue_id: finished.queue_id,
        message_id: finished.message_id.clone(),
        kind: shard.id.kind,
        shard: shard.id.to_string(),
        number: finished.number,
        reverse_path: finished.reverse_path.clone(),
        principal: None,
        size: finished.size,
        accepted: finished.accepted,
        expires: finished.finished,
        priority: 0,
        route: None,
        standing: Standing::Finished { at: finished.finished, fates: finished.fates.clone() },
        recipients: Vec::new(),
    }
}

impl StateFilter {
    /// Whether a recipient is in such a state.
    pub(crate) fn is(self, recipient: &RemoteRecipient) -> bool {
        match (self, &recipient.state) {
            (Self::Pending, RemoteState::Pending) => true,
            (Self::Deferred, RemoteState::Pending) => recipient.deferrals > 0,
            (Self::Leased, RemoteState::Leased { .. })
            | (Self::InDoubt, RemoteState::InDoubt { .. })
            | (Self::Held, RemoteState::Held) => true,
            (Self::Telling, state) => state.owes(),
            _ => false,
        }
    }
}
