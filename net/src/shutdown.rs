//! Ending gently: tell everybody, wait for them, and end what does not end by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Aborting,
}

/// The handle by which the process is told to end, and by which listeners and sessions hear of it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
    /// Its receivers are the guards: `watch` counts them, and tells when the last one has gone.
    alive: Arc<watch::Sender<()>>,
}

/// Held by whatever has to end before the process may. Clones count as one more each.
#[derive(Debug, Clone)]
pub struct ShutdownGuard {
    phase: watch::Receiver<Phase>,
    _alive: watch::Receiver<()>,
}

/// What [`Shutdown::finish`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many guards were still held when patience ended.
    pub aborted: usize,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A running process.
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)), alive: Arc::new(watch::Sender::new(())) }
    }

    /// Registers something that has to end.
    pub fn guard(&self) -> ShutdownGuard {
        ShutdownGuard { phase: self.phase.subscribe(), _alive: self.alive.subscribe() }
    }

    /// Tells every guard that the process wants to end. Listeners stop accepting; sessions end at their next pause.
    pub fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let told = *phase == Phase::Running;
            *phase = (*phase).max(Phase::Draining);
            told
        });
    }

    /// Waits until all guards have gone, for `grace` at most; then aborts what is left and waits `grace` once more at
    /// most, since dropping a task takes its next turn on the executor.
    pub async fn finish(&self, grace: Duration) -> Drained {
        self.begin();
        if tokio::time::timeout(grace, self.alive.closed()).await.is_ok() {
            return Drained { aborted: 0 };
        }
        let aborted = self.alive.receiver_count();
        self.phase.send_replace(Phase::Aborting);
        let _ = tokio::time::timeout(grace, self.alive.closed()).await;
        Drained { aborted }
    }
}

impl ShutdownGuard {
    /// Whether the process wants to end.
    pub fn is_requested(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Returns when the process wants to end. Cancel-safe.
    pub async fn requested(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when patience has ended and the holder is to stop where it stands. Cancel-safe.
    pub async fn aborted(&self) {
        self.reached(Phase::Aborting).await;
    }

    async fn reached(&self, wanted: Phase) {
        // A sender that has gone without a word means that the process is being torn down.
        let _ = self.phase.clone().wait_for(|phase| *phase >= wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_then_aborts() {
        let shutdown = Shutdown::new();
        let polite = shutdown.guard();
        let stubborn = shutdown.guard();
        assert!(!polite.is_requested());
        let polite = tokio::spawn(async move { polite.requested().await });
        let stubborn = tokio::spawn(async move { stubborn.aborted().await });
        assert_eq!(shutdown.finish(Duration::from_millis(50)).await, Drained { aborted: 1 });
        polite.await.unwrap();
        stubborn.await.unwrap();
    }

    #[tokio::test]
    async fn ends_at_once_without_guards() {
        assert_eq!(Shutdown::new().finish(Duration::from_secs(5)).await, Drained { aborted: 0 });
    }
}
