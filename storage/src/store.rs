//! All accounts.

use mail::id::AccountId;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::StorageError;
use crate::rights::Principal;

/// The accounts of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Storage {}

/// How an account begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccountSettings {
    /// Octets it may hold; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// Messages it may hold; `None`: no limit.
    pub quota_messages: Option<u64>,
}

/// Why an account was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one with this id.
    #[error("the account exists")]
    Exists,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why an account was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such account.
    #[error("no such account")]
    Missing,
    /// Trouble below, or not permitted.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Storage {
    /// Creates an account with its key, INBOX and the mailboxes of the usual roles.
    pub async fn create_account(
        &self,
        account: AccountId,
        settings: AccountSettings,
    ) -> Result<(), CreateError> {
        let _ = (account, settings);
        unimplemented!()
    }

    /// Opens an account. Cheap when it is open already.
    pub async fn account(&self, principal: &Principal, account: AccountId) -> Result<Account, OpenError> {
        let _ = (principal, account);
        unimplemented!()
    }
}
