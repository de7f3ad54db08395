//! Dates (RFC 8620 §1.4): RFC 3339 with capital letters, and with no fraction where it would be zero.

use std::fmt::Write as _;

use mail::date::SentDate;

/// Reads a `Date`, or a `UTCDate` where `utc`.
fn parse(text: &str, utc: bool) -> Option<SentDate> {
    let upper = !text.bytes().any(|byte| matches!(byte, b't' | b'z'));
    let zone = !utc || text.ends_with('Z');
    (upper && zone).then(|| SentDate::parse_rfc3339(text)).flatten()
}

/// Reads a `Date`: a moment in the zone of whoever wrote it.
pub fn parse_date(text: &str) -> Option<SentDate> {
    parse(text, false)
}

/// Reads a `UTCDate`; the answer is in seconds since 1970.
pub fn parse_utc(text: &str) -> Option<i64> {
    parse(text, true).map(|date| date.unix_seconds)
}

/// Writes a `UTCDate`.
pub fn utc(unix_seconds: i64) -> String {
    SentDate::utc(unix_seconds).rfc3339().to_string()
}

/// Writes a `Date` with its zone.
pub fn date(date: SentDate) -> String {
    if date.offset_minutes == 0 {
        return utc(date.unix_seconds);
    }
    let local = date.unix_seconds.saturating_add(i64::from(date.offset_minutes) * 60);
    let mut text = utc(local);
    text.pop();
    let offset = date.offset_minutes.unsigned_abs();
    let sign = if date.offset_minutes < 0 { '-' } else { '+' };
    let _ = write!(text, "{sign}{:02}:{:02}", offset / 60, offset % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_rfc8620_1_4() {
        assert_eq!(parse_utc("2014-10-30T06:12:00Z"), Some(1_414_649_520));
        assert_eq!(parse_utc("2014-10-30T14:12:00+08:00"), None);
        assert_eq!(parse_date("2014-10-30T14:12:00+08:00").unwrap().unix_seconds, 1_414_649_520);
        assert_eq!(parse_date("2014-10-30t14:12:00z"), None);
        assert_eq!(parse_utc("2014-10-30"), None);
        assert_eq!(utc(1_414_649_520), "2014-10-30T06:12:00Z");
        let east = SentDate { unix_seconds: 1_414_649_520, offset_minutes: 480 };
        assert_eq!(date(east), "2014-10-30T14:12:00+08:00");
        let west = SentDate { unix_seconds: 1_414_649_520, offset_minutes: -150 };
        assert_eq!(date(west), "2014-10-30T03:42:00-02:30");
    }
}
