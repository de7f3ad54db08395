//! Handles: how callers read from a log and commit to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use crate::context::Context;
use crate::error::EngineError;
use crate::id::LogId;
use crate::logs::LogsInner;
use crate::open_log::{Busy, Closed, Message, ReadError, Reader, Shared, evicted};
use crate::request::{Build, Commit, CommitError, Committed};
use crate::state::{PartPages, State};

/// How a commit is to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitOptions {
    /// Another deadline than [`crate::LogOptions::deadline_seconds`].
    pub deadline: Option<Duration>,
    /// The operations carry an id by which the build closure notices that they have been applied already. Such a commit
    /// may be built again even where nobody can tell any more whether an earlier attempt was applied.
    pub repeatable: bool,
}

/// How new what is read has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// As new as this node has folded.
    Folded,
    /// As new as the log's head.
    Head,
}

/// An open log. Cheap to clone; the log stays open as long as there is a handle.
pub struct LogHandle<S: State> {
    shared: Arc<Shared<S>>,
    pub(crate) logs: Arc<LogsInner<S>>,
    /// Counted: a log that is held is not closed.
    held: Arc<()>,
}

impl<S: State> Clone for LogHandle<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), logs: self.logs.clone(), held: self.held.clone() }
    }
}

impl<S: State> std::fmt::Debug for LogHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogHandle({} at {})", self.id(), self.seq())
    }
}

