//! What a message may do to the responses that speak of it: nothing. Whatever stands in its header, the response is one
//! response, and its parentheses and strings are those that we wrote.

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use imap_protocol::client::{Client, Event};
use imap_protocol::fetch::{Partial, Section, SectionText};
use imap_protocol::response::{envelope, fetch, structure};
use machine::{Machine, Step};
use mail::mime::{Limits, Splitter};

/// A message.
pub fn run(data: &[u8]) {
    let mut splitter = Splitter::new(Limits::default());
    splitter.push(data);
    let facts = splitter.finish();
    let mut out = BytesMut::new();
    fetch::begin(&mut out, 1);
    out.put_slice(b"ENVELOPE ");
    envelope::envelope(&mut out, &facts.summary);
    out.put_slice(b" BODY ");
    structure::structure(&mut out, &facts.structure, false);
    out.put_slice(b" BODYSTRUCTURE ");
    structure::structure(&mut out, &facts.structure, true);
    out.put_u8(b' ');
    let names = data.split(|byte| *byte == b'\n').take(4).map(<[u8]>::to_vec).collect();
    let section = Section { part: vec![1, 2], text: SectionText::HeaderFields(names) };
    fetch::section_name(&mut out, &section, Some(Partial { offset: 3, length: 4 }));
    fetch::literal_head(&mut out, data.len() as u64);
    out.put_slice(data);
    fetch::end(&mut out);
    check_response(&out);
}

/// It is one untagged response of balanced lists, whole strings and plain words.
pub(crate) fn check_response(response: &[u8]) {
    let now = Instant::now();
    let mut client = Client::new();
    client.input(response, now);
    match client.next(now) {
        Step::Event(Event::Untagged(bytes)) => assert_eq!(bytes, response, "more than one response"),
        step => panic!("{step:?} for {:?}", String::from_utf8_lossy(response)),
    }
    let mut rest = response.strip_suffix(b"\r\n").expect("a response ends in CRLF");
    let mut depth = 0_usize;
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'(' => {
                depth += 1;
                after
            }
            b')' => {
                depth = depth.checked_sub(1).expect("a list ends that has not begun");
                after
            }
            b'"' => after_quoted(after),
            b'{' => after_literal(after),
            // Words, spaces, `BODY[…]<…>`, `\Seen`; in the UTF-8 form the rest may stand only in quotes.
            b' '..=b'~' => after,
            byte => panic!("octet {byte} outside of a string"),
        };
    }
    assert_eq!(depth, 0, "a list does not end");
}

fn after_quoted(text: &[u8]) -> &[u8] {
    let mut at = 0;
    loop {
        match text.get(at) {
            Some(b'"') => return &text[at + 1..],
            Some(b'\\') => {
                assert!(matches!(text.get(at + 1), Some(b'"' | b'\\')), "a wrong escape");
                at += 2;
            }
            Some(b'\r' | b'\n' | 0) | None => panic!("a quoted string does not end"),
            Some(_) => at += 1,
        }
    }
}

fn after_literal(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| *byte == b'}').expect("a literal's length ends");
    let length: usize = std::str::from_utf8(&text[..end]).unwrap().parse().unwrap();
    text[end + 1..]
        .strip_prefix(b"\r\n")
        .expect("CRLF before a literal")
        .get(length..)
        .expect("a whole literal")
}
