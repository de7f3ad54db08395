//! FETCH responses (RFC 9051 §7.5.2): `* n FETCH (item item …)`.

use bytes::{BufMut, BytesMut};
use mail::flag::Flags;

use super::number;
use super::string::{astring, string};
use crate::command::DateTime;
use crate::fetch::{Partial, Section, SectionText};

/// Begins a response; items follow, then [`end`].
pub fn begin(out: &mut BytesMut, sequence: u32) {
    out.put_slice(b"* ");
    number(out, u64::from(sequence));
    out.put_slice(b" FETCH (");
}

/// Ends a response.
pub fn end(out: &mut BytesMut) {
    out.put_slice(b")\r\n");
}

/// Writes the space between two items; nothing before the first.
pub fn separate(out: &mut BytesMut, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.put_u8(b' ');
    }
}

/// `UID n`
pub fn uid(out: &mut BytesMut, uid: u32) {
    out.put_slice(b"UID ");
    number(out, u64::from(uid));
}

/// `MODSEQ (n)`
pub fn mod_seq(out: &mut BytesMut, mod_seq: u64) {
    out.put_slice(b"MODSEQ (");
    number(out, mod_seq);
    out.put_u8(b')');
}

/// `PREVIEW "…"` (RFC 8970 §6). Of a message without a text the preview is empty, which is not NIL: that one says that
/// it could not be made yet.
pub fn preview(out: &mut BytesMut, text: &str) {
    out.put_slice(b"PREVIEW ");
    string(out, text.as_bytes());
}

/// `RFC822.SIZE n`
pub fn size(out: &mut BytesMut, size: u64) {
    out.put_slice(b"RFC822.SIZE ");
    number(out, size);
}

/// `FLAGS (…)`
pub fn flags<'a>(out: &mut BytesMut, flags: Flags, keywords: impl IntoIterator<Item = &'a str>) {
    out.put_slice(b"FLAGS (");
    let mut first = true;
    for flag in flags.iter() {
        separate(out, &mut first);
        out.put_slice(flag.as_str().as_bytes());
    }
    for keyword in keywords {
        separate(out, &mut first);
        out.put_slice(keyword.as_bytes());
    }
    out.put_u8(b')');
}

/// `INTERNALDATE "17-Jul-1996 02:44:25 -0700"`
pub fn internal_date(out: &mut BytesMut, date: DateTime) {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let local = date.unix_seconds + i64::from(date.zone_minutes) * 60;
    let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400) as u32);
    let (year, month, day) = civil(days);
    let two = |out: &mut BytesMut, number: u32| {
        out.put_u8(b'0' + (number / 10 % 10) as u8);
        out.put_u8(b'0' + (number % 10) as u8);
    };
    out.put_slice(b"INTERNALDATE \"");
    two(out, day);
    out.put_u8(b'-');
    out.put_slice(&MONTHS[(month as usize - 1) * 3..month as usize * 3]);
    out.put_u8(b'-');
    // Four digits is all that the grammar has.
    let year = year.clamp(0, 9999) as u32;
    two(out, year / 100);
    two(out, year % 100);
    out.put_u8(b' ');
    two(out, seconds / 3600);
    out.put_u8(b':');
    two(out, seconds / 60 % 60);
    out.put_u8(b':');
    two(out, seconds % 60);
    out.put_slice(if date.zone_minutes < 0 { b" -" } else { b" +" });
    let zone = u32::from(date.zone_minutes.unsigned_abs());
    two(out, zone / 60);
    two(out, zone % 60);
    out.put_u8(b'"');
}

/// Year, month and day of a count of days since 1970-01-01.
fn civil(unix_days: i64) -> (i64, u32, u32) {
    let days = unix_days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `BODY[section]<offset> `: the name under which a section is answered, with the space behind it. Only the offset
/// of a partial is repeated (RFC 9051 §7.5.2).
pub fn section_name(out: &mut BytesMut, section: &Section, partial: Option<Partial>) {
    out.put_slice(b"BODY[");
    for (index, number) in section.part.iter().enumerate() {
        if index > 0 {
            out.put_u8(b'.');
        }
        self::number(out, u64::from(*number));
    }
    if !section.part.is_empty() && section.text != SectionText::Whole {
        out.put_u8(b'.');
    }
    match &section.text {
        SectionText::Whole => {}
        SectionText::Header => out.put_slice(b"HEADER"),
        SectionText::Text => out.put_slice(b"TEXT"),
        SectionText::Mime => out.put_slice(b"MIME"),
        SectionText::HeaderFields(names) => header_names(out, b"HEADER.FIELDS (", names),
        SectionText::HeaderFieldsNot(names) => header_names(out, b"HEADER.FIELDS.NOT (", names),
    }
    out.put_u8(b']');
    if let Some(partial) = partial {
        out.put_u8(b'<');
        number(out, partial.offset);
        out.put_u8(b'>');
    }
    out.put_u8(b' ');
}

fn header_names(out: &mut BytesMut, word: &[u8], names: &[Vec<u8>]) {
    out.put_slice(word);
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.put_u8(b' ');
        }
        astring(out, name);
    }
    out.put_u8(b')');
}

/// `{n}` and the line end: exactly `size` octets are to follow.
pub fn literal_head(out: &mut BytesMut, size: u64) {
    out.put_u8(b'{');
    number(out, size);
    out.put_slice(b"}\r\n");
}
