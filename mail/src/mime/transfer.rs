//! Content-Transfer-Encoding (RFC 2045 §6), undone in pieces: what a client downloads, and how large it will be.

use super::part::Part;

/// Undoes the encoding of one part. What is malformed is let pass, or passed over, and never refused.
#[derive(Debug, Default)]
pub enum TransferDecoder {
    /// `7bit`, `8bit`, `binary`, and whatever is not known.
    #[default]
    Identity,
    /// `quoted-printable`
    QuotedPrintable(QuotedPrintable),
    /// `base64`
    Base64(Base64),
}

impl TransferDecoder {
    /// For the body of a part.
    pub fn of(part: &Part) -> Self {
        let is = |name: &str| {
            part.encoding.as_ref().is_some_and(|encoding| {
                encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes())
            })
        };
        if is("base64") {
            Self::Base64(Base64::default())
        } else if is("quoted-printable") {
            Self::QuotedPrintable(QuotedPrintable::default())
        } else {
            Self::Identity
        }
    }

    /// Whether octets come out as they go in.
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }

    /// Takes some octets, and adds to `out` what they stand for.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Identity => out.extend_from_slice(bytes),
            Self::QuotedPrintable(decoder) => decoder.push(bytes, out),
            Self::Base64(decoder) => decoder.push(bytes, out),
        }
    }

    /// There are no more: an unfinished escape stands for itself.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Self::QuotedPrintable(decoder) = self {
            decoder.finish(out);
        }
    }
}

/// Quoted-printable (RFC 2045 §6.7).
#[derive(Debug, Default)]
pub struct QuotedPrintable {
    /// What follows an equals sign, as long as it is not known what that means.
    pending: Vec<u8>,
}

/// White space behind an equals sign that is still taken for padding of the line's end.
const PADDING_MAX: usize = 80;

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
            let digit = |byte: u8| char::from(byte).to_digit(16);
            match self.pending[1..] {
                // A soft line break.
                [.., b'\n'] if self.pending[1..].iter().all(u8::is_ascii_whitespace) => self.pending.clear(),
                [b' ' | b'\t' | b'\r', ..]
                    if byte.is_ascii_whitespace() && self.pending.len() < PADDING_MAX => {}
                [high] if digit(high).is_some() => {}
                [high, low] => {
                    if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                        out.push((high * 16 + low) as u8);
                        self.pending.clear();
                    } else {
                        self.give_up(out);
                    }
                }
                _ => self.give_up(out),
            }
        }
    }

    /// It was no escape. What stands behind the equals sign may begin another one.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        match pending.split_last() {
            Some((b'=', before)) if !before.is_empty() => {
                out.extend_from_slice(before);
                self.pending.push(b'=');
            }
            _ => out.extend_from_slice(&pending),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        // An equals sign at the very end is a soft line break whose line end belongs to the boundary.
        if !pending.iter().skip(1).all(u8::is_ascii_whitespace) {
            out.extend_from_slice(&pending);
        }
    }
}

/// Base64 (RFC 2045 §6.8): octets outside of the alphabet are ignored, padding ends a group.
#[derive(Debug, Default)]
pub struct Base64 {
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

    fn check(encoding: &str, octets: &[u8], expected: &[u8]) {
        let part = Part { encoding: Some(RawText::from(encoding)), ..Part::default() };
        for piece in [octets.len().max(1), 1, 3] {
            let mut decoder = TransferDecoder::of(&part);
            let mut out = Vec::new();
            octets.chunks(piece).for_each(|bytes| decoder.push(bytes, &mut out));
            decoder.finish(&mut out);
            assert_eq!(out, expected, "{encoding} in pieces of {piece}");
        }
    }

    #[test]
    fn encodings_rfc2045_6() {
        check("8bit", b"a=41\r\n", b"a=41\r\n");
        check("Quoted-Printable", b"k=C3=a4 a=\r\nb=  \r\nc=3D", "kä abc=".as_bytes());
        check("quoted-printable", b"a=b=G1=\n=2", b"a=b=G1=2");
        check("quoted-printable", b"==41=", b"=A");
        check("BASE64", b"a8Ok\r\nc2U=", "käse".as_bytes());
        check("base64", b"YQ==Yg==", b"ab");
        check("base64", b"Y Q!=", b"a");
    }
}
