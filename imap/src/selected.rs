//! What a session remembers of the mailbox that it has selected.

use imap_protocol::sequence::SequenceSet;
use mail::id::{MailboxId, Uid};
use mail::uid::UidSet;
use storage::Marks;

use crate::reply::Reply;
use crate::view::View;

/// The selected mailbox. The account's state is not held: a session that sleeps keeps no old state alive.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) mailbox: MailboxId,
    /// Opened by EXAMINE.
    pub(crate) read_only: bool,
    pub(crate) view: View,
    /// Keywords of which the client has been told that they exist here.
    pub(crate) keywords: Marks,
    /// The result that SEARCH RETURN (SAVE) left (RFC 5182).
    pub(crate) saved: UidSet,
}

impl Selected {
    /// A command's messages as ranges of message numbers that exist.
    pub(crate) fn resolve(&self, set: &SequenceSet, uid: bool) -> Result<Vec<(u32, u32)>, Reply> {
        let star = if uid { self.view.last_uid() } else { self.view.len() };
        match set.resolve(star) {
            Some(ranges) if uid => Ok(self.view.numbers_of_uids(&ranges)),
            Some(ranges) => {
                // "*" in an empty mailbox is no message (RFC 9051 §9, `seq-number`).
                let named =
                    !matches!(set, SequenceSet::Ranges(given) if given.is_empty()) && ranges.is_empty();
                let numbers = if named { None } else { self.view.numbers(&ranges) };
                numbers.ok_or(Reply::bad("There is no message of that number"))
            }
            None => {
                let ranges: Vec<_> =
                    self.saved.ranges().iter().map(|range| (range.first.get(), range.last.get())).collect();
                Ok(self.view.numbers_of_uids(&ranges))
            }
        }
    }

    /// A command's messages as UIDs that the client can see.
    pub(crate) fn resolve_uids(&self, set: &SequenceSet, uid: bool) -> Result<UidSet, Reply> {
        Ok(self.view.uids_of(&self.resolve(set, uid)?))
    }
}

/// Ranges as a set of UIDs.
pub(crate) fn uid_set(ranges: &[(u32, u32)]) -> UidSet {
    let mut set = UidSet::default();
    for &(first, last) in ranges {
        if let (Some(first), Some(last)) = (Uid::new(first.max(1)), Uid::new(last)) {
            set.insert_range(mail::uid::UidRange::new(first, last));
        }
    }
    set
}
