//! Snapshots: when one is due, how it is written, and how it becomes current.
//!
//! Order: where there is an archive, the entries go there first; then, when there is room, dirty parts are fetched, the state is encoded
//! beside running commits, its pages are written under the fresh name of an *attempt*, and between two commits the
//! pointer is swung from exactly the snapshot that the kept pages come from. An attempt that fails at any point is
//! forgotten; its pages are collected later by the rule, never because they are one's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use uuid::Uuid;

use super::parts::missing_parts;
use super::{Actor, JobDone};
use crate::aside::aside;
use crate::causes::with_causes;
use crate::context::{Context, OpenError};
use crate::id::PageId;
use crate::log::{Head, Outcome, SnapshotPointer};
use crate::open_log::Busy;
use crate::rows::Row;
use crate::state::{SnapshotPages, State};
use crate::stored::{ChainHash, Root, seal_page};

/// Rows that are given to the back end at once, in bytes.
const WRITE_BYTES: usize = 1024 * 1024;

/// How often a swing with an unknown outcome is repeated before the attempt is forgotten. Nothing depends on its
/// outcome: if it lands later, the next look at the head shows it.
const SWING_ATTEMPTS: u32 = 3;

/// How often the pause after a setback is doubled.
const SETBACKS_DOUBLED: u32 = 8;

/// Where the next snapshot is on its way.
pub(super) enum Stage<S: State> {
    Idle,
    /// A job writes entries to the archive.
    Archiving,
    /// The operation that says so is being committed.
    ArchiveCommitting {
        to: u64,
        settled: Arc<AtomicBool>,
    },
    /// There has to be room for the pages.
    Turn,
    /// Dirty parts are being fetched.
    Parts,
    /// A job encodes and writes the pages.
    Writing {
        attempt: Uuid,
    },
    /// Everything is written; the pointer can be swung.
    Ready(Box<Attempt<S>>),
    Swinging,
}

/// A snapshot whose pages are written.
pub(crate) struct Attempt<S: State> {
    /// The snapshot that kept pages come from.
    pub(super) base: SnapshotPointer,
    pub(super) pointer: SnapshotPointer,
    taken: SnapshotPages<S::Plan>,
}

/// How a swing ended.
pub(super) enum Swung {
    /// It is, or was, current.
    Current,
    /// Another one took its place.
    Lost(Option<Head>),
    /// Not known, or refused.
    Forgotten,
}

impl<S: State> Actor<S> {
    pub(super) fn consider_snapshot(&mut self) {
        match &self.stage {
            Stage::Idle => {
                self.snapshot_turn = None;
                self.begin_snapshot();
            }
            Stage::ArchiveCommitting { to, settled } => {
                if self.state.archived().seq >= *to {
                    self.wait_for_turn();
                } else if settled.load(Ordering::SeqCst) {
                    self.snapshot_setback();
                }
            }
            Stage::Parts => self.write_when_loaded(),
            Stage::Archiving | Stage::Turn | Stage::Writing { .. } | Stage::Ready(_) | Stage::Swinging => {}
        }
    }

    fn begin_snapshot(&mut self) {
        let (entries, bytes) = (self.tail.entries(), self.tail.bytes());
        if !self.context.options.snapshot_due(entries, bytes, 0) || self.reload || self.behind {
            return;
        }
        if !self.context.options.snapshot_due(entries, bytes, self.state.dirty_bytes())
            || Instant::now() < self.snapshot_after
        {
            return;
        }
        // Model commit: Rule::BaseIsTheStates. Model page collection: Rule::KeptFromBase.
        if self.known.id != self.base.id {
            // Pages may be kept from the snapshot that is current only, so this state must come from it first.
            self.reload = true;
            return;
        }
        if self.context.archive.is_some() && self.state.archived().seq < self.seq {
            self.stage = Stage::Archiving;
            self.start_archiving();
        } else {
            self.wait_for_turn();
        }
    }

