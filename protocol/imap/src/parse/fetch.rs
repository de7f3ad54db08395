//! FETCH: items, macros, sections, partials, modifiers.

use super::cursor::{Cursor, is_atom_char};
use super::{Parsed, Refusal};
use crate::command::Fetch;
use crate::fetch::{FetchItem, Partial, Section, SectionText};

/// Items in one FETCH; a client that asks for more repeats itself.
const ITEMS_MAX: usize = 256;
/// Numbers in one section part: as deep as a structure is ever described.
const PART_DEPTH_MAX: usize = 200;

/// SP set SP items [SP "(" modifiers ")"].
pub(super) fn fetch(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Fetch> {
    cursor.space()?;
    let set = cursor.sequence_set()?;
    cursor.space()?;
    let items = items(cursor)?;
    let mut fetch = Fetch { uid, set, items, changed_since: None, vanished: false, partial: None };
    if cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" \r") {
        cursor.space()?;
        cursor.expect(b'(')?;
        loop {
            if cursor.eat_keyword(b"CHANGEDSINCE") {
                cursor.space()?;
                fetch.changed_since = Some(cursor.number()?);
            } else if cursor.eat_keyword(b"VANISHED") {
                fetch.vanished = true;
            } else if cursor.eat_keyword(b"PARTIAL") {
                if fetch.partial.is_some() {
                    return Err(Refusal::bad("More than one PARTIAL"));
                }
                cursor.space()?;
                fetch.partial = Some(cursor.page()?);
            } else {
                return Err(Refusal::bad("Unknown FETCH modifier"));
            }
            if cursor.eat(b')') {
                break;
            }
            cursor.space()?;
        }
        // RFC 9394 §3.3 gives it to UID FETCH: numbers are counted already.
        if fetch.partial.is_some() && !uid {
            return Err(Refusal::bad("PARTIAL goes only with UID FETCH"));
        }
        // RFC 7162 §3.2.6.
        if fetch.vanished && (!uid || fetch.changed_since.is_none()) {
            return Err(Refusal::bad("VANISHED goes only with UID FETCH and CHANGEDSINCE"));
        }
    }
    Ok(fetch)
}

fn items(cursor: &mut Cursor<'_>) -> Parsed<Vec<FetchItem>> {
    let mut items = Vec::new();
    let mut add = |item: FetchItem| {
        if !items.contains(&item) {
            items.push(item);
        }
        if items.len() > ITEMS_MAX { Err(Refusal::bad("Too many FETCH items")) } else { Ok(()) }
    };
    // RFC 9051 §6.4.5: a macro stands alone.
    let macros: [(&[u8], &[FetchItem]); 3] = [
        (b"ALL", &[FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size, FetchItem::Envelope]),
        (b"FAST", &[FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size]),
        (
            b"FULL",
            &[
                FetchItem::Flags,
                FetchItem::InternalDate,
                FetchItem::Rfc822Size,
                FetchItem::Envelope,
                FetchItem::Body,
            ],
        ),
    ];
    for (name, expansion) in macros {
        if cursor.eat_keyword(name) {
            return Ok(expansion.to_vec());
        }
    }
    if cursor.eat(b'(') {
        let mut first = true;
        while !cursor.eat(b')') {
            if !first {
                cursor.space()?;
            }
            first = false;
            add(item(cursor)?)?;
        }
        if items.is_empty() {
            return Err(Refusal::bad("FETCH asks for nothing"));
        }
    } else {
        add(item(cursor)?)?;
    }
    Ok(items)
}

