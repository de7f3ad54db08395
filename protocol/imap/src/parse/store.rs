//! STORE with UNCHANGEDSINCE (RFC 7162 §3.1.3).

use mail::flag::FlagSet;

use super::cursor::Cursor;
use super::{Parsed, Refusal};
use crate::command::{Store, StoreAction};

/// `SP set [SP "(" UNCHANGEDSINCE n ")"] SP ["+" / "-"] FLAGS [".SILENT"] SP flags`
pub(super) fn store(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Store> {
    cursor.space()?;
    let set = cursor.sequence_set()?;
    cursor.space()?;
    let mut unchanged_since = None;
    if cursor.eat(b'(') {
        if !cursor.eat_keyword(b"UNCHANGEDSINCE") {
            return Err(Refusal::bad("Unknown STORE modifier"));
        }
        cursor.space()?;
        unchanged_since = Some(cursor.number()?);
        cursor.expect(b')')?;
        cursor.space()?;
    }
    let item = cursor.atom()?.to_ascii_uppercase();
    let (action, name) = match item.first() {
        Some(b'+') => (StoreAction::Add, &item[1..]),
        Some(b'-') => (StoreAction::Remove, &item[1..]),
        _ => (StoreAction::Replace, &item[..]),
    };
    let silent = match name {
        b"FLAGS" => false,
        b"FLAGS.SILENT" => true,
        _ => return Err(Refusal::bad("Unknown STORE item")),
    };
    cursor.space()?;
    let flags = if cursor.peek() == Some(b'(') {
        cursor.flag_list()?
    } else {
        let mut flags = FlagSet::new();
        cursor.flag(&mut flags)?;
        while cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" \r") {
            cursor.space()?;
            cursor.flag(&mut flags)?;
        }
        flags
    };
    Ok(Store { uid, set, unchanged_since, action, silent, flags })
}
