//! The server's side of a connection.
//!
//! One command is given out at a time: after an [`Event`] that asks for an answer the machine gives nothing but output
//! until [`Server::finish`] has been called, however much the client has pipelined. So a command is always judged in
//! the state that the one before it has left. One exception: the answer to an APPEND can be put off while more of them
//! come ([`Server::defer`]), so that many share what makes them durable.

mod config;
mod flows;
mod framing;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use machine::{Machine, Step};

pub use config::Config;
use flows::Flow;
use framing::{Frame, Framing, Oversize};

use crate::command::{Append, AppendMessage, Command, Tag};
use crate::mailbox_name::NameForm;
use crate::parse::{self, Cursor, Legal, Refusal, Verb};

/// What the service is told.
#[derive(Debug)]
pub enum Event {
    /// A command to be carried out and answered with [`Server::finish`].
    Command {
        /// Its tag.
        tag: Tag,
        /// What is asked for.
        command: Command,
    },
    /// AUTHENTICATE has begun (RFC 9051 §6.2.2). The service answers with [`Server::challenge`] or
    /// [`Server::finish`].
    Authenticate {
        /// The command's tag.
        tag: Tag,
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response (RFC 4959), decoded.
        initial: Option<Vec<u8>>,
    },
    /// The client's answer to a challenge, decoded.
    AuthenticateResponse(Vec<u8>),
    /// The exchange is over and answered: the client cancelled it, or sent what is not base64.
    AuthenticateEnded,
    /// APPEND up to its first message. The service answers with [`Server::take_message`] or [`Server::finish`].
    Append {
        /// The command's tag.
        tag: Tag,
        /// The target and the first message.
        append: Append,
    },
    /// Octets of the message being appended.
    AppendChunk(Bytes),
    /// The message is complete, and another one follows in the same command (RFC 3502). The service answers as to
    /// [`Event::Append`].
    AppendNext(AppendMessage),
    /// The message is complete and so is the command. The service answers with [`Server::finish`].
    AppendEnd,
    /// The command turned out to be malformed behind a message; it is answered, and nothing of it is to be kept.
    AppendBroken,
    /// IDLE has begun (RFC 2177). The service answers with [`Server::begin_idle`] or [`Server::finish`].
    Idle {
        /// The command's tag.
        tag: Tag,
    },
    /// The client has sent DONE. The service answers with [`Server::finish`].
    IdleDone,
    /// The client has sent something else instead; it is answered, and IDLE is over.
    IdleBroken,
    /// The client goes on with something else than APPEND, or says no more, while answers are owed that were put off
    /// with [`Server::defer`]. The service gives them all before it asks for the next event.
    AnswersDue,
    /// TLS is in use from here on; the client will ask for capabilities again.
    TlsStarted,
}

/// How far the connection has come (RFC 9051 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has logged in.
    NotAuthenticated,
    /// Logged in.
    Authenticated,
    /// A mailbox is selected.
    Selected,
}

/// The tagged answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// OK
    Ok,
    /// NO
    No,
    /// BAD: counts as a bad command.
    Bad,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::No => "NO",
            Self::Bad => "BAD",
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Server {
    config: Config,
    framing: Framing,
    out: BytesMut,
    state: State,
    flow: Flow,
    name_form: NameForm,
    tls: bool,
    bad_commands: u32,
    /// Answers put off.
    deferred: usize,
    /// When the client was last heard, or a command of its was last finished.
    heard: Option<Instant>,
    connected: Option<Instant>,
    ended: bool,
}

impl Server {
    /// A connection that has just been opened, with TLS or without. The service writes the greeting to
    /// [`Server::output`].
    pub fn new(config: Config, tls: bool) -> Self {
        Self {
            config,
            framing: Framing::default(),
            out: BytesMut::new(),
            state: State::NotAuthenticated,
            flow: Flow::Command,
            name_form: NameForm::Utf7,
            tls,
            bad_commands: 0,
            deferred: 0,
            heard: None,
            connected: None,
            ended: false,
        }
    }

    /// A connection on which somebody has logged in already, at another server that hands it over.
    pub fn logged_in(config: Config, tls: bool) -> Self {
        Self { state: State::Authenticated, ..Self::new(config, tls) }
    }

    /// Where responses are written. They go out at the next step.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// The state of the connection.
    pub fn state(&self) -> State {
        self.state
    }

