//! Hints: word that a log has moved, for nodes that share it.
//!
//! After each commit the actor says how far its log is. Whoever carries hints between nodes takes what was said with
//! [`Hints::next`], and tells the other side with [`Hints::heard`]; open logs that are behind, and that somebody attends
//! to, then look at their head at once, and not only when their poll is due. The others keep it in mind until somebody
//! opens them or commits. A hint is never a fact: one that is lost, late, repeated or made up costs
//! latency, or one look.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::id::LogId;
use crate::stats::Counter;

/// What is said about a log that was deleted: later than anything that anybody can have folded.
pub(crate) const DELETED_SEQ: u64 = u64::MAX;

/// Where the logs of an engine say that they moved, and hear that others did. Cheap to clone; clones are one. The
/// default is for an engine that no other node uses: nothing is said or heard.
#[derive(Clone, Default)]
pub struct Hints {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    logs_max: usize,
    said: Mutex<Said>,
    more: Notify,
    /// The open logs, by kind of state.
    hearers: RwLock<Vec<Weak<dyn Hear>>>,
    /// Who follows all logs, each under a number.
    followers: RwLock<Vec<(u64, Box<Follow>)>>,
    followers_ever: AtomicU64,
    dropped: Counter,
    woken: Counter,
}

/// Hears of a log that has moved, here or at another node.
type Follow = dyn Fn(LogId) + Send + Sync;

/// What has been said and not gone out: one number a log.
#[derive(Default)]
struct Said {
    seqs: HashMap<LogId, u64>,
    /// In the order in which they were said first, so that none waits for ever.
    order: VecDeque<LogId>,
}

/// Those who have logs open.
pub(crate) trait Hear: Send + Sync {
    /// Makes a log that is open, attended to, and has folded less than `seq` look at its head. Whether there is one.
    fn heard(&self, log: LogId, seq: u64) -> bool;
}

impl Hints {
    /// Hints of which so many, one a log, wait at most to be taken. What comes beyond that is dropped.
    pub fn new(logs_max: usize) -> Self {
        let inner = Inner {
            logs_max,
            said: Mutex::default(),
            more: Notify::new(),
            hearers: RwLock::default(),
            followers: RwLock::default(),
            followers_ever: AtomicU64::new(0),
            dropped: Counter::new(metrics::counter!("postrider_log_hints_dropped_total")),
            woken: Counter::new(metrics::counter!("postrider_log_hints_woken_total")),
        };
        Self { inner: Some(Arc::new(inner)) }
    }

    /// Hints of an engine that no other node uses: for who follows its logs.
    pub fn of_one_node() -> Self {
        Self::new(0)
    }

    /// As long as what this gives is kept, `follower` is told of each log that has moved. It must not wait.
    pub fn follow(&self, follower: impl Fn(LogId) + Send + Sync + 'static) -> Following {
        let Some(inner) = &self.inner else { return Following { inner: Weak::new(), number: 0 } };
        let number = inner.followers_ever.fetch_add(1, Ordering::Relaxed);
        inner.followers.write().push((number, Box::new(follower)));
        Following { inner: Arc::downgrade(inner), number }
    }

    /// Says that `log` has come to `seq`. In place of what was said about it before and has not gone out. Never waits.
    pub fn say(&self, log: LogId, seq: u64) {
        let Some(inner) = &self.inner else { return };
        inner.tell_followers(log);
        if inner.logs_max == 0 {
            return;
        }
        let mut said = inner.said.lock();
        if let Some(before) = said.seqs.get_mut(&log) {
            *before = seq.max(*before);
            return;
        }
        if said.order.len() >= inner.logs_max {
            inner.dropped.add(1);
            return;
        }
        said.seqs.insert(log, seq);
        said.order.push_back(log);
        drop(said);
        inner.more.notify_one();
    }

