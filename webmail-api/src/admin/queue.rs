//! `/admin/v1/queue`: what waits, what became of it, and acting on it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use mail::address::Address;
use mail::id::QueueId;
use queue::item::{Fate, Outcome, Said};
use queue::{
    Acted, Action, Filter, ItemView, OpenError, Queue, RecipientView, SenderFilter, ShardKind, Standing,
    StateFilter, Summary, WorkError,
};
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::body::{Body, acted, address, domain};
use super::problem::Problem;

/// The queue in numbers.
#[derive(Debug, Serialize)]
pub(crate) struct SummaryBody {
    /// Messages that are being delivered here.
    pub(crate) ingest: u64,
    /// Items that wait for other hosts.
    pub(crate) outbound: u64,
    /// Messages in quarantine.
    pub(crate) quarantined: u64,
    /// Items that the server works on now.
    pub(crate) in_flight: usize,
    /// Recipients elsewhere that have not ended.
    pub(crate) recipients: u64,
    pub(crate) states: Vec<CountBody>,
    pub(crate) ages: Vec<CountBody>,
    pub(crate) domains: Vec<DomainBody>,
}

/// How many of something.
#[derive(Debug, Serialize)]
pub(crate) struct CountBody {
    pub(crate) name: String,
    pub(crate) recipients: u64,
}

/// What waits for one domain.
#[derive(Debug, Serialize)]
pub(crate) struct DomainBody {
    pub(crate) domain: String,
    pub(crate) recipients: u64,
    pub(crate) deferred: u64,
    pub(crate) oldest: u64,
    pub(crate) last: Option<SaidBody>,
}

/// A message in a shard of the queue, or what is remembered of it.
#[derive(Debug, Serialize)]
pub(crate) struct ItemBody {
    pub(crate) queue_id: String,
    pub(crate) message_id: Option<String>,
    pub(crate) shard: String,
    pub(crate) number: u64,
    /// The reverse-path; empty for notifications.
    pub(crate) sender: String,
    /// The account that submitted it.
    pub(crate) account: Option<String>,
    pub(crate) size: u64,
    pub(crate) accepted: u64,
    pub(crate) priority: i8,
    pub(crate) route: Option<String>,
    pub(crate) standing: StandingBody,
    pub(crate) due: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) attempts: Option<u32>,
    pub(crate) crashes: Option<u8>,
    pub(crate) pending: Option<u32>,
    /// Why it is in quarantine.
    pub(crate) reason: Option<String>,
    /// When it came to quarantine, or was done.
    pub(crate) since: Option<u64>,
    pub(crate) recipients: Vec<RecipientBody>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StandingBody {
    Waiting,
    Quarantined,
    Finished,
}

/// A recipient, and what became of it so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RecipientBody {
    pub(crate) address: Option<String>,
    /// The account here that it went to.
    pub(crate) account: Option<String>,
    pub(crate) state: String,
    pub(crate) not_before: Option<u64>,
    pub(crate) deferrals: u32,
    /// Attempts of which nobody knows whether they delivered it: so often more it may have come.
    pub(crate) doubts: u32,
    /// Enhanced status code of a failure.
    pub(crate) status: Option<String>,
    pub(crate) text: Option<String>,
    /// Whether its sender was told of its end.
    pub(crate) notified: Option<bool>,
    pub(crate) last: Option<SaidBody>,
}

/// What another host said, or what was found instead.
#[derive(Debug, Serialize)]
pub(crate) struct SaidBody {
    pub(crate) at: u64,
    pub(crate) attempt: u32,
    pub(crate) host: Option<String>,
    pub(crate) address: Option<String>,
    /// `TLSv1.3 TLS_AES_256_GCM_SHA384`; null: in the clear, or there was no connection.
    pub(crate) tls: Option<String>,
    pub(crate) tls_verified: bool,
    pub(crate) reply: String,
}

/// A part of a listing.
#[derive(Debug, Serialize)]
pub(crate) struct ItemsBody {
    pub(crate) items: Vec<ItemBody>,
    pub(crate) next: Option<String>,
}

