//! The service: takes the queue's turns, finds the way for each domain, and keeps as many connections busy as the site
//! allows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster::SiteLeases;
use mail::address::Domain;
use queue::item::{Failure, Said};
use queue::{AttemptReport, AttemptResult, Leased, Outbound, OutboundClaim, Queue, Turn};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::across::Elsewhere;
use crate::attempt::{Dialler, Ended, Way};
use crate::config::{Config, TlsMode};
use crate::connect::Connection;
use crate::mx::{self, Exchangers, Resolver, Unreachable};
use crate::pool::Pool;
use crate::report::{self, Reports};
use crate::route::{self, Route, RouteError, Routes, SmartHost};
use crate::site_label::SiteLabels;
use crate::throttle::{Admission, Permit, Site, Throttle};
use crate::tls_policy::{Connectors, TlsFailures, TlsTrust};

/// Turns that are asked for at one time.
const TURNS_MAX: usize = 32;
/// Messages that one connection takes from the queue at one time: leased by one commit, sent one after the other.
const BATCH_MAX: u32 = 8;
/// Items of a domain that cannot be reached which are told so by one commit.
const UNREACHABLE_BATCH_MAX: usize = 64;
/// How long a turn waits for a connection of its site before it goes back to the queue.
const SITE_WAIT: Duration = Duration::from_secs(5);
/// Longest turn of a domain; then its hosts are looked up again.
const TURN: Duration = Duration::from_secs(60);
/// How often idle connections are looked at.
const UPKEEP_PAUSE: Duration = Duration::from_secs(1);
/// The number of the route that an operator has sent an item on.
const REROUTED: usize = usize::MAX;

/// Sends what the queue holds for other hosts. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SmtpOut {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Arc<Config>,
    outbound: Outbound,
    routes: Routes,
    resolver: Resolver,
    throttle: Throttle,
    leases: Option<SiteLeases>,
    pub(crate) dialler: Dialler,
    labels: SiteLabels,
    /// One for each connection in use.
    places: Arc<Semaphore>,
    /// Turns that wait for a connection of their site.
    waiting: AtomicUsize,
    draining: AtomicBool,
}

/// What the service is made of.
pub struct Parts<'a> {
    /// Its settings.
    pub config: Config,
    /// Our name, where the settings have none.
    pub hostname: &'a str,
    /// Where mail is accepted from other hosts: it is never sent there.
    pub listeners: Vec<SocketAddr>,
    /// Where messages come from.
    pub queue: &'a Queue,
    /// The other regions, where there are any.
    pub elsewhere: Option<Elsewhere>,
    /// Leases of sites, where other nodes send too.
    pub leases: Option<SiteLeases>,
}

/// Why the service cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// A route cannot be used.
    #[error("a route cannot be used")]
    Route(#[from] RouteError),
    /// There is no way to ask name servers.
    #[error("name servers cannot be asked: {0}")]
    Resolver(String),
}

