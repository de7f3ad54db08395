//! Mailbox/query (RFC 8621 §2.3).

use std::cmp::Ordering;

use jmap_protocol::filter::Comparator;
use jmap_protocol::method::{Window, take_filter_and_sort};
use jmap_protocol::object::filter::check_collation;
use jmap_protocol::object::mailbox::{Test, condition};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use search::text::folded;
use storage::Mailbox;

use super::{own_name, parent, role_name, sort_order};
use crate::jmap::context::Context;
use crate::jmap::ids;
use crate::jmap::view::View;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let (filter, sort) = take_filter_and_sort(arguments, &condition)?;
    let window = Window::take(arguments)?;
    let as_tree = arguments.boolean("sortAsTree", false)?;
    let filter_as_tree = arguments.boolean("filterAsTree", false)?;
    std::mem::take(arguments).finish()?;
    let sort = order(&sort)?;
    let view = context.view().await?;
    let matches = |mailbox: &Mailbox| {
        filter.as_ref().is_none_or(|filter| {
            filter.matches(&mut |tests| tests.iter().all(|test| holds(&view, mailbox, test)))
        })
    };
    let mut mailboxes: Vec<Mailbox> = view.account.mailboxes().collect();
    mailboxes.sort_by(|a, b| compare(a, b, &sort));
    if as_tree {
        mailboxes = tree(&view, mailboxes);
    }
    let with_parents = |mailbox: &Mailbox| {
        let mut next = Some(mailbox.clone());
        while let Some(mailbox) = next {
            if !matches(&mailbox) {
                return false;
            }
            next = filter_as_tree
                .then(|| parent(&view.account, &mailbox))
                .flatten()
                .and_then(|id| view.mailbox(ids::parse_mailbox(&id)?));
        }
        true
    };
    mailboxes.retain(|mailbox| with_parents(mailbox));
    let most = context.config().query_results_max;
    window.answer(&account, &view.mailbox_state(), &mailboxes, |mailbox| ids::mailbox(mailbox.id), most)
}

fn holds(view: &View, mailbox: &Mailbox, test: &Test) -> bool {
    match test {
        Test::ParentId(wanted) => parent(&view.account, mailbox).map(|id| id.to_string()) == *wanted,
        Test::Name(text) => folded(own_name(mailbox)).contains(&folded(text)),
        Test::Role(wanted) => mailbox.role.map(role_name) == wanted.as_deref(),
        Test::HasAnyRole(wanted) => mailbox.role.is_some() == *wanted,
        Test::IsSubscribed(wanted) => view.account.is_subscribed(&mailbox.name) == *wanted,
    }
}

#[derive(Clone, Copy)]
enum Key {
    SortOrder,
    Name,
}

fn order(sort: &[Comparator]) -> Result<Vec<(Key, bool)>, MethodError> {
    let key = |comparator: &Comparator| {
        check_collation(comparator)?;
        let key = match comparator.property.as_str() {
            "sortOrder" => Key::SortOrder,
            "name" => Key::Name,
            other => return Err(MethodError::UnsupportedSort(format!("there is no sort by {other:?}"))),
        };
        Ok((key, comparator.is_ascending))
    };
    sort.iter().map(key).collect()
}

fn compare(a: &Mailbox, b: &Mailbox, sort: &[(Key, bool)]) -> Ordering {
    let by = |(key, is_ascending): &(Key, bool)| {
        let order = match key {
            Key::SortOrder => sort_order(a).cmp(&sort_order(b)),
            Key::Name => folded(own_name(a)).cmp(&folded(own_name(b))),
        };
        if *is_ascending { order } else { order.reverse() }
    };
    sort.iter().map(by).find(|order| order.is_ne()).unwrap_or_else(|| a.id.cmp(&b.id))
}

/// Each mailbox behind the one that it is in, neighbours in the order that they have.
fn tree(view: &View, sorted: Vec<Mailbox>) -> Vec<Mailbox> {
    let mut children: std::collections::HashMap<Option<Id>, Vec<Mailbox>> = std::collections::HashMap::new();
    for mailbox in sorted {
        children.entry(parent(&view.account, &mailbox)).or_default().push(mailbox);
    }
    let mut open: Vec<Mailbox> = children.remove(&None).unwrap_or_default();
    open.reverse();
    let mut list = Vec::new();
    while let Some(mailbox) = open.pop() {
        let below = children.remove(&Some(ids::mailbox(mailbox.id))).unwrap_or_default();
        open.extend(below.into_iter().rev());
        list.push(mailbox);
    }
    list
}
