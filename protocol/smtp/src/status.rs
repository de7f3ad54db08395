//! Enhanced status codes (RFC 3463, RFC 5248).

use std::fmt;
use std::str::FromStr;

/// `class.subject.detail`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// 2 success, 4 temporary, 5 permanent.
    pub class: u8,
    /// What it is about: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 security.
    pub subject: u16,
    /// What exactly.
    pub detail: u16,
}

/// Short for [`Status`] in tables of replies.
pub const fn status(class: u8, subject: u16, detail: u16) -> Status {
    Status { class, subject, detail }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code")]
pub struct NotAStatus;

impl FromStr for Status {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let mut parts = text.split('.').map(|part| {
            // RFC 3463 §2: one to three digits each.
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        });
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(class @ (2 | 4 | 5))), Some(Some(subject)), Some(Some(detail)), None) => {
                Ok(Self { class: class as u8, subject, detail })
            }
            _ => Err(NotAStatus),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        assert_eq!("5.1.1".parse(), Ok(status(5, 1, 1)));
        assert_eq!("2.0.100".parse(), Ok(status(2, 0, 100)));
        for bad in ["", "5.1", "3.1.1", "5.1.1.1", "5.1.1000", "5..1", "5.1.x", "5.+1.1"] {
            assert_eq!(bad.parse::<Status>(), Err(NotAStatus), "{bad}");
        }
    }
}
