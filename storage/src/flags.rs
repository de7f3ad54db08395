//! Changing flags and keywords.

use mail::flag::FlagSet;
use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::account::Account;
use crate::error::StorageError;

/// What to do with the flags given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagAction {
    /// Set them, keep the others.
    Add,
    /// Clear them, keep the others.
    Remove,
    /// Set them, clear the others.
    Replace,
}

/// A change of flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagChange {
    /// What to do.
    pub action: FlagAction,
    /// With which.
    pub flags: FlagSet,
}

/// Flags were changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlagsSet {
    /// Messages that changed. Those that had the flags already are not among them and keep their MODSEQ.
    pub changed: UidSet,
    /// Messages left alone because they changed after UNCHANGEDSINCE (RFC 7162 `MODIFIED`).
    pub modified: UidSet,
    /// MODSEQ of the last change; `None` when nothing changed.
    pub modseq: Option<ModSeq>,
}

/// Why flags were not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlagsError {
    /// There is no such mailbox.
    #[error("no such mailbox")]
    NoMailbox,
    /// The account cannot have more keywords.
    #[error("too many keywords")]
    TooManyKeywords,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Account {
    /// Changes the flags of those messages of the set that exist and, where `unchanged_since` is given, have not
    /// changed since.
    pub async fn set_flags(
        &self,
        mailbox: MailboxId,
        uids: UidSet,
        change: FlagChange,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsSet, FlagsError> {
        let _ = (mailbox, uids, change, unchanged_since);
        unimplemented!()
    }
}
