//! The server's machine.
//!
//! It gives an [`Event`] for everything that the service has to decide or to do, and then does nothing until the
//! service has answered: [`Server::proceed`] or [`Server::reply`], and their kin for logins. What is wrong by the
//! rules of the protocol it answers by itself. The order of replies is the order of commands, pipelined or not, and
//! they are sent together where the client waits for none of them.

mod auth;
mod body;
mod limits;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use machine::{Machine, Step};
use mail::address::{Address, ReversePath};
use sasl::Mechanism;
use sasl::server::{Binding, PlainLogin};

use crate::command::HelloKind;
use crate::line::LineReader;
use crate::parameter::{MailParameters, RcptParameters};
use crate::reply::Reply;
use crate::status::status;
use crate::wish::Wishes;

pub use auth::rejected;
pub use limits::Limits;

use auth::AuthState;
use body::BodyState;
use session::{Question, Transaction};

/// What kind of server this is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name in the greeting and in the answer to EHLO.
    pub hostname: String,
    /// LMTP instead of SMTP: LHLO, and one reply to the body for each recipient (RFC 2033).
    pub lmtp: bool,
    /// STARTTLS is offered while the connection is plain.
    pub starttls: bool,
    /// MAIL needs TLS first (530).
    pub requires_tls: bool,
    /// MAIL needs a login first (530): submission (RFC 6409 §4.3).
    pub requires_auth: bool,
    /// The mechanisms that are offered, in this order; none: no AUTH at all.
    pub mechanisms: Vec<Mechanism>,
    /// Mechanisms that send the password work without TLS too. For loopback and tests.
    pub passwords_in_clear: bool,
    /// What a sender may wish of when a message is delivered.
    pub wishes: Wishes,
    /// The limits.
    pub limits: Limits,
}

/// What a recipient's path can be: RFC 5321 §4.5.1 wants `Postmaster` taken without a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// An address.
    Address(Address),
    /// `<Postmaster>`.
    Postmaster,
}

/// What the service decides or does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client has said hello; what transaction there was is over. Answer: `proceed` or `reply` with a refusal.
    Hello {
        /// How.
        kind: HelloKind,
        /// What it calls itself.
        domain: String,
    },
    /// The connection is encrypted now; all that was said before is forgotten (RFC 3207 §4.2). No answer.
    TlsStarted,
    /// Is this login right? Answer: `authenticated` or `authentication_failed`.
    Login(PlainLogin),
    /// A verifier is needed. Answer: `scram_verifier` or `authentication_failed`.
    ScramLookUp {
        /// Who the client says it is.
        authcid: String,
    },
    /// The client has proved to be `authcid`. Answer: `authenticated` or `authentication_failed`.
    ScramProved {
        /// As whom it wants to act, if it says so.
        authzid: Option<String>,
        /// Who it is.
        authcid: String,
    },
    /// A SCRAM exchange that was begun has failed; the client has been told. No answer.
    LoginFailed,
    /// A transaction begins. Answer: `reply`.
    Mail {
        /// The sender.
        reverse_path: ReversePath,
        /// Its parameters.
        parameters: MailParameters,
    },
    /// A recipient. Answer: `reply`.
    Rcpt {
        /// The recipient.
        forward_path: ForwardPath,
        /// Its parameters.
        parameters: RcptParameters,
    },
    /// The message begins. Answer: `proceed` or `reply` with a refusal, which ends the transaction.
    BodyStart,
    /// Bytes of the message, as they are to be stored. No answer; `refuse_body` if they cannot be.
    Body(Bytes),
    /// The message will not be taken, and the client will be told at its end: the transaction is over. No answer.
    BodyRefused,
    /// The message is complete. Answer: `reply` (SMTP) or `replies` (LMTP); then the transaction is over.
    EndOfBody,
    /// The transaction, if there was one, is over. No answer.
    Reset,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    phase: Phase,
    input: BytesMut,
    lines: LineReader,
    output: BytesMut,
    /// An event that waits until the output before it has been given out.
    held: Option<Event>,
    encrypted: bool,
    binding: Binding,
    hello: Option<HelloKind>,
    authenticated: bool,
    transaction: Option<Transaction>,
    counts: Counts,
    /// The wall clock, as the service told it last.
    time: u64,
    /// Since when the client is waited for; set anew with each line, so that a line byte by byte gains nothing.
    waiting_since: Option<Instant>,
    /// Replies to clients that make many errors are held back until then.
    tarpit: Tarpit,
    ended: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    errors: u32,
    idle_commands: u32,
    login_failures: u32,
    transactions: u32,
}