    /// Somebody has logged in, or a mailbox was selected or left.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// How mailbox names are written.
    pub fn name_form(&self) -> NameForm {
        self.name_form
    }

    /// Mailbox names travel in this form from now on.
    pub fn set_name_form(&mut self, form: NameForm) {
        self.name_form = form;
    }

    /// Whether TLS is in use.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether STARTTLS would be answered: there is TLS to be had, and it is not in use.
    pub fn offers_starttls(&self) -> bool {
        self.config.starttls && !self.tls && self.state == State::NotAuthenticated
    }

    /// Writes the tagged answer to the command under way and lets the next one come. `text` may begin with a response
    /// code in brackets; it holds no line end.
    pub fn finish(&mut self, outcome: Outcome, text: &str) {
        let flow = std::mem::replace(&mut self.flow, Flow::Command);
        let tag = match flow {
            Flow::Busy { tag } | Flow::Authenticating { tag } | Flow::Idling { tag } => tag,
            Flow::AppendOffered { tag, message, non_synchronizing } => {
                // The octets come whether they are wanted or not, when the client did not wait.
                if non_synchronizing {
                    self.framing.discard(message);
                }
                tag
            }
            Flow::Appending { tag, remaining } => {
                self.framing.discard(remaining);
                tag
            }
            other => {
                debug_assert!(false, "finish without a command under way");
                self.flow = other;
                return;
            }
        };
        self.answer(&tag, outcome, text);
    }

    /// Writes the tagged answer to the command under way, and hears no more: the connection goes on elsewhere, with what
    /// [`Server::into_input`] has.
    pub fn finish_and_hand_over(&mut self, outcome: Outcome, text: &str) {
        self.finish(outcome, text);
        self.flow = Flow::HandedOver;
    }

    /// What the client has said behind the last command.
    pub fn into_input(self) -> Bytes {
        self.framing.into_input()
    }

    /// Puts the answer to the APPEND that has just ended off, and lets another APPEND come meanwhile (RFC 9051 §5.5: such
    /// commands do not disturb each other). Returns the tag for [`Server::answer_deferred`]; `None` when no command waits
    /// for its answer.
    pub fn defer(&mut self) -> Option<Tag> {
        match std::mem::replace(&mut self.flow, Flow::Command) {
            Flow::Busy { tag } => {
                self.deferred += 1;
                Some(tag)
            }
            other => {
                debug_assert!(false, "defer without a command that has ended");
                self.flow = other;
                None
            }
        }
    }

    /// Writes an answer that was put off.
    pub fn answer_deferred(&mut self, tag: &Tag, outcome: Outcome, text: &str) {
        debug_assert!(self.deferred > 0, "an answer that was not put off");
        self.deferred = self.deferred.saturating_sub(1);
        if self.deferred == 0 && self.flow == Flow::AnswersDue {
            self.flow = Flow::Command;
        }
        if self.flow != Flow::Closing {
            self.answer(tag, outcome, text);
        }
    }

    /// Asks the client for the next step of AUTHENTICATE.
    pub fn challenge(&mut self, challenge: &[u8]) {
        if let Flow::Busy { tag } = &self.flow {
            let tag = tag.clone();
            flows::write_challenge(&mut self.out, challenge);
            self.flow = Flow::Authenticating { tag };
        } else {
            debug_assert!(false, "challenge without AUTHENTICATE");
        }
    }

    /// Lets the announced message come; it is given out as [`Event::AppendChunk`].
    pub fn take_message(&mut self) {
        match std::mem::replace(&mut self.flow, Flow::Command) {
            Flow::AppendOffered { tag, message, non_synchronizing } => {
                if !non_synchronizing {
                    self.out.extend_from_slice(b"+ OK\r\n");
                }
                self.flow = Flow::Appending { tag, remaining: message };
            }
            other => {
                debug_assert!(false, "take_message without APPEND");
                self.flow = other;
            }
        }
    }

    /// Tells the client that IDLE has begun. Untagged responses may be written until [`Event::IdleDone`].
    pub fn begin_idle(&mut self) {
        match std::mem::replace(&mut self.flow, Flow::Command) {
            Flow::Busy { tag } => {
                self.out.extend_from_slice(b"+ idling\r\n");
                self.flow = Flow::Idling { tag };
            }
            other => {
                debug_assert!(false, "begin_idle without IDLE");
                self.flow = other;
            }
        }
    }

