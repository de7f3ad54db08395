//! Parts: pages that are fetched when a read or a commit wants them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::flight::unavailable;
use super::{Actor, JobDone};
use crate::causes::with_causes;
use crate::context::OpenError;
use crate::id::PageId;
use crate::open_log::{Busy, ReadError};
use crate::state::{PartPages, State};

/// The pages of a part, as a job fetched them.
pub(crate) struct PartFetched<S: State> {
    part: S::Part,
    pages: Result<Vec<(PageId, Bytes)>, OpenError>,
}

/// Those of `parts` that are not loaded in `state`.
pub(super) fn missing_parts<S: State>(state: &S, parts: &[S::Part]) -> Vec<S::Part> {
    parts.iter().filter(|part| state.pages_of(part) != PartPages::Loaded).cloned().collect()
}

impl<S: State> Actor<S> {
    /// Answers reads whose parts are loaded, and fetches what the others want.
    pub(super) fn serve_readers(&mut self) {
        let mut waiting = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            if reader.reply.is_closed() {
                continue;
            }
            let missing = missing_parts(&*self.state, &reader.parts);
            if missing.is_empty() {
                reader.answer(Ok(self.state.clone()));
                continue;
            }
            for part in missing {
                self.fetch_part(part);
            }
            waiting.push(reader);
        }
        self.readers = waiting;
    }

    /// Starts to fetch a part, unless that is under way or the log is about to be loaded again.
    pub(super) fn fetch_part(&mut self, part: S::Part) {
        if self.reload || self.fetching.contains(&part) {
            return;
        }
        let PartPages::Missing(ids) = self.state.pages_of(&part) else { return };
        self.fetching.insert(part.clone());
        let context = self.context.clone();
        let busy = Busy::new(&self.shared.busy);
        self.jobs.push(
            async move {
                let pages = context.pages(&ids).await;
                drop(busy);
                JobDone::Part(PartFetched { part, pages })
            }
            .boxed(),
        );
    }

    pub(super) fn part_fetched(&mut self, fetched: PartFetched<S>) {
        let PartFetched { part, pages } = fetched;
        self.fetching.remove(&part);
        match pages {
            Ok(pages) => self.install(&part, pages),
            // The state has moved to other pages since this was asked for, and another node has collected it: whoever
            // still wants the part has it fetched again.
            Err(OpenError::PageMissing(id)) if !self.wants_page(&part, id) => {}
            Err(OpenError::PageMissing(id)) => {
                // Either another node's snapshot has replaced ours and collected its pages, or this is an alarm. A load
                // tells.
                tracing::debug!(log = %self.context.log, page = ?id, "page missing, loading again");
                self.reload = true;
                self.missing_page = Some(id);
            }
            Err(error) => {
                tracing::warn!(log = %self.context.log, ?part, error = with_causes(&error), "part not read");
                self.fail_part(&part, &Arc::new(error));
            }
        }
    }

    fn wants_page(&self, part: &S::Part, id: PageId) -> bool {
        matches!(self.state.pages_of(part), PartPages::Missing(pages) if pages.contains(&id))
    }

    fn install(&mut self, part: &S::Part, pages: Vec<(PageId, Bytes)>) {
        // The state may have moved to other pages meanwhile; then what was fetched is of no use.
        let PartPages::Missing(wanted) = self.state.pages_of(part) else { return };
        if !wanted.iter().eq(pages.iter().map(|(id, _)| id)) {
            return;
        }
        let mut state = S::clone(&self.state);
        if let Err(source) = state.install(part, pages) {
            let error = OpenError::Format { place: format!("{part:?} of {}", self.context.log), source };
            tracing::error!(log = %self.context.log, error = with_causes(&error), "part not understood");
            self.fail_part(part, &Arc::new(error));
            return;
        }
        if let Some(group) = &mut self.group {
            group.speculative = None;
        }
        self.publish(state);
    }

    /// Tells everyone who waits for this part that it cannot be read.
    fn fail_part(&mut self, part: &S::Part, error: &Arc<OpenError>) {
        let (failed, waiting) =
            std::mem::take(&mut self.readers).into_iter().partition(|reader| reader.parts.contains(part));
        self.readers = waiting;
        for reader in Vec::from_iter::<Vec<_>>(failed) {
            reader.answer(Err(ReadError::Failed(error.clone())));
        }
        for queued in std::mem::take(&mut self.queue) {
            if queued.request.parts().contains(part) {
                queued.request.settle(unavailable(error));
            } else {
                self.queue.push_back(queued);
            }
        }
        self.snapshot_setback();
    }

    /// The log was loaded again. If its snapshot had not moved, a page that was missing then is an alarm.
    pub(super) fn pages_reloaded(&mut self, unmoved: bool) {
        let Some(id) = self.missing_page.take() else { return };
        if !unmoved {
            return;
        }
        // Whatever wanted the page is told; a snapshot that did waits, and longer each time.
        self.snapshot_setback();
        let error = Arc::new(OpenError::PageMissing(id));
        tracing::error!(log = %self.context.log, page = ?id, "page of the current snapshot is missing");
        let parts: Vec<S::Part> = self
            .readers
            .iter()
            .flat_map(|reader| reader.parts.iter())
            .chain(self.queue.iter().flat_map(|queued| queued.request.parts()))
            .filter(
                |part| matches!(self.state.pages_of(part), PartPages::Missing(pages) if pages.contains(&id)),
            )
            .cloned()
            .collect();
        for part in parts {
            self.fail_part(&part, &error);
        }
    }
}
