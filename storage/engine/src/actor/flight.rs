//! Flights: what the actor asks of the log, one at a time, and what it makes of the answers.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Actor;
use super::group::Member;
use super::snapshotting::{Attempt, Swung, swing};
use crate::causes::with_causes;
use crate::context::OpenError;
use crate::load::{Followed, Loaded, follow, load};
use crate::log::{EntryRow, Head};
use crate::open_log::{Closed, Reader};
use crate::proposal::{Decision, decide};
use crate::request::Verdict;
use crate::state::State;
pub(super) type Flight<S> = BoxFuture<'static, Landed<S>>;

/// How a flight ended.
pub(super) enum Landed<S: State> {
    Decided(Decision),
    Followed(Result<Followed, OpenError>),
    Loaded(Result<Loaded<S>, OpenError>),
    Swung { attempt: Box<Attempt<S>>, swung: Swung },
}

impl<S: State> Actor<S> {
    pub(super) fn flight_decide(&self, row: EntryRow, trim_to: Option<u64>) -> Flight<S> {
        let context = self.context.clone();
        async move { Landed::Decided(decide(&context, &row, trim_to).await) }.boxed()
    }

    /// Looks at the head and reads what is new. Pauses first after setbacks, so that the read is as fresh as can be when
    /// the next proposal is built on it.
    pub(super) fn flight_follow(&mut self) -> Flight<S> {
        let context = self.context.clone();
        let seq = self.seq;
        let pause = (self.setbacks > 0).then(|| context.options.backoff(self.setbacks));
        let heard = self.only_heard();
        self.look = false;
        self.heard = 0;
        self.context.counters.looks.add(1);
        self.looked_last = true;
        self.looking.append(&mut self.refreshers);
        async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            Landed::Followed(follow(&context, seq, heard).await)
        }
        .boxed()
    }

    /// How far another node said that it has come, when nothing but that makes us look.
    fn only_heard(&self) -> Option<u64> {
        let nobody_waits =
            self.refreshers.is_empty() && self.looking.is_empty() && self.confirming.is_empty();
        let doubts = self.behind || self.look || self.setbacks > 0;
        (nobody_waits && !doubts && self.heard > self.seq).then_some(self.heard)
    }

    pub(super) fn flight_load(&self) -> Flight<S> {
        let context = self.context.clone();
        let pause = (self.setbacks > 0).then(|| context.options.backoff(self.setbacks));
        async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            Landed::Loaded(load(&context).await)
        }
        .boxed()
    }

    pub(super) fn flight_swing(&self, attempt: Box<Attempt<S>>) -> Flight<S> {
        let context = self.context.clone();
        async move {
            let swung = swing(&context, attempt.base, attempt.pointer).await;
            Landed::Swung { attempt, swung }
        }
        .boxed()
    }

    pub(super) fn decided(&mut self, decision: Decision) -> Result<(), OpenError> {
        let group = self.group.take().expect("a decision is about the group in flight");
        match decision {
            Decision::Applied => {
                self.setbacks = 0;
                self.applied(group)
            }
            Decision::AppliedEarlier => {
                self.setbacks = 0;
                self.behind = true;
                self.applied(group)
            }
            Decision::Lost => {
                self.context.counters.conflicts.add(1);
                self.setbacks += 1;
                self.behind = true;
                // Model commit: Rule::BuiltAgain.
                self.requeue(group.members);
                Ok(())
            }
            Decision::Trimmed => {
                self.setbacks += 1;
                self.behind = true;
                // Model commit: Rule::TrimmedStaysUnknown.
                let (again, unknown) =
                    group.members.into_iter().partition(|member| member.queued.request.repeatable());
                self.requeue_in_doubt(again);
                for member in Vec::from_iter::<Vec<Member<S>>>(unknown) {
                    member.queued.request.settle(Verdict::Unknown);
                }
                Ok(())
            }
            Decision::Deleted { undecided } => {
                let verdict = if undecided { Verdict::Unknown } else { Verdict::Deleted };
                group.settle_all(&verdict);
                self.shared.close(Closed::Deleted);
                Ok(())
            }
            Decision::Refused(error) => {
                tracing::warn!(log = %self.context.log, error = with_causes(&error), "commit refused");
                group.settle_all(&Verdict::Unavailable(error));
                Ok(())
            }
            Decision::Broken(error) => {
                group.settle_all(&Verdict::Unknown);
                Err(OpenError::Engine(error))
            }
        }
    }

    pub(super) fn followed(&mut self, followed: Result<Followed, OpenError>) -> Result<(), OpenError> {
        match followed {
            Ok(Followed::Entries { head, rows }) => self.follow_entries(head, &rows),
            // Model commit: Rule::DenseTail.
            Ok(Followed::Gap) => {
                self.reload = true;
                Ok(())
            }
            Ok(Followed::Missing) => {
                self.shared.close(Closed::Deleted);
                Ok(())
            }
            Err(error) => {
                self.setbacks += 1;
                let error = Arc::new(error);
                self.fail_lookers(&error);
                // What was lost waits on for its caller's deadline; what only had to be confirmed is told now.
                for member in std::mem::take(&mut self.confirming) {
                    member.queued.request.settle(unavailable(&error));
                }
                Ok(())
            }
        }
    }

    fn follow_entries(&mut self, head: Head, rows: &[EntryRow]) -> Result<(), OpenError> {
        if !rows.is_empty() {
            let mut state = S::clone(&self.state);
            for row in rows {
                self.context.fold_row(&mut state, &mut self.seq, &mut self.chain, row)?;
                self.tail.push(row);
            }
            self.context.counters.entries_followed.add(rows.len() as u64);
            self.publish(state);
            self.shared.followed.send_replace(self.seq);
        }
        self.learn_snapshot(head);
        // Less than what is folded already: the read was old, and shows nothing to be current.
        let old = head.seq < self.seq;
        self.setbacks += u32::from(old);
        self.behind = self.seq < head.seq || old;
        if self.behind {
            // The lookers are served by the next read.
            self.refreshers.append(&mut self.looking);
            let confirming = std::mem::take(&mut self.confirming);
            self.requeue(confirming);
            return Ok(());
        }
        if self.queue.is_empty() {
            self.setbacks = 0;
        }
        self.readers.append(&mut self.looking);
        let confirmed = std::mem::take(&mut self.confirming);
        if rows.is_empty() {
            for member in confirmed {
                member.settle_durable();
            }
        } else {
            self.requeue(confirmed);
        }
        Ok(())
    }

    /// A head that was read names a snapshot that was current then.
    fn learn_snapshot(&mut self, head: Head) {
        // Model commit: Rule::TrimKnownOnly.
        if head.snapshot.seq > self.known.seq {
            self.known = head.snapshot;
            self.tail.cut(head.snapshot.seq);
        }
    }

    pub(super) fn loaded_again(&mut self, loaded: Result<Loaded<S>, OpenError>) -> Result<(), OpenError> {
        match loaded {
            Ok(loaded) => {
                let unmoved = loaded.snapshot.id == self.base.id;
                if loaded.seq < self.seq {
                    // A read that is older than what this node has folded already cannot replace it.
                    self.setbacks += 1;
                    return Ok(());
                }
                self.reload = false;
                self.behind = false;
                self.adopt(loaded);
                self.shared.followed.send_replace(self.seq);
                self.pages_reloaded(unmoved);
                let confirming = std::mem::take(&mut self.confirming);
                self.requeue(confirming);
                self.refreshers.append(&mut self.looking);
                Ok(())
            }
            Err(OpenError::Missing) => {
                self.shared.close(Closed::Deleted);
                Ok(())
            }
            Err(error) if error.is_temporary() => {
                self.setbacks += 1;
                tracing::warn!(log = %self.context.log, error = with_causes(&error), "log not loaded again");
                let error = Arc::new(error);
                self.fail_lookers(&error);
                for reader in std::mem::take(&mut self.readers) {
                    reader.answer(Err(crate::open_log::ReadError::Failed(error.clone())));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn fail_lookers(&mut self, error: &Arc<OpenError>) {
        let lookers: Vec<Reader<S>> = std::mem::take(&mut self.looking);
        for reader in lookers {
            reader.answer(Err(crate::open_log::ReadError::Failed(error.clone())));
        }
    }
}

/// Nothing was proposed, so nothing was applied.
pub(super) fn unavailable(error: &Arc<OpenError>) -> Verdict {
    match &**error {
        OpenError::Engine(error) => Verdict::Unavailable(error.clone()),
        _ => Verdict::Stopped(error.clone()),
    }
}
