//! Uploads: bytes that an account holds for a while because a client is about to use them (RFC 8620 §6.1).
//!
//! An upload lies in a segment like any message, held by a reference of the account, and the account's log says until
//! when. It is written through the same splitter as messages, so that one which becomes an email is not written again:
//! the email gets a reference of its own. When the time is over an operation ends the upload, then its reference goes;
//! the next upload does that, so does whoever opens the account, and so does [`Account::expire_uploads`].

use blob::{BlobAddress, Holder, KeyId, Nonce};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::body::{BodyError, BodyReader, MessageWriter, StoredBody, decode_facts};
use crate::draft::{Draft, Refusal};
use crate::entry::Operation;
use crate::error::StorageError;
use crate::relocate::Holding;
use crate::state::AccountState;
use crate::store::unix_now;

/// Uploads that one operation ends; a number takes at most ten octets.
const REMOVED_PER_OPERATION: usize = 2_000;

/// An upload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Upload {
    /// Where its bytes lie.
    pub address: BlobAddress,
    /// The account's reference to them.
    pub reference: Nonce,
    /// Until when it is held for certain, in seconds since 1970.
    pub until: u32,
}

/// Names an upload within its account. It is the number of an operation, so it never comes again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UploadId(pub u64);

/// Why an upload was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UploadError {
    /// The account holds as many uploads, or octets of them, as it may, and none of them is old enough to go.
    #[error("too many uploads")]
    OverQuota,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Upload {
    /// Octets.
    pub fn size(&self) -> u64 {
        self.address.size
    }

    pub(crate) fn holding(&self) -> Holding {
        Holding { address: self.address, nonce: self.reference }
    }
}

impl AccountState {
    /// An upload that is held.
    pub fn upload(&self, id: UploadId) -> Option<&Upload> {
        self.uploads.get(&id.0)
    }

    /// All uploads that are held, the oldest first.
    pub fn uploads(&self) -> impl Iterator<Item = (UploadId, &Upload)> {
        self.uploads.iter().map(|(id, upload)| (UploadId(*id), upload))
    }
}

impl Account {
    /// A writer for an upload, whatever its bytes are.
    pub fn upload_writer(&self) -> MessageWriter {
        self.body_writer()
    }

    /// Holds what was written for as long as the configuration says. Uploads whose time is over go where they are in the
    /// way; while it is not, what is too much is refused.
    pub async fn keep_upload(&self, body: StoredBody) -> Result<UploadId, UploadError> {
        let config = self.storage.config().clone();
        let now = unix_now();
        let upload = Upload {
            address: body.address,
            reference: body.reference,
            until: now.saturating_add(config.upload_seconds),
        };
        let build = move |state: &AccountState| -> Result<_, Refusal<UploadError>> {
            let mut draft = Draft::new::<UploadError>(state)?;
            let mut bytes: u64 =
                state.uploads.values().map(Upload::size).sum::<u64>().saturating_add(upload.size());
            let mut count = state.uploads.len() + 1;
            let mut ended = Vec::new();
            for (id, old) in &*state.uploads {
                if old.until <= now {
                    bytes -= old.size();
                    count -= 1;
                    ended.push((*id, old.address, old.reference));
                }
            }
            if count > config.uploads_max || bytes > config.uploads_bytes_max {
                return Err(UploadError::OverQuota.into());
            }
            remove(&mut draft, &ended);
            let id = UploadId(draft.push(Operation::UploadPut(upload.clone())));
            Ok(draft.build((id, ended)))
        };
        match self.commit(Vec::new(), build).await {
            Ok(committed) => {
                let (id, ended) = committed.answer;
                self.let_go(&ended).await;
                Ok(id)
            }
            Err(error) => {
                // Where nobody knows the outcome the reference stays; upkeep finds it.
                if !matches!(error, UploadError::Storage(StorageError::Undecided)) {
                    self.discard(body).await;
                }
                Err(error)
            }
        }
    }

