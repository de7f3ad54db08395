//! What administrators do: domains, accounts, aliases, lists, passwords.
//!
//! Each verb is one commit on one log. An account's storage is created before its record and goes after it, so that a
//! name that resolves always has somewhere to put its mail; a creation that was cut short leaves an empty store that
//! nobody refers to, and is repeated under a new id.

mod accounts;
mod aliases;
mod domains;
mod lists;
mod moves;
mod passwords;
mod registration;

use async_trait::async_trait;
use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;

pub use accounts::{AccountChange, NewAccount};
pub use domains::{DomainView, NamePage};
pub use moves::Expected;
pub use passwords::NewPassword;
pub use registration::Registered;

use crate::account::{AccountEntry, Quota};
use crate::credential::PasswordRefused;
use crate::entry::Entry;
use crate::look::{DomainState, Temporary};

/// The accounts' storage, as far as the directory has to tell it something. Implemented where both are known.
#[async_trait]
pub trait AccountStores: Send + Sync + 'static {
    /// Makes the storage of a new account.
    async fn create(&self, account: AccountId, address: &Address, quota: Quota) -> Result<(), Temporary>;
    /// Sets what an account may hold.
    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), Temporary>;
    /// Closes the storage of an account that is going, and gives up what it held. Called again until it succeeds.
    async fn delete(&self, account: AccountId) -> Result<(), Temporary>;
}

/// Why an administrative act was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The domain is not one of ours.
    #[error("no such domain: {0}")]
    NoSuchDomain(String),
    /// The domain has no names of its own.
    #[error("{domain} is another name for {of}; change it there")]
    DomainAlias {
        /// The domain that was named.
        domain: String,
        /// The one it stands for.
        of: String,
    },
    /// The domain still has names, or other domains stand for it.
    #[error("domain {domain} is still in use: {by}")]
    DomainInUse {
        /// The domain.
        domain: String,
        /// What uses it.
        by: String,
    },
    /// There is no such account, alias or list.
    #[error("no such {kind}: {address}")]
    NoSuchName {
        /// What was looked for: `account`, `alias`, `list`.
        kind: &'static str,
        /// Under which address.
        address: String,
    },
    /// The account has no such thing.
    #[error("no such {kind}: {name}")]
    NoSuchPart {
        /// What was looked for.
        kind: &'static str,
        /// Under which name.
        name: String,
    },
    /// There is one already.
    #[error("{what} exists already")]
    Exists {
        /// What exists.
        what: String,
    },
    /// Another region has the name.
    #[error("{name} is in region {region}")]
    Elsewhere {
        /// The name.
        name: String,
        /// The region.
        region: Region,
    },
    /// The request cannot be carried out as it is.
    #[error("{what}: {why}")]
    Invalid {
        /// Which part of it.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A limit of the configuration.
    #[error("more than {max} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// The password was not taken.
    #[error(transparent)]
    Password(#[from] PasswordRefused),
    /// Whether it was done is not known; look before trying again.
    #[error("it is not known whether this was done: {0}")]
    Undecided(String),
    /// Nothing was done; try again later.
    #[error(transparent)]
    Temporary(#[from] Temporary),
}

impl AdminError {
    fn no_such(kind: &'static str, address: &Address) -> Self {
        Self::NoSuchName { kind, address: address.to_string() }
    }
}

/// The account under a key, or the error that says there is none.
fn account_at(state: &DomainState, key: &str, address: &Address) -> Result<AccountEntry, AdminError> {
    match state.get(key).map(|entry| &**entry) {
        Some(Entry::Account(account)) => Ok(account.clone()),
        _ => Err(AdminError::no_such("account", address)),
    }
}