    /// Says BYE and ends the connection. `text` may begin with a response code.
    pub fn bye(&mut self, text: &str) {
        if self.flow == Flow::Closing {
            return;
        }
        self.out.extend_from_slice(b"* BYE ");
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.flow = Flow::Closing;
    }

    fn answer(&mut self, tag: &Tag, outcome: Outcome, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "an answer is one line");
        for part in [tag.as_str(), " ", outcome.as_str(), " ", text, "\r\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        match outcome {
            Outcome::Bad => self.count_bad(),
            Outcome::Ok => self.bad_commands = 0,
            Outcome::No => {}
        }
    }

    /// BAD without a tag that could be made out (RFC 9051 §7.1.3).
    fn answer_untagged(&mut self, text: &str) {
        self.out.extend_from_slice(b"* BAD ");
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.count_bad();
    }

    fn count_bad(&mut self) {
        self.bad_commands += 1;
        if self.bad_commands >= self.config.bad_commands_max {
            self.bye("Too many invalid commands");
        }
    }

    fn refuse(&mut self, tag: Option<&Tag>, refusal: &Refusal) {
        let outcome = if refusal.no { Outcome::No } else { Outcome::Bad };
        match tag {
            Some(tag) => self.answer(tag, outcome, &refusal.text),
            None => self.answer_untagged(&refusal.text),
        }
    }

    /// When the connection ends for want of anything said.
    fn deadline(&self) -> Option<Instant> {
        let seconds = |count: u64| Duration::from_secs(count);
        let logged_in = self.state != State::NotAuthenticated;
        let silence = match self.flow {
            Flow::Appending { .. } => self.config.stall_seconds_max,
            Flow::Command if self.framing.is_mid_command() => self.config.stall_seconds_max,
            _ if logged_in => self.config.autologout_seconds,
            _ => self.config.login_seconds_max,
        };
        let by_silence = self.heard? + seconds(silence);
        if logged_in {
            return Some(by_silence);
        }
        // Before login the whole dialogue has a limit, so that slow typing keeps no connection open.
        Some(by_silence.min(self.connected? + seconds(self.config.login_seconds_max)))
    }
}

impl Machine for Server {
    type Event = Event;

    fn input(&mut self, bytes: &[u8], now: Instant) {
        self.heard = Some(now);
        if matches!(self.flow, Flow::TlsHandshake | Flow::Closing) {
            // What came with STARTTLS in clear text is nobody's command (RFC 9051 §6.2.1, CVE-2021-33515).
            return;
        }
        self.framing.input(bytes);
    }

    fn end_of_input(&mut self, _now: Instant) {
        self.ended = true;
    }

    fn next(&mut self, now: Instant) -> Step<Event> {
        self.heard.get_or_insert(now);
        self.connected.get_or_insert(now);
        loop {
            if !self.out.is_empty() {
                // The buffer goes with its bytes, so that an idle session holds none.
                return Step::Write(std::mem::take(&mut self.out).freeze());
            }
            match &self.flow {
                Flow::Closing => return Step::Close,
                Flow::Busy { .. } | Flow::AppendOffered { .. } | Flow::AnswersDue => {
                    // The service is at work: its time is not the client's silence.
                    self.heard = Some(now);
                    return Step::Wait { until: None };
                }
                Flow::StartTls => {
                    self.flow = Flow::TlsHandshake;
                    return Step::StartTls;
                }
                Flow::TlsHandshake | Flow::HandedOver => return Step::Wait { until: None },
                _ => {}
            }
            match self.advance() {
                Advance::Event(event) => return Step::Event(event),
                Advance::Again => {}
                Advance::NeedInput => {
                    if self.ended && self.deferred > 0 && self.flow == Flow::Command {
                        self.flow = Flow::AnswersDue;
                        return Step::Event(Event::AnswersDue);
                    }
                    if self.ended {
                        return Step::Close;
                    }
                    let until = self.deadline();
                    if until.is_some_and(|until| now >= until) {
                        self.bye("Autologout; idle for too long");
                        continue;
                    }
                    self.framing.shrink();
                    return Step::Wait { until };
                }
            }
        }
    }

    fn tls_started(&mut self, now: Instant) {
        debug_assert_eq!(self.flow, Flow::TlsHandshake);
        self.tls = true;
        self.heard = Some(now);
        self.framing = Framing::default();
        self.flow = Flow::TlsAnnounced;
    }
}

/// What one step of the input has led to.
enum Advance {
    Event(Event),
    Again,
    NeedInput,
}

