//! Dates as mail writes them: header dates (RFC 5322 §3.3), INTERNALDATE and search dates (RFC 9051 §9).

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Date, Month};

/// A moment with the offset from UTC at which its writer lived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SentDate {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_seconds: i64,
    /// Minutes east of UTC, within a day.
    pub offset_minutes: i16,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EPOCH_JULIAN_DAY: i64 = 2_440_588;

impl SentDate {
    /// A moment told in UTC.
    pub fn utc(unix_seconds: i64) -> Self {
        Self { unix_seconds, offset_minutes: 0 }
    }

    /// The day on its writer's calendar, counted from 1970-01-01: what SENTBEFORE, SENTON and SENTSINCE compare, since
    /// they disregard time and zone (RFC 9051 §6.4.4).
    pub fn local_day(self) -> i64 {
        self.local_seconds().div_euclid(86_400)
    }

    fn local_seconds(self) -> i64 {
        self.unix_seconds.saturating_add(i64::from(self.offset_minutes) * 60)
    }

    /// Parses the value of a Date field, with the obsolete forms (RFC 5322 §4.3) and what real mail adds to them: a
    /// missing zone (taken as UTC), words of the day anywhere before the time, month before day (`asctime`).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = without_comments(value);
        let mut day = None;
        let mut month = None;
        let mut year = None;
        let mut time = None;
        let mut offset = None;
        for word in text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty())
        {
            if word.contains(':') && time.is_none() {
                time = Some(parse_time(word)?);
            } else if let Some(minutes) = time.and_then(|_| parse_zone(word)) {
                offset = offset.or(Some(minutes));
            } else if word.bytes().all(|byte| byte.is_ascii_digit()) {
                if day.is_none() && word.len() <= 2 {
                    day = word.parse().ok();
                } else if year.is_none() {
                    year = Some(parse_year(word)?);
                }
            } else if month.is_none() {
                // `1-Jan-2001` comes as one word.
                let mut pieces = word.split('-');
                if let (Some(first), Some(second), Some(third)) =
                    (pieces.next(), pieces.next(), pieces.next())
                {
                    day = first.parse().ok();
                    month = parse_month(second);
                    year = Some(parse_year(third)?);
                } else {
                    month = parse_month(word);
                }
            }
        }
        moment(year?, month?, day?, time?, offset.unwrap_or(0))
    }

    /// Parses an IMAP date-time, without quotes: ` 1-Jul-1996 02:44:25 -0700`.
    pub fn parse_internal(text: &str) -> Option<Self> {
        let mut words = text.trim_start().split(' ');
        let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
        let (day, month, year) = date_pieces(date)?;
        let signed = zone.len() == 5 && zone.starts_with(['+', '-']);
        if words.next().is_some() || !signed || time.len() != 8 {
            return None;
        }
        moment(year, month, day, parse_time(time)?, parse_zone(zone)?)
    }

    /// Parses the form of RFC 3339: `2026-12-01T12:00:00Z`, with a zone and perhaps a fraction, which is dropped.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't'])?;
        let (time, rest) = rest.split_at_checked(8)?;
        let zone = match rest.strip_prefix('.') {
            Some(fraction) => {
                let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                (zone.len() < fraction.len()).then_some(zone)?
            }
            None => rest,
        };
        let shape = |text: &str, pattern: &str| {
            text.len() == pattern.len()
                && text.bytes().zip(pattern.bytes()).all(|(byte, pattern)| match pattern {
                    b'0' => byte.is_ascii_digit(),
                    other => byte == other,
                })
        };
        if !shape(date, "0000-00-00") || !shape(time, "00:00:00") {
            return None;
        }
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let (sign, number) = (zone.get(..1)?, zone.get(1..)?);
                let (hours, minutes) =
                    (number.get(..2)?.parse::<i16>().ok()?, number.get(3..)?.parse::<i16>().ok()?);
                let minutes =
                    (shape(number, "00:00") && hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
                match sign {
                    "+" => minutes,
                    "-" => -minutes,
                    _ => return None,
                }
            }
        };
        moment(
            date[..4].parse().ok()?,
            date[5..7].parse().ok()?,
            date[8..].parse().ok()?,
            parse_time(time)?,
            offset,
        )
    }

    /// The form of RFC 3339, in UTC: `2026-12-01T12:00:00Z`.
    pub fn rfc3339(self) -> impl fmt::Display {
        let Civil { day, month, year, hour, minute, second, .. } = Self::utc(self.unix_seconds).civil();
        let month = month + 1;
        Text(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
    }

    /// The form of a Date field: `Thu, 22 Aug 2002 18:26:25 +0700`.
    pub fn rfc5322(self) -> impl fmt::Display {
        let Civil { weekday, day, month, year, hour, minute, second, sign, zone } = self.civil();
        let (weekday, month) = (WEEKDAYS[weekday], MONTHS[month]);
        Text(format!("{weekday}, {day} {month} {year:04} {hour:02}:{minute:02}:{second:02} {sign}{zone:04}"))
    }

    /// The form of IMAP's INTERNALDATE, without quotes: `22-Aug-2002 18:26:25 +0700`.
    pub fn internal(self) -> impl fmt::Display {
        let Civil { day, month, year, hour, minute, second, sign, zone, .. } = self.civil();
        let month = MONTHS[month];
        Text(format!("{day:02}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} {sign}{zone:04}"))
    }

    fn civil(self) -> Civil {
        // Years that four digits cannot write are shown as the nearest that they can.
        let seconds = self.local_seconds().clamp(-62_135_596_800, 253_402_300_799);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let date = Date::from_julian_day((days + EPOCH_JULIAN_DAY) as i32).unwrap_or(Date::MIN);
        let offset = i32::from(self.offset_minutes);
        Civil {
            weekday: usize::from(date.weekday().number_days_from_monday()),
            day: date.day(),
            month: usize::from(u8::from(date.month())) - 1,
            year: date.year(),
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            sign: if offset < 0 { '-' } else { '+' },
            zone: offset.abs() / 60 * 100 + offset.abs() % 60,
        }
    }
}

