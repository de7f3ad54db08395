//! One attempt: a message, the hosts that take its recipients' mail in their order, and what became of each recipient.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use mail::envelope::Recipient;
use queue::item::{Failure, Said, Tls};
use queue::{AttemptResult, Clock, Dialogues, Leased, Outbound, OutboundBody, WorkError};
use smtp_protocol::status::{Status, status};

use crate::across::Elsewhere;
use crate::config::{Config, Source};
use crate::connect::{self, Connection, Dial, NotConnected, View};
use crate::message::{Message, Open, Wishes};
use crate::mx::{Candidate, Exchangers};
use crate::outcome::Hint;
use crate::pool::{Key, Pool};
use crate::route::Route;
use crate::throttle::{Site, Slot};
use crate::tls_policy::{Connectors, TlsFailures, TlsPolicy};
use crate::transaction::{self, Fate, Progress};

/// What attempts need.
pub(crate) struct Dialler {
    pub(crate) config: Arc<Config>,
    pub(crate) hostname: String,
    pub(crate) pool: Pool,
    pub(crate) tls_failures: TlsFailures,
    pub(crate) connectors: Connectors,
    /// The other regions, where there are any.
    pub(crate) elsewhere: Option<Elsewhere>,
    pub(crate) dialogues: Dialogues,
    pub(crate) clock: Clock,
}

/// Where messages of one domain go.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) route: Arc<Route>,
    pub(crate) exchangers: Arc<Exchangers>,
    pub(crate) site: Arc<Site>,
}

/// How an attempt has ended.
#[derive(Default)]
pub(crate) struct Ended {
    /// One for each recipient of the lease.
    pub(crate) results: Vec<(u32, AttemptResult)>,
    /// Nobody was there to be spoken to: what is said of the site's other mail too.
    pub(crate) unreachable: Option<NotConnected>,
    /// The host has answered.
    pub(crate) heard: bool,
    /// The site wants to be left alone.
    pub(crate) suspended: bool,
    /// A connection broke in the middle of a dialogue.
    pub(crate) broke: bool,
}

/// Who was spoken to.
#[derive(Clone, Default)]
struct Spoke {
    host: Option<Arc<str>>,
    address: Option<IpAddr>,
    tls: Option<Tls>,
}

impl Spoke {
    fn with(connection: &Connection) -> Self {
        Self {
            host: Some(connection.key.host.clone()),
            address: Some(connection.key.address.ip()),
            tls: connection.tls(),
        }
    }

    fn to(candidate: &Candidate) -> Self {
        Self { host: Some(candidate.host.clone()), address: Some(candidate.address.ip()), tls: None }
    }

    fn said(&self, at: u64, text: &str) -> Said {
        let mut said = Said::new(at, text);
        said.host = self.host.as_deref().map(str::to_owned);
        said.address = self.address;
        said.tls.clone_from(&self.tls);
        said
    }
}

/// How far an attempt has come.
struct Course<'a> {
    leased: &'a Leased,
    now: u64,
    /// Recipients, by their place in the lease, that are to be offered to whoever is spoken to.
    waiting: VecDeque<usize>,
    /// Those that the host spoken to now says nothing about.
    moving_on: Vec<usize>,
    /// What was said last to those, and by whom.
    last: (Status, String, Spoke),
    ended: Ended,
}

