//! Quota/get (RFC 9425 §4.2).

use jmap_protocol::method::{Get, got, project};
use jmap_protocol::object::quota::PROPERTIES;
use jmap_protocol::{Arguments, Id, MethodError, Object};

use super::super::spend_on;
use super::{is_seen, now};
use crate::jmap::context::Context;
use crate::jmap::quota::{RESOURCES, Resource};

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let levels = now(context).await?;
    let shown = |resource: Resource| levels.show(resource).filter(|_| is_seen(context));
    let wanted: Vec<Id> = match &get.ids {
        Some(ids) => ids.clone(),
        None => {
            let there = RESOURCES.into_iter().filter(|resource| shown(*resource).is_some());
            there.map(Resource::id).collect()
        }
    };
    let found: Vec<(Id, Option<Object>)> =
        wanted.into_iter().map(|id| (id.clone(), Resource::parse(&id).and_then(shown))).collect();
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for (id, record) in found {
        let Some(record) = record else {
            not_found.push(id);
            continue;
        };
        let record = project(record, &get);
        spend_on(context, &record)?;
        list.push(record);
    }
    Ok(got(&account, &levels.state(), list, &not_found))
}
