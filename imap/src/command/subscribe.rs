//! SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.7, §6.3.8).

use imap_protocol::mailbox_name::MailboxName;

use crate::reply::{Answer, Reply, mailbox_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, mailbox: &MailboxName, subscribed: bool) -> Answer {
    match session.account()?.subscribe(mailbox.as_str(), subscribed).await {
        Ok(()) if subscribed => Ok(Reply::ok("Subscribe completed")),
        Ok(()) => Ok(Reply::ok("Unsubscribe completed")),
        Err(error) => mailbox_failure(&error),
    }
}
