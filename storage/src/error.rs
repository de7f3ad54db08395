//! Trouble that every verb can meet, whatever it was asked for.

use engine::{EngineError, FormatError, OpenError, ReadError, with_causes};

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
    /// Whether trying again later can help. Damage counts as temporary: mail that meets it waits for a person.
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
        Self::from(&error)
    }
}

impl From<&EngineError> for StorageError {
    fn from(error: &EngineError) -> Self {
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

impl From<&OpenError> for StorageError {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Missing => Self::Closed,
            OpenError::Engine(error) => Self::from(error),
            OpenError::Torn(_) => Self::Unavailable(error.to_string()),
            error => Self::Damaged(with_causes(error)),
        }
    }
}

impl From<ReadError> for StorageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Deleted => Self::Closed,
            ReadError::Failed(error) | ReadError::Stopped(error) => Self::from(&*error),
            ReadError::Deadline => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<blob::KeyError> for StorageError {
    fn from(error: blob::KeyError) -> Self {
        if error.is_temporary() {
            Self::Unavailable(with_causes(&error))
        } else if matches!(error, blob::KeyError::Erased(_) | blob::KeyError::Missing(_)) {
            Self::Closed
        } else {
            Self::Damaged(with_causes(&error))
        }
    }
}

impl From<blob::ReferenceError> for StorageError {
    fn from(error: blob::ReferenceError) -> Self {
        match &error {
            blob::ReferenceError::Rows(error) => Self::from(error),
            _ => Self::Damaged(with_causes(&error)),
        }
    }
}

impl From<blob::ReadError> for StorageError {
    fn from(error: blob::ReadError) -> Self {
        if error.is_temporary() {
            Self::Unavailable(with_causes(&error))
        } else {
            Self::Damaged(with_causes(&error))
        }
    }
}
