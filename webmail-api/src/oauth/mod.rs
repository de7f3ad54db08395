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

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::routing::{get, post};
use directory::Directory;

pub use config::{Config, ConfiguredClient};

/// The issuer. Cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    directory: Directory,
    /// `https://` and the name under which browsers come here.
    origin: String,
    /// What client ids are signed with.
    key: hmac::Key,
}

/// Where a request came from. The serving side puts it into each request, for the throttling of logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub IpAddr);

impl Issuer {
    /// An issuer at this origin (`https://mail.example.org`), over this directory.
    pub fn new(config: Config, directory: Directory, origin: String) -> Self {
        let key = directory.derived_key(b"postrider oauth clients 1");
        Self { inner: Arc::new(Inner { config, directory, origin, key }) }
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
