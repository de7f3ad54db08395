//! The preview: the beginning of a message's text, for people who scan a list (RFC 8970).

use mail_parser::decoders::html::html_to_text;

use super::part::Part;
use crate::header::decode::decode_charset;

/// Collects the encoded beginnings of the first plain text and the first HTML while the body passes.
#[derive(Debug)]
pub(crate) struct PreviewSource {
    bytes_max: usize,
    plain: Option<Source>,
    html: Option<Source>,
    taking: Taking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Nothing,
    Plain,
    Html,
}

#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    encoding: Encoding,
    charset: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Base64,
    QuotedPrintable,
}

impl PreviewSource {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, plain: None, html: None, taking: Taking::Nothing }
    }

    /// The body of a leaf begins.
    pub(crate) fn begin(&mut self, part: &Part) {
        self.taking = Taking::Nothing;
        if part
            .disposition
            .as_ref()
            .is_some_and(|disposition| disposition.kind.eq_ignore_ascii_case("attachment"))
        {
            return;
        }
        let shown = part.shown_type();
        let slot = if !shown.kind.eq_ignore_ascii_case(b"text") {
            return;
        } else if shown.subtype.eq_ignore_ascii_case(b"plain")
            && self.plain.as_ref().is_none_or(Source::is_blank)
        {
            self.taking = Taking::Plain;
            &mut self.plain
        } else if shown.subtype.eq_ignore_ascii_case(b"html")
            && self.html.as_ref().is_none_or(Source::is_blank)
        {
            self.taking = Taking::Html;
            &mut self.html
        } else {
            return;
        };
        let encoding = match &part.encoding {
            Some(encoding) if encoding.eq_ignore_ascii_case("base64") => Encoding::Base64,
            Some(encoding) if encoding.eq_ignore_ascii_case("quoted-printable") => Encoding::QuotedPrintable,
            _ => Encoding::None,
        };
        let charset =
            part.parameter("charset").map(|charset| charset.as_bytes().to_vec()).unwrap_or_default();
        *slot = Some(Source { bytes: Vec::new(), encoding, charset });
    }

    /// Octets of the current leaf, if there is one.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let (source, bytes_max) = match self.taking {
            Taking::Nothing => return,
            Taking::Plain => (&mut self.plain, self.bytes_max),
            Taking::Html => (&mut self.html, self.bytes_max.saturating_mul(4)),
        };
        let Some(source) = source else { return };
        let room = bytes_max - source.bytes.len();
        source.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if source.bytes.len() == bytes_max {
            self.taking = Taking::Nothing;
        }
    }

    /// The leaf has ended.
    pub(crate) fn end(&mut self) {
        self.taking = Taking::Nothing;
    }

    /// The preview: from plain text if there is any, else from HTML.
    pub(crate) fn text(&self, characters: usize) -> String {
        let plain =
            self.plain.as_ref().map(|source| shorten(&source.decode(), characters)).unwrap_or_default();
        if !plain.is_empty() {
            return plain;
        }
        let Some(html) = &self.html else { return plain };
        // The beginning is enough unless styles fill it, and taking tags apart is slow.
        let source = html.decode();
        let beginning = source.floor_char_boundary(self.bytes_max / 2);
        let text = shorten(&html_to_text(&source[..beginning]), characters);
        if text.chars().count() >= characters || beginning == source.len() {
            return text;
        }
        shorten(&html_to_text(&source), characters)
    }
}

impl Source {
    fn is_blank(&self) -> bool {
        self.bytes.trim_ascii().is_empty()
    }

    fn decode(&self) -> String {
        let decoded;
        let bytes = match self.encoding {
            Encoding::None => &self.bytes,
            Encoding::Base64 => {
                decoded = decode_base64(&self.bytes);
                &decoded
            }
            Encoding::QuotedPrintable => {
                decoded = decode_quoted_printable(&self.bytes);
                &decoded
            }
        };
        decode_charset(&self.charset, bytes)
    }
}