/// Which items. What is left out does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FilterBody {
    pub(crate) kind: Option<KindBody>,
    pub(crate) queue_id: Option<String>,
    pub(crate) domain: Option<String>,
    /// The host that was spoken to last.
    pub(crate) site: Option<String>,
    /// An address, `@domain`, or `<>`.
    pub(crate) sender: Option<String>,
    pub(crate) state: Option<StateFilter>,
    /// Accepted before (unix seconds).
    pub(crate) accepted_before: Option<u64>,
    /// Accepted then or later (unix seconds).
    pub(crate) accepted_since: Option<u64>,
}

/// Which shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindBody {
    Ingest,
    Outbound,
    Quarantine,
}

/// A listing that is asked for. A query string cannot nest, so the filter's members stand here once more.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ItemsQuery {
    kind: Option<KindBody>,
    queue_id: Option<String>,
    domain: Option<String>,
    site: Option<String>,
    sender: Option<String>,
    state: Option<StateFilter>,
    accepted_before: Option<u64>,
    accepted_since: Option<u64>,
    from: Option<String>,
    limit: Option<usize>,
}

/// A trace that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceQuery {
    id: String,
}

/// Something to be done to what waits for other hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActBody {
    pub(crate) action: ActionBody,
    #[serde(default)]
    pub(crate) filter: FilterBody,
    /// Said on purpose where the filter says nothing: everything.
    #[serde(default)]
    pub(crate) all: bool,
    /// Where to, for `reroute`; left out or null: where the domain says.
    #[serde(default)]
    pub(crate) route: Option<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionBody {
    Retry,
    Hold,
    Release,
    Cancel,
    Expire,
    Reroute,
    /// What is left of a message in quarantine is given up.
    Drop,
}

/// What was done.
#[derive(Debug, Serialize)]
pub(crate) struct ActedBody {
    pub(crate) items: u64,
    pub(crate) recipients: u64,
    pub(crate) in_flight: u64,
}

impl From<Acted> for ActedBody {
    fn from(Acted { items, recipients, in_flight }: Acted) -> Self {
        Self { items, recipients, in_flight }
    }
}

impl From<&Said> for SaidBody {
    fn from(said: &Said) -> Self {
        Self {
            at: said.at,
            attempt: said.attempt,
            host: said.host.clone(),
            address: said.address.map(|address| address.to_string()),
            tls: said.tls.as_ref().map(|tls| format!("{} {}", tls.version, tls.cipher)),
            tls_verified: said.tls.as_ref().is_some_and(|tls| tls.verified),
            reply: said.reply.clone(),
        }
    }
}

impl From<&RecipientView> for RecipientBody {
    fn from(view: &RecipientView) -> Self {
        Self {
            address: Some(view.address.clone()),
            state: view.state.to_owned(),
            not_before: Some(view.not_before),
            deferrals: view.deferrals,
            doubts: view.doubts,
            last: view.last.as_ref().map(SaidBody::from),
            ..Self::default()
        }
    }
}

impl From<&Fate> for RecipientBody {
    fn from(fate: &Fate) -> Self {
        let mut body = Self {
            address: fate.address.as_ref().map(Address::to_string),
            account: fate.account.map(|account| account.to_string()),
            state: fate.outcome.as_str().to_owned(),
            ..Self::default()
        };
        match &fate.outcome {
            Outcome::Failed { failure, notified } => {
                body.status = Some(failure.status.clone());
                body.text = Some(failure.text.clone());
                body.notified = Some(*notified);
            }
            Outcome::Expired { notified } => body.notified = Some(*notified),
            Outcome::Sent { said, doubts } => {
                body.doubts = *doubts;
                body.last = Some(SaidBody::from(&**said));
            }
            Outcome::Delivered
            | Outcome::Queued
            | Outcome::Merged
            | Outcome::Cancelled
            | Outcome::Quarantined => {}
        }
        body
    }
}

