//! Where a domain takes its mail (RFC 5321 §5.1, RFC 7505).
//!
//! The order of what is found, and what is left out of it, is [`arrange`], which is pure; around it are the questions to
//! the name server. Whether an answer means *never* or *not now* is decided here: that a name does not exist is for ever,
//! that nobody answers is not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail::address::Domain;
use net::network::is_public;
use rand::seq::SliceRandom;
use smtp_protocol::status::{Status, status};

use crate::config::{Config, ends_with_labels};
use crate::route::SmartHost;

/// An address to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// The name that it was found under; an address literal where there is none.
    pub(crate) host: Arc<str>,
    pub(crate) address: SocketAddr,
}

/// Where a domain's mail can go, best first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exchangers {
    /// What limits and back-off belong to: the same for all domains with the same exchangers.
    pub(crate) site: Arc<str>,
    /// At least one.
    pub(crate) candidates: Vec<Candidate>,
}

/// Why a domain cannot be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unreachable {
    /// Class 4: it may be another time.
    pub(crate) status: Status,
    pub(crate) text: String,
}

impl Unreachable {
    fn new(status: Status, text: String) -> Self {
        Self { status, text }
    }

    /// Whether trying again can help.
    pub(crate) fn is_temporary(&self) -> bool {
        self.status.class == 4
    }
}

/// Names were asked for one after the other, and too many of them took too long.
pub(crate) fn not_found_in_time(domain: &Domain) -> Unreachable {
    Unreachable::new(status(4, 4, 3), format!("the hosts of {domain} were not found in time"))
}

/// One name of a mail exchanger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Exchanger {
    preference: u16,
    name: String,
}

/// What a question brought.
enum Answer<T> {
    Found(Vec<T>),
    /// The name exists, without such records.
    Nothing,
    /// The name does not exist.
    NoSuchName,
}

/// Who we are, so that mail is not sent in circles.
#[derive(Debug)]
struct Own {
    hostname: String,
    addresses: Vec<IpAddr>,
    listeners: Vec<SocketAddr>,
}

/// Asks name servers.
pub(crate) struct Resolver {
    resolver: TokioResolver,
    own: Own,
    port: u16,
    private_destinations: bool,
    hosts_max: usize,
    addresses_max: usize,
    site_suffixes: Vec<Arc<str>>,
}

impl Resolver {
    /// Whatever leads to `hostname` or to `listeners` leads to us.
    pub(crate) fn new(config: &Config, hostname: &str, listeners: Vec<SocketAddr>) -> Result<Self, NetError> {
        let (servers, mut options) = if config.resolvers.is_empty() {
            system()
        } else {
            (servers(&config.resolvers), ResolverOpts::default())
        };
        options.timeout = Duration::from_secs(config.resolver_seconds_max);
        options.attempts = 2;
        options.cache_size = config.resolver_cache_max;
        // What goes to a mail exchanger is decided by the DNS alone, and a truncated or failing answer over UDP is
        // asked for again over TCP.
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        // Names are complete: a search list would send mail for unknown domains somewhere in our own.
        let complete = ResolverConfig::from_parts(None, Vec::new(), servers);
        let builder = TokioResolver::builder_with_config(complete, TokioRuntimeProvider::default());
        let own = Own {
            hostname: hostname.to_ascii_lowercase(),
            addresses: config.own_addresses.clone(),
            listeners,
        };
        Ok(Self {
            resolver: builder.with_options(options).build()?,
            own,
            port: config.mx_port,
            private_destinations: config.private_destinations,
            hosts_max: config.hosts_max,
            addresses_max: config.addresses_max,
            site_suffixes: config.sites.iter().map(|site| Arc::from(site.suffix.as_str())).collect(),
        })
    }