/// As much of base64 as makes sense; the source may have been cut anywhere.
fn decode_base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let mut digits: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    digits.truncate(digits.len() - usize::from(digits.len() % 4 == 1));
    let config = base64::engine::GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config)
        .decode(&digits)
        .unwrap_or_default()
}

/// Quoted-printable (RFC 2045 §6.7); what is no escape is itself.
fn decode_quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'=' {
            out.push(*byte);
            continue;
        }
        match tail {
            [b'\r', b'\n', tail @ ..] | [b'\n', tail @ ..] => rest = tail,
            [high, low, tail @ ..] if hex(high).is_some() && hex(low).is_some() => {
                out.push(hex(high).unwrap_or_default() << 4 | hex(low).unwrap_or_default());
                rest = tail;
            }
            [] | [_] => return out,
            _ => out.push(b'='),
        }
    }
    out
}

/// The first characters of a text: white space collapsed, quoted lines left out unless there are no others.
fn shorten(text: &str, characters: usize) -> String {
    let own_words = |line: &&str| !line.trim_start().starts_with('>');
    let own = collapse(text.lines().filter(own_words).flat_map(str::split_whitespace), characters);
    if own.is_empty() { collapse(text.split_whitespace(), characters) } else { own }
}

fn collapse<'a>(words: impl Iterator<Item = &'a str>, characters: usize) -> String {
    let mut out = String::new();
    let mut room = characters;
    for word in words {
        if !out.is_empty() {
            if room <= 1 {
                break;
            }
            out.push(' ');
            room -= 1;
        }
        for c in word.chars().filter(|c| !c.is_control() && *c != '\u{feff}') {
            if room == 0 {
                break;
            }
            out.push(c);
            room -= 1;
        }
        if room == 0 {
            break;
        }
    }
    // A character that was cut in two by the end of the source.
    out.truncate(out.trim_end_matches(['\u{fffd}', ' ']).len());
    out
}

#[cfg(test)]
mod tests {
    use crate::mime::{Limits, Splitter};

    fn check(message: &str, expected: &str) {
        let mut splitter = Splitter::new(Limits::default());
        splitter.push(message.replace('\n', "\r\n").as_bytes());
        assert_eq!(splitter.finish().preview, expected, "{message}");
    }

    #[test]
    fn previews_rfc8970() {
        check("A: b\n\nHello   there,\n\n\tyou\n", "Hello there, you");
        check("A: b\n\n> quoted\nmine\n> more\n", "mine");
        check("A: b\n\n> only\n> quoted\n", "> only > quoted");
        check("A: b\n\n", "");
        check(
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nJ=F6rg =\nis=20here=3D=\n",
            "Jörg is here=",
        );
        check(
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nSsO2\ncmc=\n",
            "Jörg",
        );
        check(
            "MIME-Version: 1.0\nContent-Type: text/html\n\n<html><head><style>p{}</style></head><body><p>Hi &amp; <b>you</b></p></body>",
            "Hi & you",
        );
        check(
            "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=x\n\n--x\nContent-Type: text/html\n\n<p>html</p>\n--x\nContent-Type: text/plain\n\nplain\n--x--\n",
            "plain",
        );
        check(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Disposition: attachment\n\nno\n--x\n\n\n--x\n\nyes\n--x--\nepilogue",
            "yes",
        );
        check("MIME-Version: 1.0\nContent-Type: image/gif\n\nGIF", "");
    }

    #[test]
    fn previews_are_cut_at_characters() {
        check(&format!("A: b\n\n{}", "ä ".repeat(1000)), &"ä ".repeat(100)[..299]);
        let mut long = Splitter::new(Limits { preview_source_bytes: 5, ..Limits::default() });
        long.push("A: b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\näää".as_bytes());
        assert_eq!(long.finish().preview, "ää");
    }
}
