//! What the kernel says of a process, in /proc, and what is done to one that is not our child.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// One process and no other, though numbers be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The number of the process.
    pub number: u32,
    /// When the kernel started it, in clock ticks since the machine did.
    start_ticks: u64,
}

const PAUSE: Duration = Duration::from_millis(50);

impl Identity {
    /// The process that has this number now; none where there is none.
    pub fn of(number: u32) -> Option<Self> {
        Some(Self { number, start_ticks: start_ticks(number)? })
    }

    /// The processes of this machine whose program and arguments are wanted, as far as we may look at them.
    pub fn find(wanted: impl Fn(&[&str]) -> bool) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for file in fs::read_dir("/proc").context("/proc")? {
            let Some(number) = file?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Before its arguments are read: if the number is given again in between, this is nobody's identity.
            let Some(identity) = Self::of(number) else { continue };
            let text = fs::read(entry(number).join("cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let arguments: Vec<&str> = text.split_terminator('\0').collect();
            if wanted(&arguments) {
                found.push(identity);
            }
        }
        Ok(found)
    }

    /// Whether this process, and not another one with its number, runs.
    pub fn is_up(self) -> bool {
        start_ticks(self.number) == Some(self.start_ticks)
    }

    /// What it holds in memory; none where it is down.
    pub fn resident_kib(self) -> Option<u64> {
        if self.is_up() { resident_kib(self.number) } else { None }
    }

    /// Stops these by TERM, and by KILL those that have not ended after so long; returns when none runs.
    pub fn stop(processes: &[Self], patience: Duration) -> Result<()> {
        for process in processes {
            // A paused process would never see the first.
            process.signal(Signal::TERM)?;
            process.signal(Signal::CONT)?;
        }
        let deadline = Instant::now() + patience;
        while processes.iter().any(|process| process.is_up()) {
            if Instant::now() > deadline {
                processes.iter().try_for_each(|process| process.signal(Signal::KILL))?;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_up() {
            return Ok(());
        }
        let process = Pid::from_raw(self.number as i32).context("no process has the number 0")?;
        match kill_process(process, signal) {
            // It ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal:?} to process {}", self.number)),
        }
    }
}

/// Behind the second field, the program's name, which may hold spaces and brackets: the third is the state, the twentieth the
/// number of threads, and the twenty-second the start.
const STATE: usize = 0;
const THREADS: usize = 17;
const START: usize = 19;

/// When a process was started, in clock ticks since the machine was; none where there is none, or only its exit status that
/// nobody has fetched.
fn start_ticks(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(entry(number).join("stat")).ok()?;
    let fields = fields(&stat)?;
    let (state, threads) = (*fields.get(STATE)?, *fields.get(THREADS)?);
    // The first thread of a JVM ends before the others, which hold its files and ports for up to a second.
    let has_ended = matches!(state, "Z" | "X") && matches!(threads, "0" | "1");
    if has_ended { None } else { fields.get(START)?.parse().ok() }
}

/// Whether every thread of a process stands still after SIGSTOP. The signal returns before they do.
pub(crate) fn is_stopped(number: u32) -> std::io::Result<bool> {
    for thread in fs::read_dir(entry(number).join("task"))? {
        // One that ends meanwhile runs no longer.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if fields(&stat).is_none_or(|fields| fields[STATE] != "T") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a process holds in memory.
fn resident_kib(number: u32) -> Option<u64> {
    let status = fs::read_to_string(entry(number).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

fn entry(number: u32) -> PathBuf {
    Path::new("/proc").join(number.to_string())
}

fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(") ")?.1.split(' ').collect())
}
