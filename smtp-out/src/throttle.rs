//! How much of a site we ask at one time.
//!
//! As in Postfix's scheduler, the number of connections follows from what comes of them: each that succeeds makes room
//! for a part of another one, each that fails takes one away, and when as many have failed in a row as there were at one
//! time, the site is left alone for a while, longer each time. What is counted here is this process's own; where several nodes
//! send, it stays within what the site's owner leases to this one, see [`crate::share`].

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster::Need;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::{Config, SiteLimits};
use crate::share::Share;

/// When a node that has no messages left in its lease asks again.
const SHARE_PAUSE: Duration = Duration::from_millis(500);

/// All sites.
pub(crate) struct Throttle {
    config: Arc<Config>,
    sites: Mutex<LruCache<Arc<str>, Arc<Site>>>,
    /// Several nodes send, and each needs a lease.
    shared: bool,
    /// Told when a site is wanted that there is no lease of.
    pub(crate) want: Arc<Notify>,
}

/// One site.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    flow: Mutex<Flow>,
    /// Told when a connection is no longer used.
    freed: Notify,
    /// Domains that wait for that.
    waiting: AtomicUsize,
    /// Told when there is no lease.
    want: Arc<Notify>,
}

/// What a site allows now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// One more connection may be used.
    Go,
    /// As many as may be are in use.
    Full,
    /// The site is left alone for so long.
    Later(Duration),
}

/// Leave to use one connection. Dropped, it is another's.
#[derive(Debug)]
pub(crate) struct Permit {
    site: Arc<Site>,
}

/// An open connection, used or idle.
#[derive(Debug)]
pub(crate) struct Slot {
    site: Arc<Site>,
}

impl Throttle {
    pub(crate) fn new(config: Arc<Config>, shared: bool) -> Self {
        let size = NonZeroUsize::new(config.sites_max).unwrap_or(NonZeroUsize::MIN);
        Self { config, sites: Mutex::new(LruCache::new(size)), shared, want: Arc::default() }
    }

    /// Sites that are in use or wanted.
    pub(crate) fn wanted(&self) -> Vec<Arc<Site>> {
        let sites = self.sites.lock();
        sites.iter().filter(|(_, site)| site.is_wanted()).map(|(_, site)| site.clone()).collect()
    }

    /// A site's state. Those in use are not forgotten, so that nobody gets twice what a site allows.
    pub(crate) fn site(&self, name: &Arc<str>) -> Arc<Site> {
        let mut sites = self.sites.lock();
        if let Some(site) = sites.get(name) {
            return site.clone();
        }
        let limits = self.config.limits_of(name);
        let mut flow = Flow::new(limits, Instant::now());
        flow.shared = self.shared;
        let (flow, waiting, want) = (Mutex::new(flow), AtomicUsize::new(0), self.want.clone());
        let site = Arc::new(Site { name: name.clone(), flow, freed: Notify::new(), waiting, want });
        if let Some((_, evicted)) = sites.push(name.clone(), site.clone())
            && Arc::strong_count(&evicted) > 1
        {
            // One that is in use is put back, in the place of one that is not.
            let idle = sites.iter().rev().find(|(_, site)| Arc::strong_count(site) == 1);
            if let Some(idle) = idle.map(|(name, _)| name.clone()) {
                sites.pop(&idle);
                sites.push(evicted.name.clone(), evicted);
            }
        }
        site
    }
}