fn item(cursor: &mut Cursor<'_>) -> Parsed<FetchItem> {
    let name = cursor.take_while(|byte| is_atom_char(byte) && byte != b'[').to_ascii_uppercase();
    let simple = match name.as_slice() {
        b"UID" => FetchItem::Uid,
        b"FLAGS" => FetchItem::Flags,
        b"INTERNALDATE" => FetchItem::InternalDate,
        b"RFC822.SIZE" => FetchItem::Rfc822Size,
        b"ENVELOPE" => FetchItem::Envelope,
        b"BODYSTRUCTURE" => FetchItem::BodyStructure,
        b"MODSEQ" => FetchItem::ModSeq,
        b"PREVIEW" => {
            preview_modifiers(cursor)?;
            FetchItem::Preview
        }
        b"RFC822" => FetchItem::Rfc822,
        b"RFC822.HEADER" => FetchItem::Rfc822Header,
        b"RFC822.TEXT" => FetchItem::Rfc822Text,
        b"BODY" | b"BODY.PEEK" if cursor.peek() == Some(b'[') => {
            let section = section(cursor)?;
            let partial = partial(cursor)?;
            return Ok(FetchItem::Section { section, partial, peek: name.len() > 4 });
        }
        b"BODY" => FetchItem::Body,
        _ => return Err(Refusal::bad("Unknown FETCH item")),
    };
    Ok(simple)
}

/// `[SP "(" preview-mod *(SP preview-mod) ")"]` (RFC 8970 §6). What follows PREVIEW may be the next item or the
/// modifiers of the FETCH as well, which are told from these by their names.
fn preview_modifiers(cursor: &mut Cursor<'_>) -> Parsed<()> {
    if !cursor.rest().get(..6).is_some_and(|next| next.eq_ignore_ascii_case(b" (LAZY")) {
        return Ok(());
    }
    cursor.space()?;
    cursor.expect(b'(')?;
    loop {
        if !cursor.eat_keyword(b"LAZY") {
            return Err(Refusal::bad("Unknown PREVIEW modifier"));
        }
        if cursor.eat(b')') {
            return Ok(());
        }
        cursor.space()?;
    }
}

/// `[1.2.HEADER.FIELDS (A B)]`
fn section(cursor: &mut Cursor<'_>) -> Parsed<Section> {
    cursor.expect(b'[')?;
    let mut section = Section::default();
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        section.part.push(cursor.number_nonzero()?);
        if section.part.len() > PART_DEPTH_MAX {
            return Err(Refusal::bad("Section is too deep"));
        }
        if !cursor.eat(b'.') {
            cursor.expect(b']')?;
            return Ok(section);
        }
    }
    if section.part.is_empty() && cursor.eat(b']') {
        return Ok(section);
    }
    let name = cursor.take_while(|byte| byte.is_ascii_alphabetic() || byte == b'.').to_ascii_uppercase();
    section.text = match name.as_slice() {
        b"HEADER" => SectionText::Header,
        b"TEXT" => SectionText::Text,
        // RFC 9051 §6.4.5: MIME needs a part number before it.
        b"MIME" if !section.part.is_empty() => SectionText::Mime,
        b"HEADER.FIELDS" => SectionText::HeaderFields(header_names(cursor)?),
        b"HEADER.FIELDS.NOT" => SectionText::HeaderFieldsNot(header_names(cursor)?),
        _ => return Err(Refusal::bad("Invalid section")),
    };
    cursor.expect(b']')?;
    Ok(section)
}

fn header_names(cursor: &mut Cursor<'_>) -> Parsed<Vec<Vec<u8>>> {
    cursor.space()?;
    cursor.expect(b'(')?;
    let mut names = Vec::new();
    loop {
        let name = cursor.astring()?;
        // RFC 5322 §3.6.8: printable characters but the colon. Anything else is in no header.
        if name.is_empty() || !name.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b':') {
            return Err(Refusal::bad("Invalid header name"));
        }
        names.push(name.into_owned());
        if cursor.eat(b')') {
            return Ok(names);
        }
        cursor.space()?;
    }
}

/// `<offset.length>`
fn partial(cursor: &mut Cursor<'_>) -> Parsed<Option<Partial>> {
    if !cursor.eat(b'<') {
        return Ok(None);
    }
    let offset = cursor.number()?;
    cursor.expect(b'.')?;
    let length = cursor.number()?;
    if length == 0 {
        return Err(Refusal::bad("Partial of no octets"));
    }
    cursor.expect(b'>')?;
    Ok(Some(Partial { offset, length }))
}