impl Dialler {
    /// Tries the hosts until every recipient has an answer, or none is left. `kept` is a connection of the message
    /// before, and afterwards the one to go on with.
    pub(crate) async fn attempt(
        &self,
        outbound: &Outbound,
        way: &Way,
        leased: &Leased,
        kept: &mut Option<Connection>,
    ) -> Ended {
        let body = match outbound.body(leased).await {
            Ok(body) => body,
            Err(error) => return unreadable(outbound.clock().now(), leased, &error),
        };
        let now = outbound.clock().now();
        let wishes = Wishes { priority: leased.priority(), deliver_by: leased.deliver_by() };
        let message = Message::new(leased.sender(), wishes, now, body.size(), reading(body));
        let mut course = Course {
            leased,
            now,
            waiting: (0..leased.recipients().len()).collect(),
            moving_on: Vec::new(),
            last: (status(4, 4, 1), "no host was tried".to_owned(), Spoke::default()),
            ended: Ended::default(),
        };
        let mut hosts: VecDeque<&Candidate> = way.exchangers.candidates.iter().collect();
        while !course.waiting.is_empty() {
            if !leased.is_live() {
                course.last.1 = format!("the time for this attempt is over; before that: {}", course.last.1);
                break;
            }
            let (mut connection, candidate) = match kept.take() {
                Some(mut connection) => {
                    connection.reused = true;
                    (connection, None)
                }
                None => {
                    let Some(candidate) = hosts.pop_front() else { break };
                    match self.connection(way, candidate, leased.deadline()).await {
                        Ok(connection) => (connection, Some(candidate)),
                        Err(error) => {
                            course.unreachable(candidate, error);
                            continue;
                        }
                    }
                }
            };
            let heard_before = std::mem::take(&mut course.ended.heard);
            let usable = self.transactions(&mut connection, &message, way, &mut course).await;
            // A connection that was kept and has died meanwhile says nothing about its host, which gets a new one.
            let stale = connection.reused && !usable && !course.ended.heard;
            course.ended.heard |= heard_before;
            let left_for_host = stale || (usable && !course.waiting.is_empty());
            if usable && course.moving_on.is_empty() && has_room(&mut connection, &way.site) {
                *kept = Some(connection);
            } else {
                if usable {
                    self.goodbye(connection);
                }
                if left_for_host && let Some(candidate) = candidate {
                    hosts.push_front(candidate);
                }
            }
            course.move_on();
        }
        course.end(outbound.clock().now())
    }

    /// As many transactions over one connection as it takes, and it lasts. `false`: it is of no use any more.
    async fn transactions(
        &self,
        connection: &mut Connection,
        message: &Message<'_>,
        way: &Way,
        course: &mut Course<'_>,
    ) -> bool {
        let leased = course.leased;
        let spoke = Spoke::with(connection);
        loop {
            // RFC 9422 §4.2; without it RFC 5321 §4.5.3.1.8 has 100.
            let host_max =
                connection.extensions().recipients_max.map_or(usize::MAX, |max| max.max(1) as usize);
            let count = course.waiting.len().min(self.config.recipients_max).min(host_max);
            let batch: Vec<usize> = course.waiting.drain(..count).collect();
            let due = leased.recipients();
            let recipients: Vec<&Recipient> = batch.iter().map(|index| &due[*index].recipient).collect();
            let mut progress = Progress::new(batch.len());
            let usable =
                transaction::send(connection, message, &recipients, leased.deadline(), &mut progress).await;
            course.ended.heard |= progress.heard;
            // A connection that was kept may have died long ago; one that dies now says something about its host.
            let stale = connection.reused && !progress.heard;
            let broken = |fate: &Option<Fate>| {
                matches!(fate, None | Some(Fate::NextHost { .. } | Fate::InDoubt { .. }))
            };
            course.ended.broke |= !usable && !stale && progress.fates.iter().any(broken);
            for (index, fate) in batch.into_iter().zip(progress.fates) {
                course.take(index, fate, &spoke);
            }
            if !usable || course.waiting.is_empty() || !has_room(connection, &way.site) {
                return usable;
            }
        }
    }

