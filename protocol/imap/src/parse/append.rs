//! APPEND up to the literal that holds the message.

use mail::flag::FlagSet;

use super::cursor::{Cursor, LiteralMark};
use super::{Parsed, Refusal, date, mailbox};
use crate::command::{Append, AppendMessage};
use crate::mailbox_name::NameForm;

/// Whether the literal announced at the end of an APPEND so far is the mailbox's name: then nothing but the space
/// stands before it. `arguments` starts behind the verb.
pub(crate) fn literal_is_mailbox(arguments: &[u8], mark_start: usize) -> bool {
    arguments.get(..mark_start) == Some(b" ")
}

/// SP mailbox [SP flags] [SP date-time] SP literal-mark. The cursor ends at the end of the line.
pub(crate) fn append(cursor: &mut Cursor<'_>, form: NameForm, mark: LiteralMark) -> Parsed<Append> {
    let mailbox = mailbox(cursor, form)?;
    Ok(Append { mailbox, message: message(cursor, mark)? })
}

/// What stands before a message's literal; also the start of the next one of MULTIAPPEND (RFC 3502).
pub(crate) fn message(cursor: &mut Cursor<'_>, mark: LiteralMark) -> Parsed<AppendMessage> {
    cursor.space()?;
    let mut message = AppendMessage { flags: FlagSet::new(), internal_date: None, size: mark.size };
    if cursor.peek() == Some(b'(') {
        message.flags = cursor.flag_list()?;
        cursor.space()?;
    }
    if cursor.peek() == Some(b'"') {
        message.internal_date = Some(date::date_time(cursor)?);
        cursor.space()?;
    }
    if mark.binary {
        return Err(Refusal::no("[UNKNOWN-CTE] Binary literals are not supported"));
    }
    if cursor.peek() != Some(b'{') {
        return Err(Refusal::bad("Expected the message as a literal"));
    }
    let end = cursor.take_while(|byte| byte != b'\r');
    if end[1..].contains(&b'{') || cursor.rest() != b"\r\n" {
        return Err(Refusal::bad("Expected the message as a literal"));
    }
    Ok(message)
}
