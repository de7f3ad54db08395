//! Taking messages out of a mailbox.

use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::account::Account;
use crate::error::StorageError;

/// Messages were expunged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expunged {
    /// Those that existed.
    pub uids: UidSet,
    /// MODSEQ of the last operation; `None` when there was nothing to expunge.
    pub modseq: Option<ModSeq>,
}

/// Why messages were not expunged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExpungeError {
    /// There is no such mailbox.
    #[error("no such mailbox")]
    NoMailbox,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Expunges the messages of the set that have `\Deleted` (all that have it when `uids` is `None`), looked at inside
    /// the commit.
    pub async fn expunge(&self, mailbox: MailboxId, uids: Option<UidSet>) -> Result<Expunged, ExpungeError> {
        let _ = (mailbox, uids);
        unimplemented!()
    }

    /// Takes out the messages of the set, whatever their flags.
    pub async fn remove(&self, mailbox: MailboxId, uids: UidSet) -> Result<Expunged, ExpungeError> {
        let _ = (mailbox, uids);
        unimplemented!()
    }
}
