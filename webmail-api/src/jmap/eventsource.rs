//! Push over an event source (RFC 8620 §7.3): what has changed, as soon as it has.
//!
//! A client that does not read is not waited for: nothing is made for it until it has taken what was made before, and then
//! it is told what is so at that moment, not each step that led there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use jmap_protocol::Object;
use serde::Deserialize;
use serde_json::json;
use storage::AccountState;
use tokio::time::{Instant, sleep_until};

use super::auth::User;
use super::calls::{Kind, Permit};
use super::problem::Problem;
use super::send::identity::state_of;
use super::send::known::Known;
use super::send::look::{Seen, look};
use super::serve::Ending;
use super::service::Jmap;
use super::view;

#[derive(Deserialize)]
pub(super) struct Options {
    types: String,
    closeafter: String,
    ping: String,
}

pub(super) async fn open(
    State(jmap): State<Jmap>,
    user: User,
    Query(options): Query<Options>,
    axum::Extension(ending): axum::Extension<Ending>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wrong = |what: &str| Problem::new(StatusCode::BAD_REQUEST, what);
    let config = &jmap.inner.config;
    let close_after_state = match options.closeafter.as_str() {
        "state" => true,
        "no" => false,
        _ => return Err(wrong("closeafter: neither state nor no")),
    };
    let ping = match options.ping.parse::<u32>() {
        Ok(0) => None,
        // RFC 8620 §7.3: the server may change it, and says what it took.
        Ok(seconds) => Some(u64::from(seconds).clamp(config.ping_seconds_min.max(1), 3600)),
        Err(_) => return Err(wrong("ping: not a number of seconds")),
    };
    let types = match options.types.as_str() {
        "*" => None,
        list => Some(list.split(',').map(str::to_owned).collect::<Vec<_>>()),
    };
    let most = config.event_sources_max;
    let permit = jmap.inner.calls.begin(user.principal.account, Kind::EventSource, most);
    let permit = permit.ok_or_else(|| Problem::too_many("maxConcurrentRequests"))?;
    let unavailable = |error| {
        tracing::warn!(%error, "account unavailable");
        Problem::later(StatusCode::SERVICE_UNAVAILABLE, "the account cannot be read now", 5)
    };
    let changes = user.account.watch();
    let state = user.account.refresh().await.map_err(unavailable)?;
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let said = ask_directory(&jmap, &user).await.unwrap_or_default();
    let now = states(&state, types.as_deref(), &said);
    let id = state.modseq().to_string();
    // Whoever comes back is told at once what happened meanwhile.
    let told = match known {
        Some(known) if known != id => BTreeMap::new(),
        _ => now,
    };
    let now = Instant::now();
    let source = Source {
        poll: (config.idle_poll_seconds > 0).then(|| Duration::from_secs(config.idle_poll_seconds)),
        until: now + Duration::from_secs(config.event_source_seconds_max.max(1)),
        next_ping: ping.map(|seconds| now + Duration::from_secs(seconds)),
        is_open: true,
        jmap: jmap.clone(),
        seen: Seen::default(),
        said,
        user,
        types,
        close_after_state,
        ping,
        ending,
        changes,
        told,
        _permit: permit,
    };
    let events = stream::unfold(source, |mut source| async move {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), source))
    });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Source {
    jmap: Jmap,
    user: User,
    seen: Seen,
    /// What the directory said of the account.
    said: Known,
    types: Option<Vec<String>>,
    close_after_state: bool,
    /// Seconds between pings.
    ping: Option<u64>,
    next_ping: Option<Instant>,
    poll: Option<Duration>,
    /// When the client has to log in anew.
    until: Instant,
    ending: Ending,
    changes: tokio::sync::watch::Receiver<u64>,
    /// The states that the client was told.
    told: BTreeMap<&'static str, String>,
    is_open: bool,
    _permit: Permit,
}

impl Source {
    /// The next thing to say. `None`: this is the end.
    async fn next(&mut self) -> Option<String> {
        while self.is_open && !self.user.account.is_stopped() {
            drop(self.changes.borrow_and_update());
            let look_again = self.look().await.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            if let Some(event) = self.news(&self.user.account.state()) {
                self.is_open = !self.close_after_state;
                return Some(event);
            }
            let poll = self.poll.map(|poll| Instant::now() + poll);
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = at(self.next_ping) => return self.say_ping(),
                () = at(poll) => {
                    // Other nodes' commits come to light here where their hint was lost. Trouble shows at the next try.
                    let _ = self.user.account.refresh().await;
                    if self.wants("Identity") && let Some(said) = ask_directory(&self.jmap, &self.user).await {
                        self.said = said;
                    }
                }
                () = at(look_again) => {}
                () = sleep_until(self.until) => return None,
                () = self.ending.0.requested() => return None,
            }
        }
        None
    }

    /// What becomes of submissions is told here as well: nobody else may be looking. Gives the seconds until the next look.
    async fn look(&mut self) -> Option<u64> {
        let sending = self.jmap.inner.sending.as_ref().filter(|_| self.wants("EmailSubmission"))?;
        let least = self.jmap.inner.config.submission_look_seconds.max(1);
        match look(&self.user.account, sending, None, &mut self.seen).await {
            Ok(again) => again.map(|seconds| seconds.max(least)),
            Err(error) => {
                tracing::debug!(%error, "submissions not looked at");
                Some(least.max(10))
            }
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|wanted| wanted == name))
    }

    fn news(&mut self, state: &Arc<AccountState>) -> Option<String> {
        let now = states(state, self.types.as_deref(), &self.said);
        let changed: Object = now
            .iter()
            .filter(|(name, state)| self.told.get(*name) != Some(*state))
            .map(|(name, state)| ((*name).to_owned(), json!(state)))
            .collect();
        if changed.is_empty() {
            return None;
        }
        self.told = now;
        let mut accounts = Object::new();
        accounts.insert(self.user.account_id().to_string(), changed.into());
        let data = json!({"@type": "StateChange", "changed": accounts});
        Some(format!("event: state\nid: {}\ndata: {data}\n\n", state.modseq()))
    }

    fn say_ping(&mut self) -> Option<String> {
        let seconds = self.ping?;
        self.next_ping = Some(Instant::now() + Duration::from_secs(seconds));
        Some(format!("event: ping\ndata: {}\n\n", json!({"interval": seconds})))
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// What the directory says of the account, where it can be asked.
async fn ask_directory(jmap: &Jmap, user: &User) -> Option<Known> {
    let names_max = jmap.inner.config.alias_identities_names_max;
    Known::ask(&jmap.inner.directory, &user.principal, names_max).await.ok()
}

/// The states of the types that are asked for.
fn states(state: &AccountState, types: Option<&[String]>, said: &Known) -> BTreeMap<&'static str, String> {
    let mut states = view::states(state);
    states.insert("Identity", state_of(state, said));
    states.retain(|name, _| types.is_none_or(|types| types.iter().any(|wanted| wanted == name)));
    states
}
