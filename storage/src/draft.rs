//! Deciding what to commit: operations, and the state that they lead to.

use engine::{Build, State};

use crate::entry::Operation;
use crate::error::StorageError;
use crate::state::{AccountState, Part};

/// Why a decision was not made.
#[derive(Clone, Debug)]
pub(crate) enum Refusal<E> {
    /// It cannot be made on this state with these parts; they have to be loaded first.
    Load(Vec<Part>),
    /// It was refused.
    Error(E),
}

/// Operations as they are decided, one after the other.
pub(crate) struct Draft {
    state: AccountState,
    operations: Vec<Operation>,
    folded: usize,
}

/// What [`Draft::mark`] remembers.
pub(crate) struct Mark {
    state: AccountState,
    operations: usize,
    folded: usize,
}

impl Draft {
    /// Begins at the state that the first operation will meet.
    pub(crate) fn new<E: From<StorageError>>(state: &AccountState) -> Result<Self, Refusal<E>> {
        if state.is_closed() {
            return Err(Refusal::Error(StorageError::Closed.into()));
        }
        Ok(Self { state: state.clone(), operations: Vec::new(), folded: 0 })
    }

    /// The state after what was decided so far.
    pub(crate) fn state<E: From<StorageError>>(&mut self) -> Result<&AccountState, Refusal<E>> {
        for operation in &self.operations[self.folded..] {
            let seq = self.state.seq + 1;
            if let Err(error) = self.state.fold(seq, operation) {
                return Err(Refusal::Error(StorageError::Damaged(error.to_string()).into()));
            }
            self.folded += 1;
        }
        Ok(&self.state)
    }

    /// Adds an operation; its number, and so its MODSEQ.
    pub(crate) fn push(&mut self, operation: Operation) -> u64 {
        self.operations.push(operation);
        self.last()
    }

    /// Number of the last operation so far.
    pub(crate) fn last(&self) -> u64 {
        self.state.seq + (self.operations.len() - self.folded) as u64
    }

    /// Where the draft stands, to return to.
    pub(crate) fn mark(&self) -> Mark {
        Mark { state: self.state.clone(), operations: self.operations.len(), folded: self.folded }
    }

    /// Takes back what was decided since `mark`.
    pub(crate) fn return_to(&mut self, mark: Mark) {
        self.state = mark.state;
        self.operations.truncate(mark.operations);
        self.folded = mark.folded;
    }

    pub(crate) fn build<R>(self, answer: R) -> Build<Operation, R> {
        Build::new(self.operations, answer)
    }
}

impl<E> From<E> for Refusal<E> {
    fn from(error: E) -> Self {
        Self::Error(error)
    }
}
