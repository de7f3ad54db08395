//! Taking messages out of a mailbox.

use std::collections::HashSet;

use mail::flag::Flag;
use mail::id::{MailboxId, ModSeq};
use mail::uid::UidSet;

use crate::account::Account;
use crate::config::Config;
use crate::draft::{Draft, Refusal};
use crate::entry::{ExpungeMessages, Operation, Tally};
use crate::error::StorageError;
use crate::index::{MailboxIndex, MessageRow};
use crate::marks::Marks;
use crate::state::{AccountState, Part};

/// Messages that one operation takes out: at most 4 bytes each, so that it stays below 32 KiB.
const MESSAGES_PER_OPERATION: usize = 7_000;
/// Messages that one commit takes out, below the limit of 256 KiB for a commit.
const MESSAGES_PER_COMMIT: usize = 49_000;

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
        let uids: UidSet = rows.iter().map(|row| row.uid).collect();
        let mut tally = Tally::default();
        for row in rows {
            tally.add(row.marks, row.size);
        }
        let destroyed =
            rows.iter().map(|row| row.email.0).filter(|email| !elsewhere.contains(email)).collect();
        taken.extend_from_slice(uids.ranges());
        draft.push(Operation::Expunge(ExpungeMessages { mailbox: mailbox.0, uids, tally, destroyed }));
    }
    Ok(taken.into_iter().collect())
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