#[derive(Debug, Clone, Copy)]
enum Tarpit {
    Open,
    Owed,
    Until(Instant),
}

#[derive(Debug)]
enum Phase {
    /// The service has to greet or to refuse.
    Connected,
    /// A command line is expected.
    Command,
    /// The service has to answer.
    Asked(Question),
    /// A login is going on.
    Auth(Box<AuthState>),
    /// A body is coming.
    Body(Box<BodyState>),
    /// The step has been given out; the driver will call `tls_started`.
    StartTls { given: bool },
    /// What the client says is somebody else's to hear.
    HandedOver,
    /// All that is left is output.
    Closing,
}

impl Server {
    /// A connection that has just been made; `encrypted` when TLS came first.
    pub fn new(settings: Arc<Settings>, encrypted: bool) -> Self {
        Self {
            settings,
            phase: Phase::Connected,
            input: BytesMut::new(),
            lines: LineReader::default(),
            output: BytesMut::new(),
            held: None,
            encrypted,
            binding: Binding::None,
            hello: None,
            authenticated: false,
            transaction: None,
            counts: Counts::default(),
            time: 0,
            waiting_since: None,
            tarpit: Tarpit::Open,
            ended: false,
        }
    }

    /// A session that another server hands over, whose client has said hello and logged in there, encrypted or not.
    pub fn logged_in(settings: Arc<Settings>, hello: HelloKind) -> Self {
        let this = Self::new(settings, true);
        Self { phase: Phase::Command, hello: Some(hello), authenticated: true, ..this }
    }

    /// What the client has said behind the last command; for a session that was handed over.
    pub fn into_input(self) -> Bytes {
        self.input.freeze()
    }

    /// Greets the client.
    pub fn greet(&mut self) {
        assert!(matches!(self.phase, Phase::Connected), "a client is greeted once");
        let protocol = if self.settings.lmtp { "LMTP" } else { "ESMTP" };
        let text = format!("{} {protocol} ready", self.settings.hostname);
        self.write(&Reply::bare(220, text));
        self.phase = Phase::Command;
    }

    /// Says this and closes; for refusals at connect and for shutdowns. It may be called at any time; within a body
    /// the client sees it where it expects the reply to the body.
    pub fn close(&mut self, reply: &Reply) {
        if !matches!(self.phase, Phase::Closing) {
            self.write(reply);
            self.tarpit = Tarpit::Open;
            self.phase = Phase::Closing;
        }
    }

    /// Whether the client has an answer to wait for or a message to send: not a moment to say goodbye.
    pub fn is_between_transactions(&self) -> bool {
        self.transaction.is_none() && matches!(self.phase, Phase::Command)
    }

    /// Whether the client may log in with channel binding, and to what.
    pub fn bind_channel(&mut self, exporter: Option<[u8; 32]>) {
        let offered = self.settings.mechanisms.contains(&Mechanism::ScramSha256Plus);
        self.binding = match exporter {
            Some(exporter) if offered => Binding::Exporter(exporter),
            _ => Binding::None,
        };
    }

    /// The wall clock (unix seconds), which FUTURERELEASE is announced by. To be told before EHLO is answered.
    pub fn tell_time(&mut self, now: u64) {
        self.time = now;
    }

    /// Errors that the client has made so far.
    pub fn errors(&self) -> u32 {
        self.counts.errors
    }

    fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    fn write(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
        self.waiting_since = None;
    }

    /// Writes a reply that may be an error, with what follows from too many of them.
    fn answer(&mut self, reply: &Reply) {
        self.write(reply);
        if reply.code == 421 {
            self.phase = Phase::Closing;
        } else if reply.is_permanent() {
            self.count_error();
        }
    }

