//! Email/query (RFC 8621 §4.4).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use jmap_protocol::filter::Filter;
use jmap_protocol::method::{Window, take_filter_and_sort};
use jmap_protocol::object::filter::{EmailSort, SortKey, Test, TextTest, condition, sort};
use jmap_protocol::{Arguments, MethodError, Object};
use mail::id::{EmailId, ThreadId};
use mail::thread::base_subject;
use search::text::folded;
use storage::{EmailRecord, StorageError};

use crate::jmap::context::{Context, body_trouble, trouble};
use crate::jmap::ids;
use crate::jmap::message::field;
use crate::jmap::text::{TextError, TextQuery};
use crate::jmap::view::{EmailView, View, is_in};

/// Emails looked at between two pauses that let others go on.
const EMAILS_PER_TURN: usize = 4096;
/// Records that are asked for at a time.
const RECORDS_AT_ONCE: usize = 256;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let (filter, comparators) = take_filter_and_sort(arguments, &condition)?;
    let window = Window::take(arguments)?;
    let collapse = arguments.boolean("collapseThreads", false)?;
    std::mem::take(arguments).finish()?;
    let order = sort(&comparators)?;
    let view = context.view().await?;
    let mut found = match in_order(&view, filter.as_ref(), &order) {
        Some(found) => found,
        None => {
            let mut found = match &filter {
                None => view.emails().map(|email| email.id).collect(),
                Some(filter) => matching(context, &view, filter).await?,
            };
            sort_emails(context, &view, &mut found, &order).await?;
            found
        }
    };
    if collapse {
        let mut seen: HashSet<ThreadId> = HashSet::new();
        found.retain(|id| view.email(*id).is_some_and(|email| seen.insert(email.thread)));
    }
    let most = context.config().query_results_max;
    window.answer(&account, &view.email_state(), &found, |id| ids::email(*id), most)
}

/// What clients ask for most, a mailbox or everything by date, stands in this order already.
fn in_order(view: &View, filter: Option<&Filter<Vec<Test>>>, order: &[EmailSort]) -> Option<Vec<EmailId>> {
    let last_first = match order {
        [] => true,
        [EmailSort { key: SortKey::ReceivedAt, is_ascending }] => !is_ascending,
        _ => return None,
    };
    match filter {
        None => Some(view.received(None, last_first)),
        Some(Filter::Condition(tests)) => match tests.as_slice() {
            [] => Some(view.received(None, last_first)),
            // A mailbox that is not there holds nothing.
            [Test::InMailbox(id)] => {
                let found = ids::parse_mailbox(id).map(|mailbox| view.received(Some(mailbox), last_first));
                Some(found.unwrap_or_default())
            }
            _ => None,
        },
        Some(_) => None,
    }
}

/// The emails that a filter lets through.
///
/// Most of a filter the account's state answers. Records are read only for what that leaves open, and messages only for
/// what those leave open.
async fn matching(
    context: &Context,
    view: &View,
    filter: &Filter<Vec<Test>>,
) -> Result<Vec<EmailId>, MethodError> {
    let mut tests = Vec::new();
    let filter = numbered(filter, &mut tests);
    let by_state: Vec<Option<Question>> = tests.iter().map(|test| question(view, test)).collect();
    let (mut found, mut open) = (Vec::new(), Vec::new());
    for (turn, email) in view.emails().enumerate() {
        if turn % EMAILS_PER_TURN == EMAILS_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        let known = |at: usize| by_state[at].as_ref().map(|question| question(view, &email));
        match decide(&filter, &known) {
            Some(true) => found.push(email.id),
            Some(false) => {}
            None => open.push(email.id),
        }
    }
    if open.is_empty() {
        return Ok(found);
    }
    let mut attachments = HashMap::new();
    if tests.iter().any(|test| matches!(test, Test::HasAttachment(_))) {
        for ids in open.chunks(RECORDS_AT_ONCE) {
            let records = context.account().emails(ids).await.map_err(|error| trouble(&error))?;
            attachments
                .extend(records.into_iter().flatten().map(|record| (record.id, record.has_attachment)));
        }
    }
    let by_record = |at: usize, email: &EmailView| match (&by_state[at], &tests[at]) {
        (Some(question), _) => Some(question(view, email)),
        (None, Test::HasAttachment(wanted)) => Some(attachments.get(&email.id) == Some(wanted)),
        (None, _) => None,
    };
    open.retain(|id| {
        let Some(email) = view.email(*id) else { return false };
        let decided = decide(&filter, &|at| by_record(at, &email));
        if decided == Some(true) {
            found.push(*id);
        }
        decided.is_none()
    });
    if open.is_empty() {
        return Ok(found);
    }
    let texts: Vec<(usize, TextTest)> = tests
        .iter()
        .enumerate()
        .filter_map(|(at, test)| match test {
            Test::Text(text) => Some((at, text.clone())),
            _ => None,
        })
        .collect();
    let asked: Vec<TextTest> = texts.iter().map(|(_, test)| test.clone()).collect();
    let query = TextQuery {
        account: context.account(),
        tests: &asked,
        among: &open,
        reads_max: context.config().query_texts_max,
    };
    let held = context.inner().text.find(&query).await.map_err(|error| match error {
        TextError::TooMany => {
            let why = "too many messages would have to be looked into; say more, a mailbox or a date";
            MethodError::UnsupportedFilter(why.to_owned())
        }
        TextError::Body(error) => body_trouble(&error),
    })?;
    let held: HashMap<usize, HashSet<EmailId>> = texts.iter().map(|(at, _)| *at).zip(held).collect();
    found.extend(open.into_iter().filter(|id| {
        let Some(email) = view.email(*id) else { return false };
        let known = |at: usize| by_record(at, &email).or_else(|| Some(held.get(&at)?.contains(id)));
        decide(&filter, &known) == Some(true)
    }));
    Ok(found)
}

