//! Whether nodes of Cassandra see each other, by what they log.
//!
//! Cassandra's Gossiper logs `InetAddress /ADDRESS:7000 is now UP` for each node that it begins to count as alive, and `… is
//! now DOWN` when it ceases to; also for a node that comes back before anybody has noticed that it was gone. So a node is seen
//! up by another where the last such line since it was started says so. A client of CQL could ask `system_views.gossip_info`
//! instead; the log serves without one.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::loopback::STORAGE_PORT;

/// A node, as another one knows it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Peer {
    /// How much it has logged.
    pub(crate) fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Whether it says, after so much of its log, that the other is up.
    pub(crate) fn sees(&self, other: &Self, log_bytes: u64) -> bool {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(log_bytes as usize..).unwrap_or_default());
        is_up(&text, &format!("InetAddress /{}:{STORAGE_PORT} is now ", other.address.ip()))
    }
}

fn is_up(text: &str, said_of_it: &str) -> bool {
    text.rmatch_indices(said_of_it)
        .next()
        .is_some_and(|(at, _)| text[at + said_of_it.len()..].starts_with("UP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_node_counts() {
        let check = |text: &str, up: bool| assert_eq!(is_up(text, "/127.1.1.12:7000 is now "), up, "{text}");
        check("", false);
        check("/127.1.1.12:7000 is now UP\n", true);
        check("/127.1.1.12:7000 is now UP\n/127.1.1.12:7000 is now DOWN\n", false);
        check(
            "/127.1.1.12:7000 is now DOWN\n/127.1.1.12:7000 is now UP\n/127.1.1.13:7000 is now DOWN\n",
            true,
        );
        check("/127.1.1.13:7000 is now UP\n", false);
    }
}
