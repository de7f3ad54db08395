//! Reading email records.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use blob::KeyId;
use bytes::Bytes;
use engine::stored::open_page;
use engine::{LogId, PageId, RowKey, Table, page_partition, with_causes};
use mail::id::EmailId;

use crate::account::Account;
use crate::body::decode_facts;
use crate::email::EmailRecord;
use crate::email_page::{EmailPage, Located};
use crate::error::StorageError;
use crate::state::{AccountState, Part};

/// How often a page may be missing because a new snapshot has replaced it.
const READS_MAX: usize = 5;

impl Account {
    /// The record of an email; `None` when it has been destroyed.
    pub async fn email(&self, email: EmailId) -> Result<Option<Arc<EmailRecord>>, StorageError> {
        Ok(self.emails(&[email]).await?.pop().flatten())
    }

    /// The records of many emails, in the order asked for. Ask for some hundreds at a time, and in the order of their
    /// numbers where there is a choice: neighbours lie on one page.
    pub async fn emails(&self, emails: &[EmailId]) -> Result<Vec<Option<Arc<EmailRecord>>>, StorageError> {
        let encoded = self.encoded_emails(emails).await?;
        let mut records = Vec::with_capacity(emails.len());
        for (email, encoded) in emails.iter().zip(encoded) {
            let Some(encoded) = encoded else {
                records.push(None);
                continue;
            };
            let mut record = EmailRecord::decode(*email, &encoded)?;
            if !record.is_complete() {
                let reader = self.storage.blobs().open(&record.address, KeyId::Account(self.id().0)).await?;
                record.complete(&decode_facts(&reader.facts().await?)?);
            }
            records.push(Some(Arc::new(record)));
        }
        Ok(records)
    }

    /// The stored forms of records.
    pub(crate) async fn encoded_emails(
        &self,
        emails: &[EmailId],
    ) -> Result<Vec<Option<Bytes>>, StorageError> {
        let mut state = self.state();
        for _ in 0..READS_MAX {
            if let Some(records) = self.try_emails(&state, emails).await? {
                return Ok(records);
            }
            // A page is gone: another snapshot is current. Whoever folds the log knows how to change over.
            let parts: Vec<Part> = emails.iter().map(|email| Part::Email(*email)).collect();
            state = self.log.with(&parts).await?;
        }
        Err(StorageError::Unavailable("the account changes too fast".to_owned()))
    }

    async fn try_emails(
        &self,
        state: &AccountState,
        emails: &[EmailId],
    ) -> Result<Option<Vec<Option<Bytes>>>, StorageError> {
        let mut found: HashMap<u64, Bytes> = HashMap::new();
        let mut wanted: BTreeMap<PageId, Vec<u64>> = BTreeMap::new();
        for email in emails {
            match state.emails.locate(email.0) {
                Located::Here(record) => drop(found.insert(email.0, record)),
                Located::Stored(page) => wanted.entry(page).or_default().push(email.0),
                Located::Nowhere => {}
            }
        }
        let Some(pages) = self.pages(wanted.keys().copied().collect()).await? else { return Ok(None) };
        for (page, emails) in pages.iter().zip(wanted.values()) {
            found.extend(emails.iter().filter_map(|email| Some((*email, page.get(*email)?))));
        }
        Ok(Some(emails.iter().map(|email| found.get(&email.0).cloned()).collect()))
    }

    /// Pages in the order asked for; `None` when one is missing.
    async fn pages(&self, ids: Vec<PageId>) -> Result<Option<Vec<Arc<EmailPage>>>, StorageError> {
        let log = LogId::account(self.id().0);
        let cache = self.storage.email_pages();
        let mut pages: HashMap<PageId, Arc<EmailPage>> =
            ids.iter().filter_map(|id| Some((*id, cache.get(&(log, *id))?))).collect();
        let missing: Vec<PageId> = ids.iter().copied().filter(|id| !pages.contains_key(id)).collect();
        if !missing.is_empty() {
            let partition = page_partition(log);
            let keys =
                missing.iter().map(|id| RowKey::new(Table::Page, partition.clone(), id.to_key().to_vec()));
            let values = self.storage.engine().rows.get_many(keys.collect()).await?;
            let sealer = self.storage.keys().sealer(KeyId::Account(self.id().0)).await?;
            for (id, value) in missing.into_iter().zip(values) {
                let Some(value) = value else { return Ok(None) };
                let plain = open_page(log, &*sealer, id, &value).map_err(|error| {
                    StorageError::Damaged(format!("page {id:?} of {log}: {}", with_causes(&error)))
                })?;
                let page = Arc::new(EmailPage::decode(&plain)?);
                cache.insert((log, id), page.clone());
                pages.insert(id, page);
            }
        }
        Ok(ids.into_iter().map(|id| pages.remove(&id)).collect())
    }
}
