//! The router, and what goes around every request: who calls, whether they may, and the audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use directory::Directory;
use queue::Queue;
use storage::Storage;

use super::audit::{Act, Audit};
use super::body::Object;
use super::caller::{Caller, Connection, Scope};
use super::config::Config;
use super::endpoint;
use super::monitor::Monitor;
use super::problem::Problem;
use super::token::Tokens;

/// The admin API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    parts: Arc<Parts>,
    acts: Arc<AtomicU64>,
}

/// What the admin API works on.
pub struct Parts {
    /// Limits.
    pub config: Config,
    /// What it shows and changes.
    pub directory: Directory,
    /// Accounts.
    pub storage: Storage,
    /// The queue, where it is open.
    pub queue: Option<Queue>,
    /// Tokens of callers over TCP.
    pub tokens: Tokens,
    /// Where acts are written down.
    pub audit: Arc<dyn Audit>,
    /// Health and metrics.
    pub monitor: Arc<dyn Monitor>,
}

impl Api {
    /// An API over these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), acts: Arc::default() }
    }

    /// The tokens that callers over TCP need.
    pub fn tokens(&self) -> &Tokens {
        &self.parts.tokens
    }

    pub(crate) fn config(&self) -> &Config {
        &self.parts.config
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.parts.directory
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.parts.storage
    }

    pub(crate) fn queue(&self) -> Option<&Queue> {
        self.parts.queue.as_ref()
    }

    pub(crate) fn monitor(&self) -> &dyn Monitor {
        &*self.parts.monitor
    }

    /// The router. Each request needs a [`Connection`] among its extensions; one without is treated as anonymous.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for endpoint in endpoint::table() {
            let scope = endpoint.scope;
            let guard = middleware::from_fn(move |request: Request, next: Next| guard(scope, request, next));
            router = router.route(endpoint.path, endpoint.handler.route_layer(guard));
        }
        router
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no such endpoint") })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this endpoint has no such method")
            })
            .layer(middleware::from_fn_with_state(self.clone(), around))
            .layer(DefaultBodyLimit::max(self.config().body_bytes_max))
            .with_state(self.clone())
    }

    /// Who calls. A token that is not known is an error rather than nobody, so that a caller learns that it is wrong.
    async fn caller(&self, presented: Presented) -> Result<Caller, Problem> {
        let Presented { connection, authorization } = presented;
        let refused = |status, why: &str| Err(Problem::new(status, why));
        match connection {
            None | Some(Connection::Unix { uid: None }) => Ok(Caller::Anonymous),
            Some(Connection::Process) => Ok(Caller::Process),
            Some(Connection::Unix { uid: Some(uid) }) => {
                if uid == 0 || uid == own_uid() || self.config().uids.contains(&uid) {
                    return Ok(Caller::User(uid));
                }
                refused(StatusCode::FORBIDDEN, "this user may not use the admin socket")
            }
            Some(Connection::Tcp { remote, private }) => {
                let Some(given) = authorization else { return Ok(Caller::Anonymous) };
                if !private {
                    return refused(StatusCode::FORBIDDEN, "tokens are taken over TLS only");
                }
                let secret = given.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
                let token = match secret {
                    Some(secret) => self.tokens().find(secret.trim()).await?,
                    None => None,
                };
                match token {
                    Some(token) => Ok(Caller::Token { name: token.name, scopes: token.scopes, remote }),
                    None => refused(StatusCode::UNAUTHORIZED, "not a token that is good here"),
                }
            }
        }
    }
}

/// What a caller shows of itself.
struct Presented {
    connection: Option<Connection>,
    authorization: Option<HeaderValue>,
}

impl Presented {
    fn by(request: &Request) -> Self {
        Self {
            connection: request.extensions().get::<Connection>().cloned(),
            authorization: request.headers().get(header::AUTHORIZATION).cloned(),
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Around every request: time limit, caller, audit.
async fn around(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let presented = Presented::by(&request);
    let caller = match api.caller(presented).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(caller.clone());
    let limit = Duration::from_secs(api.config().request_seconds_max.max(1));
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| too_slow());
    }
    // An act goes on when its caller hangs up or patience ends, so that its outcome gets into the audit log.
    let act = tokio::spawn(audited(api, caller, request, next));
    match tokio::time::timeout(limit, act).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was broken off").into_response()
        }
        Err(_) => too_slow(),
    }
}

fn too_slow() -> Response {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "this takes too long; it is not known whether it will be done")
        .into_response()
}

async fn audited(api: Api, caller: Caller, request: Request, next: Next) -> Response {
    let number = api.acts.fetch_add(1, Ordering::Relaxed);
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let mut act = Act { number, caller: &caller, method: &method, path: &path, object: None, status: None };
    if let Err(error) = api.parts.audit.act(&act).await {
        tracing::error!(%error, "audit log cannot be written, administrative act refused");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the audit log cannot be written")
            .into_response();
    }
    let response = next.run(request).await;
    let object = response.extensions().get::<Object>().cloned();
    act.object = object.as_ref().map(|Object(object)| object.as_str());
    act.status = Some(response.status().as_u16());
    if let Err(error) = api.parts.audit.act(&act).await {
        tracing::error!(%error, method, path, "outcome of an administrative act is missing in the audit log");
    }
    response
}

/// In front of each endpoint: whether the caller may use it.
async fn guard(scope: Option<Scope>, request: Request, next: Next) -> Response {
    let Some(scope) = scope else { return next.run(request).await };
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.may(scope) => next.run(request).await,
        None | Some(Caller::Anonymous) => {
            Problem::new(StatusCode::UNAUTHORIZED, "a token is needed").into_response()
        }
        Some(_) => Problem::new(StatusCode::FORBIDDEN, format!("this needs the scope {:?}", scope.name()))
            .into_response(),
    }
}
