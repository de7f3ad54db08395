//! Parameters of Content-Type and Content-Disposition for people: RFC 2231 continuations and charsets, and the encoded
//! words that RFC 2047 forbids there and everybody sends.

use mail::header::decode::{decode_charset, decode_header_text};
use mail::mime::{Parameter, Part};
use percent_encoding::percent_decode;

/// Pieces of one value. A file name of ten thousand characters would have a hundred.
const PIECES_MAX: usize = 200;

/// The name of the file that a part is: `filename` of Content-Disposition, else `name` of Content-Type.
pub(crate) fn file_name(part: &Part) -> Option<String> {
    let disposition = part.disposition.as_ref();
    let name = disposition.and_then(|disposition| value(&disposition.parameters, "filename"));
    name.or_else(|| value(&part.parameters, "name")).filter(|name| !name.is_empty())
}

/// The value of a parameter, decoded.
pub(crate) fn value(parameters: &[Parameter], name: &str) -> Option<String> {
    let find = |wanted: &str| parameters.iter().find(|known| known.name.eq_ignore_ascii_case(wanted));
    // RFC 2231 §4: one value, with its charset.
    if let Some(extended) = find(&format!("{name}*")) {
        let (charset, octets) = charset_of(extended.value.as_bytes());
        return Some(decode_charset(&charset, &percent_decode(octets).collect::<Vec<_>>()));
    }
    // §3: several pieces, each of which may be encoded, under the charset of the first.
    let mut octets = Vec::new();
    let mut charset = Vec::new();
    let mut pieces = 0;
    while pieces < PIECES_MAX {
        if let Some(piece) = find(&format!("{name}*{pieces}*")) {
            let mut value = piece.value.as_bytes();
            if pieces == 0 {
                (charset, value) = charset_of(value);
            }
            octets.extend(percent_decode(value));
        } else if let Some(piece) = find(&format!("{name}*{pieces}")) {
            octets.extend_from_slice(piece.value.as_bytes());
        } else {
            break;
        }
        pieces += 1;
    }
    if pieces > 0 {
        return Some(decode_charset(&charset, &octets));
    }
    find(name).map(|plain| decode_header_text(plain.value.as_bytes()))
}

/// `utf-8'en'rest`
fn charset_of(value: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut pieces = value.splitn(3, |byte| *byte == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(rest)) => (charset.to_vec(), rest),
        _ => (Vec::new(), value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::header::RawText;

    fn check(parameters: &[(&str, &str)], expected: Option<&str>) {
        let parameters: Vec<Parameter> = parameters
            .iter()
            .map(|(name, value)| Parameter { name: RawText::from(*name), value: RawText::from(*value) })
            .collect();
        assert_eq!(value(&parameters, "name").as_deref(), expected, "{parameters:?}");
    }

    #[test]
    fn values_rfc2231() {
        check(&[("NAME", "a b.txt")], Some("a b.txt"));
        check(&[("name", "=?utf-8?Q?J=C3=B6rg?=")], Some("Jörg"));
        check(&[("name*", "us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A")], Some("This is ***fun***"));
        check(&[("name*", "iso-8859-1''%A3"), ("name", "x")], Some("£"));
        check(
            &[("name*1*", "%20fun"), ("name*0*", "us-ascii'en'This%20is"), ("name*2", " it")],
            Some("This is fun it"),
        );
        check(&[("name*0", "a"), ("name*1", "b"), ("name*3", "d")], Some("ab"));
        check(&[("other", "a")], None);
    }
}
