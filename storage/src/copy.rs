//! Copying and moving messages between mailboxes.

use mail::id::{MailboxId, ModSeq, UidValidity};
use mail::uid::UidSet;

use crate::account::Account;
use crate::error::StorageError;

/// Messages were copied. Sorted both ascending, the *n*th UID of `source` has become the *n*th of `target` (COPYUID).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// UIDVALIDITY of the mailbox they went to.
    pub uid_validity: UidValidity,
    /// UIDs of the originals that existed; empty when there was nothing to copy.
    pub source: UidSet,
    /// UIDs of the copies.
    pub target: UidSet,
    /// MODSEQ of the last operation; `None` when there was nothing to copy.
    pub modseq: Option<ModSeq>,
}

/// Messages were moved; as [`Copied`], and the originals are gone.
pub type Moved = Copied;

/// Why messages were not copied or moved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CopyError {
    /// The mailbox to copy from is gone.
    #[error("no such mailbox")]
    NoSource,
    /// There is no mailbox to copy to.
    #[error("no such mailbox to copy to")]
    NoTarget,
    /// The account has no room for the copies.
    #[error("over quota")]
    OverQuota,
    /// The mailbox to copy to has not enough UIDs left.
    #[error("the mailbox has no UIDs left")]
    NoUids,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Copies messages with their flags and internal dates.
    pub async fn copy(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Result<Copied, CopyError> {
        let _ = (from, uids, to);
        unimplemented!()
    }

    /// Moves messages (RFC 6851): each arrives and is gone from its old place in the same operation.
    pub async fn move_messages(
        &self,
        from: MailboxId,
        uids: UidSet,
        to: MailboxId,
    ) -> Result<Moved, CopyError> {
        let _ = (from, uids, to);
        unimplemented!()
    }
}
