//! The queue as its users see it: opening it, taking bodies and submissions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use blob::{BlobStore, Holder, KeyRing};
use engine::{Archive, CreateError, Engine, LogId, LogOptions, Logs, with_causes};
use mail::address::Address;
use mail::envelope::{ByMode, DeliverBy};
use mail::id::{AccountId, QueueId};
use mail::mime::{Facts, Splitter};
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore, mpsc};
use uuid::Uuid;

use crate::body::{Body, BodyWriter};
use crate::claim::{Claimed, Guard};
use crate::clock::Clock;
use crate::config::Config;
use crate::dialogue::Dialogues;
use crate::error::{BodyError, OpenError, SubmitError, WorkError};
use crate::facts::FactsCache;
use crate::fold::ShardState;
use crate::item::{
    Derivation, Destination, Details, Expansion, MESSAGE_ID_BYTES_MAX, Message, MessageDetails, Notes,
    Progress, Sender, Slice, Target, Targets,
};
use crate::lineup::{Bounds, Lineup};
use crate::report::{Report, run_reporter};
use crate::root::Layout;
use crate::schedule::hour_of;
use crate::shard::{Accepted, Arrival, Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind, derived_index, ingest_index, notification_id, outbound_index};
use crate::sharing::Sharing;
use crate::submission::{Committed, Resolved, Submission};
use crate::sweep::ClockGuard;
use crate::window::{Ticket, Window};

/// In a cluster: submissions that may wait for the commits of one ingest shard before another one is used too.
const SHARD_GROUP: usize = 256;

/// The queue. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Queue {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    /// This process, as shards know it.
    pub(crate) boot: Uuid,
    pub(crate) clock: Clock,
    pub(crate) blobs: BlobStore,
    pub(crate) keys: KeyRing,
    logs: Logs<ShardState>,
    pub(crate) ingest: Vec<Shard>,
    pub(crate) quarantine: Shard,
    /// Opened when something is placed there, or when the sweep comes along.
    outbound: Vec<OnceCell<Shard>>,
    pub(crate) window: Mutex<Window>,
    /// Says whether the time can be trusted to expire something.
    pub(crate) clocks: Mutex<ClockGuard>,
    /// Rung when the window may have work.
    pub(crate) wake: Notify,
    /// What is due to be sent to other hosts.
    pub(crate) lineup: Mutex<Lineup>,
    /// Rung when the line-up may have work.
    pub(crate) send_wake: Notify,
    /// Rung when a lease is watched.
    pub(crate) lapse_wake: Arc<Notify>,
    pub(crate) dialogues: Dialogues,
    /// Outbound chunks of which everything is kept in mind, by the number of items that ever came into them.
    pub(crate) scanned: Mutex<HashMap<(ShardId, u32), u32>>,
    /// Rounds that looked for what is to be sent, by shard.
    pub(crate) scans: Mutex<HashMap<ShardId, usize>>,
    /// Chunks of ingest shards for later hours that were looked at, and how many items had come into them by then.
    pub(crate) looked_ahead: Mutex<HashMap<(ShardId, u32), u32>>,
    /// The next round looks at what is put off for longer than anything is: a clock that was ahead put it there. As after
    /// a start.
    pub(crate) far: AtomicBool,
    /// Who else works on the shards.
    pub(crate) sharing: Sharing,
    /// Ingest shards that this process works on: those of which it knows that what a dead one began there is marked.
    pub(crate) held: Mutex<BTreeSet<ShardId>>,
    /// Rung when the window has room for what did not fit before.
    pub(crate) scan: Arc<Notify>,
    pub(crate) facts: Mutex<FactsCache>,
    submitting: Semaphore,
    pub(crate) reports: mpsc::Sender<Report>,
    tasks: OnceLock<Vec<tokio::task::AbortHandle>>,
    /// Those that look at once for what other nodes put into a shard.
    pub(crate) followers: Mutex<BTreeMap<ShardId, tokio::task::AbortHandle>>,
}

