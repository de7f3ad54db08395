//! Mailboxes: what they are, and creating, renaming, deleting and subscribing to them.

use mail::id::{MailboxId, ModSeq, Uid, UidValidity};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::StorageError;

/// Between the levels of a mailbox name.
pub const SEPARATOR: char = '/';
/// The name of the mailbox that mail arrives in, in its only spelling (RFC 9051 §5.1).
pub const INBOX: &str = "INBOX";

/// What a mailbox is for (RFC 6154, RFC 8621 §2). At most one mailbox of an account has a given role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Mail arrives here.
    Inbox,
    /// `\Drafts`
    Drafts,
    /// `\Sent`
    Sent,
    /// `\Junk`
    Junk,
    /// `\Trash`
    Trash,
    /// `\Archive`
    Archive,
}

/// A mailbox, as LIST and STATUS see it: everything here comes from the account's root, no page is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// Its number.
    pub id: MailboxId,
    /// Its full name, levels separated by [`SEPARATOR`]; every superior name is a mailbox too.
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// Never the same for two mailboxes that had the same name.
    pub uid_validity: UidValidity,
    /// The next UID; `None` when all have been given out.
    pub uid_next: Option<Uid>,
    /// Number of messages.
    pub messages: u32,
    /// Messages without `\Seen`.
    pub unseen: u32,
    /// Messages with `\Deleted`.
    pub deleted: u32,
    /// Sum of the sizes of its messages.
    pub size: u64,
    /// MODSEQ of its last change.
    pub highest_modseq: ModSeq,
    /// Keywords that some message in it has or had.
    pub keywords: crate::marks::Marks,
}

/// Why mailboxes could not be changed as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MailboxError {
    /// There is no such mailbox.
    #[error("no such mailbox")]
    Missing,
    /// There is one of this name already.
    #[error("the mailbox exists")]
    Exists,
    /// Not a name for a mailbox.
    #[error("not a mailbox name: {0}")]
    InvalidName(&'static str),
    /// It has inferior mailboxes (RFC 9051 `HASCHILDREN`).
    #[error("the mailbox has inferior mailboxes")]
    HasChildren,
    /// INBOX cannot be deleted, nor a mailbox be moved into itself.
    #[error("this cannot be done to the mailbox: {0}")]
    NotPossible(&'static str),
    /// Another mailbox has the role.
    #[error("another mailbox has this role")]
    RoleTaken,
    /// More mailboxes or subscriptions than the configuration allows.
    #[error("too many mailboxes")]
    TooMany,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Creates a mailbox, and its superiors where they are missing. A trailing separator (IMAP's hint that inferiors
    /// will follow) is ignored.
    pub async fn create_mailbox(&self, name: &str, role: Option<Role>) -> Result<Mailbox, MailboxError> {
        let _ = (name, role);
        unimplemented!()
    }

    /// Renames a mailbox and its inferiors; superiors of the new name are created. Renaming INBOX moves its messages
    /// into a new mailbox and leaves INBOX and its inferiors where they are (RFC 9051 §6.3.6). Subscriptions follow.
    pub async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), MailboxError> {
        let _ = (from, to);
        unimplemented!()
    }

    /// Deletes a mailbox and the messages in it.
    pub async fn delete_mailbox(&self, name: &str) -> Result<(), MailboxError> {
        let _ = name;
        unimplemented!()
    }

    /// Subscribes to a name, which need not be that of a mailbox, or ends a subscription.
    pub async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), MailboxError> {
        let _ = (name, subscribed);
        unimplemented!()
    }
}