    fn count_error(&mut self) {
        self.counts.errors += 1;
        if self.counts.errors >= self.limits().errors_max {
            self.write(&Reply::new(421, status(4, 7, 0), "Too many errors"));
            self.phase = Phase::Closing;
        }
        if self.counts.errors > self.limits().errors_before_delay {
            self.tarpit = Tarpit::Owed;
        }
    }

    fn discard_input(&mut self) {
        self.input = BytesMut::new();
        self.lines = LineReader::default();
    }

    /// Output that may go now; the replies to several pipelined commands go together.
    fn take_output(&mut self) -> Option<Step<Event>> {
        (!self.output.is_empty()).then(|| Step::Write(std::mem::take(&mut self.output).freeze()))
    }

    /// Gives an event out, after the replies before it where doing it may take long.
    fn give(&mut self, event: Event) -> Step<Event> {
        let slow = matches!(event, Event::EndOfBody | Event::Login(_) | Event::ScramLookUp { .. });
        match if slow { self.take_output() } else { None } {
            Some(write) => {
                self.held = Some(event);
                write
            }
            None => Step::Event(event),
        }
    }

    fn wait(&mut self, limit: Duration, now: Instant) -> Step<Event> {
        if let Some(write) = self.take_output() {
            return write;
        }
        if self.ended {
            self.phase = Phase::Closing;
            return Step::Close;
        }
        let until = *self.waiting_since.get_or_insert(now) + limit;
        if now >= until {
            self.close(&Reply::new(421, status(4, 4, 2), "Timeout"));
            return self.take_output().unwrap_or(Step::Close);
        }
        if self.input.is_empty() {
            // An idle session keeps no buffer.
            self.input = BytesMut::new();
        }
        Step::Wait { until: Some(until) }
    }

    /// Whether replies are held back at the moment.
    fn held_back(&mut self, now: Instant) -> Option<Step<Event>> {
        if let Tarpit::Owed = self.tarpit {
            self.tarpit = Tarpit::Until(now + Duration::from_millis(self.limits().error_delay_ms));
        }
        let Tarpit::Until(until) = self.tarpit else { return None };
        if now < until && !self.ended {
            if self.input.len() > self.limits().delayed_input_bytes_max {
                // It goes on talking while its errors are answered; there is no reason to keep all of it.
                self.discard_input();
                self.close(&Reply::new(421, status(4, 7, 0), "Too many errors"));
                return None;
            }
            return Some(Step::Wait { until: Some(until) });
        }
        self.tarpit = Tarpit::Open;
        None
    }
}

impl Machine for Server {
    type Event = Event;

    fn input(&mut self, bytes: &[u8], _now: Instant) {
        if !matches!(self.phase, Phase::Closing) {
            self.input.extend_from_slice(bytes);
        }
    }

    fn end_of_input(&mut self, _now: Instant) {
        self.ended = true;
    }

    fn next(&mut self, now: Instant) -> Step<Event> {
        if let Some(event) = self.held.take() {
            return Step::Event(event);
        }
        loop {
            if let Some(wait) = self.held_back(now) {
                return wait;
            }
            let step = match &mut self.phase {
                Phase::Command => self.command(now),
                Phase::Body(_) => self.body(now),
                Phase::Auth(_) => self.auth(now),
                Phase::Connected | Phase::Asked(_) | Phase::HandedOver => {
                    return self.take_output().unwrap_or(Step::Wait { until: None });
                }
                Phase::StartTls { given } => {
                    let given = std::mem::replace(given, true);
                    return match self.take_output() {
                        Some(write) => {
                            self.phase = Phase::StartTls { given: false };
                            write
                        }
                        None if given => Step::Wait { until: None },
                        None => Step::StartTls,
                    };
                }
                Phase::Closing => return self.take_output().unwrap_or(Step::Close),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn tls_started(&mut self, _now: Instant) {
        // RFC 3207 §4.2: nothing that was learned before the handshake counts, and nothing that was sent before it.
        self.discard_input();
        self.encrypted = true;
        self.hello = None;
        self.authenticated = false;
        self.transaction = None;
        self.phase = Phase::Command;
        self.held = Some(Event::TlsStarted);
    }
}
