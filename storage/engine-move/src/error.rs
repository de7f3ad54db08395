//! Why a move cannot begin or go on.

use blob::{BlobsError, SegmentId};
use engine::{EngineError, LogId};

use crate::standing::StandingError;

/// Why a move cannot begin or go on. Whatever it is, nothing is lost: each log stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Something else than this move is written down in one of the two.
    #[error("these two back ends cannot be the two sides of a move")]
    Standing(#[from] StandingError),
    /// The target holds something that did not come by this move.
    #[error("the target is not empty")]
    NotEmpty,
    /// A process moves once, and to one target.
    #[error("this process is moving already")]
    Begun,
    /// The engine of one side failed.
    #[error("the {side} engine failed")]
    Engine {
        /// `source` or `target`.
        side: &'static str,
        /// What it said.
        #[source]
        source: EngineError,
    },
    /// Segments of one side could not be read or written.
    #[error("segments of the {side} cannot be reached")]
    Blobs {
        /// `source` or `target`.
        side: &'static str,
        /// What was said.
        #[source]
        source: BlobsError,
    },
    /// What was copied is not what is there. It is copied anew at the next attempt.
    #[error("the copy of {log} differs: {what}")]
    Differs {
        /// The log.
        log: LogId,
        /// In what.
        what: &'static str,
    },
    /// The same of a segment.
    #[error("the copy of segment {0} differs")]
    SegmentDiffers(SegmentId),
    /// The log went on faster than it was copied. The next attempt may do better.
    #[error("{0} went on faster than it was copied")]
    Overtaken(LogId),
    /// Messages are still being written into segments of the source.
    #[error("segments are still being written")]
    SegmentsOpen,
}

impl MoveError {
    /// Whether trying again later can help without a person doing something.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Engine { source, .. } => source.is_temporary(),
            Self::Blobs { source, .. } => matches!(
                source,
                BlobsError::Full(_)
                    | BlobsError::Io { .. }
                    | BlobsError::Unavailable { .. }
                    | BlobsError::NotFound(_)
                    | BlobsError::Exists(_)
                    | BlobsError::Poisoned(_)
            ),
            Self::Differs { .. } | Self::SegmentDiffers(_) | Self::Overtaken(_) | Self::SegmentsOpen => true,
            Self::Standing(StandingError::Engine(error)) => error.is_temporary(),
            Self::Standing(_) | Self::NotEmpty | Self::Begun => false,
        }
    }

    pub(crate) fn source(source: EngineError) -> Self {
        Self::Engine { side: "source", source }
    }

    pub(crate) fn target(source: EngineError) -> Self {
        Self::Engine { side: "target", source }
    }
}
