//! Email records: what never changes about a message, whatever mailbox it is in.

use bytes::Bytes;
use mail::header::HeaderSummary;
use mail::id::EmailId;
use mail::mime::Part;

use crate::account::Account;
use crate::error::StorageError;

/// What is known of an email without reading its bytes. Its body is `prefix`, then the original bytes; sizes and
/// offsets count both.
#[derive(Clone, Debug)]
pub struct EmailRecord {
    /// Its number.
    pub id: EmailId,
    /// Octets in all (RFC822.SIZE).
    pub size: u64,
    /// Octets of the header, prefix included, with the empty line that ends it.
    pub header_len: u64,
    /// Trace fields that were added on delivery.
    pub prefix: Bytes,
    /// Beginning of the text.
    pub preview: String,
    /// Whether some part is an attachment.
    pub has_attachment: bool,
}

impl EmailRecord {
    /// IMAP's ENVELOPE.
    pub fn summary(&self) -> Result<HeaderSummary, StorageError> {
        unimplemented!()
    }

    /// IMAP's BODYSTRUCTURE; ranges count from the first octet of the prefix.
    pub fn structure(&self) -> Result<Part, StorageError> {
        unimplemented!()
    }
}

impl Account {
    /// The record of an email; `None` when it has been destroyed.
    pub async fn email(&self, email: EmailId) -> Result<Option<std::sync::Arc<EmailRecord>>, StorageError> {
        Ok(self.emails(&[email]).await?.pop().flatten())
    }

    /// The records of many emails, in the order asked for. Ask for some hundreds at a time.
    pub async fn emails(
        &self,
        emails: &[EmailId],
    ) -> Result<Vec<Option<std::sync::Arc<EmailRecord>>>, StorageError> {
        let _ = emails;
        unimplemented!()
    }
}
