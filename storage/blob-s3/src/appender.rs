//! A segment that grows: one message that is too large to share.
//!
//! Parts go out as they fill, a few at a time, and nothing can be seen before the upload is completed. A segment of less
//! than a part goes in one piece at its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use blob::{Appender, BlobsError, SegmentId};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::begun::Begun;
use crate::call::{Fault, Kind};
use crate::config::PARTS_MAX;
use crate::service::{Service, Stamp, checksum};
use crate::waiting::{Budget, Waiting};

const DURING: &str = "uploading a segment";

pub(crate) struct S3Appender {
    service: Arc<Service>,
    budget: Arc<Budget>,
    segment: SegmentId,
    stamp: Stamp,
    waiting: Waiting,
    length: u64,
    upload: Option<Upload>,
    /// A call failed or was given up half-way.
    poisoned: bool,
    /// No other appender has the id while this one lives.
    _begun: Begun,
}

struct Upload {
    id: String,
    parts: JoinSet<Result<(i32, CompletedPart), BlobsError>>,
    done: BTreeMap<i32, CompletedPart>,
    last: i32,
}

impl S3Appender {
    pub(crate) fn new(service: Arc<Service>, budget: Arc<Budget>, segment: SegmentId, begun: Begun) -> Self {
        let waiting = Waiting::new(Arc::clone(&budget));
        Self {
            service,
            budget,
            segment,
            stamp: Stamp::fresh(),
            waiting,
            length: 0,
            upload: None,
            poisoned: false,
            _begun: begun,
        }
    }

    async fn add(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        if self.poisoned {
            return Err(BlobsError::Poisoned(self.segment));
        }
        self.poisoned = true;
        for mut piece in pieces {
            self.length += piece.len() as u64;
            // Parts are cut to size: some services want all but the last to be equal.
            loop {
                let room = self.service.config.part_bytes - self.waiting.len();
                if piece.len() < room {
                    break;
                }
                self.wait_with(piece.split_to(room)).await?;
                self.send_part().await?;
            }
            self.wait_with(piece).await?;
        }
        self.poisoned = false;
        Ok(())
    }

    async fn wait_with(&mut self, piece: Bytes) -> Result<(), BlobsError> {
        let pushed = self.waiting.push(piece, &self.service.config).await;
        pushed.map_err(|source| BlobsError::from_io("keeping a part until it is full", source))
    }

    /// Sends what waits on its way.
    async fn send_part(&mut self) -> Result<(), BlobsError> {
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => Upload {
                id: self.begin_upload().await?,
                parts: JoinSet::new(),
                done: BTreeMap::new(),
                last: 0,
            },
        };
        let room = self.service.config.parts_in_flight_max;
        let sent = upload.collect(room - 1).await;
        // Kept in any case: whoever gives the segment up has to name it.
        let upload = self.upload.insert(upload);
        sent?;
        if upload.last == PARTS_MAX {
            return Err(
                Fault::refused("the segment has too many parts; part_bytes is too small").during(DURING)
            );
        }
        upload.last += 1;
        let (number, id) = (upload.last, upload.id.clone());
        // The permit comes first: before it the bytes may be in a file, after it they are in memory.
        let permit = Arc::clone(&self.service.uploads).acquire_owned().await;
        let permit = permit.map_err(|_| BlobsError::Closed)?;
        let waiting = std::mem::replace(&mut self.waiting, Waiting::new(Arc::clone(&self.budget)));
        let (service, segment) = (Arc::clone(&self.service), self.segment);
        upload.parts.spawn(async move {
            let bytes = waiting.take().await;
            let bytes = bytes.map_err(|source| BlobsError::from_io("reading a part that waited", source))?;
            let part = send_part(&service, segment, &id, number, bytes).await;
            drop(permit);
            Ok((number, part.map_err(|fault| fault.about(DURING, segment))?))
        });
        Ok(())
    }

    async fn begin_upload(&self) -> Result<String, BlobsError> {
        let service = &self.service;
        let begin = || async {
            let (encryption, encryption_key) = service.encryption();
            let request = service
                .client
                .create_multipart_upload()
                .bucket(service.bucket())
                .key(service.key(self.segment))
                .metadata(Stamp::KEY, &self.stamp.0)
                .checksum_algorithm(ChecksumAlgorithm::Crc32C)
                .set_server_side_encryption(encryption)
                .set_ssekms_key_id(encryption_key);
            let begun = request.send().await.map_err(Fault::of)?;
            begun.upload_id.ok_or_else(|| Fault::passing("the answer names no upload"))
        };
        // An attempt whose answer is lost leaves an upload without parts; upkeep removes it.
        service.patience.call("begin_upload", begin).await.map_err(|fault| fault.during(DURING))
    }

    async fn complete(&self, upload: &Upload) -> Result<(), BlobsError> {
        let service = &self.service;
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(upload.done.values().cloned().collect()))
            .build();
        let complete = || async {
            let request = service
                .client
                .complete_multipart_upload()
                .bucket(service.bucket())
                .key(service.key(self.segment))
                .upload_id(&upload.id)
                .if_none_match("*")
                .multipart_upload(parts.clone());
            request.send().await.map_err(Fault::of).map(drop)
        };
        match service.patience.call("complete_upload", complete).await {
            Ok(()) => Ok(()),
            Err(fault) => service.landed(self.segment, &self.stamp, self.length, fault, DURING).await,
        }
    }

    /// Takes an upload back. What stays is no segment: it costs room until upkeep removes it.
    async fn give_up(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        upload.parts.shutdown().await;
        let (service, key) = (&self.service, self.service.key(self.segment));
        if let Err(error) = service.abort_upload(&key, &upload.id).await {
            tracing::warn!(segment = %self.segment, %error, "an upload that was given up stays until upkeep");
        }
    }
}

