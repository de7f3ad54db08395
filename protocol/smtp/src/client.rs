//! The client's machine: for tests, and for whoever sends mail on.
//!
//! The service says commands by methods, pipelined as it likes, and gets an [`Event::Reply`] for each in their order.
//! The bytes of a body go through [`Client::encode_body`] and then straight to the pump, so that they wait in nobody's
//! memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use machine::{Machine, Step};
use mail::address::{Address, ReversePath};
use sasl::wire;

use crate::command::HelloKind;
use crate::data::{DataEncoder, Violation};
use crate::extension::Extensions;
use crate::line::{Line, LineReader};
use crate::parameter::{MailParameters, RcptParameters};
use crate::reply::{Reply, ReplyError, ReplyReader};

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing: the greeting.
    Connection,
    /// HELO, EHLO or LHLO.
    Hello,
    /// STARTTLS, when it was refused.
    StartTls,
    /// AUTH, with its exchange.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// A chunk by BDAT that is not the last.
    Chunk,
    /// The whole message; under LMTP once for each accepted recipient.
    Body,
    /// RSET.
    Reset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// How long to wait for replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the greeting.
    pub connection: Duration,
    /// For the answers to HELO, EHLO, LHLO, STARTTLS and AUTH.
    pub hello: Duration,
    /// For the answer to MAIL.
    pub mail: Duration,
    /// For the answer to RCPT.
    pub rcpt: Duration,
    /// For the answer to DATA.
    pub data: Duration,
    /// For the answer to the message, or to a chunk of it.
    pub body: Duration,
    /// For the answers to RSET, NOOP and QUIT.
    pub other: Duration,
}

impl Default for Patience {
    /// RFC 5321 §4.5.3.2: a client should wait at least so long. It names nothing for the last.
    fn default() -> Self {
        Self {
            connection: Duration::from_mins(5),
            hello: Duration::from_mins(5),
            mail: Duration::from_mins(5),
            rcpt: Duration::from_mins(5),
            data: Duration::from_mins(2),
            body: Duration::from_mins(10),
            other: Duration::from_mins(5),
        }
    }
}

impl Patience {
    fn for_reply_to(&self, sent: Sent) -> Duration {
        match sent {
            Sent::Connection => self.connection,
            Sent::Hello | Sent::StartTls | Sent::Auth => self.hello,
            Sent::Mail => self.mail,
            Sent::Rcpt => self.rcpt,
            Sent::Data => self.data,
            Sent::Chunk | Sent::Body => self.body,
            Sent::Reset | Sent::Noop | Sent::Quit => self.other,
        }
    }
}

/// What the service gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A reply.
    Reply {
        /// To what.
        to: Sent,
        /// The reply.
        reply: Reply,
    },
    /// STARTTLS was accepted and the handshake has succeeded; what the server announced before is forgotten.
    TlsStarted,
    /// The session is over without a goodbye.
    Failed(Failure),
}

/// Why a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server did not answer in time.
    #[error("no reply to {0:?} in time")]
    TimedOut(Sent),
    /// The server closed the connection while a reply was expected.
    #[error("connection closed before the reply to {0:?}")]
    Closed(Sent),
    /// The server's bytes are no reply.
    #[error("malformed reply")]
    Malformed(#[from] ReplyError),
    /// The server said something that nobody had asked.
    #[error("reply without a command")]
    Unasked,
    /// There were bytes behind the reply to STARTTLS: somebody has written them into the plain connection.
    #[error("bytes before the TLS handshake")]
    Injected,
    /// The server accepted a login without proving what the mechanism makes it prove.
    #[error("the server did not prove itself")]
    Unproved,
}

/// Longest reply line taken. RFC 5321 §4.5.3.1.5 has 512; servers that name their policies at length exceed it.
const REPLY_LINE_BYTES_MAX: usize = 4096;

/// One session.
#[derive(Debug)]
pub struct Client {
    lmtp: bool,
    input: BytesMut,
    lines: LineReader,
    reader: ReplyReader,
    output: BytesMut,
    expected: VecDeque<Sent>,
    /// When the oldest expected reply was first waited for.
    waiting_since: Option<Instant>,
    extensions: Extensions,
    auth: Option<sasl::client::Client>,
    /// Recipients accepted in this transaction.
    recipients: u32,
    encoder: DataEncoder,
    /// The message is on its way: 354 has come, or BDAT was said, and its end was not given out.
    in_body: bool,
    patience: Patience,
    start_tls: bool,
    /// Something was said before the command that is next answered: what is read next is not its answer.
    unasked: bool,
    held: Option<Event>,
    closing: bool,
    ended: bool,
}

