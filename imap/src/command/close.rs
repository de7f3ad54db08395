//! CLOSE (RFC 9051 §6.4.1): expunges without a word.

use crate::reply::{Answer, Reply, expunge_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session) -> Answer {
    let account = session.account()?;
    let selected = session.selected()?;
    let (mailbox, read_only) = (selected.mailbox, selected.read_only);
    if !read_only && let Err(error) = account.expunge(mailbox, None).await {
        return expunge_failure(&error);
    }
    session.deselect();
    Ok(Reply::ok("Close completed"))
}