impl std::fmt::Debug for SmtpOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpOut").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl SmtpOut {
    /// Makes the service.
    pub fn new(parts: Parts<'_>) -> Result<Self, StartError> {
        let Parts { config, hostname, listeners, queue, elsewhere, leases } = parts;
        config.check().map_err(StartError::Config)?;
        let hostname = if config.hostname.is_empty() { hostname.to_owned() } else { config.hostname.clone() };
        let config = Arc::new(config);
        let resolver = Resolver::new(&config, &hostname, listeners);
        let dialler = Dialler {
            config: config.clone(),
            hostname,
            pool: Pool::new(config.idle_connections_max, Duration::from_secs(config.idle_seconds_max)),
            tls_failures: TlsFailures::new(
                config.tls_failures_max,
                Duration::from_secs(config.tls_failure_seconds),
            ),
            connectors: Connectors::default(),
            elsewhere,
            dialogues: queue.dialogues().clone(),
            clock: queue.clock().clone(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                outbound: queue.outbound(),
                routes: Routes::new(&config)?,
                resolver: resolver.map_err(|error| StartError::Resolver(error.to_string()))?,
                throttle: Throttle::new(config.clone(), leases.is_some()),
                leases,
                dialler,
                labels: SiteLabels::new(),
                places: Arc::new(Semaphore::new(config.concurrent_max)),
                waiting: AtomicUsize::new(0),
                draining: AtomicBool::new(false),
                config,
            }),
        })
    }

    /// Sends until `stop` is ready; then what is being sent is finished, and no new message begun.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let inner = &self.inner;
        let (reports, reporter) = report::start(inner.outbound.clone());
        let sharing = inner.keep_leases();
        let mut turns = JoinSet::new();
        let mut upkeep = tokio::time::interval(UPKEEP_PAUSE);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop, sharing);
        loop {
            while turns.try_join_next().is_some() {}
            let room = inner.config.concurrent_max.saturating_sub(turns.len()).min(TURNS_MAX);
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = &mut sharing => {}
                _ = upkeep.tick() => inner.tidy(),
                _ = turns.join_next(), if room == 0 => {}
                taken = inner.outbound.turns(room.max(1)), if room > 0 => {
                    for turn in taken {
                        inner.begin(turn, &reports, &mut turns);
                    }
                }
            }
        }
        inner.draining.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                ended = turns.join_next() => if ended.is_none() { break },
                () = &mut sharing => {}
            }
        }
        drop(reports);
        if reporter.await.is_err() {
            tracing::error!("reporting has panicked");
        }
        inner.dismiss().await;
    }

    /// Sends what is due now, and returns when that is done and reported: for tests, and for a queue that is to be
    /// drained.
    pub async fn run_once(&self) {
        let inner = &self.inner;
        let (reports, reporter) = report::start(inner.outbound.clone());
        let mut turns = JoinSet::new();
        loop {
            for turn in inner.outbound.turns_now(TURNS_MAX) {
                inner.begin(turn, &reports, &mut turns);
            }
            if turns.join_next().await.is_none() {
                break;
            }
        }
        drop(reports);
        if reporter.await.is_err() {
            tracing::error!("reporting has panicked");
        }
        inner.dismiss().await;
    }
}

impl Inner {
    fn begin(self: &Arc<Self>, turn: Turn, reports: &Reports, turns: &mut JoinSet<()>) {
        let span = tracing::info_span!("send", domain = %turn.domain());
        turns.spawn(self.clone().turn(turn, reports.clone()).instrument(span));
    }

    /// Has leases of the sites that are in use, where other nodes send too.
    async fn keep_leases(&self) {
        match &self.leases {
            Some(leases) => crate::share::keep(&self.throttle, leases).await,
            None => std::future::pending().await,
        }
    }

    /// Closes what is idle, in good order.
    async fn dismiss(&self) {
        let goodbyes = self.dialler.pool.drain();
        let patience = Duration::from_secs(1);
        futures_util::future::join_all(goodbyes.into_iter().map(|idle| idle.quit(patience))).await;
    }

