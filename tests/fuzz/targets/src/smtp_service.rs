//! A mail service in memory, which decides by the local parts of addresses.

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

/// Largest message that the service takes.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 2000;

static VERIFIER: LazyLock<ScramVerifier> =
    LazyLock::new(|| ScramVerifier::derive(&"secret".into(), vec![1; 16], NonZeroU32::new(4096).unwrap()));

/// One of the kinds of server that there are.
pub(crate) fn settings(kind: u32) -> Settings {
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        recipients_max: 3,
        text_line_bytes_max: 100,
        error_delay_ms: 1,
        ..Limits::default()
    };
    let mx = Settings {
        hostname: "mx.example.test".into(),
        lmtp: false,
        starttls: true,
        requires_tls: false,
        requires_auth: false,
        mechanisms: Vec::new(),
        passwords_in_clear: false,
        wishes: Wishes::default(),
        limits,
    };
    let all = vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];
    match kind % 4 {
        0 => mx,
        1 => Settings { lmtp: true, starttls: false, ..mx },
        2 => {
            let wishes = Wishes { hold_seconds_max: Some(86_400), by_seconds_min: Some(60), priority: true };
            Settings { requires_auth: true, mechanisms: all, passwords_in_clear: true, wishes, ..mx }
        }
        _ => Settings {
            mechanisms: all,
            limits: Limits {
                errors_max: 5,
                errors_before_delay: 1,
                idle_commands_max: 6,
                transactions_max: 2,
                command_line_bytes_max: 80,
                auth_line_bytes_max: 60,
                ..mx.limits
            },
            ..mx
        },
    }
}

/// A session and what came of it.
pub(crate) struct Session {
    server: Server,
    pub(crate) now: Instant,
    /// What was sent to the client.
    pub(crate) output: Vec<u8>,
    /// What the service was told, but for the pieces of bodies.
    pub(crate) events: Vec<String>,
    /// The body that is coming or has come.
    pub(crate) message: Vec<u8>,
    /// The bodies that were accepted.
    pub(crate) accepted: Vec<Vec<u8>>,
    pub(crate) wants_tls: bool,
    pub(crate) closed: bool,
    lmtp: bool,
    recipients: Vec<String>,
    steps: usize,
}

impl Session {
    pub(crate) fn new(settings: Settings, encrypted: bool) -> Self {
        let lmtp = settings.lmtp;
        let mut server = Server::new(Arc::new(settings), encrypted);
        server.greet();
        let mut session = Self {
            server,
            now: Instant::now(),
            output: Vec::new(),
            events: Vec::new(),
            message: Vec::new(),
            accepted: Vec::new(),
            wants_tls: false,
            closed: false,
            lmtp,
            recipients: Vec::new(),
            steps: 0,
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

    /// Time goes by, so that late replies come.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.run();
    }

    /// How often the machine has been asked what to do.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    fn run(&mut self) {
        while !self.closed && !self.wants_tls {
            self.steps += 1;
            match self.server.next(self.now) {
                Step::Event(event) => self.decide(event),
                Step::Write(bytes) => {
                    assert!(!bytes.is_empty(), "nothing is written");
                    self.output.extend_from_slice(&bytes);
                }
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
            Event::Hello { domain, .. } if domain.starts_with("no") => {
                server.reply(&Reply::new(550, status(5, 7, 1), "Not you"));
            }
            Event::Hello { .. } => server.proceed(),
            Event::Login(login) if login.password.expose() == "secret" => server.authenticated(),
            Event::Login(_) => server.authentication_failed(&rejected()),
            Event::ScramLookUp { .. } => server.scram_verifier(VERIFIER.clone()),
            Event::ScramProved { .. } => server.authenticated(),
            Event::Mail { reverse_path, .. } => {
                self.recipients.clear();
                self.message.clear();
                if reverse_path.address().is_some_and(|address| address.local().starts_with("no")) {
                    server.reply(&Reply::new(550, status(5, 7, 1), reverse_path.to_string()));
                } else {
                    server.reply(&ok(status(2, 1, 0), reverse_path.to_string()));
                }
            }
            Event::Rcpt { forward_path, .. } => {
                let local = match &forward_path {
                    ForwardPath::Postmaster => "postmaster",
                    ForwardPath::Address(address) => address.local(),
                };
                if local.starts_with("no") {
                    server.reply(&Reply::new(550, status(5, 1, 1), format!("No {local}")));
                } else if local.starts_with("full") {
                    server.reply(&Reply::new(452, status(4, 2, 2), "Mailbox full"));
                } else {
                    self.recipients.push(local.to_owned());
                    server.reply(&ok(status(2, 1, 5), "OK"));
                }
            }
            Event::BodyStart if self.recipients.iter().any(|local| local.starts_with("late")) => {
                server.reply(&Reply::new(452, status(4, 3, 1), "No room"));
            }
            Event::BodyStart => server.proceed(),
            Event::Body(piece) => {
                assert!(!piece.is_empty(), "an empty piece");
                self.message.extend_from_slice(&piece);
                assert!(self.message.len() as u64 <= MESSAGE_BYTES_MAX, "more than the limit is given out");
                if self.recipients.iter().any(|local| local.starts_with("disk")) {
                    server.refuse_body(&Reply::new(452, status(4, 3, 1), "No room"));
                }
            }
            Event::EndOfBody => {
                self.events.push(format!("{:?} for {:?}", self.message, self.recipients));
                self.accepted.push(std::mem::take(&mut self.message));
                if self.lmtp {
                    let replies = self.recipients.iter().map(|local| match local.as_str() {
                        "gone" => Reply::new(452, status(4, 2, 2), "Mailbox full"),
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