impl Inner {
    fn end_tasks(&self) {
        self.tasks.get().into_iter().flatten().for_each(tokio::task::AbortHandle::abort);
        self.followers.lock().values().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

/// What the queue stands on.
#[derive(Clone)]
pub struct Foundation {
    /// Logs and rows.
    pub engine: Engine,
    /// How logs are kept.
    pub log_options: LogOptions,
    /// Where log entries go before they are trimmed.
    pub archive: Option<Arc<dyn Archive>>,
    /// Message bytes.
    pub blobs: BlobStore,
    /// Keys of shards and of days.
    pub keys: KeyRing,
    /// The time.
    pub clock: Clock,
    /// Who else works on the same shards.
    pub sharing: Sharing,
}

impl Queue {
    /// Opens the queue; makes its shards at the first start. To be called within a runtime, once per process.
    pub async fn open(foundation: Foundation, config: Config) -> Result<Self, OpenError> {
        let (queue, inbox) = Self::assemble(foundation, config).await?;
        let inner = &queue.inner;
        let holding = inner.ingest.iter().map(|shard| inner.hold(shard));
        for held in futures_util::future::join_all(holding).await {
            held.map_err(|error| OpenError::Shard { shard: "ingest".to_owned(), reason: error.to_string() })?;
        }
        let reporter = tokio::spawn(run_reporter(Arc::downgrade(inner), inbox));
        let keeper = tokio::spawn(crate::keeper::run(Arc::downgrade(inner)));
        let lapses = tokio::spawn(crate::sending::run_lapses(Arc::downgrade(inner)));
        let mut tasks = vec![reporter, keeper, lapses];
        if let Sharing::Nodes(nodes) = &inner.sharing {
            tasks.push(tokio::spawn(crate::keeper::follow_nodes(Arc::downgrade(inner), nodes.watch())));
        }
        let _ = inner.tasks.set(tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect());
        Ok(queue)
    }

    /// Opens the queue to be looked at and acted on by an operator: nothing of it is delivered or expires, and no start
    /// is counted.
    pub async fn inspect(foundation: Foundation, config: Config) -> Result<Self, OpenError> {
        Ok(Self::assemble(foundation, config).await?.0)
    }

    async fn assemble(
        foundation: Foundation,
        config: Config,
    ) -> Result<(Self, mpsc::Receiver<Report>), OpenError> {
        config.check().map_err(OpenError::Config)?;
        let Foundation { engine, log_options, archive, blobs, keys, clock, sharing } = foundation;
        let layout = Layout { ingest: config.ingest_shards, outbound: config.outbound_shards };
        let logs = shard_logs(engine, log_options, archive);
        let ids: Vec<ShardId> =
            (0..layout.ingest).map(ShardId::ingest).chain([ShardId::QUARANTINE]).collect();
        let opening = ids.into_iter().map(|id| open_shard(&logs, &keys, layout, id));
        let mut ingest = futures_util::future::try_join_all(opening).await?;
        let quarantine = ingest.pop().expect("the quarantine shard was opened last");
        let (reports, inbox) = mpsc::channel(config.in_flight_max);
        let inner = Arc::new(Inner {
            boot: sharing.boot(),
            sharing,
            clock,
            blobs,
            keys,
            logs,
            ingest,
            quarantine,
            outbound: (0..layout.outbound).map(|_| OnceCell::new()).collect(),
            window: Mutex::new(Window::new(config.window_max, config.in_flight_max)),
            clocks: Mutex::new(ClockGuard::new(Duration::from_secs(config.expiry_grace_seconds))),
            wake: Notify::new(),
            lineup: Mutex::new(Lineup::new(Bounds {
                tickets_max: config.outbound_window_max,
                sender_max: config.outbound_sender_max,
                taken_max: config.outbound_in_flight_max,
            })),
            send_wake: Notify::new(),
            lapse_wake: Arc::default(),
            dialogues: Dialogues::default(),
            scanned: Mutex::default(),
            scans: Mutex::default(),
            looked_ahead: Mutex::default(),
            far: AtomicBool::new(true),
            held: Mutex::default(),
            scan: Arc::default(),
            facts: Mutex::new(FactsCache::new(config.facts_bytes_max)),
            submitting: Semaphore::new(config.submitting_max),
            reports,
            tasks: OnceLock::new(),
            followers: Mutex::default(),
            config,
        });
        Ok((Self { inner }, inbox))
    }

    /// Begins a message. Its shard depends on the first recipient that is an account here, so that one account's mail
    /// comes from one shard; in a cluster it is one of those that this node works on, so that nodes do not contend for
    /// the same shards.
    pub async fn body_writer(&self, first_local: Option<AccountId>) -> Result<BodyWriter, BodyError> {
        let queue_id = QueueId(Uuid::now_v7());
        self.inner.body_writer(queue_id, self.inner.ingest_shard(first_local, queue_id)).await
    }

    /// Begins the notification about one target of a claimed item, or about [`crate::News::part`].
    pub async fn notification_writer(&self, claimed: &Claimed, target: u32) -> Result<BodyWriter, BodyError> {
        let queue_id = notification_id(claimed.message().queue_id, target);
        let index = derived_index(queue_id, self.inner.layout().ingest);
        self.inner.body_writer(queue_id, ShardId::ingest(index)).await
    }

    /// Takes a message over. When it returns, body and entry are durable: only then may a sender be told so.
    pub async fn submit(&self, submission: Submission) -> Result<Committed, SubmitError> {
        self.inner.submit(submission, None).await
    }

    /// As [`Self::submit`], for the notification about one target of a claimed item. However often it is tried, there
    /// is one: its body has to come from [`Self::notification_writer`].
    pub async fn submit_notification(
        &self,
        claimed: &Claimed,
        target: u32,
        submission: Submission,
    ) -> Result<Committed, SubmitError> {
        if submission.body.queue_id != notification_id(claimed.message().queue_id, target) {
            return Err(SubmitError::Malformed { reason: "the body is not that of this notification" });
        }
        let (derived, watermark) = claimed.derivation(target);
        self.inner.submit(submission, Some((derived, watermark))).await
    }

    /// Whether the notification about this target has been queued. Asked behind whatever is on its way to the shard, from
    /// this process or another, so a `false` can be acted upon.
    pub async fn is_notified(&self, claimed: &Claimed, target: u32) -> Result<bool, WorkError> {
        let queue_id = notification_id(claimed.message().queue_id, target);
        let shard = &self.inner.ingest[derived_index(queue_id, self.inner.layout().ingest) as usize];
        let (derived, _) = claimed.derivation(target);
        // Model quarantine: Rule::ToldAskedInOrder.
        Ok(shard.has_taken(derived).await?)
    }

    /// Whether this target of a claimed item was placed on its own, to be sent to an address elsewhere. Asked behind whatever
    /// is on its way to the shard, so a `false` can be acted upon.
    pub async fn was_sent_on(
        &self,
        claimed: &Claimed,
        target: u32,
        address: &Address,
    ) -> Result<bool, WorkError> {
        let Destination::Remote { shard, .. } = self.remote(address.clone()) else { return Ok(false) };
        let Some(shard) = self.inner.outbound_made(shard).await? else { return Ok(false) };
        let (derived, _) = claimed.derivation(target);
        Ok(shard.has_taken(derived).await?)
    }

    /// Whether the notification about this target is known to have been queued already. One that is on its way is not
    /// known.
    pub fn was_notified(&self, claimed: &Claimed, target: u32) -> bool {
        let queue_id = notification_id(claimed.message().queue_id, target);
        let shard = &self.inner.ingest[derived_index(queue_id, self.inner.layout().ingest) as usize];
        let (derived, _) = claimed.derivation(target);
        shard.state().seen(&derived) != crate::fold::Seen::New
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The blob store that bodies lie in.
    pub fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }

    /// The time, as the queue sees it.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// How many shards this process works on, of those that are open.
    pub fn shards_worked_on(&self) -> usize {
        self.inner.shards_open().filter(|shard| self.inner.works_on(shard.id)).count()
    }

    /// What is being said to other hosts, for whoever looks.
    pub fn dialogues(&self) -> &Dialogues {
        &self.inner.dialogues
    }

    /// What the shards' actors did so far.
    pub fn log_stats(&self) -> engine::LogStats {
        self.inner.logs.stats()
    }

    /// Ends the queue's tasks and actors: for shutdown, after the services have stopped. What was not reported yet is
    /// delivered once more after the next start, and recognised.
    pub fn close(&self) {
        self.inner.end_tasks();
        self.inner.logs.close();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} ingest shards)", self.inner.ingest.len())
    }
}

