//! Memory that is free and still held: glibc keeps it for its arenas, where a thousand short-lived threads and large
//! snapshots have left it. Large blocks stay out of them, and an idle server gives back the rest.

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

/// Blocks from this size on have pages of their own, and go back to the system when they are free. Left alone, glibc
/// raises the limit with every such block up to 32 MiB: then what is large and short-lived lies among what is small and
/// stays, and leaves holes between.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES_MIN: libc::c_int = 1024 * 1024;

/// Sets up the allocator. To be called before there is any other thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the one function of glibc that sets this has no safe form")]
pub(crate) fn set_up() {
    // SAFETY: it takes two numbers, and changes a setting under the allocator's own lock.
    let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_MIN) };
    debug_assert_eq!(done, 1, "glibc allows up to 32 MiB");
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) const fn set_up() {}

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
