//! An open account.

use std::sync::Arc;

use mail::id::{AccountId, MailboxId};

use crate::error::StorageError;
use crate::rights::Principal;
use crate::state::AccountState;

/// An account, opened for a principal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Account {
    id: AccountId,
    principal: Principal,
}

impl Account {
    /// Its id.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// On whose behalf it was opened.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The newest state that this node has folded. Reads nothing.
    pub fn state(&self) -> Arc<AccountState> {
        unimplemented!()
    }

    /// The newest state, with the index of this mailbox and its expunges loaded. [`AccountState::index`] is `None` in
    /// it only when the mailbox does not exist.
    pub async fn mailbox(&self, mailbox: MailboxId) -> Result<Arc<AccountState>, StorageError> {
        let _ = mailbox;
        unimplemented!()
    }

    /// As [`Account::state`], after a look whether another node has committed something.
    pub async fn refresh(&self) -> Result<Arc<AccountState>, StorageError> {
        unimplemented!()
    }

    /// Changes whenever an operation has been folded; the value is its number.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
}