impl Inner {
    pub(crate) fn layout(&self) -> Layout {
        Layout { ingest: self.config.ingest_shards, outbound: self.config.outbound_shards }
    }

    /// An open shard, of those that are.
    pub(crate) fn opened(&self, id: ShardId) -> Option<&Shard> {
        match id.kind {
            ShardKind::Ingest => self.ingest.get(id.index as usize),
            ShardKind::Outbound => self.outbound.get(id.index as usize)?.get(),
            ShardKind::Quarantine => Some(&self.quarantine),
        }
    }

    /// An outbound shard; opened, and made, when it is not yet.
    pub(crate) async fn outbound(&self, index: u16) -> Result<&Shard, ShardError> {
        let id = ShardId::outbound(index);
        let cell = self.outbound.get(index as usize).ok_or_else(|| ShardError::Unavailable {
            shard: id,
            reason: "the configuration has fewer outbound shards".to_owned(),
        })?;
        let unavailable =
            |error: OpenError| ShardError::Unavailable { shard: id, reason: with_causes(&error) };
        let open =
            || async { open_shard(&self.logs, &self.keys, self.layout(), id).await.map_err(unavailable) };
        cell.get_or_try_init(open).await
    }

    /// An outbound shard, if something was ever placed there.
    pub(crate) async fn outbound_made(&self, index: u16) -> Result<Option<&Shard>, ShardError> {
        let id = ShardId::outbound(index);
        if let Some(open) = self.opened(id) {
            return Ok(Some(open));
        }
        match self.keys.sealer(blob::KeyId::System(id.log_id())).await {
            Ok(_) => self.outbound(index).await.map(Some),
            Err(blob::KeyError::Missing(_)) => Ok(None),
            Err(error) => Err(ShardError::Unavailable { shard: id, reason: with_causes(&error) }),
        }
    }

