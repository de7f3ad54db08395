//! Cutting input into lines: only CRLF ends one (RFC 5321 §2.3.8).

use bytes::{Bytes, BytesMut};

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its CRLF.
    Whole(Bytes),
    /// A line that was longer than allowed; it is gone, up to and with its CRLF.
    TooLong,
    /// A line with a CR in it that no LF follows, or a NUL; it is gone likewise.
    Forbidden,
    /// A LF without CR. It is said at once and not at the next CRLF: whoever ends lines with LF alone waits for an
    /// answer and will not send a CRLF. Nothing after it can be trusted to be what it seems.
    BareLf,
}

/// What is remembered of a line whose end has not come yet.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LineReader {
    too_long: bool,
    forbidden: bool,
    /// Bytes at the start of the input that have been looked at.
    seen: usize,
}

impl LineReader {
    /// Takes the next line from the input. Of a line that is too long no more than `bytes_max` stays there.
    pub(crate) fn take(&mut self, input: &mut BytesMut, bytes_max: usize) -> Option<Line> {
        loop {
            let Some(at) = memchr::memchr3(b'\r', b'\n', 0, &input[self.seen..]).map(|at| at + self.seen)
            else {
                self.seen = input.len();
                self.shorten(input, bytes_max);
                return None;
            };
            match (input[at], input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    let line = input.split_to(at + 2);
                    let state = std::mem::take(self);
                    return Some(if state.too_long || line.len() > bytes_max {
                        Line::TooLong
                    } else if state.forbidden {
                        Line::Forbidden
                    } else {
                        Line::Whole(line.freeze().slice(..at))
                    });
                }
                (b'\r', None) => {
                    self.seen = at;
                    self.shorten(input, bytes_max);
                    return None;
                }
                (b'\n', _) => {
                    *self = Self::default();
                    input.clear();
                    return Some(Line::BareLf);
                }
                _ => {
                    self.forbidden = true;
                    self.seen = at + 1;
                }
            }
        }
    }

    fn shorten(&mut self, input: &mut BytesMut, bytes_max: usize) {
        if input.len() > bytes_max {
            self.too_long = true;
            // All that has been looked at can go; a CR at the end, if there is one, has not.
            let _ = input.split_to(self.seen);
            self.seen = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], cut: usize) -> Vec<Line> {
        let mut reader = LineReader::default();
        let mut buffer = BytesMut::new();
        let mut lines = Vec::new();
        for piece in input.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(line) = reader.take(&mut buffer, 10) {
                lines.push(line);
                if lines.last() == Some(&Line::BareLf) {
                    return lines;
                }
            }
            assert!(buffer.len() <= 10 + cut);
        }
        lines
    }

    #[test]
    fn lines_at_every_cut() {
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        let check = |input: &[u8], expected: Vec<Line>| {
            for cut in 1..=input.len() {
                assert_eq!(read(input, cut), expected, "{:?} by {cut}", String::from_utf8_lossy(input));
            }
        };
        check(b"NOOP\r\n\r\nQUIT\r\n", vec![whole("NOOP"), whole(""), whole("QUIT")]);
        check(b"12345678\r\n123456789\r\nx\r\n", vec![whole("12345678"), Line::TooLong, whole("x")]);
        check(b"a\rb\r\nc\r\n", vec![Line::Forbidden, whole("c")]);
        check(b"a\r\r\nc\r\n", vec![Line::Forbidden, whole("c")]);
        check(b"a\0\r\nc\r\n", vec![Line::Forbidden, whole("c")]);
        check(b"a\r\nb\nc\r\n", vec![whole("a"), Line::BareLf]);
        check(b"unfinished", vec![]);
        check(&[b"x".repeat(1000).as_slice(), b"\r\ny\r\n"].concat(), vec![Line::TooLong, whole("y")]);
        check(&[b"\r".repeat(1000).as_slice(), b"\ny\r\n"].concat(), vec![Line::TooLong, whole("y")]);
    }
}
