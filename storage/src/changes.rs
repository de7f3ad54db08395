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
    /// What happened in a mailbox after `since`. `None`: no such mailbox, or what is needed is not loaded (see
    /// [`crate::Account::changes`]).
    pub(crate) fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Option<Changes> {
        let index = self.index(mailbox)?;
        let highest_modseq = ModSeq(self.mailboxes.get(&mailbox.0)?.root.highest_modseq);
        Some(Changes {
            changed: index.changed_since(since),
            vanished: self.vanished(mailbox, since)?,
            highest_modseq,
        })
    }

    /// UIDs of messages that left a mailbox after `since`. `None`: not loaded.
    fn vanished(&self, mailbox: MailboxId, since: ModSeq) -> Option<Vanished> {
        if since.0 < self.expunged.horizon() {
            return Some(Vanished::Forgotten);
        }
        let traces = self.expunged.since(since.0).ok()?;
        let ranges = traces.into_iter().filter(|(_, trace)| trace.mailbox == mailbox.0);
        Some(Vanished::Known(ranges.flat_map(|(_, trace)| trace.uids.ranges().iter().copied()).collect()))
    }
}
