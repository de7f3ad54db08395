//! Failed logins, counted per account and per network, in bounded memory.
//!
//! Each account and each network has a bucket of failures that refills with time. An attempt takes one *before* the
//! password is looked at and gets it back when the password was right, so that a thousand guesses sent at once are
//! counted like a thousand sent one after the other. A network from which an account has logged in lately is not
//! held up by the failures that others cause for that account: nobody is locked out of a mailbox by a stranger who
//! guesses at it.
//!
//! An installation has one limit, however many nodes it has. Each counts by itself and tells the others of failures, and
//! of networks that have become known, as [`Report`]s; those take from the others' buckets what is not there any more,
//! so that guesses sent to all nodes in the same moment are paid for afterwards. While nodes cannot tell each other
//! anything each has its share of the limit, see `Throttle::share_out`. Buckets are named by keyed hashes, the key of
//! which all nodes have: what nodes tell each other names nobody.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::config::ThrottleConfig;

/// The name of an account, or of a network.
type Name = [u8; 16];

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

/// What a node tells the others of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    what: What,
    account: Name,
    network: Name,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Failed = 0,
    /// The account has logged in from this network, from which it had not.
    BecameKnown = 1,
}

impl Report {
    /// Bytes of one.
    pub const BYTES: usize = 33;

    /// As nodes tell it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.what as u8;
        bytes[1..17].copy_from_slice(&self.account);
        bytes[17..].copy_from_slice(&self.network);
        bytes
    }

    /// Reverse of [`Self::to_bytes`]. `None`: another release says something that this one does not know.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (what, names) = bytes.split_first()?;
        let what = match what {
            0 => What::Failed,
            1 => What::BecameKnown,
            _ => return None,
        };
        let (account, network) = names.split_first_chunk()?;
        Some(Self { what, account: *account, network: network.try_into().ok()? })
    }
}

/// The table of failures. Pure: time is an argument.
#[derive(Debug)]
pub(crate) struct Throttle {
    secret: hmac::Key,
    accounts: Table<Name>,
    networks: Table<Name>,
    /// Networks from which an account has logged in.
    known: Table<(Name, Name)>,
}

/// An attempt that was allowed. It counts as a failure unless [`Throttle::succeeded`] is told otherwise.
#[derive(Debug)]
pub(crate) struct Attempt {
    account: Name,
    network: Name,
}

impl Attempt {
    /// What the others are told when it failed.
    pub(crate) fn failed(&self) -> Report {
        Report { what: What::Failed, account: self.account, network: self.network }
    }
}

/// An attempt that is refused unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// When one more would be allowed.
    pub(crate) retry_after: Duration,
}

