//! What can go wrong, as those who hand something in see it.

use blob::{KeyError, WriteError};
use thiserror::Error;

use crate::shard::ShardError;

/// Why a message was not taken over. Unless it is permanent, the sender is told to come again (451 or 452).
#[derive(Debug, Error)]
pub enum SubmitError {
    /// As much is queued as the configuration allows.
    #[error("the queue is full: {reason}")]
    Full {
        /// Which limit was reached.
        reason: String,
    },
    /// The entry was not committed.
    #[error("the queue cannot be written: {reason}")]
    Unavailable {
        /// What the storage engine said.
        reason: String,
    },
    /// Whether the entry was committed is not known. The sender is told to come again, and may so send a second copy.
    #[error("whether the queue entry was committed is not known")]
    Undecided,
    /// More recipients than the configuration allows. Permanent.
    #[error("more than {limit} recipients")]
    Recipients {
        /// The limit.
        limit: usize,
    },
    /// The added header fields are larger than the configuration allows. Permanent.
    #[error("added header fields exceed {limit} bytes")]
    Prefix {
        /// The limit.
        limit: usize,
    },
    /// No recipient, or not as many resolutions as recipients: the caller is wrong. Permanent.
    #[error("the submission is not well formed: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl SubmitError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. } | Self::Undecided)
    }
}

/// Why a message's bytes were not taken.
#[derive(Debug, Error)]
pub enum BodyError {
    /// They could not be written.
    #[error("the message could not be stored")]
    Write(#[from] WriteError),
    /// There is no key of the day. Temporary.
    #[error("the queue's key cannot be had")]
    Key(#[from] KeyError),
}

impl BodyError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Write(error) => error.is_temporary(),
            Self::Key(_) => true,
        }
    }
}

impl From<ShardError> for SubmitError {
    fn from(error: ShardError) -> Self {
        match error {
            ShardError::Full { .. } => Self::Full { reason: error.to_string() },
            ShardError::Undecided { .. } => Self::Undecided,
            _ => Self::Unavailable { reason: error.to_string() },
        }
    }
}

/// Why something about a claimed item could not be done. The claim is given back and comes again.
#[derive(Debug, Error)]
pub enum WorkError {
    /// A commit to a shard.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A part of the item that lies in a blob could not be read.
    #[error("a part of the item cannot be read")]
    Read(#[from] blob::ReadError),
    /// Such a part is not what it should be.
    #[error("a part of the item is damaged")]
    Format(#[from] engine::FormatError),
    /// A body could not be written or referenced.
    #[error("a body cannot be stored")]
    Body(#[from] BodyError),
    /// A reference could not be put.
    #[error("a reference cannot be put")]
    Reference(#[from] blob::ReferenceError),
    /// A notification could not be submitted.
    #[error("a notification cannot be queued")]
    Submit(#[from] SubmitError),
    /// The item is another than the call is for: a mistake of the caller.
    #[error("the item does not allow that: {0}")]
    Misused(&'static str),
}

/// Why the queue could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The configuration cannot be.
    #[error("queue configuration: {0}")]
    Config(String),
    /// A shard cannot be opened or made.
    #[error("queue shard {shard} cannot be opened: {reason}")]
    Shard {
        /// The shard's name.
        shard: String,
        /// What the storage engine said.
        reason: String,
    },
}
