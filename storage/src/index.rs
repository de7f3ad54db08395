//! The index of a mailbox: one row per message, ascending by UID.

use std::ops::Range;

use mail::id::{EmailId, ModSeq, ThreadId, Uid};

use crate::date::InternalDate;
use crate::marks::Marks;

/// A message in a mailbox: all that listing, sorting and resynchronising need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageRow {
    /// Its UID.
    pub uid: Uid,
    /// The email it is.
    pub email: EmailId,
    /// The operation that last changed it.
    pub modseq: ModSeq,
    /// The operation that put it here.
    pub created: ModSeq,
    /// Flags and keywords; names of keywords stand in the account's root.
    pub marks: Marks,
    /// RFC822.SIZE.
    pub size: u32,
    /// INTERNALDATE.
    pub internal_date: InternalDate,
    /// When it was put here (RFC 8514), in seconds since 1970.
    pub saved_date: u32,
    /// Its thread.
    pub thread: ThreadId,
}

/// The messages of a mailbox. Cheap to clone, never changes.
#[derive(Clone, Debug, Default)]
pub struct MailboxIndex {}

impl MailboxIndex {
    /// Number of messages.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message at a position (IMAP's sequence number less one).
    pub fn get(&self, position: usize) -> Option<MessageRow> {
        let _ = position;
        unimplemented!()
    }

    /// The position of a UID; `Err`: where it would stand.
    pub fn find(&self, uid: Uid) -> Result<usize, usize> {
        let _ = uid;
        unimplemented!()
    }

    /// The message with this UID.
    pub fn by_uid(&self, uid: Uid) -> Option<MessageRow> {
        self.find(uid).ok().and_then(|position| self.get(position))
    }

    /// All messages, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = MessageRow> + '_ {
        self.range(0..self.len())
    }

    /// The messages at these positions, clipped to what there is.
    pub fn range(&self, positions: Range<usize>) -> impl DoubleEndedIterator<Item = MessageRow> + '_ {
        positions.filter_map(|position| self.get(position))
    }

    /// The highest UID.
    pub fn last_uid(&self) -> Option<Uid> {
        unimplemented!()
    }

    /// Position of the first message without `\Seen`.
    pub fn first_unseen(&self) -> Option<usize> {
        unimplemented!()
    }
}
