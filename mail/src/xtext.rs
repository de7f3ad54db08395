//! xtext: how DSN parameters carry any text through SMTP commands (RFC 3461 §4), and its UTF-8 sibling for addresses
//! (RFC 6533 §3).

use std::fmt::Write as _;

/// Encodes text as xtext.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b'!'..=b'~').contains(&byte) && byte != b'+' && byte != b'=' {
            out.push(byte as char);
        } else {
            let _ = write!(out, "+{byte:02X}");
        }
    }
    out
}

/// Decodes xtext; `None` when it is malformed, or not UTF-8 once decoded.
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'+' => {
                let [high, low, tail @ ..] = rest else { return None };
                out.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            b'=' | 0..=b' ' | 0x7f => return None,
            byte => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

/// RFC 3461 §4 asks for upper case digits; lower case ones are seen, and mean nothing else.
fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_rfc3461_4() {
        for (plain, coded) in [("QQ314159", "QQ314159"), ("a+b=c d", "a+2Bb+3Dc+20d"), ("ü", "+C3+BC")] {
            assert_eq!(encode(plain), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain));
        }
        for bad in ["+", "+4", "+G1", "a=b", "a b", "+FF"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
