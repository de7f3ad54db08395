use std::time::{Duration, Instant};

use machine::{Machine, Step};

use super::*;

/// What a scripted service does with events: enough to answer everything, and a log of what it was told.
struct Session {
    server: Server,
    now: Instant,
    seen: Vec<String>,
    sent: String,
    message: Vec<u8>,
    refuse_messages: bool,
    /// Answers to APPEND are put off.
    late: bool,
    owed: Vec<Tag>,
    starts_tls: usize,
    closed: bool,
}

impl Session {
    fn new(state: State) -> Self {
        Self::with(Config { starttls: true, ..Config::default() }, state)
    }

    fn with(config: Config, state: State) -> Self {
        let mut server = Server::new(config, false);
        server.set_state(state);
        Self {
            server,
            now: Instant::now(),
            seen: Vec::new(),
            sent: String::new(),
            message: Vec::new(),
            refuse_messages: false,
            late: false,
            owed: Vec::new(),
            starts_tls: 0,
            closed: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.server.input(bytes, self.now);
        self.run();
    }

    fn run(&mut self) {
        loop {
            match self.server.next(self.now) {
                Step::Write(bytes) => self.sent.push_str(std::str::from_utf8(&bytes).unwrap()),
                Step::StartTls => {
                    self.starts_tls += 1;
                    return;
                }
                Step::Wait { .. } => return,
                Step::Close => {
                    self.closed = true;
                    return;
                }
                Step::Event(event) => self.serve(event),
            }
        }
    }

    fn serve(&mut self, event: Event) {
        match event {
            Event::Command { command, .. } => {
                self.seen.push(format!("{command:?}"));
                if let Command::Login { .. } = command {
                    self.server.set_state(State::Authenticated);
                }
                if let Command::Select(_) = command {
                    self.server.set_state(State::Selected);
                }
                self.server.finish(Outcome::Ok, "done");
            }
            Event::Authenticate { mechanism, initial, .. } => {
                self.seen.push(format!("{mechanism} {:?}", initial.as_deref().map(String::from_utf8_lossy)));
                match initial {
                    Some(_) => self.server.finish(Outcome::Ok, "done"),
                    None => self.server.challenge(b""),
                }
            }
            Event::AuthenticateResponse(response) => {
                self.seen.push(format!("response {}", String::from_utf8_lossy(&response)));
                self.server.finish(Outcome::Ok, "done");
            }
            Event::Append { append, .. } => {
                self.seen.push(format!("append {} {}", append.mailbox, append.message.size));
                self.offered();
            }
            Event::AppendNext(message) => {
                self.seen.push(format!("next {}", message.size));
                self.offered();
            }
            Event::AppendChunk(chunk) => self.message.extend_from_slice(&chunk),
            Event::AppendEnd => {
                self.seen.push("end".into());
                if self.late {
                    self.owed.extend(self.server.defer());
                } else {
                    self.server.finish(Outcome::Ok, "done");
                }
            }
            Event::AnswersDue => {
                self.seen.push("answers".into());
                self.answer();
            }
            Event::Idle { .. } => self.server.begin_idle(),
            Event::IdleDone => self.server.finish(Outcome::Ok, "done"),
            event => self.seen.push(format!("{event:?}")),
        }
    }

    fn answer(&mut self) {
        for tag in self.owed.drain(..) {
            self.server.answer_deferred(&tag, Outcome::Ok, "late");
        }
    }

    fn offered(&mut self) {
        if self.refuse_messages {
            self.server.finish(Outcome::No, "not here");
        } else {
            self.server.take_message();
        }
    }
}

/// Runs `input` whole, and again octet by octet: both must lead to the same.
fn check(state: State, input: &[u8], sent: &str, seen: &[&str]) {
    for piece in [input.len().max(1), 1, 7] {
        let mut session = Session::new(state);
        for bytes in input.chunks(piece) {
            session.feed(bytes);
        }
        assert_eq!(session.sent, sent, "in pieces of {piece}");
        assert_eq!(session.seen, seen, "in pieces of {piece}");
    }
}

#[test]
fn commands_are_judged_in_the_state_the_last_one_left() {
    check(
        State::NotAuthenticated,
        b"a SELECT x\r\nb LOGIN joe \"s\\\"ecret\"\r\nc FETCH 1 FLAGS\r\nd SELECT x\r\ne FETCH 1 FLAGS\r\nf LOGIN a b\r\n",
        "a BAD Log in first\r\nb OK done\r\nc BAD No mailbox is selected\r\nd OK done\r\ne OK done\r\nf BAD Already logged in\r\n",
        &[
            "Login { user: \"joe\", password: Password(..) }",
            "Select(Select { mailbox: \"x\", read_only: false, condstore: false, qresync: None })",
            "Fetch(Fetch { uid: false, set: Ranges([(Number(1), Number(1))]), items: [Flags], changed_since: None, vanished: false, partial: None })",
        ],
    );
}

#[test]
fn literals_are_part_of_commands() {
    check(
        State::NotAuthenticated,
        b"a LOGIN {3}\r\njoe {6+}\r\nse\r\n{3\r\nb NOOP\r\n",
        "+ OK\r\na OK done\r\nb OK done\r\n",
        &["Login { user: \"joe\", password: Password(..) }", "Noop"],
    );
}

#[test]
fn refused_literals_leave_the_stream_in_step() {
    // The client that waits gets the answer instead of the continuation; the one that does not wait has its octets
    // thrown away.
    check(
        State::NotAuthenticated,
        b"a FOO {5}\r\nb NOOP\r\n",
        "a BAD Unknown command\r\nb OK done\r\n",
        &["Noop"],
    );
    check(
        State::NotAuthenticated,
        b"a FOO {11+}\r\nx LOGOUT\r\n\n more {3+}\r\nabc\r\nb NOOP\r\n",
        "a BAD Unknown command\r\nb OK done\r\n",
        &["Noop"],
    );
    check(
        State::NotAuthenticated,
        b"a LOGIN x {9000}\r\nb NOOP\r\n",
        "a BAD [LIMIT] Literal is too long\r\nb OK done\r\n",
        &["Noop"],
    );
    check(
        State::NotAuthenticated,
        b"* FOO {99999999999999999999999}\r\nb NOOP\r\n",
        "* BAD Command without a tag\r\nb OK done\r\n",
        &["Noop"],
    );
}

#[test]
fn long_lines_are_skipped() {
    let mut input = b"a LOGIN joe ".to_vec();
    input.extend(std::iter::repeat_n(b'x', 100_000));
    input.extend_from_slice(b"{4+}\r\nab\r\n rest\r\nb NOOP\r\n");
    let mut session = Session::new(State::NotAuthenticated);
    for piece in input.chunks(1000) {
        session.feed(piece);
    }
    assert_eq!(session.sent, "a BAD [LIMIT] Command is too long\r\nb OK done\r\n");
    // A line without end is not skipped for ever.
    for _ in 0..1200 {
        session.feed(&[b'x'; 1000]);
    }
    assert!(session.closed);
    assert!(session.sent.ends_with("* BYE [LIMIT] Command is too long\r\n"), "{}", session.sent);
}

#[test]
fn lines_end_in_crlf_only() {
    check(
        State::NotAuthenticated,
        b"a NOOP\nb NOOP\r\nc NO\rOP\r\nd NOOP\0\r\n\r\ne LOGIN {1+}\r\n\0 x\r\n",
        "a BAD Lines end in CRLF\r\nb OK done\r\nc BAD Unknown command\r\nd BAD Unexpected argument\r\n\
         * BAD Command without a tag\r\ne BAD Literal holds a NUL\r\n",
        &["Noop"],
    );
}

#[test]
fn messages_are_streamed() {
    check(
        State::Authenticated,
        b"a APPEND Sent (\\Seen) \" 1-Jan-2020 00:00:00 +0000\" {6+}\r\nhello\n\r\nb NOOP\r\n",
        "a OK done\r\nb OK done\r\n",
        &["append Sent 6", "end", "Noop"],
    );
    check(
        State::Authenticated,
        b"a APPEND {4}\r\nSent {6}\r\nhello\n\r\n",
        "+ OK\r\n+ OK\r\na OK done\r\n",
        &["append Sent 6", "end"],
    );
    check(
        State::Authenticated,
        b"a APPEND Sent {1+}\r\nx (\\Seen) {2+}\r\nyy\r\n",
        "a OK done\r\n",
        &["append Sent 1", "next 2", "end"],
    );
    check(
        State::Authenticated,
        b"a APPEND Sent {1+}\r\nx nonsense\r\nb NOOP\r\n",
        "a BAD Unexpected argument behind the message\r\nb OK done\r\n",
        &["append Sent 1", "AppendBroken", "Noop"],
    );
    check(
        State::Authenticated,
        b"a APPEND Sent ~{1}\r\nb APPEND Sent\r\nc APPEND Sent (\\Recent) {1}\r\nd APPEND Sent {900000000}\r\n",
        "a NO [UNKNOWN-CTE] Binary literals are not supported\r\nb BAD APPEND without a message literal\r\n\
         c BAD Invalid flag\r\nd NO [TOOBIG] Message is too big\r\n",
        &[],
    );
    let mut session = Session::new(State::Authenticated);
    let big = vec![b'x'; 100_000];
    session.feed(b"a APPEND INBOX {100000}\r\n");
    session.feed(&big);
    session.feed(b"\r\n");
    assert_eq!(session.message, big);
    assert_eq!(session.seen, ["append INBOX 100000", "end"]);
}

/// RFC 9051 §5.5: APPENDs may be under way together; whatever else comes is looked at when they are answered.
#[test]
fn answers_to_appends_can_be_put_off() {
    let appends = b"a APPEND Sent {2+}\r\nx\n\r\nb APPEND {4+}\r\nSent {1+}\r\ny\r\n";
    for (behind, sent, seen) in [
        (&b"c NOOP\r\n"[..], "a OK late\r\nb OK late\r\nc OK done\r\n", "Noop"),
        (b"c LOGOUT\r\n", "a OK late\r\nb OK late\r\n* BYE Logging out\r\nc OK Logout completed\r\n", ""),
        (b"c LIST \"\" {1+}\r\n*\r\n", "a OK late\r\nb OK late\r\nc OK done\r\n", "List"),
        (b"nonsense\r\n", "a OK late\r\nb OK late\r\n", ""),
        (b"c IDLE\r\nDONE\r\n", "a OK late\r\nb OK late\r\n+ idling\r\nc OK done\r\n", ""),
    ] {
        for piece in [usize::MAX, 1, 7] {
            let mut session = Session::new(State::Authenticated);
            session.late = true;
            for bytes in [&appends[..], behind].concat().chunks(piece) {
                session.feed(bytes);
            }
            assert!(session.sent.starts_with(sent), "{}", session.sent);
            assert_eq!(session.seen[..5], ["append Sent 2", "end", "append Sent 1", "end", "answers"]);
            assert!(session.seen.get(5).is_none_or(|event| event.starts_with(seen)), "{:?}", session.seen);
        }
    }
    // A client that says no more hears of them before the connection ends; one that waits does not keep them back.
    let mut session = Session::new(State::Authenticated);
    session.late = true;
    session.feed(appends);
    assert_eq!((session.sent.as_str(), session.owed.len()), ("", 2));
    session.server.end_of_input(session.now);
    session.run();
    assert_eq!(session.sent, "a OK late\r\nb OK late\r\n");
    assert!(session.closed);
}

#[test]
fn refused_messages_are_passed_over() {
    for (input, sent) in [
        (&b"a APPEND Sent {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n"[..], "a NO not here\r\nb OK done\r\n"),
        (b"a APPEND Sent {8}\r\nb NOOP\r\n", "a NO not here\r\nb OK done\r\n"),
    ] {
        let mut session = Session::new(State::Authenticated);
        session.refuse_messages = true;
        session.feed(input);
        assert_eq!(session.sent, sent);
        assert_eq!(session.seen, ["append Sent 8", "Noop"]);
    }
}

#[test]
fn what_follows_starttls_in_clear_text_is_discarded() {
    let mut session = Session::new(State::NotAuthenticated);
    session.feed(b"a STARTTLS\r\nb LOGIN joe secret\r\nc NO");
    assert_eq!(session.sent, "a OK Begin TLS negotiation now\r\n");
    assert_eq!(session.starts_tls, 1);
    session.feed(b"OP\r\nd NOOP\r\n");
    session.server.tls_started(session.now);
    session.feed(b"e NOOP\r\nf STARTTLS\r\n");
    assert_eq!(session.seen, ["TlsStarted", "Noop"]);
    assert_eq!(
        session.sent,
        "a OK Begin TLS negotiation now\r\ne OK done\r\nf BAD STARTTLS is not available\r\n"
    );
}

#[test]
fn authenticate_with_and_without_initial_response() {
    check(
        State::NotAuthenticated,
        b"a AUTHENTICATE plain AGEAYg==\r\nb authenticate PLAIN =\r\n",
        "a OK done\r\nb OK done\r\n",
        &["PLAIN Some(\"\\0a\\0b\")", "PLAIN Some(\"\")"],
    );
    check(
        State::NotAuthenticated,
        b"a AUTHENTICATE PLAIN\r\nAGEAYg==\r\nb AUTHENTICATE PLAIN\r\n*\r\nc AUTHENTICATE PLAIN\r\n!\r\n",
        "+ \r\na OK done\r\n+ \r\nb BAD Authentication cancelled\r\n+ \r\nc BAD Invalid base64\r\n",
        &[
            "PLAIN None",
            "response \0a\0b",
            "PLAIN None",
            "AuthenticateEnded",
            "PLAIN None",
            "AuthenticateEnded",
        ],
    );
}

#[test]
fn idle_ends_with_done() {
    check(
        State::Selected,
        b"a IDLE\r\ndone\r\nb NOOP\r\n",
        "+ idling\r\na OK done\r\nb OK done\r\n",
        &["Noop"],
    );
    check(
        State::Selected,
        b"a IDLE\r\nb NOOP\r\nc NOOP\r\n",
        "+ idling\r\na BAD Expected DONE\r\nc OK done\r\n",
        &["IdleBroken", "Noop"],
    );
}

#[test]
fn logout_and_too_many_errors_close() {
    let mut session = Session::new(State::NotAuthenticated);
    session.feed(b"a LOGOUT\r\nb NOOP\r\n");
    assert_eq!(session.sent, "* BYE Logging out\r\na OK Logout completed\r\n");
    assert!(session.closed);

    let mut session = Session::new(State::NotAuthenticated);
    for _ in 0..25 {
        session.feed(b"x\r\n");
    }
    assert!(session.closed);
    assert!(session.sent.ends_with("* BYE Too many invalid commands\r\n"));
    assert_eq!(session.sent.matches("BAD").count(), 20);
}

#[test]
fn silence_ends_the_connection() {
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let second = Duration::from_secs(1);
    for (state, allowed) in [(State::NotAuthenticated, 3), (State::Authenticated, 30), (State::Selected, 30)]
    {
        let mut session = Session::new(state);
        session.feed(b"a NOOP\r\n");
        session.now += minutes(allowed).saturating_sub(second);
        session.run();
        assert!(!session.closed);
        session.now += second;
        session.run();
        assert!(session.closed);
        assert!(session.sent.ends_with("* BYE Autologout; idle for too long\r\n"));
    }
    // In the middle of a command the patience is shorter.
    let mut session = Session::new(State::Selected);
    session.feed(b"a NO");
    session.now += minutes(5);
    session.run();
    assert!(session.closed);
}

#[test]
fn an_idle_session_holds_no_buffers() {
    let mut session = Session::new(State::Selected);
    session.feed(b"a NOOP\r\nb IDLE\r\n");
    assert_eq!(session.server.out.capacity(), 0);
    assert_eq!(session.server.framing.capacity(), 0);
}

#[test]
fn end_of_input_closes_after_what_is_complete() {
    let mut session = Session::new(State::Selected);
    session.server.input(b"a NOOP\r\nb NO", session.now);
    session.server.end_of_input(session.now);
    session.run();
    assert!(session.closed);
    assert_eq!(session.sent, "a OK done\r\n");
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Whatever comes, and however it is cut: the same answers, and every step ends.
        #[test]
        fn cuts_make_no_difference(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(b"a NOOP\r\n".to_vec()), Just(b"b LOGIN {3+}\r\n".to_vec()), Just(b"joe".to_vec()),
                    Just(b" \"x\"\r\n".to_vec()), Just(b"c APPEND x {4+}\r\n".to_vec()), Just(b"{2}\r\n".to_vec()),
                    Just(b"\r\n".to_vec()), Just(b"d SEARCH (OR NOT ALL 1:* UID $)\r\n".to_vec()),
                    Just(b"e FETCH 1 (BODY[1.HEADER.FIELDS (A)]<0.5>)\r\n".to_vec()), Just(b"f IDLE\r\n".to_vec()),
                    Just(b"g AUTHENTICATE PLAIN\r\n".to_vec()), Just(b"DONE\r\n".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..12),
                ],
                0..12,
            ),
            cut in 1_usize..20,
        ) {
            let input = pieces.concat();
            let mut whole = Session::new(State::Selected);
            whole.feed(&input);
            let mut cut_up = Session::new(State::Selected);
            for piece in input.chunks(cut) {
                cut_up.feed(piece);
            }
            prop_assert_eq!(whole.sent, cut_up.sent);
            prop_assert_eq!(whole.seen, cut_up.seen);
            prop_assert_eq!(whole.message, cut_up.message);
        }
    }
}
