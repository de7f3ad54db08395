//! Dates: `date-time` of APPEND and `date` of SEARCH (RFC 9051 §9).

use super::cursor::Cursor;
use super::{Parsed, Refusal};
use crate::command::DateTime;
use crate::search::Date;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Days since 1970-01-01 of a day of the proleptic Gregorian calendar; `None` if there is no such day.
fn unix_days(year: u32, month: u32, day: u32) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > days_in_month {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year.
    let shifted_year = i64::from(year) - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn digits(cursor: &mut Cursor<'_>, count: usize) -> Parsed<u32> {
    let rest = cursor.rest();
    let text = rest.get(..count).filter(|text| text.iter().all(u8::is_ascii_digit));
    let text = text.ok_or(Refusal::bad("Invalid date"))?;
    let number = text.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    for digit in text {
        cursor.eat(*digit);
    }
    Ok(number)
}

/// `-Jan-2024`
fn month_and_year(cursor: &mut Cursor<'_>) -> Parsed<(u32, u32)> {
    let invalid = || Refusal::bad("Invalid date");
    cursor.expect(b'-').map_err(|_| invalid())?;
    let name = cursor.take_while(|byte| byte.is_ascii_alphabetic());
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name)).ok_or_else(invalid)?;
    cursor.expect(b'-').map_err(|_| invalid())?;
    Ok((month as u32 + 1, digits(cursor, 4)?))
}

/// `"17-Jul-1996 02:44:25 -0700"`, with a space for the first digit of the day.
pub(super) fn date_time(cursor: &mut Cursor<'_>) -> Parsed<DateTime> {
    let invalid = || Refusal::bad("Invalid date");
    cursor.expect(b'"').map_err(|_| invalid())?;
    let day = if cursor.eat(b' ') { digits(cursor, 1)? } else { digits(cursor, 2)? };
    let (month, year) = month_and_year(cursor)?;
    cursor.expect(b' ').map_err(|_| invalid())?;
    let hour = digits(cursor, 2)?;
    cursor.expect(b':').map_err(|_| invalid())?;
    let minute = digits(cursor, 2)?;
    cursor.expect(b':').map_err(|_| invalid())?;
    let second = digits(cursor, 2)?;
    cursor.expect(b' ').map_err(|_| invalid())?;
    let west = match cursor.peek() {
        Some(b'+') => false,
        Some(b'-') => true,
        _ => return Err(invalid()),
    };
    cursor.eat(if west { b'-' } else { b'+' });
    let (zone_hours, zone_minutes) = (digits(cursor, 2)?, digits(cursor, 2)?);
    cursor.expect(b'"').map_err(|_| invalid())?;
    // A second of 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 || zone_hours > 23 || zone_minutes > 59 {
        return Err(invalid());
    }
    let days = unix_days(year, month, day).ok_or_else(invalid)?;
    let east = (zone_hours * 60 + zone_minutes) as i16 * if west { -1 } else { 1 };
    let local = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Ok(DateTime { unix_seconds: local - i64::from(east) * 60, zone_minutes: east })
}

/// `1-Feb-1994` or the same in quotes.
pub(super) fn date(cursor: &mut Cursor<'_>) -> Parsed<Date> {
    let invalid = || Refusal::bad("Invalid date");
    let quoted = cursor.eat(b'"');
    let two = cursor.rest().get(1).is_some_and(u8::is_ascii_digit);
    let day = digits(cursor, 1 + usize::from(two))?;
    let (month, year) = month_and_year(cursor)?;
    if quoted {
        cursor.expect(b'"').map_err(|_| invalid())?;
    }
    let unix_days = unix_days(year, month, day).ok_or_else(invalid)?;
    Ok(Date { unix_days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let check = |text: &str, expected: Option<(i64, i16)>| {
            let parsed = date_time(&mut Cursor::new(text.as_bytes())).ok();
            assert_eq!(parsed.map(|date| (date.unix_seconds, date.zone_minutes)), expected, "{text}");
        };
        check("\" 1-Jan-1970 00:00:00 +0000\"", Some((0, 0)));
        check("\"01-Jan-1970 01:00:00 +0100\"", Some((0, 60)));
        check("\"17-Jul-1996 02:44:25 -0700\"", Some((837_596_665, -420)));
        check("\"29-Feb-2000 23:59:60 +0000\"", Some((951_868_800, 0)));
        check("\"31-Dec-1969 23:59:59 +0000\"", Some((-1, 0)));
        check("\"29-Feb-1900 00:00:00 +0000\"", None);
        check("\"1-Jan-1970 00:00:00 +0000\"", None);
        check("\"01-Jan-1970 24:00:00 +0000\"", None);
        check("\"01-Jan-1970 00:00:00 0000\"", None);
        check("\"00-Jan-1970 00:00:00 +0000\"", None);
        check("\"01-Foo-1970 00:00:00 +0000\"", None);
    }

    #[test]
    fn days() {
        let check = |text: &str, expected: Option<i64>| {
            let parsed = date(&mut Cursor::new(text.as_bytes())).ok();
            assert_eq!(parsed.map(|date| date.unix_days), expected, "{text}");
        };
        check("1-Feb-1994", Some(8797));
        check("\"01-feb-1994\"", Some(8797));
        check("31-Dec-1999", Some(10956));
        check("1-Mar-2000", Some(11017));
        check("32-Jan-2000", None);
        check("-Jan-2000", None);
        check("", None);
    }
}
