//! The server's SMTP and LMTP machine: whatever a client sends.
//!
//! However the bytes are cut, the service hears the same and the client is told the same; and what it is told is a
//! sequence of whole, well-formed replies.

use smtp_protocol::reply::ReplyReader;

use crate::input::{Cuts, Input};
use crate::smtp_service::{Session, settings};

/// Byte 1: kind of server, and whether it is encrypted from the start; byte 2: cuts; then what the client sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, cuts) = (input.byte(), input.cuts());
    let sent = input.rest();
    let whole = talk(kind, sent, &Cuts::WHOLE);
    check_replies(&whole.output);
    let cut = talk(kind, sent, &cuts);
    // A nonce is in the challenge of SCRAM, so what follows it differs from run to run. And how much of a body the disk
    // takes before it is full decides what is wrong with the body first.
    let differs = |event: &String| event.starts_with("ScramLookUp") || event.contains("Address(disk");
    if !whole.events.iter().any(differs) {
        assert_eq!(whole.events, cut.events);
        assert_eq!(String::from_utf8_lossy(&whole.output), String::from_utf8_lossy(&cut.output));
    }
    assert_eq!((whole.closed, whole.wants_tls), (cut.closed, cut.wants_tls));
    assert!(whole.steps() < 100 + 20 * sent.len() && cut.steps() < 100 + 20 * sent.len(), "too many steps");
}

fn talk(kind: u8, sent: &[u8], cuts: &Cuts) -> Session {
    let mut session = Session::new(settings(kind.into()), kind & 4 != 0);
    for piece in cuts.pieces(sent) {
        session.send(piece);
        if session.wants_tls {
            // What came with STARTTLS is dropped, what comes after it is not: here a cut makes another input.
            break;
        }
        session.pass(1);
    }
    session.pass(1);
    session.end_of_input();
    assert!(session.closed || session.wants_tls, "the session does not end");
    session
}

/// RFC 5321 §4.2, §4.5.3.1.5.
fn check_replies(output: &[u8]) {
    let mut reader = ReplyReader::default();
    let mut complete = true;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= 512, "a reply line of {} octets", line.len());
        let text = line.strip_suffix(b"\r\n").expect("a reply line ends in CRLF");
        assert!(text.iter().all(|byte| matches!(byte, b' '..=b'~')), "control characters in a reply");
        complete = reader.line(text).expect("a reply").is_some();
    }
    assert!(complete, "the last reply is not complete");
}
