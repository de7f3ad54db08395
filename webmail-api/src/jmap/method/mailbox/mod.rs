//! Mailboxes (RFC 8621 §2).

pub(crate) mod changes;
pub(crate) mod get;
pub(crate) mod query;
pub(crate) mod query_changes;
pub(crate) mod set;

use jmap_protocol::Id;
use storage::{AccountState, Mailbox, Role};

use crate::jmap::ids;

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
    mailbox.own_name()
}

/// The mailbox that a mailbox is in.
pub(crate) fn parent(state: &AccountState, mailbox: &Mailbox) -> Option<Id> {
    state.parent(mailbox.id).map(ids::mailbox)
}

/// Where a mailbox stands among its neighbours; where nobody has said it, the known ones come first.
pub(crate) fn sort_order(mailbox: &Mailbox) -> u32 {
    match (mailbox.sort_order, mailbox.role) {
        (0, Some(Role::Inbox)) => 1,
        (0, Some(Role::Drafts)) => 2,
        (0, Some(Role::Sent)) => 3,
        (0, Some(Role::Archive)) => 4,
        (0, Some(Role::Junk)) => 5,
        (0, Some(Role::Trash)) => 6,
        (0, None) => 10,
        (set, _) => set,
    }
}

pub(crate) fn role(name: &str) -> Option<Role> {
    let roles = [Role::Inbox, Role::Drafts, Role::Sent, Role::Junk, Role::Trash, Role::Archive];
    roles.into_iter().find(|role| role_name(*role) == name)
}
