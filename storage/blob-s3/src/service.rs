//! The service as segments need it: keys, requests, and what their answers say.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::ServerSideEncryption;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use blob::{BlobsError, SegmentId, SegmentInfo};
use bytes::Bytes;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::call::{Fault, Kind, Patience};
use crate::config::Encryption;
use crate::{Config, OpenError, connect};

/// The metadata that tells whose write an object is.
const STAMP: &str = "postrider-write";
/// Keys in one page of a listing; the service gives no more.
const LISTED_MAX: usize = 1000;

/// A bucket, and all that calls share.
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) patience: Patience,
    prefix: String,
    reads: Semaphore,
    /// Parts on their way.
    pub(crate) uploads: Arc<Semaphore>,
}

impl Service {
    /// Reads no network yet: credentials are looked for at the first call.
    pub(crate) async fn new(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        let client = connect::client(&config).await?;
        Ok(Self {
            client,
            patience: Patience::new(&config),
            prefix: config.key_prefix(),
            reads: Semaphore::new(config.reads_in_flight_max),
            uploads: Arc::new(Semaphore::new(config.uploads_in_flight_max)),
            config,
        })
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.config.bucket
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Keys sort as ids do, so a listing is in their order, which `Blobs::list` promises. The price is that all writes
    /// of a moment fall on one range of keys, which Amazon serves at 3 500 writes a second; groups of messages stay two
    /// orders of magnitude below it, and reads spread over the ranges that it has split.
    pub(crate) fn key(&self, segment: SegmentId) -> String {
        format!("{}{segment}", self.prefix)
    }

    /// The segment of a key, if it is one of ours.
    pub(crate) fn segment(&self, key: &str) -> Option<SegmentId> {
        let name = key.strip_prefix(&self.prefix)?;
        let id = SegmentId(Uuid::try_parse(name).ok()?);
        (id.to_string() == name).then_some(id)
    }

    pub(crate) fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        let encryption = match self.config.encryption {
            Encryption::None => None,
            Encryption::Aes256 => Some(ServerSideEncryption::Aes256),
            Encryption::Kms => Some(ServerSideEncryption::AwsKms),
        };
        (encryption, self.config.encryption_key_id.clone())
    }

    /// Stores a whole object under a key that is not in use.
    pub(crate) async fn put(&self, segment: SegmentId, body: Bytes, stamp: &Stamp) -> Result<(), BlobsError> {
        const DURING: &str = "storing a segment";
        let checksum = checksum(&body);
        let put = || async {
            let (encryption, encryption_key) = self.encryption();
            let request = self
                .client
                .put_object()
                .bucket(self.bucket())
                .key(self.key(segment))
                .if_none_match("*")
                .metadata(STAMP, &stamp.0)
                .set_server_side_encryption(encryption)
                .set_ssekms_key_id(encryption_key)
                .checksum_crc32_c(&checksum)
                .body(body.clone().into());
            request.send().await.map_err(Fault::of).map(drop)
        };
        match self.patience.call("put", put).await {
            Ok(()) => Ok(()),
            Err(fault) => self.landed(segment, stamp, body.len() as u64, fault, DURING).await,
        }
    }

    /// A write was refused because the key is in use, or because its upload is no more. That may be by the write
    /// itself: an attempt whose answer was lost. What is there tells.
    pub(crate) async fn landed(
        &self,
        segment: SegmentId,
        stamp: &Stamp,
        length: u64,
        fault: Fault,
        during: &'static str,
    ) -> Result<(), BlobsError> {
        #[cfg(any(test, feature = "sabotage"))]
        if self.config.believe_every_conflict {
            return Err(fault.about(during, segment));
        }
        if !matches!(fault.kind, Kind::Taken | Kind::NoUpload) {
            return Err(fault.about(during, segment));
        }
        let head = || async {
            let request = self.client.head_object().bucket(self.bucket()).key(self.key(segment));
            request.send().await.map_err(Fault::of)
        };
        let there = match self.patience.call("head", head).await {
            Ok(there) => there,
            Err(unknown) if unknown.kind == Kind::Passing => return Err(unknown.during(during)),
            Err(_) => return Err(fault.about(during, segment)),
        };
        let by = there.metadata().and_then(|metadata| metadata.get(STAMP));
        if by == Some(&stamp.0) && there.content_length() == i64::try_from(length).ok() {
            tracing::debug!(%segment, "an answer was lost: what is there is what was to be written");
            Ok(())
        } else {
            Err(fault.about(during, segment))
        }
    }

    /// The segment's length.
    pub(crate) async fn length(&self, segment: SegmentId) -> Result<u64, BlobsError> {
        const DURING: &str = "looking for a segment";
        if let Some(length) = self.seen_length(segment).await.map_err(|fault| fault.during(DURING))? {
            return Ok(length);
        }
        // The answer to HEAD has no body that would say what is missing: object, bucket, or the way to either.
        match self.first_byte(segment).await {
            // It came into being between the two requests, or is empty, which no segment is.
            Ok(()) => Err(Fault::passing("object not seen at first").during(DURING)),
            Err(fault) => Err(fault.about(DURING, segment)),
        }
    }

