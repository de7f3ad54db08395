#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]
//! A queue over memory.

use std::sync::Arc;

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use engine::memory::MemoryEngine;
use engine::{Archive, LogOptions};
use mail::address::{Address, ReversePath};
use mail::envelope::{Envelope, Recipient};
use mail::id::{AccountId, QueueId};
use queue::{Clock, Config, Foundation, Origin, Queue, Resolved, Sharing, Submission, SubmitError};
use uuid::Uuid;

/// What a queue stands on besides its engine.
pub(crate) struct Disk {
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) clock: Clock,
    pub(crate) archive: Option<Arc<dyn Archive>>,
    /// Whether a process may take it that there is no other.
    pub(crate) exclusive: bool,
    /// How logs are kept.
    pub(crate) log_options: LogOptions,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let clock = Clock::standing(1_800_000_000);
        // Low thresholds, so that snapshots, trims and page collection happen all the time.
        let log_options = LogOptions {
            snapshot_entries_min: 3,
            snapshot_bytes_min: 500,
            snapshot_share_percent: 1,
            snapshot_entries_max: 12,
            deadline_seconds: 5,
            backoff_ms_min: 1,
            backoff_ms_max: 2,
            ..LogOptions::default()
        };
        Self { blobs: Arc::new(MemoryBlobs::new()), clock, archive: None, exclusive: false, log_options }
    }

    /// Few shards and small limits, so that everything happens.
    pub(crate) fn config() -> Config {
        Config {
            ingest_shards: 3,
            outbound_shards: 2,
            poll_seconds: 1,
            expiry_grace_seconds: 0,
            retry_seconds_min: 1,
            inline_bytes_max: 400,
            ..Config::default()
        }
    }

    /// A process; `None` when the engine fails meanwhile.
    pub(crate) async fn open(&self, engine: &MemoryEngine, config: Config) -> Option<Queue> {
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let blob_config = blob::Config::default();
        let rows = engine.engine().rows;
        let keys = KeyRing::new(kek, rows.clone(), &blob_config);
        let blobs = BlobStore::new(self.blobs.clone(), rows, keys.clone(), blob_config).await.ok()?;
        let log_options = self.log_options.clone();
        let engine = engine.engine();
        let (clock, archive) = (self.clock.clone(), self.archive.clone());
        let sharing = if self.exclusive { Sharing::Alone } else { Sharing::Unknown };
        let foundation = Foundation { engine, log_options, archive, blobs, keys, clock, sharing };
        Queue::open(foundation, config).await.ok()
    }
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(crate) fn account(number: u32) -> AccountId {
    AccountId(Uuid::from_u128(u128::from(number) + 1))
}

/// Submits a message to one account.
pub(crate) async fn submit(queue: &Queue, number: u32) -> Result<QueueId, SubmitError> {
    submit_held(queue, number, None).await
}

/// The same, to be held until then (unix seconds).
pub(crate) async fn submit_held(
    queue: &Queue,
    number: u32,
    hold_until: Option<u64>,
) -> Result<QueueId, SubmitError> {
    let failed = |error: queue::BodyError| SubmitError::Unavailable { reason: error.to_string() };
    let mut envelope = Envelope::new(ReversePath(Some(address("sender@example.test"))));
    envelope.recipients.push(Recipient::new(address(&format!("user{number}@example.test"))));
    envelope.hold_until = hold_until;
    let resolved = vec![Resolved::Account { id: account(number), detail: None }];
    let mut writer = queue.body_writer(Some(account(number))).await.map_err(failed)?;
    writer.write(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await.map_err(failed)?;
    let body = writer.finish().await.map_err(failed)?;
    let submission = Submission { envelope, resolved, body, prefix: Bytes::new(), origin: Origin::default() };
    Ok(queue.submit(submission).await?.queue_id())
}
