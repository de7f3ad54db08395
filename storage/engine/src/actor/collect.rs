//! Page collection without a clock.
//!
//! Whoever swung to a snapshot with certainty, and so holds its whole list, may delete pages whose `base_seq` is less
//! than that snapshot's `seq` and which are neither its root nor listed. A snapshot that could still become current was
//! built on that one or on a later one, so all its new pages have a greater `base_seq`, and those that it keeps are
//! listed. Nobody deletes anything else, not even the pages of an own attempt that lost. However long a collector is
//! paused between deciding and deleting, the decision stays right.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::{Actor, JobDone, error_chain};
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

impl<S: State> Actor<S> {
    pub(super) fn start_collecting(&mut self, current: SnapshotPointer, listed: &[PageId]) {
        let context = self.context.clone();
        let mut keep: HashSet<PageId> = listed.iter().copied().collect();
        // Model page collection: Rule::RootKept.
        keep.insert(current.root());
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                if let Err(error) = collect(&context, current, &keep).await {
                    // The next collection covers these bases too.
                    tracing::debug!(log = %context.log, error = error_chain(&error), "pages not collected");
                }
                drop(busy);
                JobDone::Collected
            }
            .boxed(),
        );
    }
}

async fn collect(
    context: &Arc<Context>,
    current: SnapshotPointer,
    keep: &HashSet<PageId>,
) -> Result<(), EngineError> {
    let partition = page_partition(context.log);
    let anything = context.options.sabotaged(Sabotage::CollectNotListed);
    let mut from = Bytes::new();
    loop {
        let rows = &context.engine.rows;
        let keys = rows.scan_keys(Table::Page, partition.clone(), from, BATCH).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        from = successor(last);
        let complete = keys.len() < BATCH;
        // Keys begin with the base, so the first one that is too new ends the scan.
        let ids: Vec<PageId> = keys.iter().filter_map(|key| PageId::from_key(key)).collect();
        // Model page collection: Rule::OlderBaseOnly, Rule::StrictlyOlder.
        let old = ids.iter().take_while(|id| anything || id.base_seq < current.seq);
        let dead: Vec<RowKey> =
            old.clone().filter(|id| !keep.contains(id)).map(|id| context.page_key(*id)).collect();
        let ended = complete || old.count() < ids.len();
        if !dead.is_empty() {
            let count = dead.len() as u64;
            rows.delete(dead).await?;
            context.counters.pages_collected.add(count);
        }
        if ended {
            return Ok(());
        }
    }
}
