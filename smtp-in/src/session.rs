//! One session: the loop, and what is remembered between its stages.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ::mail::envelope::Envelope;
use bytes::Bytes;
use directory::{Login, Principal, ScramLogin};
use net::pump::{Pump, PumpError};
use net::shutdown::ShutdownGuard;
use net::stream::{Peer, Stream};
use queue::Resolved;
use smtp_protocol::command::HelloKind;
use smtp_protocol::server::{Event, Server};

use crate::data::Writer;
use crate::elsewhere::Proving;
use crate::service::{Inner, Role};
use crate::{accept, auth, connect, data, elsewhere, hello, mail, policy, rcpt};

/// A session, from its greeting to its end.
pub(crate) struct Session {
    pub(crate) service: Arc<Inner>,
    pub(crate) pump: Pump<Server>,
    pub(crate) guard: ShutdownGuard,
    pub(crate) client: Client,
    /// Tells when the client's login is withdrawn.
    pub(crate) login: Option<Login>,
    /// A SCRAM exchange under way. Dropped without success it counts as a failed login.
    pub(crate) scram: Option<ScramLogin>,
    /// The same with a user of another region.
    pub(crate) proving: Option<Box<Proving>>,
    /// The node of another region that goes on with this session, once the login has been answered.
    pub(crate) elsewhere: Option<Box<Stream>>,
    pub(crate) transaction: Option<Transaction>,
    /// Set while a message comes.
    pub(crate) writer: Option<Writer>,
}

/// Waits until the login is withdrawn; before there is one, for ever.
async fn until_withdrawn(login: &mut Option<Login>) {
    match login {
        Some(login) => login.withdrawn().await,
        None => std::future::pending().await,
    }
}

/// What is known of the client.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it has connected to.
    pub(crate) role: Role,
    /// What ties the log lines of one session together; it goes into the queue entry as well.
    pub(crate) session_id: String,
    /// Where it is, and how it came.
    pub(crate) peer: Peer,
    /// How it said hello, and what it calls itself.
    pub(crate) hello: Option<(HelloKind, String)>,
    /// Who has logged in.
    pub(crate) principal: Option<Principal>,
}

/// From MAIL to the reply to the message.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) envelope: Envelope,
    /// What each recipient was found to be; as many as the envelope has.
    pub(crate) resolved: Vec<Resolved>,
    /// What the client thinks the message's size is.
    pub(crate) declared_size: Option<u64>,
}

impl Session {
    pub(crate) fn new(
        service: Arc<Inner>,
        role: Role,
        pump: Pump<Server>,
        guard: ShutdownGuard,
        id: String,
    ) -> Self {
        let peer = pump.peer().clone();
        let client = Client { role, session_id: id, peer, hello: None, principal: None };
        Self {
            service,
            pump,
            guard,
            client,
            login: None,
            scram: None,
            proving: None,
            elsewhere: None,
            transaction: None,
            writer: None,
        }
    }

    /// Serves the client until it has gone.
    pub(crate) async fn run(mut self) -> Result<(), PumpError> {
        // Whoever has logged in has been greeted.
        match &self.client.principal {
            Some(principal) => self.login = Some(self.service.directory.logged_in(principal)),
            None => connect::greet(&mut self),
        }
        let (mut leaving, mut withdrawn) = (false, false);
        loop {
            if self.pump.machine().is_between_transactions() {
                match (leaving, withdrawn) {
                    (true, _) => self.pump.machine().close(&policy::shutting_down()),
                    (_, true) => self.pump.machine().close(&policy::login_withdrawn()),
                    _ => {}
                }
            }
            let event = tokio::select! {
                biased;
                () = self.guard.requested(), if !leaving => {
                    // A transaction under way may come to its end; the shutdown's patience bounds it.
                    leaving = true;
                    continue;
                }
                () = until_withdrawn(&mut self.login), if !withdrawn => {
                    withdrawn = true;
                    continue;
                }
                event = self.pump.next() => event?,
            };
            let Some(event) = event else { return Ok(()) };
            if let Event::Body(piece) = event {
                self.body(piece).await;
            } else {
                // Boxed, so that a session that waits does not hold the room that the largest answer needs.
                Box::pin(self.answer(event)).await;
            }
            if let Some(home) = self.elsewhere.take() {
                return Box::pin(elsewhere::hand_over(self, *home)).await;
            }
        }
    }

    async fn answer(&mut self, event: Event) {
        match event {
            Event::Hello { kind, domain } => hello::greeted(self, kind, domain),
            Event::TlsStarted => hello::encrypted(self),
            Event::Login(login) => auth::login(self, login).await,
            Event::ScramLookUp { authcid } => auth::look_up(self, &authcid).await,
            Event::ScramProved { authzid, authcid } => {
                auth::proved(self, authzid.as_deref(), &authcid).await;
            }
            Event::LoginFailed => {
                self.scram = None;
                self.proving = None;
            }
            Event::Mail { reverse_path, parameters } => {
                match mail::begin(&self.service, &self.client, reverse_path, parameters).await {
                    Ok(transaction) => {
                        self.transaction = Some(transaction);
                        self.pump.machine().reply(&policy::sender_accepted());
                    }
                    Err(reply) => self.pump.machine().reply(&reply),
                }
            }
            Event::Rcpt { forward_path, parameters } => {
                let reply = match &mut self.transaction {
                    Some(transaction) => {
                        rcpt::add(&self.service, &self.client, transaction, forward_path, parameters).await
                    }
                    None => policy::no_transaction(),
                };
                self.pump.machine().reply(&reply);
            }
            Event::BodyStart => {
                match data::begin(&self.service, &self.client, self.transaction.as_ref()).await {
                    Ok(writer) => {
                        self.writer = Some(writer);
                        self.pump.machine().proceed();
                    }
                    Err(reply) => {
                        self.forget();
                        self.pump.machine().reply(&reply);
                    }
                }
            }
            Event::Body(piece) => self.body(piece).await,
            Event::EndOfBody => {
                let replies = match (self.transaction.take(), self.writer.take()) {
                    (Some(transaction), Some(writer)) => {
                        accept::decide(&self.service, &self.client, transaction, writer).await
                    }
                    _ => vec![policy::no_transaction()],
                };
                self.pump.machine().replies(&replies);
            }
            Event::BodyRefused | Event::Reset => self.forget(),
        }
    }

    async fn body(&mut self, piece: Bytes) {
        if let Err(reply) = data::write(self.writer.as_mut(), piece).await {
            self.forget();
            self.pump.machine().refuse_body(&reply);
        }
    }

    /// The transaction is over, and what there is of its message is given up.
    pub(crate) fn forget(&mut self) {
        self.transaction = None;
        self.writer = None;
    }
}

impl Client {
    /// Where the client is, for limits and logs; a local socket counts as this machine.
    pub(crate) fn remote_ip(&self) -> IpAddr {
        self.peer.remote.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}
