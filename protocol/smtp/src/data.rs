//! The body of a message on the wire: dots, ends of data, and what a line of text may be.
//!
//! The decoder passes on slices of what was read; nothing is copied, and what is held back between two reads is at
//! most the three bytes that may be part of an end of data.

use bytes::{Bytes, BytesMut};

/// Why a body is not one that lines of text make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A CR that no LF follows (RFC 5321 §2.3.8: they are sent only together).
    #[error("bare CR in message")]
    BareCr,
    /// A LF that follows no CR.
    #[error("bare LF in message")]
    BareLf,
    /// Longer than the limit (RFC 5321 §4.5.3.1.6: 1 000 octets with CRLF).
    #[error("line too long in message")]
    LineTooLong,
}

/// Looks at text as it passes, for lines that are none.
#[derive(Debug, Clone)]
pub struct TextCheck {
    line_bytes_max: usize,
    line_bytes: usize,
    after_cr: bool,
    violation: Option<Violation>,
}

impl TextCheck {
    /// Lines may have so many bytes, their CRLF included.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, line_bytes: 0, after_cr: false, violation: None }
    }

    /// The first violation so far.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.violation.is_some() || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if std::mem::take(&mut self.after_cr) {
            if rest[0] != b'\n' {
                self.violation = Some(Violation::BareCr);
                return;
            }
            rest = &rest[1..];
            self.line_bytes = 0;
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            // The length comes first, so that the verdict does not depend on how the line was cut.
            self.line_bytes += at + 2;
            if self.line_bytes > self.line_bytes_max {
                self.violation = Some(Violation::LineTooLong);
                return;
            }
            if rest[at] == b'\n' {
                self.violation = Some(Violation::BareLf);
                return;
            }
            match rest.get(at + 1) {
                Some(b'\n') => {
                    self.line_bytes = 0;
                    rest = &rest[at + 2..];
                }
                Some(_) => {
                    self.violation = Some(Violation::BareCr);
                    return;
                }
                None => {
                    self.after_cr = true;
                    return;
                }
            }
        }
        self.line_bytes += rest.len();
        if self.line_bytes + 2 > self.line_bytes_max {
            self.violation = Some(Violation::LineTooLong);
        }
    }

    /// The text ends here.
    pub fn finish(&mut self) {
        if self.after_cr && self.violation.is_none() {
            self.violation = Some(Violation::BareCr);
        }
    }
}

/// What the decoder has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// The next bytes of the message.
    Chunk(Bytes),
    /// CRLF.CRLF has come and is gone from the input.
    End,
    /// More input is needed.
    More,
}

/// Takes the body of a DATA command apart (RFC 5321 §4.5.2).
#[derive(Debug, Clone)]
pub struct DataDecoder {
    at_line_start: bool,
    check: TextCheck,
}

impl DataDecoder {
    /// Lines may have so many bytes, their CRLF included, the doubled dot not (RFC 5321 §4.5.3.1.6).
    pub fn new(line_bytes_max: usize) -> Self {
        Self { at_line_start: true, check: TextCheck::new(line_bytes_max) }
    }

    /// The first violation so far. The end of data is found all the same.
    pub fn violation(&self) -> Option<Violation> {
        self.check.violation()
    }

    /// Takes the next piece from the input.
    pub fn take(&mut self, input: &mut BytesMut) -> Decoded {
        if self.at_line_start && input.first() == Some(&b'.') {
            match (input.get(1), input.get(2)) {
                (Some(b'\r'), Some(b'\n')) => {
                    let _ = input.split_to(3);
                    return Decoded::End;
                }
                (None, _) | (Some(b'\r'), None) => return Decoded::More,
                _ => {
                    let _ = input.split_to(1);
                    self.at_line_start = false;
                }
            }
        }
        let end = certain(input);
        if end == 0 {
            return Decoded::More;
        }
        let chunk = input.split_to(end).freeze();
        // CR and LF of one line end are never in different chunks, so the last two bytes say it.
        self.at_line_start = chunk.ends_with(b"\r\n");
        self.check.push(&chunk);
        Decoded::Chunk(chunk)
    }
}

