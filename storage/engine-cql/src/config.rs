//! Settings.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the nodes of Cassandra or ScyllaDB are reached, and how they are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Some nodes, as `host:port`; the others are learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace: one for each region, since where it is kept is decided per keyspace.
    pub keyspace: String,
    /// The datacentre that the keyspace lies in. Empty: the only one there is. A keyspace lies in one datacentre, since
    /// two that decide for themselves would both win a compare-and-swap.
    pub datacentre: String,
    /// Replicas of each row. Three survive the loss of one node; with fewer, every lost node stops some accounts.
    pub replication: usize,
    /// What a start does to the schema.
    pub schema: SchemaPolicy,
    /// The login; empty: none.
    pub user: String,
    /// The file that holds its password.
    pub password_file: PathBuf,
    /// TLS to the nodes, whose certificates must be signed by the certificates in this file (PEM). Empty: in plain.
    pub ca_file: PathBuf,
    /// Milliseconds for one call, waiting for its turn included. Above the time-outs of the nodes themselves (2 s for
    /// writes), so that their answer, which says more, is heard.
    pub request_timeout_ms: u64,
    /// Milliseconds for one attempt at a compare-and-swap. Above what a node waits for it itself (1.8 s), so that its
    /// answer is heard; one that is not heard is proposed again, by way of another node.
    pub conditional_timeout_ms: u64,
    /// Milliseconds after which a read, or a write that may be repeated, is asked of another node too. Later, namely after
    /// three times what such calls take in the middle, when all nodes are slow: they would only become slower.
    pub second_ask_ms: u64,
    /// Milliseconds of silence after which a connection is given up, and with it what waits for an answer on it.
    pub silence_ms_max: u64,
    /// Milliseconds for a connection to a node.
    pub connect_timeout_ms: u64,
    /// Connections to each node.
    pub connections: usize,
    /// Compare-and-swaps under way at one time. More than the nodes can do make each other time out.
    pub conditional_in_flight_max: usize,
    /// Other calls under way at one time.
    pub in_flight_max: usize,
    /// Difference between a node's clock and ours that a start reports. Correctness does not rest on clocks, but time-outs,
    /// Paxos ballots and the age of plain rows do.
    pub clock_difference_ms_max: u64,
    /// Difference between our clock and that of most nodes from which on a start is refused. Mail is dated by it, and what
    /// waits in the queue. Zero: never.
    pub clock_difference_ms_refused: u64,
}

/// What a start does to the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemaPolicy {
    /// Makes or upgrades it; of several nodes that start, one does it and the others wait.
    #[default]
    Apply,
    /// Refuses to start when it is not the one of this release, for logins that may not alter it.
    Check,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            keyspace: "postrider".to_owned(),
            datacentre: String::new(),
            replication: 3,
            schema: SchemaPolicy::Apply,
            user: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            request_timeout_ms: 5_000,
            conditional_timeout_ms: 2_500,
            second_ask_ms: 300,
            silence_ms_max: 3_000,
            connect_timeout_ms: 5_000,
            connections: 1,
            conditional_in_flight_max: 64,
            in_flight_max: 256,
            clock_difference_ms_max: 2_000,
            clock_difference_ms_refused: 10_000,
        }
    }
}

impl Config {
    /// What cannot be right in it.
    pub fn check(&self) -> Result<(), String> {
        let name = |text: &str| {
            let mut bytes = text.bytes();
            bytes.next().is_some_and(|first| first.is_ascii_lowercase())
                && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        // It is put into statements as it stands.
        if !name(&self.keyspace) || self.keyspace.len() > 48 {
            return Err(format!(
                "keyspace {:?} must be at most 48 lower-case letters, digits and underscores, a letter first",
                self.keyspace
            ));
        }
        if self.datacentre.contains(['\'', '\\']) {
            return Err(format!("datacentre {:?} has a quotation mark in it", self.datacentre));
        }
        if self.replication == 0 || self.connections == 0 {
            return Err("replication and connections must be at least 1".to_owned());
        }
        let times =
            [self.request_timeout_ms, self.conditional_timeout_ms, self.second_ask_ms, self.silence_ms_max];
        if self.conditional_in_flight_max == 0 || self.in_flight_max == 0 || times.contains(&0) {
            return Err("limits of calls under way and their time must be at least 1".to_owned());
        }
        if self.user.is_empty() != self.password_file.as_os_str().is_empty() {
            return Err("user and password_file are needed both, or neither".to_owned());
        }
        Ok(())
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn second_ask(&self) -> Duration {
        Duration::from_millis(self.second_ask_ms)
    }

    pub(crate) fn conditional_timeout(&self) -> Duration {
        Duration::from_millis(self.conditional_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_statements_is_checked() {
        assert!(Config::default().check().is_ok());
        for keyspace in ["", "9a", "Mail", "a b", "a;drop", "a\"", &"a".repeat(49)] {
            assert!(
                Config { keyspace: keyspace.to_owned(), ..Config::default() }.check().is_err(),
                "{keyspace}"
            );
        }
        assert!(Config { datacentre: "dc'1".into(), ..Config::default() }.check().is_err());
        assert!(Config { user: "postrider".into(), ..Config::default() }.check().is_err());
    }
}
