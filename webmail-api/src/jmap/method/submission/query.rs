//! EmailSubmission/query and /queryChanges (RFC 8621 §7.3, §7.4).

use std::cmp::Ordering;

use jmap_protocol::filter::Filter;
use jmap_protocol::method::{Window, take_filter_and_sort};
use jmap_protocol::object::submission::{SortKey, Test, condition, sort};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use storage::ObjectKind;

use super::super::email::query_changes::{Asked, unchanged};
use super::look_at;
use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::send::record::Record;
use crate::jmap::send::status::Undo;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let (filter, comparators) = take_filter_and_sort(arguments, &condition)?;
    let window = Window::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let order = sort(&comparators)?;
    look_at(context, None).await;
    let state = context.fresh_account().await?.state();
    let sending = context.sending()?;
    let now = sending.queue.clock().now();
    let mut found: Vec<(Id, Record)> = Vec::new();
    for (id, record) in Record::all(&state) {
        let undo = record.undo(now, &sending.rules);
        let holds = |filter: &Filter<Vec<Test>>| {
            filter.matches(&mut |tests| tests.iter().all(|test| holds(&record, undo, test)))
        };
        if filter.as_ref().is_none_or(holds) {
            found.push((id, record));
        }
    }
    found.sort_by(|a, b| compare(a, b, &order));
    let state = state.objects_state(ObjectKind::EMAIL_SUBMISSION).to_string();
    window.answer(&account, &state, &found, |(id, _)| id.clone(), context.config().query_results_max)
}

pub(crate) async fn changes(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let (_, comparators) = take_filter_and_sort(arguments, &condition)?;
    sort(&comparators)?;
    let asked = Asked::take(arguments)?;
    std::mem::take(arguments).finish()?;
    look_at(context, None).await;
    let state = super::state(context).await?;
    unchanged(context, &asked, &state, None)
}

fn holds(record: &Record, undo: Undo, test: &Test) -> bool {
    // What is told has no fractions of seconds, and neither has what is asked for.
    let sent = i64::try_from(record.send_at).unwrap_or(i64::MAX);
    match test {
        Test::IdentityIds(ids) => ids.contains(&record.identity),
        Test::EmailIds(ids) => ids.contains(ids::email(record.email()).as_str()),
        Test::ThreadIds(ids) => ids.contains(ids::thread(record.thread()).as_str()),
        Test::UndoStatus(wanted) => undo.as_str() == wanted,
        Test::Before(moment) => sent < *moment,
        Test::After(moment) => sent >= *moment,
    }
}

fn compare(a: &(Id, Record), b: &(Id, Record), order: &[(SortKey, bool)]) -> Ordering {
    let by = |(key, is_ascending): &(SortKey, bool)| {
        let order = match key {
            SortKey::EmailId => a.1.email.cmp(&b.1.email),
            SortKey::ThreadId => a.1.thread.cmp(&b.1.thread),
            SortKey::SentAt => a.1.send_at.cmp(&b.1.send_at),
        };
        if *is_ascending { order } else { order.reverse() }
    };
    let number = |id: &Id| id.as_str().get(1..).and_then(|digits| digits.parse::<u64>().ok());
    let by_age = || number(&a.0).cmp(&number(&b.0)).then_with(|| a.0.cmp(&b.0));
    order.iter().map(by).find(|order| order.is_ne()).unwrap_or_else(by_age)
}