    /// The exchangers of a domain.
    pub(crate) async fn exchangers(&self, domain: &Domain) -> Result<Exchangers, Unreachable> {
        let name = match domain {
            Domain::Literal(address) => return self.literal(*address),
            Domain::Name(name) => name.as_str(),
        };
        let found = match self.ask(name, RecordType::MX, exchanger).await? {
            Answer::Found(found) => found,
            // RFC 5321 §5.1: without MX records the domain itself is its exchanger.
            Answer::Nothing => vec![Exchanger { preference: 0, name: name.to_owned() }],
            Answer::NoSuchName => {
                // RFC 3463 §3.2: 1.2 is for domains that do not exist or take no mail.
                return Err(Unreachable::new(status(5, 1, 2), format!("the domain {name} does not exist")));
            }
        };
        let implicit = matches!(found.as_slice(), [only] if only.name == name && only.preference == 0);
        let arranged =
            arrange(found, &self.own.hostname, self.hosts_max).map_err(|reason| reason.of_domain(name))?;
        let site = self.site(&arranged);
        let mut candidates = Vec::new();
        let mut trouble = Trouble::default();
        let mut barred_from = None;
        for exchanger in &arranged {
            // RFC 5321 §5.1: what is not better than we are ourselves is left out, or mail would go in circles.
            if barred_from.is_some_and(|preference| exchanger.preference >= preference) {
                trouble.ourselves = true;
                break;
            }
            if candidates.len() >= self.addresses_max {
                break;
            }
            match self.addresses(&exchanger.name).await {
                Ok(addresses) if addresses.is_empty() => trouble.nameless += 1,
                Ok(addresses) => {
                    if addresses.iter().any(|address| self.own.is(SocketAddr::new(*address, self.port))) {
                        trouble.ourselves = true;
                        barred_from = Some(exchanger.preference);
                        // Equals that were taken already go as well.
                        let equals = arranged.iter().filter(|other| other.preference == exchanger.preference);
                        let names: BTreeSet<&str> = equals.map(|other| other.name.as_str()).collect();
                        candidates.retain(|candidate: &Candidate| !names.contains(&*candidate.host));
                        continue;
                    }
                    let (allowed, refused): (Vec<_>, Vec<_>) = addresses
                        .into_iter()
                        .partition(|address| self.private_destinations || is_public(*address));
                    trouble.private += refused.len();
                    let host: Arc<str> = Arc::from(exchanger.name.as_str());
                    candidates.extend(allowed.into_iter().map(|address| Candidate {
                        host: host.clone(),
                        address: SocketAddr::new(address, self.port),
                    }));
                }
                Err(error) if error.is_temporary() => trouble.unanswered = Some(error),
                // Its name cannot be one.
                Err(_) => trouble.nameless += 1,
            }
        }
        candidates.truncate(self.addresses_max);
        if candidates.is_empty() {
            return Err(trouble.verdict(name, implicit));
        }
        Ok(Exchangers { site, candidates })
    }

    /// The addresses of a smart host. It was put into the configuration by somebody who knows where it is, so that it
    /// may be anywhere.
    pub(crate) async fn smart_host(&self, smart: &SmartHost) -> Result<Exchangers, Unreachable> {
        let (host, addresses): (Arc<str>, Vec<IpAddr>) = match &smart.host {
            Domain::Literal(address) => (Arc::from(address.to_string()), vec![*address]),
            Domain::Name(name) => (Arc::from(name.as_str()), self.addresses(name.as_str()).await?),
        };
        let candidates: Vec<Candidate> = addresses
            .into_iter()
            .take(self.addresses_max)
            .map(|address| Candidate { host: host.clone(), address: SocketAddr::new(address, smart.port) })
            .collect();
        if candidates.is_empty() {
            // It is our configuration that is wrong, or its name server: no fault of the recipient's.
            let text = format!("the smart host {host} has no address");
            return Err(Unreachable::new(status(4, 4, 4), text));
        }
        let site = Arc::from(format!("{host}:{}", smart.port));
        Ok(Exchangers { site, candidates })
    }

    /// RFC 5321 §4.1.3 and §5.1: a literal names the host itself.
    fn literal(&self, address: IpAddr) -> Result<Exchangers, Unreachable> {
        let target = SocketAddr::new(address.to_canonical(), self.port);
        let text = Domain::Literal(address).to_string();
        if self.own.is(target) {
            let text = format!("mail for {text} comes back to this host");
            return Err(Unreachable::new(status(5, 4, 6), text));
        }
        if !self.private_destinations && !is_public(target.ip()) {
            return Err(not_public(&text));
        }
        let host: Arc<str> = Arc::from(text);
        Ok(Exchangers { site: host.clone(), candidates: vec![Candidate { host, address: target }] })
    }

    /// All domains whose best exchangers are the same are one site; so are those whose exchangers' names end as one of
    /// the configured sites does.
    fn site(&self, arranged: &[Exchanger]) -> Arc<str> {
        let best = arranged.first().map(|first| first.preference);
        let names = arranged.iter().filter(|one| Some(one.preference) == best).map(|one| one.name.as_str());
        let first = names.min().unwrap_or_default();
        let suffix = self.site_suffixes.iter().find(|suffix| ends_with_labels(first, suffix));
        suffix.cloned().unwrap_or_else(|| Arc::from(first))
    }

