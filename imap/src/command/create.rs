//! CREATE (RFC 9051 §6.3.4) with CREATE-SPECIAL-USE (RFC 6154 §3).

use imap_protocol::command::SpecialUse;
use imap_protocol::mailbox_name::MailboxName;
use storage::Role;

use crate::reply::{Answer, Reply, mailbox_failure};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, mailbox: &MailboxName, uses: &[SpecialUse]) -> Answer {
    let role = match uses {
        [] => None,
        [special_use] => match role(*special_use) {
            Some(role) => Some(role),
            None => return Ok(Reply::no("[USEATTR] This special use is not supported")),
        },
        _ => return Ok(Reply::no("[USEATTR] A mailbox has one special use at most")),
    };
    match session.account()?.create_mailbox(mailbox.as_str(), role).await {
        Ok(_) => Ok(Reply::ok("Create completed")),
        Err(error) => mailbox_failure(&error),
    }
}

/// `\All` and `\Flagged` would be mailboxes that hold no messages of their own; there are none.
fn role(special_use: SpecialUse) -> Option<Role> {
    match special_use {
        SpecialUse::Archive => Some(Role::Archive),
        SpecialUse::Drafts => Some(Role::Drafts),
        SpecialUse::Junk => Some(Role::Junk),
        SpecialUse::Sent => Some(Role::Sent),
        SpecialUse::Trash => Some(Role::Trash),
        SpecialUse::All | SpecialUse::Flagged | SpecialUse::Important => None,
    }
}

/// The attribute of a role; INBOX has none.
pub(crate) fn attribute(role: Role) -> Option<&'static str> {
    match role {
        Role::Inbox => None,
        Role::Archive => Some(SpecialUse::Archive.as_str()),
        Role::Drafts => Some(SpecialUse::Drafts.as_str()),
        Role::Junk => Some(SpecialUse::Junk.as_str()),
        Role::Sent => Some(SpecialUse::Sent.as_str()),
        Role::Trash => Some(SpecialUse::Trash.as_str()),
    }
}
