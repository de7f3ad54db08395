//! Commands and answers: which may come when, and what each does to the session.

use std::time::{Duration, Instant};

use machine::Step;
use mail::address::{Path, ReversePath};
use mail::envelope::BodyType;

use super::body::{BodyState, Carrier};
use super::{Event, ForwardPath, Phase, Server};
use crate::command::{Command, HelloKind};
use crate::extension::Extensions;
use crate::line::Line;
use crate::parameter::{MailParameters, RcptParameters};
use crate::reply::{Reply, bad_argument, bad_sequence, ok};
use crate::status::status;

/// What the service has been asked, and so what its answer means.
#[derive(Debug)]
pub(super) enum Question {
    Hello { kind: HelloKind },
    Mail { body: BodyType, smtputf8: bool },
    Rcpt,
    BodyStart(Box<BodyState>),
    EndOfBody,
}

/// What is under way between MAIL and the reply to the body.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) body: BodyType,
    pub(super) smtputf8: bool,
    /// Recipients that were accepted.
    pub(super) recipients: u32,
    /// Chunks have come by BDAT; only more of them, or RSET, can follow (RFC 3030 §4.2).
    pub(super) chunks: Option<Box<BodyState>>,
}

impl Server {
    /// Answers the last event positively, in the words that the protocol has for it.
    pub fn proceed(&mut self) {
        match self.answered() {
            Question::Hello { kind } => {
                self.hello = Some(kind);
                let reply = self.hello_reply(kind);
                self.write(&reply);
            }
            Question::BodyStart(body) => {
                if body.carrier == Carrier::Data {
                    self.write(&Reply::bare(354, "End data with <CR><LF>.<CR><LF>"));
                }
                self.phase = Phase::Body(body);
            }
            question => unreachable!("{question:?} is answered with a reply"),
        }
    }

    /// Answers the last event.
    pub fn reply(&mut self, reply: &Reply) {
        match self.answered() {
            Question::Hello { .. } => self.hello = None,
            Question::Mail { body, smtputf8 } => {
                if reply.is_positive() {
                    self.transaction = Some(Transaction { body, smtputf8, recipients: 0, chunks: None });
                }
            }
            Question::Rcpt => {
                if let (true, Some(transaction)) = (reply.is_positive(), &mut self.transaction) {
                    transaction.recipients += 1;
                }
            }
            Question::BodyStart(mut body) => {
                if let Carrier::Chunk { .. } = body.carrier {
                    // The chunk is on its way; it is passed over, and then this is said.
                    body.refuse(reply.clone());
                    self.phase = Phase::Body(body);
                    return;
                }
                self.transaction = None;
            }
            Question::EndOfBody => {
                return self.replies(std::slice::from_ref(reply));
            }
        }
        self.answer(reply);
    }

    /// Answers [`Event::EndOfBody`]: under LMTP with one reply for each accepted recipient in the order in which they
    /// were accepted, or one for all; under SMTP with one.
    pub fn replies(&mut self, replies: &[Reply]) {
        if let Phase::Asked(Question::EndOfBody) = self.phase {
            self.phase = Phase::Command;
        }
        self.answer_body(replies);
    }

    pub(super) fn answer_body(&mut self, replies: &[Reply]) {
        let recipients = self.transaction.take().map_or(0, |transaction| transaction.recipients);
        let wanted = if self.settings.lmtp { recipients.max(1) as usize } else { 1 };
        assert!(replies.len() == wanted || replies.len() == 1, "one reply for each recipient");
        self.counts.idle_commands = 0;
        if replies.iter().any(Reply::is_positive) {
            self.counts.errors = 0;
        }
        for reply in replies.iter().cycle().take(wanted) {
            self.write(reply);
        }
        if replies.iter().any(|reply| reply.code == 421) {
            self.phase = Phase::Closing;
        } else if replies.iter().all(Reply::is_permanent) {
            self.count_error();
        }
    }