impl Client {
    /// A connection that has just been made; the greeting is expected.
    pub fn new(lmtp: bool) -> Self {
        Self {
            lmtp,
            input: BytesMut::new(),
            lines: LineReader::default(),
            reader: ReplyReader::default(),
            output: BytesMut::new(),
            expected: VecDeque::from([Sent::Connection]),
            waiting_since: None,
            extensions: Extensions::default(),
            auth: None,
            recipients: 0,
            encoder: DataEncoder::default(),
            in_body: false,
            patience: Patience::default(),
            start_tls: false,
            unasked: false,
            held: None,
            closing: false,
            ended: false,
        }
    }

    /// Waits for replies as long as this.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Whether the session is over, or will be with what the machine gives out next.
    pub fn is_closing(&self) -> bool {
        self.closing || self.ended
    }

    /// What the server announced last.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Replies that are still to come.
    pub fn expected(&self) -> usize {
        self.expected.len()
    }

    /// EHLO (or LHLO, HELO).
    pub fn hello(&mut self, kind: HelloKind, domain: &str) {
        let verb = match kind {
            HelloKind::Helo => "HELO",
            HelloKind::Ehlo => "EHLO",
            HelloKind::Lhlo => "LHLO",
        };
        self.command(Sent::Hello, &format!("{verb} {domain}"));
    }

    /// STARTTLS; nothing may be said after it before [`Event::TlsStarted`].
    pub fn start_tls(&mut self) {
        self.command(Sent::StartTls, "STARTTLS");
    }

    /// AUTH, and the exchange that follows.
    pub fn auth(&mut self, mut exchange: sasl::client::Client) {
        let mechanism = exchange.mechanism();
        match exchange.initial() {
            // RFC 4954 §4: an empty initial response is `=`.
            Some(initial) if initial.is_empty() => self.command(Sent::Auth, &format!("AUTH {mechanism} =")),
            Some(initial) => {
                self.command(Sent::Auth, &format!("AUTH {mechanism} {}", wire::encode(&initial)));
            }
            None => self.command(Sent::Auth, &format!("AUTH {mechanism}")),
        }
        self.auth = Some(exchange);
    }

    /// MAIL.
    pub fn mail(&mut self, reverse_path: &ReversePath, parameters: &MailParameters) {
        self.recipients = 0;
        self.command(Sent::Mail, &format!("MAIL FROM:{reverse_path}{parameters}"));
    }

    /// RCPT.
    pub fn rcpt(&mut self, address: &Address, parameters: &RcptParameters) {
        self.command(Sent::Rcpt, &format!("RCPT TO:<{address}>{parameters}"));
    }

    /// DATA. When the reply is 354, the message goes through [`Client::encode_body`] and [`Client::end_body`].
    pub fn data(&mut self) {
        self.encoder = DataEncoder::default();
        self.command(Sent::Data, "DATA");
    }

    /// A piece of the message as it goes over the wire after DATA, to be given to the pump.
    pub fn encode_body(&mut self, piece: &[u8]) -> Result<Bytes, Violation> {
        let mut out = BytesMut::with_capacity(piece.len() + 16);
        self.encoder.push(piece, &mut out)?;
        Ok(out.freeze())
    }

    /// The end of the message, to be given to the pump. After an error here or in [`Client::encode_body`] the only way
    /// out is to close the connection, or the server would take what it has for the whole.
    pub fn end_body(&mut self) -> Result<Bytes, Violation> {
        let mut out = BytesMut::new();
        std::mem::take(&mut self.encoder).finish(&mut out)?;
        self.notice_unasked();
        self.in_body = false;
        self.expect_body();
        Ok(out.freeze())
    }

    /// The line before a chunk of `size` octets, to be given to the pump together with them.
    pub fn chunk(&mut self, size: u64, last: bool) -> Bytes {
        let line = self.begin_chunk(size, last);
        self.end_chunk(last);
        line
    }

    /// As [`Client::chunk`], for a chunk whose octets take a while: the time for its answer begins with
    /// [`Client::end_chunk`], and an answer before that ends the session as it does after DATA.
    pub fn begin_chunk(&mut self, size: u64, last: bool) -> Bytes {
        self.notice_unasked();
        self.in_body = true;
        Bytes::from(if last { format!("BDAT {size} LAST\r\n") } else { format!("BDAT {size}\r\n") })
    }

    /// All octets of the chunk are given to the pump.
    pub fn end_chunk(&mut self, last: bool) {
        self.notice_unasked();
        self.in_body = false;
        if last {
            self.expect_body();
        } else {
            self.expected.push_back(Sent::Chunk);
        }
    }

    /// RSET.
    pub fn reset(&mut self) {
        self.command(Sent::Reset, "RSET");
    }

    /// NOOP.
    pub fn noop(&mut self) {
        self.command(Sent::Noop, "NOOP");
    }

    /// QUIT; the session ends with its reply.
    pub fn quit(&mut self) {
        self.command(Sent::Quit, "QUIT");
    }

    /// With nothing to be answered, what has come already answers nothing that is said now.
    fn notice_unasked(&mut self) {
        self.unasked |= self.expected.is_empty() && !self.input.is_empty();
    }

