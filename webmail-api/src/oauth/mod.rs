//! The installation as its own issuer of tokens (OAuth 2.1): a program sends its user to a page here, where the password is
//! entered, and gets tokens with which it logs in to IMAP, submission and JMAP alike. It never sees the password.
//!
//! ```text
//! program ── /.well-known/oauth-authorization-server ──► where everything is           metadata
//!         ── POST /oauth/register ─────────────────────► a client id                    client
//! browser ── GET, POST /oauth/authorize ───────────────► the page; back with a code     authorize, page
//! program ── POST /oauth/token ────────────────────────► access and refresh token       token
//!         ── POST /oauth/revoke ───────────────────────► they end                       token
//! ```
//!
//! Nothing is stored here: a client id is signed, a code is signed, and a grant is the directory's. Not here: who may log
//! in, and what a token is worth (`directory`).

mod authorize;
mod client;
mod config;
mod metadata;
mod page;
mod token;

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::http::{HeaderMap, Uri};
use axum::routing::{get, post};
use directory::Directory;

pub use config::{Config, ConfiguredClient};

use crate::request;

/// The issuer. Cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    directory: Directory,
    /// Under which origin browsers come here; empty: as they say themselves.
    base_url: String,
    /// What client ids are signed with.
    key: hmac::Key,
}

impl Issuer {
    /// An issuer at this origin (`https://mail.example.org`), over this directory. Empty: at the one under which a client
    /// asks.
    pub fn new(config: Config, directory: Directory, base_url: String) -> Self {
        let key = directory.derived_key(b"postrider oauth clients 1");
        Self { inner: Arc::new(Inner { config, directory, base_url, key }) }
    }

    /// Who it is, to whoever asks this.
    fn origin(&self, headers: &HeaderMap, uri: &Uri) -> String {
        request::base_url(&self.inner.base_url, headers, uri)
    }

    /// Its pages and endpoints.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata::show))
            .route("/oauth/register", post(client::register))
            .route("/oauth/authorize", get(authorize::ask).post(authorize::answer))
            .route("/oauth/token", post(token::issue))
            .route("/oauth/revoke", post(token::revoke))
            .with_state(self.clone())
    }
}
