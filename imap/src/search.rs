//! Evaluating SEARCH by looking: at the mailbox's index first; then at what the search index says, which knows of many
//! messages that a text is not in them; at headers where neither decides, at bodies where headers do not either.

mod content;
mod window;

use std::time::{SystemTime, UNIX_EPOCH};

use imap_protocol::search::{Date, DateTest, SearchKey, SystemFlag};
use mail::flag::{Flag, Flags};
use mail::fold::fold;
use mail::id::{EmailId, ModSeq, Uid};
use search::Candidates;
use storage::{Account, AccountState, InternalDate, Marks, MessageRow};

use self::content::{Content, Contents, examine};
use crate::command::fetch::index_of;
use crate::messages::rows;
use crate::reply::{Reply, Stop, body_failure, storage_failure};
use crate::selected::Selected;
use crate::session::Session;

/// Rows evaluated between two pauses that let other sessions go on.
const ROWS_PER_TURN: u32 = 4096;
/// Records asked for at one time.
const RECORDS_PER_TURN: usize = 128;

/// A message that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) uid: Uid,
    pub(crate) mod_seq: ModSeq,
    pub(crate) email: EmailId,
    pub(crate) size: u32,
    pub(crate) internal_date: InternalDate,
}

impl Found {
    fn of(number: u32, row: &MessageRow) -> Self {
        let MessageRow { uid, modseq: mod_seq, email, size, internal_date, .. } = *row;
        Self { number, uid, mod_seq, email, size, internal_date }
    }
}

