//! An account that goes to another installation: closed where it was, copied as it is stored, opened where it goes.
//!
//! What is copied are stored bytes under the same key, so UIDs, UIDVALIDITY, MODSEQs and ids stay. Here is what knows of
//! accounts: what closes and opens them, and which blobs they name. Whoever moves one puts the steps in order.

use std::collections::BTreeSet;

use blob::{BlobAddress, Holder, KeyId, Nonce};
use engine::State;
use mail::id::{AccountId, EmailId};
use mail::region::Region;

use crate::account::Account;
use crate::draft::Refusal;
use crate::email::EmailRecord;
use crate::entry::Operation;
use crate::error::StorageError;
use crate::ingest::Deliveries;
use crate::rights::Principal;
use crate::state::{AccountState, Part};
use crate::store::{OpenError, Storage};

/// Records read at once.
const RECORDS: usize = 256;

/// An account in which nothing can be changed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// Its last operation.
    pub seq: u64,
    /// The digest of its state.
    pub digest: [u8; 32],
}

/// A blob that an account names, and the reference by which it holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Where it was written.
    pub address: BlobAddress,
    /// The reference's name.
    pub nonce: Nonce,
}

impl Storage {
    /// Closes an account, here and for good, unless it is opened by [`Storage::open_again`].
    pub async fn close_account(&self, account: AccountId) -> Result<(), OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        open.refresh().await?;
        Ok(open.close().await?)
    }

    /// The state in which an account rests; `None`: it is in use.
    pub async fn resting(&self, account: AccountId) -> Result<Option<Resting>, OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        let state = open.load_all().await?;
        Ok(state.is_closed().then(|| Resting { seq: state.seq, digest: state.digest() }))
    }

    /// What was delivered to an account that rests, in the region where it is.
    pub async fn deliveries(&self, account: AccountId) -> Result<Deliveries, OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        let state = open.load_all().await?;
        let changes_too_fast = |_| StorageError::Unavailable("the account changes too fast".to_owned());
        Ok(state.deliveries().map_err(changes_too_fast)?)
    }

    /// Opens an account that was closed in one region and has come into another.
    pub async fn open_again(
        &self,
        account: AccountId,
        from: &Region,
        into: &Region,
    ) -> Result<(), OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        open.refresh().await?;
        let opened = Operation::Opened { from: from.to_string(), into: into.to_string() };
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            if !state.is_closed() {
                return Ok(engine::Build::nothing(()));
            }
            Ok(engine::Build::new(vec![opened.clone()], ()))
        };
        open.commit::<_, StorageError, _>(Vec::new(), build).await?;
        Ok(())
    }

    /// Gives each blob that an account names to `each`, those of its archive too.
    pub async fn holdings(
        &self,
        account: AccountId,
        mut each: impl AsyncFnMut(Vec<Holding>) -> Result<(), StorageError>,
    ) -> Result<(), OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        let state = open.load_all().await?;
        let chunks = open.archive_holdings(&state).await?;
        each(chunks).await?;
        each(state.uploads.values().map(|upload| upload.holding()).collect()).await?;
        let emails: Vec<EmailId> = emails_named(&state).into_iter().map(EmailId).collect();
        for some in emails.chunks(RECORDS) {
            let mut holdings = Vec::with_capacity(some.len());
            for (email, record) in some.iter().zip(open.encoded_emails(some).await?) {
                let record =
                    record.ok_or_else(|| StorageError::Damaged(format!("email {email} has no record")))?;
                let record = EmailRecord::decode(*email, &record).map_err(StorageError::from)?;
                holdings.push(Holding { address: record.address, nonce: record.reference });
            }
            each(holdings).await?;
        }
        Ok(())
    }

    /// The holder that an account is.
    pub fn holder(account: AccountId) -> Holder {
        Holder::Account(account.0)
    }

    /// The key that an account's log and blobs are under.
    pub fn key_of(account: AccountId) -> KeyId {
        KeyId::Account(account.0)
    }
}

impl Account {
    /// Whether the account has ever moved from one region to another. A closed one does not say. As of now: a move that
    /// this process has not heard of must not be passed over.
    pub async fn has_moved(&self) -> Result<bool, StorageError> {
        let state = self.log.refresh(&[Part::Producers]).await?;
        if state.is_closed() {
            return Err(StorageError::Closed);
        }
        state.has_moved().map_err(|_| StorageError::Unavailable("the account changes too fast".to_owned()))
    }

    async fn archive_holdings(&self, state: &AccountState) -> Result<Vec<Holding>, StorageError> {
        let log = engine::LogId::account(self.id().0);
        let chunks = self.archive_chunks(state, log).await.map_err(StorageError::Damaged)?;
        let held = chunks.iter().map(|address| {
            blob::archive_holding(address)
                .map(|(address, nonce)| Holding { address, nonce })
                .ok_or_else(|| StorageError::Damaged("the address of an archive chunk is none".to_owned()))
        });
        held.collect()
    }
}

/// Emails that are in a mailbox or retained.
fn emails_named(state: &AccountState) -> BTreeSet<u64> {
    let loaded = state.mailboxes.values().filter(|mailbox| mailbox.index.is_loaded());
    let mut named: BTreeSet<u64> =
        loaded.flat_map(|mailbox| mailbox.index.iter().map(|row| row.email.0)).collect();
    for (_, trace) in state.retained.since(0).unwrap_or_default() {
        named.extend(trace.rows.iter().map(|row| row.email));
    }
    named
}
