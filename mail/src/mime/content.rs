//! The Content-* fields of a part (RFC 2045, RFC 2183, RFC 3282).
//!
//! Broken fields are read as far as they go, in the manner of Dovecot, so that a part is shown as clients know it.

use super::part::{Disposition, MediaType, Parameter, Part};
use crate::header::lexer::{Broken, Lexer, Next};
use crate::header::text::{RawText, without_line_ends};

/// Reads one Content-* field into the part; `name` is what follows `Content-`. The first field of a name wins.
pub(crate) fn apply_content_field(part: &mut Part, name: &[u8], value: &[u8], parameters_max: usize) {
    let raw = || Some(RawText::from(without_line_ends(value)));
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    if is("Type") && part.media.is_none() {
        let (media, parameters) = content_type(value, parameters_max);
        part.media = Some(media);
        part.parameters = parameters;
    } else if is("Transfer-Encoding") && part.encoding.is_none() {
        part.encoding = transfer_encoding(value);
    } else if is("Disposition") && part.disposition.as_ref().is_none_or(|had| had.parameters.is_empty()) {
        // A second field replaces one without parameters: it is the one with the file name.
        part.disposition = disposition(value, parameters_max).or(part.disposition.take());
    } else if is("ID") && part.id.is_none() {
        part.id = raw();
    } else if is("Description") && part.description.is_none() {
        part.description = raw();
    } else if is("MD5") && part.md5.is_none() {
        part.md5 = raw();
    } else if is("Location") && part.location.is_none() {
        part.location = raw();
    } else if is("Language") && part.language.is_empty() {
        part.language = languages(value, parameters_max);
    }
}

/// A type without `/subtype` after it is kept when nothing else follows; else a broken field gives an empty type, which
/// is nobody's `text/plain`: guessing here would make scripts of attachments.
fn content_type(value: &[u8], parameters_max: usize) -> (MediaType, Vec<Parameter>) {
    let mut lexer = Lexer::new(value);
    let mut kind = Vec::new();
    let mut subtype = Vec::new();
    match media_type(&mut lexer, &mut kind, &mut subtype) {
        Ok(()) => {
            let media = MediaType { kind: kind.into(), subtype: subtype.into() };
            (media, parameters(&mut lexer, parameters_max))
        }
        Err(Broken) if lexer.peek().is_none() && subtype.is_empty() && !value.contains(&b'/') => {
            (MediaType { kind: kind.into(), subtype: RawText::default() }, Vec::new())
        }
        Err(Broken) => (MediaType::default(), Vec::new()),
    }
}

fn media_type(lexer: &mut Lexer<'_>, kind: &mut Vec<u8>, subtype: &mut Vec<u8>) -> Result<(), Broken> {
    lexer.skip_space()?;
    lexer.token(kind)?;
    if kind.is_empty() || !lexer.eat(b'/') || lexer.skip_space()? == Next::End {
        return Err(Broken);
    }
    lexer.token(subtype)?;
    if subtype.is_empty() || lexer.peek().is_some_and(|byte| byte != b';') {
        return Err(Broken);
    }
    Ok(())
}

fn transfer_encoding(value: &[u8]) -> Option<RawText> {
    let mut lexer = Lexer::new(value);
    let mut token = Vec::new();
    let _ = lexer.skip_space();
    let next = lexer.token(&mut token);
    (next == Ok(Next::End) && !token.is_empty()).then(|| token.into())
}

fn disposition(value: &[u8], parameters_max: usize) -> Option<Disposition> {
    let mut lexer = Lexer::new(value);
    let mut kind = Vec::new();
    let _ = lexer.skip_space();
    lexer.token(&mut kind).ok()?;
    Some(Disposition { kind: kind.into(), parameters: parameters(&mut lexer, parameters_max) })
}