    /// The addresses of a host, IPv6 and IPv4 in turn. Empty: it has none.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unreachable> {
        let (six, four) =
            tokio::join!(self.ask(host, RecordType::AAAA, address), self.ask(host, RecordType::A, address));
        // One family that is not answered for does no harm while the other one is there.
        let (six, four) = match (six, four) {
            (Err(error), Ok(Answer::Nothing | Answer::NoSuchName)) => return Err(error),
            (Ok(Answer::Nothing | Answer::NoSuchName), Err(error)) => return Err(error),
            (Err(error), Err(_)) => return Err(error),
            (six, four) => (found(six), found(four)),
        };
        Ok(alternate(six, four))
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, Unreachable> {
        let unanswered = |reason: &dyn std::fmt::Display| {
            Unreachable::new(status(4, 4, 3), format!("the name server did not answer for {name}: {reason}"))
        };
        let mut complete = Name::from_ascii(name).map_err(|error| {
            // Names of exchangers come from anywhere; a domain of an address was parsed before.
            Unreachable::new(status(5, 1, 2), format!("{name} is not a name of a host: {error}"))
        })?;
        complete.set_fqdn(true);
        match self.resolver.lookup(complete, kind).await {
            Ok(lookup) => {
                let found: Vec<T> = lookup.answers().iter().filter_map(|record| read(&record.data)).collect();
                // A CNAME that leads to a name without such records.
                Ok(if found.is_empty() { Answer::Nothing } else { Answer::Found(found) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => match nothing.response_code {
                ResponseCode::NXDomain => Ok(Answer::NoSuchName),
                ResponseCode::NoError => Ok(Answer::Nothing),
                code => Err(unanswered(&code)),
            },
            Err(error) => Err(unanswered(&error)),
        }
    }
}

impl Own {
    /// Whether a connection to this address would come back to us.
    fn is(&self, target: SocketAddr) -> bool {
        self.addresses.contains(&target.ip())
            || self.listeners.iter().any(|listener| {
                listener.port() == target.port()
                    && (listener.ip() == target.ip()
                        || (listener.ip().is_unspecified() && is_of_this_machine(target.ip())))
            })
    }
}

/// A socket can be bound to the machine's own addresses only. Nothing is sent by that.
fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// What `/etc/resolv.conf` says; without one, the name server is on this machine, as resolv.conf(5) has it.
fn system() -> (Vec<NameServerConfig>, ResolverOpts) {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, options)) if !config.name_servers().is_empty() => {
            let (_, _, servers) = config.into_parts();
            (servers, options)
        }
        _ => (servers(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 53))]), ResolverOpts::default()),
    }
}

fn servers(addresses: &[SocketAddr]) -> Vec<NameServerConfig> {
    let with_port = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    addresses
        .iter()
        .map(|address| {
            let connections = vec![
                with_port(ConnectionConfig::udp(), address.port()),
                with_port(ConnectionConfig::tcp(), address.port()),
            ];
            NameServerConfig::new(address.ip(), true, connections)
        })
        .collect()
}

fn exchanger(data: &RData) -> Option<Exchanger> {
    match data {
        RData::MX(mx) => {
            let name = mx.exchange.to_ascii().to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
            Some(Exchanger { preference: mx.preference, name })
        }
        _ => None,
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(four) => Some(IpAddr::V4(four.0)),
        RData::AAAA(six) => Some(IpAddr::V6(six.0).to_canonical()),
        _ => None,
    }
}

fn found<T>(answer: Result<Answer<T>, Unreachable>) -> Vec<T> {
    match answer {
        Ok(Answer::Found(found)) => found,
        _ => Vec::new(),
    }
}

/// One of each in turn, so that a family which does not work here costs one attempt before the other has its turn.
/// Families come in the order of RFC 6724; within one the order is the name server's, who may balance by it.
fn alternate(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut out = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        match (six.next(), four.next()) {
            (None, None) => return out,
            (one, other) => out.extend(one.into_iter().chain(other)),
        }
    }
}

/// Why a set of MX records leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nowhere {
    NullMx,
    Ourselves,
}

impl Nowhere {
    fn of_domain(self, name: &str) -> Unreachable {
        match self {
            // RFC 7505 §4.
            Self::NullMx => Unreachable::new(status(5, 1, 10), format!("{name} accepts no mail (null MX)")),
            Self::Ourselves => ourselves(name),
        }
    }
}

fn ourselves(name: &str) -> Unreachable {
    Unreachable::new(status(5, 4, 6), format!("mail for {name} comes back to this host"))
}

fn not_public(name: &str) -> Unreachable {
    Unreachable::new(status(5, 4, 4), format!("mail for {name} would go to an address that is not public"))
}

