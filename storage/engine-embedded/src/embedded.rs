//! The engine: opening, reading, and handing writes to the commit thread.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use engine::id::LOG_ID_BYTES;
use engine::rows::PARTITION_BYTES_MAX;
use engine::{Engine, EngineError, EntryRow, Head, Log, LogId, LogKind, Outcome, Row, RowKey, Rows};
use engine::{SnapshotPointer, Table, Tail};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use crate::commit::{Answer, Command, Committer, Delete, Put, Write};
use crate::config::Config;
use crate::head::read_head;
use crate::journal::cut_torn_end;
use crate::key::snapshot_key;
use crate::key::{GROUP_KEY, KEY_BYTES_MAX, entry_range, past_log, past_partition, row_key, row_prefix};
use crate::lock::FolderLock;
use crate::space::Space;
use crate::trimmed::Trimmed;
use crate::value;

const FORMAT: &str = "postrider embedded engine 1\n";

/// Unit of room in the queue of writes.
const PERMIT_BYTES: usize = 1024;

/// Why the engine was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{folder} is in use by process {holder}", folder = .folder.display())]
    Locked {
        /// Which folder.
        folder: PathBuf,
        /// The other process, if it is known.
        holder: String,
    },
    /// A file could not be read or written.
    #[error("{path}", path = .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds something else, or was written by another release.
    #[error("{folder} holds format {found:?}, this release knows {FORMAT:?}", folder = .folder.display())]
    Format {
        /// Which folder.
        folder: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// The journal is damaged before its end: acknowledged writes are unreadable.
    #[error("journal {path} is damaged at byte {offset}: {reason}", path = .path.display())]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Where the first unreadable batch begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The database below did not open.
    #[error("database cannot be opened")]
    Database(#[source] fjall::Error),
    /// The engine's own row is damaged.
    #[error("the engine's own row is damaged")]
    Row(#[source] EngineError),
}

/// The open tables.
pub(crate) struct Tables {
    pub(crate) database: Database,
    pub(crate) log: Keyspace,
    pub(crate) page: Keyspace,
    pub(crate) row: Keyspace,
    /// Writes fail.
    #[cfg(test)]
    pub(crate) fails: std::sync::atomic::AtomicBool,
}

impl Tables {
    pub(crate) fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = keyspace.get(key).map_err(|error| self.read_error(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// A row's value.
    pub(crate) fn row(&self, key: &RowKey) -> Result<Option<Bytes>, EngineError> {
        let (keyspace, name) = self.of(key.table);
        let stored = checked(key)?;
        let value = self.get(keyspace, &stored)?;
        value.map(|value| value::decode(name, &stored, &value)).transpose()
    }

    /// Lets what the tables hold in memory be written out, in the background.
    pub(crate) fn write_out(&self) -> Result<(), fjall::Error> {
        for keyspace in [&self.log, &self.page, &self.row] {
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// What a failed read means. Blocks that do not match their checksum are damage, all else may pass.
    #[allow(clippy::unused_self, reason = "reads belong to the tables")]
    pub(crate) fn read_error(&self, error: &fjall::Error) -> EngineError {
        match error {
            fjall::Error::Io(error) => EngineError::unavailable(error.to_string()),
            fjall::Error::Storage(fjall::LsmError::Io(error)) => EngineError::unavailable(error.to_string()),
            fjall::Error::Storage(error) => {
                EngineError::Damaged { place: "a block of a table".into(), reason: error.to_string() }
            }
            other => EngineError::unavailable(other.to_string()),
        }
    }
}

/// The embedded engine. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Option<Arc<Tables>>,
    commands: Option<mpsc::Sender<Command>>,
    trimmed: Trimmed,
    room: Arc<Semaphore>,
    permits_max: u32,
    poisoned: watch::Receiver<Option<String>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    _lock: FolderLock,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without senders the thread writes what it has, marks the end and goes. The lock is given free after that.
        self.commands = None;
        if let Some(committer) = self.committer.lock().take()
            && committer.join().is_err()
        {
            tracing::error!("commit thread panicked");
        }
        self.tables = None;
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl Embedded {
    /// Opens the engine in `folder`, making it when it is not there. Blocks: after a crash the journal is read.
    pub fn open(folder: &Path, config: Config) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        create_folder(folder).map_err(at(folder))?;
        let lock = FolderLock::take(folder)?;
        check_format(folder)?;
        let data = folder.join("data");
        if !data.exists() {
            create(folder, &data, &config)?;
        }
        let recovered = cut_torn_end(&data)?;
        let tables = open_tables(&data, &config).map_err(OpenError::Database)?;
        let group = read_group(&tables).map_err(OpenError::Row)?;
        let tables = Arc::new(tables);
        let (poison, poisoned) = watch::channel(None);
        let (commands, receiver) = mpsc::channel();
        let space = Space::new(folder.to_path_buf(), config.reserve_bytes);
        let permits_max = config.commit.pending_bytes_max.div_ceil(PERMIT_BYTES).clamp(1, 1 << 20) as u32;
        let committer = Committer::new(
            tables.clone(),
            config.commit.clone(),
            config.heads_max,
            space,
            poison,
            group,
            recovered,
        );
        let thread = std::thread::Builder::new()
            .name("storage-commit".into())
            .spawn(move || committer.run(&receiver))
            .map_err(at(folder))?;
        let inner = Inner {
            tables: Some(tables),
            commands: Some(commands),
            trimmed: Trimmed::new(config.heads_max),
            room: Arc::new(Semaphore::new(permits_max as usize)),
            permits_max,
            poisoned,
            committer: Mutex::new(Some(thread)),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its logs and rows.
    pub fn engine(&self) -> Engine {
        Engine::new(Arc::new(self.clone()), Arc::new(self.clone()))
    }

    /// Becomes the reason when a write error has stopped the engine: a person must look, and the process restart.
    pub fn poisoned(&self) -> watch::Receiver<Option<String>> {
        self.inner.poisoned.clone()
    }

    #[cfg(test)]
    pub(crate) fn tables(&self) -> &Tables {
        self.inner.tables()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> Result<u64, EngineError> {
        let tables = self.inner.tables();
        tables.database.disk_space().map_err(|error| tables.read_error(&error))
    }

    async fn submit(&self, write: Write) -> Result<Outcome, EngineError> {
        Ok(self.submit_then_read(write, Vec::new()).await?.outcome)
    }

    async fn submit_then_read(&self, write: Write, reads: Vec<RowKey>) -> Result<Answer, EngineError> {
        let permits = (write.bytes().div_ceil(PERMIT_BYTES) as u32).min(self.inner.permits_max);
        let closed = || EngineError::Poisoned { reason: "the commit thread is gone".into() };
        let permit = self.inner.room.clone().acquire_many_owned(permits).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let commands = self.inner.commands.as_ref().expect("there while the engine is");
        commands.send(Command { write, reads, reply, permit }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let tables = self.inner.tables().clone();
        tokio::task::spawn_blocking(move || read(&tables))
            .await
            .map_err(|error| EngineError::unavailable(error.to_string()))?
    }
}

impl Inner {
    fn tables(&self) -> &Arc<Tables> {
        self.tables.as_ref().expect("there while the engine is")
    }
}

/// Makes the folder and those above it so that they are there after a power cut.
fn create_folder(folder: &Path) -> std::io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(&folder)?;
    for above in missing.iter().rev().filter_map(|made| made.parent()) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

fn check_format(folder: &Path) -> Result<(), OpenError> {
    let path = folder.join("format");
    let io = |source| OpenError::Io { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => Err(OpenError::Format { folder: folder.into(), found }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = folder.join("format.new");
            let mut file = File::create(&fresh).map_err(io)?;
            file.write_all(FORMAT.as_bytes()).map_err(io)?;
            file.sync_all().map_err(io)?;
            fs::rename(&fresh, &path).map_err(io)?;
            sync_folder(folder)
        }
        Err(error) => Err(io(error)),
    }
}

/// Makes the database beside its place and moves it there complete, so that a power cut on the way leaves nothing that
/// could not be opened.
fn create(folder: &Path, data: &Path, config: &Config) -> Result<(), OpenError> {
    let fresh = folder.join("data.new");
    let io = |source| OpenError::Io { path: fresh.clone(), source };
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    drop(open_tables(&fresh, config).map_err(OpenError::Database)?);
    sync_tree(&fresh).map_err(io)?;
    fs::rename(&fresh, data).map_err(io)?;
    sync_folder(folder)
}

fn sync_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| OpenError::Io { path: folder.into(), source })
}

fn open_tables(folder: &Path, config: &Config) -> Result<Tables, fjall::Error> {
    let database = Database::builder(folder)
        .cache_size(config.cache_bytes)
        // Entries and pages are sealed, so they do not shrink.
        .journal_compression(CompressionType::None)
        .manual_journal_persist(true)
        .max_journaling_size(config.journal_bytes_max.max(64 * 1024 * 1024))
        .worker_threads(config.worker_threads.max(1))
        .open()?;
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(config.memtable_bytes)
            .data_block_compression_policy(CompressionPolicy::disabled())
    };
    let log = database.keyspace("log", options)?;
    // Pages are large and read whole: apart from their keys they are not moved by every compaction.
    let page =
        database.keyspace("page", || options().with_kv_separation(Some(KvSeparationOptions::default())))?;
    let row = database.keyspace("row", options)?;
    Ok(Tables {
        database,
        log,
        page,
        row,
        #[cfg(test)]
        fails: false.into(),
    })
}

/// The number of the last group.
fn read_group(tables: &Tables) -> Result<u64, EngineError> {
    let Some(value) = tables.get(&tables.row, GROUP_KEY)? else { return Ok(0) };
    let payload = value::decode("row", GROUP_KEY, &value)?;
    let number = payload.first_chunk().ok_or_else(|| value::damaged("row", GROUP_KEY, "too short"))?;
    Ok(u64::from_le_bytes(*number))
}

/// A key that can be stored.
fn checked(key: &RowKey) -> Result<Vec<u8>, EngineError> {
    if key.partition.len() > PARTITION_BYTES_MAX || key.key.len() > KEY_BYTES_MAX {
        return Err(EngineError::unavailable(format!(
            "row key too long: partition of {} bytes, key of {}",
            key.partition.len(),
            key.key.len()
        )));
    }
    Ok(row_key(key))
}

fn is_page(table: Table) -> bool {
    table == Table::Page
}

fn read_tail(
    tables: &Tables,
    log: LogId,
    after: Option<u64>,
    limit: usize,
) -> Result<Option<Tail>, EngineError> {
    // Head and entries are read from one snapshot of the tables, so they fit together; but it is enough that a head is
    // never older than the entries are trimmed, which reading it first gives too.
    let Some(head) = read_head(tables, log)? else { return Ok(None) };
    let after = after.unwrap_or(head.snapshot.seq);
    let mut rows: Vec<EntryRow> = Vec::new();
    for guard in tables.log.range(entry_range(log, after, u64::MAX)).take(limit) {
        let (key, value) = guard.into_inner().map_err(|error| tables.read_error(&error))?;
        rows.push(value::decode_entry(&key, &Bytes::copy_from_slice(&value))?);
    }
    Ok(Some(Tail { head, rows }))
}

#[async_trait]
impl Log for Embedded {
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError> {
        self.inner.trimmed.forget(log);
        self.submit(Write::Create { log, snapshot }).await
    }

    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.read(move |tables| read_tail(tables, log, None, limit)).await
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        self.read(move |tables| read_head(tables, log)).await
    }

    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.read(move |tables| read_tail(tables, log, Some(after), limit)).await
    }

    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError> {
        // Never the entry itself: it is the head.
        let Some(to) = trim_to.map(|to| to.min(entry.first_seq.saturating_sub(1))) else {
            return self.submit(Write::Append { log, entry: entry.clone(), trim: Vec::new() }).await;
        };
        let after = self.inner.trimmed.through(log);
        let trim = self.read(move |tables| tables.entry_keys(log, after, to)).await?;
        let outcome = self.submit(Write::Append { log, entry: entry.clone(), trim }).await?;
        if outcome == Outcome::Applied {
            self.inner.trimmed.set(log, to);
        }
        Ok(outcome)
    }

    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError> {
        self.submit(Write::Swing { log, base, new }).await
    }

    async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        let deleted = self.submit(Write::DeleteLog { log }).await.map(|_| ());
        self.inner.trimmed.forget(log);
        deleted
    }

    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError> {
        self.read(move |tables| {
            let mut found = Vec::new();
            let mut start = after.map_or_else(|| vec![kind as u8], past_log);
            while found.len() < limit {
                let Some(guard) = tables.log.range(start..).next() else { break };
                let key = guard.key().map_err(|error| tables.read_error(&error))?;
                let log = key.get(..LOG_ID_BYTES).and_then(LogId::from_bytes);
                let log = log.ok_or_else(|| value::damaged("log", &key, "not the key of a log"))?;
                if log.kind != kind {
                    break;
                }
                // The snapshot's row is the first of a log; entries without one are of none.
                if key[..] == snapshot_key(log)[..] {
                    found.push(log);
                }
                start = past_log(log);
            }
            Ok(found)
        })
        .await
    }
}

#[async_trait]
impl Rows for Embedded {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.put_rows(rows, true).await
    }

    async fn put_ordered(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.put_rows(rows, false).await
    }

    async fn put_ordered_then_get(
        &self,
        rows: Vec<Row>,
        keys: Vec<RowKey>,
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        let write = Write::Put { rows: encoded(&rows)?, durable: false };
        Ok(self.submit_then_read(write, keys).await?.values)
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.replace_if(row.key, None, Some(row.value)).await
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        let page = is_page(key.table);
        let key = checked(&key)?;
        let outcome = self.submit(Write::Replace { page, key, expected, new }).await?;
        Ok(outcome == Outcome::Applied)
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        Ok(self.get_many(vec![key]).await?.pop().flatten())
    }

    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.read(move |tables| keys.iter().map(|key| tables.row(key)).collect()).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let start = checked(&RowKey { table, partition: partition.clone(), key: from })?;
        self.read(move |tables| {
            let (keyspace, name) = tables.of(table);
            let prefix = row_prefix(table, &partition);
            let mut found = Vec::new();
            for guard in keyspace.range(start..).take(limit) {
                let (key, value) = guard
                    .into_inner_if(|key| key.starts_with(&prefix))
                    .map_err(|error| tables.read_error(&error))?;
                let Some(value) = value else { break };
                let value = value::decode(name, &key, &Bytes::copy_from_slice(&value))?;
                found.push((Bytes::copy_from_slice(&key[prefix.len()..]), value));
            }
            Ok(found)
        })
        .await
    }

    async fn scan_keys(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        let start = checked(&RowKey { table, partition: partition.clone(), key: from })?;
        self.read(move |tables| {
            let (keyspace, _) = tables.of(table);
            let prefix = row_prefix(table, &partition);
            let mut found = Vec::new();
            for guard in keyspace.range(start..).take(limit) {
                let key = guard.key().map_err(|error| tables.read_error(&error))?;
                let Some(key) = key.strip_prefix(&prefix[..]) else { break };
                found.push(Bytes::copy_from_slice(key));
            }
            Ok(found)
        })
        .await
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.read(move |tables| {
            let (keyspace, name) = tables.of(table);
            let mut found: Vec<Bytes> = Vec::new();
            let mut start = after.map_or_else(|| vec![table as u8], |after| past_partition(table, &after));
            while found.len() < limit {
                let Some(guard) = keyspace.range(start..).next() else { break };
                let key = guard.key().map_err(|error| tables.read_error(&error))?;
                if key.first() != Some(&(table as u8)) {
                    break;
                }
                let partition = key.get(1).and_then(|length| key.get(2..2 + usize::from(*length)));
                let partition =
                    partition.ok_or_else(|| value::damaged(name, &key, "not the key of a row"))?;
                let partition = Bytes::copy_from_slice(partition);
                start = past_partition(table, &partition);
                found.push(partition);
            }
            Ok(found)
        })
        .await
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        let rows: Result<Vec<Delete>, EngineError> =
            keys.iter().map(|key| Ok(Delete { page: is_page(key.table), key: checked(key)? })).collect();
        self.submit(Write::DeleteRows { rows: rows? }).await.map(|_| ())
    }
}

impl Tables {
    /// Keys of the entries of a log behind number `after` and up to number `to`.
    pub(crate) fn entry_keys(&self, log: LogId, after: u64, to: u64) -> Result<Vec<Vec<u8>>, EngineError> {
        if after >= to {
            return Ok(Vec::new());
        }
        self.log
            .range(entry_range(log, after, to))
            .map(|guard| Ok(guard.key().map_err(|error| self.read_error(&error))?.to_vec()))
            .collect()
    }

    /// Writes a batch; the error is for people.
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "tests make it fail"))]
    pub(crate) fn commit(&self, batch: fjall::OwnedWriteBatch) -> Result<(), String> {
        #[cfg(test)]
        if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err("planted write error".into());
        }
        batch.commit().map_err(|error| error.to_string())
    }

    fn of(&self, table: Table) -> (&Keyspace, &'static str) {
        if is_page(table) { (&self.page, "page") } else { (&self.row, "row") }
    }
}

impl Embedded {
    async fn put_rows(&self, rows: Vec<Row>, durable: bool) -> Result<(), EngineError> {
        self.submit(Write::Put { rows: encoded(&rows)?, durable }).await.map(|_| ())
    }
}

fn encoded(rows: &[Row]) -> Result<Vec<Put>, EngineError> {
    let put = |row: &Row| {
        let key = checked(&row.key)?;
        let value = value::encode(&key, &[&row.value]);
        Ok(Put { page: is_page(row.key.table), key, value })
    };
    rows.iter().map(put).collect()
}
