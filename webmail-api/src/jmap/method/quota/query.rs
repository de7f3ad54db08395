//! Quota/query (RFC 9425 §4.4).

use std::cmp::Ordering;

use jmap_protocol::filter::Filter;
use jmap_protocol::method::{Window, take_filter_and_sort};
use jmap_protocol::object::quota::{SortKey, Test, condition, sort};
use jmap_protocol::{Arguments, MethodError, Object};
use search::text::folded;
use serde_json::json;

use super::{is_seen, now};
use crate::jmap::context::Context;
use crate::jmap::quota::{Levels, RESOURCES, Resource, SCOPE, TYPE};

/// What is asked for, and in which order.
pub(super) struct Asked {
    filter: Option<Filter<Vec<Test>>>,
    order: Vec<(SortKey, bool)>,
}

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let asked = Asked::take(arguments)?;
    let window = Window::take(arguments)?;
    std::mem::take(arguments).finish()?;
    let levels = now(context).await?;
    let found = if is_seen(context) { asked.find(&levels) } else { Vec::new() };
    let most = context.config().query_results_max;
    let mut answer = window.answer(&account, &levels.state(), &found, |resource| resource.id(), most)?;
    answer.insert("canCalculateChanges".to_owned(), json!(true));
    Ok(answer)
}

impl Asked {
    pub(super) fn take(arguments: &mut Arguments) -> Result<Self, MethodError> {
        let (filter, comparators) = take_filter_and_sort(arguments, &condition)?;
        Ok(Self { filter, order: sort(&comparators)? })
    }

    /// The results at one moment.
    pub(super) fn find(&self, levels: &Levels) -> Vec<Resource> {
        let matches = |resource: &Resource| {
            self.filter.as_ref().is_none_or(|filter| {
                filter.matches(&mut |tests| tests.iter().all(|test| holds(*resource, test)))
            })
        };
        let there = RESOURCES.into_iter().filter(|resource| levels.get(*resource).is_some());
        let mut found: Vec<Resource> = there.filter(matches).collect();
        // A stable sort: what is equal stays in the order of the states.
        found.sort_by(|a, b| {
            let by = |(key, is_ascending): &(SortKey, bool)| {
                let order = match key {
                    SortKey::Name => folded(a.title()).cmp(&folded(b.title())),
                    SortKey::Used => used(levels, *a).cmp(&used(levels, *b)),
                };
                if *is_ascending { order } else { order.reverse() }
            };
            self.order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        found
    }
}

fn used(levels: &Levels, resource: Resource) -> u64 {
    levels.get(resource).map_or(0, |level| level.used)
}

fn holds(resource: Resource, test: &Test) -> bool {
    match test {
        Test::Name(text) => folded(resource.title()).contains(&folded(text)),
        Test::Scope(scope) => scope == SCOPE,
        Test::ResourceType(name) => name == resource.name(),
        Test::Type(name) => name == TYPE,
    }
}
