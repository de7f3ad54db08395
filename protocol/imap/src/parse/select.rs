//! SELECT, EXAMINE and CREATE with their parameters.

use super::cursor::Cursor;
use super::{Parsed, Refusal, mailbox};
use crate::command::{Command, Qresync, Select, SpecialUse};
use crate::mailbox_name::{DELIMITER, MailboxName, NameForm};

/// SP mailbox [SP "(" CONDSTORE / QRESYNC (…) ")"] (RFC 4466 §2.1).
pub(super) fn select(cursor: &mut Cursor<'_>, form: NameForm, read_only: bool) -> Parsed<Select> {
    let mailbox = mailbox(cursor, form)?;
    let mut select = Select { mailbox, read_only, condstore: false, qresync: None };
    if cursor.peek() != Some(b' ') || cursor.rest().starts_with(b" \r") {
        return Ok(select);
    }
    cursor.space()?;
    cursor.expect(b'(')?;
    loop {
        if cursor.eat_keyword(b"CONDSTORE") {
            select.condstore = true;
        } else if cursor.eat_keyword(b"QRESYNC") {
            cursor.space()?;
            select.qresync = Some(qresync(cursor)?);
        } else {
            return Err(Refusal::bad("Unknown SELECT parameter"));
        }
        if cursor.eat(b')') {
            return Ok(select);
        }
        cursor.space()?;
    }
}

/// `(uidvalidity modseq [known-uids] [(sequence-set uid-set)])` (RFC 7162 §7).
fn qresync(cursor: &mut Cursor<'_>) -> Parsed<Qresync> {
    cursor.expect(b'(')?;
    let uid_validity = cursor.number_nonzero()?;
    cursor.space()?;
    let mod_seq = cursor.number()?;
    if mod_seq == 0 {
        return Err(Refusal::bad("Modification sequence of zero"));
    }
    let mut qresync = Qresync { uid_validity, mod_seq, known_uids: None, match_data: None };
    let without_star = |cursor: &mut Cursor<'_>| {
        let set = cursor.sequence_set()?;
        if set.has_star() || set == crate::sequence::SequenceSet::Saved {
            return Err(Refusal::bad("Set must be of plain numbers here"));
        }
        Ok(set)
    };
    if cursor.eat(b' ') {
        if cursor.peek() != Some(b'(') {
            qresync.known_uids = Some(without_star(cursor)?);
            if cursor.eat(b')') {
                return Ok(qresync);
            }
            cursor.space()?;
        }
        cursor.expect(b'(')?;
        let numbers = without_star(cursor)?;
        cursor.space()?;
        let uids = without_star(cursor)?;
        cursor.expect(b')')?;
        qresync.match_data = Some((numbers, uids));
    }
    cursor.expect(b')')?;
    Ok(qresync)
}

/// SP mailbox [SP "(" USE "(" attributes ")" ")"] (RFC 6154 §3).
pub(super) fn create(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<Command> {
    let named = mailbox(cursor, form)?;
    // RFC 9051 §6.3.4: a name that ends in the separator announces children; the mailbox has the name without it.
    let (mailbox, parent_only) = match named.as_str().strip_suffix(DELIMITER) {
        Some(name) => (MailboxName::new(name), true),
        None => (named, false),
    };
    let mut uses = Vec::new();
    if cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" \r") {
        cursor.space()?;
        cursor.expect(b'(')?;
        if !cursor.eat_keyword(b"USE") {
            return Err(Refusal::bad("Unknown CREATE parameter"));
        }
        cursor.space()?;
        cursor.expect(b'(')?;
        while !cursor.eat(b')') {
            if !uses.is_empty() {
                cursor.space()?;
            }
            let start = cursor.rest();
            cursor.expect(b'\\')?;
            let name = &start[..=cursor.atom()?.len()];
            uses.push(SpecialUse::parse(name).ok_or(Refusal::no("[USEATTR] Unknown special use"))?);
        }
        cursor.expect(b')')?;
    }
    Ok(Command::Create { mailbox, parent_only, uses })
}