impl Server {
    fn advance(&mut self) -> Advance {
        match std::mem::replace(&mut self.flow, Flow::Command) {
            Flow::TlsAnnounced => Advance::Event(Event::TlsStarted),
            Flow::Appending { tag, remaining } => self.advance_message(tag, remaining),
            Flow::AppendBehind { tag } => self.advance_behind_message(tag),
            Flow::Authenticating { tag } => self.advance_authentication(tag),
            Flow::Idling { tag } => self.advance_idle(tag),
            Flow::Command => self.advance_command(),
            other => {
                self.flow = other;
                Advance::NeedInput
            }
        }
    }

    /// The framing's next frame of a command; decides about literals on the way.
    fn advance_command(&mut self) -> Advance {
        let limit = if self.state == State::NotAuthenticated {
            self.config.command_bytes_before_login_max
        } else {
            self.config.command_bytes_max
        };
        let frame = self.framing.next(limit);
        if self.deferred > 0 && !self.may_overtake(&frame) {
            self.flow = Flow::AnswersDue;
            return Advance::Event(Event::AnswersDue);
        }
        match frame {
            Frame::NeedInput => Advance::NeedInput,
            Frame::Skipping => Advance::Again,
            Frame::TooLong(Oversize::Line) => {
                let tag = parse::tag(&mut Cursor::new(self.framing.command())).ok();
                self.framing.skip_line();
                self.refuse(tag.as_ref(), &Refusal::bad("[LIMIT] Command is too long"));
                Advance::Again
            }
            Frame::TooLong(Oversize::Skipped) => {
                self.bye("[LIMIT] Command is too long");
                Advance::Again
            }
            Frame::Literal(mark) => self.advance_literal(mark, limit),
            Frame::Line => {
                let bytes = self.framing.take();
                self.complete(&bytes)
            }
        }
    }

    /// Whether what comes may be looked at before answers that were put off: the beginning of another APPEND.
    fn may_overtake(&self, frame: &Frame) -> bool {
        match frame {
            Frame::NeedInput | Frame::Skipping => true,
            Frame::Literal(_) => {
                matches!(self.begin(&mut Cursor::new(self.framing.command())), Ok((_, Verb::Append)))
            }
            Frame::Line | Frame::TooLong(_) => false,
        }
    }

    /// Tag and verb, the verb legal in this state.
    fn begin(&self, cursor: &mut Cursor<'_>) -> Result<(Tag, Verb), (Option<Tag>, Refusal)> {
        let tag = parse::tag(cursor).map_err(|refusal| (None, refusal))?;
        let verb = match parse::verb(cursor) {
            Ok(verb) => verb,
            Err(refusal) => return Err((Some(tag), refusal)),
        };
        let refusal = match (verb.legal(), self.state) {
            (Legal::Always, _)
            | (Legal::NotAuthenticated, State::NotAuthenticated)
            | (Legal::Authenticated, State::Authenticated | State::Selected)
            | (Legal::Selected, State::Selected) => return Ok((tag, verb)),
            (Legal::NotAuthenticated, _) => Refusal::bad("Already logged in"),
            (_, State::NotAuthenticated) => Refusal::bad("Log in first"),
            (_, _) => Refusal::bad("No mailbox is selected"),
        };
        Err((Some(tag), refusal))
    }

    /// A literal is announced: is it wanted, and is it the message of an APPEND?
    fn advance_literal(&mut self, mark: parse::LiteralMark, limit: usize) -> Advance {
        let command = self.framing.command();
        let mut cursor = Cursor::new(command);
        let refused = match self.begin(&mut cursor) {
            Ok((tag, Verb::Append)) => {
                let arguments = cursor.rest();
                let mark_start = arguments.len().saturating_sub(self.framing.line_len() - mark.start);
                if !parse::append::literal_is_mailbox(arguments, mark_start) {
                    return match parse::append::append(&mut cursor, self.name_form, mark) {
                        Ok(append) => {
                            self.offer(tag, append.message.clone(), mark, |tag| Event::Append { tag, append })
                        }
                        Err(refusal) => self.refuse_literal(Some(tag), &refusal, mark),
                    };
                }
                self.literal_fits(mark, limit).map_err(|refusal| (Some(tag), refusal))
            }
            Ok((tag, _)) => self.literal_fits(mark, limit).map_err(|refusal| (Some(tag), refusal)),
            Err((tag, refusal)) => Err((tag, refusal)),
        };
        match refused {
            Ok(()) => {
                if !mark.non_synchronizing {
                    self.out.extend_from_slice(b"+ OK\r\n");
                }
                self.framing.collect(mark.size as usize);
                Advance::Again
            }
            Err((tag, refusal)) => self.refuse_literal(tag, &refusal, mark),
        }
    }