    /// Closes connections that nobody has used for a while.
    fn tidy(&self) {
        for idle in self.dialler.pool.expired(Instant::now()) {
            self.dialler.goodbye(idle);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// One domain's turn.
    async fn turn(self: Arc<Self>, turn: Turn, reports: Reports) {
        if self.is_across(&turn).await {
            return self.across(turn, &reports).await;
        }
        let route = self.routes.of(turn.domain()).clone();
        let found = self.find(&route, turn.domain()).await;
        let way = match found {
            Ok(exchangers) => self.way(route, exchangers),
            Err(unreachable) => return self.unreachable(turn, &reports, &unreachable).await,
        };
        if turn.is_hastened() {
            way.site.forgive();
        }
        self.serve(turn, &way, &reports).await;
        way.site.pass_on();
    }

    /// A turn of a domain that has hosts: as many connections as the site has room for and there is work for. The turn is
    /// over when nothing is due any more, and after a while, so that the hosts are found anew; what is under way goes on
    /// beside the next one, so that one slow message does not hold back what comes after it.
    async fn serve(self: &Arc<Self>, mut turn: Turn, way: &Way, reports: &Reports) {
        let mut workers = JoinSet::new();
        let began = Instant::now();
        let mut served = false;
        loop {
            let mut later = None;
            // Who has had a connection lets those go first who have none.
            while !(self.is_draining() || served && way.site.is_waited_for()) {
                let Ok(place) = self.places.clone().try_acquire_owned() else { break };
                let permit = match way.site.admit(Instant::now()) {
                    Ok(permit) => permit,
                    Err(Admission::Later(pause)) => {
                        later = Some(pause);
                        break;
                    }
                    Err(_) => break,
                };
                let wanted = BATCH_MAX.min(turn.due().max(1) as u32);
                let granted = match way.site.grant(wanted, Instant::now()) {
                    Ok(granted) => granted,
                    Err(pause) => {
                        later = Some(pause);
                        break;
                    }
                };
                let claims = turn.claim(granted as usize).await;
                way.site.give_back(granted.saturating_sub(claims.len() as u32));
                if claims.is_empty() {
                    drop((turn, permit, place));
                    while let Some(ended) = workers.join_next().await {
                        note_panic(ended);
                    }
                    return;
                }
                served = true;
                let work = Work { place, permit, claims, reports: reports.clone() };
                workers.spawn(self.clone().work(way.clone(), work).in_current_span());
            }
            if began.elapsed() > TURN {
                drop(turn);
                while let Some(ended) = workers.join_next().await {
                    note_panic(ended);
                }
                return;
            }
            if let Some(ended) = workers.join_next().await {
                note_panic(ended);
                continue;
            }
            if self.is_draining() {
                return;
            }
            if let Some(pause) = later {
                return turn.pause(pause.as_secs().max(1));
            }
            if !self.wait(&way.site).await {
                return turn.pause(SITE_WAIT.as_secs());
            }
            served = false;
        }
    }

    /// Waits for a connection of a site that others use now. `false`: too many wait, or it took too long.
    async fn wait(&self, site: &Site) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.config.site_waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let freed = tokio::time::timeout(SITE_WAIT, async {
            tokio::select! {
                () = site.freed() => {}
                // What is missing may also be a place of ours.
                _ = self.places.acquire(), if self.places.available_permits() == 0 => {}
            }
        });
        let freed = freed.await.is_ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        freed
    }

    async fn find(&self, route: &Route, domain: &Domain) -> Result<Exchangers, Unreachable> {
        let found = async {
            match &route.smart_host {
                Some(smart) => self.resolver.smart_host(smart).await,
                None => self.resolver.exchangers(domain).await,
            }
        };
        let patience = Duration::from_secs(self.config.timeouts.find.max(1));
        tokio::time::timeout(patience, found).await.unwrap_or_else(|_| Err(mx::not_found_in_time(domain)))
    }

    pub(crate) fn way(&self, route: Arc<Route>, exchangers: Exchangers) -> Way {
        let site = self.throttle.site(&exchangers.site);
        Way { route, exchangers: Arc::new(exchangers), site }
    }

    /// Tells the recipients of a domain that has no hosts.
    async fn unreachable(&self, mut turn: Turn, reports: &Reports, reason: &Unreachable) {
        tracing::info!(status = %reason.status, reason = reason.text, "domain cannot be reached");
        while !self.is_draining() {
            let claims = turn.claim(UNREACHABLE_BATCH_MAX).await;
            if claims.is_empty() {
                return;
            }
            // Those that an operator has sent another way do not need the domain's hosts.
            let (rerouted, claims): (Vec<_>, Vec<_>) =
                claims.into_iter().partition(|claim| claim.route().is_some());
            for claim in rerouted {
                self.rerouted(claim, reports).await;
            }
            self.tell(claims, reports, reason).await;
        }
    }

    pub(crate) async fn tell(&self, claims: Vec<OutboundClaim>, reports: &Reports, reason: &Unreachable) {
        let lease = Duration::from_secs(self.config.timeouts.attempt);
        for leased in self.outbound.lease(claims, lease).await {
            let Ok(leased) = leased else { continue };
            let text = format!("{} {}", reason.status, reason.text);
            let said = Said::new(self.outbound.clock().now(), text);
            let result = if reason.is_temporary() {
                AttemptResult::Deferred { said, not_before: None }
            } else {
                let failure = Failure::new(&reason.status.to_string(), reason.text.clone());
                AttemptResult::Failed { failure, said }
            };
            // It fails only when reporting has ended; then the lease lapses.
            let _ = reports.send(AttemptReport::all(leased, &result)).await;
        }
    }

    /// One connection's worth of messages.
    async fn work(self: Arc<Self>, way: Way, work: Work) {
        let Work { place, permit, claims, reports } = work;
        let (rerouted, claims): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.route().is_some());
        let mut kept = None;
        self.send(&way, claims, &mut kept, &reports).await;
        if let Some(connection) = kept {
            self.dialler.keep(connection, &way.site);
        }
        drop(permit);
        for claim in rerouted {
            self.rerouted(claim, &reports).await;
        }
        drop(place);
    }

