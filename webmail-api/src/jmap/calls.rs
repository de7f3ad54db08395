//! How much an account has under way at one time (RFC 8620 §2 `maxConcurrentRequests`, `maxConcurrentUpload`).

use std::collections::HashMap;
use std::sync::Arc;

use mail::id::AccountId;
use parking_lot::Mutex;

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Requests of methods, and downloads.
    Request,
    /// Uploads.
    Upload,
    /// Event sources.
    EventSource,
    /// WebSockets.
    WebSocket,
}

/// Counts what is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    open: Arc<Mutex<HashMap<(AccountId, Kind), usize>>>,
}

/// One that is under way; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Permit {
    calls: Calls,
    of: (AccountId, Kind),
}

impl Calls {
    /// `None`: as many as there may be are under way.
    pub(crate) fn begin(&self, account: AccountId, kind: Kind, most: usize) -> Option<Permit> {
        let of = (account, kind);
        let mut open = self.open.lock();
        let count = open.entry(of).or_insert(0);
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        Some(Permit { calls: self.clone(), of })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.calls.open.lock();
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            // So that the map is never larger than what is under way.
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_account_and_kind_apart() {
        let calls = Calls::default();
        let (one, other) = (AccountId::random(), AccountId::random());
        let first = calls.begin(one, Kind::Request, 1).unwrap();
        assert!(calls.begin(one, Kind::Request, 1).is_none());
        assert!(calls.begin(other, Kind::Request, 1).is_some());
        assert!(calls.begin(one, Kind::EventSource, 1).is_some());
        drop(first);
        assert!(calls.open.lock().is_empty());
    }
}
