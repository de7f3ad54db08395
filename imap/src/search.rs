//! Evaluating SEARCH by looking: at the mailbox's index first; then at what the search index says, which knows of many
//! messages that a text is not in them; at headers where neither decides, at bodies where headers do not either. What is
//! to be found fuzzily (RFC 6203) is found by the words of the search index, where there is one.

mod content;
mod hints;
mod window;
mod words;

use std::time::{SystemTime, UNIX_EPOCH};

use imap_protocol::search::{Date, DateTest, SearchKey, SystemFlag};
use mail::flag::{Flag, Flags};
use mail::fold::fold;
use mail::id::{EmailId, MailboxId, ModSeq, Uid};
use mail::uid::UidSet;
use storage::{Account, AccountState, InternalDate, Marks, MessageRow};

use self::content::{Content, Contents, examine};
use self::hints::Hints;
use self::words::ByWords;
use crate::messages::rows;
use crate::reply::{MAILBOX_GONE, Reply, Stop, body_failure, storage_failure};
use crate::selected::Selected;
use crate::session::Session;
use crate::view::View;

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
    /// How well it fits what was searched for fuzzily; to compare with others of one search.
    pub(crate) score: f32,
}

impl Found {
    fn of(number: u32, row: &MessageRow) -> Self {
        let MessageRow { uid, modseq: mod_seq, email, size, internal_date, .. } = *row;
        Self { number, uid, mod_seq, email, size, internal_date, score: 0.0 }
    }
}

/// The mailbox that is searched: how messages are numbered there, and what `$` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) mailbox: MailboxId,
    pub(crate) view: &'a View,
    pub(crate) saved: &'a UidSet,
}

impl<'a> Ground<'a> {
    /// The selected mailbox.
    pub(crate) fn selected(selected: &'a Selected) -> Self {
        Self { mailbox: selected.mailbox, view: &selected.view, saved: &selected.saved }
    }
}

/// Finds messages of the selected mailbox, ascending.
pub(crate) async fn find(
    session: &mut Session,
    account: &Account,
    state: &AccountState,
    key: &SearchKey,
) -> Result<Result<Vec<Found>, Reply>, Stop> {
    let question = Question::new(session, account, key).await;
    question.find(account, state, Ground::selected(session.selected()?)).await
}

/// What is searched for, with what the index says of it; it can be asked in one mailbox after the other.
#[derive(Debug)]
pub(crate) struct Question<'k> {
    key: &'k SearchKey,
    contents: Contents,
    hints: Hints,
    by_words: Option<ByWords>,
}

impl<'k> Question<'k> {
    pub(crate) async fn new(session: &Session, account: &Account, key: &'k SearchKey) -> Self {
        let search = session.imap.search.get();
        let by_words = search.map(|search| ByWords {
            texts_max: session.imap.config.fuzzy_texts_max,
            limits: search.text_limits(),
        });
        let mut contents = Vec::new();
        // Which contents there are, and in which order, is the same in every mailbox.
        let nowhere = View::new(std::iter::empty(), ModSeq(0));
        let ground = Ground { mailbox: MailboxId(0), view: &nowhere, saved: &UidSet::default() };
        compile(
            ground,
            &account.state(),
            Asked { key, words: by_words.as_ref(), is_fuzzy: false },
            &mut contents,
        );
        let contents = Contents::new(contents, by_words.map(|by_words| by_words.limits).unwrap_or_default());
        let hints = match search {
            Some(search) => Hints::about(search, account, &contents).await,
            None => Hints::default(),
        };
        Self { key, contents, hints, by_words }
    }

