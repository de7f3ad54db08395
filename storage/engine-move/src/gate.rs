//! Gates: writes to a log or partition go through one together; what moves it closes the gate behind them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// So many that few of those who write wait for the move of something else, and few enough to close them all.
const GATES: usize = 256;

/// Gates by name. Several are always taken in the same order, so nobody waits in a circle.
pub(crate) struct Gates(Box<[RwLock<()>]>);

pub(crate) type Open<'a> = RwLockReadGuard<'a, ()>;
pub(crate) type Closed<'a> = RwLockWriteGuard<'a, ()>;

impl Gates {
    pub(crate) fn new() -> Self {
        Self((0..GATES).map(|_| RwLock::new(())).collect())
    }

    fn number(name: &[u8]) -> usize {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        (hasher.finish() % GATES as u64) as usize
    }

    /// Goes through the gate of `name`, beside others.
    pub(crate) async fn pass(&self, name: &[u8]) -> Open<'_> {
        self.0[Self::number(name)].read().await
    }

    /// Goes through the gates of all these names.
    pub(crate) async fn pass_all(&self, names: impl Iterator<Item = &[u8]>) -> Vec<Open<'_>> {
        let numbers: BTreeSet<usize> = names.map(Self::number).collect();
        let mut open = Vec::with_capacity(numbers.len());
        for number in numbers {
            open.push(self.0[number].read().await);
        }
        open
    }

    /// Waits until everybody is through the gate of `name`, and keeps it closed.
    pub(crate) async fn close(&self, name: &[u8]) -> Closed<'_> {
        self.0[Self::number(name)].write().await
    }

    /// Closes all gates.
    pub(crate) async fn close_all(&self) -> Vec<Closed<'_>> {
        let mut closed = Vec::with_capacity(self.0.len());
        for gate in &self.0 {
            closed.push(gate.write().await);
        }
        closed
    }

    /// Waits until everybody is through who is on the way now.
    pub(crate) async fn wait_for_all(&self) {
        for gate in &self.0 {
            drop(gate.write().await);
        }
    }
}
