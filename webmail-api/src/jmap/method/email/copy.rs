//! Email/copy (RFC 8621 §4.7): from one account to another. A user has one account, so there is none to copy from.

use jmap_protocol::{Arguments, MethodError, Object};

use crate::jmap::context::Context;

pub(crate) fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    let from = arguments.id("fromAccountId")?;
    let account = context.take_account(arguments)?;
    arguments.string_or_null("ifFromInState")?;
    arguments.string_or_null("ifInState")?;
    let create = arguments.objects("create")?;
    arguments.boolean("onSuccessDestroyOriginal", false)?;
    arguments.string_or_null("destroyFromIfInState")?;
    std::mem::take(arguments).finish()?;
    if create.len() > context.config().objects_in_set_max {
        return Err(MethodError::RequestTooLarge("too many emails".to_owned()));
    }
    // RFC 8620 §5.4: the two have to be different.
    if from == account {
        return Err(MethodError::InvalidArguments("fromAccountId: the same as accountId".to_owned()));
    }
    Err(MethodError::FromAccountNotFound)
}
