//! What has to be done once in a while, by one process of an installation: uploads to S3 that were begun and never ended are
//! given up, and segments that nobody refers to are counted.
//!
//! Who does it is whoever owns it among the nodes that deliver. Two that both think so do the same twice, which does no
//! harm.

use std::time::{Duration, SystemTime};

use blob::BlobStore;
use blob_s3::S3Blobs;
use engine::with_causes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::role::Role;

/// Segments looked at between two pauses.
const SEGMENTS: usize = 64;
/// A pause between them, since there is no hurry.
const PAUSE: Duration = Duration::from_millis(200);
/// A process begins after this, or sooner where it does it more often: not in the midst of a start.
const FIRST_AFTER: Duration = Duration::from_secs(600);
/// What the ownership of this work is decided by.
const KEY: &[u8] = b"maintenance";

/// What is done once in a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Seconds between two rounds. A day: what they find takes room and is in nobody's way. Zero: never.
    pub(crate) every_seconds: u64,
    /// Seconds after which an upload that has not ended, or a segment that nobody refers to, is what somebody left behind.
    /// Longer than any message takes to arrive.
    pub(crate) age_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { every_seconds: 86_400, age_seconds: 86_400 }
    }
}

/// Segments that nobody refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orphans {
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    /// Of these it could not be found out.
    pub(crate) unclear: usize,
}

/// Counts them. Nothing is changed.
pub(crate) async fn orphans(
    blobs: &BlobStore,
    age: Duration,
    pause: Duration,
) -> Result<Orphans, blob::BlobsError> {
    let (mut found, mut after) = (Orphans::default(), None);
    loop {
        let page = blobs.orphans(age, SystemTime::now(), after, SEGMENTS).await?;
        found.segments += page.orphans.len();
        found.bytes += page.orphans.iter().map(|orphan| orphan.length).sum::<u64>();
        found.unclear += page.unclear;
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Does it as long as it is kept.
#[derive(Debug)]
pub(crate) struct Maintenance(JoinHandle<()>);

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Maintenance {
    /// `cluster`: the other nodes, where there are any; `s3`: where uploads can be left behind.
    pub(crate) fn start(
        config: &Config,
        blobs: BlobStore,
        s3: Option<S3Blobs>,
        cluster: Option<&Cluster>,
    ) -> Self {
        let every = Duration::from_secs(config.every_seconds);
        let age = Duration::from_secs(config.age_seconds);
        let membership = cluster.map(|cluster| cluster.membership().clone());
        Self(tokio::spawn(async move {
            if every.is_zero() {
                return;
            }
            tokio::time::sleep(every.min(FIRST_AFTER)).await;
            loop {
                if membership.as_ref().is_none_or(|nodes| nodes.is_mine(KEY, Role::Delivery.name())) {
                    round(&blobs, s3.as_ref(), age).await;
                }
                tokio::time::sleep(every).await;
            }
        }))
    }
}

/// One round. What fails is done in the next one.
async fn round(blobs: &BlobStore, s3: Option<&S3Blobs>, age: Duration) {
    metrics::counter!("postrider_maintenance_rounds_total").increment(1);
    if let Some(s3) = s3 {
        match s3.clear_uploads(age, SystemTime::now()).await {
            Ok(cleared) => {
                metrics::counter!("postrider_s3_uploads_given_up_total").increment(cleared.aborted as u64);
                metrics::gauge!("postrider_s3_uploads_open").set(cleared.left as f64);
                if cleared.aborted > 0 {
                    tracing::info!(count = cleared.aborted, "uploads that nobody ended were given up");
                }
            }
            Err(error) => tracing::warn!(error = with_causes(&error), "old uploads are still there"),
        }
    }
    match orphans(blobs, age, PAUSE).await {
        Ok(Orphans { segments, bytes, unclear }) => {
            metrics::gauge!("postrider_blob_orphans").set(segments as f64);
            metrics::gauge!("postrider_blob_orphan_bytes").set(bytes as f64);
            metrics::gauge!("postrider_blob_orphans_unclear").set(unclear as f64);
            if segments > 0 {
                tracing::info!(segments, bytes, "nobody refers to some segments; they are kept");
            }
        }
        Err(error) => tracing::warn!(error = with_causes(&error), "segments could not be listed"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blob::keys::KeyEncryptionKey;
    use blob::memory::MemoryBlobs;
    use blob::{Holder, KeyId, KeyRing};
    use bytes::Bytes;
    use engine::Rows;
    use engine::memory::MemoryEngine;

    use super::*;

    #[tokio::test]
    async fn what_somebody_left_behind_is_counted_and_kept() {
        let rows: Arc<dyn Rows> = Arc::new(MemoryEngine::new());
        let config = blob::Config::default();
        let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[7; 32]), Arc::clone(&rows), &config);
        keys.ensure(KeyId::System(uuid::Uuid::nil())).await.unwrap();
        let memory = MemoryBlobs::new();
        let blobs = BlobStore::new(Arc::new(memory.clone()), rows, keys, config).await.unwrap();
        let write = async || {
            let holder = Holder::Directory(uuid::Uuid::nil());
            let mut writer = blobs.writer(holder, KeyId::System(uuid::Uuid::nil()));
            // Larger than what is put together with others.
            writer.write(Bytes::from(vec![7; 3 << 20])).await.unwrap();
            (writer.finish(Bytes::new()).await.unwrap(), holder)
        };
        let (_kept, _) = write().await;
        let (left, holder) = write().await;
        blobs.unreference(left.address().segment, left.address().frame, holder, left.nonce()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let young = orphans(&blobs, Duration::from_secs(60), Duration::ZERO).await.unwrap();
        assert_eq!(young, Orphans::default());
        let found = orphans(&blobs, Duration::ZERO, Duration::ZERO).await.unwrap();
        assert_eq!((found.segments, found.unclear, found.bytes > 0), (1, 0, true));
        round(&blobs, None, Duration::ZERO).await;
        assert_eq!(orphans(&blobs, Duration::ZERO, Duration::ZERO).await.unwrap(), found);
    }
}
