//! The service: what sessions have in common.

use std::sync::Arc;
use std::time::Duration;

use ::mail::id::AccountId;
use directory::{Directory, Principal};
use futures_util::future::BoxFuture;
use metrics::{counter, gauge};
use net::pump::{Pump, PumpError, PumpLimits};
use net::shutdown::ShutdownGuard;
use net::stream::Stream;
use net::tls::TlsServer;
use queue::Queue;
use region::Regions;
use sasl::Mechanism;
use smtp_protocol::command::HelloKind;
use smtp_protocol::server::{Server, Settings};
use smtp_protocol::wish::Wishes;
use storage::Storage;
use tracing::{Instrument, debug, info_span};

use crate::config::Config;
use crate::sender_limit::SenderLimit;
use crate::session::Session;
use crate::submission;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Other servers' mail for users here. Port 25.
    Mx,
    /// Users' mail for anybody. Ports 587 and 465.
    Submission,
    /// Mail from systems that are trusted to have looked at it, one answer for each recipient.
    Lmtp,
}

impl Role {
    /// What logs and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Submission => "submission",
            Self::Lmtp => "lmtp",
        }
    }
}

/// The service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SmtpIn {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) directory: Directory,
    pub(crate) queue: Queue,
    pub(crate) storage: Storage,
    pub(crate) sender_limit: SenderLimit,
    /// Whom to ask about accounts of other regions, where there are any.
    pub(crate) regions: Option<Regions>,
    tls: Option<TlsServer>,
    mx: Arc<Settings>,
    submission: Arc<Settings>,
    lmtp: Arc<Settings>,
}

impl Inner {
    /// Whether a plain connection can come to submit anything.
    pub(crate) fn can_take_submissions(&self) -> bool {
        self.tls.is_some() || self.config.submission_without_tls
    }
}

impl SmtpIn {
    /// Makes the service. Without `tls` there is no STARTTLS, and submission works only where the configuration lets it
    /// work without.
    pub fn new(
        config: Config,
        directory: Directory,
        queue: Queue,
        storage: Storage,
        tls: Option<TlsServer>,
    ) -> Self {
        Self::in_region(config, directory, queue, storage, tls, None)
    }

    /// The same, which hands users whose accounts are in other regions on to those.
    pub fn in_region(
        config: Config,
        directory: Directory,
        queue: Queue,
        storage: Storage,
        tls: Option<TlsServer>,
        regions: Option<Regions>,
    ) -> Self {
        let mx = Settings {
            hostname: config.hostname.clone(),
            lmtp: false,
            starttls: tls.is_some(),
            requires_tls: false,
            requires_auth: false,
            // Users log in at submission; passwords offered to port 25 are mostly guesses.
            mechanisms: Vec::new(),
            passwords_in_clear: false,
            wishes: Wishes::default(),
            limits: config.limits.clone(),
        };
        let submission = Settings {
            requires_tls: !config.submission_without_tls,
            requires_auth: true,
            mechanisms: vec![
                Mechanism::ScramSha256,
                Mechanism::Plain,
                Mechanism::Login,
                Mechanism::OAuthBearer,
                Mechanism::XOAuth2,
            ],
            passwords_in_clear: config.submission_without_tls,
            wishes: submission::wishes(&config),
            ..mx.clone()
        };
        let lmtp = Settings { lmtp: true, starttls: false, ..mx.clone() };
        let (mx, submission, lmtp) = (Arc::new(mx), Arc::new(submission), Arc::new(lmtp));
        let sender_limit = SenderLimit::new(config.user_recipients_per_hour_max);
        let inner =
            Inner { config, directory, queue, storage, sender_limit, regions, tls, mx, submission, lmtp };
        Self { inner: Arc::new(inner) }
    }

    /// Takes one recipient off what a user may write to within an hour, for mail that a user hands in by another way than
    /// this service. `false`: it is used up.
    pub fn may_write_to_one_more(&self, user: AccountId) -> bool {
        self.inner.sender_limit.take(user, std::time::Instant::now())
    }

    /// Serves one connection until it ends or the shutdown ends it.
    pub fn serve(&self, role: Role, stream: Stream, guard: ShutdownGuard) -> BoxFuture<'static, ()> {
        // Boxed, so that all of a session is compiled with this crate and not with whoever serves it.
        Box::pin(self.clone().serve_session(role, stream, guard))
    }

    async fn serve_session(self, role: Role, stream: Stream, guard: ShutdownGuard) {
        let settings = match role {
            Role::Mx => &self.inner.mx,
            Role::Submission => &self.inner.submission,
            Role::Lmtp => &self.inner.lmtp,
        };
        let server = Server::new(Arc::clone(settings), stream.is_encrypted());
        run(self.session(role, stream, server, guard)).await;
    }

    /// Serves a submission that another region hands over; the client has been told that it is logged in. It has called
    /// itself `name`, by EHLO where that is `extended`.
    pub async fn serve_entered(
        &self,
        principal: Principal,
        (extended, name): (bool, String),
        stream: Stream,
        guard: ShutdownGuard,
    ) {
        let kind = if extended { HelloKind::Ehlo } else { HelloKind::Helo };
        let server = Server::logged_in(Arc::clone(&self.inner.submission), kind);
        let mut session = self.session(Role::Submission, stream, server, guard);
        let now = self.inner.queue.clock().now();
        session.pump.machine().tell_time(now);
        session.client.hello = Some((kind, name));
        session.client.principal = Some(principal);
        Box::pin(run(session)).await;
    }

    fn session(&self, role: Role, stream: Stream, server: Server, guard: ShutdownGuard) -> Session {
        let inner = Arc::clone(&self.inner);
        let limits = PumpLimits {
            write_stall_max: Duration::from_secs(inner.config.write_stall_seconds_max),
            ..PumpLimits::default()
        };
        let mut pump = Pump::new(stream, server, limits);
        if let Some(tls) = &inner.tls {
            pump = pump.with_tls_server(tls.clone());
        }
        let id = format!("{:016x}", rand::random::<u64>());
        Session::new(inner, role, pump, guard, id)
    }
}

async fn run(session: Session) {
    let (id, role) = (session.client.session_id.clone(), session.client.role);
    let remote = session.client.peer.remote.clone();
    let span = info_span!("smtp", session_id = %id, role = role.name(), %remote);
    counter!("postrider_smtp_sessions_total", "role" => role.name()).increment(1);
    let open = gauge!("postrider_smtp_sessions_open", "role" => role.name());
    open.increment(1);
    let result = session.run().instrument(span.clone()).await;
    open.decrement(1);
    let _entered = span.enter();
    match result {
        Ok(()) => debug!("session ended"),
        Err(error @ (PumpError::Io(_) | PumpError::Handshake(_))) => {
            debug!(error = %error, cause = ?std::error::Error::source(&error), "session broken off");
        }
        Err(error) => debug!(%error, "session ended"),
    }
}
