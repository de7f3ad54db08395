//! The client's machine against the server's: what goes in at one end comes out at the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;

use bytes::Bytes;
use machine::{Machine, Step};
use mail::address::{Address, ReversePath};
use mail::envelope::{BodyType, ByMode, Notify, Ret};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sasl::Mechanism;
use sasl::server::Binding;
use smtp_protocol::client::{Client, Event, Failure, Patience, Sent};
use smtp_protocol::command::HelloKind;
use smtp_protocol::parameter::{MailParameters, RcptParameters};
use smtp_protocol::wish::{By, Hold};

use crate::policy::{Session, settings};

/// A client that talks to a [`Session`], a few bytes at a time.
struct Talk {
    client: Client,
    session: Session,
    cut: usize,
    heard: VecDeque<Event>,
    closed: bool,
}

impl Talk {
    fn new(kind: &str, cut: usize) -> Self {
        let session = Session::new(settings(kind));
        let client = Client::new(kind == "lmtp");
        let mut talk = Self { client, session, cut, heard: VecDeque::new(), closed: false };
        talk.run();
        talk.expect(Sent::Connection, 220);
        talk
    }

    /// Moves bytes to and fro until both wait.
    fn run(&mut self) {
        while !self.closed {
            match self.client.next(self.session.now) {
                Step::Event(event) => self.heard.push_back(event),
                Step::Write(bytes) => self.send(&bytes),
                Step::StartTls => {
                    self.session.start_tls();
                    self.client.tls_started(self.session.now);
                }
                Step::Wait { .. } if self.session.output.is_empty() => break,
                Step::Wait { .. } => {
                    let end = self.cut.min(self.session.output.len());
                    let piece: Vec<u8> = self.session.output.drain(..end).collect();
                    self.client.input(&piece, self.session.now);
                }
                Step::Close => self.closed = true,
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.cut) {
            self.session.send(piece);
        }
    }

    /// What `Pump::send` does: the machine's output goes first.
    fn push(&mut self, bytes: Bytes) {
        self.run();
        self.send(&bytes);
    }

    fn expect(&mut self, sent: Sent, wanted: u16) {
        self.run();
        match self.heard.pop_front() {
            Some(Event::Reply { to, reply }) => assert_eq!((to, reply.code), (sent, wanted), "{reply}"),
            event => panic!("no reply to {sent:?} but {event:?}"),
        }
    }

    fn accepted(&self) -> Option<&str> {
        self.session.events.iter().rev().find(|event| event.starts_with("accepted")).map(String::as_str)
    }
}

fn address(local: &str) -> Address {
    Address::parse(&format!("{local}@x.test")).unwrap()
}

#[test]
fn tls_login_and_parameters() {
    for mechanism in Mechanism::ALL.into_iter().filter(|one| *one != Mechanism::ScramSha256Plus) {
        for cut in [usize::MAX, 1, 5] {
            let mut talk = Talk::new("submission", cut);
            talk.client.hello(HelloKind::Ehlo, "client.example");
            talk.expect(Sent::Hello, 250);
            assert_eq!(talk.client.extensions().auth, [Mechanism::ScramSha256]);
            talk.client.start_tls();
            talk.run();
            assert_eq!(talk.heard.pop_front(), Some(Event::TlsStarted));
            talk.client.hello(HelloKind::Ehlo, "client.example");
            talk.expect(Sent::Hello, 250);
            assert!(talk.client.extensions().auth.contains(&mechanism));
            for (password, code) in [("wrong", 535), ("secret", 235)] {
                let login = sasl::client::Client::plain_login("alice", password.into());
                talk.client.auth(sasl::client::Client::new(mechanism, login, Binding::None));
                talk.expect(Sent::Auth, code);
            }
            let parameters = MailParameters {
                size: Some(12),
                body: BodyType::EightBitMime,
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("a b=c".into()),
                auth: Some(Some("alice@x.test".into())),
                hold: Some(Hold::For(60)),
                by: Some(By { seconds: 120, mode: ByMode::Notify, trace: true }),
                priority: Some(-2),
            };
            talk.client.mail(&ReversePath::from(address("jürgen")), &parameters);
            let parameters = RcptParameters { notify: Notify::FAILURE, orcpt: Some("rfc822;a+b@x".into()) };
            talk.client.rcpt(&address("\"b c\""), &parameters);
            talk.expect(Sent::Mail, 250);
            talk.expect(Sent::Rcpt, 250);
            let heard = talk.session.events.join("\n");
            assert!(heard.contains(r#"envid: Some("a b=c"), auth: Some(Some("alice@x.test"))"#), "{heard}");
            assert!(heard.contains(r#"orcpt: Some("rfc822;a+b@x")"#), "{heard}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_arrive(
        lines in proptest::collection::vec("[.a-c]{0,12}", 0..12),
        cut in 1_usize..40,
        lmtp in any::<bool>(),
        chunked in any::<bool>(),
    ) {
        let message: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
        let (kind, hello) = if lmtp { ("lmtp", HelloKind::Lhlo) } else { ("mx", HelloKind::Ehlo) };
        let mut talk = Talk::new(kind, cut);
        // Twice, to see that nothing is left of the first.
        talk.client.hello(hello, "client.example");
        talk.expect(Sent::Hello, 250);
        for _ in 0..2 {
            talk.client.mail(&ReversePath::NULL, &MailParameters::default());
            for local in ["one", "nobody", "two"] {
                talk.client.rcpt(&address(local), &RcptParameters::default());
            }
            for (sent, code) in [(Sent::Mail, 250), (Sent::Rcpt, 250), (Sent::Rcpt, 550), (Sent::Rcpt, 250)] {
                talk.expect(sent, code);
            }
            if chunked {
                let pieces: Vec<&[u8]> = message.as_bytes().chunks(cut).collect();
                for piece in &pieces {
                    let line = talk.client.chunk(piece.len() as u64, false);
                    talk.push(line);
                    talk.push(Bytes::copy_from_slice(piece));
                }
                let line = talk.client.chunk(0, true);
                talk.push(line);
                for _ in pieces {
                    talk.expect(Sent::Chunk, 250);
                }
            } else {
                talk.client.data();
                talk.expect(Sent::Data, 354);
                for piece in message.as_bytes().chunks(cut) {
                    let piece = talk.client.encode_body(piece).unwrap();
                    talk.push(piece);
                }
                let end = talk.client.end_body().unwrap();
                talk.push(end);
            }
            for _ in 0..if lmtp { 2 } else { 1 } {
                talk.expect(Sent::Body, 250);
            }
            let expected = format!("accepted for one,two {message:?}");
            prop_assert_eq!(talk.accepted(), Some(expected.as_str()));
        }
        talk.client.quit();
        talk.expect(Sent::Quit, 221);
        prop_assert!(talk.closed && talk.session.closed);
    }

    #[test]
    fn any_replies(input in proptest::collection::vec(prop_oneof![
        proptest::sample::select(&b"0123456789 -\r\n"[..]), any::<u8>()], 0..200), cut in 1_usize..50) {
        let now = std::time::Instant::now();
        let mut client = Client::new(false);
        client.hello(HelloKind::Ehlo, "x");
        let mut steps = 0;
        for piece in input.chunks(cut) {
            client.input(piece, now);
            while !matches!(client.next(now), Step::Wait { .. } | Step::Close) {
                steps += 1;
            }
        }
        client.end_of_input(now);
        while !matches!(client.next(now), Step::Wait { .. } | Step::Close) {
            steps += 1;
        }
        prop_assert!(steps < 300);
    }
}

/// RFC 5321 §3.8: a host may end a session at any time, also while a message comes; then it is the message that it has
/// answered, and nothing can follow.
#[test]
fn answered_in_the_middle_of_a_message() {
    for answer in ["552 5.3.4 enough\r\n", "421 4.3.2 going down\r\n"] {
        let now = std::time::Instant::now();
        let mut client = Client::new(false);
        client.input(b"220 hi\r\n", now);
        assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Connection, .. })));
        client.data();
        assert!(matches!(client.next(now), Step::Write(_)));
        client.input(b"354 go\r\n", now);
        assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Data, .. })));
        client.encode_body(b"a line\r\n").unwrap();
        assert!(matches!(client.next(now), Step::Wait { until: None }));
        assert!(!client.is_closing());
        client.input(answer.as_bytes(), now);
        match client.next(now) {
            Step::Event(Event::Reply { to: Sent::Body, reply }) => {
                assert_eq!(reply.code, answer[..3].parse().unwrap());
            }
            step => panic!("{step:?}"),
        }
        assert!(client.is_closing());
        assert!(matches!(client.next(now), Step::Close));
    }
}

