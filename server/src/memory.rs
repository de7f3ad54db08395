//! Memory that is free and still held: glibc keeps it for its arenas, where a thousand short-lived threads and large
//! snapshots have left it. An idle server gives it back.

use std::time::Duration;

/// How often it is looked at.
const PAUSE: Duration = Duration::from_secs(20);
/// How often after there was work.
const TIMES: u32 = 3;
/// A process that has used less of a processor meanwhile is idle: nobody waits while the lists are walked.
const IDLE: Duration = Duration::from_secs(2);

/// Gives free memory back, now and then, for as long as the process lives.
pub(crate) fn give_back() {
    // A daemon thread: it touches nothing that has to be closed.
    let thread = std::thread::Builder::new().name("memory".into());
    let looked = thread.spawn(|| {
        // A few times after there was work, since what comes after it frees some too.
        let (mut before, mut left) = (used(), TIMES);
        loop {
            std::thread::sleep(PAUSE);
            if used().saturating_sub(before) >= IDLE {
                left = TIMES;
            } else if left > 0 {
                left -= 1;
                trim();
            }
            before = used();
        }
    });
    if let Err(error) = looked {
        tracing::warn!(%error, "free memory is not given back");
    }
}

/// Time on processors that this process has used.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the one function of glibc that gives free memory back has no safe form")]
fn trim() {
    // SAFETY: it takes a number, and walks the allocator's own lists under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn trim() {}