    /// Whether this process works on the shard now.
    pub(crate) fn works_on(&self, shard: ShardId) -> bool {
        match (&self.sharing, shard.kind) {
            (Sharing::Nodes(_), ShardKind::Ingest) => self.held.lock().contains(&shard),
            _ => self.sharing.is_mine(shard),
        }
    }

    /// Begins or ends to work on an ingest shard, as its owner has changed. Whoever begins marks that first: what others
    /// had in hand may have stopped them, and is taken with care.
    pub(crate) async fn hold(&self, shard: &Shard) -> Result<bool, ShardError> {
        let mine = self.sharing.is_mine(shard.id);
        // What is accepted and done in a shard of another node is nothing that this one has to see.
        shard.handle.attend(mine);
        let held = self.held.lock().contains(&shard.id);
        if mine && !held {
            shard.boot(self.boot, self.clock.now()).await?;
            self.held.lock().insert(shard.id);
            tracing::debug!(shard = %shard.id, "works on the shard");
        } else if held && !mine {
            self.held.lock().remove(&shard.id);
            tracing::debug!(shard = %shard.id, "another node works on the shard");
        }
        Ok(mine)
    }

    fn ingest_shard(&self, first_local: Option<AccountId>, queue_id: QueueId) -> ShardId {
        let held = self.held.lock();
        let own = u16::try_from(held.len()).unwrap_or(u16::MAX);
        // Where a commit is one for a whole cluster, as few shards as can take what comes: the more of it in one commit.
        let among = match self.sharing {
            Sharing::Nodes(_) => own.min(1 + (self.submissions_waiting() / SHARD_GROUP) as u16),
            Sharing::Alone | Sharing::Unknown => own,
        };
        let own = held.iter().nth(ingest_index(first_local, queue_id, among).into());
        own.copied()
            .unwrap_or_else(|| ShardId::ingest(ingest_index(first_local, queue_id, self.layout().ingest)))
    }

