//! Prints what IMAP's FETCH tells of messages: file names come in, one a line; responses go out.
//!
//! `tests/conformance/structure.py` compares them with Dovecot's. The argument names the fields of HEADER.FIELDS.

#![allow(clippy::print_stdout, reason = "an example that prints")]

use std::io::{BufRead, Write};

use mail::header::select::{FieldSelector, Keep};
use mail::header::{HeaderAddress, HeaderSummary, RawText};
use mail::mime::{Facts, Kind, Limits, Parameter, Part, Splitter};

const SECTIONS: [&str; 10] =
    ["HEADER", "TEXT", "1", "1.MIME", "2", "2.MIME", "1.1", "2.1", "2.HEADER", "2.TEXT"];

fn main() -> std::io::Result<()> {
    let fields = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    for file in std::io::stdin().lock().lines() {
        let message = std::fs::read(file?)?;
        let mut splitter = Splitter::new(Limits::default());
        for chunk in message.chunks(4096) {
            splitter.push(chunk);
        }
        out.write_all(&response(&splitter.finish(), &message, &fields))?;
        out.flush()?;
    }
    Ok(())
}

fn response(facts: &Facts, message: &[u8], fields: &str) -> Vec<u8> {
    let mut out = format!("* 1 FETCH (RFC822.SIZE {} ENVELOPE ", facts.size).into_bytes();
    envelope(&facts.summary, &mut out);
    out.extend_from_slice(b" BODY ");
    structure(&facts.structure, false, &mut out);
    out.extend_from_slice(b" BODYSTRUCTURE ");
    structure(&facts.structure, true, &mut out);
    for section in SECTIONS {
        out.extend_from_slice(format!(" BODY[{section}] ").as_bytes());
        let range = facts.structure.find(section).unwrap_or_default();
        string(&message[range.start as usize..range.end as usize], &mut out);
    }
    out.extend_from_slice(format!(" BODY[HEADER.FIELDS ({})] ", fields.to_ascii_uppercase()).as_bytes());
    let mut selector = FieldSelector::new(fields.split(' '), Keep::Named);
    let mut selected = Vec::new();
    selector.push(&message[..facts.header_len as usize], &mut selected);
    selector.finish(&mut selected);
    string(&selected, &mut out);
    out.extend_from_slice(b")\r\n");
    out
}

/// ENVELOPE (RFC 9051 §7.5.2).
fn envelope(summary: &HeaderSummary, out: &mut Vec<u8>) {
    let or_from =
        |list: &'_ Vec<HeaderAddress>| if list.is_empty() { summary.from.clone() } else { list.clone() };
    out.push(b'(');
    nstring(summary.date.as_ref(), out);
    out.push(b' ');
    nstring(summary.subject.as_ref(), out);
    for list in [
        &summary.from,
        &or_from(&summary.sender),
        &or_from(&summary.reply_to),
        &summary.to,
        &summary.cc,
        &summary.bcc,
    ] {
        out.push(b' ');
        addresses(list, out);
    }
    out.push(b' ');
    nstring(summary.in_reply_to.as_ref(), out);
    out.push(b' ');
    nstring(summary.message_id.as_ref(), out);
    out.push(b')');
}

fn addresses(list: &[HeaderAddress], out: &mut Vec<u8>) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for address in list {
        out.push(b'(');
        nstring(address.name.as_ref(), out);
        for field in [&address.route, &address.mailbox, &address.host] {
            out.push(b' ');
            nstring(field.as_ref(), out);
        }
        out.push(b')');
    }
    out.push(b')');
}

/// BODYSTRUCTURE, or BODY when not `extended` (RFC 9051 §7.5.2).
fn structure(part: &Part, extended: bool, out: &mut Vec<u8>) {
    out.push(b'(');
    let shown = part.shown_type();
    if let Kind::Multipart(parts) = &part.kind {
        for inner in parts {
            structure(inner, extended, out);
        }
        if parts.is_empty() {
            // The grammar wants one part at least.
            structure(&Part::default(), extended, out);
        }
        out.push(b' ');
        string(shown.subtype, out);
        if extended {
            out.push(b' ');
            parameters(&part.parameters, false, out);
        }
    } else {
        string(shown.kind, out);
        out.push(b' ');
        string(shown.subtype, out);
        out.push(b' ');
        parameters(&part.parameters, part.is_text(), out);
        out.push(b' ');
        nstring(part.id.as_ref(), out);
        out.push(b' ');
        nstring(part.description.as_ref(), out);
        out.push(b' ');
        string(part.encoding.as_ref().map_or(b"7bit", |encoding| encoding.as_bytes()), out);
        out.extend_from_slice(format!(" {}", part.body_len()).as_bytes());
        if let Kind::Message(message) = &part.kind {
            out.push(b' ');
            envelope(&message.summary, out);
            out.push(b' ');
            structure(&message.part, extended, out);
        }
        if part.is_text() || matches!(part.kind, Kind::Message(_)) {
            out.extend_from_slice(format!(" {}", part.lines).as_bytes());
        }
        if extended {
            out.push(b' ');
            nstring(part.md5.as_ref(), out);
        }
    }
    if extended {
        extension(part, out);
    }
    out.push(b')');
}

fn extension(part: &Part, out: &mut Vec<u8>) {
    match &part.disposition {
        None => out.extend_from_slice(b" NIL"),
        Some(disposition) => {
            out.extend_from_slice(b" (");
            string(disposition.kind.as_bytes(), out);
            out.push(b' ');
            parameters(&disposition.parameters, false, out);
            out.push(b')');
        }
    }
    out.push(b' ');
    if part.language.is_empty() {
        out.extend_from_slice(b"NIL");
    } else {
        out.push(b'(');
        for (at, tag) in part.language.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            string(tag.as_bytes(), out);
        }
        out.push(b')');
    }
    out.push(b' ');
    nstring(part.location.as_ref(), out);
}

/// Parameters; a text has a charset also where it says none (RFC 2045 §5.2).
fn parameters(list: &[Parameter], is_text: bool, out: &mut Vec<u8>) {
    let needs_charset =
        is_text && !list.iter().any(|parameter| parameter.name.eq_ignore_ascii_case("charset"));
    if list.is_empty() && !needs_charset {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for (at, parameter) in list.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        string(parameter.name.as_bytes(), out);
        out.push(b' ');
        string(parameter.value.as_bytes(), out);
    }
    if needs_charset {
        out.extend_from_slice(if list.is_empty() { b"" } else { b" " });
        out.extend_from_slice(b"\"charset\" \"us-ascii\"");
    }
    out.push(b')');
}

fn nstring(text: Option<&RawText>, out: &mut Vec<u8>) {
    match text {
        None => out.extend_from_slice(b"NIL"),
        Some(text) => string(text.as_bytes(), out),
    }
}

/// Quoted where that is allowed, else a literal.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() < 1000 && bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        out.push(b'"');
        for byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    } else {
        // A literal may not hold NUL (RFC 9051 §9, `CHAR8`); Dovecot sends 0x80 in its place.
        out.extend_from_slice(format!("{{{}}}\r\n", bytes.len()).as_bytes());
        out.extend(bytes.iter().map(|byte| if *byte == 0 { 0x80 } else { *byte }));
    }
}
