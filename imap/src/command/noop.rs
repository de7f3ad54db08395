//! NOOP and CHECK: the moment to hear what is new (RFC 9051 §6.1.2).

use crate::reply::{Answer, Reply, storage_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session) -> Answer {
    // With a mailbox selected, another node's changes count too; the session tells the news after this.
    if session.selected.is_some()
        && let Err(error) = session.account()?.refresh().await
    {
        return storage_failure(&error);
    }
    Ok(Reply::ok("Completed"))
}
