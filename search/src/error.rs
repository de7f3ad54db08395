//! What can go wrong.

use storage::{BodyError, OpenError, StorageError};
use tantivy::TantivyError;

/// Why the index was not asked, or not changed. Mail is not touched by any of it: whoever meets this looks at the
/// messages themselves.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SearchError {
    /// The files of a shard are damaged; it has been set aside, or will be.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The medium fails or is full. Temporary.
    #[error("the index is not available: {0}")]
    Unavailable(String),
    /// The account's mail could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The search was closed.
    #[error("search is closed")]
    Closed,
}

impl SearchError {
    /// Whether the files are to be set aside.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<TantivyError> for SearchError {
    fn from(error: TantivyError) -> Self {
        let text = error.to_string();
        match error {
            // A full disk and a failing one are no damage; a file that ends too early is.
            TantivyError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::Damaged(text)
            }
            TantivyError::IoError(_)
            | TantivyError::OpenWriteError(_)
            | TantivyError::LockFailure(..)
            | TantivyError::SystemError(_) => Self::Unavailable(text),
            _ => Self::Damaged(text),
        }
    }
}

impl From<std::io::Error> for SearchError {
    fn from(error: std::io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<OpenError> for SearchError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Missing => Self::Storage(StorageError::Closed),
            OpenError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<BodyError> for SearchError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Storage(error) => Self::Storage(error),
            BodyError::Read(error) => Self::Storage(StorageError::from(error)),
        }
    }
}
