//! Mailboxes (RFC 8621 §2).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod query;
pub(crate) mod query_changes;

use jmap_protocol::Id;
use storage::{AccountState, Mailbox, Role};

use crate::jmap::ids;

/// Between the levels of a name, as the account has it.
const SEPARATOR: char = storage::mailbox::SEPARATOR;

/// RFC 8621 §2, and the IANA registry of RFC 8457.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Inbox => "inbox",
        Role::Drafts => "drafts",
        Role::Sent => "sent",
        Role::Junk => "junk",
        Role::Trash => "trash",
        Role::Archive => "archive",
    }
}

/// The last level of a mailbox's name, which is its name for JMAP.
pub(crate) fn own_name(mailbox: &Mailbox) -> &str {
    if mailbox.role == Some(Role::Inbox) {
        // RFC 8621 §2: shown to people, who are not shouted at.
        return "Inbox";
    }
    mailbox.name.rsplit(SEPARATOR).next().unwrap_or_default()
}

/// The mailbox that a mailbox is in.
pub(crate) fn parent(state: &AccountState, mailbox: &Mailbox) -> Option<Id> {
    let (above, _) = mailbox.name.rsplit_once(SEPARATOR)?;
    state.mailbox_by_name(above).map(|parent| ids::mailbox(parent.id))
}

/// Where a mailbox stands among its neighbours where nobody has said it: the known ones first.
pub(crate) fn sort_order(mailbox: &Mailbox) -> u32 {
    match mailbox.role {
        Some(Role::Inbox) => 1,
        Some(Role::Drafts) => 2,
        Some(Role::Sent) => 3,
        Some(Role::Archive) => 4,
        Some(Role::Junk) => 5,
        Some(Role::Trash) => 6,
        None => 10,
    }
}
