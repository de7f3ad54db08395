//! Bytes of a part that is not full yet.
//!
//! A sender may take minutes for a part, and there may be many senders. Within a budget for all of them the bytes wait in
//! memory; beyond it they wait in a temporary file without a name. They are sealed already, so nothing readable comes to
//! lie there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::Config;
use crate::service::joined;

/// Bytes that wait in memory, of all segments.
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What waits: first what is in the file, then what is in memory.
pub(crate) struct Waiting {
    budget: Arc<Budget>,
    file: Option<File>,
    in_file: usize,
    pieces: Vec<Bytes>,
    in_memory: usize,
}

impl Waiting {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, file: None, in_file: 0, pieces: Vec::new(), in_memory: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.in_file + self.in_memory
    }

    /// Adds a piece, and moves what is in memory to the file when there is no room for it.
    pub(crate) async fn push(&mut self, piece: Bytes, config: &Config) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if self.budget.take(piece.len()) {
            self.in_memory += piece.len();
            self.pieces.push(piece);
            return Ok(());
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let given = std::mem::take(&mut self.in_memory);
        self.budget.give(given);
        pieces.push(piece);
        let file = self.file.take();
        let folder = config.waiting_folder.clone();
        let at = self.in_file as u64;
        let (file, written) = blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => unnamed(folder.as_deref())?,
            };
            file.seek(SeekFrom::Start(at))?;
            let mut written = 0;
            for piece in &pieces {
                file.write_all(piece)?;
                written += piece.len();
            }
            Ok((file, written))
        })
        .await?;
        self.file = Some(file);
        self.in_file += written;
        metrics::counter!("postrider_s3_waiting_file_bytes_total").increment(written as u64);
        Ok(())
    }

    /// All of it, in one piece.
    pub(crate) async fn take(mut self) -> io::Result<Bytes> {
        let pieces = std::mem::take(&mut self.pieces);
        let Some(mut file) = self.file.take() else { return Ok(joined(pieces)) };
        let in_file = self.in_file;
        let total = self.len();
        blocking(move || {
            file.seek(SeekFrom::Start(0))?;
            let mut all = vec![0; in_file];
            file.read_exact(&mut all)?;
            all.reserve_exact(total - in_file);
            for piece in &pieces {
                all.extend_from_slice(piece);
            }
            Ok(all.into())
        })
        .await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.budget.give(self.in_memory);
    }
}

/// A file that is gone when it is closed.
fn unnamed(folder: Option<&Path>) -> io::Result<File> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            tempfile::tempfile_in(folder)
        }
        None => tempfile::tempfile(),
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // It fails only when the runtime is going down.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_budget_bytes_wait_in_a_file() {
        let config = Config::default();
        let budget = Budget::new(10);
        let mut first = Waiting::new(Arc::clone(&budget));
        let mut second = Waiting::new(Arc::clone(&budget));
        for piece in ["abc", "", "defg"] {
            first.push(Bytes::from_static(piece.as_bytes()), &config).await.unwrap();
        }
        for piece in ["hi", "jklmn", "o", "pqrstuvwxyz0", "1"] {
            second.push(Bytes::from_static(piece.as_bytes()), &config).await.unwrap();
        }
        assert!(first.file.is_none() && second.file.is_some());
        assert_eq!((first.len(), second.len()), (7, 21));
        assert_eq!(budget.used.load(Ordering::Relaxed), first.in_memory + second.in_memory);
        assert_eq!(first.take().await.unwrap(), "abcdefg");
        assert_eq!(second.take().await.unwrap(), "hijklmnopqrstuvwxyz01");
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
