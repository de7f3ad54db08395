//! The structure of messages: any bytes are a message, wherever they are cut.

use std::ops::Range;

use crate::input::{Cuts, Input, count};
use mail::mime::{Facts, Kind, Limits, Part, Splitter};

/// Byte 1: limits; byte 2: cuts; then a message.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = limits(input.byte());
    let cuts = input.cuts();
    let message = input.rest();
    let facts = split(&limits, message, &Cuts::WHOLE);
    assert_eq!(facts, split(&limits, message, &cuts));

    assert_eq!(facts.size, message.len() as u64);
    assert_eq!(facts.lines, count(message, b'\n') as u64);
    assert_eq!(facts.header_len, facts.structure.header.end);
    assert_eq!(facts.structure.header.start..facts.structure.body.end, 0..facts.size);
    assert!(facts.preview.chars().count() <= limits.preview_characters);
    assert!(
        facts.references.len() <= limits.references_max && facts.in_reply_to.len() <= limits.references_max
    );
    for list in [&facts.summary.from, &facts.summary.to, &facts.summary.cc] {
        // A group that is cut off by the limit is still closed.
        assert!(list.len() <= limits.addresses_max + 1, "{} addresses", list.len());
    }
    let mut parts = 0;
    check_part(&facts.structure, message, &limits, 1, &mut parts);
    assert!(parts <= limits.parts_max, "{parts} parts");
    check_sections(&facts.structure, facts.size);

    let stored = postcard::to_stdvec(&facts).unwrap();
    assert_eq!(postcard::from_bytes::<Facts>(&stored).unwrap(), facts);
    assert!(stored.len() <= 4096 + 64 * message.len(), "facts of {} octets", stored.len());
}

fn limits(kind: u8) -> Limits {
    if kind & 1 == 0 {
        return Limits::default();
    }
    Limits {
        depth_max: 3,
        parts_max: 6,
        field_bytes_max: 40,
        header_bytes_max: 200,
        addresses_max: 3,
        parameters_max: 2,
        references_max: 2,
        message_id_bytes_max: 20,
        boundary_bytes_max: 8,
        preview_source_bytes: 50,
        preview_characters: 10,
    }
}

fn split(limits: &Limits, message: &[u8], cuts: &Cuts) -> Facts {
    let mut splitter = Splitter::new(limits.clone());
    cuts.pieces(message).for_each(|piece| splitter.push(piece));
    splitter.finish()
}

fn check_part(part: &Part, message: &[u8], limits: &Limits, depth: usize, parts: &mut usize) {
    *parts += 1;
    assert!(depth <= limits.depth_max, "{depth} parts deep");
    let Range { start, end } = part.header.clone();
    assert!(start <= end && end <= part.body.start && part.body.start <= part.body.end, "{part:?}");
    assert!(part.body.end <= message.len() as u64);
    let body = &message[part.body.start as usize..part.body.end as usize];
    assert_eq!(part.lines, count(body, b'\n') as u64, "lines of {:?}", part.body);
    assert!(part.parameters.len() <= limits.parameters_max);
    match &part.kind {
        Kind::Leaf => {}
        Kind::Multipart(children) => {
            let mut at = part.body.start;
            for child in children {
                assert!(
                    at <= child.header.start && child.body.end <= part.body.end,
                    "{child:?} in {:?}",
                    part.body
                );
                at = child.body.end;
                check_part(child, message, limits, depth + 1, parts);
            }
        }
        Kind::Message(embedded) => {
            let inner = &embedded.part;
            assert_eq!((inner.header.start, inner.body.end), (part.body.start, part.body.end));
            check_part(inner, message, limits, depth + 1, parts);
        }
    }
}

fn check_sections(structure: &Part, size: u64) {
    for number in ["", "1", "2", "1.1", "1.2", "2.1.1", "1.1.1.1", "4294967295"] {
        for text in ["", "HEADER", "TEXT", "MIME"] {
            let separator = if number.is_empty() || text.is_empty() { "" } else { "." };
            if let Some(range) = structure.find(&format!("{number}{separator}{text}")) {
                assert!(range.start <= range.end && range.end <= size);
            }
        }
    }
}

/// Messages that are larger than a seed should be.
pub fn samples() -> Vec<Vec<u8>> {
    let mut deep = b"\0\0".to_vec();
    for level in 0..120 {
        deep.extend_from_slice(
            format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n").as_bytes(),
        );
    }
    let mut nested = b"\0\x03".to_vec();
    nested.extend(b"Content-Type: message/rfc822\r\n\r\n".repeat(110));
    let mut wide = b"\x01\x81Content-Type: multipart/digest; boundary=\"\"\n\n".to_vec();
    wide.extend(b"--\n\n".repeat(50));
    vec![deep, nested, wide]
}
