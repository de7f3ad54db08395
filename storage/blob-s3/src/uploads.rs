//! Uploads that were begun and never completed: what a process leaves that ends in between. They are no segments and
//! nothing lists them with segments, but their parts take room and are paid for.

use std::time::{Duration, SystemTime};

use blob::BlobsError;

use crate::S3Blobs;
use crate::call::Fault;

/// What became of unfinished uploads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleared {
    /// Those that were given up.
    pub aborted: usize,
    /// Those that are young, or not ours.
    pub left: usize,
}

impl S3Blobs {
    /// Gives up unfinished uploads that were begun more than `age` before `now`: longer than the slowest sender of the
    /// largest message takes, a day. An upload that is given up too early fails, and its sender tries again.
    pub async fn clear_uploads(&self, age: Duration, now: SystemTime) -> Result<Cleared, BlobsError> {
        let service = &self.service;
        let mut cleared = Cleared::default();
        let (mut key_marker, mut upload_marker): (Option<String>, Option<String>) = (None, None);
        loop {
            let list = || async {
                let request = service.client.list_multipart_uploads().bucket(service.bucket());
                let request = request.prefix(service.prefix()).set_key_marker(key_marker.clone());
                request.set_upload_id_marker(upload_marker.clone()).send().await.map_err(Fault::of)
            };
            let page = service.patience.call("list_uploads", list).await;
            let page = page.map_err(|fault| fault.during("listing uploads"))?;
            for upload in page.uploads() {
                let (key, id) = (upload.key().unwrap_or_default(), upload.upload_id().unwrap_or_default());
                let begun = upload.initiated().and_then(|begun| SystemTime::try_from(*begun).ok());
                let old =
                    begun.and_then(|begun| now.duration_since(begun).ok()).is_some_and(|since| since > age);
                if old && service.segment(key).is_some() && !id.is_empty() {
                    service.abort_upload(key, id).await?;
                    cleared.aborted += 1;
                } else {
                    cleared.left += 1;
                }
            }
            key_marker = page.next_key_marker().filter(|marker| !marker.is_empty()).map(str::to_owned);
            upload_marker =
                page.next_upload_id_marker().filter(|marker| !marker.is_empty()).map(str::to_owned);
            if page.is_truncated() != Some(true) || key_marker.is_none() {
                return Ok(cleared);
            }
        }
    }
}