/// The exchangers in the order in which they are to be tried: by preference, equal ones shuffled (RFC 5321 §5.1). From
/// our own name on nothing is left.
fn arrange(found: Vec<Exchanger>, own_name: &str, hosts_max: usize) -> Result<Vec<Exchanger>, Nowhere> {
    if let [only] = found.as_slice()
        && only.name.is_empty()
    {
        return Err(Nowhere::NullMx);
    }
    let mut exchangers: Vec<Exchanger> =
        // RFC 7505 §3: a null MX beside others means nothing.
        found.into_iter().filter(|exchanger| !exchanger.name.is_empty()).collect();
    exchangers.shuffle(&mut rand::rng());
    // Stable: equals stay shuffled.
    exchangers.sort_by_key(|exchanger| exchanger.preference);
    let mut seen = BTreeSet::new();
    exchangers.retain(|exchanger| seen.insert(exchanger.name.clone()));
    let own = exchangers.iter().filter(|exchanger| exchanger.name == own_name);
    if let Some(limit) = own.map(|exchanger| exchanger.preference).min() {
        exchangers.retain(|exchanger| exchanger.preference < limit);
        if exchangers.is_empty() {
            return Err(Nowhere::Ourselves);
        }
    }
    exchangers.truncate(hosts_max);
    Ok(exchangers)
}

/// What was wrong with exchangers that gave no address.
#[derive(Default)]
struct Trouble {
    /// Those without an address.
    nameless: usize,
    /// Addresses that are not public.
    private: usize,
    /// One is this host.
    ourselves: bool,
    /// A name server did not answer for one.
    unanswered: Option<Unreachable>,
}

impl Trouble {
    /// A question without an answer leaves hope; everything else is for ever.
    fn verdict(self, name: &str, implicit: bool) -> Unreachable {
        match self {
            Self { unanswered: Some(unanswered), .. } => unanswered,
            Self { ourselves: true, .. } => ourselves(name),
            Self { private: 1.., .. } => not_public(name),
            // RFC 3463 §3.2: the domain takes no mail.
            Self { nameless: 1.., .. } if implicit => {
                Unreachable::new(status(5, 1, 2), format!("{name} has neither mail exchanger nor address"))
            }
            // RFC 5321 §5.1: MX records of which none is usable are an error.
            _ => {
                let text = format!("no mail exchanger of {name} has an address");
                Unreachable::new(status(5, 4, 4), text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchangers(list: &[(u16, &str)]) -> Vec<Exchanger> {
        list.iter()
            .map(|(preference, name)| Exchanger { preference: *preference, name: (*name).to_owned() })
            .collect()
    }

    fn names(arranged: &[Exchanger]) -> Vec<&str> {
        arranged.iter().map(|exchanger| exchanger.name.as_str()).collect()
    }

    #[test]
    fn order_rfc5321_5_1() {
        let arranged = arrange(exchangers(&[(20, "c"), (5, "a"), (10, "b"), (5, "a")]), "us", 10).unwrap();
        assert_eq!(names(&arranged), ["a", "b", "c"]);
        let arranged = arrange(exchangers(&[(20, "c"), (5, "a"), (10, "b")]), "us", 2).unwrap();
        assert_eq!(names(&arranged), ["a", "b"]);
    }

    #[test]
    fn equals_are_shuffled() {
        let firsts: BTreeSet<String> = (0..200)
            .map(|_| arrange(exchangers(&[(1, "a"), (1, "b"), (1, "c")]), "us", 10).unwrap()[0].name.clone())
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn null_mx_rfc7505() {
        assert_eq!(arrange(exchangers(&[(0, "")]), "us", 10), Err(Nowhere::NullMx));
        assert_eq!(names(&arrange(exchangers(&[(0, ""), (5, "a")]), "us", 10).unwrap()), ["a"]);
    }

    #[test]
    fn our_own_name_bars_the_way() {
        let arranged = arrange(exchangers(&[(5, "a"), (10, "us"), (10, "b"), (20, "c")]), "us", 10).unwrap();
        assert_eq!(names(&arranged), ["a"]);
        assert_eq!(arrange(exchangers(&[(10, "us"), (20, "c")]), "us", 10), Err(Nowhere::Ourselves));
    }

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mixed = alternate(parse(&["::2", "::3"]), parse(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]));
        assert_eq!(mixed, parse(&["::2", "127.0.0.2", "::3", "127.0.0.3", "127.0.0.4"]));
    }

    #[test]
    fn own_addresses() {
        let own = Own {
            hostname: "us".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            listeners: vec!["127.0.0.1:2525".parse().unwrap(), "0.0.0.0:25".parse().unwrap()],
        };
        for (target, expected) in [
            ("192.0.2.1:25", true),
            ("127.0.0.1:2525", true),
            ("127.0.0.2:2525", false),
            ("127.0.0.9:25", true),
            ("198.51.100.7:25", false),
        ] {
            assert_eq!(own.is(target.parse().unwrap()), expected, "{target}");
        }
    }
}
