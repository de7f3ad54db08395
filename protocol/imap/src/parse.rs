//! The grammar of commands: one whole command, literals included, becomes a [`Command`].
//!
//! The parser is a cursor over the bytes as they came. It holds nothing back and copies only what the command keeps, so
//! its memory is bounded by the command's length; its recursion (SEARCH) by a depth.

pub(crate) mod append;
mod cursor;
mod date;
mod fetch;
mod list;
mod search;
mod select;
mod store;

use std::borrow::Cow;

use sasl::Password;

pub(crate) use cursor::{Cursor, LiteralMark, literal_at_end};

use crate::command::{Command, Copy, StatusItem, Tag};
use crate::mailbox_name::{MailboxName, NameForm};

/// Why a command is refused before the service sees it: it becomes the tagged answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// NO: the command is well-formed but cannot be done; else BAD.
    pub(crate) no: bool,
    /// Response code and text.
    pub(crate) text: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { no: false, text: text.into() }
    }

    pub(crate) fn no(text: impl Into<Cow<'static, str>>) -> Self {
        Self { no: true, text: text.into() }
    }
}

pub(crate) type Parsed<T> = Result<T, Refusal>;

/// The verbs that are known, so that the framing can decide about a literal before the command is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Append,
    Authenticate,
    Capability,
    Check,
    Close,
    Copy,
    Create,
    Delete,
    Enable,
    Esearch,
    Examine,
    Expunge,
    Fetch,
    Id,
    Idle,
    List,
    Login,
    Logout,
    Lsub,
    Move,
    Namespace,
    Noop,
    Rename,
    Search,
    Select,
    Sort,
    StartTls,
    Status,
    Store,
    Subscribe,
    Thread,
    Unselect,
    Unsubscribe,
    UidCopy,
    UidExpunge,
    UidFetch,
    UidMove,
    UidSearch,
    UidSort,
    UidStore,
    UidThread,
}

/// The state of a connection in which a verb is legal (RFC 9051 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Legal {
    Always,
    NotAuthenticated,
    Authenticated,
    Selected,
}

impl Verb {
    fn parse(name: &[u8], uid: bool) -> Option<Self> {
        let plain = [
            ("APPEND", Self::Append),
            ("AUTHENTICATE", Self::Authenticate),
            ("CAPABILITY", Self::Capability),
            ("CHECK", Self::Check),
            ("CLOSE", Self::Close),
            ("COPY", Self::Copy),
            ("CREATE", Self::Create),
            ("DELETE", Self::Delete),
            ("ENABLE", Self::Enable),
            ("ESEARCH", Self::Esearch),
            ("EXAMINE", Self::Examine),
            ("EXPUNGE", Self::Expunge),
            ("FETCH", Self::Fetch),
            ("ID", Self::Id),
            ("IDLE", Self::Idle),
            ("LIST", Self::List),
            ("LOGIN", Self::Login),
            ("LOGOUT", Self::Logout),
            ("LSUB", Self::Lsub),
            ("MOVE", Self::Move),
            ("NAMESPACE", Self::Namespace),
            ("NOOP", Self::Noop),
            ("RENAME", Self::Rename),
            ("SEARCH", Self::Search),
            ("SELECT", Self::Select),
            ("SORT", Self::Sort),
            ("STARTTLS", Self::StartTls),
            ("STATUS", Self::Status),
            ("STORE", Self::Store),
            ("SUBSCRIBE", Self::Subscribe),
            ("THREAD", Self::Thread),
            ("UNSELECT", Self::Unselect),
            ("UNSUBSCRIBE", Self::Unsubscribe),
        ];
        let with_uid = [
            ("COPY", Self::UidCopy),
            ("EXPUNGE", Self::UidExpunge),
            ("FETCH", Self::UidFetch),
            ("MOVE", Self::UidMove),
            ("SEARCH", Self::UidSearch),
            ("SORT", Self::UidSort),
            ("STORE", Self::UidStore),
            ("THREAD", Self::UidThread),
        ];
        let table: &[(&str, Self)] = if uid { &with_uid } else { &plain };
        table.iter().find(|(verb, _)| verb.as_bytes().eq_ignore_ascii_case(name)).map(|(_, verb)| *verb)
    }

