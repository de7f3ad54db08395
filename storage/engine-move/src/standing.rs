//! What is written down in both back ends about the move between them, so that each start knows where it stands.
//!
//! Two rows of table `Mark`, partition `move`: `away` in the source, `into` in the target. Value: `version 1 · state
//! (0 under way, 1 done) · id of the move (16) · place of the other side (UTF-8)`. `away` is written first and ends
//! first, so there is no instant in which both sides may be served by themselves. `into` ends when the process that moved
//! no longer works with the target: two that serve it would not know of each other.

use bytes::Bytes;
use engine::{EngineError, RowKey, Rows, Table};
use uuid::Uuid;

use crate::marks::settle;

const PARTITION: &[u8] = b"move";
const VERSION: u8 = 1;

/// Whether this row is the business of a move, and of nobody else.
pub(crate) fn is_of_move(partition: &[u8]) -> bool {
    partition == PARTITION || partition == crate::marks::PARTITION
}

/// Where a move stands, as one side has it written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which move.
    pub id: Uuid,
    /// Whether it has ended: what was here is at the other side now.
    pub done: bool,
    /// Where the other side is, in the words of whoever began it.
    pub place: String,
}

/// What is written down does not allow it.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// What was here has moved away.
    #[error("everything here has been moved to {place}")]
    Gone {
        /// Where to.
        place: String,
    },
    /// A move to another place is under way.
    #[error("a move to {place} is under way")]
    Elsewhere {
        /// Where to.
        place: String,
    },
    /// Another move into this target was begun, or has ended here.
    #[error("the target belongs to another move")]
    Other,
    /// A row is not understood: a later release wrote it, or it is damaged.
    #[error("what is written down about a move is not understood")]
    Malformed,
    /// The engine did not say, or did not write it down.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
}

impl Standing {
    /// Of the move away from this back end. `None`: there is none.
    pub async fn away(rows: &dyn Rows) -> Result<Option<Self>, StandingError> {
        Self::read(rows, b"away").await
    }

    /// Of the move into this back end. `None`: there is none.
    pub async fn into(rows: &dyn Rows) -> Result<Option<Self>, StandingError> {
        Self::read(rows, b"into").await
    }

    pub(crate) async fn write_away(&self, rows: &dyn Rows) -> Result<(), StandingError> {
        self.write(rows, b"away").await
    }

    pub(crate) async fn write_into(&self, rows: &dyn Rows) -> Result<(), StandingError> {
        self.write(rows, b"into").await
    }

    /// Writes the row of the source again as it is. Writes that were begun before are in their place when this returns.
    pub(crate) async fn touch_away(rows: &dyn Rows) -> Result<(), StandingError> {
        let now = rows.get(row(b"away")).await.map_err(StandingError::Engine)?;
        match rows.replace_if(row(b"away"), now.clone(), now).await {
            Ok(_) | Err(EngineError::Undecided { .. }) => Ok(()),
            Err(error) => Err(StandingError::Engine(error)),
        }
    }

    async fn read(rows: &dyn Rows, key: &'static [u8]) -> Result<Option<Self>, StandingError> {
        let value = rows.get(row(key)).await.map_err(StandingError::Engine)?;
        value.map(|value| Self::decode(&value).ok_or(StandingError::Malformed)).transpose()
    }

    async fn write(&self, rows: &dyn Rows, key: &'static [u8]) -> Result<(), StandingError> {
        settle(rows, &row(key), Some(self.encode())).await.map_err(StandingError::Engine)
    }

    fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION, u8::from(self.done)];
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.place.as_bytes());
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, state], rest) = bytes.split_first_chunk()? else { return None };
        let (id, place) = rest.split_first_chunk::<16>()?;
        let done = match state {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { id: Uuid::from_bytes(*id), done, place: std::str::from_utf8(place).ok()?.to_owned() })
    }
}

fn row(key: &'static [u8]) -> RowKey {
    RowKey::new(Table::Mark, PARTITION, key)
}
