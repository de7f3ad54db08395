//! Facts of messages that were accepted a moment ago, so that delivery need not read them back. Bounded by their size;
//! what is not here is read from beside the blob.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mail::id::QueueId;
use mail::mime::Facts;

/// The newest facts.
#[derive(Debug)]
pub(crate) struct FactsCache {
    entries: HashMap<QueueId, (Arc<Facts>, usize)>,
    order: VecDeque<QueueId>,
    bytes: usize,
    bytes_max: usize,
}

impl FactsCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps facts of which the encoded form has so many bytes.
    pub(crate) fn put(&mut self, queue_id: QueueId, facts: Arc<Facts>, bytes: usize) {
        if bytes > self.bytes_max {
            return;
        }
        self.bytes += bytes;
        match self.entries.insert(queue_id, (facts, bytes)) {
            Some((_, before)) => self.bytes -= before,
            None => self.order.push_back(queue_id),
        }
        while self.bytes > self.bytes_max || self.order.len() > 2 * self.entries.len() + 64 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.remove(oldest);
        }
    }

    /// The facts, which are then needed once more at most: a retry reads them.
    pub(crate) fn take(&mut self, queue_id: QueueId) -> Option<Arc<Facts>> {
        self.remove(queue_id)
    }

    fn remove(&mut self, queue_id: QueueId) -> Option<Arc<Facts>> {
        let (facts, bytes) = self.entries.remove(&queue_id)?;
        self.bytes -= bytes;
        Some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let id = |number| QueueId(uuid::Uuid::from_u128(number));
        let mut cache = FactsCache::new(100);
        for number in 0..10 {
            cache.put(id(number), Arc::default(), 30);
        }
        assert!(cache.take(id(6)).is_none());
        assert!(cache.take(id(8)).is_some());
        assert!(cache.take(id(8)).is_none());
        cache.put(id(99), Arc::default(), 101);
        assert!(cache.take(id(99)).is_none());
        assert_eq!(cache.bytes, 60);
    }

    #[test]
    fn taken_ones_leave_no_trace_for_long() {
        let mut cache = FactsCache::new(1_000_000);
        for number in 0..10_000 {
            let id = QueueId(uuid::Uuid::from_u128(number));
            cache.put(id, Arc::default(), 30);
            cache.take(id);
        }
        assert!(cache.order.len() < 100);
    }
}
