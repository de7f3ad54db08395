//! Mailbox/queryChanges (RFC 8621 §2.4).

use jmap_protocol::method::take_filter_and_sort;
use jmap_protocol::object::mailbox::condition;
use jmap_protocol::{Arguments, MethodError, Object};

use super::super::email::query_changes::{Asked, unchanged};
use crate::jmap::context::Context;

pub(crate) async fn run(context: &mut Context, arguments: &mut Arguments) -> Result<Object, MethodError> {
    context.take_account(arguments)?;
    take_filter_and_sort(arguments, &condition)?;
    let asked = Asked::take(arguments)?;
    arguments.boolean("sortAsTree", false)?;
    arguments.boolean("filterAsTree", false)?;
    std::mem::take(arguments).finish()?;
    let view = context.view().await?;
    unchanged(context, &asked, &view.mailbox_state(), None)
}
