//! Bodies under DATA: dots, ends, lines that are none.

use bytes::BytesMut;
use smtp_protocol::data::{DataDecoder, DataEncoder, Decoded, TextCheck, Violation};

use crate::input::{Cuts, Input, count};

const LINE_BYTES_MAX: usize = 40;

/// Byte 1: cuts; the rest is once a body that goes over the wire, once what came over it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let bytes = input.rest();
    assert_eq!(decode(bytes, &Cuts::WHOLE, LINE_BYTES_MAX), decode(bytes, &cuts, LINE_BYTES_MAX));
    assert_eq!(check(bytes, &Cuts::WHOLE), check(bytes, &cuts));

    let mut wire = BytesMut::new();
    let mut encoder = DataEncoder::default();
    let pushed = cuts.pieces(bytes).try_for_each(|piece| encoder.push(piece, &mut wire));
    let encoded = pushed.and_then(|()| encoder.finish(&mut wire));
    assert_eq!(encoded.is_ok(), is_text(bytes), "{encoded:?}");
    if encoded.is_err() {
        return;
    }
    wire.extend_from_slice(b"NOOP\r\n");
    let decoded = decode(&wire, &cuts, usize::MAX);
    let mut expected = bytes.to_vec();
    if !bytes.is_empty() && !bytes.ends_with(b"\r\n") {
        expected.extend_from_slice(b"\r\n");
    }
    assert_eq!(decoded.message, expected);
    assert_eq!(decoded.violation, None);
    assert_eq!(decoded.after.as_deref(), Some(&b"NOOP\r\n"[..]));
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    message: Vec<u8>,
    violation: Option<Violation>,
    /// What follows the end, if there is one.
    after: Option<Vec<u8>>,
}

fn decode(bytes: &[u8], cuts: &Cuts, line_bytes_max: usize) -> Outcome {
    let mut decoder = DataDecoder::new(line_bytes_max);
    let mut held = BytesMut::new();
    let mut outcome = Outcome { message: Vec::new(), violation: None, after: None };
    let mut pieces = cuts.pieces(bytes);
    while let Some(piece) = pieces.next() {
        held.extend_from_slice(piece);
        loop {
            match decoder.take(&mut held) {
                Decoded::Chunk(chunk) => {
                    assert!(!chunk.is_empty(), "an empty chunk");
                    outcome.message.extend_from_slice(&chunk);
                }
                Decoded::More => break,
                Decoded::End => {
                    held.extend(pieces.by_ref().flatten());
                    outcome.after = Some(held.to_vec());
                    outcome.violation = decoder.violation();
                    return outcome;
                }
            }
        }
        assert!(held.len() <= 3, "{} octets are held back", held.len());
    }
    outcome.violation = decoder.violation();
    outcome
}

fn check(bytes: &[u8], cuts: &Cuts) -> Option<Violation> {
    let mut check = TextCheck::new(LINE_BYTES_MAX);
    cuts.pieces(bytes).for_each(|piece| check.push(piece));
    check.finish();
    check.violation()
}

/// Whether every CR and LF is half of a CRLF.
fn is_text(bytes: &[u8]) -> bool {
    let crs = count(bytes, b'\r');
    let lfs = count(bytes, b'\n');
    let pairs = bytes.windows(2).filter(|pair| *pair == b"\r\n").count();
    crs == pairs && lfs == pairs
}
