//! How far logs were trimmed.
//!
//! What was deleted stays in the tables as a mark until they are merged, and a walk over a log's beginning passes all
//! marks. So a trim begins where the last one ended. This is a hint: where nothing is known the walk begins at the
//! log's first entry. As many logs are remembered as heads are (`Config::heads_max`).

use std::collections::HashMap;

use engine::LogId;
use parking_lot::Mutex;

/// Where the next trim of each log begins.
pub(crate) struct Trimmed {
    through: Mutex<HashMap<LogId, u64>>,
    most: usize,
}

impl Trimmed {
    pub(crate) fn new(most: usize) -> Self {
        Self { through: Mutex::default(), most: most.max(1) }
    }

    /// The entry up to which all are known to be gone; zero when nothing is known.
    pub(crate) fn through(&self, log: LogId) -> u64 {
        self.through.lock().get(&log).copied().unwrap_or_default()
    }

    /// All entries up to this one are gone, durably.
    pub(crate) fn set(&self, log: LogId, through: u64) {
        let mut all = self.through.lock();
        if all.len() >= self.most && !all.contains_key(&log) {
            all.clear();
        }
        let known = all.entry(log).or_default();
        *known = through.max(*known);
    }

    /// The log is deleted; one made anew begins anew.
    pub(crate) fn forget(&self, log: LogId) {
        self.through.lock().remove(&log);
    }
}
