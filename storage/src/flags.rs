//! Changing flags and keywords.

use engine::Build;
use mail::flag::{Flag, FlagSet};
use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::account::Account;
use crate::draft::{Draft, Refusal};
use crate::entry::{FlagsChanged, Operation};
use crate::error::StorageError;
use crate::index::MarkedRow;
use crate::marks::{KEYWORDS_MAX, Marks};
use crate::pack::pack_uids;
use crate::state::{AccountState, Part};

/// The most bytes that the UIDs of an operation may take.
const PACKED_BYTES_MAX: usize = 24 << 10;

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
        let build = move |state: &AccountState| -> Result<_, Refusal<FlagsError>> {
            let mut draft = Draft::new::<FlagsError>(state)?;
            if state.mailbox(mailbox).is_none() {
                return Err(FlagsError::NoMailbox.into());
            }
            let index = state.index(mailbox).ok_or_else(|| Refusal::Load(vec![Part::Mailbox(mailbox)]))?;
            let (marks, named) = match change.action {
                FlagAction::Remove => (known_marks(state, &change.flags), Vec::new()),
                _ => name_keywords(state, &change.flags).ok_or(FlagsError::TooManyKeywords)?,
            };
            let (add, remove) = match change.action {
                FlagAction::Add => (marks, Marks::EMPTY),
                FlagAction::Remove => (Marks::EMPTY, marks),
                FlagAction::Replace => (marks, Marks::ALL.difference(marks)),
            };
            let mut changed = Vec::new();
            let mut answer = FlagsSet::default();
            let mut modified = Vec::new();
            for row in index.marked(&uids) {
                if unchanged_since.is_some_and(|since| row.modseq > since) {
                    modified.push(row.uid);
                } else if row.marks.difference(remove).union(add) != row.marks {
                    changed.push(row);
                }
            }
            answer.modified = modified.into_iter().collect();
            if changed.is_empty() {
                return Ok(Build::nothing(answer));
            }
            for operation in named {
                draft.push(operation);
            }
            answer.changed = changed.iter().map(|row| row.uid).collect();
            for uids in split(answer.changed.clone()) {
                let (unseen, deleted) = deltas(&changed, &uids, add, remove);
                let flags = FlagsChanged { mailbox: mailbox.0, uids, add, remove, unseen, deleted };
                answer.modseq = Some(ModSeq(draft.push(Operation::Flags(flags))));
            }
            Ok(draft.build(answer))
        };
        Ok(self.commit(vec![Part::Mailbox(mailbox)], build).await?.answer)
    }
}

/// How a change of marks changes the numbers of unseen and of deleted messages.
pub(crate) fn deltas(rows: &[MarkedRow], uids: &UidSet, add: Marks, remove: Marks) -> (i32, i32) {
    let is_whole = uids.len() == rows.len() as u64;
    rows.iter().filter(|row| is_whole || uids.contains(row.uid)).fold((0, 0), |(unseen, deleted), row| {
        let new = row.marks.difference(remove).union(add);
        let by = |flag| i32::from(new.has(flag)) - i32::from(row.marks.has(flag));
        (unseen - by(Flag::Seen), deleted + by(Flag::Deleted))
    })
}

/// The set in pieces that each fit into an operation.
pub(crate) fn split(uids: UidSet) -> Vec<UidSet> {
    if pack_uids(&uids).len() <= PACKED_BYTES_MAX {
        return vec![uids];
    }
    // Only sets of many ranges are large, so there are some to divide.
    let (left, right) = uids.ranges().split_at(uids.ranges().len() / 2);
    let pieces = [left, right].map(|ranges| ranges.iter().copied().collect::<UidSet>());
    pieces.into_iter().flat_map(split).collect()
}

/// Flags as marks, leaving out keywords that the account does not know.
fn known_marks(state: &AccountState, flags: &FlagSet) -> Marks {
    let numbers =
        flags.keywords.iter().filter_map(|keyword| state.keywords().iter().position(|k| k == keyword));
    numbers.map(Marks::from_keyword).fold(Marks::from_flags(flags.flags), Marks::union)
}

/// Flags as marks, and the operations that name keywords that are new. `None`: too many.
pub(crate) fn name_keywords(state: &AccountState, flags: &FlagSet) -> Option<(Marks, Vec<Operation>)> {
    let mut marks = Marks::from_flags(flags.flags);
    let mut named: Vec<Operation> = Vec::new();
    for keyword in &flags.keywords {
        let known = state.keywords().iter().position(|known| known == keyword);
        let number = known.unwrap_or(state.keywords().len() + named.len());
        if number >= KEYWORDS_MAX {
            return None;
        }
        if known.is_none() {
            named.push(Operation::KeywordNamed { number: number as u8, name: keyword.clone() });
        }
        marks = marks.union(Marks::from_keyword(number));
    }
    Some((marks, named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::id::Uid;

    #[test]
    fn large_sets_are_split_and_lose_nothing() {
        let set: UidSet = (1..4_000_000).step_by(17).filter_map(Uid::new).collect();
        let pieces = split(set.clone());
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| pack_uids(piece).len() <= PACKED_BYTES_MAX));
        assert_eq!(pieces.iter().fold(UidSet::new(), |all, piece| all.union(piece)), set);
        let whole = UidSet::parse("1:4294967295").unwrap();
        assert_eq!(split(whole.clone()), [whole]);
    }
}