impl Site {
    /// Leave for one more connection, or why not.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, Admission> {
        let admission = {
            let mut flow = self.flow.lock();
            let admission = flow.admit(now);
            if flow.needs_share(now) {
                self.want.notify_one();
            }
            admission
        };
        match admission {
            Admission::Go => Ok(Permit { site: self.clone() }),
            other => Err(other),
        }
    }

    fn is_wanted(&self) -> bool {
        let flow = self.flow.lock();
        flow.in_use > 0 || flow.wanted > 0 || flow.messages_wanted > 0 || self.is_waited_for()
    }

    /// What this node needs of the site until its next lease.
    pub(crate) fn need(&self) -> Need {
        let waiting = u32::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        self.flow.lock().need(waiting)
    }

    /// A new lease, in place of the one before; `need` is what was said when it was asked for.
    pub(crate) fn allow(&self, share: Share, need: Need) {
        self.flow.lock().allow(share, need);
        self.freed.notify_one();
    }

    /// How many of `wanted` messages may go now. Those that then do not are to be [`Site::give_back`].
    pub(crate) fn grant(&self, wanted: u32, now: Instant) -> Result<u32, Duration> {
        self.flow.lock().grant(wanted, now)
    }

    /// Messages that were granted and not sent.
    pub(crate) fn give_back(&self, messages: u32) {
        self.flow.lock().give_back(messages);
    }

    /// Counts a new connection. `None`: as many as may be are open, and an idle one has to go first.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Slot> {
        let mut flow = self.flow.lock();
        if flow.open >= flow.limits.connections_max {
            return None;
        }
        flow.open += 1;
        Some(Slot { site: self.clone() })
    }

    /// A connection was of use.
    pub(crate) fn succeeded(&self) {
        self.flow.lock().succeeded();
        // There may be room for more now.
        self.freed.notify_one();
    }

    /// No connection could be had. Says for how long the site is left alone now, if it is.
    pub(crate) fn failed(&self, now: Instant) -> Option<Duration> {
        self.flow.lock().failed(now)
    }

    /// The site does not want us now.
    pub(crate) fn suspend(&self, now: Instant) -> Duration {
        self.flow.lock().suspend(now)
    }

    /// An operator wants it tried again at once.
    pub(crate) fn forgive(&self) {
        self.flow.lock().forgive();
    }

    /// Returns when a connection may have become free: to those who wait in their order. Hints can be missed, so
    /// callers wait with a time limit.
    pub(crate) async fn freed(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        self.freed.notified().await;
    }

    /// Whether somebody waits for a connection, so that who has one does not take another.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whoever was told that a connection is free and does not need it tells the next.
    pub(crate) fn pass_on(&self) {
        self.freed.notify_one();
    }

    /// Messages over one connection.
    pub(crate) fn messages_per_connection_max(&self) -> u32 {
        self.flow.lock().limits.messages_per_connection_max.max(1)
    }
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.site.flow.lock().in_use -= 1;
        self.site.freed.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.site.flow.lock().open -= 1;
        self.site.freed.notify_one();
    }
}

/// The arithmetic of one site. Pure but for the times it is given.
#[derive(Debug)]
struct Flow {
    limits: SiteLimits,
    /// Connections that may be in use.
    window: f64,
    in_use: u32,
    open: u32,
    /// Failures since the last success, in windows.
    failed_windows: f64,
    suspended_until: Option<Instant>,
    /// The next suspension's length.
    suspension: Duration,
    /// Messages that may go, by the rate.
    tokens: f64,
    refilled: Instant,
    /// Other nodes send too: there is nothing to use without a lease.
    shared: bool,
    share: Option<Share>,
    /// Connections and messages that were wanted and that the lease did not have.
    wanted: u32,
    messages_wanted: u32,
}

impl Flow {
    fn new(limits: SiteLimits, now: Instant) -> Self {
        Self {
            limits,
            window: f64::from(limits.connections_initial.clamp(1, limits.connections_max.max(1))),
            in_use: 0,
            open: 0,
            failed_windows: 0.0,
            suspended_until: None,
            suspension: Duration::from_secs(limits.suspend_seconds_min),
            tokens: f64::from(limits.messages_per_minute_max),
            refilled: now,
            shared: false,
            share: None,
            wanted: 0,
            messages_wanted: 0,
        }
    }

    /// The lease, while it lasts.
    fn share(&mut self, now: Instant) -> Option<&mut Share> {
        self.share.as_mut().filter(|share| now < share.until)
    }

    fn needs_share(&mut self, now: Instant) -> bool {
        self.shared && self.wanted > 0 && self.share(now).is_none()
    }

    fn need(&mut self, waiting: u32) -> Need {
        let slots_wanted = self.in_use.saturating_add(self.wanted.max(waiting).max(1));
        Need {
            slots_in_use: self.in_use,
            slots_wanted: slots_wanted.min(self.window.ceil() as u32).max(self.in_use),
            messages_wanted: std::mem::take(&mut self.messages_wanted),
            messages_unused: self.share.as_ref().map_or(0, |share| share.messages),
        }
    }

