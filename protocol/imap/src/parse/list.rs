//! LIST with RFC 5258, 5819, 6154, and LSUB.

use super::cursor::Cursor;
use super::{Parsed, Refusal, status_items};
use crate::command::{Command, List, ListReturn, ListSelect};
use crate::mailbox_name::{MailboxName, NameForm, decode_utf7};

/// SP [select-opts SP] reference SP (pattern / "(" patterns ")") [SP RETURN "(" options ")"].
pub(super) fn list(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<List> {
    cursor.space()?;
    let mut list = List::default();
    if cursor.eat(b'(') {
        list.extended = true;
        list.select = select_options(cursor)?;
        cursor.space()?;
    }
    list.reference = pattern(&cursor.astring()?, form);
    cursor.space()?;
    if cursor.eat(b'(') {
        list.extended = true;
        loop {
            list.patterns.push(pattern(&cursor.list_mailbox()?, form));
            if cursor.eat(b')') {
                break;
            }
            cursor.space()?;
        }
    } else {
        list.patterns.push(pattern(&cursor.list_mailbox()?, form));
    }
    if cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" \r") {
        cursor.space()?;
        if !cursor.eat_keyword(b"RETURN") {
            return Err(Refusal::bad("Unexpected argument"));
        }
        list.extended = true;
        cursor.space()?;
        list.returns = return_options(cursor)?;
    }
    Ok(list)
}

/// SP reference SP pattern.
pub(super) fn lsub(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<Command> {
    cursor.space()?;
    let reference = pattern(&cursor.astring()?, form);
    cursor.space()?;
    let pattern = pattern(&cursor.list_mailbox()?, form);
    Ok(Command::Lsub { reference, pattern })
}

/// A pattern that is no valid name is kept as it came: it matches nothing, which is the right answer.
fn pattern(raw: &[u8], form: NameForm) -> String {
    let text = String::from_utf8_lossy(raw).into_owned();
    let text = match form {
        NameForm::Utf7 => decode_utf7(&text).unwrap_or(text),
        NameForm::Utf8 => text,
    };
    MailboxName::new(text).as_str().to_owned()
}

fn select_options(cursor: &mut Cursor<'_>) -> Parsed<ListSelect> {
    let mut select = ListSelect::default();
    let mut first = true;
    while !cursor.eat(b')') {
        if !first {
            cursor.space()?;
        }
        first = false;
        let option = cursor.atom()?.to_ascii_uppercase();
        match option.as_slice() {
            b"SUBSCRIBED" => select.subscribed = true,
            b"REMOTE" => select.remote = true,
            b"RECURSIVEMATCH" => select.recursive_match = true,
            b"SPECIAL-USE" => select.special_use = true,
            _ => return Err(Refusal::bad("Unknown LIST selection option")),
        }
    }
    // RFC 5258 §3.1: RECURSIVEMATCH needs an option that it can recurse on.
    if select.recursive_match && !select.subscribed && !select.special_use {
        return Err(Refusal::bad("RECURSIVEMATCH needs another selection option"));
    }
    Ok(select)
}

fn return_options(cursor: &mut Cursor<'_>) -> Parsed<ListReturn> {
    let mut returns = ListReturn::default();
    cursor.expect(b'(')?;
    let mut first = true;
    while !cursor.eat(b')') {
        if !first {
            cursor.space()?;
        }
        first = false;
        let option = cursor.atom()?.to_ascii_uppercase();
        match option.as_slice() {
            b"SUBSCRIBED" => returns.subscribed = true,
            b"CHILDREN" => returns.children = true,
            b"SPECIAL-USE" => returns.special_use = true,
            b"STATUS" => {
                cursor.space()?;
                returns.status = Some(status_items(cursor)?);
            }
            _ => return Err(Refusal::bad("Unknown LIST return option")),
        }
    }
    Ok(returns)
}
