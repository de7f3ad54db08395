//! Groups: requests that are built one after the other on a speculative state and committed by one compare-and-swap.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use uuid::Uuid;

use super::Actor;
use super::parts::missing_parts;
use crate::context::OpenError;
use crate::error::FoldError;
use crate::log::EntryRow;
use crate::options::Sabotage;
use crate::request::{Request, Verdict};
use crate::state::State;
use crate::stored::{ChainHash, push_chunk, seal_entry};

/// A request that waits to be built.
pub(super) struct Queued<S: State> {
    pub(super) request: Box<dyn Request<S>>,
    /// What it built before, under [`Sabotage::BuiltBeforeCas`] only.
    kept: Option<Vec<S::Operation>>,
}

impl<S: State> Queued<S> {
    pub(super) fn new(request: Box<dyn Request<S>>) -> Self {
        Self { request, kept: None }
    }
}

/// A request that has been built into a group.
pub(super) struct Member<S: State> {
    pub(super) queued: Queued<S>,
    first_seq: u64,
    last_seq: u64,
}

impl<S: State> Member<S> {
    pub(super) fn settle_durable(self) {
        let Self { queued, first_seq, last_seq } = self;
        queued.request.settle(Verdict::Durable { first_seq, last_seq });
    }
}

/// A proposal and who waits for it.
pub(super) struct Group<S: State> {
    pub(super) members: Vec<Member<S>>,
    operations: Vec<S::Operation>,
    row: EntryRow,
    hash: ChainHash,
    trim_to: Option<u64>,
    /// The state with the operations folded in. `None`: parts were installed since, so they are folded again.
    pub(super) speculative: Option<S>,
}

impl<S: State> Group<S> {
    pub(super) fn settle_all(self, verdict: &Verdict) {
        for member in self.members {
            member.queued.request.settle(verdict.clone());
        }
    }
}

/// What one request added to the group being built.
enum Built<O> {
    Operations(Vec<O>, Vec<u8>),
    Panicked,
}

impl<S: State> Actor<S> {
    /// Builds a group from the queue and proposes it. Requests whose parts are not loaded stay in the queue.
    pub(super) fn start_group(&mut self) {
        let mut members: Vec<Member<S>> = Vec::new();
        let mut operations: Vec<S::Operation> = Vec::new();
        let mut encoded = Vec::new();
        let mut speculative: Option<S> = None;
        let mut waiting = Vec::new();
        let mut seq = self.seq;
        while let Some(mut queued) = self.queue.pop_front() {
            if !queued.request.begin() {
                continue;
            }
            let state = speculative.as_ref().unwrap_or(&self.state);
            let missing = missing_parts(state, queued.request.parts());
            if !missing.is_empty() {
                queued.request.withdrawn();
                waiting.push((queued, missing));
                continue;
            }
            // Model commit: Rule::BuiltAgain.
            let (built, bytes) = match build_one(&mut queued, state) {
                Built::Operations(built, bytes) => (built, bytes),
                Built::Panicked => {
                    let reason = OpenError::Panicked("while a commit was built".into());
                    queued.request.settle(Verdict::Stopped(Arc::new(reason)));
                    continue;
                }
            };
            let limit = self.context.options.commit_bytes_max;
            if bytes.len() > limit {
                queued.request.settle(Verdict::TooLarge { bytes: bytes.len(), limit });
                continue;
            }
            let full = encoded.len() + bytes.len() > self.context.options.entry_bytes_max;
            if full && !encoded.is_empty() && !bytes.is_empty() {
                queued.request.withdrawn();
                self.queue.push_front(queued);
                break;
            }
            if !built.is_empty() {
                let state = speculative.get_or_insert_with(|| S::clone(&self.state));
                if let Err(error) = fold_all(state, seq, &built) {
                    // Whoever built this is wrong, not the log. Its half-folded effects are thrown away with the
                    // speculative state, and the others are built again without it.
                    tracing::error!(log = %self.context.log, %error, "commit refused: it does not fit its state");
                    queued.request.settle(Verdict::Stopped(Arc::new(OpenError::Fold(error))));
                    self.requeue(std::mem::take(&mut members));
                    operations.clear();
                    encoded.clear();
                    speculative = None;
                    seq = self.seq;
                    continue;
                }
            }
            let first_seq = seq + 1;
            seq += built.len() as u64;
            if self.context.options.sabotaged(Sabotage::BuiltBeforeCas) {
                queued.kept = Some(built.clone());
            }
            operations.extend(built);
            encoded.extend_from_slice(&bytes);
            // Also of those that change nothing. Model commit: Rule::UnchangedWaitsForGroup.
            members.push(Member { queued, first_seq, last_seq: seq });
        }
        for (queued, missing) in waiting.into_iter().rev() {
            self.queue.push_front(queued);
            for part in missing {
                self.fetch_part(part);
            }
        }
        if members.is_empty() {
            return;
        }
        if operations.is_empty() {
            self.answer_unchanged(members);
        } else {
            self.propose(members, operations, &encoded, speculative);
        }
    }

