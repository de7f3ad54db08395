//! Reading a shard's operations again, for consumers that follow it, each with a cursor of its own in the shard; and for
//! operators who want to know what happened.

use engine::{ReplayError, with_causes};

use crate::entry::Operation;
use crate::error::WorkError;
use crate::queue::Queue;
use crate::shard::{Shard, ShardError};
use crate::shard_id::{ShardId, ShardKind};

/// Cursors of one shard.
const CURSORS_MAX: usize = 100;
/// Octets of a cursor's name.
const CURSOR_NAME_BYTES_MAX: usize = 64;

/// A shard, as whoever reads it again sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardView {
    /// Its name.
    pub shard: ShardId,
    /// Its last operation.
    pub seq: u64,
    /// Unfinished items in it.
    pub items: u64,
    /// Cursors: the next operation that each will read.
    pub cursors: Vec<(String, u64)>,
}

/// A part of a shard's operations.
#[derive(Clone, PartialEq, Debug)]
pub struct Replay {
    /// Operations with their numbers, ascending.
    pub operations: Vec<(u64, Operation)>,
    /// Where the next part begins.
    pub next: u64,
    /// One behind the last operation that there is, where nothing was put meanwhile.
    pub end: u64,
}

impl Queue {
    /// All shards that there are.
    pub async fn shard_views(&self) -> Result<Vec<ShardView>, WorkError> {
        let mut views = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound, ShardKind::Quarantine] {
            for shard in self.shards(kind).await? {
                let state = shard.state();
                let cursors = state.cursors().map(|(name, to)| (name.to_owned(), to)).collect();
                views.push(ShardView { shard: shard.id, seq: state.seq(), items: state.live(), cursors });
            }
        }
        Ok(views)
    }

    /// Operations of a shard from number `from` on; without, from where the cursor stands; without one, from the first.
    /// At most `limit`. The cursor stays where it is, see [`Queue::move_cursor`].
    pub async fn replay(
        &self,
        shard: ShardId,
        from: Option<u64>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Replay, WorkError> {
        let shard = self.shard(shard).await?;
        let state = shard.state();
        let stands = |name: &str| state.cursors().find(|(known, _)| *known == name).map(|(_, to)| to);
        let from = from.or_else(|| cursor.and_then(stands)).unwrap_or(1);
        let replayed = shard.handle.replay(from, limit).await.map_err(|error| match error {
            ReplayError::Gone(_) => WorkError::Misused("what was then is not kept any more"),
            error => ShardError::Unavailable { shard: shard.id, reason: with_causes(&error) }.into(),
        })?;
        Ok(Replay { operations: replayed.operations, next: replayed.next, end: state.seq() + 1 })
    }

    /// Notes, durably, that a consumer has read everything before `to`; a cursor that is new is made. Zero: it is no
    /// longer needed. Whoever reads and then moves its cursor reads everything at least once.
    pub async fn move_cursor(&self, shard: ShardId, name: &str, to: u64) -> Result<(), WorkError> {
        let sound = !name.is_empty()
            && name.len() <= CURSOR_NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !sound {
            return Err(WorkError::Misused(
                "a cursor's name is up to 64 letters, digits, hyphens, dots and underscores",
            ));
        }
        let shard = self.shard(shard).await?;
        if to > shard.state().seq() + 1 {
            return Err(WorkError::Misused("there is no such operation yet"));
        }
        if shard.move_cursor(name.to_owned(), to, CURSORS_MAX).await? {
            Ok(())
        } else {
            Err(WorkError::Misused("the shard has as many cursors as it may"))
        }
    }

    async fn shard(&self, id: ShardId) -> Result<Shard, WorkError> {
        let shards = self.shards(id.kind).await?;
        let found = shards.into_iter().find(|shard| shard.id == id);
        found.ok_or(WorkError::Misused("there is no such shard, or nothing was ever in it"))
    }
}
