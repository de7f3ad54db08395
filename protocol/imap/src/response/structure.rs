//! BODY and BODYSTRUCTURE (RFC 9051 §7.5.2).
//!
//! Where the RFC leaves a choice (the default charset shown, an empty multipart) the form is Dovecot's, which clients
//! have met most.

use bytes::{BufMut, BytesMut};
use mail::header::RawText;
use mail::mime::{Disposition, Kind, Parameter, Part};

use super::envelope::envelope;
use super::number;
use super::string::{nstring, string};

/// Writes the structure of a part. `extended`: BODYSTRUCTURE, with the extension data; else BODY.
pub fn structure(out: &mut BytesMut, part: &Part, extended: bool) {
    match &part.kind {
        Kind::Multipart(parts) => multipart(out, part, parts, extended),
        Kind::Leaf | Kind::Message(_) => single(out, part, extended),
    }
}

fn multipart(out: &mut BytesMut, part: &Part, parts: &[Part], extended: bool) {
    out.put_u8(b'(');
    for child in parts {
        structure(out, child, extended);
    }
    if parts.is_empty() {
        // The grammar wants one part at least; an empty text stands for none.
        single(out, &Part::default(), extended);
    }
    out.put_u8(b' ');
    match &part.media {
        Some(media) => string(out, media.subtype.as_bytes()),
        // The default type of a multipart is not defined, and never needed: only a declared one is a multipart.
        None => out.put_slice(b"\"x-unknown\""),
    }
    if extended {
        out.put_u8(b' ');
        parameters(out, &part.parameters, false);
        out.put_u8(b' ');
        extension(out, part);
    }
    out.put_u8(b')');
}

fn single(out: &mut BytesMut, part: &Part, extended: bool) {
    let embedded = match &part.kind {
        Kind::Message(embedded) => Some(embedded),
        _ => None,
    };
    let is_text = part.is_text();
    let shown = part.shown_type();
    out.put_u8(b'(');
    string(out, shown.kind);
    out.put_u8(b' ');
    string(out, shown.subtype);
    out.put_u8(b' ');
    parameters(out, &part.parameters, is_text);
    out.put_u8(b' ');
    text(out, part.id.as_ref());
    out.put_u8(b' ');
    text(out, part.description.as_ref());
    out.put_u8(b' ');
    match &part.encoding {
        Some(encoding) => string(out, encoding.as_bytes()),
        None => out.put_slice(b"\"7bit\""),
    }
    out.put_u8(b' ');
    number(out, part.body_len());
    if let Some(embedded) = embedded {
        out.put_u8(b' ');
        envelope(out, &embedded.summary);
        out.put_u8(b' ');
        structure(out, &embedded.part, extended);
    }
    if is_text || embedded.is_some() {
        out.put_u8(b' ');
        number(out, part.lines);
    }
    if extended {
        out.put_u8(b' ');
        text(out, part.md5.as_ref());
        out.put_u8(b' ');
        extension(out, part);
    }
    out.put_u8(b')');
}

/// Disposition, language, location.
fn extension(out: &mut BytesMut, part: &Part) {
    disposition(out, part.disposition.as_ref());
    out.put_u8(b' ');
    if part.language.is_empty() {
        out.put_slice(b"NIL");
    } else {
        for (index, language) in part.language.iter().enumerate() {
            out.put_u8(if index == 0 { b'(' } else { b' ' });
            string(out, language.as_bytes());
        }
        out.put_u8(b')');
    }
    out.put_u8(b' ');
    text(out, part.location.as_ref());
}

fn disposition(out: &mut BytesMut, disposition: Option<&Disposition>) {
    match disposition {
        Some(disposition) => {
            out.put_u8(b'(');
            string(out, disposition.kind.as_bytes());
            out.put_u8(b' ');
            parameters(out, &disposition.parameters, false);
            out.put_u8(b')');
        }
        None => out.put_slice(b"NIL"),
    }
}

fn parameters(out: &mut BytesMut, parameters: &[Parameter], default_charset: bool) {
    let default_charset =
        default_charset && !parameters.iter().any(|parameter| parameter.name.eq_ignore_ascii_case("charset"));
    if parameters.is_empty() && !default_charset {
        out.put_slice(b"NIL");
        return;
    }
    out.put_u8(b'(');
    for (index, parameter) in parameters.iter().enumerate() {
        if index > 0 {
            out.put_u8(b' ');
        }
        string(out, parameter.name.as_bytes());
        out.put_u8(b' ');
        string(out, parameter.value.as_bytes());
    }
    if default_charset {
        if !parameters.is_empty() {
            out.put_u8(b' ');
        }
        out.put_slice(b"\"charset\" \"us-ascii\"");
    }
    out.put_u8(b')');
}

fn text(out: &mut BytesMut, text: Option<&RawText>) {
    nstring(out, text.map(RawText::as_bytes));
}
