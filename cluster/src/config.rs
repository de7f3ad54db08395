//! What an operator can set of the nodes of one installation, each with its default and the reason for it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::{NodeId, NodeIdError};

/// This node among others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node's name, which no other node may have and which stays the same over restarts. Empty: the name of the
    /// machine.
    pub node: String,
    /// Milliseconds between two heartbeats, and between two looks at those of the others. Each is one small write; a
    /// second is as fast as anything here has to be noticed.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which a node is held for dead. Four heartbeats: one that is lost, and one that is
    /// slow, are everyday business.
    pub dead_after_ms: u64,
    /// Seconds of silence after which a dead node's row is deleted. Long enough to be looked at first.
    pub forget_after_seconds: u64,
    /// Seconds for which all nodes must have been able to read a higher feature level, without a pause, before it is
    /// written. Until then one can go back to the release before; ten minutes are time to see whether one has to.
    pub level_after_seconds: u64,
    /// Milliseconds that another node has to answer. Below the second that leases last, so that who has no answer can
    /// still go on with its share.
    pub request_timeout_ms: u64,
    /// Bytes of one request, or of its answer. What nodes ask each other is small.
    pub request_bytes_max: usize,
    /// Requests of other nodes that are worked on at one time, and own ones that wait for an answer; more are refused.
    pub requests_concurrent_max: usize,
    /// Logs of which it waits to be said that they moved. More are left to the others' polls.
    pub hint_logs_max: usize,
    /// Milliseconds between two messages with hints. The first goes at once; what comes meanwhile goes with the next, so
    /// that a busy node sends a hundred messages a second and not one for each commit.
    pub hint_linger_ms: u64,
    /// Milliseconds that a lease of a site's limits lasts. It is asked for again at half of that; what a node that died
    /// held is free after it.
    pub lease_ms: u64,
    /// How nodes reach each other.
    pub nats: NatsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: String::new(),
            heartbeat_ms: 1_000,
            dead_after_ms: 4_000,
            forget_after_seconds: 600,
            level_after_seconds: 600,
            request_timeout_ms: 400,
            request_bytes_max: 64 * 1024,
            requests_concurrent_max: 256,
            hint_logs_max: 10_000,
            hint_linger_ms: 10,
            lease_ms: 1_000,
            nats: NatsConfig::default(),
        }
    }
}

/// The NATS servers that carry hints and requests. Without any, nodes find out by looking, which is later and nothing
/// worse.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// `nats://host:4222`, or `tls://host:4222`; several for one cluster of servers. Empty: none. Servers that are not on
    /// this machine must be spoken to with TLS and a login.
    pub servers: Vec<String>,
    /// A file with a JWT and its key, as `nsc` writes it.
    pub credentials_file: PathBuf,
    /// A login.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// A token in place of a login.
    pub token: Secret,
    /// TLS with all servers, also with those whose address begins with `nats://`.
    pub tls: bool,
    /// A file of certificates (PEM) that are trusted in place of the system's.
    pub ca_file: PathBuf,
    /// Our own certificate (PEM), for servers that ask for one, which then is a login.
    pub certificate_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
}

/// Something that belongs in no log.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Why a configuration cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The name.
    #[error("cluster.node, or the machine's name, is no name for a node")]
    Node(#[source] NodeIdError),
    /// A node would be held for dead because of one heartbeat.
    #[error("cluster.dead_after_ms must be at least three times heartbeat_ms, and that not zero")]
    Heartbeat,
    /// Who waits for an answer for as long as a lease lasts has none.
    #[error("cluster.request_timeout_ms must be less than lease_ms")]
    Lease,
    /// Zero where something is needed.
    #[error("cluster.{0} must not be zero")]
    Zero(&'static str),
    /// An address of a server.
    #[error("{0} is no address of a NATS server: nats://host:port or tls://host:port, without a login in it")]
    Server(String),
    /// Another machine without protection.
    #[error("{0} is not on this machine and so must be spoken to with TLS and a login")]
    Unprotected(String),
    /// More than one way to log in, or half of one.
    #[error(
        "one of credentials_file, user and password, token, certificate_file and key_file must be set, and whole"
    )]
    Login,
}

impl Config {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.node.is_empty() {
            self.node.parse::<NodeId>().map_err(ConfigError::Node)?;
        }
        if self.heartbeat_ms == 0 || self.dead_after_ms / 3 < self.heartbeat_ms {
            return Err(ConfigError::Heartbeat);
        }
        for (name, value) in [
            ("forget_after_seconds", self.forget_after_seconds),
            ("request_timeout_ms", self.request_timeout_ms),
            ("request_bytes_max", self.request_bytes_max as u64),
            ("requests_concurrent_max", self.requests_concurrent_max as u64),
            ("hint_logs_max", self.hint_logs_max as u64),
            ("lease_ms", self.lease_ms),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        if self.request_timeout_ms >= self.lease_ms {
            return Err(ConfigError::Lease);
        }
        self.nats.check()
    }

