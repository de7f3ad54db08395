//! Accounts that move to another region.
//!
//! While an account moves, both regions have a record of it that says so: nobody can log in, no mail is taken for it, and
//! both are said to be temporary. The record in the new region has a generation that is the attempt's own: whoever begins
//! another attempt gives it a greater one, so that an earlier one that still goes on comes to nothing.

use mail::address::Address;
use mail::id::AccountId;
use mail::region::Region;

use super::domains::name_of;
use super::{AdminError, account_at};
use crate::account::{AccountEntry, AccountStatus};
use crate::entry::Entry;
use crate::journey::{Journey, Stage};
use crate::look::{Directory, Look};

/// What a region is told that an account comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This attempt is the one that counts.
    Attempt(u64),
    /// The account is there already.
    Arrived,
}

impl Directory {
    /// The account at an address, its own name and no other, as it stands now.
    pub async fn account_entry(&self, address: &Address) -> Result<Option<AccountEntry>, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        let state = open.look_up(vec![key.clone()], Look::Fresh).await?;
        if state.get(&key).is_none() {
            return Ok(None);
        }
        account_at(&state, &key, address).map(Some)
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
        let key = address.local_key();
        self.claim(&open, &key).await?;
        let state = open.look_up(vec![key.clone()], Look::Fresh).await?;
        let account = account_at(&state, &key, address)?;
        not_closing(&account)?;
        // Before its log is closed: from then on whoever finds it closed would take it for deleted.
        self.under_way(account.id, address).await?;
        self.amend_account(address, |account| {
            not_closing(account)?;
            if !matches!(account.status, AccountStatus::Moving { .. }) {
                let (logs_in, receives) = (account.status.logs_in(), account.status.receives());
                account.status = AccountStatus::Moving { logs_in, receives };
                account.generation += 1;
            }
            Ok(())
        })
        .await
    }

    /// Says that an account is about to come from another region, by a new attempt that ends all earlier ones.
    pub async fn expect_account(
        &self,
        address: &Address,
        moving: &AccountEntry,
    ) -> Result<Expected, AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, what, id) = (address.local_key(), address.to_string(), moving.id);
        let moving = moving.clone();
        let expected = open
            .commit(vec![key.clone()], move |state| {
                let mut coming = moving.clone();
                match state.get(&key).map(|entry| &**entry) {
                    Some(Entry::Account(there)) if there.id != coming.id => {
                        return Err(AdminError::Exists { what: what.clone() });
                    }
                    Some(Entry::Account(there)) if !matches!(there.status, AccountStatus::Moving { .. }) => {
                        return Ok((Vec::new(), Expected::Arrived));
                    }
                    Some(Entry::Account(there)) => {
                        coming.generation = coming.generation.max(there.generation);
                    }
                    Some(_) => return Err(AdminError::Exists { what: what.clone() }),
                    None => {}
                }
                coming.generation += 1;
                let attempt = Expected::Attempt(coming.generation);
                Ok((vec![state.put(&key, Entry::Account(coming))], attempt))
            })
            .await?;
        if matches!(expected, Expected::Attempt(_)) {
            // Before anything is copied: what is copied must not be taken for what it was when the account was here.
            self.under_way(id, address).await?;
        }
        Ok(expected)
    }

    /// The account is here, complete and open: **the instant in which it moves**. Refused where another attempt has begun.
    pub async fn adopt_account(
        &self,
        address: &Address,
        id: AccountId,
        attempt: u64,
    ) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let key = address.local_key();
        open.commit(vec![key.clone()], move |state| match state.get(&key).map(|entry| &**entry) {
            Some(Entry::Account(there)) if there.id == id && there.generation == attempt => {
                let here =
                    AccountEntry { status: there.status.arrived(), generation: attempt + 1, ..there.clone() };
                Ok((vec![state.put(&key, Entry::Account(here))], ()))
            }
            // This very commit may have been proposed twice.
            Some(Entry::Account(there)) if there.id == id && there.generation == attempt + 1 => {
                Ok((Vec::new(), ()))
            }
            _ => {
                let why = "another command has begun to move it".to_owned();
                Err(AdminError::Invalid { what: "account", why })
            }
        })
        .await?;
        self.arrived(id, address).await
    }

    /// From now on deliveries may ask the account's log: it is here. Done again it does nothing.
    pub async fn arrived(&self, id: AccountId, address: &Address) -> Result<(), AdminError> {
        match self.journey(id).await? {
            Some(before) if before.stage == Stage::UnderWay => {
                Ok(self.proceed(id, Some(&before), address, &Stage::Here).await?)
            }
            _ => Ok(()),
        }
    }

    /// Says that another region has the name of an account from now on.
    pub async fn hand_name_over(&self, address: &Address, to: &Region) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let Some(homes) = &self.inner.homes else { return Ok(()) };
        homes.hand_over(&open.whole(&address.local_key()), to).await
    }

    /// Removes the record of an account that has moved away, as `old` is, with a note of what was `delivered` to it here.
    /// `journey` is what was known of it before that was looked up; where it is not that any more, nothing is done.
    pub async fn end_move(
        &self,
        address: &Address,
        old: &AccountEntry,
        journey: &Journey,
        delivered: Vec<u8>,
    ) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        let (key, id, generation) = (address.local_key(), old.id, old.generation);
        let away = Stage::Away { delivered: delivered.into() };
        self.proceed(id, Some(journey), address, &away).await?;
        self.remove_moved(&open, key, id, generation).await
    }

    /// The same, where the note was made by an earlier attempt.
    pub async fn end_move_again(&self, address: &Address, old: &AccountEntry) -> Result<(), AdminError> {
        let open = self.own_domain(&name_of(address.domain())?).await?;
        self.remove_moved(&open, address.local_key(), old.id, old.generation).await
    }

    async fn remove_moved(
        &self,
        open: &crate::look::OpenDomain,
        key: String,
        id: AccountId,
        generation: u64,
    ) -> Result<(), AdminError> {
        open.commit(vec![key.clone()], move |state| {
            let ours = matches!(
                state.get(&key).map(|entry| &**entry),
                Some(Entry::Account(now)) if now.id == id && now.generation == generation
                    && matches!(now.status, AccountStatus::Moving { .. })
            );
            Ok((if ours { state.remove(&key).into_iter().collect() } else { Vec::new() }, ()))
        })
        .await
    }

    async fn under_way(&self, id: AccountId, address: &Address) -> Result<(), AdminError> {
        let before = self.journey(id).await?;
        Ok(self.proceed(id, before.as_ref(), address, &Stage::UnderWay).await?)
    }
}

fn not_closing(account: &AccountEntry) -> Result<(), AdminError> {
    if account.status == AccountStatus::Closing {
        return Err(AdminError::Invalid { what: "account", why: "is being deleted".to_owned() });
    }
    Ok(())
}