    /// Ends uploads whose time is over. Says how many.
    pub async fn expire_uploads(&self) -> Result<usize, StorageError> {
        let now = unix_now();
        self.end_uploads(move |_, upload| upload.until <= now).await
    }

    /// What an account that is opened does of its own accord. Where it fails the next one does it.
    pub(crate) async fn end_what_is_over(&self) {
        let (state, now) = (self.state(), unix_now());
        let is_due = !state.is_closed() && state.uploads.values().any(|upload| upload.until <= now);
        if is_due && let Err(error) = self.expire_uploads().await {
            tracing::debug!(account_id = %self.id(), %error, "uploads were not ended");
        }
    }

    /// Ends an upload. `false`: there was none.
    pub async fn remove_upload(&self, id: UploadId) -> Result<bool, StorageError> {
        Ok(self.end_uploads(move |found, _| found == id).await? > 0)
    }

    async fn end_uploads(
        &self,
        choose: impl Fn(UploadId, &Upload) -> bool + Clone + Send + 'static,
    ) -> Result<usize, StorageError> {
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            let mut draft = Draft::new::<StorageError>(state)?;
            let chosen = state.uploads.iter().filter(|(id, upload)| choose(UploadId(**id), upload));
            let ended: Vec<_> = chosen.map(|(id, upload)| (*id, upload.address, upload.reference)).collect();
            remove(&mut draft, &ended);
            Ok(draft.build(ended))
        };
        let ended = self.commit(Vec::new(), build).await?.answer;
        self.let_go(&ended).await;
        Ok(ended.len())
    }

    /// References go after the commit by which nothing names them any more.
    async fn let_go(&self, ended: &[(u64, BlobAddress, Nonce)]) {
        let references: Vec<_> = ended.iter().map(|(_, address, reference)| (*address, *reference)).collect();
        if !references.is_empty() {
            self.unreference(&references).await;
        }
    }

    /// The bytes of an upload. `None`: it is not held.
    pub async fn upload(&self, id: UploadId) -> Result<Option<BodyReader>, BodyError> {
        let state = self.state();
        let Some(upload) = state.upload(id) else { return Ok(None) };
        let original = self.storage.blobs().open(&upload.address, KeyId::Account(self.id().0)).await?;
        Ok(Some(BodyReader::new(Bytes::new(), original)))
    }

    /// An upload as a message that can be put into mailboxes: under a reference of its own, without writing it again.
    /// `None`: it is not held.
    pub async fn upload_as_message(&self, id: UploadId) -> Result<Option<StoredBody>, BodyError> {
        let state = self.state();
        let Some(upload) = state.upload(id) else { return Ok(None) };
        let own = self.id().0;
        let original = self.storage.blobs().open(&upload.address, KeyId::Account(own)).await?;
        let facts = decode_facts(&original.facts().await?).map_err(StorageError::from)?;
        let holder = Holder::Account(own);
        let reference =
            self.storage.blobs().reference(&upload.address, holder).await.map_err(StorageError::from)?;
        let (address, reference) = (reference.address, reference.nonce);
        Ok(Some(StoredBody { address, reference, facts, prefix: Bytes::new() }))
    }
}

fn remove(draft: &mut Draft, ended: &[(u64, BlobAddress, Nonce)]) {
    for some in ended.chunks(REMOVED_PER_OPERATION) {
        draft.push(Operation::UploadRemove { uploads: some.iter().map(|(id, ..)| *id).collect() });
    }
}

#[cfg(test)]
impl Upload {
    /// One whose stored form can stand in a test.
    pub(crate) fn sample() -> Self {
        let wrapped = postcard::from_bytes(&[7; 40]).expect("forty octets");
        let address = BlobAddress {
            segment: blob::SegmentId::default(),
            frame: 1,
            offset: 2,
            length: 3,
            size: 4,
            blob_id: blob::BlobId([5; 32]),
            key: KeyId::Account(uuid::Uuid::from_u128(6)),
            wrapped,
        };
        Self { address, reference: Nonce([8; 16]), until: 9 }
    }
}