    /// Submissions that wait for their commit.
    fn submissions_waiting(&self) -> usize {
        self.config.submitting_max.saturating_sub(self.submitting.available_permits())
    }

    async fn body_writer(&self, queue_id: QueueId, shard: ShardId) -> Result<BodyWriter, BodyError> {
        let key = self.keys.queue_key(self.clock.now()).await?;
        let blob = self.blobs.writer(Holder::Shard(shard.log_id()), key);
        Ok(BodyWriter::new(queue_id, shard, blob, Splitter::new(self.config.mime.clone())))
    }

    async fn submit(
        &self,
        submission: Submission,
        derived: Option<(Derivation, u64)>,
    ) -> Result<Committed, SubmitError> {
        let config = &self.config;
        self.check(&submission)?;
        let Ok(_permit) = self.submitting.try_acquire() else {
            return Err(SubmitError::Full {
                reason: "too many submissions wait for their commit".to_owned(),
            });
        };
        let Submission { envelope, resolved, body, prefix, origin } = submission;
        let Body { queue_id, shard, stored, facts } = body;
        let now = self.clock.now();
        let sender = Sender::of(&envelope);
        let notes = Notes {
            message_id: message_id(&facts, &prefix).filter(|id| id.len() <= MESSAGE_ID_BYTES_MAX),
            priority: envelope.priority.clamp(-9, 9),
            deliver_by: envelope.deliver_by,
        };
        let due = envelope.hold_until.map_or(now, |until| until.max(now));
        let expires = expiry(due + config.expire_seconds, envelope.deliver_by);
        let details = MessageDetails { recipients: envelope.recipients, prefix: prefix.to_vec() };
        let expansion = self.trivial_expansion(&details, &resolved);
        let details = self.details(shard, &stored.address().key, details).await?.noted(notes);
        let message = Message {
            queue_id,
            accepted: now,
            expires,
            body: *stored.address(),
            reference: stored.nonce(),
            sender,
            details,
            origin,
            derived: derived.map(|(derived, _)| derived),
        };
        let arrival = Arrival {
            message,
            progress: Progress::Ingest(expansion),
            due,
            claimable: due == now && self.works_on(shard) && self.has_room(),
            watermark: derived.map_or(0, |(_, watermark)| watermark),
        };
        let shard = self.opened(shard).ok_or(SubmitError::Malformed { reason: "the body has no shard" })?;
        let held = Held::of(&arrival.message);
        let accepted = shard.accept(arrival, config.items_max).await;
        // What no entry names needs no reference. Where nobody knows, it stays: a leak is better than a loss.
        if matches!(
            accepted,
            Ok(Accepted::Already) | Err(ShardError::Full { .. } | ShardError::Unavailable { .. })
        ) {
            held.release(&self.blobs, shard.log).await;
        }
        if let Accepted::New(place) = accepted? {
            // From here on nothing can fail: the commit is durable.
            let weight = facts.structure.body.end.min(4_096) as usize + 512;
            self.facts.lock().put(queue_id, Arc::new(facts), weight);
            // What is held for later is found when its hour comes.
            if hour_of(due) <= hour_of(now) {
                self.announce(Ticket { shard: shard.id, place }, due);
            }
            metrics::counter!("postrider_queue_accepted_total").increment(1);
            tracing::debug!(%queue_id, shard = %shard.id, number = place.number, "accepted");
        }
        Ok(Committed::new(queue_id))
    }