    pub(crate) fn legal(self) -> Legal {
        match self {
            Self::Capability | Self::Noop | Self::Logout | Self::Id => Legal::Always,
            Self::StartTls | Self::Authenticate | Self::Login => Legal::NotAuthenticated,
            Self::Check
            | Self::Close
            | Self::Unselect
            | Self::Expunge
            | Self::Search
            | Self::Sort
            | Self::Thread
            | Self::Fetch
            | Self::Store
            | Self::Copy
            | Self::Move
            | Self::UidCopy
            | Self::UidExpunge
            | Self::UidFetch
            | Self::UidMove
            | Self::UidSearch
            | Self::UidSort
            | Self::UidThread
            | Self::UidStore => Legal::Selected,
            _ => Legal::Authenticated,
        }
    }
}

/// Reads the tag; on a refusal there is none that an answer could carry.
pub(crate) fn tag(cursor: &mut Cursor<'_>) -> Parsed<Tag> {
    let text = cursor.take_while(|byte| byte != b'+' && cursor::is_astring_char(byte));
    if text.is_empty() {
        return Err(Refusal::bad("Command without a tag"));
    }
    let text = String::from_utf8_lossy(text).into_owned().into_boxed_str();
    cursor.space()?;
    Ok(Tag(text))
}

/// Reads the verb, UID and all.
pub(crate) fn verb(cursor: &mut Cursor<'_>) -> Parsed<Verb> {
    let name = cursor.take_while(|byte| byte.is_ascii_alphanumeric());
    let found = if name.eq_ignore_ascii_case(b"UID") {
        cursor.space()?;
        let name = cursor.take_while(|byte| byte.is_ascii_alphanumeric());
        Verb::parse(name, true)
    } else {
        Verb::parse(name, false)
    };
    found.ok_or(Refusal::bad("Unknown command"))
}

/// Reads the arguments of `verb` up to and including the CRLF. APPEND, AUTHENTICATE, IDLE, LOGOUT and STARTTLS are
/// flows, which the machine reads itself.
pub(crate) fn arguments(cursor: &mut Cursor<'_>, verb: Verb, form: NameForm) -> Parsed<Command> {
    let command = match verb {
        Verb::Capability => Command::Capability,
        Verb::Noop => Command::Noop,
        Verb::Namespace => Command::Namespace,
        Verb::Check => Command::Check,
        Verb::Close => Command::Close,
        Verb::Unselect => Command::Unselect,
        Verb::Expunge => Command::Expunge,
        Verb::Id => id(cursor)?,
        Verb::Login => {
            cursor.space()?;
            let user = utf8(cursor.astring()?)?;
            cursor.space()?;
            let password = Password::new(utf8(cursor.astring()?)?);
            Command::Login { user, password }
        }
        Verb::Enable => {
            let mut names = Vec::new();
            while cursor.eat(b' ') {
                names.push(String::from_utf8_lossy(cursor.atom()?).to_ascii_uppercase());
            }
            if names.is_empty() {
                return Err(Refusal::bad("ENABLE names no capability"));
            }
            Command::Enable(names)
        }
        Verb::Select | Verb::Examine => Command::Select(select::select(cursor, form, verb == Verb::Examine)?),
        Verb::Create => select::create(cursor, form)?,
        Verb::Delete => Command::Delete(mailbox(cursor, form)?),
        Verb::Subscribe => Command::Subscribe(mailbox(cursor, form)?),
        Verb::Unsubscribe => Command::Unsubscribe(mailbox(cursor, form)?),
        Verb::Rename => Command::Rename { from: mailbox(cursor, form)?, to: mailbox(cursor, form)? },
        Verb::List => Command::List(list::list(cursor, form)?),
        Verb::Lsub => list::lsub(cursor, form)?,
        Verb::Status => {
            let mailbox = mailbox(cursor, form)?;
            cursor.space()?;
            Command::Status { mailbox, items: status_items(cursor)? }
        }
        Verb::Search | Verb::UidSearch => {
            Command::Search(Box::new(search::search(cursor, verb == Verb::UidSearch)?))
        }
        Verb::Esearch => Command::MultiSearch(Box::new(search::multi_search(cursor, form)?)),
        Verb::Sort | Verb::UidSort => Command::Sort(Box::new(search::sort(cursor, verb == Verb::UidSort)?)),
        Verb::Thread | Verb::UidThread => {
            Command::Thread(Box::new(search::thread(cursor, verb == Verb::UidThread)?))
        }
        Verb::Fetch | Verb::UidFetch => Command::Fetch(fetch::fetch(cursor, verb == Verb::UidFetch)?),
        Verb::Store | Verb::UidStore => Command::Store(store::store(cursor, verb == Verb::UidStore)?),
        Verb::Copy | Verb::UidCopy => Command::Copy(copy(cursor, form, verb == Verb::UidCopy)?),
        Verb::Move | Verb::UidMove => Command::Move(copy(cursor, form, verb == Verb::UidMove)?),
        Verb::UidExpunge => {
            cursor.space()?;
            Command::UidExpunge(cursor.sequence_set()?)
        }
        Verb::Append | Verb::Authenticate | Verb::Idle | Verb::Logout | Verb::StartTls => {
            return Err(Refusal::bad("Unexpected command"));
        }
    };
    cursor.line_end()?;
    Ok(command)
}

