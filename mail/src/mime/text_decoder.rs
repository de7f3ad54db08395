//! From the octets of a text part to text, in pieces: transfer encoding (RFC 2045 §6), then charset.

use encoding_rs::{Decoder, Encoding, UTF_8};

use super::part::Part;

/// Decodes one part. Keeps no more of it than the piece that it is given.
pub struct TextDecoder {
    transfer: TransferDecoder,
    charset: Decoder,
    octets: Vec<u8>,
    text: String,
}

/// Takes the transfer encoding off a part, in pieces.
pub struct TransferDecoder(Transfer);

enum Transfer {
    Identity,
    QuotedPrintable(QuotedPrintable),
    Base64(Base64),
}

impl TransferDecoder {
    /// For a part of this encoding. An unknown one is none.
    pub fn new(part: &Part) -> Self {
        let is =
            |name: &str| part.encoding.as_ref().is_some_and(|encoding| encoding.eq_ignore_ascii_case(name));
        Self(if is("base64") {
            Transfer::Base64(Base64::default())
        } else if is("quoted-printable") {
            Transfer::QuotedPrintable(QuotedPrintable::default())
        } else {
            Transfer::Identity
        })
    }

    /// Takes some octets and gives what they stand for; `buffer` is where that is, when it is not the same.
    pub fn push<'a>(&mut self, bytes: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        buffer.clear();
        match &mut self.0 {
            Transfer::Identity => return bytes,
            Transfer::QuotedPrintable(decoder) => decoder.push(bytes, buffer),
            Transfer::Base64(decoder) => decoder.push(bytes, buffer),
        }
        buffer
    }
}

impl TextDecoder {
    /// For a part of this encoding and charset.
    pub fn new(part: &Part) -> Self {
        // Undeclared text, and what calls itself ASCII but is not, is nearly always UTF-8 today.
        let charset = part
            .parameter("charset")
            .filter(|charset| !charset.eq_ignore_ascii_case("us-ascii"))
            .and_then(|charset| Encoding::for_label(charset.as_bytes()))
            .unwrap_or(UTF_8);
        Self {
            transfer: TransferDecoder::new(part),
            charset: charset.new_decoder(),
            octets: Vec::new(),
            text: String::new(),
        }
    }

    /// Takes some octets and gives the text that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.decode(bytes, false)
    }

    /// There are no more octets.
    pub fn finish(&mut self) -> &str {
        self.decode(b"", true)
    }

    fn decode(&mut self, bytes: &[u8], last: bool) -> &str {
        let octets = self.transfer.push(bytes, &mut self.octets);
        self.text.clear();
        // With room for the worst case the decoder takes everything at once.
        let room = self.charset.max_utf8_buffer_length(octets.len()).unwrap_or(octets.len() * 3 + 16);
        self.text.reserve(room);
        let _ = self.charset.decode_to_string(octets, &mut self.text, last);
        &self.text
    }
}

/// Quoted-printable (RFC 2045 §6.7). What is malformed is let pass as it is.
#[derive(Default)]
struct QuotedPrintable {
    /// What follows an equals sign, as long as it is not known what that means.
    pending: Vec<u8>,
}

impl QuotedPrintable {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if self.pending.is_empty() {
                if byte == b'=' {
                    self.pending.push(byte);
                } else {
                    out.push(byte);
                }
                continue;
            }
            self.pending.push(byte);
            let digit = |byte: u8| (byte as char).to_digit(16);
            match self.pending[1..] {
                // A soft line break; spaces before it are transport padding.
                [b'\n'] | [.., b'\r', b'\n'] | [.., b'\n'] => self.pending.clear(),
                [b' ' | b'\t' | b'\r', ..] if byte.is_ascii_whitespace() && self.pending.len() < 80 => {}
                [high] if digit(high).is_some() => {}
                [high, low] if digit(high).is_some() && digit(low).is_some() => {
                    let value = digit(high).unwrap_or(0) * 16 + digit(low).unwrap_or(0);
                    out.push(value as u8);
                    self.pending.clear();
                }
                _ => out.append(&mut self.pending),
            }
        }
    }
}

/// Base64 (RFC 2045 §6.8): octets outside of the alphabet are ignored, padding ends a group.
#[derive(Default)]
struct Base64 {
    bits: u32,
    count: u32,
}

impl Base64 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.count = 0;
                    continue;
                }
                _ => continue,
            };
            self.bits = self.bits << 6 | u32::from(value);
            self.count += 6;
            if self.count >= 8 {
                self.count -= 8;
                out.push((self.bits >> self.count) as u8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::RawText;
    use crate::mime::Parameter;

    fn check(encoding: &str, charset: &str, octets: &[u8], expected: &str) {
        let part = Part {
            encoding: Some(RawText::from(encoding)),
            parameters: vec![Parameter { name: RawText::from("Charset"), value: RawText::from(charset) }],
            ..Part::default()
        };
        for piece in [octets.len().max(1), 1, 3] {
            let mut decoder = TextDecoder::new(&part);
            let mut text = String::new();
            for bytes in octets.chunks(piece) {
                text.push_str(decoder.push(bytes));
            }
            text.push_str(decoder.finish());
            assert_eq!(text, expected, "{encoding} {charset} in pieces of {piece}");
        }
    }

    #[test]
    fn encodings_and_charsets() {
        check("7bit", "us-ascii", b"plain\r\n", "plain\r\n");
        check("8bit", "us-ascii", "käse".as_bytes(), "käse");
        check("8bit", "iso-8859-1", b"k\xe4se", "käse");
        check("8bit", "no such charset", "käse".as_bytes(), "käse");
        check("8bit", "utf-8", b"k\xff", "k\u{fffd}");
        check("Quoted-Printable", "utf-8", b"k=C3=A4=c3=b6 a=\r\nb=  \r\nc=3D", "käö abc=");
        check("quoted-printable", "utf-8", b"a=b=G1=\n=2", "a=b=G1");
        check("BASE64", "utf-8", b"a8Ok\r\nc2U=", "käse");
        check("base64", "utf-16le", b"YQBiAA==", "ab");
        check("base64", "iso-2022-jp", b"GyRCRnxLXBsoQg==", "日本");
        check("base64", "utf-8", b"YQ==Yg==", "ab");
        check("base64", "utf-8", b"Y Q!=", "a");
    }
}
