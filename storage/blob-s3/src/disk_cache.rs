//! A cache on disk: blocks of segments that were read, each in a file of its own.
//!
//! ```text
//! FOLDER/lock       held while a process has the folder open
//! FOLDER/XX/NAME    a block; NAME is the segment's id and the block's number, XX the end of the id
//! FOLDER/fresh-N    being written
//! ```
//!
//! Nothing is lost with it, so nothing is synced. A file says what it is and has a checksum: what a crash left of it, or
//! what a disk made of it, is noticed when it is read, and the block is fetched again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use blob::SegmentId;
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::waiting::blocking;

const MAGIC: &[u8; 8] = b"PRBLOCK1";
/// Magic, segment, number of the block, bytes of a whole block, CRC32C of all this and the content.
const HEADER_BYTES: usize = 8 + 16 + 8 + 8 + 4;

/// A block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct BlockId {
    pub(crate) segment: SegmentId,
    pub(crate) number: u64,
}

/// Blocks in a folder, the least recently used go first. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskCache(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    bytes_max: u64,
    block_bytes: u64,
    index: Mutex<Index>,
    fresh: AtomicU64,
    /// Locked as long as it is open.
    _lock: File,
}

struct Index {
    blocks: LruCache<BlockId, u64>,
    bytes: u64,
}

impl DiskCache {
    /// Opens the folder, and makes it when it is not there. What is in it from before is used again.
    pub(crate) fn open(folder: &Path, bytes_max: u64, block_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process uses the folder of the cache")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        let mut index = Index { blocks: LruCache::unbounded(), bytes: 0 };
        for (_, id, bytes) in found(folder)? {
            index.put(id, bytes);
        }
        let shared = Shared {
            folder: folder.into(),
            bytes_max,
            block_bytes,
            index: Mutex::new(index),
            fresh: AtomicU64::new(0),
            _lock: lock,
        };
        shared.evict();
        Ok(Self(Arc::new(shared)))
    }

    /// The block, if it is here and as it was put.
    pub(crate) async fn get(&self, id: BlockId) -> Option<Bytes> {
        self.0.index.lock().blocks.get(&id)?;
        let shared = Arc::clone(&self.0);
        let read = blocking(move || match shared.read(id) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                // Deleted behind our back is no damage.
                if error.kind() != io::ErrorKind::NotFound {
                    metrics::counter!("postrider_s3_cache_damaged_total").increment(1);
                    tracing::warn!(segment = %id.segment, block = id.number, %error, "a cached block is let go");
                }
                shared.remove(&[id]);
                Ok(None)
            }
        });
        read.await.ok().flatten()
    }

    pub(crate) fn has(&self, id: BlockId) -> bool {
        self.0.index.lock().blocks.contains(&id)
    }

    /// Keeps a block. A disk that does not take it is no error: the next reader fetches it again.
    pub(crate) async fn put(&self, id: BlockId, content: Bytes) {
        let shared = Arc::clone(&self.0);
        let kept = blocking(move || {
            shared.write(id, &content)?;
            shared.evict();
            Ok(())
        });
        if let Err(error) = kept.await {
            metrics::counter!("postrider_s3_cache_failures_total").increment(1);
            tracing::debug!(%error, "a block was not cached");
        }
    }

    /// Lets the blocks of a range go. Says whether there were any.
    pub(crate) async fn forget(&self, segment: SegmentId, range: Range<u64>) -> bool {
        let size = self.0.block_bytes;
        let numbers = range.start / size..range.end.div_ceil(size);
        let ids: Vec<BlockId> = {
            let index = self.0.index.lock();
            let all = index.blocks.iter().map(|(id, _)| *id);
            all.filter(|id| id.segment == segment && numbers.contains(&id.number)).collect()
        };
        let any = !ids.is_empty();
        let shared = Arc::clone(&self.0);
        let _ = blocking(move || {
            shared.remove(&ids);
            Ok(())
        })
        .await;
        any
    }
}

impl Shared {
    fn path(&self, id: BlockId) -> PathBuf {
        let segment = id.segment.to_string();
        self.folder.join(&segment[segment.len() - 2..]).join(format!("{segment}-{}", id.number))
    }

    fn header(&self, id: BlockId, content: &[u8]) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(id.segment.0.as_bytes());
        header[24..32].copy_from_slice(&id.number.to_le_bytes());
        header[32..40].copy_from_slice(&self.block_bytes.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..40]), content);
        header[40..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    fn read(&self, id: BlockId) -> io::Result<Bytes> {
        let mut bytes = Bytes::from(fs::read(self.path(id))?);
        if bytes.len() <= HEADER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "shorter than any block"));
        }
        let header = bytes.split_to(HEADER_BYTES);
        if header == self.header(id, &bytes)[..] {
            Ok(bytes)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not what was written"))
        }
    }

    fn write(&self, id: BlockId, content: &[u8]) -> io::Result<()> {
        let fresh = self.folder.join(format!("fresh-{}", self.fresh.fetch_add(1, Ordering::Relaxed)));
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&self.header(id, content))?;
            file.write_all(content)?;
            let path = self.path(id);
            let folder = path.parent().expect("a block lies in a folder");
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            fs::rename(&fresh, &path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written?;
        self.index.lock().put(id, (HEADER_BYTES + content.len()) as u64);
        Ok(())
    }

    /// Makes room.
    fn evict(&self) {
        let mut gone = Vec::new();
        let mut index = self.index.lock();
        while index.bytes > self.bytes_max
            && let Some((id, bytes)) = index.blocks.pop_lru()
        {
            index.bytes -= bytes;
            gone.push(id);
        }
        metrics::gauge!("postrider_s3_cache_bytes").set(index.bytes as f64);
        drop(index);
        self.remove_files(&gone);
    }

    fn remove(&self, ids: &[BlockId]) {
        let mut index = self.index.lock();
        for id in ids {
            let bytes = index.blocks.pop(id).unwrap_or(0);
            index.bytes -= bytes;
        }
        drop(index);
        self.remove_files(ids);
    }

    /// Not under the lock, for which readers wait. A block that was written anew in between loses its file: a reader
    /// finds none and fetches it.
    fn remove_files(&self, ids: &[BlockId]) {
        for id in ids {
            let _ = fs::remove_file(self.path(*id));
        }
    }
}

