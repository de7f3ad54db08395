//! PushSubscription/get (RFC 8620 §7.2.1).

use jmap_protocol::method::{Get, object, project};
use jmap_protocol::object::push_subscription::{PROPERTIES, UNTOLD};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use serde_json::json;

use super::super::spend_on;
use super::{own, show};
use crate::jmap::context::Context;
use crate::jmap::ids;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    // What leads to the client is not for whoever else has got hold of its login.
    if get.properties.iter().flatten().any(|name| UNTOLD.contains(&name.as_str())) {
        return Err(MethodError::Forbidden);
    }
    get.check(&PROPERTIES)?;
    let own = own(context).await?;
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    let wanted: Vec<Id> = match &get.ids {
        Some(ids) => ids.clone(),
        None => own.iter().map(|kept| ids::subscription(kept.id)).collect(),
    };
    for id in wanted {
        match own.iter().find(|kept| ids::subscription(kept.id) == id) {
            Some(kept) => {
                let record = project(show(kept), &get);
                spend_on(context, &record)?;
                list.push(record);
            }
            None => not_found.push(id),
        }
    }
    Ok(object(json!({"list": list, "notFound": not_found})))
}