    /// Finds the messages of a mailbox, ascending.
    pub(crate) async fn find(
        &self,
        account: &Account,
        state: &AccountState,
        ground: Ground<'_>,
    ) -> Result<Result<Vec<Found>, Reply>, Stop> {
        let index = state.index(ground.mailbox).ok_or(Stop::Bye(MAILBOX_GONE))?;
        let asked = Asked { key: self.key, words: self.by_words.as_ref(), is_fuzzy: false };
        let test = compile(ground, state, asked, &mut Vec::new());
        let total = ground.view.len();

        let mut found = Vec::new();
        let mut open: Vec<(u32, MessageRow)> = Vec::new();
        let mut from = 1;
        while from <= total {
            let to = total.min(from.saturating_add(ROWS_PER_TURN - 1));
            open.clear();
            for (number, row) in rows(ground.view, index, &[(from, to)]) {
                match test.decide(number, &row, &self.hints.of(row.email)) {
                    Some(true) => found.push(self.found(number, &row)),
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
                    let known = self.hints.of(row.email);
                    match examine(account, &record, &self.contents, known, decide).await {
                        Ok(true) => found.push(self.found(*number, row)),
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

    fn found(&self, number: u32, row: &MessageRow) -> Found {
        Found { score: self.hints.score(row.email), ..Found::of(number, row) }
    }
}

/// How well each fits, from 1 to 100 (RFC 6203 §4): in hundredths of what the best has. Where nobody could say, since
/// all was looked for exactly, all fit alike.
pub(crate) fn relevancy(found: &[Found]) -> Vec<u8> {
    let best = found.iter().map(|found| found.score).fold(0.0, f32::max);
    let relevancy = |found: &Found| {
        if best > 0.0 { (found.score / best * 100.0).round().clamp(1.0, 100.0) as u8 } else { 100 }
    };
    found.iter().map(relevancy).collect()
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

/// A key, and whether it is to be found by words of the index.
#[derive(Clone, Copy)]
struct Asked<'a> {
    key: &'a SearchKey,
    /// Nothing is where there is no index: then FUZZY is done exactly, as RFC 6203 §5 allows.
    words: Option<&'a ByWords>,
    is_fuzzy: bool,
}

/// Ranges of numbers and marks of one mailbox; contents are the same in all.
fn compile(ground: Ground<'_>, state: &AccountState, asked: Asked<'_>, contents: &mut Vec<Content>) -> Test {
    if let Some(wanted) =
        asked.words.filter(|_| asked.is_fuzzy).and_then(|words| words.wanted(asked.key, contents))
    {
        return content(contents, Content::Words(wanted));
    }
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
    let within = |key| Asked { key, ..asked };
    match asked.key {
        SearchKey::All | SearchKey::Old => Test::Constant(true),
        // Nothing is ever \Recent here.
        SearchKey::New | SearchKey::Recent => Test::Constant(false),
        SearchKey::Flag(name) => flag(name),
        SearchKey::NotFlag(name) => not(flag(name)),
        SearchKey::Keyword(name) => keyword(name),
        SearchKey::NotKeyword(name) => not(keyword(name)),
        SearchKey::Header { name, text } => {
            content(contents, Content::Header { name: name.clone(), needle: fold(text) })
        }
        SearchKey::Body(text) => content(contents, Content::Body { needle: fold(text) }),
        SearchKey::Text(text) => content(contents, Content::Text { needle: fold(text) }),
        SearchKey::Internal(test, date) => Test::Internal(*test, *date),
        SearchKey::Sent(test, date) => content(contents, Content::Sent(*test, *date)),
        SearchKey::Older(seconds) => Test::Until(ago(*seconds)),
        SearchKey::Younger(seconds) => Test::From(ago(*seconds)),
        SearchKey::Larger(size) => Test::Larger(*size),
        SearchKey::Smaller(size) => Test::Smaller(*size),
        SearchKey::Sequence(set) => Test::Numbers(match set.resolve(ground.view.len()) {
            Some(ranges) => ranges,
            None => return Test::Uids(ranges(ground.saved)),
        }),
        SearchKey::Uid(set) => {
            Test::Uids(set.resolve(ground.view.last_uid()).unwrap_or_else(|| ranges(ground.saved)))
        }
        SearchKey::ModSeq(mod_seq) => Test::ModSeq(*mod_seq),
        SearchKey::Fuzzy(key) => compile(ground, state, Asked { is_fuzzy: true, ..within(key) }, contents),
        SearchKey::Not(key) => not(compile(ground, state, within(key), contents)),
        SearchKey::Or(a, b) => {
            let a = compile(ground, state, within(a), contents);
            Test::Any(vec![a, compile(ground, state, within(b), contents)])
        }
        SearchKey::And(keys) => {
            Test::All(keys.iter().map(|key| compile(ground, state, within(key), contents)).collect())
        }
    }
}

/// The same question twice is looked for once.
fn content(contents: &mut Vec<Content>, content: Content) -> Test {
    let at = contents.iter().position(|other| *other == content).unwrap_or(contents.len());
    if at == contents.len() {
        contents.push(content);
    }
    Test::Content(at)
}

fn ranges(uids: &UidSet) -> Vec<(u32, u32)> {
    uids.ranges().iter().map(|range| (range.first.get(), range.last.get())).collect()
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
    fn the_best_fits_wholly_rfc6203_4() {
        let check = |scores: &[f32], expected: &[u8]| {
            let found = |score: &f32| Found {
                number: 1,
                uid: Uid::new(1).unwrap(),
                mod_seq: ModSeq(1),
                email: EmailId(1),
                size: 1,
                internal_date: InternalDate::utc(0),
                score: *score,
            };
            assert_eq!(relevancy(&scores.iter().map(found).collect::<Vec<_>>()), expected);
        };
        check(&[2.0, 8.0, 0.0, 0.001], &[25, 100, 1, 1]);
        check(&[0.0, 0.0], &[100, 100]);
        check(&[], &[]);
    }

    #[test]
    fn days_are_those_shown() {
        // 1970-01-02T00:30 at +0100 is 1970-01-01T23:30 UTC.
        assert_eq!(day(InternalDate::new(84_600, 60)), Date { unix_days: 1 });
        assert_eq!(day(InternalDate::utc(84_600)), Date { unix_days: 0 });
        assert_eq!(day(InternalDate::utc(-1)), Date { unix_days: -1 });
    }
}
