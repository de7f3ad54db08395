//! A service in memory with a fixed policy, for tests of the machines.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use machine::{Machine, Step};
use sasl::Mechanism;
use sasl::scram::ScramVerifier;
use smtp_protocol::reply::{Reply, ok};
use smtp_protocol::server::{Event, ForwardPath, Limits, Server, Settings, rejected};
use smtp_protocol::status::status;
use smtp_protocol::wish::Wishes;

static VERIFIER: LazyLock<ScramVerifier> =
    LazyLock::new(|| ScramVerifier::derive(&"secret".into(), vec![1; 16], NonZeroU32::new(4096).unwrap()));

/// What kind of server a test talks to.
pub(crate) fn settings(kind: &str) -> Settings {
    let base = Settings {
        hostname: "mx.example.test".into(),
        lmtp: false,
        starttls: true,
        requires_tls: false,
        requires_auth: false,
        mechanisms: Vec::new(),
        passwords_in_clear: false,
        wishes: Wishes::default(),
        limits: Limits { message_bytes_max: 1000, recipients_max: 3, ..Limits::default() },
    };
    match kind {
        "mx" => base,
        "lmtp" => Settings { lmtp: true, starttls: false, ..base },
        "submission" => Settings {
            requires_auth: true,
            mechanisms: vec![
                Mechanism::ScramSha256,
                Mechanism::Plain,
                Mechanism::Login,
                Mechanism::OAuthBearer,
                Mechanism::XOAuth2,
            ],
            wishes: Wishes { hold_seconds_max: Some(86_400), by_seconds_min: Some(60), priority: true },
            ..base
        },
        "small" => Settings {
            limits: Limits {
                errors_max: 3,
                errors_before_delay: 1,
                idle_commands_max: 5,
                transactions_max: 2,
                text_line_bytes_max: 20,
                ..base.limits
            },
            ..base
        },
        kind => panic!("no settings for {kind}"),
    }
}

/// The machine, its service, and what came out.
pub(crate) struct Session {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    /// What was sent to the client and not looked at yet.
    pub(crate) output: Vec<u8>,
    /// What the service has heard, in order; pieces of one body are joined.
    pub(crate) events: Vec<String>,
    pub(crate) message: Vec<u8>,
    pub(crate) wants_tls: bool,
    pub(crate) closed: bool,
    lmtp: bool,
    recipients: Vec<String>,
    verifier: ScramVerifier,
}

impl Session {
    pub(crate) fn new(settings: Settings) -> Self {
        let lmtp = settings.lmtp;
        let mut server = Server::new(Arc::new(settings), false);
        server.greet();
        let mut session = Self {
            server,
            now: Instant::now(),
            output: Vec::new(),
            events: Vec::new(),
            message: Vec::new(),
            wants_tls: false,
            closed: false,
            lmtp,
            recipients: Vec::new(),
            verifier: VERIFIER.clone(),
        };
        session.run();
        session
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.server.input(bytes, self.now);
        self.run();
    }

    pub(crate) fn end_of_input(&mut self) {
        self.server.end_of_input(self.now);
        self.run();
    }

    pub(crate) fn start_tls(&mut self) {
        assert!(std::mem::take(&mut self.wants_tls), "the machine does not want TLS");
        self.server.tls_started(self.now);
        self.run();
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.run();
    }

    fn run(&mut self) {
        while !self.closed && !self.wants_tls {
            match self.server.next(self.now) {
                Step::Event(event) => self.decide(event),
                Step::Write(bytes) => self.output.extend_from_slice(&bytes),
                Step::StartTls => self.wants_tls = true,
                Step::Wait { until } => {
                    assert!(until.is_none_or(|until| until > self.now), "waits for the past");
                    break;
                }
                Step::Close => self.closed = true,
            }
        }
    }

    fn decide(&mut self, event: Event) {
        if !matches!(event, Event::Body(_)) {
            self.events.push(format!("{event:?}"));
        }
        let server = &mut self.server;
        match event {
            Event::Hello { domain, .. } if domain == "refused.example" => {
                server.reply(&Reply::new(550, status(5, 7, 1), "Not you"));
            }
            Event::Hello { .. } => server.proceed(),
            Event::Login(login) => {
                if login.authcid == "alice" && login.password.expose() == "secret" {
                    server.authenticated();
                } else {
                    server.authentication_failed(&rejected());
                }
            }
            Event::ScramLookUp { authcid } if authcid == "alice" => {
                server.scram_verifier(self.verifier.clone());
            }
            Event::ScramLookUp { authcid } => {
                server.scram_verifier(ScramVerifier::of_nobody(&[0; 32], &authcid, 4096));
            }
            Event::ScramProved { .. } => server.authenticated(),
            Event::Mail { reverse_path, .. } => {
                self.recipients.clear();
                self.message.clear();
                let local = reverse_path.address().map(|address| address.local().to_owned());
                if local.as_deref() == Some("refused") {
                    server.reply(&Reply::new(550, status(5, 7, 1), "Sender refused"));
                } else {
                    server.reply(&ok(status(2, 1, 0), "OK"));
                }
            }
            Event::Rcpt { forward_path, .. } => {
                let local = match &forward_path {
                    ForwardPath::Postmaster => "postmaster",
                    ForwardPath::Address(address) => address.local(),
                };
                match local {
                    "nobody" => server.reply(&Reply::new(550, status(5, 1, 1), "No such user")),
                    "full" => server.reply(&Reply::new(452, status(4, 2, 2), "Mailbox full")),
                    local => {
                        self.recipients.push(local.to_owned());
                        server.reply(&ok(status(2, 1, 5), "OK"));
                    }
                }
            }
            Event::BodyStart if self.recipients.iter().any(|local| local == "nodisk") => {
                server.reply(&Reply::new(452, status(4, 3, 1), "Disk full"));
            }
            Event::BodyStart => server.proceed(),
            Event::Body(piece) => {
                assert!(!piece.is_empty());
                self.message.extend_from_slice(&piece);
                if self.recipients.iter().any(|local| local == "disk") {
                    server.refuse_body(&Reply::new(452, status(4, 3, 1), "Disk full"));
                }
            }
            Event::EndOfBody => {
                let text = String::from_utf8_lossy(&self.message).into_owned();
                self.events.push(format!("accepted for {} {text:?}", self.recipients.join(",")));
                if self.lmtp {
                    let replies = self.recipients.iter().map(|local| match local.as_str() {
                        "late" => Reply::new(452, status(4, 2, 2), "Mailbox full"),
                        _ => ok(status(2, 1, 5), "Delivered"),
                    });
                    server.replies(&replies.collect::<Vec<_>>());
                } else {
                    server.reply(&ok(status(2, 0, 0), "Queued"));
                }
            }
            Event::TlsStarted | Event::LoginFailed | Event::BodyRefused | Event::Reset => {}
        }
    }
}
