//! Connections kept for the next message. Bounded in number and in time: an open connection costs the other side too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::connect::Connection;
use crate::tls_policy::TlsPolicy;

/// What makes two connections exchangeable: where they come from, where they go, what was asked of TLS, and as whom.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The local address, where one was chosen.
    pub(crate) source: Option<IpAddr>,
    pub(crate) address: SocketAddr,
    /// The name that a certificate was asked for.
    pub(crate) host: Arc<str>,
    pub(crate) policy: TlsPolicy,
    /// Number of the route, which has the login.
    pub(crate) route: usize,
    /// Whom the connection is counted for.
    pub(crate) site: Arc<str>,
}

/// What waits in the pool: [`Connection`], and in its tests something simpler.
pub(crate) trait Idle {
    fn key(&self) -> &Key;
    fn last_used(&self) -> Instant;
}

impl Idle for Connection {
    fn key(&self) -> &Key {
        &self.key
    }

    fn last_used(&self) -> Instant {
        self.last_used
    }
}

/// Idle connections, oldest first. There are few, so they are searched from end to end.
#[derive(Debug)]
pub(crate) struct Pool<C = Connection> {
    idle: Mutex<Vec<C>>,
    connections_max: usize,
    idle_max: Duration,
}

impl<C: Idle> Pool<C> {
    pub(crate) fn new(connections_max: usize, idle_max: Duration) -> Self {
        Self { idle: Mutex::new(Vec::new()), connections_max, idle_max }
    }

    /// The connection used last of those that fit.
    pub(crate) fn take(&self, key: &Key, now: Instant) -> Option<C> {
        let mut idle = self.idle.lock();
        let at = idle.iter().rposition(|connection| connection.key() == key)?;
        let fresh = now.saturating_duration_since(idle[at].last_used()) < self.idle_max;
        fresh.then(|| idle.remove(at))
    }

    /// Keeps a connection. What has to go for it is given back, to be closed.
    #[must_use]
    pub(crate) fn put(&self, connection: C) -> Option<C> {
        if self.connections_max == 0 {
            return Some(connection);
        }
        let mut idle = self.idle.lock();
        let oldest = (idle.len() >= self.connections_max).then(|| idle.remove(0));
        idle.push(connection);
        oldest
    }

    /// Takes out one connection of a site, so that another one of its connections may be opened.
    pub(crate) fn evict(&self, site: &str) -> Option<C> {
        let mut idle = self.idle.lock();
        let at = idle.iter().position(|connection| &*connection.key().site == site)?;
        Some(idle.remove(at))
    }

    /// Takes out those that have been idle for too long.
    pub(crate) fn expired(&self, now: Instant) -> Vec<C> {
        let mut idle = self.idle.lock();
        let old = |connection: &C| now.saturating_duration_since(connection.last_used()) >= self.idle_max;
        idle.extract_if(.., |connection| old(connection)).collect()
    }

    /// Takes out all.
    pub(crate) fn drain(&self) -> Vec<C> {
        std::mem::take(&mut *self.idle.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Debug)]
    struct Dummy(u32, Key, Instant);

    impl Idle for Dummy {
        fn key(&self) -> &Key {
            &self.1
        }
        fn last_used(&self) -> Instant {
            self.2
        }
    }

    fn key(address: &str, policy: TlsPolicy, source: Option<&str>) -> Key {
        Key {
            source: source.map(|source| source.parse().unwrap()),
            address: address.parse().unwrap(),
            host: "mx.test".into(),
            policy,
            route: 0,
            site: "mx.test".into(),
        }
    }

    #[test]
    fn only_what_fits_is_given() {
        let pool = Pool::new(10, Duration::from_secs(5));
        let now = Instant::now();
        let plain = key("127.0.0.2:25", TlsPolicy::Plain, None);
        assert!(pool.put(Dummy(1, plain.clone(), now)).is_none());
        assert!(pool.put(Dummy(2, plain.clone(), now)).is_none());
        for other in [
            key("127.0.0.3:25", TlsPolicy::Plain, None),
            key("127.0.0.2:25", TlsPolicy::IfOffered, None),
            key("127.0.0.2:25", TlsPolicy::Plain, Some("127.0.0.9")),
        ] {
            assert_eq!(pool.take(&other, now), None);
        }
        assert_eq!(pool.take(&plain, now).map(|dummy| dummy.0), Some(2));
        assert_eq!(pool.take(&plain, now + Duration::from_secs(5)), None);
        assert!(pool.expired(now + Duration::from_secs(4)).is_empty());
        assert_eq!(pool.expired(now + Duration::from_secs(5)).len(), 1);
    }

    #[test]
    fn bounded() {
        let pool = Pool::new(2, Duration::from_secs(5));
        let now = Instant::now();
        let key = key("127.0.0.2:25", TlsPolicy::Plain, None);
        assert!(pool.put(Dummy(1, key.clone(), now)).is_none());
        assert!(pool.put(Dummy(2, key.clone(), now)).is_none());
        assert_eq!(pool.put(Dummy(3, key.clone(), now)).map(|dummy| dummy.0), Some(1));
        assert_eq!(pool.evict("other.test"), None);
        assert_eq!(pool.evict("mx.test").map(|dummy| dummy.0), Some(2));
        assert_eq!(pool.drain().len(), 1);
        assert!(Pool::new(0, Duration::ZERO).put(Dummy(1, key, now)).is_some());
    }
}
