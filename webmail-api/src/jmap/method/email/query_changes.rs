//! Email/queryChanges (RFC 8621 §4.5). That nothing has changed is known; what has changed is not, and the client asks
//! anew.

use jmap_protocol::method::{object, take_filter_and_sort};
use jmap_protocol::object::filter::{condition, sort};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::json;

use crate::jmap::context::Context;

/// The arguments of `Foo/queryChanges` (RFC 8620 §5.6), but for filter and sort.
pub(crate) struct Asked {
    since: String,
    calculate_total: bool,
}

impl Asked {
    pub(crate) fn take(arguments: &mut Arguments) -> Result<Self, MethodError> {
        let since = arguments.string("sinceQueryState")?;
        arguments.unsigned("maxChanges")?;
        let _: Option<Id> = arguments.id_or_null("upToId")?;
        Ok(Self { since, calculate_total: arguments.boolean("calculateTotal", false)? })
    }
}

/// The answer where nothing has changed.
pub(crate) fn unchanged(
    context: &Context,
    asked: &Asked,
    state: &str,
    total: Option<usize>,
) -> Result<Object, MethodError> {
    // Without the total, which would have to be counted, there is nothing to answer with.
    if asked.since != state || (asked.calculate_total && total.is_none()) {
        return Err(MethodError::CannotCalculateChanges);
    }
    let mut answer = object(json!({
        "accountId": context.account_id(),
        "oldQueryState": state,
        "newQueryState": state,
        "removed": [],
        "added": [],
    }));
    if asked.calculate_total {
        answer.insert("total".to_owned(), json!(total));
    }
    Ok(answer)
}

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    let (_, comparators) = take_filter_and_sort(arguments, &condition)?;
    sort(&comparators)?;
    let asked = Asked::take(arguments)?;
    arguments.boolean("collapseThreads", false)?;
    std::mem::take(arguments).finish()?;
    let view = context.view().await?;
    unchanged(context, &asked, &view.email_state(), None)
}
