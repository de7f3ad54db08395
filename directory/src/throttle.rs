//! Failed logins, counted per account and per network, in bounded memory.
//!
//! Each account and each network has a bucket of failures that refills with time. An attempt takes one *before* the
//! password is looked at and gets it back when the password was right, so that a thousand guesses sent at once are
//! counted like a thousand sent one after the other. A network from which an account has logged in lately is not
//! held up by the failures that others cause for that account: nobody is locked out of a mailbox by a stranger who
//! guesses at it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::ThrottleConfig;

/// The network that a peer is counted under: its IPv4 address, or its IPv6 /64, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteNetwork(IpAddr);

impl From<IpAddr> for RemoteNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// The table of failures. Pure: time is an argument.
#[derive(Debug)]
pub(crate) struct Throttle {
    accounts: Table<String>,
    networks: Table<RemoteNetwork>,
    /// Networks from which an account has logged in.
    known: Table<(String, RemoteNetwork)>,
}

/// An attempt that was allowed. It counts as a failure unless [`Throttle::succeeded`] is told otherwise.
#[derive(Debug)]
pub(crate) struct Attempt {
    account: String,
    network: RemoteNetwork,
}

/// An attempt that is refused unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// When one more would be allowed.
    pub(crate) retry_after: Duration,
}

impl Throttle {
    pub(crate) fn new(account: &ThrottleConfig, network: &ThrottleConfig, entries_max: usize) -> Self {
        Self {
            accounts: Table::new(account, entries_max),
            networks: Table::new(network, entries_max),
            known: Table::new(account, entries_max),
        }
    }

    /// Takes one failure from the account's and the network's bucket.
    pub(crate) fn attempt(
        &mut self,
        account: &str,
        network: RemoteNetwork,
        now: Instant,
    ) -> Result<Attempt, Throttled> {
        let known = (account.to_owned(), network);
        self.networks.take(&network, now)?;
        // A known network has a bucket of its own for this account, so that it is limited too.
        let of_account = if self.known.holds(&known) {
            self.known.take(&known, now)
        } else {
            self.accounts.take(&known.0, now)
        };
        if let Err(throttled) = of_account {
            self.networks.give_back(&network, now);
            self.networks.forget_if_full(&network);
            return Err(throttled);
        }
        Ok(Attempt { account: known.0, network })
    }

    /// The password was right.
    pub(crate) fn succeeded(&mut self, attempt: Attempt, now: Instant) {
        self.forget(&attempt, now);
        self.known.fill(&(attempt.account, attempt.network), now);
    }

    /// Nothing was learned about the password: storage was away, say.
    pub(crate) fn undecided(&mut self, attempt: Attempt, now: Instant) {
        self.forget(&attempt, now);
    }

    fn forget(&mut self, attempt: &Attempt, now: Instant) {
        self.networks.give_back(&attempt.network, now);
        self.networks.forget_if_full(&attempt.network);
        let known = (attempt.account.clone(), attempt.network);
        if self.known.holds(&known) {
            self.known.give_back(&known, now);
        } else {
            self.accounts.give_back(&attempt.account, now);
            self.accounts.forget_if_full(&attempt.account);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.accounts.buckets.len().max(self.networks.buckets.len()).max(self.known.buckets.len())
    }
}

/// Buckets by key; the one used longest ago goes first when there are too many.
#[derive(Debug)]
struct Table<K> {
    burst: f64,
    refill: Duration,
    entries_max: usize,
    buckets: HashMap<K, Bucket>,
    /// Keys by when they were last used: a counter, since an `Instant` can come twice.
    used: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    used: u64,
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn new(config: &ThrottleConfig, entries_max: usize) -> Self {
        Self {
            burst: f64::from(config.failures_burst.max(1)),
            refill: Duration::from_secs(config.refill_seconds.max(1)),
            entries_max: entries_max.max(1),
            buckets: HashMap::new(),
            used: BTreeMap::new(),
            uses: 0,
        }
    }

    fn holds(&self, key: &K) -> bool {
        self.buckets.contains_key(key)
    }

