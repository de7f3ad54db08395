//! The client's machine against the server's: a body arrives octet by octet as it was, or is refused; and either way
//! both know what the next command is.

use std::collections::VecDeque;

use machine::{Machine, Step};
use mail::address::{Address, ReversePath};
use mail::envelope::BodyType;
use smtp_protocol::client::{Client, Event, Failure, Sent};
use smtp_protocol::command::HelloKind;
use smtp_protocol::data::{TextCheck, Violation};
use smtp_protocol::parameter::{MailParameters, RcptParameters};

use crate::input::{Cuts, Input};
use crate::smtp_service::{MESSAGE_BYTES_MAX, Session, settings};

/// Byte 1: how the body goes; byte 2: cuts of what goes to the server; byte 3: of what comes from it; byte 4: pieces
/// that the client writes; then the body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let (there, back, pieces) = (input.cuts(), input.cuts(), input.cuts());
    let body = input.rest();
    let lmtp = how & 1 != 0;
    let chunked = how & 2 != 0;
    let binary = chunked && how & 4 != 0;
    let recipient = ["bob", "disk", "late", "no"][usize::from(how >> 3 & 3)];

    let mut talk = Talk {
        client: Client::new(lmtp),
        session: Session::new(settings(u32::from(lmtp)), false),
        there,
        back,
        taken: 0,
        heard: VecDeque::new(),
        closed: false,
    };
    talk.client.hello(if lmtp { HelloKind::Lhlo } else { HelloKind::Ehlo }, "client.example.test");
    let body_type = if binary { BodyType::BinaryMime } else { BodyType::EightBitMime };
    talk.client.mail(&ReversePath::NULL, &MailParameters { body: body_type, ..MailParameters::default() });
    for local in ["amy", recipient] {
        let address = Address::parse(&format!("{local}@example.test")).unwrap();
        talk.client.rcpt(&address, &RcptParameters::default());
    }
    for (to, code) in [(Sent::Connection, 220), (Sent::Hello, 250), (Sent::Mail, 250), (Sent::Rcpt, 250)] {
        assert_eq!(talk.hear(), Some((to, code)));
    }
    let second = talk.hear();
    assert_eq!(second, Some((Sent::Rcpt, if recipient == "no" { 550 } else { 250 })));
    let replies = if lmtp && recipient != "no" { 2 } else { 1 };

    let posted = if chunked {
        talk.chunks(body, &pieces);
        Some(true)
    } else {
        talk.data(body, &pieces)
    };
    let Some(began) = posted else {
        // What is no text cannot go by DATA: the client closes, and the server must not take the part for the whole.
        talk.session.end_of_input();
        assert!(talk.session.accepted.is_empty(), "half a body is accepted");
        return;
    };
    let codes: Vec<u16> = (0..if began { replies } else { 0 }).filter_map(|_| talk.hear_body()).collect();
    let mut expected = body.to_vec();
    if !chunked && !body.is_empty() && !body.ends_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    if codes.iter().any(|code| code / 100 == 2) {
        assert_eq!(talk.session.accepted, [expected], "{codes:?}");
        assert!(codes.len() == replies && codes.iter().all(|code| code / 100 == 2), "{codes:?}");
    } else {
        assert!(talk.session.accepted.is_empty(), "accepted, and the client told otherwise: {codes:?}");
        let fits = expected.len() as u64 <= MESSAGE_BYTES_MAX
            && (binary || violation(&expected, settings(0).limits.text_line_bytes_max).is_none());
        assert!(!fits || matches!(recipient, "disk" | "late"), "refused for no reason: {codes:?}");
    }
    if talk.closed {
        return;
    }
    talk.client.reset();
    talk.client.noop();
    talk.client.quit();
    for (to, code) in [(Sent::Reset, 250), (Sent::Noop, 250), (Sent::Quit, 221)] {
        assert_eq!(talk.hear(), Some((to, code)));
    }
    talk.run();
    assert!(talk.closed && talk.session.closed);
}

struct Talk {
    client: Client,
    session: Session,
    there: Cuts,
    back: Cuts,
    /// Octets of the server's output that the client has had.
    taken: usize,
    heard: VecDeque<(Sent, u16)>,
    closed: bool,
}

impl Talk {
    /// Moves octets to and fro until both wait.
    fn run(&mut self) {
        let mut passed = 0;
        while !self.closed {
            match self.client.next(self.session.now) {
                Step::Event(Event::Reply { to, reply }) => self.heard.push_back((to, reply.code)),
                Step::Event(Event::Failed(Failure::Closed(_))) if self.session.closed => {}
                Step::Event(event) => panic!("{event:?}"),
                Step::Write(bytes) => self.send(&bytes),
                Step::StartTls => unreachable!("nobody asked for it"),
                Step::Wait { .. } if self.taken < self.session.output.len() => {
                    let length = self.back.next(self.session.output.len() - self.taken);
                    let piece = &self.session.output[self.taken..self.taken + length];
                    self.client.input(piece, self.session.now);
                    self.taken += length;
                }
                Step::Wait { .. } if self.session.closed => self.client.end_of_input(self.session.now),
                // Replies to errors may come late.
                Step::Wait { .. } if passed < 100 => {
                    passed += 1;
                    self.session.pass(1);
                }
                Step::Wait { .. } => break,
                Step::Close => self.closed = true,
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        for piece in self.there.pieces(bytes) {
            self.session.send(piece);
        }
    }

    fn hear(&mut self) -> Option<(Sent, u16)> {
        if self.heard.is_empty() {
            self.run();
        }
        self.heard.pop_front()
    }

    /// The reply to a body; those to its chunks come first.
    fn hear_body(&mut self) -> Option<u16> {
        loop {
            let (to, code) = self.hear()?;
            if to == Sent::Body {
                return Some(code);
            }
            assert_eq!(to, Sent::Chunk);
        }
    }

    /// Sends the body; `false`: it was refused before. `None`: it cannot go this way.
    fn data(&mut self, body: &[u8], pieces: &Cuts) -> Option<bool> {
        self.client.data();
        let (to, code) = self.hear()?;
        assert_eq!(to, Sent::Data);
        if code != 354 {
            return Some(false);
        }
        let mut encoded = pieces.pieces(body).map(|piece| self.client.encode_body(piece)).collect::<Vec<_>>();
        if encoded.iter().all(Result::is_ok) {
            encoded.push(self.client.end_body());
        }
        for wire in encoded {
            let Ok(wire) = wire else {
                assert!(violation(body, usize::MAX).is_some(), "text is refused");
                return None;
            };
            self.send(&wire);
        }
        Some(true)
    }

    fn chunks(&mut self, body: &[u8], pieces: &Cuts) {
        for piece in pieces.pieces(body) {
            let line = self.client.chunk(piece.len() as u64, false);
            self.send(&line);
            self.send(piece);
        }
        let line = self.client.chunk(0, true);
        self.send(&line);
    }
}

/// What is wrong with the lines of a body.
fn violation(bytes: &[u8], line_bytes_max: usize) -> Option<Violation> {
    let mut check = TextCheck::new(line_bytes_max);
    check.push(bytes);
    check.finish();
    check.violation()
}
