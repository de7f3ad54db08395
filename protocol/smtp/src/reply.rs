//! Replies: how they are written, and how a client reads them (RFC 5321 §4.2).

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::status::{Status, status};

/// A reply of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The enhanced status code, where there is one.
    pub status: Option<Status>,
    /// The lines of text, at least one.
    pub text: Vec<Cow<'static, str>>,
}

/// RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets.
const LINE_BYTES_MAX: usize = 512;

impl Reply {
    /// A reply of one line.
    pub fn new(code: u16, status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: Some(status), text: vec![text.into()] }
    }

    /// A reply without an enhanced status code: greeting, answer to EHLO, 3xx.
    pub fn bare(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: None, text: vec![text.into()] }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Writes it. What may not stand in a reply (control characters; anything but ASCII, since few clients have asked
    /// for more) is replaced, so that no text from elsewhere can end a line or feign another reply.
    pub fn write(&self, out: &mut BytesMut) {
        let status = self.status.map(|status| format!("{status} ")).unwrap_or_default();
        let room = LINE_BYTES_MAX - "250-".len() - "\r\n".len() - status.len();
        let mut lines = self.text.iter().peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            out.put_slice(format!("{:03}{separator}{status}", self.code).as_bytes());
            out.extend(line.chars().take(room).map(|c| match c {
                ' '..='~' => c as u8,
                _ => b'?',
            }));
            out.put_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        for line in &self.text {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 250.
pub fn ok(status: Status, text: impl Into<Cow<'static, str>>) -> Reply {
    Reply::new(250, status, text)
}

/// 501: an argument is wrong.
pub fn bad_argument(text: impl Into<Cow<'static, str>>) -> Reply {
    Reply::new(501, status(5, 5, 4), text)
}

/// 501: the command cannot be parsed.
pub(crate) fn bad_syntax(text: impl Into<Cow<'static, str>>) -> Reply {
    Reply::new(501, status(5, 5, 2), text)
}

/// 503: not now.
pub(crate) fn bad_sequence(text: impl Into<Cow<'static, str>>) -> Reply {
    Reply::new(503, status(5, 5, 1), text)
}

/// Reads replies line by line.
#[derive(Debug, Default)]
pub struct ReplyReader {
    partial: Option<Reply>,
}

/// Why a line is no part of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not three digits and a separator, or not text.
    #[error("malformed reply")]
    Malformed,
    /// A line of one reply has another code than the one before.
    #[error("reply code changes within a reply")]
    CodeChanged,
    /// More lines than a reply has.
    #[error("reply has too many lines")]
    TooLong,
}

/// More lines than any honest server answers; EHLO has about 20.
const LINES_MAX: usize = 256;

/// Octets of text that are kept of one reply.
const TEXT_BYTES_MAX: usize = 16 << 10;

impl ReplyReader {
    /// Takes one line without its CRLF; gives the reply when it was its last.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let line = String::from_utf8_lossy(line);
        let (code, rest) = line.split_at_checked(3).ok_or(ReplyError::Malformed)?;
        let code = match code.parse::<u16>() {
            Ok(code @ 200..=599) => code,
            _ => return Err(ReplyError::Malformed),
        };
        let (last, text) = match rest.as_bytes().first() {
            None => (true, ""),
            Some(b' ') => (true, &rest[1..]),
            Some(b'-') => (false, &rest[1..]),
            Some(_) => return Err(ReplyError::Malformed),
        };
        let (first, after) = text.split_once(' ').unwrap_or((text, ""));
        let (status, text) = match first.parse::<Status>() {
            Ok(status) if u16::from(status.class) == code / 100 => (Some(status), after),
            _ => (None, text),
        };
        let reply = self.partial.get_or_insert_with(|| Reply { code, status, text: Vec::new() });
        if reply.code != code {
            return Err(ReplyError::CodeChanged);
        }
        if reply.text.len() == LINES_MAX {
            return Err(ReplyError::TooLong);
        }
        // What is said at greater length counts, but is not kept.
        let kept: usize = reply.text.iter().map(|text| text.len()).sum();
        let room = TEXT_BYTES_MAX.saturating_sub(kept);
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        reply.text.push(Cow::Owned(text[..end].to_owned()));
        Ok(if last { self.partial.take() } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing() {
        let check = |reply: Reply, expected: &str| {
            let mut out = BytesMut::new();
            reply.write(&mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
        };
        check(ok(status(2, 1, 0), "ok"), "250 2.1.0 ok\r\n");
        check(Reply::bare(354, "go"), "354 go\r\n");
        check(
            Reply::new(550, status(5, 1, 1), "a\r\n250 2.0.0 é".to_owned()),
            "550 5.1.1 a??250 2.0.0 ?\r\n",
        );
        let two = Reply { code: 250, status: None, text: vec!["a".into(), "b".into()] };
        check(two, "250-a\r\n250 b\r\n");
        let mut out = BytesMut::new();
        ok(status(2, 0, 0), "x".repeat(1000)).write(&mut out);
        assert_eq!(out.len(), 512);
    }

    #[test]
    fn reading() {
        let check = |lines: &[&str], expected: Result<Option<&str>, ReplyError>| {
            let mut reader = ReplyReader::default();
            let mut result = Ok(None);
            for line in lines {
                result = reader.line(line.as_bytes());
            }
            let expected = expected.map(|text| text.map(str::to_owned));
            assert_eq!(result.map(|reply| reply.map(|reply| reply.to_string())), expected);
        };
        check(&["250 2.1.0 ok"], Ok(Some("250 2.1.0 ok")));
        check(&["250"], Ok(Some("250 ")));
        check(&["250-a", "250 b"], Ok(Some("250 a b")));
        check(&["250-a"], Ok(None));
        check(&["250 5.1.0 odd"], Ok(Some("250 5.1.0 odd")));
        check(&["25"], Err(ReplyError::Malformed));
        check(&["650 x"], Err(ReplyError::Malformed));
        check(&["250x"], Err(ReplyError::Malformed));
        check(&["2é0 x"], Err(ReplyError::Malformed));
        check(&["250-a", "251 b"], Err(ReplyError::CodeChanged));
        check(&vec!["250-a"; LINES_MAX + 1], Err(ReplyError::TooLong));
    }
}