    /// A connection to a host: one that was kept, or a new one.
    async fn connection(
        &self,
        way: &Way,
        candidate: &Candidate,
        deadline: tokio::time::Instant,
    ) -> Result<Connection, NotConnected> {
        let now = Instant::now();
        let source = self.source(way, candidate)?;
        let mut policy = TlsPolicy::of(way.route.tls, self.tls_failures.has_failed(candidate.address, now));
        loop {
            let key = Key {
                source: source.map(|source| source.address),
                address: candidate.address,
                host: candidate.host.clone(),
                policy,
                route: way.route.number,
                site: way.site.name.clone(),
            };
            while let Some(mut connection) = self.pool.take(&key, Instant::now()) {
                connection.reused = true;
                let idle = connection.last_used.elapsed();
                if idle < Duration::from_secs(self.config.idle_probe_seconds) {
                    return Ok(connection);
                }
                match tokio::time::timeout_at(deadline, connection.reset()).await {
                    Ok(Ok(())) => return Ok(connection),
                    Ok(Err(lost)) => {
                        tracing::debug!(host = %key.host, reason = lost.0, "idle connection gone");
                    }
                    Err(_) => break,
                }
            }
            let slot = self.slot(way).await?;
            let dial = Dial {
                candidate,
                route: &way.route,
                policy,
                source: source.map(|source| source.address),
                hostname: source.map_or(&self.hostname, |source| &source.hostname),
                timeouts: &self.config.timeouts,
                connectors: &self.connectors,
                elsewhere: self.elsewhere.as_ref(),
                view: View::new(&self.dialogues, &self.clock),
            };
            let dialled = Box::pin(connect::connect(&dial, key, slot));
            let connected = tokio::time::timeout_at(deadline, dialled).await;
            metrics::counter!("postrider_smtp_out_connections_total", "outcome" => match &connected {
                Ok(Ok(_)) => "connected",
                Ok(Err(error)) if error.tls_failed => "tls-failed",
                Ok(Err(_)) | Err(_) => "failed",
            })
            .increment(1);
            match connected {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if error.tls_failed => {
                    tracing::info!(host = %candidate.host, address = %candidate.address, error = error.text, "TLS failed, in plain from now on for a while");
                    self.tls_failures.remember(candidate.address, Instant::now());
                    policy = TlsPolicy::Plain;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(NotConnected::ours(status(4, 4, 1), "the time for this attempt is over"));
                }
            }
        }
    }

