//! Strings on the wire: quoted, literal, NIL, atoms (RFC 9051 §4.3).

use bytes::{BufMut, BytesMut};

/// Longest string that is quoted; a longer one goes as a literal, which readers with a line limit can take.
const QUOTED_MAX: usize = 1000;

/// Writes a string: quoted if it is short 7-bit text of one line, else as a literal. 8-bit text goes as a literal
/// too, since quoted strings are 7-bit before UTF8=ACCEPT.
pub fn string(out: &mut BytesMut, text: &[u8]) {
    let quotable = text.len() <= QUOTED_MAX && text.iter().all(|&byte| matches!(byte, 0x20..=0x7e | b'\t'));
    if !quotable {
        return literal(out, text);
    }
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'"');
}

/// Writes a string that may be absent.
pub fn nstring(out: &mut BytesMut, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.put_slice(b"NIL"),
    }
}

/// Writes a short text as a literal.
pub fn literal(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(b'{');
    super::number(out, text.len() as u64);
    out.put_slice(b"}\r\n");
    out.put_slice(text);
}

/// Writes an astring: an atom where possible.
pub fn astring(out: &mut BytesMut, text: &[u8]) {
    let is_atom = !text.is_empty()
        && text.iter().all(|byte| {
            matches!(byte, 0x21..=0x7e)
                && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
        })
        && !text.eq_ignore_ascii_case(b"NIL");
    if is_atom {
        out.put_slice(text);
    } else {
        string(out, text);
    }
}

/// Writes a mailbox name, already in the form of the connection; UTF-8 may stand in quotes there (RFC 9051 §4.3).
pub fn mailbox(out: &mut BytesMut, encoded: &str) {
    if encoded.is_ascii() || encoded.chars().any(char::is_control) {
        astring(out, encoded.as_bytes());
        return;
    }
    out.put_u8(b'"');
    for character in encoded.bytes() {
        if matches!(character, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(character);
    }
    out.put_u8(b'"');
}
