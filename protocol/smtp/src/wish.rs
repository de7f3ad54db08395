//! What a sender may wish of when a message is delivered: not before (FUTURERELEASE, RFC 4865), not later than
//! (DELIVERBY, RFC 2852), before others (MT-PRIORITY, RFC 6710).

use std::fmt;

use mail::date::SentDate;
use mail::envelope::ByMode;

/// Which wishes a server takes, and how far they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// FUTURERELEASE: how many seconds a message is held at most. `None`: not offered.
    pub hold_seconds_max: Option<u64>,
    /// DELIVERBY: the shortest time that can be asked for. `None`: not offered.
    pub by_seconds_min: Option<u64>,
    /// MT-PRIORITY is offered.
    pub priority: bool,
}

/// `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// So many seconds.
    For(u64),
    /// Until then (unix seconds).
    Until(u64),
}

/// `BY=` (RFC 2852 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    /// Within so many seconds. Of a message on its way that is late, negative.
    pub seconds: i64,
    /// What happens else.
    pub mode: ByMode,
    /// The sender wants to see how the time was spent.
    pub trace: bool,
}

impl Hold {
    /// The value of `HOLDFOR=`: up to nine digits.
    pub(crate) fn parse_for(value: &str) -> Option<Self> {
        digits(value).map(Self::For)
    }

    /// The value of `HOLDUNTIL=`: a moment of RFC 3339.
    pub(crate) fn parse_until(value: &str) -> Option<Self> {
        let moment = SentDate::parse_rfc3339(value)?.unix_seconds;
        u64::try_from(moment).ok().map(Self::Until)
    }

    /// The moment that it says, for a clock that says `now` (unix seconds).
    pub fn until(self, now: u64) -> u64 {
        match self {
            Self::For(seconds) => now.saturating_add(seconds),
            Self::Until(moment) => moment,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(seconds) => write!(f, "HOLDFOR={seconds}"),
            Self::Until(moment) => {
                let moment = i64::try_from(*moment).unwrap_or(i64::MAX);
                write!(f, "HOLDUNTIL={}", SentDate::utc(moment).rfc3339())
            }
        }
    }
}

impl By {
    /// The value of `BY=`: `120;R`, `-40;NT`.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (time, mode) = value.split_once(';')?;
        let (sign, number) = match time.as_bytes().first()? {
            b'-' => (-1, &time[1..]),
            b'+' => (1, &time[1..]),
            _ => (1, time),
        };
        let seconds = sign * i64::try_from(digits(number)?).ok()?;
        let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
            "N" => (ByMode::Notify, false),
            "NT" => (ByMode::Notify, true),
            "R" => (ByMode::Return, false),
            "RT" => (ByMode::Return, true),
            _ => return None,
        };
        // What is to be returned must have time left (RFC 2852 §4).
        (mode == ByMode::Notify || seconds > 0).then_some(Self { seconds, mode, trace })
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ByMode::Notify => "N",
            ByMode::Return => "R",
        };
        write!(f, "BY={};{mode}{}", self.seconds, if self.trace { "T" } else { "" })
    }
}

/// `MT-PRIORITY=`: -9 to 9 (RFC 6710 §3).
pub(crate) fn priority(value: &str) -> Option<i8> {
    let (sign, digit) = match value.strip_prefix('-') {
        Some(digit) => (-1, digit),
        None => (1, value),
    };
    let digit: i8 = digit.parse().ok().filter(|_| digit.len() == 1 && digit != "+")?;
    Some(sign * digit)
}

fn digits(text: &str) -> Option<u64> {
    let valid = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_rfc4865_4() {
        let check = |parsed: Option<Hold>, expected: Option<&str>| {
            assert_eq!(parsed.map(|hold| hold.to_string()).as_deref(), expected);
        };
        check(Hold::parse_for("86400"), Some("HOLDFOR=86400"));
        check(Hold::parse_for("1234567890"), None);
        check(Hold::parse_for("-1"), None);
        check(Hold::parse_for(""), None);
        check(Hold::parse_until("2026-12-01T12:00:00Z"), Some("HOLDUNTIL=2026-12-01T12:00:00Z"));
        check(Hold::parse_until("2026-12-01T12:00:00+02:00"), Some("HOLDUNTIL=2026-12-01T10:00:00Z"));
        check(Hold::parse_until("1969-12-01T12:00:00Z"), None);
        check(Hold::parse_until("2026-12-01"), None);
        assert_eq!(Hold::For(10).until(5), 15);
        assert_eq!(Hold::Until(10).until(5), 10);
    }

    #[test]
    fn by_rfc2852_4() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(By::parse(value).map(|by| by.to_string()).as_deref(), expected, "{value}");
        };
        check("120;R", Some("BY=120;R"));
        check("+120;rt", Some("BY=120;RT"));
        check("-40;NT", Some("BY=-40;NT"));
        check("0;N", Some("BY=0;N"));
        for bad in ["0;R", "-1;R", "120", "120;", "120;X", ";R", "-;N", "1234567890;N", "1;NN"] {
            check(bad, None);
        }
    }

    #[test]
    fn priorities_rfc6710_3() {
        let check = |value: &str, expected: Option<i8>| assert_eq!(priority(value), expected, "{value}");
        check("0", Some(0));
        check("9", Some(9));
        check("-9", Some(-9));
        for bad in ["10", "+3", "", "-", "x", "--1", "3.5"] {
            check(bad, None);
        }
    }
}
