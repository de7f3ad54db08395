//! RENAME (RFC 9051 §6.3.6).

use imap_protocol::mailbox_name::MailboxName;

use crate::reply::{Answer, Reply, mailbox_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, from: &MailboxName, to: &MailboxName) -> Answer {
    match session.account()?.rename_mailbox(from.as_str(), to.as_str()).await {
        Ok(()) => Ok(Reply::ok("Rename completed")),
        Err(error) => mailbox_failure(&error),
    }
}