impl From<ItemView> for ItemBody {
    fn from(view: ItemView) -> Self {
        let mut body = Self {
            queue_id: view.queue_id.to_string(),
            message_id: view.message_id,
            shard: view.shard,
            number: view.number,
            sender: view.reverse_path.address().map(Address::to_string).unwrap_or_default(),
            account: view.principal.map(|account| account.to_string()),
            size: view.size,
            accepted: view.accepted,
            priority: view.priority,
            route: view.route,
            standing: StandingBody::Waiting,
            due: None,
            expires: Some(view.expires),
            attempts: None,
            crashes: None,
            pending: None,
            reason: None,
            since: None,
            recipients: view.recipients.iter().map(RecipientBody::from).collect(),
        };
        match view.standing {
            Standing::Open { due, attempts, crashes, pending } => {
                body.due = Some(due);
                body.attempts = Some(attempts);
                body.crashes = Some(crashes);
                body.pending = Some(pending);
            }
            Standing::Quarantined { reason, since } => {
                body.standing = StandingBody::Quarantined;
                (body.reason, body.since) = (Some(reason), Some(since));
            }
            Standing::Finished { at, fates } => {
                body.standing = StandingBody::Finished;
                (body.expires, body.since) = (None, Some(at));
                body.recipients = fates.iter().map(RecipientBody::from).collect();
            }
        }
        body
    }
}

impl FilterBody {
    fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            kind: self.kind.map(|kind| match kind {
                KindBody::Ingest => ShardKind::Ingest,
                KindBody::Outbound => ShardKind::Outbound,
                KindBody::Quarantine => ShardKind::Quarantine,
            }),
            queue_id: self.queue_id.as_deref().map(queue_id).transpose()?,
            domain: self.domain.as_deref().map(domain).transpose()?,
            site: self.site.clone(),
            sender: self.sender.as_deref().map(sender).transpose()?,
            state: self.state,
            accepted_before: self.accepted_before,
            accepted_since: self.accepted_since,
        })
    }
}

fn sender(text: &str) -> Result<SenderFilter, Problem> {
    match text.strip_prefix('@') {
        _ if text.is_empty() || text == "<>" => Ok(SenderFilter::Null),
        Some(name) => domain(name).map(SenderFilter::Domain),
        None => address(text).map(SenderFilter::Address),
    }
}

fn queue_id(text: &str) -> Result<QueueId, Problem> {
    text.parse().map_err(|_| Problem::unprocessable(format!("{text:?} is not the id of a message")))
}

impl From<WorkError> for Problem {
    fn from(error: WorkError) -> Self {
        if let WorkError::Misused(what) = error {
            return Self::unprocessable(what);
        }
        tracing::warn!(%error, "the queue cannot be asked");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

pub(crate) fn open(api: &Api) -> Result<&Queue, Problem> {
    api.queue().ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the queue is not open here"))
}

pub(crate) async fn summary(State(api): State<Api>) -> Result<Json<SummaryBody>, Problem> {
    let queue = open(&api)?;
    let overview = queue.overview();
    let Summary { items, states, ages, domains } = queue.summary().await?;
    let counts = |counts: std::collections::BTreeMap<&'static str, u64>| {
        let count = |(name, recipients): (&str, u64)| CountBody { name: name.to_owned(), recipients };
        counts.into_iter().map(count).collect::<Vec<_>>()
    };
    Ok(Json(SummaryBody {
        ingest: overview.ingest,
        outbound: items,
        quarantined: overview.quarantined,
        in_flight: overview.in_flight,
        recipients: states.values().sum(),
        states: counts(states),
        ages: counts(ages),
        domains: domains
            .into_iter()
            .map(|domain| DomainBody {
                last: domain.last.as_ref().map(SaidBody::from),
                domain: domain.domain,
                recipients: domain.recipients,
                deferred: domain.deferred,
                oldest: domain.oldest,
            })
            .collect(),
    }))
}

pub(crate) async fn items(
    State(api): State<Api>,
    query: Result<Query<ItemsQuery>, QueryRejection>,
) -> Result<Json<ItemsBody>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let ItemsQuery {
        kind,
        queue_id,
        domain,
        site,
        sender,
        state,
        accepted_before,
        accepted_since,
        from,
        limit,
    } = query;
    let filter = FilterBody { kind, queue_id, domain, site, sender, state, accepted_before, accepted_since };
    let limit = limit.unwrap_or(100).clamp(1, api.config().page_entries_max.max(1));
    let page = open(&api)?.select(&filter.filter()?, from.as_deref(), limit).await?;
    Ok(Json(ItemsBody { items: page.items.into_iter().map(ItemBody::from).collect(), next: page.next }))
}

