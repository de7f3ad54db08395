//! Clocks of single processes, which are libfaketime's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// As the machine's.
pub const RIGHT: &str = "+0";

/// What makes a process take its time from this file.
pub(crate) fn environment(clock: &Path) -> Result<Vec<(String, String)>> {
    let variables = [
        ("LD_PRELOAD", library()?.to_string_lossy().into_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_string_lossy().into_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// Where the library is that tells programs another time.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().context("libfaketime is not installed")
}

/// Moves the clock.
pub fn set(clock: &Path, offset: &str) -> Result<()> {
    // Moved into place, so that nobody reads half of it.
    let fresh = clock.with_extension("new");
    std::fs::write(&fresh, format!("{offset}\n"))?;
    Ok(std::fs::rename(fresh, clock)?)
}