    /// Goes on when the pages of all snapshots under way, with ours, are within bounds.
    fn wait_for_turn(&mut self) {
        let room = self.context.options.snapshot_room();
        let wanted = self.state.dirty_bytes().div_ceil(1024).clamp(1, room) as u32;
        let snapshots = self.context.snapshots.clone();
        self.stage = Stage::Turn;
        if let Ok(turn) = snapshots.clone().try_acquire_many_owned(wanted) {
            return self.snapshot_turn_came(turn);
        }
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                let turn = snapshots.acquire_many_owned(wanted).await;
                drop(busy);
                JobDone::SnapshotTurn(turn.expect("nobody closes it"))
            }
            .boxed(),
        );
    }

    /// A turn that comes after the log was loaded again is given back.
    pub(super) fn snapshot_turn_came(&mut self, turn: OwnedSemaphorePermit) {
        if matches!(self.stage, Stage::Turn) {
            self.snapshot_turn = Some(turn);
            self.stage = Stage::Parts;
            self.consider_snapshot();
        }
    }

    fn write_when_loaded(&mut self) {
        let missing = missing_parts(&*self.state, &self.state.parts_dirty());
        if !missing.is_empty() {
            for part in missing {
                if !self.snapshot_parts.contains(&part) {
                    self.snapshot_parts.push(part.clone());
                }
                self.fetch_part(part);
            }
            return;
        }
        // Model page collection: Rule::FreshNames.
        let attempt = Uuid::new_v4();
        self.stage = Stage::Writing { attempt };
        let pointer = SnapshotPointer { id: attempt, seq: self.seq, base_seq: self.base.seq };
        let (base, chain, state) = (self.base, self.chain, self.state.clone());
        let context = self.context.clone();
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                let written = write_snapshot(&context, state, pointer, chain).await;
                drop(busy);
                JobDone::SnapshotWritten(written.map(|taken| Box::new(Attempt { base, pointer, taken })))
            }
            .boxed(),
        );
    }

    pub(super) fn snapshot_written(&mut self, result: Result<Box<Attempt<S>>, OpenError>) {
        match result {
            // An attempt that was started before the log was loaded again is out of date.
            Ok(attempt) if matches!(self.stage, Stage::Writing { attempt: id } if id == attempt.pointer.id) =>
            {
                // Model page collection: Rule::WrittenBeforeSwing.
                self.stage = Stage::Ready(attempt);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(log = %self.context.log, error = with_causes(&error), "snapshot not written");
                self.snapshot_setback();
            }
        }
    }

    /// The attempt that is ready to become current.
    pub(super) fn take_swing(&mut self) -> Option<Box<Attempt<S>>> {
        if !matches!(self.stage, Stage::Ready(_)) {
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Swinging) {
            Stage::Ready(attempt) if attempt.base.id == self.base.id => Some(attempt),
            _ => {
                self.stage = Stage::Idle;
                None
            }
        }
    }

    pub(super) fn swung(&mut self, attempt: Attempt<S>, swung: Swung) {
        self.stage = Stage::Idle;
        match swung {
            Swung::Current => {
                self.context.counters.swings.add(1);
                self.snapshot_setbacks = 0;
                let mut state = S::clone(&self.state);
                state.snapshotted(attempt.pointer.seq, &attempt.taken);
                for part in std::mem::take(&mut self.snapshot_parts) {
                    state.put_away(&part);
                }
                self.base = attempt.pointer;
                self.known = attempt.pointer;
                self.tail.cut(attempt.pointer.seq);
                self.publish(state);
                // Model page collection: Rule::SeenToBeCurrent.
                self.start_collecting(attempt.base, attempt.pointer, &attempt.taken.listed);
            }
            Swung::Lost(head) => {
                self.context.counters.swings_lost.add(1);
                if let Some(head) = head
                    && head.snapshot.seq > self.known.seq
                {
                    self.known = head.snapshot;
                    self.tail.cut(head.snapshot.seq);
                }
            }
            // It may land yet. Model commit: Rule::TrimKnownOnly. Model page collection: Rule::OwnAttemptsStay.
            Swung::Forgotten => {
                self.context.counters.swings_lost.add(1);
                self.snapshot_setback();
            }
        }
    }

    /// Gives the attempt up for a while, a longer one each time.
    pub(super) fn snapshot_setback(&mut self) {
        self.stage = Stage::Idle;
        let pause = self.context.options.retry() * (1 << self.snapshot_setbacks.min(SETBACKS_DOUBLED));
        self.snapshot_setbacks += 1;
        self.snapshot_after = Instant::now() + pause;
    }
}

