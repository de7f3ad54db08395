//! The commands that are more than one line and one answer: AUTHENTICATE, APPEND, IDLE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use super::framing::{Frame, Oversize};
use super::{Advance, Event, Outcome, Server};
use crate::command::Tag;
use crate::parse::{self, Cursor, Parsed, Refusal};

/// Where the connection is between two events.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// A command may begin.
    Command,
    /// The service carries a command out.
    Busy { tag: Tag },
    /// A challenge has been sent.
    Authenticating { tag: Tag },
    /// A message is announced; the service decides.
    AppendOffered { tag: Tag, message: u64, non_synchronizing: bool },
    /// Octets of a message come.
    Appending { tag: Tag, remaining: u64 },
    /// A message is complete; the command's line goes on behind it.
    AppendBehind { tag: Tag },
    /// The client waits for news.
    Idling { tag: Tag },
    /// The service gives answers that were put off before the next command is looked at.
    AnswersDue,
    /// STARTTLS is answered.
    StartTls,
    /// The handshake runs.
    TlsHandshake,
    /// The handshake has succeeded, which the service does not know yet.
    TlsAnnounced,
    /// Nothing more is read here: what the client says is somebody else's to hear.
    HandedOver,
    /// Nothing more is read; what is written goes out.
    Closing,
}

/// SP mechanism [SP initial-response] CRLF (RFC 9051 §6.2.2).
pub(super) fn authenticate(cursor: &mut Cursor<'_>) -> Parsed<(String, Option<Vec<u8>>)> {
    cursor.space()?;
    let mechanism = String::from_utf8_lossy(cursor.atom()?).to_ascii_uppercase();
    let mut initial = None;
    if cursor.eat(b' ') {
        let text = cursor.take_while(|byte| byte > b' ');
        // A lone "=" is an initial response of no octets (RFC 4959 §3).
        initial = Some(match text {
            b"=" => Vec::new(),
            _ => decode(text)?,
        });
    }
    cursor.line_end()?;
    Ok((mechanism, initial))
}

fn decode(text: &[u8]) -> Parsed<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| Refusal::bad("Invalid base64"))
}

pub(super) fn write_challenge(out: &mut BytesMut, challenge: &[u8]) {
    out.extend_from_slice(b"+ ");
    out.extend_from_slice(STANDARD.encode(challenge).as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Server {
    pub(super) fn advance_authentication(&mut self, tag: Tag) -> Advance {
        match self.framing.next(self.config.command_bytes_before_login_max) {
            Frame::NeedInput => {
                self.flow = Flow::Authenticating { tag };
                return Advance::NeedInput;
            }
            Frame::Skipping => {
                self.flow = Flow::Authenticating { tag };
                return Advance::Again;
            }
            Frame::TooLong(oversize) => {
                self.framing.skip_line();
                self.answer(&tag, Outcome::Bad, "[LIMIT] Response is too long");
                if oversize == Oversize::Skipped {
                    self.bye("[LIMIT] Response is too long");
                }
            }
            Frame::Line | Frame::Literal(_) => {
                let line = self.framing.take();
                let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
                if text == b"*" {
                    self.answer(&tag, Outcome::Bad, "Authentication cancelled");
                } else {
                    match decode(text) {
                        Ok(response) => {
                            self.flow = Flow::Busy { tag };
                            return Advance::Event(Event::AuthenticateResponse(response));
                        }
                        Err(refusal) => self.refuse(Some(&tag), &refusal),
                    }
                }
            }
        }
        Advance::Event(Event::AuthenticateEnded)
    }

    pub(super) fn advance_message(&mut self, tag: Tag, remaining: u64) -> Advance {
        if remaining == 0 {
            self.flow = Flow::AppendBehind { tag };
            return Advance::Again;
        }
        match self.framing.take_chunk(remaining) {
            Some(chunk) => {
                self.flow = Flow::Appending { tag, remaining: remaining - chunk.len() as u64 };
                Advance::Event(Event::AppendChunk(chunk))
            }
            None => {
                self.flow = Flow::Appending { tag, remaining };
                Advance::NeedInput
            }
        }
    }

    /// Behind a message comes the end of the command or another message.
    pub(super) fn advance_behind_message(&mut self, tag: Tag) -> Advance {
        match self.framing.next(self.config.command_bytes_max) {
            Frame::NeedInput => {
                self.flow = Flow::AppendBehind { tag };
                return Advance::NeedInput;
            }
            Frame::Skipping => {
                self.flow = Flow::AppendBehind { tag };
                return Advance::Again;
            }
            Frame::TooLong(oversize) => {
                self.framing.skip_line();
                self.answer(&tag, Outcome::Bad, "[LIMIT] Command is too long");
                if oversize == Oversize::Skipped {
                    self.bye("[LIMIT] Command is too long");
                }
            }
            Frame::Line => {
                let line = self.framing.take();
                if line == b"\r\n".as_slice() {
                    self.flow = Flow::Busy { tag };
                    return Advance::Event(Event::AppendEnd);
                }
                self.answer(&tag, Outcome::Bad, "Unexpected argument behind the message");
            }
            Frame::Literal(mark) => {
                let refusal = match parse::append::message(&mut Cursor::new(self.framing.command()), mark) {
                    Ok(message) if message.size <= self.config.append_bytes_max => {
                        let event = message.clone();
                        return self.offer(tag, message, mark, |_| Event::AppendNext(event));
                    }
                    Ok(_) => Refusal::no("[TOOBIG] Message is too big"),
                    Err(refusal) => refusal,
                };
                // Answered here; the service only has to forget what it has.
                let _ = self.refuse_literal(Some(tag), &refusal, mark);
            }
        }
        Advance::Event(Event::AppendBroken)
    }

    pub(super) fn advance_idle(&mut self, tag: Tag) -> Advance {
        match self.framing.next(self.config.command_bytes_max) {
            Frame::NeedInput => {
                self.flow = Flow::Idling { tag };
                Advance::NeedInput
            }
            Frame::Skipping => {
                self.flow = Flow::Idling { tag };
                Advance::Again
            }
            Frame::TooLong(_) => {
                self.bye("[LIMIT] Expected DONE");
                Advance::Again
            }
            Frame::Line | Frame::Literal(_) => {
                let line = self.framing.take();
                self.flow = Flow::Busy { tag };
                if !line.eq_ignore_ascii_case(b"DONE\r\n") {
                    // The line is lost; a client that sends a command here is broken in any case (RFC 2177 §3).
                    self.finish(Outcome::Bad, "Expected DONE");
                    // The service leaves its waiting on this event; the answer is already given.
                    return Advance::Event(Event::IdleBroken);
                }
                Advance::Event(Event::IdleDone)
            }
        }
    }
}