fn languages(value: &[u8], max: usize) -> Vec<RawText> {
    let mut lexer = Lexer::new(value);
    let mut tags = Vec::new();
    let _ = lexer.skip_space();
    while tags.len() < max {
        let mut tag = Vec::new();
        if lexer.atom(&mut tag).is_err() {
            break;
        }
        tags.push(tag.into());
        if !lexer.eat(b',') {
            break;
        }
        let _ = lexer.skip_space();
    }
    tags
}

/// One segment of a parameter that was cut into numbered pieces (RFC 2231 §3).
struct Segment {
    name: Vec<u8>,
    number: u32,
    extended: bool,
    value: Vec<u8>,
}

/// `;name=value` until the end. What cannot be read is skipped octet by octet until a semicolon makes sense again.
fn parameters(lexer: &mut Lexer<'_>, max: usize) -> Vec<Parameter> {
    let mut plain = Vec::new();
    let mut segments = Vec::new();
    while lexer.peek().is_some() && plain.len() + segments.len() < max {
        let Ok((name, value)) = parameter(lexer) else {
            if lexer.peek().is_some() {
                lexer.advance();
            }
            continue;
        };
        match split_segment(&name) {
            Some((base, number, extended)) => {
                segments.push(Segment { name: base.to_vec(), number, extended, value });
            }
            None => plain.push(Parameter { name: name.into(), value: text(&value) }),
        }
    }
    join_segments(segments, &mut plain);
    plain
}

fn parameter(lexer: &mut Lexer<'_>) -> Result<(Vec<u8>, Vec<u8>), Broken> {
    if !lexer.eat(b';') || lexer.skip_space()? == Next::End {
        return Err(Broken);
    }
    let mut name = Vec::new();
    if lexer.token(&mut name)? == Next::End || !lexer.eat(b'=') {
        return Err(Broken);
    }
    let mut value = Vec::new();
    lexer.skip_space()?;
    match lexer.peek() {
        None => {}
        Some(b'"') => {
            lexer.quoted_string(&mut value)?;
        }
        // `name==?utf-8?b?…?=`: an encoded word without the quotes that it needs.
        Some(b'=') => {
            while let Some(byte) = lexer.peek().filter(|byte| !b"; \t\r\n".contains(byte)) {
                value.push(byte);
                lexer.advance();
            }
        }
        Some(_) => {
            lexer.token(&mut value)?;
        }
    }
    Ok((name, value))
}