/// A day of IMAP's SEARCH, `1-Feb-1994`, counted from 1970-01-01.
pub fn parse_search_day(text: &str) -> Option<i64> {
    let (day, month, year) = date_pieces(text)?;
    calendar_day(year, month, day)
}

struct Civil {
    weekday: usize,
    day: u8,
    month: usize,
    year: i32,
    hour: i64,
    minute: i64,
    second: i64,
    sign: char,
    zone: i32,
}

struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn moment(year: i32, month: u8, day: u8, time: i64, offset_minutes: i16) -> Option<SentDate> {
    let unix_seconds = calendar_day(year, month, day)? * 86_400 + time - i64::from(offset_minutes) * 60;
    Some(SentDate { unix_seconds, offset_minutes })
}

fn calendar_day(year: i32, month: u8, day: u8) -> Option<i64> {
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    Some(i64::from(date.to_julian_day()) - EPOCH_JULIAN_DAY)
}

fn date_pieces(text: &str) -> Option<(u8, u8, i32)> {
    let mut pieces = text.split('-');
    let (day, month, year) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let digits = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit())
    };
    let whole =
        pieces.next().is_none() && digits(day, 2) && digits(year, 4) && year.len() == 4 && month.len() == 3;
    whole.then_some(())?;
    Some((day.parse().ok()?, parse_month(month)?, year.parse().ok()?))
}

/// Seconds since midnight. A leap second is the second before (no clock of ours has any).
fn parse_time(text: &str) -> Option<i64> {
    let mut pieces = text.split(':').map(|piece| {
        let digits = !piece.is_empty() && piece.len() <= 2 && piece.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| piece.parse::<i64>().ok()).flatten()
    });
    let (hour, minute) = (pieces.next()??, pieces.next()??);
    let second = pieces.next().unwrap_or(Some(0))?;
    let valid = hour < 24 && minute < 60 && second <= 60 && pieces.next().is_none();
    valid.then(|| hour * 3600 + minute * 60 + second.min(59))
}

/// Minutes east of UTC. Letters that are no known zone say nothing of the local time (RFC 5322 §4.3).
fn parse_zone(text: &str) -> Option<i16> {
    if let Some(digits) = text.strip_prefix(['+', '-']) {
        let number: i16 =
            digits.parse().ok().filter(|_| digits.len() == 4 && !digits.starts_with(['+', '-']))?;
        let minutes = (number / 100).min(23) * 60 + (number % 100).min(59);
        return Some(if text.starts_with('-') { -minutes } else { minutes });
    }
    let known = [
        ("EDT", -4),
        ("EST", -5),
        ("CDT", -5),
        ("CST", -6),
        ("MDT", -6),
        ("MST", -7),
        ("PDT", -7),
        ("PST", -8),
    ];
    if let Some((_, hours)) = known.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        return Some(hours * 60);
    }
    text.bytes().all(|byte| byte.is_ascii_alphabetic()).then_some(0)
}

/// Two and three digits as RFC 5322 §4.3 reads them.
fn parse_year(text: &str) -> Option<i32> {
    let number: i32 = text.parse().ok().filter(|_| text.len() <= 4)?;
    Some(match (text.len(), number) {
        (0..=2, 0..=49) => number + 2000,
        (0..=3, _) => number + 1900,
        _ => number,
    })
}

fn parse_month(text: &str) -> Option<u8> {
    let start = text.get(..3)?;
    MONTHS.iter().position(|name| start.eq_ignore_ascii_case(name)).map(|at| at as u8 + 1)
}