/// How much of the input is certainly message: up to the next dot that starts a line, and without a last CR, which may
/// be half of a line end.
fn certain(input: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\r', &input[at..]).map(|next| at + next) {
        match input.get(next + 1) {
            Some(b'\n') => {
                at = next + 2;
                if input.get(at) == Some(&b'.') {
                    return at;
                }
            }
            Some(_) => at = next + 1,
            None => return next,
        }
    }
    input.len()
}

/// Makes the body of a DATA command.
#[derive(Debug, Clone)]
pub struct DataEncoder {
    at_line_start: bool,
    check: TextCheck,
}

impl Default for DataEncoder {
    fn default() -> Self {
        Self { at_line_start: true, check: TextCheck::new(usize::MAX) }
    }
}

impl DataEncoder {
    /// Adds a piece of the message, with dots doubled at the start of lines.
    ///
    /// Bare CR and LF are refused: what they would mean at the other end is for nobody to know.
    pub fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), Violation> {
        self.check.push(bytes);
        if let Some(violation) = self.check.violation() {
            return Err(violation);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.at_line_start && rest[0] == b'.' {
                out.extend_from_slice(b".");
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            out.extend_from_slice(&rest[..end]);
            self.at_line_start = rest[end - 1] == b'\n';
            rest = &rest[end..];
        }
        Ok(())
    }

    /// Ends the data; a last line without CRLF gets one.
    pub fn finish(mut self, out: &mut BytesMut) -> Result<(), Violation> {
        self.check.finish();
        if let Some(violation) = self.check.violation() {
            return Err(violation);
        }
        out.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// The message, whether it was violated, and what is left behind the end of data.
    fn decode(input: &[u8], cut: usize) -> Option<(Vec<u8>, Option<Violation>, Vec<u8>)> {
        let mut decoder = DataDecoder::new(20);
        let mut buffer = BytesMut::new();
        let mut message = Vec::new();
        let mut pieces = input.chunks(cut);
        while let Some(piece) = pieces.next() {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.take(&mut buffer) {
                    Decoded::Chunk(chunk) => {
                        assert!(!chunk.is_empty());
                        message.extend_from_slice(&chunk);
                    }
                    Decoded::More => {
                        assert!(buffer.len() <= 3);
                        break;
                    }
                    Decoded::End => {
                        let mut rest = buffer.to_vec();
                        rest.extend(pieces.flatten());
                        return Some((message, decoder.violation(), rest));
                    }
                }
            }
        }
        None
    }

    /// RFC 5321 §4.5.2 and §2.3.8, with every false end of data that has fooled somebody.
    #[test]
    fn ends_of_data_at_every_cut() {
        let check = |input: &[u8], expected: Option<(&[u8], Option<Violation>, &[u8])>| {
            for cut in 1..=input.len() {
                let decoded = decode(input, cut);
                let decoded = decoded.as_ref().map(|(message, bad, rest)| (&message[..], *bad, &rest[..]));
                assert_eq!(decoded, expected, "{:?} by {cut}", String::from_utf8_lossy(input));
            }
        };
        let (cr, lf, long) = (Some(Violation::BareCr), Some(Violation::BareLf), Some(Violation::LineTooLong));
        check(b".\r\nQUIT\r\n", Some((b"", None, b"QUIT\r\n")));
        check(b"a\r\n.\r\n", Some((b"a\r\n", None, b"")));
        check(b"a\r\n..\r\n.\r\n", Some((b"a\r\n.\r\n", None, b"")));
        check(b"..a\r\n.b\r\n.\r\n", Some((b".a\r\nb\r\n", None, b"")));
        check(b"\r\n.\r\n.\r\n", Some((b"\r\n", None, b".\r\n")));
        check(b"a.\r\n\r\n.\r\n", Some((b"a.\r\n\r\n", None, b"")));
        check(b"a\n.\nb\r\n.\r\n", Some((b"a\n.\nb\r\n", lf, b"")));
        check(b"a\n.\r\nb\r\n.\r\n", Some((b"a\n.\r\nb\r\n", lf, b"")));
        check(b"a\r\n.\nb\r\n.\r\n", Some((b"a\r\n\nb\r\n", lf, b"")));
        check(b"a\r.\r\nb\r\n.\r\n", Some((b"a\r.\r\nb\r\n", cr, b"")));
        check(b"a\r.\rb\r\n.\r\n", Some((b"a\r.\rb\r\n", cr, b"")));
        check(b"a\r\n.\rb\r\n.\r\n", Some((b"a\r\n\rb\r\n", cr, b"")));
        check(b"a\r\n.\r\r\n.\r\n", Some((b"a\r\n\r\r\n", cr, b"")));
        check(b"a\r\r\n.\r\n", Some((b"a\r\r\n", cr, b"")));
        check(b"a\n\r\n.\r\n", Some((b"a\n\r\n", lf, b"")));
        check(b"\0\r\n.\r\n", Some((b"\0\r\n", None, b"")));
        check(b"\n.\r\n.\r\n", Some((b"\n.\r\n", lf, b"")));
        check(b"123456789012345678\r\n.\r\n", Some((b"123456789012345678\r\n", None, b"")));
        check(b".123456789012345678\r\n.\r\n", Some((b"123456789012345678\r\n", None, b"")));
        check(b"1234567890123456789\r\n.\r\n", Some((b"1234567890123456789\r\n", long, b"")));
        check(b"a\r\n.\r", None);
        check(b"a\r\n.", None);
        check(b"a\r\n", None);
        check(b"a\r", None);
    }

    /// What the decoder is to do, in the fewest words.
    fn simply(input: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut framed = b"\r\n".to_vec();
        framed.extend_from_slice(input);
        let end = framed.windows(5).position(|window| window == b"\r\n.\r\n")?;
        let (body, rest) = (&framed[..end + 2], &framed[end + 5..]);
        let mut message = Vec::new();
        let mut at = 2;
        while at < body.len() {
            if body[at] == b'.' && body[..at].ends_with(b"\r\n") {
                at += 1;
            }
            message.extend(body.get(at));
            at += 1;
        }
        Some((message, rest.to_vec()))
    }

    fn wire() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn same_at_every_cut_and_as_said_simply(input in wire(), cut in 1_usize..12) {
            let decoded = decode(&input, cut).map(|(message, _, rest)| (message, rest));
            prop_assert_eq!(decoded, simply(&input));
            prop_assert_eq!(decode(&input, cut), decode(&input, usize::MAX));
        }

        #[test]
        fn encoded_decodes(lines in proptest::collection::vec("[.a]{0,10}", 0..10), cut in 1_usize..12) {
            let message = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect::<String>().into_bytes();
            let mut encoder = DataEncoder::default();
            let mut out = BytesMut::new();
            for piece in message.chunks(cut) {
                encoder.push(piece, &mut out).unwrap();
            }
            encoder.finish(&mut out).unwrap();
            prop_assert_eq!(decode(&out, cut), Some((message, None, Vec::new())));
        }
    }

    #[test]
    fn encoder_refuses() {
        for (message, violation) in
            [("a\nb", Violation::BareLf), ("a\rb", Violation::BareCr), ("a\r", Violation::BareCr)]
        {
            let mut encoder = DataEncoder::default();
            let mut out = BytesMut::new();
            let result = encoder.push(message.as_bytes(), &mut out).and_then(|()| encoder.finish(&mut out));
            assert_eq!(result, Err(violation), "{message:?}");
        }
        let mut out = BytesMut::new();
        let mut encoder = DataEncoder::default();
        encoder.push(b"no line end", &mut out).unwrap();
        encoder.finish(&mut out).unwrap();
        assert_eq!(&out[..], b"no line end\r\n.\r\n");
    }
}