/// Encodes, seals and writes all pages of a state, the root last.
pub(crate) async fn write_snapshot<S: State>(
    context: &Arc<Context>,
    state: Arc<S>,
    pointer: SnapshotPointer,
    chain: ChainHash,
) -> Result<SnapshotPages<S::Plan>, OpenError> {
    let encoding = context.clone();
    let encoded = aside(move || encode(&encoding, &*state, pointer, chain)).await;
    let (taken, pages) = encoded.map_err(|error| OpenError::Panicked(error.to_string()))?;
    let mut batch = Vec::new();
    let mut bytes = 0;
    for (id, value) in pages {
        bytes += value.len();
        batch.push(Row { key: context.page_key(id), value });
        if bytes >= WRITE_BYTES {
            bytes = 0;
            write(context, std::mem::take(&mut batch)).await?;
        }
    }
    write(context, batch).await?;
    context.counters.snapshots.add(1);
    Ok(taken)
}

async fn write(context: &Context, batch: Vec<Row>) -> Result<(), OpenError> {
    let count = batch.len() as u64;
    context.engine.rows.put_ordered(batch).await.map_err(OpenError::Engine)?;
    context.counters.pages_written.add(count);
    Ok(())
}

type Encoded<P> = (SnapshotPages<P>, Vec<(PageId, Bytes)>);

fn encode<S: State>(
    context: &Context,
    state: &S,
    pointer: SnapshotPointer,
    chain: ChainHash,
) -> Encoded<S::Plan> {
    let mut number = 0;
    let mut new_page_id = || {
        number += 1;
        PageId { number, ..pointer.root() }
    };
    // Model page collection: Rule::DirtyIsWritten.
    let mut taken = state.snapshot(&mut new_page_id);
    let seal = |id, plain: &[u8]| (id, seal_page(context.log, &*context.sealer, id, plain));
    // The plain bytes are of no further use, so they are not kept until the swing.
    let mut pages: Vec<_> =
        std::mem::take(&mut taken.written).iter().map(|(id, plain)| seal(*id, plain)).collect();
    let state_root = std::mem::take(&mut taken.root).into();
    let root = Root { seq: pointer.seq, chain, digest: state.digest(), state: state_root };
    pages.push(seal(pointer.root(), &root.encode()));
    (taken, pages)
}

/// Makes a written snapshot the current one.
pub(super) async fn swing(context: &Context, base: SnapshotPointer, new: SnapshotPointer) -> Swung {
    for attempt in 1..=SWING_ATTEMPTS {
        // Models commit and page collection: Rule::SwingFromBase.
        match context.engine.log.swing(context.log, base.id, new).await {
            Ok(Outcome::Applied) => return Swung::Current,
            Ok(Outcome::Conflict | Outcome::Unknown) => {}
            Err(error) => {
                tracing::warn!(log = %context.log, %error, "snapshot not made current");
                return Swung::Forgotten;
            }
        }
        match context.engine.log.head(context.log).await {
            Ok(Some(head)) if head.snapshot.id == new.id => return Swung::Current,
            Ok(Some(head)) if head.snapshot.id != base.id => return Swung::Lost(Some(head)),
            Ok(None) => return Swung::Lost(None),
            Ok(Some(_)) | Err(_) => {}
        }
        tokio::time::sleep(context.options.backoff(attempt)).await;
    }
    Swung::Forgotten
}
