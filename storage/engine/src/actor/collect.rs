//! Page collection without a clock.
//!
//! Whoever swung to a snapshot with certainty, and so holds its whole list, may delete pages whose `base_seq` is less
//! than that snapshot's `seq` and which are neither its root nor listed. A snapshot that could still become current was
//! built on that one or on a later one, so all its new pages have a greater `base_seq`, and those that it keeps are
//! listed. Nobody deletes anything else, not even the pages of an own attempt that lost. However long a collector is
//! paused between deciding and deleting, the decision stays right.
//!
//! Most of what may go is what the snapshot before had and this one has not, and who made both knows that without asking.
//! Pages of attempts that lost, and what a failed collection left, are found by looking at all pages: the first time, and
//! then once in a while.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use uuid::Uuid;

use super::{Actor, JobDone};
use crate::causes::with_causes;
use crate::context::{Context, page_partition};
use crate::error::EngineError;
use crate::id::PageId;
use crate::log::SnapshotPointer;
use crate::open_log::Busy;
use crate::options::Sabotage;
use crate::rows::{RowKey, Table, successor};
use crate::state::State;

/// Keys read and rows deleted at once.
const BATCH: usize = 512;

/// Collections without a look at all pages, between two with one.
const BLIND_MAX: u32 = 31;

/// What is known of the pages of the current snapshot.
#[derive(Debug)]
pub(super) struct Collected {
    snapshot: Uuid,
    pages: Vec<PageId>,
    /// Collections since the last one that looked at all pages.
    blind: u32,
}

impl<S: State> Actor<S> {
    /// After the swing from `base` to `current`, which lists these pages.
    pub(super) fn start_collecting(
        &mut self,
        base: SnapshotPointer,
        current: SnapshotPointer,
        listed: &[PageId],
    ) {
        let context = self.context.clone();
        let mut keep: HashSet<PageId> = listed.iter().copied().collect();
        // Model page collection: Rule::RootKept.
        keep.insert(current.root());
        let pages = keep.iter().copied().collect();
        let before =
            self.collected.take().filter(|before| before.snapshot == base.id && before.blind < BLIND_MAX);
        let blind = before.as_ref().map_or(0, |before| before.blind + 1);
        self.collected = Some(Collected { snapshot: current.id, pages, blind });
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                let collected = match before {
                    Some(before) if !context.options.sabotaged(Sabotage::CollectNotListed) => {
                        delete(&context, before.pages.iter(), current, &keep).await
                    }
                    _ => collect(&context, current, &keep).await,
                };
                if let Err(error) = collected {
                    // A collection that looks at all pages covers these bases too.
                    tracing::debug!(log = %context.log, error = with_causes(&error), "pages not collected");
                }
                drop(busy);
                JobDone::Collected
            }
            .boxed(),
        );
    }
}

/// Looks at all pages.
async fn collect(
    context: &Arc<Context>,
    current: SnapshotPointer,
    keep: &HashSet<PageId>,
) -> Result<(), EngineError> {
    let partition = page_partition(context.log);
    let mut from = Bytes::new();
    loop {
        let keys = context.engine.rows.scan_keys(Table::Page, partition.clone(), from, BATCH).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        from = successor(last);
        let ids: Vec<PageId> = keys.iter().filter_map(|key| PageId::from_key(key)).collect();
        delete(context, ids.iter(), current, keep).await?;
        // Keys begin with the base, so the first one that is too new ends the scan.
        if keys.len() < BATCH || ids.last().is_some_and(|last| !is_old(context, *last, current)) {
            return Ok(());
        }
    }
}

/// Deletes of these pages those that may go.
async fn delete(
    context: &Context,
    pages: impl Iterator<Item = &PageId>,
    current: SnapshotPointer,
    keep: &HashSet<PageId>,
) -> Result<(), EngineError> {
    let dead = pages.filter(|id| is_old(context, **id, current) && !keep.contains(id));
    let dead: Vec<RowKey> = dead.map(|id| context.page_key(*id)).collect();
    for some in dead.chunks(BATCH) {
        context.engine.rows.delete(some.to_vec()).await?;
        context.counters.pages_collected.add(some.len() as u64);
    }
    Ok(())
}

// Model page collection: Rule::OlderBaseOnly, Rule::StrictlyOlder.
fn is_old(context: &Context, id: PageId, current: SnapshotPointer) -> bool {
    id.base_seq < current.seq || context.options.sabotaged(Sabotage::CollectNotListed)
}
