//! The server's IMAP machine and its grammar: whatever a client sends.

use std::time::Instant;

use imap_protocol::client::{self, Client};
use imap_protocol::command::{Command, Tag};
use imap_protocol::search::SearchKey;
use imap_protocol::sequence::SequenceSet;
use imap_protocol::server::{Config, Event, Outcome, Server, State};
use machine::{Machine, Step};

use crate::input::{Cuts, Input};

/// Byte 1: the state in which the session begins, and which limits it has; byte 2: cuts; then what the client sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, cuts) = (input.byte(), input.cuts());
    let sent = input.rest();
    let whole = Session::talk(kind, sent, &Cuts::WHOLE);
    check_responses(&whole.output);
    let cut = Session::talk(kind, sent, &cuts);
    assert_eq!(whole.events, cut.events);
    assert_eq!(String::from_utf8_lossy(&whole.output), String::from_utf8_lossy(&cut.output));
    assert_eq!((whole.closed, whole.wants_tls), (cut.closed, cut.wants_tls));
    let most = 100 + 20 * sent.len();
    assert!(whole.steps < most && cut.steps < most, "too many steps");
}

pub(crate) fn config(kind: u8) -> Config {
    let small = Config {
        starttls: true,
        command_bytes_max: 300,
        command_bytes_before_login_max: 200,
        append_bytes_max: 500,
        bad_commands_max: 4,
        ..Config::default()
    };
    if kind & 4 == 0 { Config { starttls: true, ..Config::default() } } else { small }
}

/// A session with a service that says yes to most things.
pub(crate) struct Session {
    pub(crate) server: Server,
    now: Instant,
    pub(crate) output: Vec<u8>,
    events: Vec<String>,
    message: Vec<u8>,
    /// Messages that were appended.
    pub(crate) appended: Vec<Vec<u8>>,
    /// Messages of an APPEND that is not over.
    pending: Vec<Vec<u8>>,
    /// The answer to the APPEND under way is put off.
    late: bool,
    /// Commands whose answers were put off.
    owed: Vec<Tag>,
    wants_tls: bool,
    pub(crate) closed: bool,
    steps: usize,
}

impl Session {
    pub(crate) fn new(kind: u8) -> Self {
        let mut server = Server::new(config(kind), false);
        server.set_state(
            [State::NotAuthenticated, State::Authenticated, State::Selected, State::Selected]
                [usize::from(kind & 3)],
        );
        server.output().extend_from_slice(b"* OK hello\r\n");
        Self {
            server,
            now: Instant::now(),
            output: Vec::new(),
            events: Vec::new(),
            message: Vec::new(),
            appended: Vec::new(),
            pending: Vec::new(),
            late: false,
            owed: Vec::new(),
            wants_tls: false,
            closed: false,
            steps: 0,
        }
    }

    fn talk(kind: u8, sent: &[u8], cuts: &Cuts) -> Self {
        let mut session = Self::new(kind);
        session.run();
        for piece in cuts.pieces(sent) {
            session.send(piece);
            if session.wants_tls || session.closed {
                break;
            }
        }
        session.server.end_of_input(session.now);
        session.run();
        assert!(session.closed || session.wants_tls, "the session does not end");
        session
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.server.input(bytes, self.now);
        self.run();
    }