pub(crate) async fn trace(
    State(api): State<Api>,
    query: Result<Query<TraceQuery>, QueryRejection>,
) -> Result<Json<Vec<ItemBody>>, Problem> {
    let Query(TraceQuery { id }) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let queue = open(&api)?;
    let views = match id.parse::<QueueId>() {
        Ok(id) => queue.trace(id).await?,
        Err(_) => queue.trace_message_id(&id).await?,
    };
    Ok(Json(views.into_iter().map(ItemBody::from).collect()))
}

pub(crate) async fn act(State(api): State<Api>, Body(act): Body<ActBody>) -> Result<Response, Problem> {
    let queue = open(&api)?;
    let filter = act.filter.filter()?;
    let object = format!("{:?} {:?} to {:?}", act.action, act.filter, act.route);
    if filter == Filter::default() && !act.all {
        return Err(Problem::unprocessable("a filter is needed, or `all`"));
    }
    if act.route.is_some() && act.action != ActionBody::Reroute {
        return Err(Problem::unprocessable("only reroute has a route"));
    }
    let action = match act.action {
        ActionBody::Retry => Action::Retry,
        ActionBody::Hold => Action::Hold,
        ActionBody::Release => Action::Release,
        ActionBody::Cancel => Action::Cancel,
        ActionBody::Expire => Action::Expire,
        ActionBody::Reroute => Action::Reroute(act.route.as_deref().map(route).transpose()?),
        ActionBody::Drop => {
            let id = filter.queue_id.ok_or_else(|| Problem::unprocessable("drop needs a queue_id"))?;
            let dropped = u64::from(queue.drop_quarantined(id).await?);
            let body = ActedBody { items: dropped, recipients: 0, in_flight: 0 };
            return Ok(acted(StatusCode::OK, object, body));
        }
    };
    let mut done = queue.act(&filter, &action).await?;
    // What is in quarantine is let go one by one, never by a filter that meant something else.
    if let (Action::Release, Some(id)) = (&action, filter.queue_id) {
        done.items += u64::from(queue.release(id).await?);
    }
    Ok(acted(StatusCode::OK, object, ActedBody::from(done)))
}

/// `host`, `host:port`, `[address]`, `[address]:port`.
fn route(text: &str) -> Result<String, Problem> {
    let bad = || Problem::unprocessable(format!("{text:?} is neither a host nor host:port"));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, port) = rest.split_once(']').ok_or_else(bad)?;
            inside.parse::<std::net::IpAddr>().map_err(|_| bad())?;
            (None, port.strip_prefix(':').or(if port.is_empty() { None } else { Some("") }))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    if let Some(host) = host {
        domain(host).map_err(|_| bad())?;
    }
    if let Some(port) = port {
        port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let check = |text: &str, expected: bool| assert_eq!(route(text).is_ok(), expected, "{text}");
        for good in
            ["mx.example.org", "mx.example.org:2525", "[192.0.2.1]", "[192.0.2.1]:25", "[2001:db8::1]:25"]
        {
            check(good, true);
        }
        for bad in [
            "",
            ":25",
            "mx.example.org:",
            "mx.example.org:0",
            "mx:99999",
            "[x]:25",
            "[192.0.2.1",
            "[192.0.2.1]x",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn senders() {
        assert_eq!(sender("<>").ok(), Some(SenderFilter::Null));
        assert!(matches!(sender("@example.org"), Ok(SenderFilter::Domain(_))));
        assert!(matches!(sender("a@example.org"), Ok(SenderFilter::Address(_))));
        assert!(sender("nobody").is_err());
    }
}
