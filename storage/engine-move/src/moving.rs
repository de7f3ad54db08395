//! The engine over two engines: which of them a call goes to.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use engine::{Engine, LogId, LogKind, RowKey, Table};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::error::MoveError;
use crate::gate::Gates;
use crate::marks;
use crate::standing::{Standing, StandingError};

/// Rows that the target lacks, kept by name; more of them are found by comparing everything once more.
const UNMIRRORED_MAX: usize = 4_096;

/// Logs and rows of a source, and of a target to which they move. Clones share them.
///
/// Before a move begins it is the source, at the price of a lock that nobody takes from anybody. It is always there, since
/// whoever holds an engine cannot be given another.
#[derive(Clone)]
pub struct Moving {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) source: Engine,
    target: OnceLock<Target>,
    phase: AtomicU8,
    pub(crate) gates: Gates,
    /// Logs that are at the target.
    moved: RwLock<HashSet<LogId>>,
    /// Logs that were made at the source since the move began: a listing of the source may have missed them.
    pub(crate) fresh: Mutex<BTreeSet<LogId>>,
    pub(crate) unmirrored: Mutex<Unmirrored>,
    /// A defect that a test plants: a log is marked before the rest of it was copied and compared.
    #[cfg(test)]
    pub(crate) marks_before_check: std::sync::atomic::AtomicBool,
}

struct Target {
    engine: Engine,
    standing: Standing,
}

/// Rows that were written, or may have been, at the source and not at the target.
#[derive(Default)]
pub(crate) struct Unmirrored {
    pub(crate) keys: BTreeSet<RowKey>,
    /// More than are kept by name.
    pub(crate) more: bool,
}

impl Unmirrored {
    pub(crate) fn add(&mut self, keys: impl IntoIterator<Item = RowKey>) {
        for key in keys {
            if self.keys.len() >= UNMIRRORED_MAX {
                self.more = true;
                return;
            }
            self.keys.insert(key);
        }
    }
}

/// How far it is. Only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Phase {
    /// Everything is at the source.
    Still,
    /// Each log is at one of the two, rows are at the source, and written to both.
    Moving,
    /// Everything is at the target.
    Moved,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Source,
    Target,
}

impl std::fmt::Debug for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moving({:?})", self.phase())
    }
}

impl Moving {
    /// Over a source alone.
    pub fn new(source: Engine) -> Self {
        Self {
            inner: Arc::new(Inner {
                source,
                target: OnceLock::new(),
                phase: AtomicU8::new(Phase::Still as u8),
                gates: Gates::new(),
                moved: RwLock::default(),
                fresh: Mutex::default(),
                unmirrored: Mutex::default(),
                #[cfg(test)]
                marks_before_check: false.into(),
            }),
        }
    }

    /// Its logs and rows. Hints are those of the source.
    pub fn engine(&self) -> Engine {
        let hints = self.inner.source.hints.clone();
        Engine::new(Arc::new(self.clone()), Arc::new(self.clone())).with_hints(hints)
    }

    /// The source by itself.
    pub fn source(&self) -> &Engine {
        &self.inner.source
    }

    /// Begins to move to `target`, or goes on with it. Nothing has moved when this returns, but what earlier processes
    /// had moved is found there, and what is written from now on is written to both. `place` names the target.
    pub async fn begin(&self, target: Engine, place: &str) -> Result<(), MoveError> {
        if self.phase() != Phase::Still {
            return Err(MoveError::Begun);
        }
        let standing = agree(&self.inner.source, &target, place).await?;
        let moved = marks::moved(&*target.rows).await.map_err(MoveError::target)?;
        self.inner.moved.write().extend(moved);
        self.inner.target.set(Target { engine: target, standing }).map_err(|_| MoveError::Begun)?;
        self.enter(Phase::Moving);
        // Who wrote to the source alone is through now.
        self.inner.gates.wait_for_all().await;
        Ok(())
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.inner.phase.load(Ordering::Acquire) {
            0 => Phase::Still,
            1 => Phase::Moving,
            _ => Phase::Moved,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.inner.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// The target. To be called only when there is one.
    pub(crate) fn target(&self) -> &Engine {
        &self.inner.target.get().expect("set before the phase in which it is used").engine
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.inner.target.get().expect("set before the phase in which it is used").standing
    }

    pub(crate) fn on(&self, side: Side) -> &Engine {
        match side {
            Side::Source => &self.inner.source,
            Side::Target => self.target(),
        }
    }

    /// Where a log is.
    pub(crate) fn side_of(&self, log: LogId) -> Side {
        match self.phase() {
            Phase::Still => Side::Source,
            Phase::Moved => Side::Target,
            Phase::Moving if self.inner.moved.read().contains(&log) => Side::Target,
            Phase::Moving => Side::Source,
        }
    }

    /// The log is at the target from now on.
    pub(crate) fn moves(&self, log: LogId) {
        self.inner.moved.write().insert(log);
        self.inner.fresh.lock().remove(&log);
    }

    /// Where rows of a partition are read, and where they are written that lie at one place only.
    pub(crate) fn side_of_rows(&self, table: Table, partition: &[u8]) -> Side {
        match table {
            Table::Page => match LogId::from_bytes(partition) {
                Some(log) => self.side_of(log),
                None => Side::Source,
            },
            // Nodes of the source's cluster; the target has its own.
            Table::Node => Side::Source,
            _ if self.phase() == Phase::Moved => Side::Target,
            _ => Side::Source,
        }
    }

    /// Whether a row of this table is written to both while the move is under way.
    pub(crate) fn is_at_both(&self, table: Table) -> bool {
        self.phase() == Phase::Moving && !matches!(table, Table::Page | Table::Node)
    }

    /// The name of the gate for rows of a partition: for pages that of their log.
    pub(crate) fn gate_of(key: &RowKey) -> &Bytes {
        &key.partition
    }
}

/// Writes down that this is a move from `source` to `target`, or finds it written down.
async fn agree(source: &Engine, target: &Engine, place: &str) -> Result<Standing, MoveError> {
    let away = Standing::away(&*source.rows).await?;
    let into = Standing::into(&*target.rows).await?;
    let standing = match away {
        Some(Standing { done: true, place, .. }) => return Err(StandingError::Gone { place }.into()),
        Some(away) if away.place != place => {
            return Err(StandingError::Elsewhere { place: away.place }.into());
        }
        Some(away) => away,
        None => Standing { id: Uuid::new_v4(), done: false, place: place.to_owned() },
    };
    match into {
        Some(into) if into.id == standing.id && !into.done => return Ok(standing),
        Some(_) => return Err(StandingError::Other.into()),
        None => {}
    }
    for kind in [LogKind::Account, LogKind::Shard, LogKind::Domain, LogKind::Registry] {
        if !target.log.list(kind, None, 1).await.map_err(MoveError::target)?.is_empty() {
            return Err(MoveError::NotEmpty);
        }
    }
    standing.write_away(&*source.rows).await?;
    standing.write_into(&*target.rows).await?;
    Ok(standing)
}
