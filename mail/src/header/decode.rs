//! Text for people: charsets, and encoded words in header values (RFC 2047), through mail-parser's decoders.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;

/// Decodes text of a declared charset. Without one, and where the declaration is unknown or ASCII, valid UTF-8 is taken
/// for what it is and other octets for Windows-1252, which is what undeclared 8-bit mail has always been.
pub fn decode_charset(charset: &[u8], bytes: &[u8]) -> String {
    let declared = charset.trim_ascii().to_ascii_lowercase();
    if !matches!(&declared[..], b"" | b"us-ascii" | b"ascii" | b"utf-8" | b"utf8")
        && let Some(decoder) = charset_decoder(&declared)
    {
        return decoder(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) if declared.starts_with(b"utf") => String::from_utf8_lossy(bytes).into_owned(),
        // An unfinished character at the end does not make it another charset.
        Err(error) if error.error_len().is_none() && !bytes[..error.valid_up_to()].is_ascii() => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Decodes an unstructured or phrase value: encoded words become what they stand for, the rest stays.
pub fn decode_header_text(value: &[u8]) -> String {
    if memchr::memmem::find(value, b"=?").is_none() {
        return decode_charset(b"", value);
    }
    // The parser stops at a line end that no white space follows.
    let mut field = Vec::with_capacity(value.len() + 1);
    field.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    field.push(b'\n');
    let parsed = MessageStream::new(&field).parse_unstructured();
    parsed.as_text().map(str::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_rfc2047() {
        let check = |value: &[u8], expected: &str| assert_eq!(decode_header_text(value), expected);
        check(b"plain text", "plain text");
        check(b"=?utf-8?q?J=C3=B6rg?=", "Jörg");
        check(b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b");
        check(b"x =?utf-8?B?w6Q=?= y", "x ä y");
        check(b"=?broken", "=?broken");
        check("rohes ü".as_bytes(), "rohes ü");
        check(b"latin \xfc", "latin ü");
    }

    #[test]
    fn charsets() {
        let check = |charset: &[u8], bytes: &[u8], expected: &str| {
            assert_eq!(decode_charset(charset, bytes), expected);
        };
        check(b"iso-8859-2", b"\xb1", "ą");
        check(b"koi8-r", b"\xc1", "а");
        check(b"UTF-8", b"\xc3\xa4", "ä");
        check(b"utf-8", b"a\xff", "a\u{fffd}");
        check(b"us-ascii", b"\xe4", "ä");
        check(b"x-unknown", b"a", "a");
        check(b"gb2312", b"\xc4\xe3", "你");
    }
}
