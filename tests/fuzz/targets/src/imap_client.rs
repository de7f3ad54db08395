//! The small IMAP client of the tests: whatever a server sends.

use std::time::Instant;

use imap_protocol::client::{Client, Event};
use machine::{Machine, Step};

use crate::input::{Cuts, Input};

/// Byte 1: cuts; then what the server sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let sent = input.rest();
    assert_eq!(read(sent, &Cuts::WHOLE), read(sent, &cuts));
}

fn read(sent: &[u8], cuts: &Cuts) -> Vec<Event> {
    let now = Instant::now();
    let mut client = Client::new();
    let mut events = Vec::new();
    let mut length = 0;
    for piece in cuts.pieces(sent) {
        client.input(piece, now);
        loop {
            match client.next(now) {
                Step::Event(event) => {
                    length += event.bytes().len();
                    events.push(event);
                }
                Step::Wait { .. } => break,
                Step::Close => return events,
                Step::Write(_) | Step::StartTls => unreachable!("nothing was said"),
            }
        }
    }
    assert!(length <= sent.len());
    events
}
