//! Addresses of their own for each set of engines: a block 127.X.Y.0/24, of which Linux answers every address.
//!
//! With a block to itself a set can use the same ports every time. They lie below those that the kernel gives to clients, so
//! an engine that was killed finds its port still free when it is started again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// CQL of every node.
const CQL_PORT: u16 = 9042;
/// Between the nodes.
pub(crate) const STORAGE_PORT: u16 = 7000;
/// Not their usual ports, which another server of the machine may hold on all addresses.
const S3_PORT: u16 = 27070;
const NATS_PORT: u16 = 24222;

/// The first two of the three numbers that vary, and so the addresses of a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block(u8, u8);

impl Block {
    /// A block in which all of it can be bound now. Processes begin their search at different places, so two that start
    /// at the same moment do not choose the same.
    pub(crate) fn free(cassandra_nodes: usize) -> Result<Self> {
        static TURN: AtomicU16 = AtomicU16::new(0);
        for _ in 0..256 {
            let place = (std::process::id() as u16).wrapping_add(TURN.fetch_add(1, Ordering::Relaxed) * 251);
            let [high, low] = place.to_be_bytes();
            // 127.0 is where everything else on loopback lies.
            let block = Self(high.max(1), low);
            if block.addresses(cassandra_nodes).iter().all(|address| TcpListener::bind(address).is_ok()) {
                return Ok(block);
            }
        }
        bail!(
            "no block of loopback addresses has ports {CQL_PORT}, {STORAGE_PORT}, {S3_PORT} and {NATS_PORT} free"
        );
    }

    fn addresses(self, cassandra_nodes: usize) -> Vec<SocketAddr> {
        let mut addresses = vec![self.s3(), self.nats()];
        for number in 1..=cassandra_nodes {
            let cql = self.cql(number);
            addresses.extend([cql, SocketAddr::new(cql.ip(), STORAGE_PORT), self.proxy(number)]);
        }
        addresses
    }

    /// CQL of a node; they are numbered from 1.
    pub(crate) fn cql(self, number: usize) -> SocketAddr {
        self.at(10 + number as u8, CQL_PORT)
    }

    /// Where a proxy for [`Self::cql`] may stand. Clients take one port for all nodes, so it is the same.
    pub(crate) fn proxy(self, number: usize) -> SocketAddr {
        self.at(50 + number as u8, CQL_PORT)
    }

    pub(crate) fn s3(self) -> SocketAddr {
        self.at(1, S3_PORT)
    }

    pub(crate) fn nats(self) -> SocketAddr {
        self.at(1, NATS_PORT)
    }

    fn at(self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, self.0, self.1, host), port))
    }
}
