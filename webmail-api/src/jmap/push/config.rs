//! What an operator can set of push subscriptions.

use std::net::IpAddr;
use std::path::PathBuf;

use net::network::{Network, is_public};
use serde::{Deserialize, Serialize};

/// Push to clients that do not run (RFC 8620 §7.2): requests to the push services that they name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// Subscriptions that an account can have. Zero: none are taken.
    pub subscriptions_max: usize,
    /// Subscriptions that an account may make within an hour, at each node: each has us connect to wherever it says.
    pub subscribed_per_hour_max: u32,
    /// For how long a subscription is good at most unless its client extends it. RFC 8620 §7.2 wants seven days, and two at
    /// least.
    pub expires_seconds_max: u64,
    /// Seconds between two pushes for one account. What changes meanwhile is told together.
    pub pause_seconds: u64,
    /// Seconds after which a push that failed is tried again; each time after that twice as many.
    pub retry_seconds: u64,
    /// As many seconds at most.
    pub retry_seconds_max: u64,
    /// Failures in a row after which a subscription is ended.
    pub failures_max: u32,
    /// Seconds that one push may take, from the question for an address to the answer.
    pub seconds_max: u64,
    /// Accounts that are pushed for at one time.
    pub at_once_max: usize,
    /// Seconds for which a push service is asked to keep a push for a device that it does not reach (RFC 8030 §5.2). What
    /// is lost is no harm: a client that begins again asks what has changed.
    pub keep_seconds: u64,
    /// Seconds between two looks for subscriptions that were made at other nodes.
    pub scan_seconds: u64,
    /// Seconds between two looks at every account with subscriptions, in case that the hint of another node's commit was lost,
    /// and for what has expired. 0: never.
    pub look_seconds: u64,
    /// Networks that are not public in which push services may be all the same, such as one's own. Others are not
    /// connected to, or whoever has an account could send requests to hosts behind the firewall.
    pub networks: Vec<Network>,
    /// Push services on this machine are connected to, over plain HTTP too. For tests.
    pub loopback: bool,
    /// A file in PEM with the certificates that push services are trusted by. Empty: those of the system.
    pub ca: PathBuf,
    /// Where the operators of push services can write to when something is wrong (RFC 8292 §2.1), as a `mailto:` or `https:`
    /// URL. Empty: to the postmaster at the server's `hostname`.
    pub contact: String,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            subscriptions_max: 32,
            subscribed_per_hour_max: 30,
            expires_seconds_max: 30 * 86_400,
            pause_seconds: 5,
            retry_seconds: 30,
            retry_seconds_max: 3_600,
            failures_max: 48,
            seconds_max: 20,
            at_once_max: 32,
            keep_seconds: 3 * 86_400,
            scan_seconds: 30,
            look_seconds: 3_600,
            networks: Vec::new(),
            loopback: false,
            ca: PathBuf::new(),
            contact: String::new(),
        }
    }
}

impl PushConfig {
    /// What no single setting can tell.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.expires_seconds_max < 2 * 86_400 {
            return Err("push.expires_seconds_max: less than two days (RFC 8620 §7.2)".to_owned());
        }
        let is_contact = self.contact.starts_with("mailto:") || self.contact.starts_with("https:");
        if !self.contact.is_empty() && !is_contact {
            return Err(format!("push.contact: {:?} begins with neither mailto: nor https:", self.contact));
        }
        Ok(())
    }

    /// Whether a push service may have this address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        is_public(address)
            || (self.loopback && address.to_canonical().is_loopback())
            || self.networks.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_networks_are_not_connected_to() {
        let check = |config: &PushConfig, address: &str, expected: bool| {
            assert_eq!(config.allows(address.parse().unwrap()), expected, "{address}");
        };
        let mut config = PushConfig::default();
        for inner in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1", "fd00::1"]
        {
            check(&config, inner, false);
        }
        check(&config, "8.8.8.8", true);
        config.loopback = true;
        check(&config, "127.0.0.1", true);
        check(&config, "10.0.0.1", false);
        config.networks = vec!["10.0.0.0/24".parse().unwrap()];
        check(&config, "10.0.0.1", true);
        check(&config, "10.0.1.1", false);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(PushConfig::default().check().is_ok());
        assert!(PushConfig { expires_seconds_max: 86_400, ..PushConfig::default() }.check().is_err());
        assert!(
            PushConfig { contact: "me@example.org".to_owned(), ..PushConfig::default() }.check().is_err()
        );
    }
}
