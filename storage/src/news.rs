//! What somebody who follows an account needs to know, to keep something beside it: which emails have come and which
//! are gone. Reads only.
//!
//! Emails are numbered in the order of the log and numbers are never given twice, so "created after some operation" and
//! "of a greater number than some email" are the same cut, and the second needs no index of any mailbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use mail::id::{EmailId, MailboxId, ModSeq};

use crate::account::Account;
use crate::error::StorageError;
use crate::state::{AccountState, Part};

/// Emails that are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destroyed {
    /// Exactly these, each in no mailbox any more.
    Known(Vec<EmailId>),
    /// The memory does not reach back that far: whatever is not in [`Account::emails_present`] is gone.
    Forgotten,
}

impl AccountState {
    /// The email that came last, whether it is still there or not. Zero: none has come.
    pub fn last_email(&self) -> EmailId {
        EmailId(self.base.next_email.saturating_sub(1))
    }
}

impl Account {
    /// The newest state, and the emails that were destroyed after `since`, ascending.
    pub async fn destroyed_since(
        &self,
        since: ModSeq,
    ) -> Result<(Arc<AccountState>, Destroyed), StorageError> {
        let state = self.log.with(&[Part::ExpungedSince(since.0)]).await?;
        if since.0 < state.expunged.horizon() {
            return Ok((state, Destroyed::Forgotten));
        }
        let traces = state.expunged.since(since.0).map_err(|page| {
            StorageError::Unavailable(format!("page {page:?} of expunges was asked for and is not loaded"))
        })?;
        let gone: BTreeSet<u64> =
            traces.into_iter().flat_map(|(_, trace)| trace.destroyed.iter().copied()).collect();
        Ok((state, Destroyed::Known(gone.into_iter().map(EmailId).collect())))
    }

    /// All emails that are in some mailbox, ascending; eight bytes for each. Loads one index after the other, so what
    /// it gives is right for emails that were neither moved nor copied meanwhile, and those are in the list in any case
    /// unless they went from a mailbox not looked at yet into one that was: `None` then, since the state has changed.
    pub async fn emails_present(&self) -> Result<Option<Vec<EmailId>>, StorageError> {
        let seq = self.state().modseq();
        let mailboxes: Vec<MailboxId> = self.state().mailboxes().map(|mailbox| mailbox.id).collect();
        let mut present = Vec::new();
        for mailbox in mailboxes {
            let state = self.mailbox(mailbox).await?;
            if let Some(index) = state.index(mailbox) {
                present.extend(index.emails().map(EmailId));
            }
        }
        present.sort_unstable();
        present.dedup();
        Ok((self.state().modseq() == seq).then_some(present))
    }
}
