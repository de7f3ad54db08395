//! What can go wrong, as those who hand something in see it.

use blob::{KeyError, WriteError};
use thiserror::Error;

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
    /// There is no key of the day.
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
