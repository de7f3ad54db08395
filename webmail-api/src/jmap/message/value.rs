//! The text of a body part (RFC 8621 §4.1.4 `EmailBodyValue`).

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use futures_util::stream::StreamExt as _;
use mail::mime::Part;
use serde_json::{Value, json};
use storage::BodyError;

use super::octets::Octets;

/// A tag or an entity that was cut is looked for so far back. Longer ones are data in an attribute.
const TAG_MAX: usize = 4096;

/// The text of a part, and what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BodyValue {
    pub(crate) text: String,
    pub(crate) is_encoding_problem: bool,
    pub(crate) is_truncated: bool,
}

impl BodyValue {
    pub(crate) fn into_json(self) -> Value {
        json!({
            "value": self.text,
            "isEncodingProblem": self.is_encoding_problem,
            "isTruncated": self.is_truncated,
        })
    }

    /// Reads the text of a part, at most so many octets of it.
    pub(crate) async fn read(
        octets: &Octets,
        part: &Part,
        is_html: bool,
        most: usize,
    ) -> Result<Self, BodyError> {
        let (encoding, mut is_encoding_problem) = charset(part);
        let mut decoder = encoding.new_decoder();
        let mut text = String::new();
        let mut pieces = octets.decoded(part);
        let mut ended = false;
        // A little more than is wanted, so that what is cut can be cut at a good place.
        while text.len() <= most && !ended {
            let piece = match pieces.next().await {
                Some(piece) => piece?,
                None => {
                    ended = true;
                    bytes::Bytes::new()
                }
            };
            let room = decoder.max_utf8_buffer_length(piece.len()).unwrap_or(piece.len() * 3 + 16);
            text.reserve(room);
            let (_, _, had_errors) = decoder.decode_to_string(&piece, &mut text, ended);
            is_encoding_problem |= had_errors;
        }
        let mut text = one_line_end(&text);
        let is_truncated = text.len() > most || !ended;
        if is_truncated {
            truncate(&mut text, most, is_html);
        }
        Ok(Self { text, is_encoding_problem, is_truncated })
    }
}

/// The charset to decode a part by, and whether it is another than it says. Undeclared text, and what calls itself ASCII
/// but is not, is nearly always UTF-8 today.
fn charset(part: &Part) -> (&'static Encoding, bool) {
    let declared = part.parameter("charset").map(|charset| charset.as_bytes().trim_ascii());
    match declared {
        None => (UTF_8, false),
        Some(name) if name.eq_ignore_ascii_case(b"us-ascii") || name.is_empty() => (UTF_8, false),
        Some(name) => match Encoding::for_label(name) {
            Some(encoding) => (encoding, false),
            None => (WINDOWS_1252, true),
        },
    }
}

/// RFC 8621 §4.1.4: CRLF becomes LF. U+0000 is nothing that JSON's readers like to see.
fn one_line_end(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\r' if rest.peek() == Some(&'\n') => {}
            '\0' => {}
            other => out.push(other),
        }
    }
    out
}

/// Cuts a text to so many octets, at the end of a character, and HTML outside of a tag and of an entity.
fn truncate(text: &mut String, most: usize, is_html: bool) {
    let mut end = text.floor_char_boundary(most.min(text.len()));
    if is_html {
        let from = text.floor_char_boundary(end.saturating_sub(TAG_MAX));
        let tail = &text[from..end];
        if let Some(open) = tail.rfind('<')
            && !tail[open..].contains('>')
        {
            end = from + open;
        }
        let from = text.floor_char_boundary(end.saturating_sub(32));
        let tail = &text[from..end];
        if let Some(open) = tail.rfind('&')
            && tail[open + 1..].chars().all(|c| c.is_ascii_alphanumeric() || c == '#')
        {
            end = from + open;
        }
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::header::RawText;
    use mail::mime::Parameter;
    use proptest::prelude::*;

    fn part(charset: &str, encoding: &str, octets: &[u8]) -> (Octets, Part) {
        let part = Part {
            parameters: vec![Parameter { name: RawText::from("charset"), value: RawText::from(charset) }],
            encoding: Some(RawText::from(encoding)),
            body: 0..octets.len() as u64,
            ..Part::default()
        };
        (Octets::Held(octets.to_vec().into()), part)
    }

    async fn check(charset: &str, octets: &[u8], most: usize, is_html: bool, expected: (&str, bool, bool)) {
        let (octets, part) = part(charset, "8bit", octets);
        let value = BodyValue::read(&octets, &part, is_html, most).await.unwrap();
        let found = (value.text.as_str(), value.is_encoding_problem, value.is_truncated);
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn text_of_any_charset() {
        check("utf-8", "käse\r\nbrot\rx".as_bytes(), 100, false, ("käse\nbrot\rx", false, false)).await;
        check("iso-8859-1", b"k\xe4se", 100, false, ("käse", false, false)).await;
        check("iso-2022-jp", b"\x1b$BF|K\\\x1b(B", 100, false, ("日本", false, false)).await;
        check("x-unknown", b"a\xe4", 100, false, ("aä", true, false)).await;
        check("utf-8", b"a\xff", 100, false, ("a\u{fffd}", true, false)).await;
    }

    #[tokio::test]
    async fn cut_at_the_end_of_a_character() {
        check("utf-8", "日本語".as_bytes(), 6, false, ("日本", false, true)).await;
        check("utf-8", "日本語".as_bytes(), 7, false, ("日本", false, true)).await;
        check("utf-8", "日本語".as_bytes(), 9, false, ("日本語", false, false)).await;
        check("utf-8", b"<p>abc</p>", 9, true, ("<p>abc", false, true)).await;
        check("utf-8", b"<p>a&amp;b", 6, true, ("<p>a", false, true)).await;
        check("utf-8", b"<p>a&amp;b", 6, false, ("<p>a&a", false, true)).await;
    }

    proptest! {
        #[test]
        fn no_cut_panics(text in ".{0,80}", most in 0usize..90, is_html: bool) {
            let mut cut = text.clone();
            truncate(&mut cut, most, is_html);
            prop_assert!(cut.len() <= most && text.starts_with(&cut));
        }
    }
}