fn without_comments(value: &[u8]) -> String {
    let mut depth = 0_u32;
    let mut out = String::new();
    // A date is short; whatever comes later is no part of it.
    for byte in value.iter().take(256) {
        match byte {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            // The obsolete form has white space around the colons.
            b' ' | b'\t' if out.ends_with(':') => {}
            b':' => {
                out.truncate(out.trim_end().len());
                out.push(':');
            }
            byte if byte.is_ascii() => out.push(char::from(*byte)),
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = SentDate::parse_rfc3339(text).map(|date| date.rfc3339().to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("2026-12-01T12:00:00Z", Some("2026-12-01T12:00:00Z"));
        check("2026-12-01t12:00:00.25z", Some("2026-12-01T12:00:00Z"));
        check("2026-12-01T12:00:00-01:30", Some("2026-12-01T13:30:00Z"));
        check("1969-12-31T23:59:59Z", Some("1969-12-31T23:59:59Z"));
        for bad in [
            "",
            "2026-12-01",
            "2026-12-01T12:00:00",
            "2026-13-01T12:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T12:00:00.Z",
            "2026-12-01T12:00:00+1:00",
            "2026-12-01T12:00:00+01:00x",
            "+026-12-01T12:00:00Z",
            "2026-12-01T12:00:00ü",
            "2026-12-0ü12:00:00Z",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn header_dates_rfc5322_3_3_and_4_3() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                SentDate::parse(text.as_bytes()).map(|d| d.rfc5322().to_string()).as_deref(),
                expected,
                "{text}"
            );
        };
        check("Thu, 22 Aug 2002 18:26:25 +0700", Some("Thu, 22 Aug 2002 18:26:25 +0700"));
        check("22 Aug 02 18:26 EST", Some("Thu, 22 Aug 2002 18:26:00 -0500"));
        check("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", Some("Fri, 21 Nov 1997 09:55:06 -0600"));
        check("Fri, 21 Nov 97 09:55:06 GMT (gone)", Some("Fri, 21 Nov 1997 09:55:06 +0000"));
        check("Tue,  4 Jun 2002 1:02:03", Some("Tue, 4 Jun 2002 01:02:03 +0000"));
        check("Thu Aug  1 10:11:12 2002", Some("Thu, 1 Aug 2002 10:11:12 +0000"));
        check("Thu Aug  1 10:11:12 MET 2002", Some("Thu, 1 Aug 2002 10:11:12 +0000"));
        check("01-Dec-2002 10:11:12 -0130", Some("Sun, 1 Dec 2002 10:11:12 -0130"));
        check("Sat, 29 Feb 2003 10:11:12 +0000", None);
        check("1 Jan 103 00:00:60 +0000", Some("Wed, 1 Jan 2003 00:00:59 +0000"));
        check("31 Dec 9999 23:59:59 -2359", Some("Fri, 31 Dec 9999 23:59:59 -2359"));
        for bad in [
            "",
            "yesterday",
            "1 Jan 2003",
            "1 Jan 2003 25:00:00 +0000",
            "99999999 Jan 1 1:1:1",
            "1 Foo 2003 1:1:1",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn internal_dates_rfc9051_9() {
        let check = |text: &str, expected: Option<&str>| {
            let got = SentDate::parse_internal(text).map(|d| d.internal().to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        };
        check("17-Jul-1996 02:44:25 -0700", Some("17-Jul-1996 02:44:25 -0700"));
        check(" 1-jul-1996 02:44:25 +0000", Some("01-Jul-1996 02:44:25 +0000"));
        for bad in [
            "17-Jul-96 02:44:25 -0700",
            "17-Jul-1996 2:44:25 -0700",
            "17-Jul-1996 02:44:25",
            "17-Jul-1996 02:44:25 GMT",
            "31-Feb-1996 02:44:25 -0700",
            "17-July-1996 02:44:25 -0700",
            "17-Jul-1996 02:44:25 -0700 x",
            "+1-Jul-1996 02:44:25 -0700",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn days_of_search_disregard_time_and_zone() {
        assert_eq!(parse_search_day("1-Jan-1970"), Some(0));
        assert_eq!(parse_search_day("29-Feb-2004"), Some(12_477));
        assert_eq!(parse_search_day("1-1-1970"), None);
        assert_eq!(SentDate::parse(b"1 Jan 1970 00:30:00 +0100").map(SentDate::local_day), Some(0));
        assert_eq!(SentDate::parse(b"31 Dec 1969 23:30:00 -0100").map(SentDate::local_day), Some(-1));
    }

    #[test]
    fn far_dates_are_written_somehow() {
        for seconds in [i64::MIN, i64::MAX, -62_135_596_801, 253_402_300_800] {
            let _ = SentDate::utc(seconds).rfc5322().to_string();
        }
        assert_eq!(SentDate::utc(0).rfc5322().to_string(), "Thu, 1 Jan 1970 00:00:00 +0000");
    }
}
