//! The state of an account: what its log folds into.

use mail::flag::{FlagSet, Keyword};
use mail::id::{MailboxId, ModSeq};

use crate::index::MailboxIndex;
use crate::mailbox::{Mailbox, Role};
use crate::marks::Marks;
use crate::quota::Quota;

/// An account at one moment. Cheap to clone, never changes.
#[derive(Clone, Debug)]
pub struct AccountState {}

impl AccountState {
    /// The last operation folded.
    pub fn modseq(&self) -> ModSeq {
        unimplemented!()
    }

    /// All mailboxes, by name.
    pub fn mailboxes(&self) -> impl Iterator<Item = Mailbox> + '_ {
        std::iter::empty()
    }

    /// A mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Option<Mailbox> {
        let _ = id;
        unimplemented!()
    }

    /// The mailbox of this name; `inbox` in any case is INBOX.
    pub fn mailbox_by_name(&self, name: &str) -> Option<Mailbox> {
        let _ = name;
        unimplemented!()
    }

    /// The mailbox with this role.
    pub fn mailbox_by_role(&self, role: Role) -> Option<Mailbox> {
        let _ = role;
        unimplemented!()
    }

    /// Names subscribed to, ascending; not all of them need be mailboxes.
    pub fn subscriptions(&self) -> impl Iterator<Item = &str> + '_ {
        std::iter::empty()
    }

    /// Whether this name is subscribed to.
    pub fn is_subscribed(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }

    /// The messages of a mailbox. `None`: no such mailbox, or not loaded (see [`crate::Account::mailbox`]).
    pub fn index(&self, mailbox: MailboxId) -> Option<&MailboxIndex> {
        let _ = mailbox;
        unimplemented!()
    }

    /// Names of the account's keywords, by number.
    pub fn keywords(&self) -> &[Keyword] {
        unimplemented!()
    }

    /// Whether the account can have another keyword (`\*` in PERMANENTFLAGS).
    pub fn can_add_keyword(&self) -> bool {
        unimplemented!()
    }

    /// Marks with the names that clients use.
    pub fn flag_set(&self, marks: Marks) -> FlagSet {
        let _ = marks;
        unimplemented!()
    }

    /// Limits and use.
    pub fn quota(&self) -> Quota {
        unimplemented!()
    }
}
