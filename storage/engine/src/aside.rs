//! Work that computes for a while, away from the threads that sessions and actors run on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Handle, RuntimeFlavor};

/// The work was not done to its end: it panicked, or the runtime is going down.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Aborted(String);

/// Does `work` on a thread for blocking work. A runtime with one thread does it in place: there is nobody beside it whom
/// it would hold up for long, and the order of steps then depends on that one thread alone. So a simulation, which runs
/// its nodes on such runtimes, is the same each time.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Aborted> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Aborted(words(&*panic)));
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Aborted(error.to_string()))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn here_and_elsewhere() -> (bool, Result<(), Aborted>) {
        let here = std::thread::current().id();
        let there = aside(|| std::thread::current().id()).await.unwrap();
        (here == there, aside(|| panic!("as planned")).await)
    }

    #[tokio::test]
    async fn one_thread_does_it_in_place() {
        let (in_place, panicked) = here_and_elsewhere().await;
        assert!(in_place);
        assert_eq!(panicked.unwrap_err().to_string(), "as planned");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn several_have_it_done_elsewhere() {
        let (in_place, panicked) = here_and_elsewhere().await;
        assert!(!in_place && panicked.is_err());
    }
}
