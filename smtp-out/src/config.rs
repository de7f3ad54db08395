//! What can be configured of sending.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smtp_protocol::client::Patience;

/// Sending to other hosts: how they are found, how they are spoken to, and how gently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name that we go by in EHLO. Empty: the server's `hostname`. It should resolve to the address that other hosts
    /// see, and that address back to it; many refuse mail otherwise.
    pub hostname: String,
    /// Name servers, as `192.0.2.53:53`. Empty: those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// Seconds for one question to a name server, with two repetitions.
    pub resolver_seconds_max: u64,
    /// Answers of name servers that are kept, within their time to live.
    pub resolver_cache_max: u64,
    /// The port of mail exchangers. Another than 25 only for tests: exchangers listen nowhere else.
    pub mx_port: u16,
    /// Mail may go to exchangers at addresses that are not public: loopback, private networks, documentation. Off,
    /// since with it any domain's owner can have us connect to hosts behind our firewall. Smart hosts that are
    /// configured here may be anywhere.
    pub private_destinations: bool,
    /// Addresses that other hosts reach us at and that this machine does not have itself, because a firewall or load
    /// balancer has them. Mail is never sent to them (RFC 5321 §5.1).
    pub own_addresses: Vec<IpAddr>,
    /// Names of exchangers of one domain that are looked up. Real domains have up to about ten.
    pub hosts_max: usize,
    /// Addresses of one domain that are tried in one attempt.
    pub addresses_max: usize,
    /// Local addresses to send from, each with its name for EHLO. Empty: the system chooses the address.
    pub sources: Vec<Source>,
    /// How single domains are reached; the first that fits counts. Without one a domain is reached by its mail
    /// exchangers.
    pub routes: Vec<Route>,
    /// Limits for sites; the first that fits counts, else those of `limits`.
    pub sites: Vec<SiteConfig>,
    /// Limits for all other sites.
    pub limits: SiteLimits,
    /// Stage by stage, how long we wait.
    pub timeouts: Timeouts,
    /// Connections that are used at one time, in all.
    pub concurrent_max: usize,
    /// Domains that wait for a connection to their site, which others use; more go back to the queue for some seconds.
    pub site_waiting_max: usize,
    /// Sites whose state is kept. The longest unused are forgotten first.
    pub sites_max: usize,
    /// Connections that are kept open for the next message, in all.
    pub idle_connections_max: usize,
    /// Seconds for which a connection is kept open for the next message. Longer is unkind to the other side, which pays
    /// for it too.
    pub idle_seconds_max: u64,
    /// Seconds after which an idle connection is asked whether it still lives (RSET) before it is used.
    pub idle_probe_seconds: u64,
    /// Recipients of one transaction. RFC 5321 §4.5.3.1.8: every host must take 100.
    pub recipients_max: usize,
    /// Seconds for which a host whose TLS failed is spoken to in plain, where TLS is opportunistic.
    pub tls_failure_seconds: u64,
    /// Hosts for which that is remembered.
    pub tls_failures_max: usize,
}

/// A local address to send from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Our name in EHLO when we come from there.
    pub hostname: String,
}

/// How domains are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `example.org`; `*.example.org` for all below it; `*` for all.
    pub domain: String,
    /// A smart host that takes the mail: a name or an address. Empty: the domain's mail exchangers.
    #[serde(default)]
    pub host: String,
    /// Its port. 0: 25 for exchangers, 465 with `tls = "implicit"`, 587 with a login, else 25.
    #[serde(default)]
    pub port: u16,
    /// What is asked of TLS.
    #[serde(default)]
    pub tls: TlsMode,
    /// A file of certificates (PEM) that are trusted beside the system's, for `required-verified` and `implicit`.
    #[serde(default)]
    pub ca: PathBuf,
    /// The login at the smart host; empty: none.
    #[serde(default)]
    pub user: String,
    /// The file that holds its password.
    #[serde(default)]
    pub password_file: PathBuf,
}

/// What is asked of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Encrypted where the host offers it, with whatever certificate; in plain otherwise (RFC 7435).
    #[default]
    Opportunistic,
    /// Never.
    None,
    /// Encrypted or not at all, with whatever certificate.
    Required,
    /// Encrypted or not at all, with a certificate that is trusted and is for the host's name.
    RequiredVerified,
    /// The same, with TLS from the first octet (RFC 8314 §3.3). For smart hosts.
    Implicit,
}

/// Limits for some sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// The end of the exchangers' names, such as `mail.protection.outlook.com`. All that end so are one site.
    pub suffix: String,
    /// Its limits, as in `[smtp_out.limits]`: `{ connections_max = 5 }`.
    pub limits: SiteLimits,
}

/// Limits for one site, which is what a set of mail exchangers is called that several domains may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteLimits {
    /// Connections open at one time, idle ones included.
    pub connections_max: u32,
    /// Connections at one time to begin with. While all goes well there are more, while connections fail there are
    /// fewer.
    pub connections_initial: u32,
    /// Messages over one connection. RFC 9422 lets hosts say fewer.
    pub messages_per_connection_max: u32,
    /// Messages in a minute; 0: as many as there are.
    pub messages_per_minute_max: u32,
    /// Seconds for which a site is left alone after its connections have failed; doubles with each time.
    pub suspend_seconds_min: u64,
    /// Longest such time.
    pub suspend_seconds_max: u64,
}