    fn command(&mut self, sent: Sent, line: &str) {
        self.notice_unasked();
        // Addresses and parameters cannot hold line ends by their types; a host name could, and must not.
        self.output.extend(line.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b'?' } else { byte }));
        self.output.extend_from_slice(b"\r\n");
        self.expected.push_back(sent);
    }

    fn expect_body(&mut self) {
        let replies = if self.lmtp { self.recipients } else { 1 };
        self.expected.extend((0..replies).map(|_| Sent::Body));
    }

    /// Takes one reply. `None`: look again.
    fn reply(&mut self, reply: Reply) -> Option<Event> {
        self.waiting_since = None;
        // A server that closes for its own reasons says so at any time (RFC 5321 §3.8).
        if std::mem::take(&mut self.unasked) && reply.code != 421 {
            self.closing = true;
            // It may also have seen enough of the message before its end.
            let enough = self.expected.front() == Some(&Sent::Body) && reply.code >= 400;
            return Some(if enough {
                Event::Reply { to: Sent::Body, reply }
            } else {
                Event::Failed(Failure::Unasked)
            });
        }
        let Some(to) = self.expected.front().copied() else {
            self.closing = true;
            if std::mem::take(&mut self.in_body) && reply.code >= 400 {
                // It has seen enough of the message; what follows of it would be taken for commands. A success cannot
                // be: it has not seen the end.
                return Some(Event::Reply { to: Sent::Body, reply });
            }
            // A server that closes for its own reasons says so (RFC 5321 §3.8).
            return Some(if reply.code == 421 {
                Event::Reply { to: Sent::Noop, reply }
            } else {
                Event::Failed(Failure::Unasked)
            });
        };
        if let (Sent::Auth, 334, Some(auth)) = (to, reply.code, &mut self.auth) {
            let challenge = reply.text.first().and_then(|text| wire::decode(text.trim().as_bytes()).ok());
            match challenge.and_then(|challenge| auth.respond(&challenge).ok()) {
                Some(response) => self.output.extend_from_slice(wire::encode(&response).as_bytes()),
                None => self.output.extend_from_slice(b"*"),
            }
            self.output.extend_from_slice(b"\r\n");
            return None;
        }
        self.expected.pop_front();
        match to {
            Sent::Hello if reply.is_positive() => {
                self.extensions = Extensions::parse(reply.text.iter().skip(1).map(|line| &**line));
            }
            Sent::StartTls if reply.code == 220 => {
                self.start_tls = true;
                return None;
            }
            Sent::Auth => {
                let proved = self.auth.take().is_some_and(|auth| auth.is_complete());
                if reply.is_positive() && !proved {
                    self.closing = true;
                    return Some(Event::Failed(Failure::Unproved));
                }
            }
            Sent::Rcpt if reply.is_positive() => self.recipients += 1,
            Sent::Data => self.in_body = reply.code == 354,
            Sent::Quit => self.closing = true,
            _ => {}
        }
        if reply.code == 421 {
            self.closing = true;
        }
        Some(Event::Reply { to, reply })
    }

    fn fail(&mut self, failure: Failure) -> Step<Event> {
        self.closing = true;
        Step::Event(Event::Failed(failure))
    }
}

impl Machine for Client {
    type Event = Event;

    fn input(&mut self, bytes: &[u8], _now: Instant) {
        self.input.extend_from_slice(bytes);
    }

    fn end_of_input(&mut self, _now: Instant) {
        self.ended = true;
    }

    fn next(&mut self, now: Instant) -> Step<Event> {
        loop {
            if let Some(event) = self.held.take() {
                return Step::Event(event);
            }
            if self.closing {
                return Step::Close;
            }
            if !self.output.is_empty() {
                return Step::Write(std::mem::take(&mut self.output).freeze());
            }
            if self.start_tls {
                self.start_tls = false;
                if !self.input.is_empty() {
                    return self.fail(Failure::Injected);
                }
                return Step::StartTls;
            }
            match self.lines.take(&mut self.input, REPLY_LINE_BYTES_MAX) {
                Some(Line::Whole(line)) => match self.reader.line(&line) {
                    Ok(Some(reply)) => {
                        if let Some(event) = self.reply(reply) {
                            return Step::Event(event);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => return self.fail(Failure::Malformed(error)),
                },
                Some(_) => return self.fail(Failure::Malformed(ReplyError::Malformed)),
                None => {
                    let Some(&first) = self.expected.front() else {
                        return if self.ended { Step::Close } else { Step::Wait { until: None } };
                    };
                    if self.ended {
                        return self.fail(Failure::Closed(first));
                    }
                    let until = *self.waiting_since.get_or_insert(now) + self.patience.for_reply_to(first);
                    if now >= until {
                        return self.fail(Failure::TimedOut(first));
                    }
                    return Step::Wait { until: Some(until) };
                }
            }
        }
    }

    fn tls_started(&mut self, _now: Instant) {
        self.extensions = Extensions::default();
        self.held = Some(Event::TlsStarted);
    }
}
