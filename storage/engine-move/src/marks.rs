//! Marks in the target: which logs are there.
//!
//! A row of table `Mark`, partition `moved`, key: the log. Value: `version 1 · state (0 being copied, 1 moved) · attempt
//! (16)`. An attempt begins by putting its own *being copied*, and its last step changes exactly that into *moved*. So
//! the mark of an earlier attempt whose outcome nobody knew cannot come late: its condition no longer holds.

use bytes::Bytes;
use engine::{EngineError, LogId, RowKey, Rows, Table};
use uuid::Uuid;

pub(crate) const PARTITION: &[u8] = b"moved";
const VERSION: u8 = 1;
const COPYING: u8 = 0;
const MOVED: u8 = 1;

/// How often a conditional write is tried whose outcome is not known.
const TRIES: usize = 8;
/// Marks read at once.
const SCAN: usize = 1_024;

/// An attempt at moving a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) log: LogId,
    id: Uuid,
}

impl Attempt {
    /// Begins one; earlier ones can no longer end. `None`: the log has been moved.
    pub(crate) async fn begin(rows: &dyn Rows, log: LogId) -> Result<Option<Self>, EngineError> {
        let attempt = Self { log, id: Uuid::new_v4() };
        for _ in 0..TRIES {
            let now = rows.get(key(log)).await?;
            match now.as_deref() {
                Some([VERSION, MOVED, ..]) => return Ok(None),
                Some(value) if value == &attempt.value(COPYING)[..] => return Ok(Some(attempt)),
                _ => {}
            }
            match rows.replace_if(key(log), now, Some(attempt.value(COPYING))).await {
                Ok(true) => return Ok(Some(attempt)),
                Ok(false) | Err(EngineError::Undecided { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(undecided())
    }

    /// The instant in which the target becomes the truth about the log. `false`: another attempt has begun since.
    /// [`EngineError::Undecided`]: nobody knows which of the two is the truth until it is asked again.
    pub(crate) async fn end(self, rows: &dyn Rows) -> Result<bool, EngineError> {
        let (copying, moved) = (self.value(COPYING), self.value(MOVED));
        match rows.replace_if(key(self.log), Some(copying), Some(moved.clone())).await {
            // An earlier call may have done it.
            Ok(false) => Ok(rows.get(key(self.log)).await?.as_ref() == Some(&moved)),
            other => other,
        }
    }

    fn value(self, state: u8) -> Bytes {
        let mut value = vec![VERSION, state];
        value.extend_from_slice(self.id.as_bytes());
        value.into()
    }
}

/// All logs that are at the target. Attempts that had begun are fenced off.
pub(crate) async fn moved(rows: &dyn Rows) -> Result<Vec<LogId>, EngineError> {
    let (mut moved, mut from) = (Vec::new(), Bytes::new());
    loop {
        let some = rows.scan(Table::Mark, Bytes::from_static(PARTITION), from, SCAN).await?;
        let Some((last, _)) = some.last() else { return Ok(moved) };
        from = engine::rows::successor(last);
        for (name, value) in some {
            let damaged = |reason: &str| EngineError::Damaged {
                place: RowKey::new(Table::Mark, PARTITION, name.clone()).to_string(),
                reason: reason.into(),
            };
            let log = LogId::from_bytes(&name).ok_or_else(|| damaged("not the name of a log"))?;
            match value[..] {
                [VERSION, MOVED, ..] => moved.push(log),
                [VERSION, COPYING, ..] => {
                    if Attempt::begin(rows, log).await?.is_none() {
                        moved.push(log);
                    }
                }
                _ => return Err(damaged("unknown version or state")),
            }
        }
    }
}

/// Gives a row that is written by conditions alone the value `wanted`, whatever it has.
pub(crate) async fn settle(rows: &dyn Rows, key: &RowKey, wanted: Option<Bytes>) -> Result<(), EngineError> {
    for _ in 0..TRIES {
        let now = rows.get(key.clone()).await?;
        if now == wanted {
            return Ok(());
        }
        match rows.replace_if(key.clone(), now, wanted.clone()).await {
            Ok(true) => return Ok(()),
            Ok(false) | Err(EngineError::Undecided { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(undecided())
}

/// The value of a row that is written by conditions alone; a write whose outcome was not known does not come later.
pub(crate) async fn decided(rows: &dyn Rows, key: &RowKey) -> Result<Option<Bytes>, EngineError> {
    for _ in 0..TRIES {
        let now = rows.get(key.clone()).await?;
        match rows.replace_if(key.clone(), now.clone(), now.clone()).await {
            Ok(true) => return Ok(now),
            Ok(false) | Err(EngineError::Undecided { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(undecided())
}

fn key(log: LogId) -> RowKey {
    RowKey::new(Table::Mark, PARTITION, log.to_bytes().to_vec())
}

fn undecided() -> EngineError {
    EngineError::Undecided { reason: format!("no answer in {TRIES} attempts") }
}
