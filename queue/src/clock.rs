//! The wall clock, as something that can be handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in unix seconds. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    set: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { set: None }
    }

    /// A clock that stands still until it is set; for tests.
    pub fn standing(at: u64) -> Self {
        Self { set: Some(Arc::new(AtomicU64::new(at))) }
    }

    /// Sets a standing clock, and all its clones. The system's clock takes no notice.
    pub fn set(&self, at: u64) {
        if let Some(set) = &self.set {
            set.store(at, Ordering::SeqCst);
        }
    }

    /// Unix seconds.
    pub fn now(&self) -> u64 {
        match &self.set {
            Some(set) => set.load(Ordering::SeqCst),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}