    /// This node's name.
    pub fn node_id(&self) -> Result<NodeId, ConfigError> {
        if self.node.is_empty() {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            return name.parse().map_err(ConfigError::Node);
        }
        self.node.parse().map_err(ConfigError::Node)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn dead_after(&self) -> Duration {
        Duration::from_millis(self.dead_after_ms)
    }

    pub(crate) fn forget_after(&self) -> Duration {
        Duration::from_secs(self.forget_after_seconds)
    }

    pub(crate) fn level_after(&self) -> Duration {
        Duration::from_secs(self.level_after_seconds)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn hint_linger(&self) -> Duration {
        Duration::from_millis(self.hint_linger_ms)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

impl NatsConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        let whole = self.user.is_empty() == self.password.is_empty()
            && set(&self.certificate_file) == set(&self.key_file);
        let credentials = [set(&self.credentials_file), !self.user.is_empty(), !self.token.is_empty()];
        let logins = credentials.iter().filter(|login| **login).count();
        if !whole || logins > 1 {
            return Err(ConfigError::Login);
        }
        let has_login = logins == 1 || set(&self.certificate_file);
        for server in &self.servers {
            let address = Address::parse(server).ok_or_else(|| ConfigError::Server(without_login(server)))?;
            if !address.is_loopback() && !((address.tls || self.tls) && has_login) {
                return Err(ConfigError::Unprotected(server.clone()));
            }
        }
        Ok(())
    }
}

/// As much of a server's address as decides whether it may be spoken to.
struct Address<'a> {
    tls: bool,
    host: &'a str,
}

impl<'a> Address<'a> {
    fn parse(server: &'a str) -> Option<Self> {
        let (scheme, rest) = server.split_once("://")?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = port.strip_prefix(':').unwrap_or("4222");
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        (!host.is_empty() && host.chars().all(good) && port.parse::<u16>().is_ok())
            .then_some(Self { tls, host })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// An address for an error message. A login in it stays out of that.
fn without_login(server: &str) -> String {
    match server.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => server.to_owned(),
    }
}

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "set" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), ConfigError> {
        toml::from_str::<Config>(text).unwrap().check()
    }

    #[test]
    fn defaults_work_and_name_the_machine() {
        assert_eq!(check(""), Ok(()));
        assert!(!Config::default().node_id().unwrap().as_str().is_empty());
        assert!(toml::from_str::<Config>("heartbeats = 3").is_err());
    }

    #[test]
    fn another_machine_is_spoken_to_with_tls_and_a_login_only() {
        let nats = |rest: &str| check(&format!("[nats]\n{rest}"));
        assert_eq!(
            nats(r#"servers = ["nats://127.0.0.1:4222", "nats://localhost", "nats://[::1]:9"]"#),
            Ok(())
        );
        for open in [
            r#"servers = ["nats://mq.example.org:4222"]"#,
            r#"servers = ["tls://mq.example.org:4222"]"#,
            "servers = [\"nats://192.0.2.1\"]\nuser = \"u\"\npassword = \"p\"",
            "servers = [\"nats://127.0.0.1\", \"nats://[2001:db8::1]:4222\"]\ntls = true",
        ] {
            assert!(matches!(nats(open), Err(ConfigError::Unprotected(_))), "{open}");
        }
        let with_login = "servers = [\"tls://mq.example.org:4222\"]\n";
        for login in
            ["token = \"t\"", "credentials_file = \"f\"", "certificate_file = \"c\"\nkey_file = \"k\""]
        {
            assert_eq!(nats(&format!("{with_login}{login}")), Ok(()), "{login}");
        }
        for bad in ["http://h:1", "nats://", "nats://h:port", "nats://u:p@127.0.0.1:4222", "127.0.0.1:4222"] {
            assert!(matches!(nats(&format!("servers = [{bad:?}]")), Err(ConfigError::Server(_))), "{bad}");
        }
    }

    #[test]
    fn one_whole_login() {
        for bad in [
            "user = \"u\"",
            "password = \"p\"",
            "key_file = \"k\"",
            "token = \"t\"\ncredentials_file = \"f\"",
        ] {
            assert_eq!(check(&format!("[nats]\n{bad}")), Err(ConfigError::Login), "{bad}");
        }
    }

    #[test]
    fn one_lost_heartbeat_is_no_death() {
        assert_eq!(check("heartbeat_ms = 1000\ndead_after_ms = 2999"), Err(ConfigError::Heartbeat));
        assert_eq!(check("heartbeat_ms = 0"), Err(ConfigError::Heartbeat));
        assert_eq!(check("lease_ms = 0"), Err(ConfigError::Zero("lease_ms")));
        assert_eq!(check("lease_ms = 500\nrequest_timeout_ms = 500"), Err(ConfigError::Lease));
    }

    #[test]
    fn secrets_are_not_shown() {
        let config: Config =
            toml::from_str("[nats]\nuser = \"u\"\npassword = \"hunter2\"\ntoken = \"tok123\"").unwrap();
        let shown =
            format!("{config:?} {}", check("[nats]\nservers = [\"nats://u:hunter2@h\"]").unwrap_err());
        assert!(!shown.contains("hunter2") && !shown.contains("tok123"), "{shown}");
        assert_eq!(config.nats.password.reveal(), "hunter2");
    }
}
