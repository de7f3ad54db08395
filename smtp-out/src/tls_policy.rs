//! What is asked of TLS on a connection, and what is remembered of hosts where it failed.
//!
//! Opportunistic TLS (RFC 7435) protects against listeners only: whoever can change the connection could as well remove
//! STARTTLS. So a certificate is not asked for there, and a handshake that fails is followed by a connection in plain,
//! which is what mail would have got ten years ago. Where a route requires TLS there is no way back to plain.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lru::LruCache;
use net::tls::TlsClient;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio_rustls::TlsConnector;

use crate::config::TlsMode;
use crate::route::RouteError;

/// Whose certificates are trusted.
#[derive(Clone, Debug, Default)]
pub(crate) enum TlsTrust {
    /// Those of the system's store.
    #[default]
    System,
    /// Those of a file.
    Files(Arc<[CertificateDer<'static>]>),
}

/// What is done about TLS on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TlsPolicy {
    /// Nothing.
    Plain,
    /// STARTTLS where it is offered.
    IfOffered,
    /// STARTTLS, or no mail.
    Required {
        /// The certificate has to be trusted and for the host's name.
        verified: bool,
    },
    /// TLS from the first octet, verified.
    Implicit,
}

impl TlsPolicy {
    /// What a route asks for at a host that is, or is not, known to fail.
    pub(crate) fn of(mode: TlsMode, has_failed: bool) -> Self {
        match mode {
            TlsMode::Opportunistic if has_failed => Self::Plain,
            TlsMode::Opportunistic => Self::IfOffered,
            TlsMode::None => Self::Plain,
            TlsMode::Required => Self::Required { verified: false },
            TlsMode::RequiredVerified => Self::Required { verified: true },
            TlsMode::Implicit => Self::Implicit,
        }
    }

    /// What records of deliveries call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::IfOffered => "opportunistic",
            Self::Required { verified: false } => "required",
            Self::Required { verified: true } => "required-verified",
            Self::Implicit => "implicit",
        }
    }

    fn verified(self) -> bool {
        matches!(self, Self::Required { verified: true } | Self::Implicit)
    }
}

/// TLS as mail-send sets it up. Made once: the system's certificates are not read for every connection, and sessions
/// can be resumed.
#[derive(Default)]
pub(crate) struct Connectors {
    /// Takes any certificate.
    any: OnceLock<Result<TlsConnector, String>>,
    /// Takes what the system trusts.
    system: OnceLock<Result<TlsConnector, String>>,
}

impl Connectors {
    /// The client's side of TLS under a policy, for a host. `None`: there is to be no TLS.
    pub(crate) fn client(
        &self,
        policy: TlsPolicy,
        trust: &TlsTrust,
        host: &str,
    ) -> Result<Option<TlsClient>, RouteError> {
        if policy == TlsPolicy::Plain {
            return Ok(None);
        }
        let client = match (policy.verified(), trust) {
            (true, TlsTrust::Files(certificates)) => TlsClient::trusting(host, certificates)?,
            (true, TlsTrust::System) => TlsClient::with_connector(host, made(&self.system, false)?)?,
            (false, _) => TlsClient::with_connector(host, made(&self.any, true)?)?,
        };
        Ok(Some(client))
    }
}

fn made(
    connector: &OnceLock<Result<TlsConnector, String>>,
    any_certificate: bool,
) -> Result<TlsConnector, RouteError> {
    let made = connector.get_or_init(|| mail_send::smtp::tls::build_tls_connector(any_certificate));
    made.clone().map_err(RouteError::System)
}

/// Hosts whose TLS has failed a while ago. Bounded; what is forgotten is tried anew.
#[derive(Debug)]
pub(crate) struct TlsFailures {
    hosts: Mutex<LruCache<SocketAddr, Instant>>,
    keep: Duration,
}

impl TlsFailures {
    pub(crate) fn new(hosts_max: usize, keep: Duration) -> Self {
        let size = NonZeroUsize::new(hosts_max).unwrap_or(NonZeroUsize::MIN);
        Self { hosts: Mutex::new(LruCache::new(size)), keep }
    }

    pub(crate) fn remember(&self, host: SocketAddr, now: Instant) {
        self.hosts.lock().put(host, now + self.keep);
    }

    pub(crate) fn has_failed(&self, host: SocketAddr, now: Instant) -> bool {
        self.hosts.lock().get(&host).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_opportunistic_tls_falls_back() {
        for mode in [TlsMode::Required, TlsMode::RequiredVerified, TlsMode::Implicit] {
            assert_eq!(TlsPolicy::of(mode, true), TlsPolicy::of(mode, false));
            assert_ne!(TlsPolicy::of(mode, true), TlsPolicy::Plain);
        }
        assert_eq!(TlsPolicy::of(TlsMode::Opportunistic, true), TlsPolicy::Plain);
        assert_eq!(TlsPolicy::of(TlsMode::Opportunistic, false), TlsPolicy::IfOffered);
    }

    #[test]
    fn failures_are_forgotten() {
        let failures = TlsFailures::new(1, Duration::from_secs(10));
        let (one, other) = ("127.0.0.1:25".parse().unwrap(), "127.0.0.2:25".parse().unwrap());
        let now = Instant::now();
        failures.remember(one, now);
        assert!(failures.has_failed(one, now));
        assert!(!failures.has_failed(one, now + Duration::from_secs(10)));
        failures.remember(other, now);
        assert!(!failures.has_failed(one, now));
    }
}
