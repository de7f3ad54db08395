//! The agent: claims items and works on many at a time, each account within its lane.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use directory::Directory;
use futures_util::FutureExt;
use mail::id::AccountId;
use parking_lot::Mutex;
use queue::entry::Change;
use queue::item::{Destination, Failure, Outcome, QuarantineReason, Targets};
use queue::{Claimed, Queue, Work, WorkError};
use storage::Storage;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::lanes::{Admission, Lanes};
use crate::{bounce, place, quarantine};

/// Items that are claimed at once.
const CLAIM_MAX: usize = 64;

/// Seconds for which an item goes back to the queue when its account's lane is full.
const STEP_BACK_SECONDS: u64 = 1;
/// The same where nothing leaves the lane.
const STEP_BACK_STUCK_SECONDS: u64 = 10;

/// The local delivery agent. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) queue: Queue,
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) config: Config,
    lanes: Mutex<Lanes<Claimed>>,
    places: Semaphore,
    /// One looks through the queue's history at a time.
    pub(crate) tracing: Semaphore,
}

/// Why work on an item cannot go on now. It is put off, and done again from where it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The queue.
    #[error(transparent)]
    Queue(#[from] WorkError),
    /// The directory.
    #[error(transparent)]
    Directory(#[from] directory::Temporary),
    /// The message.
    #[error("the message cannot be read: {reason}")]
    Unread {
        /// What the blob store said.
        reason: String,
    },
    /// An account.
    #[error("account {account} cannot be written: {reason}")]
    Account {
        /// Which.
        account: AccountId,
        /// What storage said.
        reason: String,
    },
}

/// What is to be done with a claim after work on it.
pub(crate) enum Next {
    /// Tell the queue what became of the targets.
    Report { outcomes: Vec<(u32, Outcome)>, placed: bool },
    /// Nothing is left, and the shard knows.
    Finished,
    /// This was told about recipients elsewhere.
    Told(Vec<(u32, Change)>),
    /// What is left cannot be delivered, and nobody can be told.
    Hold(Failure),
    /// It has seen too many crashes.
    Quarantine,
}

impl Delivery {
    /// An agent over these.
    pub fn new(queue: Queue, storage: Storage, directory: Directory, config: Config) -> Self {
        let lanes = Mutex::new(Lanes::new(config.account_concurrent_max, config.account_waiting_max));
        let places = Semaphore::new(config.concurrent_max.max(1));
        let tracing = Semaphore::new(1);
        Self { inner: Arc::new(Inner { queue, storage, directory, config, lanes, places, tracing }) }
    }

    /// Delivers until `stop` is ready; then finishes what is under way. Items that were claimed and not begun go back.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let inner = &self.inner;
        let mut tasks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let claimed = tokio::select! {
                biased;
                () = &mut stop => break,
                claimed = inner.queue.claim(CLAIM_MAX) => claimed,
            };
            for claimed in claimed {
                inner.admit(claimed, &mut tasks);
            }
            while tasks.try_join_next().is_some() {}
        }
        drop(inner.lanes.lock().drain());
        while tasks.join_next().await.is_some() {}
    }

    /// Works on what is due now, and returns when that is done: for tests, and for a queue that is to be drained.
    pub async fn run_once(&self) -> usize {
        let mut tasks = JoinSet::new();
        let mut count = 0;
        loop {
            let claimed = self.inner.queue.claim_now(CLAIM_MAX).await;
            if claimed.is_empty() {
                break;
            }
            count += claimed.len();
            for claimed in claimed {
                self.inner.admit(claimed, &mut tasks);
            }
        }
        while tasks.join_next().await.is_some() {}
        count
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delivery")
    }
}

impl Inner {
    /// Lets a claim run, or wait for its account.
    fn admit(self: &Arc<Self>, claimed: Claimed, tasks: &mut JoinSet<()>) {
        let account = first_account(&claimed);
        let claimed = match account {
            None => claimed,
            Some(account) => match self.lanes.lock().admit(account, claimed) {
                Admission::Run(claimed) => claimed,
                Admission::Waits => return,
                Admission::Full { item, stuck } => {
                    let seconds = if stuck { STEP_BACK_STUCK_SECONDS } else { STEP_BACK_SECONDS };
                    self.queue.step_back(item, seconds);
                    return;
                }
            },
        };
        let this = self.clone();
        tasks.spawn(async move {
            let mut next = Some(claimed);
            while let Some(claimed) = next {
                this.attempt(claimed).await;
                next = account.and_then(|account| this.lanes.lock().leave(account));
            }
        });
    }

    /// Works on one item, whatever happens.
    async fn attempt(self: &Arc<Self>, claimed: Claimed) {
        // The semaphore is never closed.
        let Ok(_place) = self.places.acquire().await else { return };
        let mark = self.queue.crash_mark(&claimed);
        let work = Box::pin(AssertUnwindSafe(self.work(claimed)).catch_unwind());
        if work.await.is_err() {
            self.queue.crashed(mark).await;
        }
    }

    async fn work(&self, mut claimed: Claimed) {
        let queue_id = claimed.message().queue_id;
        let result = match claimed.work() {
            Work::Deliver => place::item(self, &mut claimed).await,
            Work::Quarantine => quarantine::secure(self, &mut claimed).await,
            Work::Notify => bounce::remote(self, &claimed).await.map(Next::Told),
        };
        let result = match result {
            Ok(Next::Report { outcomes, placed }) => {
                self.queue.report(claimed, outcomes, placed).await;
                return;
            }
            Ok(Next::Finished) => {
                self.queue.finish(claimed);
                return;
            }
            Ok(Next::Told(told)) => {
                if let Err(error) = self.queue.told(claimed, told).await {
                    // It is told again, and recognised.
                    tracing::warn!(%queue_id, %error, "what was told cannot be reported");
                }
                return;
            }
            Ok(Next::Hold(failure)) => {
                tracing::warn!(%queue_id, status = failure.status, "undeliverable and without a sender, held");
                self.queue.quarantine(claimed, QuarantineReason::Undeliverable { failure }).await
            }
            Ok(Next::Quarantine) => {
                let crashes = claimed.item().crashes;
                self.queue.quarantine(claimed, QuarantineReason::Crashed { crashes }).await
            }
            Err(trouble) => {
                metrics::counter!("postrider_delivery_deferred_total").increment(1);
                tracing::warn!(%queue_id, attempts = claimed.item().attempts, %trouble, "delivery put off");
                self.queue.put_off(claimed).await;
                return;
            }
        };
        if let Err(error) = result {
            tracing::warn!(%queue_id, %error, "item cannot be moved to quarantine");
        }
    }
}

/// The account whose lane an item goes through: that of the first target that is left.
fn first_account(claimed: &Claimed) -> Option<AccountId> {
    let slice = claimed.expansion()?.slices.last()?;
    let Targets::Here(targets) = &slice.targets else { return None };
    (slice.first..).zip(targets.iter()).find_map(|(number, target)| match &target.to {
        Destination::Local { account, .. } if !slice.is_settled(number) => Some(*account),
        _ => None,
    })
}
