//! Whether a message can go through SMTP as it is: lines that end in CRLF and are not too long (RFC 5321 §2.3.8,
//! §4.5.3.1.6). What was imported need not be so.

/// Looks at a message while it passes.
#[derive(Debug)]
pub(crate) struct Lines {
    line_max: usize,
    last: u8,
    length: usize,
    is_ascii: bool,
}

/// The message cannot be sent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    #[error("a line of the message does not end in CRLF")]
    End,
    #[error("a line of the message is too long")]
    Long,
}

impl Lines {
    pub(crate) fn new(line_max: usize) -> Self {
        Self { line_max, last: b'\n', length: 0, is_ascii: true }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), BadLine> {
        for byte in bytes {
            if (self.last == b'\r') != (*byte == b'\n') {
                // The first octet of all stands behind no CR, and is no LF.
                return Err(BadLine::End);
            }
            self.length += 1;
            if self.length > self.line_max {
                return Err(BadLine::Long);
            }
            if *byte == b'\n' {
                self.length = 0;
            }
            self.last = *byte;
        }
        self.is_ascii &= bytes.is_ascii();
        Ok(())
    }

    /// What has to be added, so that the last line ends as well.
    pub(crate) fn missing(&self) -> Result<&'static [u8], BadLine> {
        match self.last {
            b'\n' => Ok(b""),
            b'\r' => Err(BadLine::End),
            _ => Ok(b"\r\n"),
        }
    }

    pub(crate) fn is_ascii(&self) -> bool {
        self.is_ascii
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_crlf() {
        let check = |text: &str, expected: Result<(&str, bool), BadLine>| {
            for piece in [1, 2, 100] {
                let mut lines = Lines::new(10);
                let pushed: Result<Vec<()>, _> =
                    text.as_bytes().chunks(piece).map(|piece| lines.push(piece)).collect();
                let got = pushed
                    .and_then(|_| Ok((std::str::from_utf8(lines.missing()?).unwrap(), lines.is_ascii())));
                assert_eq!(got, expected, "{text:?}");
            }
        };
        check("", Ok(("", true)));
        check("ab\r\n\r\nc\r\n", Ok(("", true)));
        check("ab", Ok(("\r\n", true)));
        check("ä\r\n", Ok(("", false)));
        check("12345678\r\n", Ok(("", true)));
        check("123456789\r\n", Err(BadLine::Long));
        for bad in ["\n", "a\n", "a\rb", "a\r\r\n", "a\r"] {
            check(bad, Err(BadLine::End));
        }
    }
}
