//! Segments as files of a folder.
//!
//! ```text
//! DIR/lock          held while a process has the folder open
//! DIR/open/ID       begun and not sealed
//! DIR/XX/ID         sealed; XX is the end of ID, so that no folder gets too many files
//! ```
//!
//! A segment is made durable by `fdatasync`; the folder that it was created in is synced before anything in it is
//! acknowledged. Sealing moves the file: a rename, so that start-up looks at `open/` alone. Which folder a file is in
//! is a convenience, its footer is the fact, so it does no harm when a power cut undoes the rename.
//!
//! All calls of the system run on blocking threads. Preallocation spares the file system the new length at each sync.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::Cache;
use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{Appender, Blobs, BlobsError, Growth, SegmentId, SegmentInfo};

/// Limits of the directory back end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirConfig {
    /// Segment files kept open for reading. Each costs a file descriptor and spares two system calls per read.
    pub files_open_max: usize,
    /// Reads at the same time. More than a disk's queue depth gains nothing and costs threads.
    pub reads_max: usize,
    /// Largest single read. A frame is read whole up to half a megabyte, an index is larger.
    pub read_bytes_max: usize,
    /// Whether space is reserved when a shared segment is begun, which makes each sync cheaper.
    pub preallocate: bool,
    /// Answers before anything is synced. A defect to be planted, to see that a checker notices it; never in a server.
    #[cfg(any(test, feature = "sabotage"))]
    #[serde(skip)]
    pub answer_before_sync: bool,
}

impl Default for DirConfig {
    fn default() -> Self {
        Self {
            files_open_max: 256,
            reads_max: 64,
            read_bytes_max: 64 << 20,
            preallocate: true,
            #[cfg(any(test, feature = "sabotage"))]
            answer_before_sync: false,
        }
    }
}

impl DirConfig {
    #[cfg(any(test, feature = "sabotage"))]
    fn syncs(&self) -> bool {
        !self.answer_before_sync
    }

    #[cfg(not(any(test, feature = "sabotage")))]
    #[expect(clippy::unused_self, reason = "with sabotage it is used")]
    fn syncs(&self) -> bool {
        true
    }
}

/// Segments as files of a folder.
pub struct DirBlobs {
    shared: Arc<Shared>,
    reads: Semaphore,
    config: DirConfig,
}

struct Shared {
    dir: PathBuf,
    files: Cache<SegmentId, Arc<File>>,
    /// Locked as long as it is open.
    _lock: File,
}

impl DirBlobs {
    /// Opens the folder, and makes it when it is not there. Refused while another process has it open.
    pub fn open(dir: &Path, config: DirConfig) -> Result<Self, BlobsError> {
        let failed = |source| BlobsError::from_io("opening the segment folder", source);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir.join("open")).map_err(failed)?;
        sync_folder(dir).map_err(failed)?;
        if let Some(parent) = dir.parent().filter(|parent| *parent != Path::new("")) {
            sync_folder(parent).map_err(failed)?;
        }
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"));
        let lock = lock.map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(BlobsError::InUse),
            Err(error) => return Err(failed(error.into())),
        }
        let files = Cache::new(config.files_open_max.max(1));
        let shared = Arc::new(Shared { dir: dir.into(), files, _lock: lock });
        Ok(Self { shared, reads: Semaphore::new(config.reads_max.max(1)), config })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, BlobsError> + Send + 'static,
    ) -> Result<T, BlobsError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || work(&shared)).await
    }
}

#[async_trait]
impl Blobs for DirBlobs {
    fn growth(&self) -> Growth {
        Growth::Durable
    }

    async fn put(&self, segment: SegmentId, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let appender = self.begin(segment, 0).await?;
        appender.seal(pieces).await
    }

