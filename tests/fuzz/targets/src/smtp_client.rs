//! The client's SMTP machine: whatever a server sends.

use std::time::Instant;

use machine::{Machine, Step};
use mail::address::{Address, ReversePath};
use sasl::Mechanism;
use sasl::server::Binding;
use smtp_protocol::client::{Client, Event, Failure, Sent};
use smtp_protocol::command::HelloKind;
use smtp_protocol::parameter::{MailParameters, RcptParameters};

use crate::input::{Cuts, Input, count};

/// Byte 1: LMTP or not, and which commands; byte 2: cuts; then what the server sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (script, cuts) = (input.byte(), input.cuts());
    let sent = input.rest();
    let whole = talk(script, sent, &Cuts::WHOLE);
    let cut = talk(script, sent, &cuts);
    // What comes in one piece with the reply to STARTTLS is an attack, and later it is the handshake. What comes in one
    // piece with the reply to DATA is no answer to the message, and later it is.
    let unasked = |talk: &Talk| talk.events.last() == Some(&Event::Failed(Failure::Unasked));
    if script & 2 != 0 {
        // Nothing to be compared.
    } else if unasked(&whole) || unasked(&cut) {
        let told = whole.events.len().min(cut.events.len()).saturating_sub(1);
        assert_eq!(whole.events[..told], cut.events[..told]);
    } else {
        assert_eq!(whole.events, cut.events);
        assert_eq!(String::from_utf8_lossy(&whole.output), String::from_utf8_lossy(&cut.output));
    }
    let commands = count(&whole.output, b'\n');
    assert!(whole.events.len() <= 2 * commands + 4, "{} events of {commands} lines", whole.events.len());
}

struct Talk {
    events: Vec<Event>,
    output: Vec<u8>,
    tls: bool,
}

fn talk(script: u8, sent: &[u8], cuts: &Cuts) -> Talk {
    let now = Instant::now();
    let lmtp = script & 1 != 0;
    let mut client = Client::new(lmtp);
    let mut talk = Talk { events: Vec::new(), output: Vec::new(), tls: false };
    let mut closed = run_until_wait(&mut client, &mut talk, now);
    client.hello(if lmtp { HelloKind::Lhlo } else { HelloKind::Ehlo }, "client.example.test");
    if script & 2 != 0 {
        client.start_tls();
    } else if script & 4 != 0 {
        let mechanism = if script & 8 != 0 { Mechanism::Plain } else { Mechanism::Login };
        let login = sasl::client::Client::plain_login("alice", "secret".into());
        client.auth(sasl::client::Client::new(mechanism, login, Binding::None));
    } else {
        client.mail(&ReversePath::NULL, &MailParameters::default());
        for local in ["one", "two"] {
            let address = Address::parse(&format!("{local}@example.test")).unwrap();
            client.rcpt(&address, &RcptParameters::default());
        }
        client.data();
    }
    for piece in cuts.pieces(sent) {
        closed = closed || run_until_wait(&mut client, &mut talk, now);
        if closed {
            break;
        }
        client.input(piece, now);
    }
    closed = closed || run_until_wait(&mut client, &mut talk, now);
    client.end_of_input(now);
    closed = closed || run_until_wait(&mut client, &mut talk, now);
    assert!(closed || talk.tls, "the session does not end");
    talk
}

/// Whether it has closed.
fn run_until_wait(client: &mut Client, talk: &mut Talk, now: Instant) -> bool {
    loop {
        match client.next(now) {
            Step::Event(event) => {
                if let Event::Reply { to: Sent::Data, reply } = &event
                    && reply.code == 354
                {
                    for bytes in [client.encode_body(b".line\r\n"), client.end_body()] {
                        talk.output.extend_from_slice(&bytes.expect("the body is text"));
                    }
                    client.reset();
                    client.quit();
                }
                talk.events.push(event);
            }
            Step::Write(bytes) => talk.output.extend_from_slice(&bytes),
            Step::StartTls => {
                talk.tls = true;
                return true;
            }
            Step::Wait { until } => {
                assert!(until.is_none_or(|until| until > now), "waits for the past");
                return false;
            }
            Step::Close => return true,
        }
    }
}
