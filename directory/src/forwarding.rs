//! Where accounts have gone that were here: mail that was on its way to one of them is sent after it.
//!
//! A row for each, with the account's address, which is sealed like all that says who somebody is. It stays: a message can
//! be kept back for as long as an operator likes.

use bytes::Bytes;
use engine::{RowKey, Table};
use mail::address::Address;
use mail::id::AccountId;

use crate::look::{Directory, Temporary, temporary};

const PARTITION: &[u8] = b"gone/";
const KEY: &[u8] = b"address";

impl Directory {
    /// The address of an account that was here and has moved to another region; its mail is to be sent there.
    pub async fn moved_away(&self, account: AccountId) -> Result<Option<Address>, Temporary> {
        if !self.has_regions() {
            return Ok(None);
        }
        let Some(sealed) = self.rows().get(row(account)).await.map_err(|error| temporary(&error))? else {
            return Ok(None);
        };
        let sealer = self.registry_sealer().await?;
        let damaged = || Temporary("the address of an account that has moved cannot be read".to_owned());
        let plain = sealer.open(&binding(account), &sealed).map_err(|_| damaged())?;
        let text = String::from_utf8(plain).map_err(|_| damaged())?;
        Address::parse(&text).map(Some).map_err(|_| damaged())
    }

    /// From now on mail for the account is sent after it.
    pub(crate) async fn leave_address(&self, account: AccountId, address: &Address) -> Result<(), Temporary> {
        let sealer = self.registry_sealer().await?;
        let value = Bytes::from(sealer.seal(&binding(account), address.to_string().as_bytes()));
        // Conditional like all that is told from others' by its absence; there is nothing to lose in a second attempt.
        let before = self.rows().get(row(account)).await.map_err(|error| temporary(&error))?;
        let put = self.rows().replace_if(row(account), before, Some(value)).await;
        put.map_err(|error| temporary(&error)).and_then(|put| {
            if put { Ok(()) } else { Err(Temporary("another process moves the account".to_owned())) }
        })
    }

    /// The account has come back.
    pub(crate) async fn is_back(&self, account: AccountId) -> Result<(), Temporary> {
        let before = self.rows().get(row(account)).await.map_err(|error| temporary(&error))?;
        if before.is_some() {
            self.rows().replace_if(row(account), before, None).await.map_err(|error| temporary(&error))?;
        }
        Ok(())
    }
}

fn row(account: AccountId) -> RowKey {
    RowKey::new(Table::Mark, binding(account), KEY)
}

fn binding(account: AccountId) -> Vec<u8> {
    [PARTITION, account.0.as_bytes()].concat()
}