/// The same filter with each test by its number. A condition of several members is all of them.
fn numbered(filter: &Filter<Vec<Test>>, tests: &mut Vec<Test>) -> Filter<usize> {
    let mut all = |parts: &[Filter<Vec<Test>>]| parts.iter().map(|part| numbered(part, tests)).collect();
    match filter {
        Filter::And(parts) => Filter::And(all(parts)),
        Filter::Or(parts) => Filter::Or(all(parts)),
        Filter::Not(parts) => Filter::Not(all(parts)),
        Filter::Condition(members) => {
            let number = |member: &Test| {
                tests.push(member.clone());
                Filter::Condition(tests.len() - 1)
            };
            Filter::And(members.iter().map(number).collect())
        }
    }
}

/// Whether what is known decides it.
fn decide(filter: &Filter<usize>, known: &impl Fn(usize) -> Option<bool>) -> Option<bool> {
    // As soon as one part is what `wanted` is, the answer is there; what is not known leaves it open.
    let any = |parts: &[Filter<usize>], wanted: bool| {
        let mut open = false;
        for part in parts {
            match decide(part, known) {
                Some(answer) if answer == wanted => return Some(true),
                Some(_) => {}
                None => open = true,
            }
        }
        if open { None } else { Some(false) }
    };
    match filter {
        Filter::And(parts) => any(parts, false).map(|refused| !refused),
        Filter::Or(parts) => any(parts, true),
        Filter::Not(parts) => any(parts, true).map(|held| !held),
        Filter::Condition(number) => known(*number),
    }
}

type Question = Box<dyn Fn(&View, &EmailView) -> bool + Send + Sync>;

/// A test that the account's state answers.
fn question(view: &View, test: &Test) -> Option<Question> {
    let in_thread = |keyword: &str| {
        let holds = view.keyword_test(keyword);
        move |view: &View, email: &EmailView| {
            let emails = view.thread(email.thread).unwrap_or_default();
            let with = emails.iter().filter(|id| view.email(**id).is_some_and(|email| holds(&email))).count();
            (with, emails.len())
        }
    };
    Some(match test {
        Test::InMailbox(id) => {
            let mailbox = ids::parse_mailbox(id);
            Box::new(move |_, email| mailbox.is_some_and(|mailbox| is_in(email, mailbox)))
        }
        Test::InMailboxOtherThan(list) => {
            let others: Vec<_> = list.iter().filter_map(ids::parse_mailbox).collect();
            Box::new(move |_, email| email.places.iter().any(|(mailbox, _)| !others.contains(mailbox)))
        }
        Test::Before(date) => {
            let date = *date;
            Box::new(move |_, email| email.received.unix_seconds() < date)
        }
        Test::After(date) => {
            let date = *date;
            Box::new(move |_, email| email.received.unix_seconds() >= date)
        }
        Test::MinSize(size) => {
            let size = *size;
            Box::new(move |_, email| u64::from(email.size) >= size)
        }
        Test::MaxSize(size) => {
            let size = *size;
            Box::new(move |_, email| u64::from(email.size) < size)
        }
        Test::HasKeyword(keyword) => {
            let holds = view.keyword_test(keyword);
            Box::new(move |_, email| holds(email))
        }
        Test::NotKeyword(keyword) => {
            let holds = view.keyword_test(keyword);
            Box::new(move |_, email| !holds(email))
        }
        Test::AllInThreadHaveKeyword(keyword) => {
            let count = in_thread(keyword);
            Box::new(move |view, email| {
                let (with, all) = count(view, email);
                with == all
            })
        }
        Test::SomeInThreadHaveKeyword(keyword) => {
            let count = in_thread(keyword);
            Box::new(move |view, email| count(view, email).0 > 0)
        }
        Test::NoneInThreadHaveKeyword(keyword) => {
            let count = in_thread(keyword);
            Box::new(move |view, email| count(view, email).0 == 0)
        }
        Test::HasAttachment(_) | Test::Text(_) => return None,
    })
}

