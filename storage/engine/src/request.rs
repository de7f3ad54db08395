//! Commits on their way through the actor, with the types of their answers hidden.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::context::OpenError;
use crate::error::EngineError;
use crate::state::State;

/// What a build closure decided: operations that are to be committed, and the answer once they are.
#[derive(Clone, Debug)]
pub struct Build<O, R> {
    /// Resolved effects, in order. None: nothing is to be changed.
    pub operations: Vec<O>,
    /// Given to the caller after they are durable.
    pub answer: R,
}

impl<O, R> Build<O, R> {
    /// Operations with the answer that follows from them.
    pub fn new(operations: Vec<O>, answer: R) -> Self {
        Self { operations, answer }
    }

    /// An answer that changes nothing.
    pub fn nothing(answer: R) -> Self {
        Self { operations: Vec::new(), answer }
    }
}

/// A commit that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed<R> {
    /// What the build closure answered.
    pub answer: R,
    /// Number of the first operation. Where there was none: one more than `last_seq`.
    pub first_seq: u64,
    /// Number of the last operation; where there was none, of the operation after which the answer holds.
    pub last_seq: u64,
}

/// Why a commit was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError<E> {
    /// The build closure refused, on a state that is durable.
    #[error("the request was refused")]
    Rejected(E),
    /// It may have been applied, or may be later. To be told as such: never as a failure that invites nothing but
    /// another try.
    #[error("it is not known whether the commit was applied")]
    Unknown,
    /// It was not applied, and trying again later can help.
    #[error("the commit was not applied")]
    Unavailable(#[source] EngineError),
    /// It was not applied: its operations are too large for an entry.
    #[error("the commit has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size of its operations.
        bytes: usize,
        /// [`crate::LogOptions::commit_bytes_max`].
        limit: usize,
    },
    /// It was not applied: the log was deleted.
    #[error("the log was deleted")]
    Deleted,
    /// It was not applied: the log cannot be used.
    #[error("the log cannot be used")]
    Stopped(#[source] Arc<OpenError>),
}

/// How a request ended, for all kinds of it.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Durable { first_seq: u64, last_seq: u64 },
    Unknown,
    Unavailable(EngineError),
    TooLarge { bytes: usize, limit: usize },
    Deleted,
    Stopped(Arc<OpenError>),
}

/// A commit in the actor's queue.
pub(crate) trait Request<S: State>: Send {
    /// Parts that must be loaded in the state given to `build`.
    fn parts(&self) -> &[S::Part];
    /// Decides on this state; called again after every lost compare-and-swap. `false`: nobody waits any more.
    fn begin(&mut self) -> bool;
    fn build(&mut self, state: &S) -> Vec<S::Operation>;
    /// The proposal that it was part of was lost; a caller that gives up now can be told that nothing was applied.
    fn withdrawn(&mut self);
    /// Nobody can tell whether the proposal that it was part of was applied, until it is built again.
    fn in_doubt(&mut self);
    fn settle(self: Box<Self>, verdict: Verdict);
    /// Whether it may be built again although an earlier proposal with it may have been applied: its operations carry
    /// an id by which `build` notices that.
    fn repeatable(&self) -> bool;
}

/// A caller's commit.
pub(crate) struct Commit<S: State, R, E, F> {
    pub(crate) parts: Vec<S::Part>,
    pub(crate) build: F,
    pub(crate) built: Option<Result<R, E>>,
    pub(crate) reply: oneshot::Sender<Result<Committed<R>, CommitError<E>>>,
    /// Set while it is, or may be, part of a proposal.
    pub(crate) proposed: Arc<AtomicBool>,
    pub(crate) repeatable: bool,
    /// An earlier proposal may have been applied, and no state was seen since that tells.
    pub(crate) in_doubt: bool,
    /// Keeps the log from being closed; released with the request.
    pub(crate) busy: crate::open_log::Busy,
}

impl<S, R, E, F> Request<S> for Commit<S, R, E, F>
where
    S: State,
    R: Send + 'static,
    E: Send + 'static,
    F: FnMut(&S) -> Result<Build<S::Operation, R>, E> + Send + 'static,
{
    fn parts(&self) -> &[S::Part] {
        &self.parts
    }

    fn begin(&mut self) -> bool {
        // The caller closes its end first and reads the flag then, so one of the two sees the other.
        self.proposed.store(true, Ordering::SeqCst);
        !self.reply.is_closed()
    }

    fn build(&mut self, state: &S) -> Vec<S::Operation> {
        self.in_doubt = false;
        match (self.build)(state) {
            Ok(build) => {
                self.built = Some(Ok(build.answer));
                build.operations
            }
            Err(refused) => {
                self.built = Some(Err(refused));
                Vec::new()
            }
        }
    }

    fn withdrawn(&mut self) {
        self.proposed.store(false, Ordering::SeqCst);
    }

    fn in_doubt(&mut self) {
        self.in_doubt = true;
    }

    fn settle(self: Box<Self>, verdict: Verdict) {
        let Self { built, reply, busy, in_doubt, .. } = *self;
        let result = match verdict {
            _ if in_doubt => Err(CommitError::Unknown),
            Verdict::Durable { first_seq, last_seq } => match built {
                Some(Ok(answer)) => Ok(Committed { answer, first_seq, last_seq }),
                Some(Err(refused)) => Err(CommitError::Rejected(refused)),
                None => Err(CommitError::Unknown),
            },
            Verdict::Unknown => Err(CommitError::Unknown),
            Verdict::Unavailable(error) => Err(CommitError::Unavailable(error)),
            Verdict::TooLarge { bytes, limit } => Err(CommitError::TooLarge { bytes, limit }),
            Verdict::Deleted => Err(CommitError::Deleted),
            Verdict::Stopped(error) => Err(CommitError::Stopped(error)),
        };
        drop(busy);
        // A caller that has given up has been told so.
        let _ = reply.send(result);
    }

    fn repeatable(&self) -> bool {
        self.repeatable
    }
}
