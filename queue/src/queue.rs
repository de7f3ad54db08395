//! The queue as its users see it.

use blob::{BlobStore, KeyRing};
use mail::id::AccountId;

use crate::body::BodyWriter;
use crate::config::Config;
use crate::error::{BodyError, SubmitError};
use crate::submission::{Committed, Submission};

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    #[expect(dead_code, reason = "skeleton")]
    blobs: BlobStore,
    #[expect(dead_code, reason = "skeleton")]
    keys: KeyRing,
    #[expect(dead_code, reason = "skeleton")]
    config: Config,
}

impl Queue {
    /// Begins a message. Its shard depends on the first recipient that is an account here, so that one account's mail
    /// comes from one shard.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn body_writer(&self, _first_local: Option<AccountId>) -> Result<BodyWriter, BodyError> {
        unimplemented!()
    }

    /// Takes a message over. When it returns, body and entry are durable: only then may a sender be told so.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn submit(&self, submission: Submission) -> Result<Committed, SubmitError> {
        Ok(Committed::new(submission.body.queue_id()))
    }
}
