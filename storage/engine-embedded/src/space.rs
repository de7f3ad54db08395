//! Room on the file system, looked at before it runs out: a failed write poisons the engine, a refused one does not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long an answer of the file system is believed, and how many bytes may be written on it.
const BELIEVED: Duration = Duration::from_millis(200);
const BELIEVED_BYTES: u64 = 16 * 1024 * 1024;

pub(crate) struct Space {
    folder: PathBuf,
    reserve: u64,
    asked: Option<Instant>,
    available: u64,
    written: u64,
}

impl Space {
    pub(crate) fn new(folder: PathBuf, reserve: u64) -> Self {
        Self { folder, reserve, asked: None, available: u64::MAX, written: 0 }
    }

    /// Why nothing may be written now, if so.
    pub(crate) fn shortage(&mut self) -> Option<String> {
        let stale = self.asked.is_none_or(|asked| asked.elapsed() > BELIEVED);
        if stale || self.written > BELIEVED_BYTES {
            self.asked = Some(Instant::now());
            self.written = 0;
            match rustix::fs::statvfs(&self.folder) {
                Ok(stat) => self.available = stat.f_bavail.saturating_mul(stat.f_frsize),
                // A file system that does not say is taken to have room; writing will show.
                Err(error) => {
                    tracing::warn!(folder = %self.folder.display(), %error, "free space not known");
                    self.available = u64::MAX;
                }
            }
        }
        (self.available < self.reserve)
            .then(|| format!("{} bytes left, {} are kept in reserve", self.available, self.reserve))
    }

    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }
}
