//! Accounts.

use mail::address::Address;
use mail::id::AccountId;

use super::domains::name_of;
use super::{AdminError, NewPassword, account_at};
use crate::account::{AccountEntry, AccountStatus, Quota, QuotaChange};
use crate::entry::Entry;
use crate::look::{Directory, OpenDomain, unix_now};

/// What a new account begins with.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// The name that people see.
    pub display_name: String,
    /// Its password.
    pub password: NewPassword,
    /// What it may hold; `None`: what its domain says.
    pub quota: Option<Quota>,
}

/// What is to change; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// The name that people see.
    pub display_name: Option<String>,
    /// What it may do. An account that is being deleted stays so.
    pub status: Option<AccountStatus>,
    /// What it may hold.
    pub quota: QuotaChange,
}

impl Directory {
    /// Makes an account: first its storage, then its record.
    pub async fn create_account(&self, address: &Address, new: NewAccount) -> Result<AccountId, AdminError> {
        check_display_name(&new.display_name)?;
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        let state = open.look_up(vec![key.clone()], crate::look::Look::Fresh).await?;
        let exists = || AdminError::Exists { what: address.to_string() };
        self.claim(&open, &key).await?;
        if state.get(&key).is_some() {
            return Err(exists());
        }
        let quota = new.quota.unwrap_or(state.settings().quota);
        let now = unix_now();
        let password = self.credential(new.password, now).await?;
        let id = AccountId::random();
        self.inner.stores.create(id, address, quota).await?;
        let account = AccountEntry {
            id,
            name: address.local().to_owned(),
            display_name: new.display_name,
            status: AccountStatus::Active,
            quota,
            password,
            app_passwords: Vec::new(),
            created: now,
            generation: 1,
        };
        let (what, made_key) = (address.to_string(), key.clone());
        let made = open
            .commit(vec![key.clone()], move |state| match state.get(&made_key) {
                Some(_) => Err(AdminError::Exists { what: what.clone() }),
                None => Ok((vec![state.put(&made_key, Entry::Account(account.clone()))], ())),
            })
            .await;
        let made = match made {
            Ok(()) => self.claim_again(&open, &key).await,
            Err(error) => Err(error),
        };
        if matches!(made, Err(AdminError::Elsewhere { .. })) {
            remove_account(&open, key, id).await?;
        }
        if let Err(error) = made {
            // Undecided: the record may be there, so its storage has to stay.
            if !matches!(error, AdminError::Undecided(_))
                && let Err(left) = self.inner.stores.delete(id).await
            {
                tracing::warn!(account_id = %id, error = %left, "storage of an account that was not made stays behind");
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Changes an account.
    pub async fn change_account(
        &self,
        address: &Address,
        change: AccountChange,
    ) -> Result<AccountEntry, AdminError> {
        check_display_name(change.display_name.as_deref().unwrap_or_default())?;
        if matches!(change.status, Some(AccountStatus::Closing | AccountStatus::Moving { .. })) {
            let why = "an account closes by being deleted, and moves by being moved".to_owned();
            return Err(AdminError::Invalid { what: "status", why });
        }
        let quota = change.quota;
        let account = self
            .amend_account(address, move |account| {
                stays(account)?;
                if let Some(name) = &change.display_name {
                    account.display_name.clone_from(name);
                }
                if let Some(status) = change.status
                    && status != account.status
                {
                    account.status = status;
                    account.generation += 1;
                }
                account.quota = account.quota.changed(change.quota);
                Ok(())
            })
            .await?;
        if quota != QuotaChange::default() {
            // Said again each time, so that repeating the act mends one that was cut short here.
            self.inner.stores.set_quota(account.id, account.quota).await?;
        }
        Ok(account)
    }

    /// Deletes an account and all it holds. Cut short, it is finished by calling it again.
    pub async fn delete_account(&self, address: &Address) -> Result<AccountId, AdminError> {
        let closed = self
            .amend_account(address, |account| {
                if matches!(account.status, AccountStatus::Moving { .. }) {
                    stays(account)?;
                }
                if account.status != AccountStatus::Closing {
                    account.status = AccountStatus::Closing;
                    account.generation += 1;
                }
                Ok(())
            })
            .await;
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        let id = match closed {
            Ok(account) => account.id,
            Err(error) => {
                if matches!(error, AdminError::NoSuchName { .. }) {
                    self.release(&open, &key).await?;
                }
                return Err(error);
            }
        };
        self.forget_journey(id).await?;
        self.inner.stores.delete(id).await?;
        self.revoke_all(id).await?;
        self.unsubscribe_all(id).await?;
        remove_account(&open, key.clone(), id).await?;
        self.release(&open, &key).await?;
        Ok(id)
    }

    /// Changes an account's record in one commit. `change` can run several times.
    pub(super) async fn amend_account(
        &self,
        address: &Address,
        mut change: impl FnMut(&mut AccountEntry) -> Result<(), AdminError> + Send + 'static,
    ) -> Result<AccountEntry, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, address) = (address.local_key(), address.clone());
        open.commit(vec![key.clone()], move |state| {
            let before = account_at(state, &key, &address)?;
            let mut account = before.clone();
            change(&mut account)?;
            let operations = if account == before {
                Vec::new()
            } else {
                vec![state.put(&key, Entry::Account(account.clone()))]
            };
            Ok((operations, account))
        })
        .await
        // Whoever is logged in may not be allowed to any more.
        .inspect(|_| self.inner.logged_in.look())
    }
}

/// Removes an account's record. Somebody else may have done it, and the name may be in use again.
async fn remove_account(open: &OpenDomain, key: String, id: AccountId) -> Result<(), AdminError> {
    open.commit(vec![key.clone()], move |state| {
        let ours = matches!(state.get(&key).map(|entry| &**entry), Some(Entry::Account(now)) if now.id == id);
        Ok((if ours { state.remove(&key).into_iter().collect() } else { Vec::new() }, ()))
    })
    .await
}

/// An account that goes away is not changed any more.
fn stays(account: &AccountEntry) -> Result<(), AdminError> {
    let why = match account.status {
        AccountStatus::Closing => "is being deleted",
        AccountStatus::Moving { .. } => "is moving to another region",
        AccountStatus::Active | AccountStatus::LoginDisabled | AccountStatus::Disabled => return Ok(()),
    };
    Err(AdminError::Invalid { what: "account", why: why.to_owned() })
}

fn check_display_name(name: &str) -> Result<(), AdminError> {
    if name.len() > 256 || name.chars().any(char::is_control) {
        let why = "longer than 256 octets, or with control characters".to_owned();
        return Err(AdminError::Invalid { what: "display name", why });
    }
    Ok(())
}