impl<S: State> LogHandle<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, logs: Arc<LogsInner<S>>) -> Self {
        let held = shared.held.clone();
        shared.wake_if_behind();
        Self { shared, logs, held }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.shared.context
    }

    /// Where chunks of the archive lie.
    pub(crate) fn archive_index(&self) -> &Mutex<BTreeMap<u64, Bytes>> {
        &self.shared.archive_index
    }

    /// Which log.
    pub fn id(&self) -> LogId {
        self.shared.context.log
    }

    /// Number of the last operation that this node has folded.
    pub fn seq(&self) -> u64 {
        *self.shared.seq.borrow()
    }

    /// The newest state that this node has folded. All of it is durable.
    pub fn state(&self) -> Arc<S> {
        self.shared.state.read().clone()
    }

    /// Changes whenever something was folded. The state with that number, or a newer one, is readable by then.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.seq.subscribe()
    }

    /// Changes whenever something was folded that another node had committed.
    pub fn watch_others(&self) -> watch::Receiver<u64> {
        self.shared.followed.subscribe()
    }

    /// Whether the log can still be used: not deleted, not stopped by damage.
    pub fn is_open(&self) -> bool {
        self.shared.closed.get().is_none()
    }

    /// The newest state, with these parts loaded in it.
    pub async fn with(&self, parts: &[S::Part]) -> Result<Arc<S>, ReadError> {
        self.logs.touch(&self.shared);
        if let Some(closed) = self.shared.closed.get() {
            return Err(closed.as_read_error());
        }
        let state = self.state();
        if parts.iter().all(|part| state.pages_of(part) == PartPages::Loaded) {
            return Ok(state);
        }
        LogsInner::read(self, parts, Freshness::Folded).await
    }

    /// As [`Self::with`], and not older than this call: where logs are shared, the head is looked at first.
    pub async fn refresh(&self, parts: &[S::Part]) -> Result<Arc<S>, ReadError> {
        if !self.shared.context.options.shared {
            return self.with(parts).await;
        }
        self.logs.touch(&self.shared);
        LogsInner::read(self, parts, Freshness::Head).await
    }

    /// Whether this node looks at once for what others commit, when it hears of it, and from time to time when it does
    /// not. Without it [`Self::state`] stands still until somebody commits or asks with [`Self::refresh`]: for a log that
    /// is kept open and is another node's business. For all handles; at first it does.
    pub fn attend(&self, attends: bool) {
        let before = self.shared.attended.swap(attends, Ordering::SeqCst);
        if attends && !before {
            self.shared.wake_if_behind();
        }
    }

    /// A hint that another node has committed: look at the head soon. A lost hint costs latency only. Hints that name how
    /// far the log has come go to [`crate::Hints::heard`].
    pub fn hint(&self) {
        // A full inbox means that the actor is busy, and will see the head with its next commit.
        let _ = self.shared.sender.try_send(Message::Look);
    }

    /// Asks the actor for parts.
    pub(crate) async fn ask(&self, parts: Vec<S::Part>, freshness: Freshness) -> Result<Arc<S>, ReadError> {
        let deadline = tokio::time::Instant::now() + self.shared.context.options.deadline();
        let (reply, answer) = oneshot::channel();
        let reader = Reader { parts, reply, busy: Busy::new(&self.shared.busy) };
        let message = match freshness {
            Freshness::Folded => Message::Read(reader),
            Freshness::Head => Message::Refresh(reader),
        };
        let asked = async {
            self.shared.sender.send(message).await.map_err(|_| self.closed_read())?;
            answer.await.map_err(|_| self.closed_read())?
        };
        let state = timeout_at(deadline, asked).await.map_err(|_| ReadError::Deadline)??;
        self.logs.make_room();
        Ok(state)
    }

    fn closed_read(&self) -> ReadError {
        self.shared.closed.get().unwrap_or(&Closed::Evicted).as_read_error()
    }

    /// Commits what `build` decides. It runs on the state folded up to the expected head with `parts` loaded, again
    /// after every compare-and-swap that is lost, so that whatever it decided (a UID, a quota, that a name is free) is
    /// right when it is applied. It must be pure: no clock, no randomness, no side effects; such things are fetched
    /// before and moved in. The answer comes after the commit is durable; a refusal, or an answer without operations,
    /// after everything is durable that it was decided on.
    ///
    /// When the future is dropped the commit may still happen.
    pub async fn commit<R, E, F>(&self, parts: Vec<S::Part>, build: F) -> Result<Committed<R>, CommitError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
        F: FnMut(&S) -> Result<Build<S::Operation, R>, E> + Send + 'static,
    {
        self.commit_with(CommitOptions::default(), parts, build).await
    }

    /// As [`Self::commit`], with options.
    pub async fn commit_with<R, E, F>(
        &self,
        options: CommitOptions,
        parts: Vec<S::Part>,
        build: F,
    ) -> Result<Committed<R>, CommitError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
        F: FnMut(&S) -> Result<Build<S::Operation, R>, E> + Send + 'static,
    {
        self.logs.touch(&self.shared);
        let deadline = options.deadline.unwrap_or_else(|| self.shared.context.options.deadline());
        let deadline = tokio::time::Instant::now() + deadline;
        let (reply, mut answer) = oneshot::channel();
        let proposed = Arc::new(AtomicBool::new(false));
        let request = Box::new(Commit {
            parts,
            build,
            built: None,
            reply,
            proposed: proposed.clone(),
            repeatable: options.repeatable,
            in_doubt: false,
            busy: Busy::new(&self.shared.busy),
        });
        match timeout_at(deadline, self.shared.sender.send(Message::Commit(request))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.closed_commit()),
            Err(_) => return Err(late("the log is busy")),
        }
        match timeout_at(deadline, &mut answer).await {
            Ok(Ok(result)) => result,
            // The actor is gone without an answer: what it had proposed may have been applied.
            Ok(Err(_)) if proposed.load(Ordering::SeqCst) => Err(CommitError::Unknown),
            Ok(Err(_)) => Err(self.closed_commit()),
            Err(_) => {
                answer.close();
                match answer.try_recv() {
                    Ok(result) => result,
                    Err(_) if proposed.load(Ordering::SeqCst) => Err(CommitError::Unknown),
                    Err(_) => Err(late("not committed before the deadline")),
                }
            }
        }
    }

    fn closed_commit<E>(&self) -> CommitError<E> {
        match self.shared.closed.get().unwrap_or(&Closed::Evicted) {
            Closed::Deleted => CommitError::Deleted,
            Closed::Stopped(error) => CommitError::Stopped(error.clone()),
            Closed::Evicted => CommitError::Stopped(Arc::new(evicted())),
        }
    }
}

fn late<E>(reason: &str) -> CommitError<E> {
    CommitError::Unavailable(EngineError::unavailable(reason))
}