    /// One item that an operator has sent another way.
    pub(crate) async fn rerouted(&self, claim: OutboundClaim, reports: &Reports) {
        let Some(smart_host) = claim.route().and_then(|text| smart_host(text, &self.config)) else {
            let text = format!("{:?} is no host that mail can be sent to", claim.route().unwrap_or_default());
            let unusable = Unreachable { status: smtp_protocol::status::status(4, 4, 4), text };
            return self.tell(vec![claim], reports, &unusable).await;
        };
        let route = Arc::new(Route::to(smart_host, TlsMode::Opportunistic, TlsTrust::default(), REROUTED));
        let way = match self.find(&route, claim.domain()).await {
            Ok(exchangers) => self.way(route, exchangers),
            Err(unreachable) => return self.tell(vec![claim], reports, &unreachable).await,
        };
        // Without leave it comes again by itself.
        let Ok(permit) = way.site.admit(Instant::now()) else { return };
        let mut kept = None;
        self.send(&way, vec![claim], &mut kept, reports).await;
        if let Some(connection) = kept {
            self.dialler.keep(connection, &way.site);
        }
        drop(permit);
    }

    /// Leases, sends, reports. The lease is durable before anything is dialled.
    pub(crate) async fn send(
        &self,
        way: &Way,
        claims: Vec<OutboundClaim>,
        kept: &mut Option<Connection>,
        reports: &Reports,
    ) {
        if claims.is_empty() {
            return;
        }
        let lease = Duration::from_secs(self.config.timeouts.attempt);
        let mut leases = Vec::new();
        for leased in self.outbound.lease(claims, lease).await {
            match leased {
                Ok(leased) => leases.push(leased),
                Err(error) => tracing::debug!(%error, "an item is not leased"),
            }
        }
        // What holds for the site holds for the rest of the batch.
        let mut verdict: Option<Verdict> = None;
        for leased in leases {
            let known = match &verdict {
                Some(Verdict::Suspended(seconds)) => Some(AttemptResult::Untried { seconds: *seconds }),
                Some(Verdict::Unreachable(text)) => {
                    let said = Said::new(self.outbound.clock().now(), text.clone());
                    Some(AttemptResult::Deferred { said, not_before: None })
                }
                None if self.is_draining() => Some(AttemptResult::Untried { seconds: 0 }),
                // Whoever begins must be able to wait for the answer.
                None if Instant::now() + self.config.timeouts.answer() >= leased.deadline().into_std() => {
                    Some(AttemptResult::Untried { seconds: 1 })
                }
                None => None,
            };
            let report = if let Some(result) = known {
                AttemptReport::all(leased, &result)
            } else {
                let ended = self.attempt(way, &leased, kept).await;
                verdict = judge(way, &ended);
                AttemptReport { leased, results: ended.results }
            };
            // It fails only when reporting has ended; then the lease lapses.
            let _ = reports.send(report).await;
        }
    }

    /// One message, with its place in the log.
    async fn attempt(&self, way: &Way, leased: &Leased, kept: &mut Option<Connection>) -> Ended {
        let span = tracing::info_span!("attempt", queue_id = %leased.queue_id(), attempt = leased.attempt());
        let began = Instant::now();
        let attempt = self.dialler.attempt(&self.outbound, way, leased, kept);
        let ended = Box::pin(attempt).instrument(span.clone()).await;
        span.in_scope(|| self.tell_log(way, leased, &ended, began.elapsed()));
        ended
    }

