//! Quota/queryChanges (RFC 9425 §4.5): the results in the state that the client names, beside those of now.

use jmap_protocol::method::object;
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::{Value, json};

use super::query::Asked;
use super::{is_seen, now};
use crate::jmap::context::Context;
use crate::jmap::quota::{Levels, Resource};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let asked = Asked::take(arguments)?;
    let since = arguments.string("sinceQueryState")?;
    let most = arguments.unsigned("maxChanges")?;
    // That what is behind it is of no interest makes nothing shorter here.
    let _: Option<Id> = arguments.id_or_null("upToId")?;
    let calculate_total = arguments.boolean("calculateTotal", false)?;
    std::mem::take(arguments).finish()?;
    let known = Levels::parse(&since).ok_or(MethodError::CannotCalculateChanges)?;
    let levels = now(context).await?;
    let find = |levels: &Levels| if is_seen(context) { asked.find(levels) } else { Vec::new() };
    let (old, new) = (find(&known), find(&levels));
    // RFC 8620 §5.6: what may have moved is removed and added again, and there are two of them at most.
    let (removed, added): (&[Resource], &[Resource]) =
        if old == new { (&[], &[]) } else { (old.as_slice(), new.as_slice()) };
    if most.is_some_and(|most| (removed.len() + added.len()) as u64 > most) {
        return Err(MethodError::TooManyChanges);
    }
    let removed: Vec<Id> = removed.iter().map(|resource| resource.id()).collect();
    let added: Vec<Value> =
        added.iter().enumerate().map(|(at, it)| json!({"id": it.id(), "index": at})).collect();
    let mut answer = object(json!({
        "accountId": account,
        "oldQueryState": since,
        "newQueryState": levels.state(),
        "removed": removed,
        "added": added,
    }));
    if calculate_total {
        answer.insert("total".to_owned(), json!(new.len()));
    }
    Ok(answer)
}
