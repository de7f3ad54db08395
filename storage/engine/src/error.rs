//! What can go wrong below the actor: in a back end, in stored bytes, in a fold.

use bytes::Bytes;
use thiserror::Error;

/// Why a back end did not do what it was asked to.
///
/// Answers of a conditional write that are not failures (applied, conflict, unknown) are [`crate::Outcome`]. An error
/// from [`crate::Log::append`], [`crate::Log::swing`] or [`crate::Log::create`] means that **this call** was certainly
/// not applied.
#[derive(Clone, Debug, Error)]
pub enum EngineError {
    /// Temporary trouble: try again later.
    #[error("storage engine unavailable: {reason}")]
    Unavailable {
        /// What the back end said.
        reason: String,
    },
    /// No space is left, or the reserve that reading and deleting need has been reached. Temporary.
    #[error("storage engine is full: {reason}")]
    Full {
        /// Which limit was reached.
        reason: String,
    },
    /// A conditional write of a row timed out: it may have been applied. Read to find out.
    #[error("outcome of a conditional write is not known: {reason}")]
    Undecided {
        /// What the back end said.
        reason: String,
    },
    /// An earlier write failed in a way that leaves the files in doubt. Nothing is written any more until the process
    /// has been restarted; reads still work.
    #[error("storage engine stopped after a write error: {reason}")]
    Poisoned {
        /// The first error.
        reason: String,
    },
    /// A stored value is damaged: it does not match its checksum, or is not what its key says.
    #[error("damaged value at {place}: {reason}")]
    Damaged {
        /// Table and key.
        place: String,
        /// What does not match.
        reason: String,
    },
}

impl EngineError {
    /// Temporary trouble with this text.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    /// Whether trying again later can help without a person doing something.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. } | Self::Undecided { .. })
    }
}

/// Stored bytes are not what this release understands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// A version, operation or table number that this release does not know. A newer release wrote it.
    #[error("unknown {what} {number}")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// The bytes cannot be what they claim to be.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl FormatError {
    /// The bytes cannot be a `what`.
    pub fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

/// An operation does not fit the state that it is folded into. The log or the code is wrong: the actor stops loudly
/// instead of going on with a state that other nodes do not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("operation {seq} does not fit the state: {reason}")]
pub struct FoldError {
    /// Number of the operation.
    pub seq: u64,
    /// What does not fit.
    pub reason: String,
}

impl FoldError {
    /// The operation `seq` does not fit.
    pub fn new(seq: u64, reason: impl Into<String>) -> Self {
        Self { seq, reason: reason.into() }
    }
}

/// Sealed bytes could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsealed {
    /// The key has been erased, and with it everything that it sealed.
    #[error("the key has been erased")]
    Erased,
    /// The bytes or what they are bound to (log, place) were changed.
    #[error("sealed bytes were tampered with or belong elsewhere")]
    Forged,
}

/// Why an archive chunk was not written or read.
#[derive(Clone, Debug, Error)]
pub enum ArchiveError {
    /// Temporary trouble.
    #[error("archive unavailable: {0}")]
    Unavailable(String),
    /// There is nothing at this address.
    #[error("no archive chunk at this address ({} bytes)", .0.len())]
    Missing(Bytes),
}
