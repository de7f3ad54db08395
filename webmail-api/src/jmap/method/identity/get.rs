//! Identity/get (RFC 8621 §6.1).

use jmap_protocol::method::{Get, got, project};
use jmap_protocol::object::identity::PROPERTIES;
use jmap_protocol::{Arguments, MethodError, Object};

use super::super::spend_on;
use crate::jmap::context::Context;
use crate::jmap::send::identity;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let state = context.fresh_account().await?.state();
    let known = identity::known(context).await?;
    let all = identity::all(context, &state, &known);
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    let wanted: Vec<_> = match &get.ids {
        Some(ids) => ids.clone(),
        None if all.len() > context.config().objects_in_get_max => {
            return Err(MethodError::RequestTooLarge("the account has more identities than that".to_owned()));
        }
        None => all.iter().map(|identity| identity.id.clone()).collect(),
    };
    for id in wanted {
        let Some(identity) = all.iter().find(|identity| identity.id == id) else {
            not_found.push(id);
            continue;
        };
        let record = project(identity.show(), &get);
        spend_on(context, &record)?;
        list.push(record);
    }
    Ok(got(&account, &identity::state_of(&state, &known), list, &not_found))
}