    /// Waits until something was said, and takes it: at most `logs_max` logs, those first that wait longest. For one
    /// taker. Nothing is lost when the future is dropped.
    pub async fn next(&self, logs_max: usize) -> Vec<(LogId, u64)> {
        let Some(inner) = &self.inner else { return std::future::pending().await };
        loop {
            let taken = inner.said.lock().take(logs_max.max(1));
            if !taken.is_empty() {
                return taken;
            }
            inner.more.notified().await;
        }
    }

    /// Another node said that `log` has come to `seq`. A log that is not open here costs nothing.
    pub fn heard(&self, log: LogId, seq: u64) {
        let Some(inner) = &self.inner else { return };
        inner.tell_followers(log);
        let hearers = inner.hearers.read();
        let woken = hearers.iter().filter_map(Weak::upgrade).filter(|logs| logs.heard(log, seq)).count();
        inner.woken.add(woken as u64);
    }

    /// How many hints were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.dropped.count())
    }

    /// How many hints that were heard made an open log look.
    pub fn woken(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.woken.count())
    }

    pub(crate) fn listen(&self, logs: Weak<dyn Hear>) {
        let Some(inner) = &self.inner else { return };
        let mut hearers = inner.hearers.write();
        hearers.retain(|logs| logs.strong_count() > 0);
        hearers.push(logs);
    }
}

impl Inner {
    fn tell_followers(&self, log: LogId) {
        self.followers.read().iter().for_each(|(_, follower)| follower(log));
    }
}

/// Keeps a follower.
#[derive(Debug)]
#[must_use = "a follower that is not kept hears nothing"]
pub struct Following {
    inner: Weak<Inner>,
    number: u64,
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.followers.write().retain(|(number, _)| *number != self.number);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("logs_max", &self.logs_max).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner {
            Some(inner) => write!(f, "Hints({} waiting)", inner.said.lock().order.len()),
            None => f.write_str("Hints(off)"),
        }
    }
}

impl Said {
    fn take(&mut self, logs_max: usize) -> Vec<(LogId, u64)> {
        let count = logs_max.min(self.order.len());
        let Self { seqs, order } = self;
        order
            .drain(..count)
            .map(|log| (log, seqs.remove(&log).expect("each log in the order has its number")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    fn log(number: u128) -> LogId {
        LogId::account(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn the_latest_number_of_a_log_goes_out_once() {
        let hints = Hints::new(10);
        for seq in [3, 4, 9, 7] {
            hints.say(log(1), seq);
        }
        hints.say(log(2), 1);
        assert_eq!(hints.next(10).await, [(log(1), 9), (log(2), 1)]);
        assert!(hints.next(10).now_or_never().is_none());
        hints.say(log(1), 10);
        assert_eq!(hints.next(10).await, [(log(1), 10)]);
    }

    #[tokio::test]
    async fn bounded_and_first_come_first_served() {
        let hints = Hints::new(3);
        for number in 0..5 {
            hints.say(log(number), 1);
        }
        hints.say(log(1), 8);
        assert_eq!(hints.dropped(), 2);
        assert_eq!(hints.next(2).await, [(log(0), 1), (log(1), 8)]);
        hints.say(log(0), 2);
        assert_eq!(hints.next(9).await, [(log(2), 1), (log(0), 2)]);
    }

    #[tokio::test]
    async fn followers_hear_of_every_log() {
        for hints in [Hints::new(1), Hints::of_one_node()] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let hears = heard.clone();
            let following = hints.follow(move |log| hears.lock().push(log));
            hints.say(log(1), 1);
            hints.say(log(1), 2);
            hints.heard(log(2), 1);
            drop(following);
            hints.heard(log(3), 1);
            assert_eq!(*heard.lock(), [log(1), log(1), log(2)]);
            assert_eq!(hints.dropped(), 0);
        }
    }

    #[tokio::test]
    async fn without_other_nodes_nothing_is_kept() {
        let hints = Hints::default();
        hints.say(log(1), 1);
        hints.heard(log(1), 2);
        assert!(hints.next(1).now_or_never().is_none());
    }
}
