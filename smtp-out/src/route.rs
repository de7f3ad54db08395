//! Which way a domain's mail goes: to its mail exchangers, or to a smart host.

use std::path::Path;
use std::sync::Arc;

use mail::address::Domain;
use net::tls::{TlsClient, TlsError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sasl::Password;

use crate::across::Place;
use crate::config::{Config, Route as RouteConfig, TlsMode, ends_with_labels};
use crate::tls_policy::TlsTrust;

/// How a domain is reached.
#[derive(Debug)]
pub(crate) struct Route {
    /// Which domains go this way: `*`, `*.example.org`, `example.org`.
    pattern: String,
    /// Where; `None`: the domain's mail exchangers.
    pub(crate) smart_host: Option<SmartHost>,
    /// A place of our own domains, which is found neither by name nor by address.
    pub(crate) place: Option<Place>,
    /// What is asked of TLS.
    pub(crate) tls: TlsMode,
    /// Whose certificates are trusted, where that is asked.
    pub(crate) trust: TlsTrust,
    /// Distinguishes connections of one route from another's in the pool.
    pub(crate) number: usize,
}

/// A host that takes mail for others.
#[derive(Debug)]
pub(crate) struct SmartHost {
    /// Its name or address.
    pub(crate) host: Domain,
    pub(crate) port: u16,
    /// How we log in there.
    pub(crate) login: Option<Login>,
}

#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Password,
}

impl Route {
    /// A way to one host, for mail of any domain.
    pub(crate) fn to(host: SmartHost, tls: TlsMode, trust: TlsTrust, number: usize) -> Self {
        Self { smart_host: Some(host), tls, trust, number, ..Self::otherwise() }
    }

    /// The way to a place of our own domains, over a link, which is encrypted from the first octet.
    pub(crate) fn across(place: Place) -> Self {
        Self { tls: TlsMode::Implicit, place: Some(place), ..Self::otherwise() }
    }

    /// The way of domains that no route is for.
    pub(crate) fn otherwise() -> Self {
        Self {
            pattern: "*".to_owned(),
            smart_host: None,
            place: None,
            tls: TlsMode::Opportunistic,
            trust: TlsTrust::default(),
            number: 0,
        }
    }
}

/// Why routes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A host is neither a name nor an address.
    #[error("{0:?} is neither the name of a host nor an address")]
    Host(String),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no certificate.
    #[error("{path} holds no usable certificate")]
    Certificate {
        /// Which.
        path: String,
    },
    /// TLS cannot be had.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
    /// The system's certificates cannot be had.
    #[error("the certificates that the system trusts cannot be used: {0}")]
    System(String),
}

/// All routes.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Arc<Route>>,
    /// For domains that no route is for.
    otherwise: Arc<Route>,
}

impl Routes {
    /// Reads what the configuration names: passwords, certificates.
    pub(crate) fn new(config: &Config) -> Result<Self, RouteError> {
        let numbered = config.routes.iter().zip(1..);
        let routes = numbered.map(|(route, number)| Ok(Arc::new(read(route, number)?)));
        let routes = routes.collect::<Result<Vec<_>, RouteError>>()?;
        Ok(Self { routes, otherwise: Arc::new(Route::otherwise()) })
    }

    /// The way of a domain.
    pub(crate) fn of(&self, domain: &Domain) -> &Arc<Route> {
        let ascii = domain.ascii();
        self.routes.iter().find(|route| matches(&route.pattern, &ascii)).unwrap_or(&self.otherwise)
    }
}

fn matches(pattern: &str, domain: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => domain != suffix && ends_with_labels(domain, suffix),
        None => pattern == "*" || pattern == domain,
    }
}

fn read(route: &RouteConfig, number: usize) -> Result<Route, RouteError> {
    let trust = if route.ca.as_os_str().is_empty() {
        TlsTrust::default()
    } else {
        TlsTrust::Files(certificates(&route.ca)?.into())
    };
    let smart_host = if route.host.is_empty() {
        None
    } else {
        let login = if route.user.is_empty() {
            None
        } else {
            let password = text(&route.password_file)?;
            let password = Password::new(password.trim_end_matches(['\r', '\n']).to_owned());
            Some(Login { user: route.user.clone(), password })
        };
        let port = match (route.port, route.tls, &login) {
            (0, TlsMode::Implicit, _) => 465,
            (0, _, Some(_)) => 587,
            (0, _, None) => 25,
            (port, ..) => port,
        };
        Some(SmartHost { host: host(&route.host)?, port, login })
    };
    let pattern = normal(&route.domain);
    Ok(Route { pattern, smart_host, place: None, tls: route.tls, trust, number })
}

/// A domain in a pattern may be written with letters outside ASCII.
fn normal(pattern: &str) -> String {
    let (star, domain) = pattern.strip_prefix("*.").map_or(("", pattern), |domain| ("*.", domain));
    match Domain::parse(domain) {
        Ok(domain) => format!("{star}{domain}"),
        Err(_) => pattern.to_owned(),
    }
}

/// A name, or an address with or without brackets.
pub(crate) fn host(text: &str) -> Result<Domain, RouteError> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse() {
        return Ok(Domain::Literal(address));
    }
    Domain::parse(text).map_err(|_| RouteError::Host(text.to_owned()))
}

fn text(path: &Path) -> Result<String, RouteError> {
    std::fs::read_to_string(path)
        .map_err(|source| RouteError::Read { path: path.display().to_string(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RouteError> {
    let pem = text(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => {
            // So that a certificate that cannot be used is known at the start and not with the first mail.
            TlsClient::trusting("localhost", &found)?;
            Ok(found)
        }
        _ => Err(RouteError::Certificate { path: path.display().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, domain, expected) in [
            ("*", "example.org", true),
            ("example.org", "example.org", true),
            ("example.org", "a.example.org", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "badexample.org", false),
        ] {
            assert_eq!(matches(pattern, domain), expected, "{pattern} {domain}");
        }
        assert_eq!(normal("*.Bücher.example"), "*.xn--bcher-kva.example");
        assert_eq!(normal("*"), "*");
    }

    #[test]
    fn hosts() {
        assert!(matches!(host("127.0.0.1"), Ok(Domain::Literal(_))));
        assert!(matches!(host("[::1]"), Ok(Domain::Literal(_))));
        assert!(matches!(host("Relay.Example"), Ok(Domain::Name(_))));
        assert!(host("a b").is_err());
    }
}