/// What an email is compared by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortValue {
    Number(i64),
    Text(String),
}

/// Puts emails into an order; newest first where nothing is said.
async fn sort_emails(
    context: &Context,
    view: &View,
    found: &mut Vec<EmailId>,
    order: &[EmailSort],
) -> Result<(), MethodError> {
    let newest = [EmailSort { key: SortKey::ReceivedAt, is_ascending: false }];
    let order = if order.is_empty() { &newest[..] } else { order };
    let needs_record =
        |key: &SortKey| matches!(key, SortKey::From | SortKey::To | SortKey::Subject | SortKey::SentAt);
    let reads = order.iter().any(|rule| needs_record(&rule.key));
    let mut keyed: Vec<(Vec<SortValue>, EmailId)> = Vec::with_capacity(found.len());
    for ids in found.chunks(RECORDS_AT_ONCE) {
        let records = if reads {
            context.account().emails(ids).await.map_err(|error| trouble(&error))?
        } else {
            vec![None; ids.len()]
        };
        for (id, record) in ids.iter().zip(records) {
            let Some(email) = view.email(*id) else { continue };
            let values = order.iter().map(|rule| sort_value(view, &email, record.as_deref(), &rule.key));
            keyed.push((values.collect::<Result<_, _>>()?, *id));
        }
        tokio::task::yield_now().await;
    }
    let last_is_ascending = order.last().is_none_or(|rule| rule.is_ascending);
    let direct = |order: Ordering, is_ascending: bool| if is_ascending { order } else { order.reverse() };
    keyed.sort_unstable_by(|(a, a_id), (b, b_id)| {
        let mut rules = a.iter().zip(b).zip(order).map(|((a, b), rule)| direct(a.cmp(b), rule.is_ascending));
        let decided = rules.find(|order| order.is_ne());
        // Emails that came at one moment keep the order in which they came.
        decided.unwrap_or_else(|| direct(a_id.cmp(b_id), last_is_ascending))
    });
    *found = keyed.into_iter().map(|(_, id)| id).collect();
    Ok(())
}

fn sort_value(
    view: &View,
    email: &EmailView,
    record: Option<&EmailRecord>,
    key: &SortKey,
) -> Result<SortValue, MethodError> {
    let in_thread = |keyword: &str| {
        let holds = view.keyword_test(keyword);
        let emails = view.thread(email.thread).unwrap_or_default();
        (emails.iter().filter(|id| view.email(**id).is_some_and(|email| holds(&email))).count(), emails.len())
    };
    let summary = || match record {
        Some(record) => record.summary().map(Some).map_err(|error| trouble(&StorageError::from(error))),
        None => Ok(None),
    };
    let first = |list: &[mail::header::HeaderAddress]| {
        let shown = field::addresses(list);
        let text =
            |name: &str| shown.first().and_then(|it| it[name].as_str()).filter(|text| !text.is_empty());
        // RFC 8621 §4.4.2: the name, or the address where there is none.
        SortValue::Text(folded(text("name").or(text("email")).unwrap_or_default()))
    };
    Ok(match key {
        SortKey::ReceivedAt => SortValue::Number(email.received.unix_seconds()),
        SortKey::Size => SortValue::Number(email.size.into()),
        SortKey::From => first(&summary()?.unwrap_or_default().from),
        SortKey::To => first(&summary()?.unwrap_or_default().to),
        SortKey::Subject => {
            let subject = summary()?.unwrap_or_default().subject;
            let text = subject.map(|text| field::plain(text.as_bytes())).unwrap_or_default();
            SortValue::Text(folded(&base_subject(&text).text))
        }
        SortKey::SentAt => {
            let sent = record.and_then(|record| record.sent_date).unwrap_or(email.received);
            SortValue::Number(sent.unix_seconds())
        }
        SortKey::HasKeyword(keyword) => SortValue::Number(i64::from(view.keyword_test(keyword)(email))),
        SortKey::AllInThreadHaveKeyword(keyword) => {
            let (with, all) = in_thread(keyword);
            SortValue::Number(i64::from(with == all))
        }
        SortKey::SomeInThreadHaveKeyword(keyword) => SortValue::Number(i64::from(in_thread(keyword).0 > 0)),
    })
}
