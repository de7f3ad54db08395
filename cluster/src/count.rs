//! Counts that a metric shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count, and the metric that shows it.
pub(crate) struct Count {
    count: AtomicU64,
    metric: metrics::Counter,
}

impl Count {
    pub(crate) fn new(metric: metrics::Counter) -> Self {
        Self { count: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.metric.increment(count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