    fn take(&mut self, key: &K, now: Instant) -> Result<(), Throttled> {
        let refill = self.refill;
        let bucket = self.touch(key, now);
        if bucket.left < 1.0 {
            return Err(Throttled { retry_after: refill.mul_f64(1.0 - bucket.left) });
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn give_back(&mut self, key: &K, now: Instant) {
        let burst = self.burst;
        let bucket = self.touch(key, now);
        bucket.left = (bucket.left + 1.0).min(burst);
    }

    /// A full bucket says the same as none.
    fn forget_if_full(&mut self, key: &K) {
        if self.buckets.get(key).is_some_and(|bucket| bucket.left >= self.burst) {
            self.remove(key);
        }
    }

    fn fill(&mut self, key: &K, now: Instant) {
        let burst = self.burst;
        self.touch(key, now).left = burst;
    }

    fn remove(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.remove(key) {
            self.used.remove(&bucket.used);
        }
    }

    /// The bucket as it is now, made if there is none.
    fn touch(&mut self, key: &K, now: Instant) -> &mut Bucket {
        self.uses += 1;
        let used = self.uses;
        match self.buckets.get(key) {
            Some(bucket) => {
                self.used.remove(&bucket.used);
            }
            None if self.buckets.len() >= self.entries_max => {
                if let Some((_, oldest)) = self.used.pop_first() {
                    self.buckets.remove(&oldest);
                }
            }
            None => {}
        }
        self.used.insert(used, key.clone());
        let (burst, refill) = (self.burst, self.refill);
        let bucket = self.buckets.entry(key.clone()).or_insert(Bucket { left: burst, at: now, used });
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() / refill.as_secs_f64();
        *bucket = Bucket { left: (bucket.left + gained).min(burst), at: now.max(bucket.at), used };
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> RemoteNetwork {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn throttle(account: u32, network: u32, entries: usize) -> Throttle {
        let of = |failures_burst| ThrottleConfig { failures_burst, refill_seconds: 10 };
        Throttle::new(&of(account), &of(network), entries)
    }

    #[test]
    fn networks_are_what_one_customer_gets() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn failures_are_counted_per_account_whatever_the_network() {
        let (mut throttle, now) = (throttle(3, 100, 100), Instant::now());
        for host in 1..=3 {
            throttle.attempt("alice", network(&format!("192.0.2.{host}")), now).unwrap();
        }
        let refused = throttle.attempt("alice", network("192.0.2.4"), now).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(10));
        throttle.attempt("bob", network("192.0.2.4"), now).unwrap();
        throttle.attempt("alice", network("192.0.2.4"), now + Duration::from_secs(10)).unwrap();
        assert!(throttle.attempt("alice", network("192.0.2.4"), now + Duration::from_secs(11)).is_err());
    }

    #[test]
    fn failures_are_counted_per_network_whatever_the_account() {
        let (mut throttle, now) = (throttle(100, 3, 100), Instant::now());
        for account in ["a", "b", "c"] {
            throttle.attempt(account, network("2001:db8::1"), now).unwrap();
        }
        assert!(throttle.attempt("d", network("2001:db8::2"), now).is_err());
        throttle.attempt("d", network("2001:db8:0:1::2"), now).unwrap();
    }

    #[test]
    fn success_costs_nothing_and_a_known_network_is_not_locked_out() {
        let (mut throttle, now) = (throttle(3, 100, 100), Instant::now());
        let home = network("198.51.100.7");
        for _ in 0..50 {
            let attempt = throttle.attempt("alice", home, now).unwrap();
            throttle.succeeded(attempt, now);
        }
        for _ in 0..3 {
            throttle.attempt("alice", network("203.0.113.9"), now).unwrap();
        }
        assert!(throttle.attempt("alice", network("203.0.113.9"), now).is_err());
        for _ in 0..3 {
            throttle.attempt("alice", home, now).unwrap();
        }
        assert!(throttle.attempt("alice", home, now).is_err(), "its own failures count");
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut throttle, now) = (throttle(3, 3, 10), Instant::now());
        for n in 0..1000u32 {
            let _ =
                throttle.attempt(&format!("a{n}"), network(&format!("10.0.{}.{}", n / 250, n % 250)), now);
        }
        assert_eq!(throttle.len(), 10);
        assert_eq!(throttle.accounts.used.len(), 10);
    }
}