    fn tell_log(&self, way: &Way, leased: &Leased, ended: &Ended, elapsed: Duration) {
        let label = self.labels.of(&way.site.name).to_string();
        metrics::histogram!("postrider_smtp_out_attempt_seconds", "site" => label.clone())
            .record(elapsed.as_secs_f64());
        let age = self.outbound.clock().now().saturating_sub(leased.message().accepted);
        for (index, result) in &ended.results {
            let (outcome, said) = match result {
                AttemptResult::Delivered { said, .. } => ("delivered", Some(said)),
                AttemptResult::Deferred { said, .. } => ("deferred", Some(said)),
                AttemptResult::Failed { said, .. } => ("failed", Some(said)),
                AttemptResult::InDoubt { said } => ("in-doubt", Some(said)),
                AttemptResult::Untried { .. } => ("untried", None),
            };
            metrics::counter!("postrider_smtp_out_recipients_total", "site" => label.clone(), "outcome" => outcome)
                .increment(1);
            metrics::histogram!("postrider_smtp_out_age_seconds", "site" => label.clone(), "outcome" => outcome)
                .record(age as f64);
            let due = leased.recipients().iter().find(|due| due.index == *index);
            tracing::info!(
                recipient = due.map(|due| due.recipient.address.to_string()),
                outcome,
                mx = said.and_then(|said| said.host.as_deref()),
                address = said.and_then(|said| said.address).map(|address| address.to_string()),
                reply = said.map(|said| said.reply.as_str()),
                elapsed_ms = elapsed.as_millis() as u64,
                "recipient"
            );
        }
    }
}

/// What one connection has to do.
struct Work {
    place: OwnedSemaphorePermit,
    permit: Permit,
    claims: Vec<OutboundClaim>,
    reports: Reports,
}

/// What one attempt says about all others of a batch.
enum Verdict {
    Suspended(u64),
    Unreachable(String),
}

/// Leases of a panicked attempt lapse, and what became of its recipients is in doubt, as after a crash.
fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "sending has panicked");
    }
}

/// What an attempt says about the site.
fn judge(way: &Way, ended: &Ended) -> Option<Verdict> {
    let now = Instant::now();
    let site = &way.site.name;
    if ended.suspended {
        let pause = way.site.suspend(now);
        tracing::info!(%site, seconds = pause.as_secs(), "site wants no mail from us for now");
        return Some(Verdict::Suspended(pause.as_secs().max(1)));
    }
    if let Some(error) = &ended.unreachable {
        if let Some(pause) = way.site.failed(now) {
            tracing::info!(%site, seconds = pause.as_secs(), reason = error.text, "site is left alone");
        }
        return Some(Verdict::Unreachable(format!("{} {}", error.status, error.text)));
    }
    if ended.broke {
        if let Some(pause) = way.site.failed(now) {
            tracing::info!(%site, seconds = pause.as_secs(), "site breaks connections and is left alone");
            return Some(Verdict::Suspended(pause.as_secs().max(1)));
        }
    } else if ended.heard {
        way.site.succeeded();
    }
    None
}

/// `host`, `host:port`, `[address]:port`.
fn smart_host(text: &str, config: &Config) -> Option<SmartHost> {
    let whole = || route::host(text).ok().map(|host| (host, config.mx_port));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (route::host(host).ok()?, port.parse().ok()?)
        }
        _ => whole()?,
    };
    Some(SmartHost { host, port, login: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_that_operators_name() {
        let config = Config::default();
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let found = smart_host(text, &config).map(|smart| (smart.host.to_string(), smart.port));
            assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
        };
        check("relay.example", Some(("relay.example", 25)));
        check("relay.example:2525", Some(("relay.example", 2525)));
        check("127.0.0.1:2525", Some(("[127.0.0.1]", 2525)));
        check("[::1]:2525", Some(("[IPv6:::1]", 2525)));
        check("::1", Some(("[IPv6:::1]", 25)));
        check("relay.example:port", None);
        check("a b", None);
    }
}
