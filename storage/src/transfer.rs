//! Undoing transfer encodings piece by piece (RFC 2045 §6).

/// How octets of a part are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferEncoding {
    /// They are what they are: `7bit`, `8bit`, `binary`, and whatever is not known (RFC 2045 §6.4).
    Identity,
    /// RFC 2045 §6.8.
    Base64,
    /// RFC 2045 §6.7.
    QuotedPrintable,
}

impl TransferEncoding {
    /// By the name of a Content-Transfer-Encoding field.
    pub fn of_field(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"base64") {
            Self::Base64
        } else if name.eq_ignore_ascii_case(b"quoted-printable") {
            Self::QuotedPrintable
        } else {
            Self::Identity
        }
    }

    pub(crate) fn letter(self) -> char {
        match self {
            Self::Identity => 'i',
            Self::Base64 => 'b',
            Self::QuotedPrintable => 'q',
        }
    }

    pub(crate) fn of_letter(letter: &str) -> Option<Self> {
        [Self::Identity, Self::Base64, Self::QuotedPrintable]
            .into_iter()
            .find(|encoding| letter.chars().eq([encoding.letter()]))
    }
}

/// Decodes a part as its pieces come. What no encoder writes is passed over (base64) or left as it stands
/// (quoted-printable), as RFC 2045 §6.7 and §6.8 advise; nothing is an error.
#[derive(Clone, Debug)]
pub struct Decoder(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Identity,
    /// Bits that do not make an octet yet, and how many.
    Base64 {
        bits: u32,
        count: u32,
    },
    /// What may be part of an escape or white space at the end of a line.
    QuotedPrintable {
        held: Vec<u8>,
    },
}

/// White space before a line end goes; more than this of it is kept, so that memory is bounded.
const HELD_BYTES_MAX: usize = 1_000;

impl Decoder {
    /// For this encoding.
    pub fn new(encoding: TransferEncoding) -> Self {
        Self(match encoding {
            TransferEncoding::Identity => Kind::Identity,
            TransferEncoding::Base64 => Kind::Base64 { bits: 0, count: 0 },
            TransferEncoding::QuotedPrintable => Kind::QuotedPrintable { held: Vec::new() },
        })
    }

    /// What a piece gives.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        match &mut self.0 {
            Kind::Identity => piece.to_vec(),
            Kind::Base64 { bits, count } => {
                let mut out = Vec::with_capacity(piece.len() / 4 * 3 + 3);
                for byte in piece {
                    let value = match byte {
                        b'A'..=b'Z' => byte - b'A',
                        b'a'..=b'z' => byte - b'a' + 26,
                        b'0'..=b'9' => byte - b'0' + 52,
                        b'+' => 62,
                        b'/' => 63,
                        // Padding ends it (RFC 2045 §6.8); but several encodings one after the other are seen.
                        b'=' => {
                            (*bits, *count) = (0, 0);
                            continue;
                        }
                        _ => continue,
                    };
                    *bits = *bits << 6 | u32::from(value);
                    *count += 6;
                    if *count >= 8 {
                        *count -= 8;
                        out.push((*bits >> *count) as u8);
                        *bits &= (1 << *count) - 1;
                    }
                }
                out
            }
            Kind::QuotedPrintable { held } => {
                held.extend_from_slice(piece);
                let mut out = Vec::with_capacity(held.len());
                let used = unquote(held, &mut out, false);
                held.drain(..used);
                out
            }
        }
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Kind::QuotedPrintable { held } = &mut self.0 {
            unquote(held, &mut out, true);
            held.clear();
        }
        out
    }
}