    fn check(&self, submission: &Submission) -> Result<(), SubmitError> {
        let config = &self.config;
        let recipients = submission.envelope.recipients.len();
        if recipients == 0 || recipients != submission.resolved.len() {
            return Err(SubmitError::Malformed { reason: "recipients and resolutions do not match" });
        }
        if recipients > config.recipients_max {
            return Err(SubmitError::Recipients { limit: config.recipients_max });
        }
        if submission.prefix.len() > config.prefix_bytes_max {
            return Err(SubmitError::Prefix { limit: config.prefix_bytes_max });
        }
        Ok(())
    }

    /// The whole expansion, where every recipient is known already and the targets are few: a commit less.
    fn trivial_expansion(&self, details: &MessageDetails, resolved: &[Resolved]) -> Expansion {
        const TARGETS_MAX: usize = 100;
        if resolved.len() > TARGETS_MAX || resolved.contains(&Resolved::Later) {
            return Expansion::default();
        }
        let mut targets: Vec<Target> = Vec::with_capacity(resolved.len());
        for (recipient, resolved) in (0..).zip(resolved) {
            let to = match resolved {
                Resolved::Account { id, detail } => {
                    Destination::Local { account: *id, detail: detail.clone() }
                }
                Resolved::Remote => {
                    let address = details.recipients[recipient as usize].address.clone();
                    let shard = outbound_index(address.domain(), self.config.outbound_shards);
                    Destination::Remote { address, shard }
                }
                Resolved::Later => return Expansion::default(),
            };
            let same = targets.iter().position(|target| target.to == to);
            let to = same.map_or(to, |target| Destination::Same { target: target as u32 });
            targets.push(Target { recipient, owner: None, to });
        }
        let slice = Slice {
            first: 0,
            count: targets.len() as u32,
            targets: Targets::Here(Arc::new(targets)),
            outcomes: Vec::new(),
            placed: false,
        };
        Expansion { expanded: resolved.len() as u32, owners: Vec::new(), slices: vec![slice] }
    }

    /// Recipients and prefix, in a blob where they are large.
    async fn details(
        &self,
        shard: ShardId,
        key: &blob::KeyId,
        details: MessageDetails,
    ) -> Result<Details, SubmitError> {
        // About 64 octets for an address with its parameters: only what may be large is measured.
        if details.prefix.len() + details.recipients.len() * 64 <= self.config.inline_bytes_max / 4 {
            return Ok(Details::Here(details));
        }
        let bytes = postcard::to_stdvec(&details).expect("addresses have nothing that cannot be encoded");
        if bytes.len() <= self.config.inline_bytes_max {
            return Ok(Details::Here(details));
        }
        let unavailable = |error: blob::WriteError| SubmitError::Unavailable { reason: with_causes(&error) };
        let mut writer = self.blobs.writer(Holder::Shard(shard.log_id()), *key);
        writer.write(bytes.into()).await.map_err(unavailable)?;
        let stored = writer.finish(bytes::Bytes::new()).await.map_err(unavailable)?;
        let recipients = details.recipients.len() as u32;
        Ok(Details::Apart { address: *stored.address(), reference: stored.nonce(), recipients })
    }

    /// Whether delivery may begin with a new item at once. Else its number stays beyond the window that is known to
    /// the shard, and a crash meanwhile cannot have been its doing: after it, so many items at most have to be handled
    /// one by one.
    pub(crate) fn has_room(&self) -> bool {
        const SUSPECTS_MAX: usize = 512;
        let (known, _) = self.window.lock().counts();
        known < SUSPECTS_MAX
    }

    /// An item is due: whoever waits for work is woken. One in another node's shard is found there.
    pub(crate) fn announce(&self, ticket: Ticket, due: u64) {
        if !self.works_on(ticket.shard) {
            return;
        }
        let now = self.clock.now();
        self.window.lock().add(ticket, due, now);
        self.wake.notify_one();
    }

    /// Gives a claim back, to come again at `due`.
    pub(crate) fn give_back(&self, ticket: Ticket, due: u64) {
        let now = self.clock.now();
        self.window.lock().give_back(ticket, due, now);
        self.wake.notify_one();
    }