    fn allow(&mut self, share: Share, need: Need) {
        // What has gone since it was asked for was of the lease before.
        let unused = self.share.as_ref().map_or(0, |before| before.messages);
        let gone = need.messages_unused.saturating_sub(unused);
        self.share = Some(Share { messages: share.messages.saturating_sub(gone), ..share });
        self.wanted = 0;
    }

    fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.suspended_until {
            if now < until {
                return Admission::Later(until - now);
            }
            self.suspended_until = None;
        }
        if f64::from(self.in_use) + 1.0 > self.window {
            return Admission::Full;
        }
        let in_use = self.in_use;
        if self.shared && self.share(now).is_none_or(|share| in_use >= share.slots) {
            self.wanted += 1;
            return Admission::Full;
        }
        self.in_use += 1;
        Admission::Go
    }

    fn grant(&mut self, wanted: u32, now: Instant) -> Result<u32, Duration> {
        let per_minute = f64::from(self.limits.messages_per_minute_max);
        if per_minute == 0.0 {
            return Ok(wanted);
        }
        if self.shared {
            let granted = match self.share(now) {
                Some(share) => {
                    let granted = wanted.min(share.messages);
                    share.messages -= granted;
                    granted
                }
                None => 0,
            };
            self.messages_wanted = self.messages_wanted.saturating_add(wanted - granted);
            return if granted > 0 { Ok(granted) } else { Err(SHARE_PAUSE) };
        }
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + passed * per_minute / 60.0).min(per_minute);
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) * 60.0 / per_minute));
        }
        let granted = wanted.min(self.tokens as u32);
        self.tokens -= f64::from(granted);
        Ok(granted)
    }

    fn give_back(&mut self, messages: u32) {
        if let Some(share) = self.share.as_mut().filter(|_| self.shared) {
            share.messages = share.messages.saturating_add(messages);
        }
        let per_minute = f64::from(self.limits.messages_per_minute_max);
        self.tokens = (self.tokens + f64::from(messages)).min(per_minute);
    }

    fn succeeded(&mut self) {
        self.failed_windows = 0.0;
        self.suspension = Duration::from_secs(self.limits.suspend_seconds_min);
        // A whole window of successes makes room for one more.
        self.window = (self.window + 1.0 / self.window).min(f64::from(self.limits.connections_max.max(1)));
    }

    fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failed_windows += 1.0 / self.window;
        self.window = (self.window - 1.0).max(1.0);
        // The sum of thirds is not quite one.
        (self.failed_windows > 0.999).then(|| self.suspend(now))
    }

    fn forgive(&mut self) {
        self.suspended_until = None;
        self.failed_windows = 0.0;
    }

    fn suspend(&mut self, now: Instant) -> Duration {
        if let Some(until) = self.suspended_until
            && now < until
        {
            // Connections that were under way end with the same answer; that is one suspension, not several.
            return until - now;
        }
        let length = self.suspension;
        let longest = Duration::from_secs(self.limits.suspend_seconds_max);
        self.suspension = (length * 2).min(longest).max(length.min(longest));
        self.suspended_until = Some(now + length);
        self.failed_windows = 0.0;
        // One connection asks how things are before there are more.
        self.window = 1.0;
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(limits: SiteLimits) -> (Flow, Instant) {
        let now = Instant::now();
        (Flow::new(limits, now), now)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// How many connections may be in use.
    fn room(flow: &mut Flow, now: Instant) -> u32 {
        let mut count = 0;
        while flow.admit(now) == Admission::Go {
            count += 1;
        }
        flow.in_use -= count;
        count
    }

    #[test]
    fn a_site_that_is_forgiven_is_tried_with_one_connection() {
        let (mut flow, now) = flow(SiteLimits::default());
        flow.suspend(now);
        assert!(matches!(flow.admit(now), Admission::Later(_)));
        flow.forgive();
        assert_eq!(room(&mut flow, now), 1);
    }

    #[test]
    fn what_other_nodes_may_use_is_left_to_them() {
        let limits = SiteLimits {
            connections_initial: 5,
            connections_max: 5,
            messages_per_minute_max: 60,
            ..SiteLimits::default()
        };
        let (mut flow, now) = flow(limits);
        flow.shared = true;
        assert_eq!(room(&mut flow, now), 0);
        assert!(flow.needs_share(now));
        assert_eq!(flow.grant(3, now), Err(SHARE_PAUSE));
        let need = flow.need(0);
        assert_eq!((need.slots_wanted, need.messages_wanted), (1, 3));
        flow.allow(Share { slots: 2, messages: 3, until: now + seconds(1) }, need);
        assert_eq!(room(&mut flow, now), 2);
        assert_eq!(flow.grant(2, now), Ok(2));
        // While a new lease is asked for, another message goes: it is one of the lease before.
        let need = flow.need(0);
        assert_eq!(need.messages_unused, 1);
        assert_eq!(flow.grant(1, now), Ok(1));
        flow.allow(Share { slots: 1, messages: 1, until: now + seconds(1) }, need);
        assert_eq!(flow.grant(1, now), Err(SHARE_PAUSE));
        assert_eq!(room(&mut flow, now), 1);
        // Nothing outlives its lease.
        assert_eq!(room(&mut flow, now + seconds(1)), 0);
    }

    #[test]
    fn success_opens_the_window_slowly() {
        let limits = SiteLimits { connections_initial: 2, connections_max: 4, ..SiteLimits::default() };
        let (mut flow, now) = flow(limits);
        assert_eq!(room(&mut flow, now), 2);
        flow.succeeded();
        assert_eq!(room(&mut flow, now), 2);
        for _ in 0..2 {
            flow.succeeded();
        }
        assert_eq!(room(&mut flow, now), 3);
        for _ in 0..100 {
            flow.succeeded();
        }
        assert_eq!(room(&mut flow, now), 4);
    }

    #[test]
    fn failures_in_a_row_suspend_and_longer_each_time() {
        let limits = SiteLimits {
            connections_initial: 3,
            suspend_seconds_min: 10,
            suspend_seconds_max: 25,
            ..SiteLimits::default()
        };
        let (mut flow, mut now) = flow(limits);
        assert_eq!(flow.failed(now), None);
        assert_eq!(room(&mut flow, now), 2);
        assert_eq!(flow.failed(now), None);
        for expected in [10, 20, 25, 25] {
            assert_eq!(flow.failed(now), Some(seconds(expected)));
            assert_eq!(flow.failed(now), Some(seconds(expected)), "what was under way counts as the same");
            assert_eq!(flow.admit(now), Admission::Later(seconds(expected)));
            now += seconds(expected);
            assert_eq!(room(&mut flow, now), 1, "one asks first");
        }
        flow.succeeded();
        assert_eq!(room(&mut flow, now), 2);
        assert_eq!(flow.failed(now), None);
        assert_eq!(flow.failed(now), Some(seconds(10)), "a success ends the row");
    }

    #[test]
    fn successes_between_failures_keep_a_site_open() {
        let (mut flow, now) = flow(SiteLimits::default());
        for _ in 0..100 {
            assert_eq!(flow.failed(now), None);
            flow.succeeded();
            flow.succeeded();
        }
    }

    #[test]
    fn rate() {
        let limits = SiteLimits { messages_per_minute_max: 60, ..SiteLimits::default() };
        let (mut flow, now) = flow(limits);
        assert_eq!(flow.grant(50, now), Ok(50));
        assert_eq!(flow.grant(50, now), Ok(10));
        assert_eq!(flow.grant(1, now), Err(seconds(1)));
        assert_eq!(flow.grant(5, now + seconds(3)), Ok(3));
        flow.give_back(2);
        assert_eq!(flow.grant(5, now + seconds(3)), Ok(2));
        assert_eq!(
            flow.grant(500, now + seconds(10_000)),
            Ok(60),
            "no more than a minute's worth is saved up"
        );
    }

    #[test]
    fn permits_and_slots_are_counted() {
        let config = Config {
            limits: SiteLimits { connections_initial: 1, connections_max: 1, ..SiteLimits::default() },
            sites_max: 1,
            ..Config::default()
        };
        let throttle = Throttle::new(Arc::new(config), false);
        let one = throttle.site(&"one".into());
        let now = Instant::now();
        let permit = one.admit(now).unwrap();
        let slot = one.open().unwrap();
        assert!(one.open().is_none());
        assert_eq!(one.admit(now).unwrap_err(), Admission::Full);
        drop((permit, slot));
        drop((one.admit(now).unwrap(), one.open().unwrap()));
    }
}
