//! VacationResponse/get (RFC 8621 §8.1).

use jmap_protocol::method::{Get, got, project};
use jmap_protocol::object::vacation::{PROPERTIES, SINGLETON};
use jmap_protocol::{Arguments, Id, MethodError, Object};
use storage::ObjectKind;

use super::super::spend_on;
use super::stored;
use crate::jmap::context::Context;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let account = context.take_account(arguments)?;
    let get = Get::take(arguments, context.config().objects_in_get_max)?;
    std::mem::take(arguments).finish()?;
    get.check(&PROPERTIES)?;
    let state = context.fresh_account().await?.state();
    let (mut list, mut not_found): (Vec<_>, Vec<Id>) = (Vec::new(), Vec::new());
    let others = get.ids.iter().flatten().filter(|id| id.as_str() != SINGLETON);
    not_found.extend(others.cloned());
    if get.ids.as_ref().is_none_or(|ids| ids.iter().any(|id| id.as_str() == SINGLETON)) {
        let shown = project(stored(&state)?.0.to_object(), &get);
        spend_on(context, &shown)?;
        list.push(shown);
    }
    let state = state.objects_state(ObjectKind::VACATION_RESPONSE).to_string();
    Ok(got(&account, &state, list, &not_found))
}
