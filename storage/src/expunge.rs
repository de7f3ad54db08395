//! Taking messages out of a mailbox.

use std::collections::HashSet;

use mail::flag::Flag;
use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::account::Account;
use crate::config::Config;
use crate::draft::{Draft, Refusal};
use crate::entry::{ExpungeEmails, Operation, Tally};
use crate::error::StorageError;
use crate::index::{MailboxIndex, MessageRow};
use crate::marks::Marks;
use crate::state::{AccountState, Part};

/// Messages that one operation takes out: hardly more than 7 bytes each, so that it stays below 32 KiB.
pub(crate) const MESSAGES_PER_OPERATION: usize = 4_000;
/// Messages that one commit takes out, below the limit of 256 KiB for a commit.
const MESSAGES_PER_COMMIT: usize = 32_000;

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
        self.take_out(mailbox, move |index| {
            let deleted = index.with_flag(Flag::Deleted);
            match &uids {
                Some(uids) => deleted.intersection(uids),
                None => deleted,
            }
        })
        .await
    }

    /// Takes out the messages of the set, whatever their flags.
    pub async fn remove(&self, mailbox: MailboxId, uids: UidSet) -> Result<Expunged, ExpungeError> {
        self.take_out(mailbox, move |index| index.existing(&uids)).await
    }

    async fn take_out(
        &self,
        mailbox: MailboxId,
        choose: impl Fn(&MailboxIndex) -> UidSet + Clone + Send + 'static,
    ) -> Result<Expunged, ExpungeError> {
        let mut expunged = Expunged::default();
        loop {
            let choose = choose.clone();
            let config = self.storage.config().clone();
            let build = move |state: &AccountState| -> Result<_, Refusal<ExpungeError>> {
                let mut draft = Draft::new::<ExpungeError>(state)?;
                if state.mailbox(mailbox).is_none() {
                    return Err(ExpungeError::NoMailbox.into());
                }
                let index =
                    state.index(mailbox).ok_or_else(|| Refusal::Load(vec![Part::Mailbox(mailbox)]))?;
                let chosen = choose(index);
                let taken = take_out(&mut draft, state, mailbox, index, &chosen)?;
                let modseq = draft.last();
                if !taken.is_empty() {
                    forget_excess(&mut draft, state, &config);
                }
                let is_all = taken == chosen;
                Ok(draft.build((taken, is_all, modseq)))
            };
            let (taken, is_all, modseq) = self.commit(vec![Part::Mailbox(mailbox)], build).await?.answer;
            if !taken.is_empty() {
                expunged.modseq = Some(ModSeq(modseq));
                expunged.uids = expunged.uids.union(&taken);
            }
            if is_all {
                return Ok(expunged);
            }
        }
    }
}

/// Adds what takes messages out of a mailbox, as many as go into one commit. Returns which these are.
pub(crate) fn take_out<E>(
    draft: &mut Draft,
    state: &AccountState,
    mailbox: MailboxId,
    index: &MailboxIndex,
    uids: &UidSet,
) -> Result<UidSet, Refusal<E>> {
    if uids.is_empty() {
        return Ok(UidSet::new());
    }
    let rows: Vec<MessageRow> = index.select(uids).take(MESSAGES_PER_COMMIT).collect();
    let elsewhere = emails_elsewhere(state, mailbox, &rows).map_err(Refusal::Load)?;
    let mut taken = Vec::with_capacity(rows.len());
    for rows in rows.chunks(MESSAGES_PER_OPERATION) {
        let operation = expunge_emails(mailbox, rows, |email| elsewhere.contains(&email));
        taken.extend_from_slice(operation.uids.ranges());
        draft.push(Operation::ExpungeEmails(operation));
    }
    Ok(taken.into_iter().collect())
}

/// What takes these messages out of a mailbox. `is_elsewhere` says which of their emails are in another one after it.
pub(crate) fn expunge_emails(
    mailbox: MailboxId,
    rows: &[MessageRow],
    is_elsewhere: impl Fn(u64) -> bool,
) -> ExpungeEmails {
    let mut tally = Tally::default();
    for row in rows {
        tally.add(row.marks, row.size);
    }
    let (left, gone): (Vec<&MessageRow>, Vec<&MessageRow>) =
        rows.iter().partition(|row| is_elsewhere(row.email.0));
    ExpungeEmails {
        mailbox: mailbox.0,
        uids: rows.iter().map(|row| row.uid).collect(),
        tally,
        destroyed: gone.iter().map(|row| row.email.0).collect(),
        threads: gone.iter().map(|row| row.email.0.wrapping_sub(row.thread.0)).collect(),
        left: left.iter().map(|row| row.email.0).collect(),
    }
}

/// Forgets the oldest expunges where there are too many.
pub(crate) fn forget_excess(draft: &mut Draft, state: &AccountState, config: &Config) {
    if let Some(expunged_to) = state.expunged.excess(config.expunged_bytes_max) {
        draft.push(Operation::Forget { expunged_to, retained_to: 0, emails: Vec::new() });
    }
}

/// Emails among these that are in another mailbox too. Only those marked as shared can be, and only for them other
/// mailboxes are looked at. `Err`: what must be loaded for that.
fn emails_elsewhere(
    state: &AccountState,
    mailbox: MailboxId,
    rows: &[MessageRow],
) -> Result<HashSet<u64>, Vec<Part>> {
    let is_shared = |row: &&MessageRow| !row.marks.intersection(Marks::SHARED).is_empty();
    let shared: HashSet<u64> = rows.iter().filter(is_shared).map(|row| row.email.0).collect();
    if shared.is_empty() {
        return Ok(shared);
    }
    let others = || state.mailboxes.iter().filter(|(id, other)| **id != mailbox.0 && other.root.messages > 0);
    let missing: Vec<Part> = others()
        .filter(|(_, other)| !other.index.is_loaded())
        .map(|(id, _)| Part::Mailbox(MailboxId(*id)))
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let present = others().flat_map(|(_, other)| other.index.emails());
    Ok(present.filter(|email| shared.contains(email)).collect())
}
