//! Accounts that move to another region.
//!
//! While an account moves nobody can log in and no mail is taken for it, and both are said to be temporary: its record
//! says so, in its old region until it is removed there. In its new region it is made complete in one commit, with the
//! id and the passwords that it has.

use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;

use super::domains::name_of;
use super::{AdminError, account_at};
use crate::account::{AccountEntry, AccountStatus};
use crate::entry::Entry;
use crate::look::{Directory, Look};

impl Directory {
    /// The account at an address, its own name and no other, as it stands now.
    pub async fn account_entry(&self, address: &Address) -> Result<Option<AccountEntry>, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        let state = open.look_up(vec![key.clone()], Look::Fresh).await?;
        match account_at(&state, &key, address) {
            Ok(account) => Ok(Some(account)),
            Err(AdminError::NoSuchName { .. }) if state.get(&key).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The region that has a name of one of our domains, this one included.
    pub async fn home_of(&self, address: &Address) -> Result<Option<Region>, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let Some(homes) = &self.inner.homes else { return Ok(None) };
        Ok(homes.of(&open.whole(&address.local_key())).await?)
    }

    /// Begins to move an account away: nobody gets in, and mail for it waits. Done again it does nothing.
    pub async fn begin_move(&self, address: &Address) -> Result<AccountEntry, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        self.claim(&open, &address.local_key()).await?;
        self.amend_account(address, |account| {
            match account.status {
                AccountStatus::Moving { .. } => {}
                AccountStatus::Closing => {
                    return Err(AdminError::Invalid { what: "account", why: "is being deleted".to_owned() });
                }
                before => {
                    account.status =
                        AccountStatus::Moving { logs_in: before.logs_in(), receives: before.receives() };
                    account.generation += 1;
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes the record of an account that has come from another region. Done again it does nothing.
    pub async fn adopt_account(&self, address: &Address, moved: AccountEntry) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, what) = (address.local_key(), address.to_string());
        let account =
            AccountEntry { status: moved.status.arrived(), generation: moved.generation + 1, ..moved };
        self.is_back(account.id).await?;
        open.commit(vec![key.clone()], move |state| match state.get(&key).map(|entry| &**entry) {
            Some(Entry::Account(there)) if there.id == account.id => Ok((Vec::new(), ())),
            Some(_) => Err(AdminError::Exists { what: what.clone() }),
            None => Ok((vec![state.put(&key, Entry::Account(account.clone()))], ())),
        })
        .await
    }

    /// Says that another region has the name of an account from now on.
    pub async fn hand_name_over(&self, address: &Address, to: &Region) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let Some(homes) = &self.inner.homes else { return Ok(()) };
        homes.hand_over(&open.whole(&address.local_key()), to).await
    }

    /// Removes the record of an account that has moved away. Another's, and one that is not there, is left alone.
    pub async fn end_move(&self, address: &Address, id: AccountId) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        self.leave_address(id, address).await?;
        open.commit(vec![key.clone()], move |state| {
            let ours = matches!(
                state.get(&key).map(|entry| &**entry),
                Some(Entry::Account(now)) if now.id == id && matches!(now.status, AccountStatus::Moving { .. })
            );
            Ok((if ours { state.remove(&key).into_iter().collect() } else { Vec::new() }, ()))
        })
        .await
    }
}