/// Finds messages, ascending.
pub(crate) async fn find(
    session: &mut Session,
    account: &Account,
    state: &AccountState,
    key: &SearchKey,
) -> Result<Result<Vec<Found>, Reply>, Stop> {
    let index = index_of(session, state)?;
    let mut contents = Vec::new();
    let test = compile(session.selected()?, state, key, &mut contents);
    let contents = Contents::new(contents);
    let hints = Hints::about(session, account, &contents).await;
    let total = session.selected()?.view.len();

    let mut found = Vec::new();
    let mut open: Vec<(u32, MessageRow)> = Vec::new();
    let mut from = 1;
    while from <= total {
        let to = total.min(from.saturating_add(ROWS_PER_TURN - 1));
        open.clear();
        for (number, row) in rows(&session.selected()?.view, index, &[(from, to)]) {
            match test.decide(number, &row, &hints.of(row.email)) {
                Some(true) => found.push(Found::of(number, &row)),
                Some(false) => {}
                None => open.push((number, row)),
            }
        }
        for part in open.chunks(RECORDS_PER_TURN) {
            let emails: Vec<EmailId> = part.iter().map(|(_, row)| row.email).collect();
            let records = match account.emails(&emails).await {
                Ok(records) => records,
                Err(error) => return storage_failure(&error).map(Err),
            };
            for ((number, row), record) in part.iter().zip(records) {
                let Some(record) = record else { continue };
                let decide = |known: &[Option<bool>]| test.decide(*number, row, known);
                match examine(account, &record, &contents, hints.of(row.email), decide).await {
                    Ok(true) => found.push(Found::of(*number, row)),
                    Ok(false) => {}
                    Err(error) => return body_failure(&error).map(Err),
                }
                // A long search shares the processor, and ends when its client is gone.
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        from = to + 1;
    }
    found.sort_unstable_by_key(|found| found.number);
    Ok(Ok(found))
}

/// What the search index says of each content: in which messages it cannot be.
#[derive(Debug, Default)]
struct Hints(Vec<Option<Candidates>>);

impl Hints {
    /// Nothing is asked where nothing can be said, and nothing is known where there is no index.
    async fn about(session: &Session, account: &Account, contents: &Contents) -> Self {
        let Some(search) = session.imap.search.get() else { return Self::default() };
        let needles: Vec<_> = contents.needles().collect();
        if needles.iter().all(Option::is_none) {
            return Self::default();
        }
        let asked: Vec<_> = needles.iter().flatten().cloned().collect();
        let mut answers = search.candidates_each(account.id(), &asked).await.into_iter();
        Self(needles.into_iter().map(|needle| needle.and_then(|_| answers.next())).collect())
    }

    /// What is known of an email without looking at it.
    fn of(&self, email: EmailId) -> Vec<Option<bool>> {
        let cannot = |hint: &Option<Candidates>| match hint {
            Some(candidates) if !candidates.may_hold(email) => Some(false),
            _ => None,
        };
        self.0.iter().map(cannot).collect()
    }
}

/// A search key, made ready for many messages.
#[derive(Debug)]
enum Test {
    Constant(bool),
    /// Whether any of these marks is set.
    Marks(Marks),
    Internal(DateTest, Date),
    /// The internal date is this moment or earlier, in seconds since 1970.
    Until(i64),
    /// It is this moment or later.
    From(i64),
    Larger(u64),
    Smaller(u64),
    /// Ranges of message numbers, ascending.
    Numbers(Vec<(u32, u32)>),
    /// Ranges of UIDs, ascending.
    Uids(Vec<(u32, u32)>),
    ModSeq(u64),
    /// Decided by the message itself: a number in the list of contents.
    Content(usize),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

impl Test {
    /// The answer, as far as it is known. `known` has what is known of contents; what is beyond it is not known.
    fn decide(&self, number: u32, row: &MessageRow, known: &[Option<bool>]) -> Option<bool> {
        let contains = |ranges: &[(u32, u32)], number: u32| {
            let at = ranges.partition_point(|(_, last)| *last < number);
            ranges.get(at).is_some_and(|(first, _)| *first <= number)
        };
        Some(match self {
            Self::Constant(answer) => *answer,
            Self::Marks(marks) => !row.marks.intersection(*marks).is_empty(),
            Self::Internal(test, date) => on(*test, day(row.internal_date), *date),
            Self::Until(moment) => row.internal_date.unix_seconds() <= *moment,
            Self::From(moment) => row.internal_date.unix_seconds() >= *moment,
            Self::Larger(size) => u64::from(row.size) > *size,
            Self::Smaller(size) => u64::from(row.size) < *size,
            Self::Numbers(ranges) => contains(ranges, number),
            Self::Uids(ranges) => contains(ranges, row.uid.get()),
            Self::ModSeq(mod_seq) => row.modseq.0 >= *mod_seq,
            Self::Content(at) => return known.get(*at).copied().flatten(),
            Self::Not(test) => !test.decide(number, row, known)?,
            Self::All(tests) => return combine(tests, false, |test| test.decide(number, row, known)),
            Self::Any(tests) => return combine(tests, true, |test| test.decide(number, row, known)),
        })
    }
}

/// AND (`decisive` false) or OR (true): one decisive answer decides, however much is not known.
fn combine(tests: &[Test], decisive: bool, decide: impl Fn(&Test) -> Option<bool>) -> Option<bool> {
    let mut answer = Some(!decisive);
    for test in tests {
        match decide(test) {
            Some(one) if one == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

/// Compares days.
fn on(test: DateTest, day: Date, date: Date) -> bool {
    match test {
        DateTest::Before => day < date,
        DateTest::On => day == date,
        DateTest::Since => day >= date,
    }
}

/// The moment that was so many seconds ago (RFC 5032).
fn ago(seconds: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The day of an internal date, in the zone it is shown in (RFC 9051 §6.4.4: time and zone are disregarded).
fn day(date: InternalDate) -> Date {
    let local = date.unix_seconds() + i64::from(date.offset_minutes()) * 60;
    Date { unix_days: local.div_euclid(86_400) }
}

fn compile(selected: &Selected, state: &AccountState, key: &SearchKey, contents: &mut Vec<Content>) -> Test {
    let mut content = |content: Content| {
        // The same question twice is looked for once.
        let at = contents.iter().position(|other| *other == content).unwrap_or(contents.len());
        if at == contents.len() {
            contents.push(content);
        }
        Test::Content(at)
    };
    let flag = |flag: &SystemFlag| {
        let flag = match flag {
            SystemFlag::Answered => Flag::Answered,
            SystemFlag::Deleted => Flag::Deleted,
            SystemFlag::Draft => Flag::Draft,
            SystemFlag::Flagged => Flag::Flagged,
            SystemFlag::Seen => Flag::Seen,
        };
        Test::Marks(Marks::from_flags(Flags::from(flag)))
    };
    let keyword = |name: &str| {
        let number = state.keywords().iter().position(|keyword| keyword.as_str().eq_ignore_ascii_case(name));
        Test::Marks(number.map_or(Marks::EMPTY, Marks::from_keyword))
    };
    let not = |test: Test| Test::Not(Box::new(test));
    match key {
        SearchKey::All | SearchKey::Old => Test::Constant(true),
        // Nothing is ever \Recent here.
        SearchKey::New | SearchKey::Recent => Test::Constant(false),
        SearchKey::Flag(name) => flag(name),
        SearchKey::NotFlag(name) => not(flag(name)),
        SearchKey::Keyword(name) => keyword(name),
        SearchKey::NotKeyword(name) => not(keyword(name)),
        SearchKey::Header { name, text } => {
            content(Content::Header { name: name.clone(), needle: fold(text) })
        }
        SearchKey::Body(text) => content(Content::Body { needle: fold(text) }),
        SearchKey::Text(text) => content(Content::Text { needle: fold(text) }),
        SearchKey::Internal(test, date) => Test::Internal(*test, *date),
        SearchKey::Sent(test, date) => content(Content::Sent(*test, *date)),
        SearchKey::Older(seconds) => Test::Until(ago(*seconds)),
        SearchKey::Younger(seconds) => Test::From(ago(*seconds)),
        SearchKey::Larger(size) => Test::Larger(*size),
        SearchKey::Smaller(size) => Test::Smaller(*size),
        SearchKey::Sequence(set) => Test::Numbers(match set.resolve(selected.view.len()) {
            Some(ranges) => ranges,
            None => return Test::Uids(saved(selected)),
        }),
        SearchKey::Uid(set) => {
            Test::Uids(set.resolve(selected.view.last_uid()).unwrap_or_else(|| saved(selected)))
        }
        SearchKey::ModSeq(mod_seq) => Test::ModSeq(*mod_seq),
        SearchKey::Not(key) => not(compile(selected, state, key, contents)),
        SearchKey::Or(a, b) => {
            Test::Any(vec![compile(selected, state, a, contents), compile(selected, state, b, contents)])
        }
        SearchKey::And(keys) => {
            Test::All(keys.iter().map(|key| compile(selected, state, key, contents)).collect())
        }
    }
}

fn saved(selected: &Selected) -> Vec<(u32, u32)> {
    selected.saved.ranges().iter().map(|range| (range.first.get(), range.last.get())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_matters_only_where_it_decides() {
        let constant = Test::Constant;
        let decide = |tests: Vec<Test>, decisive: bool| {
            combine(&tests, decisive, |test| match test {
                Test::Constant(answer) => Some(*answer),
                _ => None,
            })
        };
        assert_eq!(decide(vec![constant(true), Test::Content(0)], false), None);
        assert_eq!(decide(vec![Test::Content(0), constant(false)], false), Some(false));
        assert_eq!(decide(vec![constant(true), constant(true)], false), Some(true));
        assert_eq!(decide(vec![Test::Content(0), constant(true)], true), Some(true));
        assert_eq!(decide(vec![Test::Content(0), constant(false)], true), None);
        assert_eq!(decide(vec![constant(false)], true), Some(false));
    }

    #[test]
    fn days_are_those_shown() {
        // 1970-01-02T00:30 at +0100 is 1970-01-01T23:30 UTC.
        assert_eq!(day(InternalDate::new(84_600, 60)), Date { unix_days: 1 });
        assert_eq!(day(InternalDate::utc(84_600)), Date { unix_days: 0 });
        assert_eq!(day(InternalDate::utc(-1)), Date { unix_days: -1 });
    }
}
