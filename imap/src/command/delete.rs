//! DELETE (RFC 9051 §6.3.5).

use imap_protocol::mailbox_name::MailboxName;
use imap_protocol::response::untagged;

use crate::reply::{Answer, Reply, mailbox_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, mailbox: &MailboxName) -> Answer {
    let account = session.account()?;
    if let Err(error) = account.delete_mailbox(mailbox.as_str()).await {
        return mailbox_failure(&error);
    }
    // A client that deletes what it has selected goes on in the authenticated state.
    if let Some(selected) = &session.selected
        && account.state().mailbox(selected.mailbox).is_none()
    {
        untagged(session.out(), "OK [CLOSED] The selected mailbox was deleted");
        session.deselect();
    }
    Ok(Reply::ok("Delete completed"))
}