impl Throttle {
    /// `secret` is the same at all nodes of an installation.
    pub(crate) fn new(
        account: &ThrottleConfig,
        network: &ThrottleConfig,
        entries_max: usize,
        secret: &[u8],
    ) -> Self {
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            accounts: Table::new(account, entries_max),
            networks: Table::new(network, entries_max),
            known: Table::new(account, entries_max),
        }
    }

    /// The limits are those of so many nodes together, which hear nothing of each other. One: all of it is this node's.
    pub(crate) fn share_out(&mut self, nodes: u32) {
        self.accounts.share = nodes.max(1);
        self.networks.share = nodes.max(1);
        self.known.share = nodes.max(1);
    }

    /// What another node tells.
    pub(crate) fn heard(&mut self, report: Report, now: Instant) {
        let known = (report.account, report.network);
        match report.what {
            What::BecameKnown => self.known.fill(&known, now),
            What::Failed => {
                self.networks.owe(&report.network, now);
                if self.known.holds(&known) {
                    self.known.owe(&known, now);
                } else {
                    self.accounts.owe(&report.account, now);
                }
            }
        }
    }

    fn name(&self, kind: &[u8], of: &[u8]) -> Name {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"throttle ");
        context.update(kind);
        context.update(&[0]);
        context.update(of);
        let tag = context.sign();
        *tag.as_ref().first_chunk().expect("SHA-256 gives 32 octets")
    }

    fn name_of_network(&self, network: RemoteNetwork) -> Name {
        match network.0 {
            IpAddr::V4(v4) => self.name(b"v4", &v4.octets()),
            IpAddr::V6(v6) => self.name(b"v6", &v6.octets()),
        }
    }

    /// Takes one failure from the account's and the network's bucket.
    pub(crate) fn attempt(
        &mut self,
        account: &str,
        network: RemoteNetwork,
        now: Instant,
    ) -> Result<Attempt, Throttled> {
        let known = (self.name(b"account", account.as_bytes()), self.name_of_network(network));
        let network = known.1;
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

    /// The password was right. What the others are told of it, if they do not know it.
    pub(crate) fn succeeded(&mut self, attempt: Attempt, now: Instant) -> Option<Report> {
        self.forget(&attempt, now);
        let Attempt { account, network } = attempt;
        let news = !self.known.holds(&(account, network));
        self.known.fill(&(account, network), now);
        news.then_some(Report { what: What::BecameKnown, account, network })
    }

    /// Nothing was learned about the password: storage was away, say.
    pub(crate) fn undecided(&mut self, attempt: Attempt, now: Instant) {
        self.forget(&attempt, now);
    }

    fn forget(&mut self, attempt: &Attempt, now: Instant) {
        self.networks.give_back(&attempt.network, now);
        self.networks.forget_if_full(&attempt.network);
        let known = (attempt.account, attempt.network);
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
    /// Among how many nodes both are shared out.
    share: u32,
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
            share: 1,
            entries_max: entries_max.max(1),
            buckets: HashMap::new(),
            used: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Failures in a row that are this node's.
    fn burst(&self) -> f64 {
        (self.burst / f64::from(self.share)).max(1.0)
    }

    fn refill(&self) -> Duration {
        self.refill * self.share
    }

    fn holds(&self, key: &K) -> bool {
        self.buckets.contains_key(key)
    }

    fn take(&mut self, key: &K, now: Instant) -> Result<(), Throttled> {
        let refill = self.refill();
        let bucket = self.touch(key, now);
        if bucket.left < 1.0 {
            return Err(Throttled { retry_after: refill.mul_f64(1.0 - bucket.left) });
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// A failure that nobody here was asked about. It is owed where nothing is left, up to as much again: guesses at
    /// several nodes in the same moment gain nothing, and nobody can be made to wait for longer than twice the time.
    fn owe(&mut self, key: &K, now: Instant) {
        let burst = self.burst();
        let bucket = self.touch(key, now);
        bucket.left = (bucket.left - 1.0).max(-burst);
    }

    fn give_back(&mut self, key: &K, now: Instant) {
        let burst = self.burst();
        let bucket = self.touch(key, now);
        bucket.left = (bucket.left + 1.0).min(burst);
    }

    /// A full bucket says the same as none.
    fn forget_if_full(&mut self, key: &K) {
        if self.buckets.get(key).is_some_and(|bucket| bucket.left >= self.burst()) {
            self.remove(key);
        }
    }

    fn fill(&mut self, key: &K, now: Instant) {
        let burst = self.burst();
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
        let (burst, refill) = (self.burst(), self.refill());
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
        Throttle::new(&of(account), &of(network), entries, b"secret")
    }

    /// Nodes of one installation; what one has to tell, the others hear.
    struct Nodes(Vec<Throttle>);

    impl Nodes {
        fn new(count: usize, account: u32, network: u32) -> Self {
            Self((0..count).map(|_| throttle(account, network, 100)).collect())
        }

        fn tell(&mut self, from: usize, report: Report, now: Instant) {
            let report = Report::from_bytes(&report.to_bytes()).unwrap();
            let others = self.0.iter_mut().enumerate().filter(|(node, _)| *node != from);
            others.for_each(|(_, node)| node.heard(report, now));
        }

        /// Whether a wrong password was looked at.
        fn fails(&mut self, at: usize, account: &str, from: &str, now: Instant) -> bool {
            let Ok(attempt) = self.0[at].attempt(account, network(from), now) else { return false };
            self.tell(at, attempt.failed(), now);
            true
        }

        fn logs_in(&mut self, at: usize, account: &str, from: &str, now: Instant) -> bool {
            let Ok(attempt) = self.0[at].attempt(account, network(from), now) else { return false };
            if let Some(report) = self.0[at].succeeded(attempt, now) {
                self.tell(at, report, now);
            }
            true
        }
    }

    #[test]
    fn several_nodes_have_one_limit() {
        let (mut nodes, now) = (Nodes::new(3, 6, 100), Instant::now());
        let looked_at = (0..60).filter(|n| nodes.fails(n % 3, "alice", "203.0.113.9", now)).count();
        assert_eq!(looked_at, 6);
        let later = now + Duration::from_secs(10);
        let looked_at = (0..60).filter(|n| nodes.fails(n % 3, "alice", "203.0.113.9", later)).count();
        assert_eq!(looked_at, 1, "and refill as one");
        assert!(nodes.fails(2, "bob", "203.0.113.9", now));
        let (mut nodes, now) = (Nodes::new(2, 100, 6), Instant::now());
        let looked_at = (0..60).filter(|n| nodes.fails(n % 2, &n.to_string(), "203.0.113.9", now)).count();
        assert_eq!(looked_at, 6);
    }

    #[test]
    fn guesses_at_all_nodes_in_one_moment_are_paid_for_afterwards() {
        let (mut nodes, now) = (Nodes::new(3, 6, 100), Instant::now());
        let mut attempts = Vec::new();
        for node in 0..3 {
            while let Ok(attempt) = nodes.0[node].attempt("alice", network("203.0.113.9"), now) {
                attempts.push((node, attempt));
            }
        }
        assert_eq!(attempts.len(), 18);
        for (node, attempt) in attempts {
            nodes.tell(node, attempt.failed(), now);
        }
        // Twelve were too many, of which six are remembered: as long as to fill what is empty twice.
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(
            !nodes.fails(0, "alice", "203.0.113.9", at(69)) && nodes.fails(0, "alice", "203.0.113.9", at(71))
        );
    }

    #[test]
    fn who_is_known_at_one_node_is_locked_out_at_none() {
        let (mut nodes, now) = (Nodes::new(2, 6, 100), Instant::now());
        assert!(nodes.logs_in(0, "alice", "198.51.100.7", now));
        while nodes.fails(0, "alice", "203.0.113.9", now) {}
        assert!(!nodes.logs_in(1, "alice", "192.0.2.1", now));
        assert!(nodes.logs_in(1, "alice", "198.51.100.7", now));
        let failures = (0..20).filter(|n| nodes.fails(n % 2, "alice", "198.51.100.7", now)).count();
        assert_eq!(failures, 6, "its own failures count, at all nodes");
    }

    #[test]
    fn who_hears_nothing_of_the_others_has_a_share() {
        let (mut throttle, now) = (throttle(6, 100, 100), Instant::now());
        let mut failures = |nodes, now| {
            throttle.share_out(nodes);
            (0..20).filter(|_| throttle.attempt("alice", network("203.0.113.9"), now).is_ok()).count()
        };
        assert_eq!(failures(3, now), 2);
        assert_eq!(failures(3, now + Duration::from_secs(29)), 0);
        assert_eq!(failures(3, now + Duration::from_secs(31)), 1);
        assert_eq!(failures(1, now + Duration::from_secs(3_600)), 6);
        assert_eq!(failures(9, now + Duration::from_secs(7_200)), 1, "and never none");
    }

    #[test]
    fn what_is_told_names_nobody_and_is_known_by_its_kind() {
        let (mut throttle, now) = (throttle(6, 100, 100), Instant::now());
        let report = throttle.attempt("alice", network("203.0.113.9"), now).unwrap().failed();
        let bytes = report.to_bytes();
        assert_eq!(Report::from_bytes(&bytes), Some(report));
        assert!(!bytes.windows(5).any(|some| some == b"alice"));
        assert_eq!(Report::from_bytes(&[&[9], &bytes[1..]].concat()), None);
        for length in 0..bytes.len() {
            assert_eq!(Report::from_bytes(&bytes[..length]), None);
        }
        let of = ThrottleConfig { failures_burst: 3, refill_seconds: 10 };
        let mut elsewhere = Throttle::new(&of, &of, 100, b"another");
        let other = elsewhere.attempt("alice", network("203.0.113.9"), now).unwrap().failed();
        assert_ne!(other.to_bytes(), bytes);
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