    pub(crate) fn complete(&self, ticket: Ticket) {
        let wants_scan = {
            let mut window = self.window.lock();
            window.complete(ticket);
            window.wants_scan()
        };
        if wants_scan {
            self.scan.notify_one();
        }
        // Whoever waits because too many were taken can go on.
        self.wake.notify_one();
    }

    /// Whether something that has expired at `now` may be given up.
    pub(crate) fn may_expire(&self, now: u64) -> bool {
        self.clocks.lock().may_expire(now, Instant::now())
    }

    pub(crate) fn poll_interval(&self) -> Duration {
        Duration::from_secs(self.config.poll_seconds.max(1))
    }

    pub(crate) fn guard(self: &Arc<Self>, ticket: Ticket) -> Guard {
        Guard::new(self.clone(), ticket)
    }
}

/// References that a message was to hold.
pub(crate) struct Held(Vec<(blob::BlobAddress, blob::Nonce)>);

impl Held {
    pub(crate) fn of(message: &Message) -> Self {
        let mut held = vec![(message.body, message.reference)];
        if let Some((address, reference)) = message.details.apart() {
            held.push((*address, *reference));
        }
        Self(held)
    }

    /// Takes them back. What fails is found by upkeep.
    pub(crate) async fn release(self, blobs: &BlobStore, shard: Uuid) {
        for (address, nonce) in self.0 {
            let holder = Holder::Shard(shard);
            if let Err(error) = blobs.unreference(address.segment, address.frame, holder, nonce).await {
                tracing::debug!(%error, "reference left behind");
            }
        }
    }
}

// A function of its own and not async: so the logs' machinery is compiled with this crate.
fn shard_logs(engine: Engine, options: LogOptions, archive: Option<Arc<dyn Archive>>) -> Logs<ShardState> {
    Logs::new(engine, options, archive)
}

/// The Message-ID of a message: its own, or the one that was put before it when it had none.
fn message_id(facts: &Facts, prefix: &[u8]) -> Option<String> {
    facts.message_id.clone().or_else(|| {
        const NAME: &str = "message-id:";
        let lines = prefix.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        let mut fields =
            lines.filter(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)));
        let value = fields.next()?[NAME.len()..].trim();
        Some(value.strip_prefix('<')?.strip_suffix('>')?.to_owned())
    })
}

/// When a message that would expire then does: earlier, if it is to be returned when it is late (RFC 2852 §4.1.3).
pub(crate) fn expiry(expires: u64, by: Option<DeliverBy>) -> u64 {
    match by {
        Some(by) if by.mode == ByMode::Return => expires.min(by.until),
        _ => expires,
    }
}

/// Opens a shard, or makes it.
async fn open_shard(
    logs: &Logs<ShardState>,
    keys: &KeyRing,
    layout: Layout,
    id: ShardId,
) -> Result<Shard, OpenError> {
    let failed = |reason: String| OpenError::Shard { shard: id.to_string(), reason };
    let log = id.log_id();
    let key = blob::KeyId::System(log);
    keys.ensure(key).await.map_err(|error| failed(with_causes(&error)))?;
    let sealer = keys.sealer(key).await.map_err(|error| failed(with_causes(&error)))?;
    let log_id = LogId::shard(log);
    let handle = match logs.open(log_id, sealer.clone()).await {
        Err(engine::OpenError::Missing) => {
            match logs.create(log_id, ShardState::new(id, layout), sealer.clone()).await {
                Err(CreateError::Exists) => {
                    logs.open(log_id, sealer).await.map_err(|error| failed(with_causes(&error)))?
                }
                other => other.map_err(|error| failed(with_causes(&error)))?,
            }
        }
        other => other.map_err(|error| failed(with_causes(&error)))?,
    };
    let stored = handle.state().layout();
    if stored != layout {
        return Err(OpenError::Config(format!(
            "the queue was made with {} ingest and {} outbound shards, which cannot be changed to {} and {}",
            stored.ingest, stored.outbound, layout.ingest, layout.outbound
        )));
    }
    Ok(Shard { id, log, handle })
}
