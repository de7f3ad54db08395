//! How many connections there may be: in all, and from one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::network::Network;

/// Counts open connections. Shared by all listeners that are limited together.
#[derive(Debug)]
pub struct ConnectionLimits {
    total_max: usize,
    network_max: usize,
    unlimited: Vec<Network>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_network: HashMap<Network, usize>,
}

/// Why a connection was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many connections as there may be are open.
    #[error("too many connections")]
    Total,
    /// As many connections as there may be from one network are open.
    #[error("too many connections from this network")]
    Network,
}

/// One admitted connection; dropping it makes room for another.
#[derive(Debug)]
pub struct Permit {
    limits: Arc<ConnectionLimits>,
    network: Option<Network>,
}

impl ConnectionLimits {
    /// At most `total_max` connections, of which `network_max` from one network (IPv4 /32, IPv6 /64) unless it lies in
    /// one of `unlimited`.
    pub fn new(total_max: usize, network_max: usize, unlimited: Vec<Network>) -> Arc<Self> {
        Arc::new(Self { total_max, network_max, unlimited, open: Mutex::default() })
    }

    /// Counts a connection, before it is known from where it really comes.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Refused> {
        let mut open = self.open.lock();
        if open.total >= self.total_max {
            return Err(Refused::Total);
        }
        open.total += 1;
        Ok(Permit { limits: Arc::clone(self), network: None })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Permit {
    /// Counts this connection for the network that `address` lies in.
    pub fn from_address(&mut self, address: IpAddr) -> Result<(), Refused> {
        if self.limits.unlimited.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        let network = Network::counted(address);
        let mut open = self.limits.open.lock();
        let count = open.by_network.entry(network).or_insert(0);
        if *count >= self.limits.network_max {
            return Err(Refused::Network);
        }
        *count += 1;
        self.network = Some(network);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(network) = self.network
            && let Some(count) = open.by_network.get_mut(&network)
        {
            *count -= 1;
            // Entries go with their last connection, so that the map is never larger than the total.
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_releases() {
        let limits = ConnectionLimits::new(3, 1, vec!["127.0.0.0/8".parse().unwrap()]);
        let mut first = limits.admit().unwrap();
        first.from_address("192.0.2.1".parse().unwrap()).unwrap();
        let mut second = limits.admit().unwrap();
        assert_eq!(second.from_address("192.0.2.1".parse().unwrap()), Err(Refused::Network));
        drop(second);
        let mut local = [limits.admit().unwrap(), limits.admit().unwrap()];
        for permit in &mut local {
            permit.from_address("127.0.0.1".parse().unwrap()).unwrap();
        }
        assert_eq!(limits.admit().err(), Some(Refused::Total));
        drop(first);
        limits.admit().unwrap().from_address("192.0.2.1".parse().unwrap()).unwrap();
        drop(local);
        assert_eq!(limits.open(), 0);
        assert!(limits.open.lock().by_network.is_empty());
    }
}
