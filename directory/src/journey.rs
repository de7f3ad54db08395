//! Accounts that move between regions, as the delivery of mail has to know of them: mail that was on its way to one that
//! has gone is sent after it, and what was delivered before it went is not sent again.
//!
//! A row for each account that has ever begun to move, under its id. It is sealed like all that says who somebody is, and
//! stays as long as the account is not deleted here: a message can be kept back for as long as an operator likes.

use bytes::Bytes;
use engine::{RowKey, Table};
use mail::address::Address;
use mail::id::AccountId;
use serde::{Deserialize, Serialize};

use crate::account::AccountStatus;
use crate::entry::Entry;
use crate::look::{Directory, Look, Temporary, temporary};

const PARTITION: &[u8] = b"journey/";
const KEY: &[u8] = b"stage";
/// The first byte of what is sealed.
const VERSION: u8 = 1;

/// What is known of an account that has ever begun to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// Its address.
    pub address: Address,
    /// How far it is.
    pub stage: Stage,
    /// The row as it is stored, which is another each time that it is written.
    row: Bytes,
}

/// How far an account is on its way, as its old or new region sees it. The order of the variants is part of the stored format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It leaves or comes, and its log must not be asked: it may be half a copy. Whoever has something for it waits.
    UnderWay,
    /// It is here, and its log is the truth.
    Here,
    /// It is in another region, for good or not.
    Away {
        /// What was delivered to it here, in storage's words.
        delivered: Bytes,
    },
}

impl Directory {
    /// Whether this is one of several regions.
    pub fn has_regions(&self) -> bool {
        self.inner.homes.is_some()
    }

    /// What is known of an account that has ever begun to move. `None`: it has not, or was deleted here.
    pub async fn journey(&self, account: AccountId) -> Result<Option<Journey>, Temporary> {
        if !self.has_regions() {
            return Ok(None);
        }
        let row = self.rows().get(row(account)).await.map_err(|error| temporary(&error))?;
        let Some(row) = row else { return Ok(None) };
        let plain = self.registry_sealer().await?.open(&binding(account), &row).map_err(|_| damaged())?;
        let (address, stage) = match plain.split_first() {
            Some((&VERSION, payload)) => {
                postcard::from_bytes::<(&str, Stage)>(payload).map_err(|_| damaged())?
            }
            _ => return Err(damaged()),
        };
        let address = Address::parse(address).map_err(|_| damaged())?;
        Ok(Some(Journey { address, stage, row }))
    }

    /// The same of an account whose log is open: where its record says that it is in use, it is here, even if whoever moved
    /// it did not come to say so.
    pub async fn journey_of_open(&self, account: AccountId) -> Result<Option<Journey>, Temporary> {
        let Some(journey) = self.journey(account).await? else { return Ok(None) };
        if journey.stage != Stage::UnderWay || !self.is_in_use(account, &journey.address).await? {
            return Ok(Some(journey));
        }
        self.proceed(account, Some(&journey), &journey.address, &Stage::Here).await?;
        self.journey(account).await
    }

    async fn is_in_use(&self, account: AccountId, address: &Address) -> Result<bool, Temporary> {
        let Some(name) = address.domain().name() else { return Ok(false) };
        let Some(domain) = self.domain(name, Look::Fresh).await? else { return Ok(false) };
        let key = address.local_key();
        let state = domain.look_up(vec![key.clone()], Look::Fresh).await?;
        Ok(matches!(
            state.get(&key).map(|entry| &**entry),
            Some(Entry::Account(there)) if there.id == account
                && !matches!(there.status, AccountStatus::Moving { .. } | AccountStatus::Closing)
        ))
    }

    /// The next stage of an account's journey, unless somebody else has written another one since `before` was read.
    pub(crate) async fn proceed(
        &self,
        account: AccountId,
        before: Option<&Journey>,
        address: &Address,
        stage: &Stage,
    ) -> Result<(), Temporary> {
        let plain = postcard::to_extend(&(address.to_string(), stage), vec![VERSION]);
        let plain = plain.map_err(|error| Temporary(error.to_string()))?;
        let value = Bytes::from(self.registry_sealer().await?.seal(&binding(account), &plain));
        let before = before.map(|before| before.row.clone());
        match self.rows().replace_if(row(account), before, Some(value)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Temporary("another process moves the account".to_owned())),
            Err(error) => Err(temporary(&error)),
        }
    }

    /// The account is being deleted here: whoever has something for it is told so.
    pub(crate) async fn forget_journey(&self, account: AccountId) -> Result<(), Temporary> {
        if !self.has_regions() {
            return Ok(());
        }
        let before = self.rows().get(row(account)).await.map_err(|error| temporary(&error))?;
        if before.is_none() {
            return Ok(());
        }
        match self.rows().replace_if(row(account), before, None).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Temporary("another process moves the account".to_owned())),
            Err(error) => Err(temporary(&error)),
        }
    }
}

fn row(account: AccountId) -> RowKey {
    RowKey::new(Table::Mark, binding(account), KEY)
}

fn binding(account: AccountId) -> Vec<u8> {
    [PARTITION, account.0.as_bytes()].concat()
}

fn damaged() -> Temporary {
    Temporary("what is known of an account that has moved cannot be read".to_owned())
}
