//! SORT (RFC 5256), with DISPLAYFROM and DISPLAYTO (RFC 5957) and RETURN (RFC 5267 §3).

use imap_protocol::command::Tag;
use imap_protocol::response::search::sort as write;
use imap_protocol::search::Sort;

use super::search::{Wishes, keep, numbers, tell};
use crate::reply::{Answer, Reply, storage_failure};
use crate::search::find;
use crate::session::Session;
use crate::sort::sort;

pub(crate) async fn run(session: &mut Session, tag: &Tag, command: Sort) -> Answer {
    let mod_seq = command.key.has_mod_seq();
    if mod_seq {
        session.enable_condstore();
    }
    let account = session.account()?;
    let state = match account.mailbox(session.selected()?.mailbox).await {
        Ok(state) => state,
        Err(error) => return storage_failure(&error),
    };
    let found = match find(session, &account, &state, &command.key).await? {
        Ok(found) => found,
        Err(reply) => return Ok(reply),
    };
    let found = match sort(&account, &command.order, found).await {
        Ok(found) => found,
        Err(error) => return storage_failure(&error),
    };
    match command.returns {
        None => write(session.out(), &numbers(&found, command.uid)),
        Some(returns) => {
            keep(session, returns, &found)?;
            tell(session, tag, Wishes { uid: command.uid, returns, mod_seq, of: None }, &found);
        }
    }
    session.throttle().await?;
    Ok(Reply::ok("Sort completed"))
}
