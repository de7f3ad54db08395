//! Trouble that every verb can meet, whatever it was asked for.

use engine::{EngineError, FormatError};

/// Why the account could not be read or changed, for reasons that do not lie in the request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The commit may have happened or not, or may yet: the deadline passed while it was undecided. Neither success
    /// nor failure may be said (IMAP: BYE, SMTP: 451).
    #[error("the outcome of the commit is not known")]
    Undecided,
    /// Temporary trouble below.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// No space is left. Temporary.
    #[error("storage is full")]
    Full,
    /// Stored data is damaged or was written by a newer release. A person has to look.
    #[error("stored data cannot be read: {0}")]
    Damaged(String),
    /// The account was closed or deleted. Permanent.
    #[error("the account is closed")]
    Closed,
    /// The principal may not do this. Permanent.
    #[error("not permitted")]
    Denied,
}

impl StorageError {
    /// Whether trying again later can help.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Closed | Self::Denied)
    }
}

impl From<FormatError> for StorageError {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<EngineError> for StorageError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full { .. } => Self::Full,
            EngineError::Undecided { .. } => Self::Undecided,
            EngineError::Damaged { .. } => Self::Damaged(error.to_string()),
            EngineError::Unavailable { .. } | EngineError::Poisoned { .. } => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}
