//! What has changed since a client last looked.

use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::state::AccountState;

/// Messages that have left a mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vanished {
    /// Exactly these.
    Known(UidSet),
    /// The memory does not reach back that far: whatever is not in the mailbox has vanished.
    Forgotten,
}

/// What happened in a mailbox after some MODSEQ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Messages that were put or whose flags changed, as they are now.
    pub changed: UidSet,
    /// Messages that left.
    pub vanished: Vanished,
    /// Where the mailbox stands now.
    pub highest_modseq: ModSeq,
}

impl AccountState {
    /// What happened in a mailbox after `since`. `None`: no such mailbox, or it is not loaded.
    pub fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Option<Changes> {
        let _ = (mailbox, since);
        unimplemented!()
    }
}
