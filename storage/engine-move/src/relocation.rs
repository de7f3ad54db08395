//! The work of a move, from its begin to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::{Engine, EngineError, LogId, LogKind, with_causes};
use futures_util::{TryStreamExt as _, stream};

use crate::blobs::MovingBlobs;
use crate::error::MoveError;
use crate::flip::Gate;
use crate::moving::{Moving, Phase};
use crate::progress::{Meter, Progress, Stage};
use crate::reconcile::TABLES;
use crate::standing::{Standing, StandingError};

/// Logs that move at one time.
const LOGS_AT_ONCE: usize = 4;
/// Logs listed at once.
const LISTED: usize = 1_024;
/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Accounts first: they are what there is most of. The registry is last, so that whoever looks into the target before
/// the end finds nothing there that he could take for an installation.
const KINDS: [LogKind; 4] = [LogKind::Account, LogKind::Shard, LogKind::Domain, LogKind::Registry];

/// A move under way. Clones are one.
#[derive(Clone, Debug)]
pub struct Relocation {
    moving: Moving,
    blobs: MovingBlobs,
    meter: Meter,
    stopped: Arc<AtomicBool>,
}

impl Relocation {
    /// Of an engine and segments that have begun to move, both to the same target.
    pub fn new(moving: Moving, blobs: MovingBlobs) -> Self {
        Self { moving, blobs, meter: Meter::new(), stopped: Arc::default() }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.meter.show()
    }

    /// It ends after the log or segment that it has in hand. What is at the target by then stays there.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Works until everything is at the target, or until it is stopped (`Ok(false)`). What may pass is tried again; an
    /// error needs a person.
    pub async fn run(&self) -> Result<bool, MoveError> {
        self.meter.runs(true);
        let outcome = self.until_done().await;
        self.meter.runs(false);
        if let Err(error) = &outcome {
            self.meter.trouble(Some(with_causes(error)));
        }
        outcome
    }