impl Upload {
    /// Waits until at most `left` parts are on their way.
    async fn collect(&mut self, left: usize) -> Result<(), BlobsError> {
        while self.parts.len() > left {
            match self.parts.join_next().await {
                Some(Ok(part)) => {
                    let (number, part) = part?;
                    self.done.insert(number, part);
                }
                // It fails only when the runtime is going down.
                Some(Err(_)) => return Err(BlobsError::Closed),
                None => {}
            }
        }
        Ok(())
    }
}

async fn send_part(
    service: &Service,
    segment: SegmentId,
    upload: &str,
    number: i32,
    bytes: Bytes,
) -> Result<CompletedPart, Fault> {
    let checksum = checksum(&bytes);
    let send = || async {
        let request = service
            .client
            .upload_part()
            .bucket(service.bucket())
            .key(service.key(segment))
            .upload_id(upload)
            .part_number(number)
            .checksum_crc32_c(&checksum)
            .body(bytes.clone().into());
        let sent = request.send().await.map_err(Fault::of)?;
        sent.e_tag.ok_or_else(|| Fault::passing("the answer names no part"))
    };
    let tag = service.patience.call("put_part", send).await?;
    Ok(CompletedPart::builder().part_number(number).e_tag(tag).checksum_crc32_c(checksum).build())
}

impl Service {
    pub(crate) async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), BlobsError> {
        let abort = || async {
            let request =
                self.client.abort_multipart_upload().bucket(self.bucket()).key(key).upload_id(upload);
            request.send().await.map_err(Fault::of).map(drop)
        };
        match self.patience.call("abort_upload", abort).await {
            Err(fault) if fault.kind == Kind::NoUpload => Ok(()),
            other => other.map_err(|fault| fault.during("giving an upload up")),
        }
    }
}

#[async_trait]
impl Appender for S3Appender {
    async fn append(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.add(pieces).await
    }

    async fn commit(&mut self, _pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        Err(Fault::refused("an object cannot be read while it grows").during("writing a segment"))
    }

    async fn seal(mut self: Box<Self>, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let sealed = self.finish(pieces).await;
        if sealed.is_err() {
            self.give_up().await;
        }
        sealed
    }

    async fn abort(mut self: Box<Self>) {
        self.give_up().await;
    }
}

impl S3Appender {
    async fn finish(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.add(pieces).await?;
        if self.upload.is_none() {
            let waiting = std::mem::replace(&mut self.waiting, Waiting::new(Arc::clone(&self.budget)));
            let permit = self.service.uploads.acquire().await.map_err(|_| BlobsError::Closed)?;
            let bytes = waiting.take().await;
            let bytes = bytes.map_err(|source| BlobsError::from_io("reading a part that waited", source))?;
            let put = self.service.put(self.segment, bytes, &self.stamp).await;
            drop(permit);
            return put;
        }
        if self.waiting.len() > 0 {
            self.send_part().await?;
        }
        let mut upload = self.upload.take().expect("a part was sent, if only just now");
        let completed = match upload.collect(0).await {
            Ok(()) => self.complete(&upload).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            self.upload = Some(upload);
        }
        completed
    }
}