    async fn begin(&self, segment: SegmentId, expected: u64) -> Result<Box<dyn Appender>, BlobsError> {
        let expected = if self.config.preallocate { expected } else { 0 };
        let sync = self.config.syncs();
        let shared = Arc::clone(&self.shared);
        let appender = blocking(move || {
            let path = shared.open_path(segment);
            if shared.sealed_path(segment).exists() {
                return Err(BlobsError::Exists(segment));
            }
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(BlobsError::Exists(segment));
                }
                other => other.map_err(|source| BlobsError::from_io("creating a segment", source))?,
            };
            let reserved = reserve(&file, expected).and_then(|()| sync_folder(&shared.dir.join("open")));
            if let Err(source) = reserved {
                // Nothing was written; without this a full disk would gather empty files.
                let _ = fs::remove_file(&path);
                return Err(BlobsError::from_io("creating a segment", source));
            }
            Ok(DirAppender {
                shared,
                segment,
                file: Arc::new(file),
                reserved: expected > 0,
                sync,
                state: State::Good,
            })
        })
        .await?;
        Ok(Box::new(appender))
    }

    async fn get(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes, BlobsError> {
        let out_of_range = BlobsError::OutOfRange { segment, start: range.start, end: range.end };
        let length = range.end.checked_sub(range.start).and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length <= self.config.read_bytes_max) else {
            return Err(out_of_range);
        };
        let _permit = self.reads.acquire().await.map_err(|_| BlobsError::Closed)?;
        self.run(move |shared| {
            let file = shared.file(segment)?;
            // The length is compared first, so that a damaged address cannot make us reserve memory for nothing.
            let there =
                file.metadata().map_err(|source| BlobsError::from_io("reading a segment", source))?.len();
            if range.end > there {
                return Err(out_of_range);
            }
            let mut bytes = vec![0; length];
            match file.read_exact_at(&mut bytes, range.start) {
                Ok(()) => Ok(bytes.into()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(out_of_range),
                Err(source) => Err(BlobsError::from_io("reading a segment", source)),
            }
        })
        .await
    }

    async fn stat(&self, segment: SegmentId) -> Result<SegmentInfo, BlobsError> {
        self.run(move |shared| {
            for (path, sealed) in [(shared.sealed_path(segment), true), (shared.open_path(segment), false)] {
                match fs::metadata(&path) {
                    Ok(metadata) => return Ok(SegmentInfo { segment, length: metadata.len(), sealed }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(BlobsError::from_io("looking for a segment", source)),
                }
            }
            Err(BlobsError::NotFound(segment))
        })
        .await
    }

    async fn finish(&self, segment: SegmentId, length: u64, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let failed = |source| BlobsError::from_io("finishing a segment", source);
            let mut file = match OpenOptions::new().write(true).open(shared.open_path(segment)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(BlobsError::NotFound(segment));
                }
                other => other.map_err(failed)?,
            };
            if file.metadata().map_err(failed)?.len() < length {
                return Err(BlobsError::OutOfRange { segment, start: 0, end: length });
            }
            file.set_len(length).map_err(failed)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(length)).map_err(failed)?;
            write_all(&file, &pieces).and_then(|()| file.sync_all()).map_err(failed)?;
            shared.move_to_sealed(segment)
        })
        .await
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), BlobsError> {
        self.run(move |shared| {
            shared.files.remove(&segment);
            for path in [shared.sealed_path(segment), shared.open_path(segment)] {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(BlobsError::from_io("deleting a segment", error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, after: Option<SegmentId>, limit: usize) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.run(move |shared| {
            let failed = |source| BlobsError::from_io("listing segments", source);
            let mut found = Vec::new();
            for entry in fs::read_dir(&shared.dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if name == "open" {
                    list_folder(&entry.path(), false, &mut found)?;
                } else if name.len() == 2 && entry.file_type().map_err(failed)?.is_dir() {
                    list_folder(&entry.path(), true, &mut found)?;
                }
            }
            found.retain(|info| after.is_none_or(|after| info.segment > after));
            found.sort_unstable_by_key(|info| info.segment);
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    async fn unsealed(&self) -> Result<Vec<SegmentInfo>, BlobsError> {
        self.run(move |shared| {
            let mut found = Vec::new();
            list_folder(&shared.dir.join("open"), false, &mut found)?;
            found.sort_unstable_by_key(|info| info.segment);
            Ok(found)
        })
        .await
    }
}

impl Shared {
    fn open_path(&self, segment: SegmentId) -> PathBuf {
        self.dir.join("open").join(segment.to_string())
    }

    fn sealed_path(&self, segment: SegmentId) -> PathBuf {
        let name = segment.to_string();
        self.dir.join(&name[name.len() - 2..]).join(&name)
    }

    /// The file for reading. It stays good when the segment is sealed meanwhile, which only moves it.
    fn file(&self, segment: SegmentId) -> Result<Arc<File>, BlobsError> {
        if let Some(file) = self.files.get(&segment) {
            return Ok(file);
        }
        // The open folder once more at the end: sealing may have moved the file between the two looks.
        for path in [self.sealed_path(segment), self.open_path(segment), self.sealed_path(segment)] {
            match File::open(&path) {
                Ok(file) => {
                    let file = Arc::new(file);
                    self.files.insert(segment, Arc::clone(&file));
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(BlobsError::from_io("opening a segment", source)),
            }
        }
        Err(BlobsError::NotFound(segment))
    }

    fn move_to_sealed(&self, segment: SegmentId) -> Result<(), BlobsError> {
        let failed = |source| BlobsError::from_io("sealing a segment", source);
        let to = self.sealed_path(segment);
        let folder = to.parent().expect("a sealed segment lies in a folder");
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => sync_folder(&self.dir).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(source)),
        }
        fs::rename(self.open_path(segment), &to).map_err(failed)?;
        sync_folder(folder).and_then(|()| sync_folder(&self.dir.join("open"))).map_err(failed)
    }
}

struct DirAppender {
    shared: Arc<Shared>,
    segment: SegmentId,
    file: Arc<File>,
    reserved: bool,
    sync: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// A write failed or its outcome was not waited for: what the file holds is not known.
    Unknown,
}

impl DirAppender {
    /// Runs a write. The state is *unknown* while it runs, so that a caller who goes away in between cannot go on later.
    async fn write(
        &mut self,
        pieces: Vec<Bytes>,
        then: impl FnOnce(&File) -> io::Result<()> + Send + 'static,
    ) -> Result<(), BlobsError> {
        if self.state != State::Good {
            return Err(BlobsError::Poisoned(self.segment));
        }
        self.state = State::Unknown;
        let file = Arc::clone(&self.file);
        blocking(move || {
            write_all(&file, &pieces)
                .and_then(|()| then(&file))
                .map_err(|source| BlobsError::from_io("writing a segment", source))
        })
        .await?;
        self.state = State::Good;
        Ok(())
    }
}

#[async_trait]
impl Appender for DirAppender {
    async fn append(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        self.write(pieces, |_| Ok(())).await
    }

    async fn commit(&mut self, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let sync = self.sync;
        self.write(pieces, move |file| if sync { file.sync_data() } else { Ok(()) }).await
    }

    async fn seal(mut self: Box<Self>, pieces: Vec<Bytes>) -> Result<(), BlobsError> {
        let (reserved, sync) = (self.reserved, self.sync);
        self.write(pieces, move |file| {
            if reserved {
                // Gives back what was reserved and not used: the length is the file's already.
                file.set_len(file.metadata()?.len())?;
            }
            if sync { file.sync_all() } else { Ok(()) }
        })
        .await?;
        let (shared, segment) = (Arc::clone(&self.shared), self.segment);
        blocking(move || shared.move_to_sealed(segment)).await
    }

    async fn abort(self: Box<Self>) {
        let (shared, segment) = (Arc::clone(&self.shared), self.segment);
        let removed = blocking(move || {
            shared.files.remove(&segment);
            fs::remove_file(shared.open_path(segment))
                .map_err(|source| BlobsError::from_io("aborting a segment", source))
        })
        .await;
        if let Err(error) = removed {
            tracing::warn!(segment = %self.segment, %error, "an aborted segment stays until the next start");
        }
    }
}

fn list_folder(folder: &Path, sealed: bool, found: &mut Vec<SegmentInfo>) -> Result<(), BlobsError> {
    let failed = |source| BlobsError::from_io("listing segments", source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(id) = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok()) else {
            tracing::warn!(path = %entry.path().display(), "not a segment; left alone");
            continue;
        };
        match entry.metadata() {
            Ok(metadata) => {
                found.push(SegmentInfo { segment: SegmentId(id), length: metadata.len(), sealed });
            }
            // Deleted or sealed while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(())
}

/// Reserves room without changing the file's length. A file system that cannot is no worse than before.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn write_all(mut file: &File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobsError> + Send + 'static,
) -> Result<T, BlobsError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BlobsError::Closed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_contract() {
        for preallocate in [false, true] {
            let config = DirConfig { preallocate, files_open_max: 4, ..DirConfig::default() };
            let dir = tempfile::tempdir().unwrap();
            let mut count = 0;
            contract::run(|| {
                count += 1;
                let blobs = DirBlobs::open(&dir.path().join(count.to_string()), config.clone()).unwrap();
                async move { Arc::new(blobs) as Arc<dyn Blobs> }
            })
            .await;
        }
    }

    #[tokio::test]
    async fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirBlobs::open(dir.path(), DirConfig::default()).unwrap();
        assert!(matches!(DirBlobs::open(dir.path(), DirConfig::default()), Err(BlobsError::InUse)));
        drop(first);
        DirBlobs::open(dir.path(), DirConfig::default()).unwrap();
    }

    #[tokio::test]
    async fn reserved_room_is_given_back_and_strange_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = DirBlobs::open(dir.path(), DirConfig::default()).unwrap();
        let id = SegmentId::fresh();
        let appender = blobs.begin(id, 8 << 20).await.unwrap();
        appender.seal(vec![Bytes::from_static(b"small")]).await.unwrap();
        let metadata = fs::metadata(blobs.shared.sealed_path(id)).unwrap();
        assert_eq!(metadata.len(), 5);
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) < 64, "eight megabytes were given back");
        fs::write(dir.path().join("open/notes.txt"), "x").unwrap();
        fs::write(dir.path().join("README"), "x").unwrap();
        assert!(blobs.unsealed().await.unwrap().is_empty());
        assert_eq!(blobs.list(None, 10).await.unwrap().len(), 1);
        assert!(dir.path().join("open/notes.txt").exists());
    }

    #[tokio::test]
    async fn a_writer_who_goes_away_in_the_middle_cannot_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = DirBlobs::open(dir.path(), DirConfig::default()).unwrap();
        let id = SegmentId::fresh();
        let mut appender = blobs.begin(id, 0).await.unwrap();
        let mut write = appender.commit(vec![Bytes::from(vec![1; 1 << 20])]);
        let polled = futures_util::poll!(write.as_mut());
        assert!(polled.is_pending());
        drop(write);
        assert!(matches!(appender.commit(Vec::new()).await, Err(BlobsError::Poisoned(_))));
    }
}