    /// Requests that change nothing. Their answers hold on this state; where other nodes commit too, that it is current
    /// must be seen first.
    fn answer_unchanged(&mut self, members: Vec<Member<S>>) {
        if self.context.options.shared {
            self.confirming = members;
            self.flight = Some(self.flight_follow());
        } else {
            for member in members {
                member.settle_durable();
            }
        }
    }

    fn propose(
        &mut self,
        members: Vec<Member<S>>,
        operations: Vec<S::Operation>,
        encoded: &[u8],
        speculative: Option<S>,
    ) {
        let (row, hash) = seal_entry(
            self.context.log,
            &*self.context.sealer,
            &self.chain,
            self.seq,
            operations.len() as u64,
            Uuid::new_v4(),
            encoded,
        );
        let trim_to = self.trim_limit();
        self.flight = Some(self.flight_decide(row.clone(), trim_to));
        self.group = Some(Group { members, operations, row, hash, trim_to, speculative });
        if self.context.options.sabotaged(Sabotage::AnswerBeforeCas) {
            let group = self.group.as_mut().expect("it was just set");
            for member in std::mem::take(&mut group.members) {
                member.settle_durable();
            }
        }
    }

    /// How far this commit may trim: entries that are both in a snapshot known to be, or to have been, current and, where
    /// there is an archive, in the archive.
    fn trim_limit(&self) -> Option<u64> {
        if self.context.options.sabotaged(Sabotage::TrimBeyondSnapshot) {
            return Some(self.seq);
        }
        let archived = self.context.archive.as_ref().map_or(u64::MAX, |_| self.state.archived().seq);
        // Model commit: Rule::TrimKnownOnly, Rule::TrimArchivedOnly.
        let limit = self.known.seq.min(archived);
        (limit > self.trimmed).then_some(limit)
    }

    /// The group is durable: shows its effects and answers everyone in it.
    pub(super) fn applied(&mut self, group: Group<S>) -> Result<(), OpenError> {
        let state = match group.speculative {
            Some(state) => state,
            None => {
                let mut state = S::clone(&self.state);
                fold_all(&mut state, self.seq, &group.operations).map_err(OpenError::Fold)?;
                state
            }
        };
        self.seq = group.row.last_seq;
        self.chain = group.hash;
        self.tail.push(&group.row);
        if let Some(trimmed) = group.trim_to {
            self.trimmed = self.trimmed.max(trimmed);
            self.context.counters.trims.add(1);
        }
        self.context.counters.groups.add(1);
        self.context.counters.operations.add(group.operations.len() as u64);
        self.publish(state);
        self.context.engine.hints.say(self.context.log, self.seq);
        let changed = group.members.iter().filter(|member| member.last_seq >= member.first_seq).count();
        self.context.counters.commits.add(changed as u64);
        // Model commit: Rule::AnsweredAfterCommit.
        for member in group.members {
            member.settle_durable();
        }
        Ok(())
    }

    /// Puts requests back to the front of the queue, in their order.
    pub(super) fn requeue(&mut self, members: Vec<Member<S>>) {
        for member in members.into_iter().rev() {
            let mut queued = member.queued;
            queued.request.withdrawn();
            self.queue.push_front(queued);
        }
    }

    /// The same for those whose proposal may have been applied: they stay proposed until they are built again.
    pub(super) fn requeue_in_doubt(&mut self, members: Vec<Member<S>>) {
        for member in members.into_iter().rev() {
            let mut queued = member.queued;
            queued.request.in_doubt();
            self.queue.push_front(queued);
        }
    }
}

fn build_one<S: State>(queued: &mut Queued<S>, state: &S) -> Built<S::Operation> {
    let operations = match &queued.kept {
        Some(kept) => kept.clone(),
        // A panic in one caller's closure must not take the log from everybody else.
        None => match catch_unwind(AssertUnwindSafe(|| queued.request.build(state))) {
            Ok(operations) => operations,
            Err(_) => return Built::Panicked,
        },
    };
    let mut encoded = Vec::new();
    let mut one = Vec::new();
    for operation in &operations {
        one.clear();
        S::encode_operation(operation, &mut one);
        push_chunk(&mut encoded, &one);
    }
    Built::Operations(operations, encoded)
}

fn fold_all<S: State>(state: &mut S, seq: u64, operations: &[S::Operation]) -> Result<(), FoldError> {
    for (number, operation) in (seq + 1..).zip(operations) {
        state.fold(number, operation)?;
    }
    Ok(())
}