/// Decodes as much as can be decided without what follows, and says how much that is.
fn unquote(text: &[u8], out: &mut Vec<u8>, is_end: bool) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let rest = &text[at..];
        match byte {
            b'=' => match escape(rest, is_end) {
                Escape::Octet(octet) => {
                    out.push(octet);
                    at += 3;
                }
                Escape::Nothing(length) => at += length,
                Escape::Literal => {
                    out.push(b'=');
                    at += 1;
                }
                Escape::Undecided => break,
            },
            b' ' | b'\t' => {
                let length = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                match rest.get(length) {
                    // RFC 2045 §6.7 (3): white space at the end of a line was added on the way.
                    Some(b'\n') => {}
                    Some(b'\r') if rest.get(length + 1) == Some(&b'\n') => {}
                    Some(b'\r') if rest.len() == length + 1 && !is_end && length < HELD_BYTES_MAX => break,
                    None if !is_end && length < HELD_BYTES_MAX => break,
                    None if is_end => {}
                    _ => out.extend_from_slice(&rest[..length]),
                }
                at += length;
            }
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    at
}

enum Escape {
    Octet(u8),
    /// A soft line break of so many octets.
    Nothing(usize),
    Literal,
    Undecided,
}

fn escape(rest: &[u8], is_end: bool) -> Escape {
    let white = rest[1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match (rest.get(1), rest.get(1 + white), rest.get(2 + white)) {
        (_, Some(b'\n'), _) => return Escape::Nothing(2 + white),
        (_, Some(b'\r'), Some(b'\n')) => return Escape::Nothing(3 + white),
        (_, Some(b'\r'), None) | (_, None, _) if !is_end && white < HELD_BYTES_MAX => {
            return Escape::Undecided;
        }
        (None, ..) if is_end => return Escape::Nothing(1),
        _ => {}
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match (rest.get(1).copied().and_then(digit), rest.get(2)) {
        (Some(_), None) if !is_end => Escape::Undecided,
        (Some(high), Some(low)) => match digit(*low) {
            Some(low) => Escape::Octet((high << 4 | low) as u8),
            None => Escape::Literal,
        },
        _ => Escape::Literal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: TransferEncoding, text: &[u8], piece: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(encoding);
        let mut out: Vec<u8> = text.chunks(piece).flat_map(|piece| decoder.push(piece)).collect();
        out.extend(decoder.finish());
        out
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        use TransferEncoding::{Base64, Identity, QuotedPrintable};
        for (encoding, text, expected) in [
            (Identity, &b"a=41\r\n"[..], &b"a=41\r\n"[..]),
            (Base64, b"SGVsbG8=", b"Hello"),
            (Base64, b"SGVs\r\nbG8sIHdv\r\ncmxk", b"Hello, world"),
            (Base64, b"SGVs!*bG8=", b"Hello"),
            (Base64, b"SGk=SGk=", b"HiHi"),
            (Base64, b"", b""),
            (QuotedPrintable, b"a=3Db=3d", b"a=b="),
            (QuotedPrintable, b"soft=\r\nbreak=\nhere", b"softbreakhere"),
            (QuotedPrintable, b"soft= \t\r\nbreak", b"softbreak"),
            (QuotedPrintable, b"end \t\r\nnext \nlast  ", b"end\r\nnext\nlast"),
            (QuotedPrintable, b"keep  this", b"keep  this"),
            (QuotedPrintable, b"broken =zz =4 =", b"broken =zz =4 "),
            (QuotedPrintable, b"=C3=A4", "ä".as_bytes()),
            (QuotedPrintable, b"lone \r here", b"lone \r here"),
        ] {
            for piece in [1, 2, 3, 5, 100] {
                let found = decoded(encoding, text, piece);
                assert_eq!(found, expected, "{} by {piece}", String::from_utf8_lossy(text));
            }
        }
    }

    #[test]
    fn encodings_by_name() {
        for (name, expected) in [
            (&b" BASE64 "[..], TransferEncoding::Base64),
            (b"quoted-Printable", TransferEncoding::QuotedPrintable),
            (b"8bit", TransferEncoding::Identity),
            (b"x-uuencode", TransferEncoding::Identity),
        ] {
            assert_eq!(TransferEncoding::of_field(name), expected);
        }
    }
}
