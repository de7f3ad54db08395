//! Where slow password hashes are computed: on blocking threads, a few at a time, with a bounded number waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs slow work, bounded in number. One argon2 run takes some 20 MB and 20 ms, so that strangers who send passwords
/// must not decide how many there are.
#[derive(Debug)]
pub(crate) struct Hasher {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Too many are waiting already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Hasher {
    /// `concurrent` of zero: one per core.
    pub(crate) fn new(concurrent: usize, waiting: usize) -> Self {
        let concurrent = match concurrent {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            given => given,
        }
        .min(Semaphore::MAX_PERMITS / 2);
        let waiting = waiting.min(Semaphore::MAX_PERMITS / 2);
        Self {
            running: Arc::new(Semaphore::new(concurrent)),
            waiting: Arc::new(Semaphore::new(concurrent + waiting)),
        }
    }

    /// Runs `work` when it is its turn.
    pub(crate) async fn run<R, F>(&self, work: F) -> Result<R, Busy>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        let _place = self.waiting.try_acquire().map_err(|_| Busy)?;
        // The permit goes along with the work: a caller who goes away must not let another in beside what still runs.
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Busy)?;
        let result = engine::aside(move || {
            let result = work();
            drop(permit);
            result
        });
        result.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn runs_and_waiters_are_bounded() {
        let hasher = Arc::new(Hasher::new(1, 1));
        let (release, held) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let count = Arc::new(AtomicUsize::new(0));
        let first = tokio::spawn({
            let (hasher, count) = (Arc::clone(&hasher), Arc::clone(&count));
            async move {
                let work = move || {
                    let _ = started.send(());
                    let _ = held.recv();
                    count.fetch_add(1, Ordering::SeqCst)
                };
                hasher.run(work).await
            }
        });
        has_started.await.unwrap();
        let second = tokio::spawn({
            let (hasher, count) = (Arc::clone(&hasher), Arc::clone(&count));
            async move { hasher.run(move || count.fetch_add(1, Ordering::SeqCst)).await }
        });
        while hasher.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hasher.run(|| ()).await, Err(Busy));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(0));
        assert_eq!(second.await.unwrap(), Ok(1));
        assert_eq!(hasher.run(|| 7).await, Ok(7));
    }
}