/// `name*`, `name*0`, `name*0*`: the base name, the number, and whether the value is extended.
fn split_segment(name: &[u8]) -> Option<(&[u8], u32, bool)> {
    let star = name.iter().position(|byte| *byte == b'*')?;
    let (base, rest) = (&name[..star], &name[star + 1..]);
    let (digits, extended) = match rest.strip_suffix(b"*") {
        Some(digits) => (digits, true),
        None => (rest, rest.is_empty()),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = if digits.is_empty() { 0 } else { std::str::from_utf8(digits).ok()?.parse().ok()? };
    Some((base, number, extended))
}

/// Puts the segments together (RFC 2231 §3). The value stays encoded, under the name with a star, as IMAP clients
/// expect. Where a segment is missing the pieces stay pieces.
fn join_segments(mut segments: Vec<Segment>, out: &mut Vec<Parameter>) {
    segments.sort_by(|a, b| a.name.cmp(&b.name).then(a.number.cmp(&b.number)));
    for group in segments.chunk_by(|a, b| a.name.eq_ignore_ascii_case(&b.name)) {
        let complete = group.iter().enumerate().all(|(at, segment)| segment.number as usize == at);
        if !complete {
            out.extend(group.iter().map(|segment| {
                let mut name = segment.name.clone();
                name.extend_from_slice(format!("*{}", segment.number).as_bytes());
                if segment.extended {
                    name.push(b'*');
                }
                Parameter { name: name.into(), value: text(&segment.value) }
            }));
            continue;
        }
        let extended = group.iter().any(|segment| segment.extended);
        let mut name = group[0].name.clone();
        let mut value = Vec::new();
        if extended {
            name.push(b'*');
            if !group[0].extended {
                value.extend_from_slice(b"''");
            }
        }
        for segment in group {
            if extended && !segment.extended {
                // This piece was not encoded; among encoded ones its percent signs must be.
                for byte in &segment.value {
                    match byte {
                        b'%' => value.extend_from_slice(b"%25"),
                        byte => value.push(*byte),
                    }
                }
            } else {
                value.extend_from_slice(&segment.value);
            }
        }
        out.push(Parameter { name: name.into(), value: text(&value) });
    }
}

fn text(value: &[u8]) -> RawText {
    without_line_ends(value).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_type_shown(value: &str) -> String {
        let (media, parameters) = content_type(value.as_bytes(), 100);
        let text = |text: &RawText| String::from_utf8_lossy(text.as_bytes()).into_owned();
        let parameters: Vec<String> =
            parameters.iter().map(|p| format!("{}={}", text(&p.name), text(&p.value))).collect();
        format!("{}/{} {}", text(&media.kind), text(&media.subtype), parameters.join("&"))
            .trim_end()
            .to_owned()
    }

    #[test]
    fn content_types_rfc2045_5_1() {
        let check = |value: &str, expected: &str| assert_eq!(content_type_shown(value), expected, "{value}");
        check("text/plain", "text/plain");
        check("TEXT/Html; CHARSET=\"U\\\"TF\"", "TEXT/Html CHARSET=U\"TF");
        check("text / plain ; charset = x", "text/plain charset=x");
        check("text/plain (c); (c) charset (d) = (e) utf-8 (f)", "text/plain charset=utf-8");
        check("text/plain; name=a b.txt; charset=utf-8;;; x=y;", "text/plain name=a&charset=utf-8&x=y");
        check("text/plain; name==?utf-8?q?a?=; x=y", "text/plain name==?utf-8?q?a?=&x=y");
        check("text/plain; charset=\"utf-8", "text/plain");
        check("text/plain; charset=", "text/plain charset=");
        check("text/plain; charset", "text/plain");
        check("text", "text/");
        check("", "/");
        check("text/", "/");
        check("/plain", "/");
        check("text/plain charset=utf-8", "/");
        check("\"text/plain\"", "/");
        check("multipart; boundary=x", "/");
    }

    #[test]
    fn continued_parameters_rfc2231_3() {
        let check = |value: &str, expected: &str| {
            assert_eq!(content_type_shown(&format!("a/b; {value}")), format!("a/b {expected}"));
        };
        check("q*1=b; q*0=a", "q=ab");
        check("n*0*=utf-8'en'a%20b; n*1=\"c %\"; n*2*=%20e", "n*=utf-8'en'a%20bc %25%20e");
        check("n*0=a; n*1*=%20b", "n*=''a%20b");
        check("f*=utf-8''%e4; f=x", "f=x&f*=utf-8''%e4");
        check("w*2=gap; w*0=g", "w*0=g&w*2=gap");
        check("w*x=1", "w*x=1");
        check("w*99999999999=1", "w*99999999999=1");
    }

    #[test]
    fn dispositions_rfc2183() {
        let check = |value: &str, expected: Option<(&str, usize)>| {
            let got = disposition(value.as_bytes(), 100)
                .map(|d| (String::from_utf8_lossy(d.kind.as_bytes()).into_owned(), d.parameters.len()));
            assert_eq!(got, expected.map(|(kind, n)| (kind.to_owned(), n)), "{value}");
        };
        check("attachment; filename=\"a b\"; size=1", Some(("attachment", 2)));
        check("inline", Some(("inline", 0)));
        check("\"attachment\"; filename=x", Some(("", 1)));
        check("foo bar; x=y", Some(("foo", 1)));
        check("(x", Some(("", 0)));
    }

    #[test]
    fn parameters_are_bounded() {
        let value = format!("a/b{}", "; x=y".repeat(10_000));
        assert_eq!(content_type(value.as_bytes(), 100).1.len(), 100);
    }
}