/// How long we wait, in seconds. RFC 5321 §4.5.3.2 has the least for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For a TCP connection. The system alone would try for two minutes, while other exchangers stand ready.
    pub connect: u64,
    /// For the greeting.
    pub greeting: u64,
    /// For the answers to EHLO, STARTTLS and AUTH.
    pub hello: u64,
    /// For a TLS handshake.
    pub tls: u64,
    /// For the answer to MAIL.
    pub mail: u64,
    /// For the answer to RCPT.
    pub rcpt: u64,
    /// For the answer to DATA.
    pub data: u64,
    /// For the host to take any part of the message.
    pub block: u64,
    /// For the answer to the message. Who gives up earlier sends it twice (RFC 1047).
    pub message: u64,
    /// For the answer to RSET and QUIT.
    pub goodbye: u64,
    /// For the name servers to say which hosts a domain has.
    pub find: u64,
    /// For a whole attempt over all hosts, connections and transactions of one message.
    pub attempt: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            resolvers: Vec::new(),
            resolver_seconds_max: 5,
            resolver_cache_max: 8_192,
            mx_port: 25,
            private_destinations: false,
            own_addresses: Vec::new(),
            hosts_max: 16,
            addresses_max: 16,
            sources: Vec::new(),
            routes: Vec::new(),
            sites: Vec::new(),
            limits: SiteLimits::default(),
            timeouts: Timeouts::default(),
            concurrent_max: 256,
            site_waiting_max: 64,
            sites_max: 10_000,
            idle_connections_max: 128,
            idle_seconds_max: 5,
            idle_probe_seconds: 2,
            recipients_max: 100,
            tls_failure_seconds: 3_600,
            tls_failures_max: 10_000,
        }
    }
}

impl Default for SiteLimits {
    fn default() -> Self {
        Self {
            connections_max: 20,
            connections_initial: 5,
            messages_per_connection_max: 100,
            messages_per_minute_max: 0,
            suspend_seconds_min: 30,
            suspend_seconds_max: 1_800,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: 30,
            greeting: 300,
            hello: 300,
            tls: 60,
            mail: 300,
            rcpt: 300,
            data: 120,
            block: 180,
            message: 600,
            goodbye: 10,
            find: 60,
            // The message's own time and some for what comes before it.
            attempt: 1_800,
        }
    }
}

impl Timeouts {
    /// What has to be left of an attempt where the answer to a message is going to be waited for.
    pub(crate) fn answer(&self) -> Duration {
        Duration::from_secs(self.message.min(self.attempt / 3))
    }

    /// For the client's machine.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            connection: Duration::from_secs(self.greeting),
            hello: Duration::from_secs(self.hello),
            mail: Duration::from_secs(self.mail),
            rcpt: Duration::from_secs(self.rcpt),
            data: Duration::from_secs(self.data),
            body: Duration::from_secs(self.message),
            other: Duration::from_secs(self.goodbye),
        }
    }
}

impl Config {
    /// What cannot be, in words.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("hosts_max", self.hosts_max as u64),
            ("addresses_max", self.addresses_max as u64),
            ("concurrent_max", self.concurrent_max as u64),
            ("sites_max", self.sites_max as u64),
            ("recipients_max", self.recipients_max as u64),
            ("mx_port", u64::from(self.mx_port)),
            ("resolver_seconds_max", self.resolver_seconds_max),
            ("limits.connections_max", u64::from(self.limits.connections_max)),
            ("limits.connections_initial", u64::from(self.limits.connections_initial)),
            ("limits.messages_per_connection_max", u64::from(self.limits.messages_per_connection_max)),
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.find", self.timeouts.find),
            ("timeouts.attempt", self.timeouts.attempt),
        ];
        if let Some(site) = self.sites.iter().find(|site| {
            let SiteLimits { connections_max, connections_initial, messages_per_connection_max, .. } =
                site.limits;
            connections_max == 0 || connections_initial == 0 || messages_per_connection_max == 0
        }) {
            return Err(format!("a limit of connections of the site {} is zero", site.suffix));
        }
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} must not be zero"));
        }
        for route in &self.routes {
            let domain = &route.domain;
            if route.domain.is_empty() {
                return Err("a route has no domain".to_owned());
            }
            if route.host.is_empty() && (route.tls == TlsMode::Implicit || !route.user.is_empty()) {
                return Err(format!("the route of {domain} has a login or implicit TLS, which need a host"));
            }
            if route.user.is_empty() != route.password_file.as_os_str().is_empty() {
                return Err(format!("the route of {domain} needs both user and password_file, or neither"));
            }
            if !route.user.is_empty() && matches!(route.tls, TlsMode::None | TlsMode::Opportunistic) {
                return Err(format!(
                    "the route of {domain} would send a password in clear: tls is to be required"
                ));
            }
        }
        Ok(())
    }

    /// The limits of a site.
    pub fn limits_of(&self, site: &str) -> SiteLimits {
        // A smart host's site has its port behind it.
        let host = site.rsplit_once(':').map_or(site, |(host, _)| host);
        let special = self.sites.iter().find(|special| ends_with_labels(host, &special.suffix));
        special.map_or(self.limits, |special| special.limits)
    }
}

/// Whether a name is `suffix` or lies below it.
pub(crate) fn ends_with_labels(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_end_at_labels() {
        assert!(ends_with_labels("a.example.org", "example.org"));
        assert!(ends_with_labels("example.org", "example.org"));
        assert!(!ends_with_labels("badexample.org", "example.org"));
    }

    #[test]
    fn passwords_are_not_sent_in_clear() {
        let route = Route {
            domain: "*".to_owned(),
            host: "relay.test".to_owned(),
            port: 0,
            tls: TlsMode::Opportunistic,
            ca: PathBuf::new(),
            user: "me".to_owned(),
            password_file: PathBuf::from("password"),
        };
        let with = |tls| Config { routes: vec![Route { tls, ..route.clone() }], ..Config::default() }.check();
        assert!(with(TlsMode::Opportunistic).is_err());
        assert!(with(TlsMode::Required).is_ok());
        assert!(Config::default().check().is_ok());
    }
}