    fn answered(&mut self) -> Question {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Asked(question) => question,
            phase => unreachable!("an answer without a question in {phase:?}"),
        }
    }

    pub(super) fn ask(&mut self, question: Question, event: Event) -> Step<Event> {
        self.phase = Phase::Asked(question);
        self.give(event)
    }

    /// Reads and does the next command. `None`: look again.
    pub(super) fn command(&mut self, now: Instant) -> Option<Step<Event>> {
        let Some(line) = self.lines.take(&mut self.input, self.settings.limits.command_line_bytes_max) else {
            let limit = Duration::from_secs(self.limits().command_seconds_max);
            return Some(self.wait(limit, now));
        };
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => {
                self.answer(&Reply::new(500, status(5, 5, 2), "Line too long"));
                return None;
            }
            Line::Forbidden => {
                self.answer(&Reply::new(500, status(5, 5, 2), "Bare CR or NUL in command"));
                return None;
            }
            Line::BareLf => {
                self.close(&Reply::new(500, status(5, 5, 2), "Lines end in CRLF, goodbye"));
                return None;
            }
        };
        match Command::parse(&line) {
            Ok(command) => self.perform(command),
            Err(refused) if refused.desynchronised => {
                self.close(&refused.reply);
                None
            }
            Err(refused) => {
                self.answer(&refused.reply);
                None
            }
        }
    }

    fn perform(&mut self, command: Command) -> Option<Step<Event>> {
        let result = match command {
            Command::Hello { kind, domain } => self.hello(kind, domain),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.begin_auth(&mechanism, initial.as_deref()),
            Command::Mail { path, parameters, unicode } => self.mail(path, parameters, unicode),
            Command::Rcpt { path, parameters, unicode } => self.rcpt(path, parameters, unicode),
            Command::Data => self.data(),
            Command::Bdat { size, last } => Ok(self.bdat(size, last)),
            Command::Reset => self.idle(&ok(status(2, 0, 0), "OK")).map(|_| {
                let transaction = self.transaction.take();
                transaction.map(|_| Step::Event(Event::Reset))
            }),
            Command::Noop => self.idle(&ok(status(2, 0, 0), "OK")),
            Command::Help => self.idle(&Reply::new(214, status(2, 0, 0), "See RFC 5321")),
            // RFC 5321 §7.3 allows this for those who do not want to be harvested; a RCPT will tell.
            Command::Verify => self.idle(&Reply::new(252, status(2, 5, 0), "Cannot VRFY user, try RCPT")),
            Command::Expand => Err(Reply::new(502, status(5, 5, 1), "EXPN not available")),
            Command::Quit => {
                self.close(&Reply::new(221, status(2, 0, 0), "Bye"));
                Ok(None)
            }
        };
        result.unwrap_or_else(|refusal| {
            self.answer(&refusal);
            None
        })
    }

    /// Counts a command that brings no message forward.
    fn idle_command(&mut self) -> Result<(), Reply> {
        self.counts.idle_commands += 1;
        if self.counts.idle_commands > self.limits().idle_commands_max {
            return Err(Reply::new(421, status(4, 7, 0), "Too many commands without a message"));
        }
        Ok(())
    }

    /// Does a command that concerns the protocol alone.
    fn idle(&mut self, reply: &Reply) -> Result<Option<Step<Event>>, Reply> {
        self.idle_command()?;
        self.write(reply);
        Ok(None)
    }

    fn hello(&mut self, kind: HelloKind, domain: String) -> Result<Option<Step<Event>>, Reply> {
        // RFC 2033 §4.1: an LMTP server does not take HELO or EHLO, and an SMTP server no LHLO.
        if self.settings.lmtp != (kind == HelloKind::Lhlo) {
            let wanted = if self.settings.lmtp { "This is LMTP, say LHLO" } else { "This is SMTP, say EHLO" };
            return Err(Reply::new(500, status(5, 5, 1), wanted));
        }
        self.idle_command()?;
        self.transaction = None;
        Ok(Some(self.ask(Question::Hello { kind }, Event::Hello { kind, domain })))
    }

    fn hello_reply(&self, kind: HelloKind) -> Reply {
        let mut reply = Reply::bare(250, self.settings.hostname.clone());
        if kind != HelloKind::Helo {
            reply.text.extend(self.extensions().lines().into_iter().map(Into::into));
        }
        reply
    }

    fn extensions(&self) -> Extensions {
        let limits = self.limits();
        let wishes = self.settings.wishes;
        Extensions {
            pipelining: true,
            size: Some(limits.message_bytes_max),
            eight_bit_mime: true,
            binary_mime: true,
            smtputf8: true,
            chunking: true,
            dsn: true,
            enhanced_status_codes: true,
            starttls: self.settings.starttls && !self.encrypted,
            auth: if self.authenticated { Vec::new() } else { self.mechanisms().collect() },
            recipients_max: Some(limits.recipients_max),
            transactions_max: Some(limits.transactions_max),
            future_release: wishes
                .hold_seconds_max
                .map(|seconds| (seconds, self.time.saturating_add(seconds))),
            deliver_by: wishes.by_seconds_min,
            mt_priority: wishes.priority,
        }
    }

    fn start_tls(&mut self) -> Result<Option<Step<Event>>, Reply> {
        if !self.settings.starttls {
            return Err(Reply::new(502, status(5, 5, 1), "TLS not available"));
        }
        if self.encrypted {
            return Err(bad_sequence("TLS already active"));
        }
        if self.transaction.is_some() {
            return Err(bad_sequence("Not within a transaction"));
        }
        self.write(&Reply::new(220, status(2, 0, 0), "Ready to start TLS"));
        // What came with this command was sent by whoever could write to the plain connection.
        self.discard_input();
        self.phase = Phase::StartTls { given: false };
        Ok(None)
    }

    fn mail(
        &mut self,
        path: Path,
        parameters: MailParameters,
        unicode: bool,
    ) -> Result<Option<Step<Event>>, Reply> {
        if self.hello.is_none() {
            return Err(bad_sequence("Say hello first"));
        }
        if self.transaction.is_some() {
            return Err(bad_sequence("A transaction is under way"));
        }
        if self.settings.requires_tls && !self.encrypted {
            return Err(Reply::new(530, status(5, 7, 0), "Must issue STARTTLS first"));
        }
        if self.settings.requires_auth && !self.authenticated {
            return Err(Reply::new(530, status(5, 7, 0), "Authentication required"));
        }
        if self.hello == Some(HelloKind::Helo) && parameters != MailParameters::default() {
            return Err(Reply::new(555, status(5, 5, 4), "Parameters need EHLO"));
        }
        parameters.within(&self.settings.wishes)?;
        if unicode && !parameters.smtputf8 {
            return Err(Reply::new(553, status(5, 6, 7), "Address needs SMTPUTF8"));
        }
        if parameters.size.is_some_and(|size| size > self.limits().message_bytes_max) {
            return Err(too_large());
        }
        if self.counts.transactions >= self.limits().transactions_max {
            return Err(Reply::new(421, status(4, 7, 0), "Too many messages in one session"));
        }
        self.counts.transactions += 1;
        let reverse_path = match path {
            Path::Null => ReversePath::NULL,
            Path::Address(address) => ReversePath::from(address),
            Path::Postmaster => return Err(bad_argument("A domain is needed")),
        };
        let question = Question::Mail { body: parameters.body, smtputf8: parameters.smtputf8 };
        Ok(Some(self.ask(question, Event::Mail { reverse_path, parameters })))
    }

    fn rcpt(
        &mut self,
        path: Path,
        parameters: RcptParameters,
        unicode: bool,
    ) -> Result<Option<Step<Event>>, Reply> {
        let limit = self.limits().recipients_max;
        let Some(transaction) = &self.transaction else { return Err(bad_sequence("MAIL first")) };
        if transaction.chunks.is_some() {
            return Err(bad_sequence("BDAT or RSET"));
        }
        if self.hello == Some(HelloKind::Helo) && parameters != RcptParameters::default() {
            return Err(Reply::new(555, status(5, 5, 4), "Parameters need EHLO"));
        }
        if unicode && !transaction.smtputf8 {
            return Err(Reply::new(553, status(5, 6, 7), "Address needs SMTPUTF8"));
        }
        if transaction.recipients >= limit {
            // RFC 5321 §4.5.3.1.10: 452, so that the client sends the rest in another transaction.
            return Err(Reply::new(452, status(4, 5, 3), "Too many recipients"));
        }
        let forward_path = match path {
            Path::Address(address) => ForwardPath::Address(address),
            Path::Postmaster => ForwardPath::Postmaster,
            Path::Null => return Err(bad_argument("A recipient is needed")),
        };
        Ok(Some(self.ask(Question::Rcpt, Event::Rcpt { forward_path, parameters })))
    }

    fn data(&mut self) -> Result<Option<Step<Event>>, Reply> {
        let Some(transaction) = &self.transaction else { return Err(bad_sequence("MAIL first")) };
        if transaction.chunks.is_some() {
            return Err(bad_sequence("BDAT or RSET"));
        }
        if transaction.body == BodyType::BinaryMime {
            // RFC 3030 §3: such a body cannot come by DATA.
            return Err(bad_sequence("BINARYMIME needs BDAT"));
        }
        if transaction.recipients == 0 {
            return Err(Reply::new(554, status(5, 5, 1), "No valid recipients"));
        }
        let body = BodyState::data(&self.settings.limits);
        Ok(Some(self.ask(Question::BodyStart(Box::new(body)), Event::BodyStart)))
    }
}

pub(super) fn too_large() -> Reply {
    Reply::new(552, status(5, 3, 4), "Message too large")
}
