//! Copying and moving messages between mailboxes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroU32;

use blob::{BlobAddress, Holder, Nonce};
use bytes::Bytes;
use mail::id::{EmailId, MailboxId, ModSeq, Uid, UidValidity};
use mail::uid::UidSet;

use crate::account::Account;
use crate::draft::{Draft, Refusal};
use crate::email::EmailRecord;
use crate::entry::{CopyMessages, MoveMessages, Operation, Placed, PlacedRow, Tally};
use crate::error::StorageError;
use crate::expunge::forget_excess;
use crate::index::MessageRow;
use crate::marks::Marks;
use crate::state::{AccountState, Part};
use crate::store::unix_now;

/// Messages that one commit copies, below the limit of 256 KiB for a commit.
const MESSAGES_PER_COMMIT: usize = 5_000;
/// What a row takes in an operation, and usually it is half of that.
const ROW_BYTES: usize = 40;
/// What a record is taken to be before it has been read.
const RECORD_BYTES: usize = 4 << 10;
/// Rows and records that go into one commit.
const COMMIT_BYTES: usize = 200 << 10;
/// Rows and records that go into one operation.
const OPERATION_BYTES: usize = 28 << 10;

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
    /// Copies messages with their flags and internal dates, all or none.
    pub async fn copy(&self, from: MailboxId, uids: UidSet, to: MailboxId) -> Result<Copied, CopyError> {
        let mut copied = Copied::nothing();
        let result = self.transfer(Transfer { from, to, moves: false }, uids, &mut copied).await;
        if result.is_err() && !copied.target.is_empty() {
            // A later piece of a large set failed; its outcome stands, what came before is taken back.
            let _ = self.remove(to, copied.target).await;
            return Err(result.err().unwrap_or(CopyError::NoTarget));
        }
        result.map(|()| copied)
    }

    /// Moves messages (RFC 6851): each arrives and is gone from its old place in the same operation.
    pub async fn move_messages(
        &self,
        from: MailboxId,
        uids: UidSet,
        to: MailboxId,
    ) -> Result<Moved, CopyError> {
        let mut moved = Moved::nothing();
        match self.transfer(Transfer { from, to, moves: true }, uids, &mut moved).await {
            // RFC 6851 §3.3: messages already moved stay moved, and the client is told which.
            Err(error) if moved.source.is_empty() => Err(error),
            _ => Ok(moved),
        }
    }

    /// One commit after another, until all messages are there. Nearly always it is one.
    async fn transfer(&self, transfer: Transfer, uids: UidSet, done: &mut Copied) -> Result<(), CopyError> {
        let now = unix_now();
        let mut rest = uids;
        let mut records = Records::default();
        let mut parts = vec![Part::Mailbox(transfer.from)];
        let result = loop {
            let (wanted, prepared, config) = (rest.clone(), records.clone(), self.storage.config().clone());
            let build = move |state: &AccountState| {
                let (mut draft, step) = plan(state, &transfer, &wanted, &prepared, now)?;
                if transfer.moves && !step.source.is_empty() {
                    forget_excess(&mut draft, state, &config);
                }
                Ok(draft.build(step))
            };
            match self.commit(parts.clone(), build).await {
                Ok(committed) => {
                    let step: Step = committed.answer;
                    records.0.retain(|email, _| !step.used.contains(email));
                    done.uid_validity = step.uid_validity;
                    if let Some(last) = step.source.last() {
                        done.source = done.source.union(&step.source);
                        done.target = done.target.union(&step.target);
                        done.modseq = Some(ModSeq(step.modseq));
                        rest = match last.get().checked_add(1).and_then(Uid::new) {
                            Some(next) => rest.clip(next..=Uid::MAX),
                            None => UidSet::new(),
                        };
                    }
                    if step.is_last {
                        break Ok(());
                    }
                }
                Err(PlanError::Records(emails)) => {
                    if let Err(error) = self.prepare_records(emails, &mut records).await {
                        break Err(error.into());
                    }
                    parts = vec![Part::Mailbox(transfer.from), Part::Mailbox(transfer.to)];
                }
                Err(PlanError::Copy(error)) => break Err(error),
            }
        };
        if !matches!(result, Err(CopyError::Storage(StorageError::Undecided))) {
            let unused: Vec<_> = records.0.values().map(|record| record.held).collect();
            self.unreference(&unused).await;
        }
        result
    }

    /// Gives emails that are to be copied into a mailbox that holds them a second record each.
    async fn prepare_records(&self, emails: Vec<u64>, records: &mut Records) -> Result<(), StorageError> {
        let ids: Vec<EmailId> = emails.iter().copied().map(EmailId).collect();
        let encoded = self.encoded_emails(&ids).await?;
        let mut found = Vec::new();
        for (id, encoded) in ids.into_iter().zip(encoded) {
            let encoded =
                encoded.ok_or_else(|| StorageError::Damaged(format!("email {id} has no record")))?;
            found.push((id, EmailRecord::decode(id, &encoded)?.address, encoded));
        }
        let addresses: Vec<_> = found.iter().map(|(_, address, _)| *address).collect();
        let references =
            self.storage.blobs().reference_many(&addresses, Holder::Account(self.id().0)).await?;
        for ((id, _, encoded), reference) in found.into_iter().zip(references) {
            let reference = reference?;
            let record = EmailRecord::encode_again(&encoded, &reference)?;
            records.0.insert(id.0, Record { record, held: (reference.address, reference.nonce) });
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Transfer {
    from: MailboxId,
    to: MailboxId,
    moves: bool,
}

/// Records for new emails, by the email that each is another one of.
#[derive(Clone, Default)]
struct Records(HashMap<u64, Record>);

#[derive(Clone)]
struct Record {
    record: Bytes,
    held: (BlobAddress, Nonce),
}

/// What one commit did.
struct Step {
    uid_validity: UidValidity,
    source: UidSet,
    target: UidSet,
    /// Emails whose prepared records were used.
    used: Vec<u64>,
    modseq: u64,
    is_last: bool,
}

enum PlanError {
    /// These emails need another record, since the mailbox holds them already.
    Records(Vec<u64>),
    Copy(CopyError),
}

impl From<StorageError> for PlanError {
    fn from(error: StorageError) -> Self {
        Self::Copy(error.into())
    }
}

impl From<CopyError> for Refusal<PlanError> {
    fn from(error: CopyError) -> Self {
        Self::Error(PlanError::Copy(error))
    }
}

impl Copied {
    fn nothing() -> Self {
        let uid_validity = UidValidity(NonZeroU32::MIN);
        Self { uid_validity, source: UidSet::new(), target: UidSet::new(), modseq: None }
    }
}

fn plan(
    state: &AccountState,
    transfer: &Transfer,
    uids: &UidSet,
    records: &Records,
    now: u32,
) -> Result<(Draft, Step), Refusal<PlanError>> {
    let mut draft = Draft::new::<PlanError>(state)?;
    let source = state.mailboxes.get(&transfer.from.0).ok_or(CopyError::NoSource)?;
    let target = &state.mailboxes.get(&transfer.to.0).ok_or(CopyError::NoTarget)?.root;
    if !source.index.is_loaded() {
        return Err(Refusal::Load(vec![Part::Mailbox(transfer.from)]));
    }
    let mut rows: Vec<MessageRow> = source.index.select(uids).take(MESSAGES_PER_COMMIT + 1).collect();
    let again = held_by_target(state, transfer, &rows)?;
    let mut bytes = 0;
    let fitting = rows.iter().take(MESSAGES_PER_COMMIT).take_while(|row| {
        bytes += cost(row, &again, records);
        bytes <= COMMIT_BYTES
    });
    let fitting = fitting.count();
    let is_last = fitting == rows.len();
    rows.truncate(fitting);
    if !transfer.moves {
        let (mut messages, mut bytes) = (0, 0);
        for row in source.index.select(uids) {
            messages += 1;
            bytes += u64::from(row.size);
        }
        if !state.quota().has_room(messages, bytes) {
            return Err(CopyError::OverQuota.into());
        }
    }
    if target.uid_next + rows.len() as u64 > u64::from(u32::MAX) + 1 {
        return Err(CopyError::NoUids.into());
    }
    let again: BTreeSet<u64> =
        rows.iter().map(|row| row.email.0).filter(|email| again.contains(email)).collect();
    let unprepared: Vec<u64> = again.iter().copied().filter(|email| !records.0.contains_key(email)).collect();
    if !unprepared.is_empty() {
        return Err(Refusal::Error(PlanError::Records(unprepared)));
    }
    let (mut next_uid, mut next_email) = (target.uid_next, state.base.next_email);
    let first_uid = next_uid;
    for rows in pieces(&rows, &again, records) {
        let mut placed = Placed {
            mailbox: transfer.to.0,
            first_uid: next_uid as u32,
            saved_date: now,
            rows: Vec::with_capacity(rows.len()),
            records: Vec::new(),
        };
        let mut shared = Vec::new();
        let mut left = Vec::new();
        for row in rows {
            let mut copy = PlacedRow::from(row);
            if let Some(record) = again.contains(&row.email.0).then(|| records.0.get(&row.email.0)).flatten()
            {
                if transfer.moves {
                    left.push(row.email.0);
                }
                copy.email = next_email;
                copy.marks = copy.marks.difference(Marks::SHARED);
                placed.records.push((next_email, record.record.clone()));
                next_email += 1;
            } else if !transfer.moves {
                copy.marks = copy.marks.union(Marks::SHARED);
                if copy.marks != row.marks {
                    shared.push(row.uid);
                }
            }
            placed.rows.push(copy);
        }
        next_uid += rows.len() as u64;
        let from = transfer.from.0;
        if transfer.moves {
            let uids = rows.iter().map(|row| row.uid).collect();
            let mut tally = Tally::default();
            for row in rows {
                tally.add(row.marks, row.size);
            }
            let moved = MoveMessages { from, uids, tally, placed };
            draft.push(if left.is_empty() {
                Operation::Move(moved)
            } else {
                Operation::MoveShared { moved, left }
            });
        } else {
            let shared = shared.into_iter().collect();
            draft.push(Operation::Copy(CopyMessages { from, shared, placed }));
        }
    }
    let uids_given =
        Uid::new(first_uid as u32).zip(Uid::new((next_uid - 1) as u32)).filter(|_| !rows.is_empty());
    let step = Step {
        uid_validity: UidValidity(target.uid_validity),
        source: rows.iter().map(|row| row.uid).collect(),
        target: uids_given.map_or_else(UidSet::new, |(first, last)| UidSet::from_range(first, last)),
        used: again.into_iter().collect(),
        modseq: draft.last(),
        is_last,
    };
    Ok((draft, step))
}

/// Emails among these rows that the mailbox to copy to holds already.
fn held_by_target(
    state: &AccountState,
    transfer: &Transfer,
    rows: &[MessageRow],
) -> Result<BTreeSet<u64>, Refusal<PlanError>> {
    if transfer.from == transfer.to {
        // A message moved to where it is only gets a new UID; a copy beside it is another email.
        return Ok(if transfer.moves {
            BTreeSet::new()
        } else {
            rows.iter().map(|row| row.email.0).collect()
        });
    }
    // An email that was never copied is in one mailbox only, and no look at the other is needed.
    let is_shared = |row: &&MessageRow| !row.marks.intersection(Marks::SHARED).is_empty();
    let shared: HashSet<u64> = rows.iter().filter(is_shared).map(|row| row.email.0).collect();
    if shared.is_empty() {
        return Ok(BTreeSet::new());
    }
    let index = state.index(transfer.to).ok_or_else(|| Refusal::Load(vec![Part::Mailbox(transfer.to)]))?;
    Ok(index.emails().filter(|email| shared.contains(email)).collect())
}

/// About how many bytes a row takes in an operation, with the record of a new email.
fn cost(row: &MessageRow, again: &BTreeSet<u64>, records: &Records) -> usize {
    let record = || records.0.get(&row.email.0).map_or(RECORD_BYTES, |record| record.record.len() + 16);
    ROW_BYTES + if again.contains(&row.email.0) { record() } else { 0 }
}

/// Rows in pieces that each fit into an operation.
fn pieces<'a>(rows: &'a [MessageRow], again: &BTreeSet<u64>, records: &Records) -> Vec<&'a [MessageRow]> {
    let mut pieces = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        let more = cost(row, again, records);
        if bytes + more > OPERATION_BYTES && at > start {
            pieces.push(&rows[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    if start < rows.len() {
        pieces.push(&rows[start..]);
    }
    pieces
}