/// A success that is said before the end of the message is no answer to it, whenever it is noticed; nor is what was left
/// over from before an answer to the next command.
#[test]
fn what_nobody_asked_for_is_no_answer() {
    let now = std::time::Instant::now();
    let greeted = || {
        let mut client = Client::new(false);
        client.input(b"220 hi\r\n", now);
        assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Connection, .. })));
        client
    };
    let failed = |client: &mut Client| loop {
        match client.next(now) {
            Step::Write(_) => {}
            Step::Event(Event::Failed(failure)) => break assert_eq!(failure, Failure::Unasked),
            step => panic!("{step:?}"),
        }
    };
    for polled in [true, false] {
        let mut client = greeted();
        client.data();
        assert!(matches!(client.next(now), Step::Write(_)));
        client.input(b"354 go\r\n250 ok\r\n", now);
        assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Data, .. })));
        client.encode_body(b"a line\r\n").unwrap();
        if polled {
            failed(&mut client);
            continue;
        }
        client.end_body().unwrap();
        client.input(b"451 the real answer\r\n", now);
        failed(&mut client);
    }
    // A refusal is believed: there is nothing that could be lost by it.
    let mut client = greeted();
    client.data();
    assert!(matches!(client.next(now), Step::Write(_)));
    client.input(b"354 go\r\n552 enough\r\n", now);
    assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Data, .. })));
    client.end_body().unwrap();
    let step = client.next(now);
    assert!(
        matches!(&step, Step::Event(Event::Reply { to: Sent::Body, reply }) if reply.code == 552),
        "{step:?}"
    );
    // By BDAT, where the host has answered RCPT twice.
    let mut client = greeted();
    client.rcpt(&Address::parse("a@b.test").unwrap(), &RcptParameters::default());
    assert!(matches!(client.next(now), Step::Write(_)));
    client.input(b"250 ok\r\n250 ok\r\n", now);
    assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Rcpt, .. })));
    client.begin_chunk(5, true);
    client.end_chunk(true);
    failed(&mut client);
    // What was left over by the message before.
    let mut client = greeted();
    client.noop();
    assert!(matches!(client.next(now), Step::Write(_)));
    client.input(b"250 ok\r\n250 again\r\n", now);
    assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Noop, .. })));
    client.reset();
    failed(&mut client);
    assert!(client.is_closing());
}

