//! The actor of one open log: the only place in a process that proposes to it.
//!
//! At any time at most one *flight* is under way: a proposal being decided, the tail being followed, the log being
//! loaded again, or the snapshot pointer being swung. What arrives meanwhile waits and forms the next group. Beside the
//! flight, *jobs* fetch pages, write snapshots and archive chunks, and collect pages; they change nothing that a flight
//! decides on.

mod archiving;
mod collect;
mod flight;
mod group;
mod parts;
mod snapshotting;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::causes::with_causes;
use crate::context::{Context, OpenError};
use crate::error::EngineError;
use crate::id::PageId;
use crate::load::{Loaded, TailSizes};
use crate::log::SnapshotPointer;
use crate::open_log::{Closed, Message, Reader, Shared};
use crate::request::Verdict;
use crate::state::State;
use crate::stored::ChainHash;

use collect::Collected;
use flight::{Flight, Landed};
use group::{Group, Member, Queued};
use parts::PartFetched;
pub(crate) use snapshotting::write_snapshot;
use snapshotting::{Attempt, Stage};

/// What a job brings back.
pub(crate) enum JobDone<S: State> {
    Part(PartFetched<S>),
    SnapshotTurn(OwnedSemaphorePermit),
    SnapshotWritten(Result<Box<Attempt<S>>, OpenError>),
    Archived(Result<archiving::Written, archiving::NotWritten>),
    Collected,
}

pub(crate) struct Actor<S: State> {
    shared: Arc<Shared<S>>,
    context: Arc<Context>,
    inbox: mpsc::Receiver<Message<S>>,

    /// Folded up to `seq`; everything in it is durable.
    state: Arc<S>,
    seq: u64,
    chain: ChainHash,
    /// The snapshot that the state's pages belong to.
    base: SnapshotPointer,
    /// The newest snapshot known to have been current: read, or swung to with certainty.
    known: SnapshotPointer,
    /// Entries after `known`.
    tail: TailSizes,
    /// Entries up to here are known to be trimmed.
    trimmed: u64,

    queue: VecDeque<Queued<S>>,
    /// The proposal in flight.
    group: Option<Group<S>>,
    /// Requests that change nothing and wait for the look that shows their state to be current.
    confirming: Vec<Member<S>>,
    /// Reads that wait for parts.
    readers: Vec<Reader<S>>,
    /// Reads that wait for a look at the head that starts after they came.
    refreshers: Vec<Reader<S>>,
    /// Reads that the look in flight serves.
    looking: Vec<Reader<S>>,

    flight: Option<Flight<S>>,
    jobs: FuturesUnordered<BoxFuture<'static, JobDone<S>>>,
    fetching: HashSet<S::Part>,
    stage: Stage<S>,
    /// Room for the snapshot under way.
    snapshot_turn: Option<OwnedSemaphorePermit>,
    /// Parts that were fetched for it.
    snapshot_parts: Vec<S::Part>,
    snapshot_after: Instant,
    snapshot_setbacks: u32,
    /// Behind this number entries were missing that were to be archived.
    gone_after: Option<u64>,
    /// Pages of the current snapshot, where it was made here, and collections since the last that looked at all pages.
    collected: Option<Collected>,

    /// Entries of others may lie behind `seq`.
    behind: bool,
    /// Someone here hinted that they do, or it is time to see.
    look: bool,
    /// Another node said that it has come to this number. Looked for once: it need not be true.
    heard: u64,
    /// The state's pages have been replaced, or a gap was found.
    reload: bool,
    /// The page that was not there, and made us load again.
    missing_page: Option<PageId>,
    /// The last flight was a look; the next turn belongs to a group, so that neither starves the other.
    looked_last: bool,
    /// Flights in a row that ended in a conflict or an error; decides the next pause.
    setbacks: u32,
}