impl Index {
    fn put(&mut self, id: BlockId, bytes: u64) {
        self.bytes += bytes;
        self.bytes -= self.blocks.put(id, bytes).unwrap_or(0);
    }
}

/// What lies in the folder, in the order in which it was written. What is no block and was ours goes.
fn found(folder: &Path) -> io::Result<Vec<(SystemTime, BlockId, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("fresh-") {
            fs::remove_file(entry.path())?;
        }
        if entry.file_name().len() != 2 || !entry.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(entry.path())? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(parse) else { continue };
            let metadata = entry.metadata()?;
            found.push((metadata.modified()?, id, metadata.len()));
        }
    }
    found.sort_unstable_by_key(|(written, ..)| *written);
    Ok(found)
}

fn parse(name: &str) -> Option<BlockId> {
    let (segment, number) = name.split_once('-')?;
    Some(BlockId { segment: SegmentId(Uuid::try_parse(segment).ok()?), number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> BlockId {
        BlockId { segment: SegmentId(Uuid::from_u128(7)), number }
    }

    fn content(number: u64) -> Bytes {
        Bytes::from(vec![number as u8; 1000])
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first_and_the_rest_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let room = 3 * (1000 + HEADER_BYTES as u64);
        let cache = DiskCache::open(dir.path(), room, 1000).unwrap();
        assert!(DiskCache::open(dir.path(), room, 1000).is_err(), "one process at a time");
        for number in 0..3 {
            cache.put(id(number), content(number)).await;
        }
        assert_eq!(cache.get(id(0)).await.unwrap(), content(0));
        cache.put(id(3), content(3)).await;
        assert!(cache.get(id(1)).await.is_none(), "it was used least recently");
        for number in [0, 2, 3] {
            assert_eq!(cache.get(id(number)).await.unwrap(), content(number));
        }
        fs::write(dir.path().join("fresh-9"), "half a block").unwrap();
        fs::write(dir.path().join("notes"), "not ours").unwrap();
        drop(cache);
        let cache = DiskCache::open(dir.path(), room, 1000).unwrap();
        for number in [0, 2, 3] {
            assert_eq!(cache.get(id(number)).await.unwrap(), content(number));
        }
        assert!(!dir.path().join("fresh-9").exists() && dir.path().join("notes").exists());
        drop(cache);
        let cache = DiskCache::open(dir.path(), room / 3, 1000).unwrap();
        let left = fs::read_dir(dir.path().join("07")).unwrap().count();
        assert_eq!(left, 1, "a smaller bound holds at once");
        drop(cache);
    }

    #[tokio::test]
    async fn a_damaged_block_is_no_block() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20, 1000).unwrap();
        let damages: [fn(&mut Vec<u8>); 5] = [
            |bytes| bytes[500] ^= 1,
            |bytes| bytes[0] ^= 1,
            |bytes| bytes.truncate(600),
            |bytes| bytes.clear(),
            // Another block's content under this name.
            |bytes| bytes[24] ^= 1,
        ];
        for damage in damages {
            cache.put(id(1), content(1)).await;
            let path = cache.0.path(id(1));
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            assert!(cache.get(id(1)).await.is_none());
            assert!(!cache.has(id(1)) && !path.exists());
        }
        cache.put(id(1), content(1)).await;
        fs::remove_file(cache.0.path(id(1))).unwrap();
        assert!(cache.get(id(1)).await.is_none());
        // Blocks of another size are not this cache's.
        cache.put(id(1), content(1)).await;
        drop(cache);
        let cache = DiskCache::open(dir.path(), 1 << 20, 2000).unwrap();
        assert!(cache.get(id(1)).await.is_none());
    }

    #[tokio::test]
    async fn a_range_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path(), 1 << 20, 1000).unwrap();
        for number in 0..5 {
            cache.put(id(number), content(number)).await;
        }
        assert!(cache.forget(id(0).segment, 1999..3001).await);
        let left: Vec<u64> = (0..5).filter(|number| cache.has(id(*number))).collect();
        assert_eq!(left, [0, 4]);
        assert!(!cache.forget(id(0).segment, 1999..3001).await);
        assert!(cache.forget(id(0).segment, 0..u64::MAX).await);
    }
}
