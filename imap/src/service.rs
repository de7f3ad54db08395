//! The service: what all sessions have in common.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use directory::Directory;
use futures_util::future::BoxFuture;
use imap_protocol::server::Server;
use net::pump::{Pump, PumpLimits};
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use net::tls::TlsServer;
use region::Regions;
use storage::Storage;
use tracing::Instrument;

use crate::config::Config;
use crate::session::{Session, User};

/// What a listener says to a connection that is over its limits.
pub const REFUSAL: &[u8] = b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n";

/// The IMAP service. Cheap to clone.
#[derive(Clone)]
pub struct Imap {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) tls: Option<TlsServer>,
    /// Whom to ask about accounts of other regions, where there are any.
    pub(crate) regions: Option<Regions>,
    /// What says in which messages a text may be, where there is an index.
    pub(crate) search: OnceLock<search::Search>,
    sessions: AtomicU64,
}

impl fmt::Debug for Imap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Imap {
    /// A service over these stores. `tls` is what STARTTLS answers with; without it STARTTLS is not offered.
    pub fn new(config: Config, storage: Storage, directory: Directory, tls: Option<TlsServer>) -> Self {
        Self::in_region(config, storage, directory, tls, None)
    }

    /// The same, which hands clients whose accounts are in other regions on to those.
    pub fn in_region(
        config: Config,
        storage: Storage,
        directory: Directory,
        tls: Option<TlsServer>,
        regions: Option<Regions>,
    ) -> Self {
        let sessions = AtomicU64::new(0);
        let search = OnceLock::new();
        Self { inner: Arc::new(Inner { config, storage, directory, tls, regions, search, sessions }) }
    }

    /// From now on SEARCH asks an index which messages need not be looked at. It answers the same without one, later.
    pub fn search_with(&self, search: search::Search) {
        // Only who wires the service has an index for it.
        let _ = self.inner.search.set(search);
    }

    /// Serves one connection to its end, or until the process wants to end. Implicit TLS is the listener's affair.
    pub fn serve(&self, stream: Stream, shutdown: ShutdownGuard) -> BoxFuture<'static, ()> {
        // Boxed, so that all of a session is compiled with this crate and not with whoever serves it.
        Box::pin(self.clone().session(stream, shutdown, None))
    }

    /// A session from its greeting on, or from the login on of a user who has been told of it.
    pub(crate) async fn session(self, stream: Stream, shutdown: ShutdownGuard, user: Option<User>) {
        let number = self.inner.sessions.fetch_add(1, Ordering::Relaxed);
        let remote = stream.peer().remote.clone();
        let encrypted = stream.is_encrypted();
        let span = tracing::info_span!("imap", session_id = number, remote_ip = %remote);
        let settings = self.inner.config.machine(self.inner.tls.is_some());
        let machine = match user {
            None => Server::new(settings, encrypted),
            Some(_) => Server::logged_in(settings, encrypted),
        };
        let limits = PumpLimits {
            write_stall_max: Duration::from_secs(self.inner.config.write_stall_seconds_max),
            output_bytes_max: self.inner.config.output_bytes_max,
            ..PumpLimits::default()
        };
        let mut pump = Pump::new(stream, machine, limits);
        if let Some(tls) = &self.inner.tls {
            pump = pump.with_tls_server(tls.clone());
        }
        metrics::gauge!("postrider_imap_sessions").increment(1.0);
        Session::new(self.inner.clone(), pump, shutdown, user).run().instrument(span).await;
        metrics::gauge!("postrider_imap_sessions").decrement(1.0);
    }
}
