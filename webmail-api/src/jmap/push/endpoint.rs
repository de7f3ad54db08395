//! Where a push goes: a URL that a client has given, and that must not lead behind the firewall.

use std::net::{IpAddr, SocketAddr};

use axum::http::Uri;

use super::config::PushConfig;

/// Octets of a URL. Those of push services have some hundreds.
pub(crate) const URL_BYTES_MAX: usize = 2_048;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// A place to push to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Without TLS; on this machine only, and only in tests.
    pub(super) is_plain: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    port: u16,
    /// Host and port, as the request has them.
    pub(super) authority: String,
    /// What is asked for.
    pub(super) path: String,
}

/// Why there is nothing to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    /// There may be another time.
    #[error("{0} has no address")]
    Unknown(String),
    /// It is in a network to which nothing is pushed.
    #[error("{0} is not in a network that is pushed to")]
    Inner(String),
}

impl Endpoint {
    /// Reads a URL; the error says why it is not one to push to.
    pub(crate) fn parse(url: &str, config: &PushConfig) -> Result<Self, &'static str> {
        if url.len() > URL_BYTES_MAX {
            return Err("longer than a URL may be");
        }
        let uri: Uri = url.parse().map_err(|_| "not a URL")?;
        // RFC 8620 §7.2: it has to begin with https://.
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if config.loopback => true,
            _ => return Err("does not begin with https://"),
        };
        let authority = uri.authority().ok_or("names no host")?.as_str();
        if authority.contains('@') {
            return Err("has a name or a password in it");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("names no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let names_port = authority.contains(':') && !authority.ends_with(']');
        let port = match uri.port_u16() {
            Some(port) => port,
            None if names_port => return Err("has a port that is none"),
            None if is_plain => 80,
            None => 443,
        };
        let endpoint = Self {
            is_plain,
            port,
            authority: authority.to_ascii_lowercase(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host,
        };
        // Of a name it shows only when it is connected to: whoever asks is not to learn here what names lead to.
        match endpoint.literal() {
            Some(address) if !endpoint.may_be(address, config) => Err("not an address that is pushed to"),
            _ => Ok(endpoint),
        }
    }

    /// Where it is said that we are (RFC 8292 §2: the origin, as RFC 6454 §6.1 has it).
    pub(super) fn origin(&self) -> String {
        let (scheme, port) = if self.is_plain { ("http", ":80") } else { ("https", ":443") };
        format!("{scheme}://{}", self.authority.strip_suffix(port).unwrap_or(&self.authority))
    }

    /// The addresses to try, each of which may be connected to. They are what is connected to: a name that is asked for
    /// again could lead elsewhere then.
    pub(super) async fn addresses(&self, config: &PushConfig) -> Result<Vec<SocketAddr>, NoAddress> {
        let found = match self.literal() {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
                Ok(found) => found.collect(),
                Err(_) => Vec::new(),
            },
        };
        if found.is_empty() {
            return Err(NoAddress::Unknown(self.host.clone()));
        }
        let allowed = found.into_iter().filter(|found| self.may_be(found.ip(), config));
        let allowed: Vec<SocketAddr> = allowed.take(ADDRESSES_MAX).collect();
        if allowed.is_empty() { Err(NoAddress::Inner(self.host.clone())) } else { Ok(allowed) }
    }

    fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn may_be(&self, address: IpAddr, config: &PushConfig) -> bool {
        config.allows(address) && (!self.is_plain || address.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let config = PushConfig::default();
        let endpoint = Endpoint::parse("https://Push.Example.test:443/a/b?c=d", &config).unwrap();
        assert_eq!(endpoint.origin(), "https://push.example.test");
        assert_eq!((endpoint.host.as_str(), endpoint.path.as_str()), ("push.example.test", "/a/b?c=d"));
        assert_eq!(Endpoint::parse("https://a.test:8443", &config).unwrap().origin(), "https://a.test:8443");
        assert_eq!(Endpoint::parse("https://[2a00:1450::1]/", &config).unwrap().host, "2a00:1450::1");
        for bad in [
            "",
            "x",
            "/x",
            "http://push.example.test/",
            "ftp://push.example.test/",
            "https://",
            "https:///x",
            "https://push.example.test:x/",
            "https://push.example.test:99999/",
            "https://user@push.example.test/",
            "https://push.example.test/\r\nX: y",
            "https://push example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://192.168.1.1:8080/",
            "https://169.254.169.254/latest",
            &format!("https://push.example.test/{}", "x".repeat(URL_BYTES_MAX)),
        ] {
            assert!(Endpoint::parse(bad, &config).is_err(), "{bad}");
        }
        let tests = PushConfig { loopback: true, ..config };
        assert!(Endpoint::parse("http://127.0.0.1:8080/x", &tests).unwrap().is_plain);
        assert!(Endpoint::parse("http://8.8.8.8/", &tests).is_err(), "in plain on this machine only");
        assert!(Endpoint::parse("https://10.0.0.1/", &tests).is_err());
    }

    /// Ways to write an address that are none for us and are for the system.
    #[tokio::test]
    async fn what_a_name_leads_to_is_looked_at() {
        let config = PushConfig::default();
        for name in ["localhost", "127.1", "0x7f000001", "2130706433"] {
            let endpoint = Endpoint::parse(&format!("https://{name}/"), &config).unwrap();
            assert!(endpoint.addresses(&config).await.is_err(), "{name}");
        }
        let tests = PushConfig { loopback: true, ..config };
        let endpoint = Endpoint::parse("http://localhost:99/", &tests).unwrap();
        assert!(endpoint.addresses(&tests).await.unwrap().iter().all(|found| found.ip().is_loopback()));
    }
}