    async fn until_done(&self) -> Result<bool, MoveError> {
        loop {
            match self.advance().await {
                Ok(done) => {
                    self.meter.trouble(None);
                    return Ok(done);
                }
                Err(error) if error.is_temporary() => {
                    let waits = matches!(error, MoveError::SegmentsOpen);
                    self.meter.waits_for_segments(waits);
                    if !waits {
                        tracing::warn!(error = with_causes(&error), "the move pauses");
                    }
                    self.meter.trouble(Some(with_causes(&error)));
                }
                Err(error) => return Err(error),
            }
            if self.is_stopped() {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Does once, in order, what is left to do. `false`: it was stopped.
    pub async fn advance(&self) -> Result<bool, MoveError> {
        if self.moving.phase() == Phase::Moved {
            return Ok(true);
        }
        self.meter.enters(Stage::Rows);
        self.rows().await?;
        self.meter.enters(Stage::Segments);
        self.segments().await?;
        self.meter.enters(Stage::Logs);
        self.logs().await?;
        self.meter.enters(Stage::Rest);
        self.rows().await?;
        if self.is_stopped() {
            return Ok(false);
        }
        // Asked first: none can be begun any more, so those that were sealed by then are copied below.
        if self.blobs.has_open_segments().await? {
            return Err(MoveError::SegmentsOpen);
        }
        self.segments().await?;
        if self.is_stopped() {
            return Ok(false);
        }
        self.finish().await?;
        self.meter.enters(Stage::Done);
        Ok(true)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    async fn rows(&self) -> Result<(), MoveError> {
        for table in TABLES {
            if self.is_stopped() {
                return Ok(());
            }
            let compared = self.moving.reconcile(table).await?;
            self.meter.compared(compared.rows);
            tracing::debug!(?table, rows = compared.rows, changed = compared.changed, "rows were compared");
        }
        self.moving.settle_noted(Gate::Open).await?;
        Ok(())
    }

    async fn segments(&self) -> Result<(), MoveError> {
        self.blobs.copy_all(&self.meter, &|| self.is_stopped()).await
    }

    async fn logs(&self) -> Result<(), MoveError> {
        let mut all = Vec::new();
        for kind in KINDS {
            let mut logs = Vec::new();
            list(self.moving.source(), kind, &mut logs).await?;
            all.push(logs);
        }
        self.meter.logs(all.iter().map(|logs| logs.len() as u64).sum());
        for logs in all {
            stream::iter(logs.into_iter().map(Ok::<LogId, MoveError>))
                .try_for_each_concurrent(LOGS_AT_ONCE, |log| async move {
                    if self.is_stopped() {
                        return Ok(());
                    }
                    let copied = self.moving.flip(log, Gate::Open).await?;
                    self.meter.copied(copied.bytes);
                    self.meter.log_done();
                    Ok(())
                })
                .await?;
        }
        self.drop_copies_of_deleted().await
    }

    /// A log that was deleted while it was copied has left its copy at the target.
    async fn drop_copies_of_deleted(&self) -> Result<(), MoveError> {
        for kind in KINDS {
            let mut after = None;
            loop {
                let some =
                    self.moving.target().log.list(kind, after, LISTED).await.map_err(MoveError::target)?;
                let Some(last) = some.last() else { break };
                after = Some(*last);
                for log in some {
                    self.moving.drop_copy(log).await?;
                }
            }
        }
        Ok(())
    }

    /// The last moment, in which nobody writes anything: what came since the last look moves, and from its end on the
    /// source is history.
    async fn finish(&self) -> Result<(), MoveError> {
        let this = self.clone();
        let finishing = tokio::spawn(async move {
            let _closed = this.moving.inner.gates.close_all().await;
            let fresh: Vec<LogId> = this.moving.inner.fresh.lock().iter().copied().collect();
            for log in fresh {
                this.moving.flip(log, Gate::Closed).await?;
                this.moving.inner.fresh.lock().remove(&log);
            }
            if !this.moving.settle_noted(Gate::Closed).await? {
                return Err(MoveError::source(EngineError::unavailable("many rows are to be compared")));
            }
            this.end().await?;
            this.moving.enter(Phase::Moved);
            Ok(())
        });
        let panicked =
            |panic: tokio::task::JoinError| MoveError::target(EngineError::unavailable(panic.to_string()));
        finishing.await.map_err(panicked)?
    }

    /// Writes down at the source that the move has ended. Until it is known whether that is written all gates stay
    /// closed: once it is, nobody looks for anything at the source again.
    async fn end(&self) -> Result<(), MoveError> {
        let done = Standing { done: true, ..self.moving.standing().clone() };
        loop {
            match done.write_away(&*self.moving.source().rows).await {
                Ok(()) => return Ok(()),
                Err(StandingError::Engine(EngineError::Poisoned { reason })) => {
                    // Only a new process can find out.
                    tracing::error!(reason, "the source has stopped; everything waits");
                    std::future::pending::<()>().await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = with_causes(&error),
                        "not known whether the move has ended; asked again"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The last thing that a process does in which everything has moved, when nothing in it works with the target any
    /// more: others may begin to. `false`: the move has not ended. Whoever dies before leaves it to [`complete`].
    pub async fn hand_over(&self) -> Result<bool, MoveError> {
        if self.moving.phase() != Phase::Moved {
            return Ok(false);
        }
        let done = Standing { done: true, ..self.moving.standing().clone() };
        done.write_into(&*self.moving.target().rows).await?;
        Ok(true)
    }
}

async fn list(source: &Engine, kind: LogKind, logs: &mut Vec<LogId>) -> Result<(), MoveError> {
    let mut after = None;
    loop {
        let some = source.log.list(kind, after, LISTED).await.map_err(MoveError::source)?;
        let Some(last) = some.last() else { return Ok(()) };
        after = Some(*last);
        logs.extend(some);
    }
}

/// For a process that died, or was killed, when everything had moved and before it handed over: `source` says that the
/// move has ended, `target` does not yet. Says whether that was so. No other process may be working with them.
pub async fn complete(source: &Engine, target: &Engine) -> Result<bool, MoveError> {
    let (Some(away), Some(into)) =
        (Standing::away(&*source.rows).await?, Standing::into(&*target.rows).await?)
    else {
        return Ok(false);
    };
    if away.id != into.id {
        return Err(StandingError::Other.into());
    }
    if !away.done || into.done {
        return Ok(false);
    }
    away.write_into(&*target.rows).await?;
    Ok(true)
}