    /// Room for one more connection to the site; an idle one goes for it where there is none. No more are in use than
    /// may be open, so what is waited for can only be one that says goodbye.
    async fn slot(&self, way: &Way) -> Result<Slot, NotConnected> {
        const PAUSE: Duration = Duration::from_millis(10);
        let until = Instant::now() + Duration::from_secs(self.config.timeouts.goodbye + 1);
        loop {
            if let Some(slot) = way.site.open() {
                return Ok(slot);
            }
            if let Some(idle) = self.pool.evict(&way.site.name) {
                drop(idle);
                continue;
            }
            if Instant::now() >= until {
                return Err(NotConnected::ours(status(4, 4, 5), "as many connections as may be are open"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The address to come from: the same for a site as long as the list is, so that its reputation is one.
    fn source(&self, way: &Way, candidate: &Candidate) -> Result<Option<&Source>, NotConnected> {
        if self.config.sources.is_empty() {
            return Ok(None);
        }
        let family = candidate.address.is_ipv6();
        let fit: Vec<&Source> =
            self.config.sources.iter().filter(|source| source.address.is_ipv6() == family).collect();
        let mut hasher = DefaultHasher::new();
        way.site.name.hash(&mut hasher);
        let chosen = fit.get((hasher.finish() % fit.len().max(1) as u64) as usize);
        chosen.copied().map(Some).ok_or_else(|| {
            NotConnected::ours(status(4, 4, 1), format!("no local address can reach {}", candidate.address))
        })
    }

    /// Keeps a connection for the next message.
    pub(crate) fn keep(&self, mut connection: Connection, site: &Arc<Site>) {
        if !has_room(&mut connection, site) {
            self.goodbye(connection);
            return;
        }
        connection.last_used = Instant::now();
        connection.reused = true;
        if let Some(oldest) = self.pool.put(connection) {
            self.goodbye(oldest);
        }
    }

    /// Says goodbye beside everything else.
    pub(crate) fn goodbye(&self, connection: Connection) {
        let patience = Duration::from_secs(self.config.timeouts.goodbye);
        tokio::spawn(connection.quit(patience));
    }
}

impl Course<'_> {
    /// Notes what became of a recipient.
    fn take(&mut self, index: usize, fate: Option<Fate>, spoke: &Spoke) {
        let now = self.now;
        let result = match fate {
            Some(Fate::NextTransaction) => {
                self.waiting.push_back(index);
                return;
            }
            Some(Fate::NextHost { text }) => {
                self.last = (status(4, 4, 2), text, spoke.clone());
                self.moving_on.push(index);
                return;
            }
            None => {
                self.moving_on.push(index);
                return;
            }
            Some(Fate::Delivered { reply, passed_on }) => {
                AttemptResult::Delivered { said: spoke.said(now, &reply), passed_on }
            }
            Some(Fate::Deferred { status, text, hint }) => {
                self.ended.suspended |= hint == Hint::SiteSuspended;
                let not_before = match hint {
                    Hint::Greylisted { after: Some(after) } => Some(now + u64::from(after) + 1),
                    _ => None,
                };
                AttemptResult::Deferred { said: spoke.said(now, &with_status(status, &text)), not_before }
            }
            Some(Fate::Failed { status, text }) => AttemptResult::Failed {
                failure: Failure::new(&status.to_string(), text.clone()),
                said: spoke.said(now, &text),
            },
            Some(Fate::InDoubt { text }) => AttemptResult::InDoubt { said: spoke.said(now, &text) },
        };
        self.ended.results.push((self.leased.recipients()[index].index, result));
    }

    /// A host could not be spoken to.
    fn unreachable(&mut self, candidate: &Candidate, error: NotConnected) {
        let (host, address) = (&candidate.host, candidate.address);
        tracing::debug!(%host, %address, error = error.text, "no connection");
        self.last = (error.status, error.text.clone(), Spoke::to(candidate));
        self.ended.unreachable = Some(error);
    }

    /// The next host gets those that the last one has said nothing about.
    fn move_on(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.extend(self.moving_on.drain(..));
        }
    }

    fn end(mut self, now: u64) -> Ended {
        let (code, text, spoke) = &self.last;
        for index in self.waiting.into_iter().chain(self.moving_on) {
            let said = spoke.said(now, &with_status(*code, text));
            let deferred = AttemptResult::Deferred { said, not_before: None };
            self.ended.results.push((self.leased.recipients()[index].index, deferred));
        }
        if self.ended.heard {
            self.ended.unreachable = None;
        }
        self.ended
    }
}

/// What is said of a deferral: the host's words, or ours with a status in front.
fn with_status(code: Status, text: &str) -> String {
    let is_reply = text.len() > 3 && text.as_bytes()[..3].iter().all(u8::is_ascii_digit);
    if is_reply { text.to_owned() } else { format!("{code} {text}") }
}

/// Reads prefix and message from their beginning. A signature would be made here, over these bytes and in front of
/// them: what is signed has to be what is sent.
fn reading(body: OutboundBody) -> Open {
    Box::new(move || body.stream().map(|piece| piece.map_err(io::Error::other)).boxed())
}

fn unreadable(now: u64, leased: &Leased, error: &WorkError) -> Ended {
    tracing::warn!(queue_id = %leased.queue_id(), %error, "a message cannot be read");
    let said = Said::new(now, format!("4.3.0 the message cannot be read: {error}"));
    let result = AttemptResult::Deferred { said, not_before: None };
    let results = leased.recipients().iter().map(|due| (due.index, result.clone())).collect();
    Ended { results, ..Ended::default() }
}

/// Whether another message may go over a connection.
fn has_room(connection: &mut Connection, site: &Site) -> bool {
    // RFC 9422 §4.1.
    let announced = connection.extensions().transactions_max.unwrap_or(u32::MAX);
    connection.messages < site.messages_per_connection_max().min(announced.max(1))
}