    /// The length of what is there. Nothing when the service finds nothing, be it that it does not find the bucket.
    pub(crate) async fn seen_length(&self, segment: SegmentId) -> Result<Option<u64>, Fault> {
        let head = || async {
            let request = self.client.head_object().bucket(self.bucket()).key(self.key(segment));
            match request.send().await {
                Ok(there) => {
                    let length = there.content_length().and_then(|length| u64::try_from(length).ok());
                    length.map(Some).ok_or_else(|| Fault::passing("the answer has no length"))
                }
                Err(SdkError::ServiceError(answer)) if answer.raw().status().as_u16() == 404 => Ok(None),
                Err(error) => Err(Fault::of(error)),
            }
        };
        let _permit = self.reads.acquire().await.map_err(|_| Fault::refused("shut down"))?;
        self.patience.call("head", head).await
    }

    async fn first_byte(&self, segment: SegmentId) -> Result<(), Fault> {
        let get = || async {
            let request = self.client.get_object().bucket(self.bucket()).key(self.key(segment));
            request.range("bytes=0-0").send().await.map_err(Fault::of).map(drop)
        };
        self.patience.call("get", get).await
    }

    /// Up to `length` bytes from `start` on; fewer only where the segment ends.
    pub(crate) async fn fetch(
        &self,
        segment: SegmentId,
        start: u64,
        length: u64,
    ) -> Result<Bytes, BlobsError> {
        let _permit = self.reads.acquire().await.map_err(|_| BlobsError::Closed)?;
        let piece = self.patience.call("get", || self.fetch_once(segment, start, length)).await;
        piece.map_err(|fault| match fault.kind {
            Kind::NoRange => BlobsError::OutOfRange { segment, start, end: start.saturating_add(length) },
            _ => fault.about("reading a segment", segment),
        })
    }

    async fn fetch_once(&self, segment: SegmentId, start: u64, length: u64) -> Result<Bytes, Fault> {
        let range = format!("bytes={start}-{}", start + (length - 1));
        let request = self.client.get_object().bucket(self.bucket()).key(self.key(segment));
        let request = request.range(range).checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled);
        let answer = request.send().await.map_err(Fault::of)?;
        let (first, total) = match answer.content_range() {
            Some(range) => parse_content_range(range)
                .ok_or_else(|| Fault::passing("the answer's range is unreadable"))?,
            // Some answer a range that is the whole object with the whole object.
            None => match answer.content_length().and_then(|length| u64::try_from(length).ok()) {
                Some(total) if total <= length => (0, total),
                _ => return Err(Fault::refused("ranges are not served")),
            },
        };
        if first != start || total <= start {
            return Err(Fault::passing("the answer is another range than was asked for"));
        }
        let expected = length.min(total - start) as usize;
        let mut body = answer.body;
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut received = 0;
        while let Some(piece) = body.try_next().await.map_err(|error| Fault::passing(error.to_string()))? {
            received += piece.len();
            if received > expected {
                return Err(Fault::passing("the answer is longer than its range"));
            }
            pieces.push(piece);
        }
        if received < expected {
            return Err(Fault::passing("the answer is shorter than its range"));
        }
        Ok(joined(pieces))
    }

    /// Removes an object; one that is not there is no error.
    pub(crate) async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        let delete = || async {
            let request = self.client.delete_object().bucket(self.bucket()).key(self.key(segment));
            request.send().await.map_err(Fault::of).map(drop)
        };
        match self.patience.call("delete", delete).await {
            Err(fault) if fault.kind == Kind::NoObject => Ok(()),
            other => other.map_err(|fault| fault.during("deleting a segment")),
        }
    }

    /// Up to `limit` segments after `after`.
    pub(crate) async fn list(
        &self,
        after: Option<SegmentId>,
        limit: usize,
    ) -> Result<Vec<SegmentInfo>, BlobsError> {
        let mut found = Vec::new();
        let mut after = after.map(|after| self.key(after));
        while found.len() < limit {
            let keys = (limit - found.len()).min(LISTED_MAX) as i32;
            let list = || async {
                let request = self.client.list_objects_v2().bucket(self.bucket()).prefix(&self.prefix);
                let request = request.max_keys(keys).set_start_after(after.clone());
                request.send().await.map_err(Fault::of)
            };
            let page = self.patience.call("list", list).await;
            let page = page.map_err(|fault| fault.during("listing segments"))?;
            for object in page.contents() {
                let key = object.key().unwrap_or_default();
                let length = object.size().and_then(|size| u64::try_from(size).ok());
                match (self.segment(key), length) {
                    (Some(segment), Some(length)) => {
                        found.push(SegmentInfo { segment, length, sealed: true });
                    }
                    _ => tracing::debug!(key, "not a segment; left alone"),
                }
            }
            // By the last key instead of the service's token: the next call of ours could not have that either.
            let last = page.contents().last().and_then(|object| object.key()).map(str::to_owned);
            if page.is_truncated() != Some(true) || last.is_none() {
                break;
            }
            after = last;
        }
        Ok(found)
    }
}

/// A name for one write, kept in the object's metadata: what tells an own write whose answer was lost from another's.
pub(crate) struct Stamp(pub(crate) String);

impl Stamp {
    pub(crate) const KEY: &str = STAMP;

    pub(crate) fn fresh() -> Self {
        Self(Uuid::new_v4().as_simple().to_string())
    }
}

/// CRC32C as the service has it.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes())
}

/// The pieces as one, without copying when there is one.
pub(crate) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut all = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        all.extend_from_slice(piece);
    }
    all.into()
}

/// First byte and total length of `bytes 0-9/100`.
fn parse_content_range(range: &str) -> Option<(u64, u64)> {
    let (place, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = place.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()?))
}
