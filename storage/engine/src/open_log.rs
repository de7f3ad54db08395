//! An open log: what its actor shares with its handles and with the cache.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::context::{Context, OpenError};
use crate::error::EngineError;
use crate::hint::DELETED_SEQ;
use crate::request::Request;
use crate::state::State;

/// Why parts of a state could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The log was deleted.
    #[error("the log was deleted")]
    Deleted,
    /// Pages cannot be read or used.
    #[error("reading failed")]
    Failed(#[source] Arc<OpenError>),
    /// The log cannot be used any more; opening it again may help.
    #[error("the log cannot be used")]
    Stopped(#[source] Arc<OpenError>),
    /// The deadline passed.
    #[error("not read before the deadline")]
    Deadline,
}

impl ReadError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Deleted => false,
            Self::Failed(error) | Self::Stopped(error) => error.is_temporary(),
            Self::Deadline => true,
        }
    }
}

/// Why an actor ended.
#[derive(Clone, Debug)]
pub(crate) enum Closed {
    Deleted,
    Stopped(Arc<OpenError>),
    /// Closed to make room, or for shutdown.
    Evicted,
}

impl Closed {
    pub(crate) fn as_read_error(&self) -> ReadError {
        match self {
            Self::Deleted => ReadError::Deleted,
            Self::Stopped(error) => ReadError::Stopped(error.clone()),
            Self::Evicted => ReadError::Stopped(Arc::new(evicted())),
        }
    }
}

pub(crate) fn evicted() -> OpenError {
    OpenError::Engine(EngineError::unavailable("the log was closed"))
}

/// A read that waits for its parts.
pub(crate) struct Reader<S: State> {
    pub(crate) parts: Vec<S::Part>,
    pub(crate) reply: oneshot::Sender<Result<Arc<S>, ReadError>>,
    pub(crate) busy: Busy,
}

impl<S: State> Reader<S> {
    pub(crate) fn answer(self, answer: Result<Arc<S>, ReadError>) {
        let Self { reply, busy, .. } = self;
        drop(busy);
        // A reader that has given up needs no answer.
        let _ = reply.send(answer);
    }
}

pub(crate) enum Message<S: State> {
    Commit(Box<dyn Request<S>>),
    Read(Reader<S>),
    /// As `Read`, after a look at the head.
    Refresh(Reader<S>),
    /// Look at the head soon: a hint that another node committed.
    Look,
    /// Drop clean parts, about so many bytes.
    Shed(usize),
}

/// One open log.
pub(crate) struct Shared<S: State> {
    pub(crate) context: Arc<Context>,
    pub(crate) sender: mpsc::Sender<Message<S>>,
    pub(crate) state: RwLock<Arc<S>>,
    pub(crate) seq: watch::Sender<u64>,
    /// How far others had brought the log when that was last seen.
    pub(crate) followed: watch::Sender<u64>,
    pub(crate) weight: AtomicUsize,
    /// Requests, reads and jobs that are not finished.
    pub(crate) busy: Arc<AtomicUsize>,
    /// When it was last used, in the cache's count of uses.
    pub(crate) used: AtomicU64,
    /// The greatest number that another node has said since the actor was told last.
    pub(crate) heard: AtomicU64,
    pub(crate) hint: Notify,
    /// Whoever has a handle wants to see what others commit: see [`crate::LogHandle::attend`].
    pub(crate) attended: AtomicBool,
    pub(crate) closed: OnceLock<Closed>,
    pub(crate) stop: Notify,
    /// Where chunks of the archive lie, by the number of their first operation, as far as somebody has looked.
    pub(crate) archive_index: Mutex<BTreeMap<u64, Bytes>>,
    /// One count per handle, and one of its own.
    pub(crate) held: Arc<()>,
}

impl<S: State> Shared<S> {
    /// Ends the actor. What it has not finished is answered as what it is.
    pub(crate) fn close(&self, closed: Closed) {
        let _ = self.closed.set(closed);
        self.stop.notify_one();
    }

    /// Another node said that the log has come to `seq`. Does not go through the inbox, so that a storm of hints takes no
    /// commit's place there and is one look at a time. Whether there is a look: where nobody attends to the log it is kept
    /// in mind until somebody does, or commits.
    pub(crate) fn heard(&self, seq: u64) -> bool {
        let behind = self.context.options.shared && *self.seq.borrow() < seq && self.closed.get().is_none();
        if behind {
            self.heard.fetch_max(seq, Ordering::SeqCst);
            if seq == DELETED_SEQ || self.is_attended() {
                self.hint.notify_one();
                return true;
            }
        }
        false
    }

    /// Whether somebody wants to see what others commit.
    pub(crate) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::SeqCst) && (self.context.options.poll_unheld || self.handles() > 0)
    }

    /// Somebody attends to the log again: what was said meanwhile is looked for.
    pub(crate) fn wake_if_behind(&self) {
        if *self.seq.borrow() < self.heard.load(Ordering::SeqCst) {
            self.hint.notify_one();
        }
    }

    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.handles() == 0 && self.busy.load(Ordering::SeqCst) == 0
    }
}

/// Keeps a log from being closed while something is unfinished.
pub(crate) struct Busy(Arc<AtomicUsize>);

impl Busy {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