    pub(crate) fn run(&mut self) {
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
        match &event {
            Event::AppendChunk(_) => {}
            Event::AppendEnd | Event::AppendNext(_) => {
                self.events.push(format!("{event:?} {:?}", self.message));
            }
            event => self.events.push(format!("{event:?}")),
        }
        let server = &mut self.server;
        match event {
            Event::Command { command, .. } => {
                check_command(&command);
                match command {
                    Command::Login { password, .. } if password.expose() == "no" => {
                        return server.finish(Outcome::No, "[AUTHENTICATIONFAILED] No");
                    }
                    Command::Login { .. } => server.set_state(State::Authenticated),
                    Command::Select(_) => server.set_state(State::Selected),
                    Command::Close | Command::Unselect => server.set_state(State::Authenticated),
                    Command::Enable(names) if names.iter().any(|name| name == "UTF8=ACCEPT") => {
                        server.set_name_form(imap_protocol::mailbox_name::NameForm::Utf8);
                    }
                    _ => {}
                }
                server.finish(Outcome::Ok, "Done");
            }
            Event::Authenticate { initial: Some(_), .. } => {
                server.set_state(State::Authenticated);
                server.finish(Outcome::Ok, "Done");
            }
            Event::Authenticate { initial: None, .. } => server.challenge(b"?"),
            Event::AuthenticateResponse(response) if response == b"more" => server.finish(Outcome::No, "No"),
            Event::AuthenticateResponse(_) => server.finish(Outcome::Ok, "Done"),
            Event::Append { append, .. } => {
                assert!(append.message.size <= config(0).append_bytes_max);
                self.pending.clear();
                self.message.clear();
                self.late = append.mailbox.as_str().starts_with('l');
                if append.mailbox.as_str().starts_with("no") {
                    server.finish(Outcome::No, "[TRYCREATE] No such mailbox");
                } else {
                    server.take_message();
                }
            }
            Event::AppendNext(_) => {
                self.pending.push(std::mem::take(&mut self.message));
                if self.pending.len() > 3 {
                    server.finish(Outcome::No, "[LIMIT] Too many messages");
                } else {
                    server.take_message();
                }
            }
            Event::AppendChunk(chunk) => {
                assert!(!chunk.is_empty(), "an empty chunk");
                self.message.extend_from_slice(&chunk);
                if chunk.contains(&b'!') {
                    // Refused in the middle of it, as when the disk is full.
                    self.events.push("full".into());
                    server.finish(Outcome::No, "Full");
                }
            }
            Event::AppendEnd => {
                self.pending.push(std::mem::take(&mut self.message));
                self.appended.append(&mut self.pending);
                if self.late {
                    self.owed.extend(server.defer());
                    if self.owed.len() > 3 {
                        self.answer();
                    }
                } else {
                    server.finish(Outcome::Ok, "Done");
                }
            }
            Event::AnswersDue => {
                assert!(!self.owed.is_empty(), "no answers are owed");
                self.answer();
            }
            Event::AppendBroken => self.pending.clear(),
            Event::Idle { .. } => server.begin_idle(),
            Event::IdleDone => server.finish(Outcome::Ok, "Done"),
            Event::AuthenticateEnded | Event::IdleBroken | Event::TlsStarted => {}
        }
    }
}

impl Session {
    fn answer(&mut self) {
        for tag in self.owed.drain(..) {
            self.server.answer_deferred(&tag, Outcome::Ok, "Done");
        }
    }
}

/// What can be said of any command that the grammar has let through.
fn check_command(command: &Command) {
    match command {
        Command::Fetch(fetch) => check_set(&fetch.set),
        Command::Store(store) => check_set(&store.set),
        Command::Copy(copy) | Command::Move(copy) => {
            check_set(&copy.set);
            assert!(!copy.mailbox.as_str().contains(['\r', '\n', '\0']));
        }
        Command::UidExpunge(set) => check_set(set),
        Command::Search(search) => check_key(&search.key),
        Command::Create { mailbox, .. } | Command::Delete(mailbox) | Command::Subscribe(mailbox) => {
            assert!(!mailbox.as_str().contains(['\r', '\n', '\0']));
        }
        _ => {}
    }
}

fn check_key(key: &SearchKey) {
    match key {
        SearchKey::Sequence(set) | SearchKey::Uid(set) => check_set(set),
        SearchKey::Not(key) => check_key(key),
        SearchKey::Or(one, other) => {
            check_key(one);
            check_key(other);
        }
        SearchKey::And(keys) => keys.iter().for_each(check_key),
        _ => {}
    }
}

/// Ranges come out in order, without overlap, and hold what the client wrote.
fn check_set(set: &SequenceSet) {
    for star in [0, 1, 17, u32::MAX] {
        let Some(ranges) = set.resolve(star) else { continue };
        assert!(ranges.iter().all(|(first, last)| 0 < *first && first <= last), "{set:?} {star}");
        assert!(ranges.is_sorted_by(|one, next| u64::from(one.1) + 1 < u64::from(next.0)), "{set:?} {star}");
    }
}

/// Every response is complete, and begins as a response does.
fn check_responses(output: &[u8]) {
    let now = Instant::now();
    let mut client = Client::new();
    client.input(output, now);
    client.end_of_input(now);
    let mut length = 0;
    while let Step::Event(event) = client.next(now) {
        let bytes = event.bytes();
        length += bytes.len();
        let text = bytes.strip_suffix(b"\r\n").expect("a response ends in CRLF");
        assert!(!text.contains(&b'\r') && !text.contains(&b'\n') && !text.contains(&0), "{bytes:?}");
        let begins = match &event {
            client::Event::Untagged(bytes) => bytes.starts_with(b"* "),
            client::Event::Continue(bytes) => bytes.starts_with(b"+ "),
            client::Event::Tagged(bytes) => {
                let words: Vec<&[u8]> = bytes.splitn(3, |byte| *byte == b' ').collect();
                !words[0].is_empty() && words.len() == 3 && [&b"OK"[..], b"NO", b"BAD"].contains(&words[1])
            }
        };
        assert!(begins, "{bytes:?}");
    }
    assert_eq!(length, output.len(), "an unfinished response");
}