    fn literal_fits(&self, mark: parse::LiteralMark, limit: usize) -> Result<(), Refusal> {
        if mark.binary {
            return Err(Refusal::bad("Binary literals are not supported"));
        }
        let room = limit.saturating_sub(self.framing.command().len());
        if mark.size > room as u64 { Err(Refusal::bad("[LIMIT] Literal is too long")) } else { Ok(()) }
    }

    /// Answers instead of asking for the literal, and gets past what the client sends regardless.
    fn refuse_literal(&mut self, tag: Option<Tag>, refusal: &Refusal, mark: parse::LiteralMark) -> Advance {
        self.framing.drop_command();
        if mark.non_synchronizing {
            if mark.size > self.config.append_bytes_max {
                // RFC 7888 §4: BYE instead of reading on is one of the two ways.
                self.refuse(tag.as_ref(), refusal);
                self.bye("[TOOBIG] Literal is too long");
                return Advance::Again;
            }
            self.framing.discard(mark.size);
        }
        self.refuse(tag.as_ref(), refusal);
        Advance::Again
    }

    /// Gives an announced message to the service, if it is not too big.
    fn offer(
        &mut self,
        tag: Tag,
        message: AppendMessage,
        mark: parse::LiteralMark,
        event: impl FnOnce(Tag) -> Event,
    ) -> Advance {
        if message.size > self.config.append_bytes_max {
            return self.refuse_literal(Some(tag), &Refusal::no("[TOOBIG] Message is too big"), mark);
        }
        self.framing.drop_command();
        self.flow = Flow::AppendOffered {
            tag: tag.clone(),
            message: message.size,
            non_synchronizing: mark.non_synchronizing,
        };
        Advance::Event(event(tag))
    }

    /// A whole command.
    fn complete(&mut self, bytes: &[u8]) -> Advance {
        // RFC 9051 §2.2: lines end in CRLF. A bare LF ends the line for us, or client and server would wait for each
        // other, but the command is refused.
        if !bytes.ends_with(b"\r\n") {
            let tag = parse::tag(&mut Cursor::new(bytes)).ok();
            self.refuse(tag.as_ref(), &Refusal::bad("Lines end in CRLF"));
            return Advance::Again;
        }
        let mut cursor = Cursor::new(bytes);
        let (tag, verb) = match self.begin(&mut cursor) {
            Ok(begun) => begun,
            Err((tag, refusal)) => {
                self.refuse(tag.as_ref(), &refusal);
                return Advance::Again;
            }
        };
        let event = match verb {
            Verb::Logout => match cursor.line_end() {
                Ok(()) => {
                    self.out.extend_from_slice(b"* BYE Logging out\r\n");
                    self.answer(&tag, Outcome::Ok, "Logout completed");
                    self.flow = Flow::Closing;
                    return Advance::Again;
                }
                Err(refusal) => Err(refusal),
            },
            Verb::StartTls => match cursor.line_end() {
                Ok(()) if self.offers_starttls() => {
                    self.framing = Framing::default();
                    self.answer(&tag, Outcome::Ok, "Begin TLS negotiation now");
                    self.flow = Flow::StartTls;
                    return Advance::Again;
                }
                Ok(()) => Err(Refusal::bad("STARTTLS is not available")),
                Err(refusal) => Err(refusal),
            },
            Verb::Idle => cursor.line_end().map(|()| Event::Idle { tag: tag.clone() }),
            Verb::Authenticate => flows::authenticate(&mut cursor)
                .map(|(mechanism, initial)| Event::Authenticate { tag: tag.clone(), mechanism, initial }),
            Verb::Append => Err(Refusal::bad("APPEND without a message literal")),
            _ => parse::arguments(&mut cursor, verb, self.name_form)
                .map(|command| Event::Command { tag: tag.clone(), command }),
        };
        match event {
            Ok(event) => {
                self.flow = Flow::Busy { tag };
                Advance::Event(event)
            }
            Err(refusal) => {
                self.refuse(Some(&tag), &refusal);
                Advance::Again
            }
        }
    }
}

#[cfg(test)]
mod tests;
