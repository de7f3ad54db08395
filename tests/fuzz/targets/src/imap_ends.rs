//! The IMAP client against the server: messages go through APPEND octet by octet as they are, or are refused; and either
//! way both know what the next command is.

use std::time::Instant;

use imap_protocol::client::{Client, Event};
use imap_protocol::mailbox_name::MailboxName;
use imap_protocol::response::string;
use machine::{Machine, Step};

use crate::imap_server::{Session, config};
use crate::input::{Cuts, Input};

/// Byte 1: limits of the server, and whether the client waits with its literals; byte 2: cuts of what goes to the
/// server; byte 3: of what comes back; byte 4: how many messages; a piece: the mailbox's name; then the messages.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let (there, back) = (input.cuts(), input.cuts());
    let count = input.below(3) + 1;
    let name = String::from_utf8_lossy(input.piece()).into_owned();
    let waits = kind & 8 != 0;
    let rest = input.rest();
    let size = rest.len().div_ceil(count as usize);
    let messages: Vec<&[u8]> = (0..count as usize)
        .map(|number| &rest[(number * size).min(rest.len())..((number + 1) * size).min(rest.len())])
        .collect();

    let mut talk = Talk {
        client: Client::new(),
        session: Session::new(kind & 4 | 1),
        there,
        back,
        taken: 0,
        heard: Vec::new(),
    };
    let refused = talk.append(&name, &messages, waits);
    talk.client.send(b"a2 NOOP\r\n");
    talk.run();
    let tagged: Vec<String> = talk
        .heard
        .iter()
        .filter_map(|event| match event {
            Event::Tagged(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
        .collect();
    if talk.session.closed {
        // Too much was sent without waiting.
        assert!(talk.session.appended.is_empty() && !waits, "{tagged:?}");
        return;
    }
    let [first, second] = &tagged[..] else { panic!("not one answer to each command: {tagged:?}") };
    assert_eq!(second, "a2 OK Done\r\n");
    if first.starts_with("a1 OK") {
        assert!(!refused);
        assert_eq!(talk.session.appended, messages);
    } else {
        assert!(talk.session.appended.is_empty(), "{first}");
        let big = messages.iter().any(|message| message.len() as u64 > config(kind).append_bytes_max);
        let long = name.len() * 4 + 100 > config(kind).command_bytes_max;
        let bad_name = name.chars().any(char::is_control);
        let full = messages.iter().any(|message| message.contains(&b'!'));
        assert!(big || long || bad_name || full || name.starts_with("no"), "refused for no reason: {first}");
    }
}

struct Talk {
    client: Client,
    session: Session,
    there: Cuts,
    back: Cuts,
    taken: usize,
    heard: Vec<Event>,
}

impl Talk {
    /// Whether the client was told to stop before it had sent everything.
    fn append(&mut self, name: &str, messages: &[&[u8]], waits: bool) -> bool {
        let mut line = bytes::BytesMut::from(&b"a1 APPEND "[..]);
        string::astring(&mut line, MailboxName::new(name).encode(self.session.server.name_form()).as_bytes());
        // A name may itself be a literal, which is waited for.
        if let Some(at) = line.windows(3).position(|three| three == b"}\r\n") {
            self.client.send(&line[..at + 3]);
            if !self.may_go_on() {
                return true;
            }
            self.client.send(&line[at + 3..]);
        } else {
            self.client.send(&line);
        }
        for message in messages {
            let plus = if waits { "" } else { "+" };
            self.client.send(format!(" (\\Seen) {{{}{plus}}}\r\n", message.len()).as_bytes());
            if waits && !self.may_go_on() {
                return true;
            }
            self.client.send(message);
        }
        self.client.send(b"\r\n");
        false
    }

    fn may_go_on(&mut self) -> bool {
        self.run();
        matches!(self.heard.last(), Some(Event::Continue(_)))
    }

    fn run(&mut self) {
        let now = Instant::now();
        loop {
            match self.client.next(now) {
                Step::Event(event) => self.heard.push(event),
                Step::Write(bytes) => {
                    for piece in self.there.pieces(&bytes) {
                        self.session.send(piece);
                    }
                }
                Step::Wait { .. } if self.taken < self.session.output.len() => {
                    let length = self.back.next(self.session.output.len() - self.taken);
                    self.client.input(&self.session.output[self.taken..self.taken + length], now);
                    self.taken += length;
                }
                Step::Wait { .. } => break,
                Step::StartTls | Step::Close => unreachable!("nobody asked for it"),
            }
        }
    }
}