impl<S: State> Actor<S> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        inbox: mpsc::Receiver<Message<S>>,
        loaded: LoadedLog<S>,
    ) -> Self {
        let context = shared.context.clone();
        Self {
            context,
            inbox,
            state: loaded.state,
            seq: loaded.seq,
            chain: loaded.chain,
            base: loaded.snapshot,
            known: loaded.snapshot,
            tail: loaded.tail,
            trimmed: 0,
            queue: VecDeque::new(),
            group: None,
            confirming: Vec::new(),
            readers: Vec::new(),
            refreshers: Vec::new(),
            looking: Vec::new(),
            flight: None,
            jobs: FuturesUnordered::new(),
            fetching: HashSet::new(),
            stage: Stage::Idle,
            snapshot_turn: None,
            snapshot_parts: Vec::new(),
            snapshot_after: Instant::now(),
            snapshot_setbacks: 0,
            gone_after: None,
            collected: None,
            behind: false,
            look: false,
            heard: 0,
            reload: false,
            missing_page: None,
            looked_last: false,
            setbacks: 0,
            shared,
        }
    }

    pub(crate) async fn run(mut self) {
        let _last = LastWord(self.shared.clone());
        let period = Duration::from_millis(self.context.options.head_poll_ms.max(1));
        let mut poll = interval_at(Instant::now() + period, period);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.shared.clone();
        loop {
            self.drain_inbox();
            if self.shared.closed.get().is_some() {
                break;
            }
            self.advance();
            let room = self.queue.len() < self.context.options.inbox_max;
            let event = tokio::select! {
                () = stop.stop.notified() => Event::Stop,
                landed = land(&mut self.flight), if self.flight.is_some() => Event::Landed(Box::new(landed)),
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => Event::Job(done),
                message = self.inbox.recv(), if room => Event::Message(message),
                () = stop.hint.notified() => Event::Hint,
                _ = poll.tick(), if self.context.options.shared => Event::Poll,
            };
            let result = match event {
                Event::Stop | Event::Message(None) => break,
                Event::Poll => {
                    self.look |= self.shared.is_attended();
                    Ok(())
                }
                Event::Hint => {
                    self.heard = self.heard.max(stop.heard.swap(0, Ordering::Relaxed));
                    Ok(())
                }
                Event::Message(Some(message)) => {
                    self.accept(message);
                    Ok(())
                }
                Event::Landed(landed) => {
                    self.flight = None;
                    self.landed(*landed)
                }
                Event::Job(done) => {
                    self.job_done(done);
                    Ok(())
                }
            };
            if let Err(error) = result {
                self.shared.close(Closed::Stopped(Arc::new(error)));
                break;
            }
        }
        self.finish();
    }

    fn drain_inbox(&mut self) {
        while self.queue.len() < self.context.options.inbox_max {
            match self.inbox.try_recv() {
                Ok(message) => self.accept(message),
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, message: Message<S>) {
        match message {
            Message::Commit(request) => self.queue.push_back(Queued::new(request)),
            Message::Read(reader) => self.readers.push(reader),
            Message::Refresh(reader) if self.context.options.shared => self.refreshers.push(reader),
            Message::Refresh(reader) => self.readers.push(reader),
            Message::Look => self.look = true,
            Message::Shed(bytes) => self.shed(bytes),
        }
    }

    /// Starts whatever can be started.
    fn advance(&mut self) {
        self.serve_readers();
        self.consider_snapshot();
        // Model commit: Rule::UndecidedStaysClosed.
        if self.flight.is_some() {
            return;
        }
        if self.reload {
            self.flight = Some(self.flight_load());
            return;
        }
        if self.behind {
            self.flight = Some(self.flight_follow());
            return;
        }
        if let Some(attempt) = self.take_swing() {
            self.flight = Some(self.flight_swing(attempt));
            return;
        }
        if !self.queue.is_empty() {
            // A proposal behind what others are known to have committed would be in vain.
            self.heard = self.heard.max(self.shared.heard.swap(0, Ordering::Relaxed));
        }
        let wants_look = self.look || self.heard > self.seq || !self.refreshers.is_empty();
        if wants_look && !self.looked_last {
            self.flight = Some(self.flight_follow());
            return;
        }
        self.looked_last = false;
        self.start_group();
        if self.flight.is_none() && wants_look {
            self.flight = Some(self.flight_follow());
        }
    }

    fn landed(&mut self, landed: Landed<S>) -> Result<(), OpenError> {
        match landed {
            Landed::Decided(decision) => self.decided(decision),
            Landed::Followed(followed) => self.followed(followed),
            Landed::Loaded(loaded) => self.loaded_again(loaded),
            Landed::Swung { attempt, swung } => {
                self.swung(*attempt, swung);
                Ok(())
            }
        }
    }

    fn job_done(&mut self, done: JobDone<S>) {
        match done {
            JobDone::Part(fetched) => self.part_fetched(fetched),
            JobDone::SnapshotTurn(turn) => self.snapshot_turn_came(turn),
            JobDone::SnapshotWritten(result) => self.snapshot_written(result),
            JobDone::Archived(result) => self.chunk_written(result),
            JobDone::Collected => {}
        }
    }

    /// Shows a state to readers.
    fn publish(&mut self, state: S) {
        self.state = Arc::new(state);
        self.shared.weight.store(self.state.weight(), Ordering::Relaxed);
        *self.shared.state.write() = self.state.clone();
        let seq = self.seq;
        self.shared.seq.send_if_modified(|shown| std::mem::replace(shown, seq) != seq);
    }

    /// Takes over what was loaded. Parts that were in memory are gone and are fetched again when they are wanted.
    fn adopt(&mut self, loaded: Loaded<S>) {
        self.seq = loaded.seq;
        self.chain = loaded.chain;
        self.base = loaded.snapshot;
        self.known = loaded.snapshot;
        self.tail = loaded.tail;
        self.stage = Stage::Idle;
        self.publish(loaded.state);
    }

    fn shed(&mut self, bytes: usize) {
        let quiet = self.queue.is_empty() && self.group.is_none() && self.readers.is_empty();
        if quiet && matches!(self.stage, Stage::Idle) {
            let mut state = S::clone(&self.state);
            state.shed(bytes);
            self.publish(state);
        }
    }

    /// Answers everything that is unfinished.
    fn finish(&mut self) {
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            self.accept(message);
        }
        let closed = self.shared.closed.get_or_init(|| Closed::Evicted).clone();
        // The proposal in flight may have been applied, or may still be.
        for member in self.group.take().into_iter().flat_map(|group| group.members) {
            member.queued.request.settle(Verdict::Unknown);
        }
        let verdict = match &closed {
            Closed::Deleted => Verdict::Deleted,
            Closed::Stopped(error) => Verdict::Stopped(error.clone()),
            Closed::Evicted => Verdict::Unavailable(EngineError::unavailable("the log was closed")),
        };
        let confirming = self.confirming.drain(..).map(|member| member.queued);
        for queued in confirming.chain(self.queue.drain(..)) {
            queued.request.settle(verdict.clone());
        }
        let readers = self.readers.drain(..).chain(self.refreshers.drain(..)).chain(self.looking.drain(..));
        for reader in readers {
            reader.answer(Err(closed.as_read_error()));
        }
        if let Closed::Stopped(error) = &closed {
            tracing::error!(log = %self.context.log, error = with_causes(&**error), "log stopped");
        }
    }
}

/// Says that the log is closed when the actor ends without having said so, which is by a panic in the state. Whoever
/// waits sees the channel close; the next open loads the log again.
struct LastWord<S: State>(Arc<Shared<S>>);

impl<S: State> Drop for LastWord<S> {
    fn drop(&mut self) {
        let panicked = || Closed::Stopped(Arc::new(OpenError::Panicked("while folding".into())));
        if std::thread::panicking() {
            self.0.closed.get_or_init(panicked);
        }
    }
}

enum Event<S: State> {
    Stop,
    Landed(Box<Landed<S>>),
    Job(JobDone<S>),
    Message(Option<Message<S>>),
    Hint,
    Poll,
}

async fn land<S: State>(flight: &mut Option<Flight<S>>) -> Landed<S> {
    match flight {
        Some(flight) => flight.await,
        None => std::future::pending().await,
    }
}

/// What an actor starts from.
pub(crate) struct LoadedLog<S> {
    pub(crate) state: Arc<S>,
    pub(crate) seq: u64,
    pub(crate) chain: ChainHash,
    pub(crate) snapshot: SnapshotPointer,
    pub(crate) tail: TailSizes,
}
