//! SEARCH keys; ESEARCH, SORT and THREAD, which end in them.

use super::cursor::Cursor;
use super::{Parsed, Refusal, date};
use crate::mailbox_name::{MailboxName, NameForm};
use crate::search::{
    DateTest, MultiSearch, Search, SearchKey, SearchReturn, Sort, SortCriterion, SortKey, Source, SystemFlag,
    Thread, ThreadAlgorithm,
};

/// NOT, OR and parentheses inside one another. The parser and whoever evaluates the keys recurse that deep.
const DEPTH_MAX: usize = 32;
/// Keys in one command.
const KEYS_MAX: usize = 1000;
/// Mailboxes that one command may name.
const NAMES_MAX: usize = 1000;
/// Steps of an order; there are fewer keys.
const CRITERIA_MAX: usize = 16;

/// [SP RETURN (…)] [SP CHARSET name] SP key *(SP key).
pub(super) fn search(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Search> {
    cursor.space()?;
    let (returns, key) = program(cursor)?;
    Ok(Search { uid, returns, key })
}

/// [SP IN SP (sources)] [SP RETURN (…)] [SP CHARSET name] SP key *(SP key) (RFC 7377 §4).
pub(super) fn multi_search(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<MultiSearch> {
    cursor.space()?;
    let mut sources = vec![Source::Selected];
    if cursor.eat_keyword(b"IN") {
        cursor.space()?;
        sources = self::sources(cursor, form)?;
        cursor.space()?;
    }
    let (returns, key) = program(cursor)?;
    let returns = returns.unwrap_or(SearchReturn { all: true, ..SearchReturn::default() });
    Ok(MultiSearch { sources, returns, key })
}

/// `(source *(SP source))`. Scope options, which could stand behind them in parentheses, there are none.
fn sources(cursor: &mut Cursor<'_>, form: NameForm) -> Parsed<Vec<Source>> {
    let mut sources = Vec::new();
    let mut names_left = NAMES_MAX;
    cursor.expect(b'(')?;
    loop {
        if cursor.peek() == Some(b'(') {
            return Err(Refusal::bad("Unknown scope option"));
        }
        sources.push(match cursor.atom()?.to_ascii_uppercase().as_slice() {
            b"SELECTED" => Source::Selected,
            b"INBOXES" => Source::Inboxes,
            b"PERSONAL" => Source::Personal,
            b"SUBSCRIBED" => Source::Subscribed,
            b"SUBTREE" => Source::Subtree(mailboxes(cursor, form, &mut names_left)?),
            b"SUBTREE-ONE" => Source::SubtreeOne(mailboxes(cursor, form, &mut names_left)?),
            b"MAILBOXES" => Source::Mailboxes(mailboxes(cursor, form, &mut names_left)?),
            _ => return Err(Refusal::bad("Unknown mailbox specifier")),
        });
        if sources.len() > NAMES_MAX {
            return Err(Refusal::bad("Too many mailboxes"));
        }
        if cursor.eat(b')') {
            return Ok(sources);
        }
        cursor.space()?;
    }
}

/// SP mailbox, or SP "(" mailbox *(SP mailbox) ")" (RFC 5465 §8 `one-or-more-mailbox`).
fn mailboxes(cursor: &mut Cursor<'_>, form: NameForm, left: &mut usize) -> Parsed<Vec<MailboxName>> {
    let is_list = cursor.rest().starts_with(b" (");
    if is_list {
        cursor.space()?;
        cursor.expect(b'(')?;
    } else {
        cursor.space()?;
    }
    let mut names = Vec::new();
    loop {
        names.push(super::mailbox_name(cursor, form)?);
        *left = left.checked_sub(1).ok_or(Refusal::bad("Too many mailboxes"))?;
        if !is_list || cursor.eat(b')') {
            return Ok(names);
        }
        cursor.space()?;
    }
}

/// [RETURN (…) SP] [CHARSET name SP] key *(SP key).
fn program(cursor: &mut Cursor<'_>) -> Parsed<(Option<SearchReturn>, SearchKey)> {
    let mut returns = None;
    if cursor.eat_keyword(b"RETURN") {
        cursor.space()?;
        returns = Some(return_options(cursor)?);
        cursor.space()?;
    }
    if cursor.eat_keyword(b"CHARSET") {
        cursor.space()?;
        charset(cursor)?;
        cursor.space()?;
    }
    let key = keys(cursor)?;
    if returns.is_some_and(|returns| returns.relevancy) {
        relevant(&key)?;
    }
    Ok((returns, key))
}

/// [SP RETURN (…)] SP (criteria) SP charset SP key *(SP key) (RFC 5256 §5).
pub(super) fn sort(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Sort> {
    cursor.space()?;
    let mut returns = None;
    if cursor.eat_keyword(b"RETURN") {
        cursor.space()?;
        returns = Some(return_options(cursor)?);
        cursor.space()?;
    }
    let mut order = Vec::new();
    cursor.expect(b'(')?;
    loop {
        let mut name = cursor.atom()?.to_ascii_uppercase();
        let reverse = name == b"REVERSE";
        if reverse {
            cursor.space()?;
            name = cursor.atom()?.to_ascii_uppercase();
        }
        let by = match name.as_slice() {
            b"ARRIVAL" => SortKey::Arrival,
            b"CC" => SortKey::Cc,
            b"DATE" => SortKey::Date,
            b"DISPLAYFROM" => SortKey::DisplayFrom,
            b"DISPLAYTO" => SortKey::DisplayTo,
            b"FROM" => SortKey::From,
            b"RELEVANCY" => SortKey::Relevancy,
            b"SIZE" => SortKey::Size,
            b"SUBJECT" => SortKey::Subject,
            b"TO" => SortKey::To,
            _ => return Err(Refusal::bad("Unknown sort criterion")),
        };
        if order.len() == CRITERIA_MAX {
            return Err(Refusal::bad("Too many sort criteria"));
        }
        order.push(SortCriterion { reverse, by });
        if cursor.eat(b')') {
            break;
        }
        cursor.space()?;
    }
    cursor.space()?;
    charset(cursor)?;
    cursor.space()?;
    let key = keys(cursor)?;
    let by_relevancy = order.iter().any(|step: &SortCriterion| step.by == SortKey::Relevancy);
    if by_relevancy || returns.is_some_and(|returns| returns.relevancy) {
        relevant(&key)?;
    }
    Ok(Sort { uid, returns, order, key })
}

/// SP algorithm SP charset SP key *(SP key) (RFC 5256 §5).
pub(super) fn thread(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Thread> {
    cursor.space()?;
    let algorithm = match cursor.atom()?.to_ascii_uppercase().as_slice() {
        b"ORDEREDSUBJECT" => ThreadAlgorithm::OrderedSubject,
        b"REFERENCES" => ThreadAlgorithm::References,
        b"REFS" => ThreadAlgorithm::Refs,
        _ => return Err(Refusal::bad("Unknown threading algorithm")),
    };
    cursor.space()?;
    charset(cursor)?;
    cursor.space()?;
    Ok(Thread { uid, algorithm, key: keys(cursor)? })
}

/// RFC 6203 §4 and §6: RELEVANCY is not to be used unless there is a FUZZY key.
fn relevant(key: &SearchKey) -> Parsed<()> {
    if key.has_fuzzy() { Ok(()) } else { Err(Refusal::bad("RELEVANCY needs a FUZZY key")) }
}

fn charset(cursor: &mut Cursor<'_>) -> Parsed<()> {
    let charset = cursor.astring()?.to_ascii_uppercase();
    // RFC 9051 §6.4.4: these two must be known; every US-ASCII text is UTF-8.
    if charset != b"UTF-8" && charset != b"US-ASCII" {
        return Err(Refusal::no("[BADCHARSET (US-ASCII UTF-8)] Unknown charset"));
    }
    Ok(())
}

fn keys(cursor: &mut Cursor<'_>) -> Parsed<SearchKey> {
    Parser { keys: 0 }.keys(cursor, 0)
}

fn return_options(cursor: &mut Cursor<'_>) -> Parsed<SearchReturn> {
    let mut returns = SearchReturn::default();
    cursor.expect(b'(')?;
    let mut first = true;
    while !cursor.eat(b')') {
        if !first {
            cursor.space()?;
        }
        first = false;
        match cursor.atom()?.to_ascii_uppercase().as_slice() {
            b"MIN" => returns.min = true,
            b"MAX" => returns.max = true,
            b"ALL" => returns.all = true,
            b"COUNT" => returns.count = true,
            b"SAVE" => returns.save = true,
            b"RELEVANCY" => returns.relevancy = true,
            b"PARTIAL" if returns.partial.is_some() => return Err(Refusal::bad("More than one PARTIAL")),
            b"PARTIAL" => {
                cursor.space()?;
                returns.partial = Some(cursor.page()?);
            }
            _ => return Err(Refusal::bad("Unknown SEARCH return option")),
        }
    }
    if first {
        returns.all = true;
    }
    // RFC 9394 §3.1: either one PARTIAL, one ALL, or neither.
    if returns.all && returns.partial.is_some() {
        return Err(Refusal::bad("PARTIAL does not go with ALL"));
    }
    Ok(returns)
}

struct Parser {
    keys: usize,
}

impl Parser {
    /// One or more keys; several become one AND.
    fn keys(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Parsed<SearchKey> {
        let mut keys = vec![self.key(cursor, depth)?];
        while cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" \r") {
            cursor.space()?;
            keys.push(self.key(cursor, depth)?);
        }
        Ok(if keys.len() == 1 { keys.remove(0) } else { SearchKey::And(keys) })
    }

    fn key(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Parsed<SearchKey> {
        self.keys += 1;
        if depth > DEPTH_MAX || self.keys > KEYS_MAX {
            return Err(Refusal::bad("Search is too complex"));
        }
        match cursor.peek() {
            Some(b'(') => {
                cursor.expect(b'(')?;
                let keys = self.keys(cursor, depth + 1)?;
                cursor.expect(b')')?;
                return Ok(keys);
            }
            Some(b'0'..=b'9' | b'*' | b'$') => return Ok(SearchKey::Sequence(cursor.sequence_set()?)),
            _ => {}
        }
        let name = cursor.atom()?.to_ascii_uppercase();
        Ok(match name.as_slice() {
            b"ALL" => SearchKey::All,
            b"ANSWERED" => SearchKey::Flag(SystemFlag::Answered),
            b"DELETED" => SearchKey::Flag(SystemFlag::Deleted),
            b"DRAFT" => SearchKey::Flag(SystemFlag::Draft),
            b"FLAGGED" => SearchKey::Flag(SystemFlag::Flagged),
            b"SEEN" => SearchKey::Flag(SystemFlag::Seen),
            b"UNANSWERED" => SearchKey::NotFlag(SystemFlag::Answered),
            b"UNDELETED" => SearchKey::NotFlag(SystemFlag::Deleted),
            b"UNDRAFT" => SearchKey::NotFlag(SystemFlag::Draft),
            b"UNFLAGGED" => SearchKey::NotFlag(SystemFlag::Flagged),
            b"UNSEEN" => SearchKey::NotFlag(SystemFlag::Seen),
            b"NEW" => SearchKey::New,
            b"OLD" => SearchKey::Old,
            b"RECENT" => SearchKey::Recent,
            b"KEYWORD" => SearchKey::Keyword(keyword(cursor)?),
            b"UNKEYWORD" => SearchKey::NotKeyword(keyword(cursor)?),
            b"BCC" | b"CC" | b"FROM" | b"SUBJECT" | b"TO" => {
                let name = String::from_utf8_lossy(&name).into_owned();
                SearchKey::Header { name, text: text(cursor)? }
            }
            b"HEADER" => {
                let name = text(cursor)?;
                SearchKey::Header { name, text: text(cursor)? }
            }
            b"BODY" => SearchKey::Body(text(cursor)?),
            b"TEXT" => SearchKey::Text(text(cursor)?),
            b"BEFORE" => SearchKey::Internal(DateTest::Before, day(cursor)?),
            b"ON" => SearchKey::Internal(DateTest::On, day(cursor)?),
            b"SINCE" => SearchKey::Internal(DateTest::Since, day(cursor)?),
            b"SENTBEFORE" => SearchKey::Sent(DateTest::Before, day(cursor)?),
            b"SENTON" => SearchKey::Sent(DateTest::On, day(cursor)?),
            b"SENTSINCE" => SearchKey::Sent(DateTest::Since, day(cursor)?),
            b"OLDER" => SearchKey::Older(interval(cursor)?),
            b"YOUNGER" => SearchKey::Younger(interval(cursor)?),
            b"LARGER" => SearchKey::Larger(number(cursor)?),
            b"SMALLER" => SearchKey::Smaller(number(cursor)?),
            b"UID" => {
                cursor.space()?;
                SearchKey::Uid(cursor.sequence_set()?)
            }
            b"MODSEQ" => mod_seq(cursor)?,
            b"NOT" => {
                cursor.space()?;
                SearchKey::Not(Box::new(self.key(cursor, depth + 1)?))
            }
            b"FUZZY" => {
                cursor.space()?;
                SearchKey::Fuzzy(Box::new(self.key(cursor, depth + 1)?))
            }
            b"OR" => {
                cursor.space()?;
                let a = self.key(cursor, depth + 1)?;
                cursor.space()?;
                SearchKey::Or(Box::new(a), Box::new(self.key(cursor, depth + 1)?))
            }
            _ => return Err(Refusal::bad("Unknown search key")),
        })
    }
}

fn text(cursor: &mut Cursor<'_>) -> Parsed<String> {
    cursor.space()?;
    super::utf8(cursor.astring()?)
}

fn keyword(cursor: &mut Cursor<'_>) -> Parsed<String> {
    cursor.space()?;
    Ok(String::from_utf8_lossy(cursor.atom()?).into_owned())
}

fn number(cursor: &mut Cursor<'_>) -> Parsed<u64> {
    cursor.space()?;
    cursor.number()
}

/// RFC 5032 §3: seconds, and not zero.
fn interval(cursor: &mut Cursor<'_>) -> Parsed<u64> {
    match number(cursor)? {
        0 => Err(Refusal::bad("An interval is not zero")),
        seconds => Ok(seconds),
    }
}

fn day(cursor: &mut Cursor<'_>) -> Parsed<crate::search::Date> {
    cursor.space()?;
    date::date(cursor)
}

/// SP [entry-name SP entry-type SP] n (RFC 7162 §7).
fn mod_seq(cursor: &mut Cursor<'_>) -> Parsed<SearchKey> {
    cursor.space()?;
    if cursor.peek() == Some(b'"') {
        cursor.string()?;
        cursor.space()?;
        let kind = cursor.atom()?.to_ascii_lowercase();
        if !matches!(kind.as_slice(), b"priv" | b"shared" | b"all") {
            return Err(Refusal::bad("Unknown metadata type"));
        }
        cursor.space()?;
    }
    Ok(SearchKey::ModSeq(cursor.number()?))
}