/// SP mailbox.
pub(crate) fn mailbox(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<MailboxName> {
    cursor.space()?;
    mailbox_name(cursor, form)
}

fn mailbox_name(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<MailboxName> {
    let raw = cursor.astring()?;
    MailboxName::decode(&raw, form).ok_or(Refusal::no("[CANNOT] Invalid mailbox name"))
}

/// `(item item …)`.
fn status_items(cursor: &mut Cursor<'_>) -> Parsed<Vec<StatusItem>> {
    cursor.expect(b'(')?;
    let mut items = Vec::new();
    // An empty list is not in the grammar, but answering it with nothing does no harm.
    while !cursor.eat(b')') {
        if !items.is_empty() {
            cursor.space()?;
        }
        let item = StatusItem::parse(cursor.atom()?).ok_or(Refusal::bad("Unknown STATUS item"))?;
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(items)
}

fn copy(cursor: &mut Cursor<'_>, form: NameForm, uid: bool) -> Parsed<Copy> {
    cursor.space()?;
    let set = cursor.sequence_set()?;
    Ok(Copy { uid, set, mailbox: mailbox(cursor, form)? })
}

/// RFC 2971 §3.1: at most 30 pairs, fields of 30 and values of 1024 octets; longer ones are cut, since what a client
/// says about itself is no reason to refuse it.
fn id(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    cursor.space()?;
    let mut pairs = Vec::new();
    if cursor.eat_keyword(b"NIL") {
        return Ok(Command::Id(pairs));
    }
    cursor.expect(b'(')?;
    while !cursor.eat(b')') {
        cursor.eat(b' ');
        let field = cursor.string()?;
        cursor.space()?;
        let value = cursor.nstring()?;
        if pairs.len() < 30 {
            let cut = |text: &[u8], limit: usize| {
                String::from_utf8_lossy(&text[..text.len().min(limit)]).into_owned()
            };
            pairs.push((cut(&field, 30), value.map(|value| cut(&value, 1024))));
        }
    }
    Ok(Command::Id(pairs))
}

fn utf8(bytes: Cow<'_, [u8]>) -> Parsed<String> {
    String::from_utf8(bytes.into_owned()).map_err(|_| Refusal::bad("Text is not UTF-8"))
}

#[cfg(test)]
mod tests;