/// A chunk may take longer than its answer: the time for that begins behind the last octet.
#[test]
fn the_answer_to_a_chunk_is_waited_for_from_its_end() {
    let minutes = std::time::Duration::from_mins;
    let start = std::time::Instant::now();
    let mut client = Client::new(false);
    client.input(b"220 hi\r\n", start);
    assert!(matches!(client.next(start), Step::Event(Event::Reply { .. })));
    assert_eq!(client.begin_chunk(5, true), "BDAT 5 LAST\r\n");
    assert!(matches!(client.next(start + minutes(30)), Step::Wait { until: None }));
    client.end_chunk(true);
    match client.next(start + minutes(31)) {
        Step::Wait { until } => assert_eq!(until, Some(start + minutes(41))),
        step => panic!("{step:?}"),
    }
    client.input(b"250 ok\r\n", start + minutes(32));
    let step = client.next(start + minutes(32));
    assert!(matches!(step, Step::Event(Event::Reply { to: Sent::Body, .. })), "{step:?}");
}

/// RFC 5321 §4.5.3.2: each stage has its time, and lines that trickle in do not set the clock back.
#[test]
fn patience_by_stage() {
    let seconds = std::time::Duration::from_secs;
    let patience = Patience { connection: seconds(10), mail: seconds(20), ..Patience::default() };
    let start = std::time::Instant::now();
    let mut client = Client::new(false).with_patience(patience);
    let until = |step| match step {
        Step::Wait { until } => until.map(|until| until - start),
        step => panic!("{step:?}"),
    };
    assert_eq!(until(client.next(start)), Some(seconds(10)));
    client.input(b"220-one\r\n", start + seconds(5));
    assert_eq!(until(client.next(start + seconds(5))), Some(seconds(10)));
    client.input(b"220 two\r\n", start + seconds(6));
    assert!(matches!(client.next(start + seconds(6)), Step::Event(Event::Reply { .. })));
    client.mail(&ReversePath::NULL, &MailParameters::default());
    assert!(matches!(client.next(start + seconds(6)), Step::Write(_)));
    assert_eq!(until(client.next(start + seconds(6))), Some(seconds(26)));
    match client.next(start + seconds(26)) {
        Step::Event(Event::Failed(failure)) => assert_eq!(failure, Failure::TimedOut(Sent::Mail)),
        step => panic!("{step:?}"),
    }
}

#[test]
fn failures() {
    let check = |after_hello: &str, ended: bool, late: bool, expected: Failure| {
        let mut now = std::time::Instant::now();
        let mut client = Client::new(false);
        client.input(b"220 hi\r\n", now);
        assert!(matches!(client.next(now), Step::Event(Event::Reply { to: Sent::Connection, .. })));
        if expected == Failure::Injected {
            client.start_tls();
        } else if expected == Failure::Unproved {
            let login = sasl::client::Client::plain_login("a", "b".into());
            client.auth(sasl::client::Client::new(Mechanism::ScramSha256, login, Binding::None));
        } else if expected != Failure::Unasked {
            client.hello(HelloKind::Ehlo, "x");
        }
        let _ = client.next(now);
        client.input(after_hello.as_bytes(), now);
        if ended {
            client.end_of_input(now);
        }
        if late {
            assert!(matches!(client.next(now), Step::Wait { .. }));
            now += std::time::Duration::from_mins(6);
        }
        match client.next(now) {
            Step::Event(Event::Failed(failure)) => assert_eq!(failure, expected),
            step => panic!("{step:?}"),
        }
        assert!(matches!(client.next(now), Step::Close));
    };
    check("250-x\r\n", true, false, Failure::Closed(Sent::Hello));
    check("250-x\r\n", false, true, Failure::TimedOut(Sent::Hello));
    check("220 go\r\n250 injected\r\n", false, false, Failure::Injected);
    check("250 what\r\n", false, false, Failure::Unasked);
    check("235 come in\r\n", false, false, Failure::Unproved);
    check("hello\r\n", false, false, Failure::Malformed(smtp_protocol::reply::ReplyError::Malformed));
}
