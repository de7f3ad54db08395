//! Ids that appenders hold.

use std::collections::HashSet;
use std::sync::Arc;

use blob::SegmentId;
use parking_lot::Mutex;

/// The ids that are held in this process. Between processes the write itself decides.
#[derive(Clone, Default)]
pub(crate) struct BegunIds(Arc<Mutex<HashSet<SegmentId>>>);

/// Holds an id as long as it lives.
pub(crate) struct Begun {
    ids: BegunIds,
    segment: SegmentId,
}

impl BegunIds {
    /// Nothing when the id is held already.
    pub(crate) fn hold(&self, segment: SegmentId) -> Option<Begun> {
        let fresh = self.0.lock().insert(segment);
        fresh.then(|| Begun { ids: self.clone(), segment })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.ids.0.lock().remove(&self.segment);
    }
}
