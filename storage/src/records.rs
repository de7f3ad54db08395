//! Reading email records.

use std::sync::Arc;

use mail::id::EmailId;

use crate::account::Account;
use crate::email::EmailRecord;
use crate::error::StorageError;

impl Account {
    /// The record of an email; `None` when it has been destroyed.
    pub async fn email(&self, email: EmailId) -> Result<Option<Arc<EmailRecord>>, StorageError> {
        Ok(self.emails(&[email]).await?.pop().flatten())
    }

    /// The records of many emails, in the order asked for. Ask for some hundreds at a time.
    pub async fn emails(&self, emails: &[EmailId]) -> Result<Vec<Option<Arc<EmailRecord>>>, StorageError> {
        let _ = emails;
        unimplemented!()
    }
}
