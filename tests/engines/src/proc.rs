//! What the kernel says of a process, in /proc.

use std::fs;
use std::path::{Path, PathBuf};

/// Behind the second field, the program's name, which may hold spaces and brackets: the third is the state, the twentieth the
/// number of threads, and the twenty-second the start.
const STATE: usize = 0;
const THREADS: usize = 17;
const START: usize = 19;

/// When a process was started, in clock ticks since the machine was; none where there is none, or only its exit status that
/// nobody has fetched.
pub(crate) fn start_ticks(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(of(number).join("stat")).ok()?;
    let fields = fields(&stat)?;
    let (state, threads) = (*fields.get(STATE)?, *fields.get(THREADS)?);
    // The first thread of a JVM ends before the others, which hold its files and ports for up to a second.
    let has_ended = matches!(state, "Z" | "X") && matches!(threads, "0" | "1");
    if has_ended { None } else { fields.get(START)?.parse().ok() }
}

/// Whether every thread of a process stands still after SIGSTOP. The signal returns before they do.
pub(crate) fn is_stopped(number: u32) -> std::io::Result<bool> {
    for thread in fs::read_dir(of(number).join("task"))? {
        // One that ends meanwhile runs no longer.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if fields(&stat).is_none_or(|fields| fields[STATE] != "T") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a process holds in memory.
pub(crate) fn resident_kib(number: u32) -> Option<u64> {
    let status = fs::read_to_string(of(number).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

fn of(number: u32) -> PathBuf {
    Path::new("/proc").join(number.to_string())
}

fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(") ")?.1.split(' ').collect())
}
