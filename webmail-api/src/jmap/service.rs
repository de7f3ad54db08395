//! The service: what all connections have in common, and where requests go.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};
use directory::Directory;
use storage::Storage;

use super::calls::Calls;
use super::config::Config;
use super::problem::Problem;
use super::send::Sending;
use super::text::TextSearch;
use super::{api, download, eventsource, guard, page, session, upload};
use crate::oauth::Issuer;

/// JMAP. Cheap to clone.
#[derive(Clone)]
pub struct Jmap {
    pub(crate) inner: Arc<Inner>,
}

/// What JMAP works on.
pub struct Parts {
    /// Limits.
    pub config: Config,
    /// Accounts.
    pub storage: Storage,
    /// Who they belong to.
    pub directory: Directory,
    /// What finds messages by their text.
    pub text: Arc<dyn TextSearch>,
    /// What gives tokens to programs, under the same name.
    pub issuer: Option<Issuer>,
    /// What sends mail; without it, sending is not offered.
    pub sending: Option<Sending>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) text: Arc<dyn TextSearch>,
    pub(crate) calls: Calls,
    pub(crate) sending: Option<Sending>,
    issuer: Option<Issuer>,
}

impl Jmap {
    /// A service over these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { config, storage, directory, text, issuer, sending } = parts;
        let calls = Calls::default();
        Self { inner: Arc::new(Inner { config, storage, directory, text, calls, sending, issuer }) }
    }

    /// Where requests go.
    pub(crate) fn router(&self) -> Router {
        let issuer = self.inner.issuer.as_ref().map(Issuer::router).unwrap_or_default();
        Router::new()
            .route("/", get(page::show))
            .route("/.well-known/jmap", get(session::show))
            .route("/jmap/session", get(session::show))
            .route("/jmap/api", post(api::answer))
            .route("/jmap/upload/{account}", post(upload::take))
            .route("/jmap/download/{account}/{blob}/{name}", get(download::send))
            .route("/jmap/eventsource", get(eventsource::open))
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here") })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
            })
            .with_state(self.clone())
            .merge(issuer)
            .layer(middleware::from_fn_with_state(self.clone(), guard::around))
    }
}

impl fmt::Debug for Jmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jmap").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
