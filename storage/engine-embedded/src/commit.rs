//! The commit thread: the only writer.
//!
//! It takes what waits, decides conditions in order against heads and rows as the group so far would leave them, writes
//! one atomic batch, syncs, and only then answers. Answers that change nothing wait too, since they may rest on something
//! in the same group.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{EngineError, EntryRow, Head, LogId, Outcome, RowKey, SnapshotPointer};
use fjall::{Keyspace, PersistMode};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use uuid::Uuid;

use crate::config::CommitConfig;
use crate::embedded::Tables;
use crate::head::HeadCache;
use crate::key::{GROUP_KEY, entry_key, snapshot_key};
use crate::space::Space;
use crate::value;

/// A row as it is written.
pub(crate) struct Put {
    pub(crate) page: bool,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// A row to be deleted.
pub(crate) struct Delete {
    pub(crate) page: bool,
    pub(crate) key: Vec<u8>,
}

pub(crate) enum Write {
    Create { log: LogId, snapshot: SnapshotPointer },
    Append { log: LogId, entry: EntryRow, trim: Vec<Vec<u8>> },
    Swing { log: LogId, base: Uuid, new: SnapshotPointer },
    DeleteLog { log: LogId },
    Put { rows: Vec<Put>, durable: bool },
    Replace { page: bool, key: Vec<u8>, expected: Option<Bytes>, new: Option<Bytes> },
    DeleteRows { rows: Vec<Delete> },
}

impl Write {
    pub(crate) fn bytes(&self) -> usize {
        const ROW: usize = 64;
        match self {
            Self::Create { .. } | Self::Swing { .. } | Self::DeleteLog { .. } => ROW,
            Self::Append { entry, trim, .. } => ROW + entry.bytes.len() + trim.len() * ROW,
            Self::Put { rows, .. } => rows.iter().map(|row| ROW + row.value.len()).sum::<usize>() + ROW,
            Self::Replace { new, .. } => ROW + new.as_ref().map_or(0, Bytes::len),
            Self::DeleteRows { rows } => ROW + rows.len() * ROW,
        }
    }

    /// Whether it needs room, rather than making some.
    fn grows(&self) -> bool {
        !matches!(self, Self::DeleteLog { .. } | Self::DeleteRows { .. })
    }

    fn needs_sync(&self) -> bool {
        !matches!(self, Self::Put { durable: false, .. } | Self::DeleteRows { .. })
    }

    /// What a caller is told when the group failed on its way to the disk.
    fn failed(&self, reason: &str) -> Result<Outcome, EngineError> {
        match self {
            Self::Create { .. } | Self::Append { .. } | Self::Swing { .. } => Ok(Outcome::Unknown),
            Self::Replace { .. } => Err(EngineError::Undecided { reason: reason.into() }),
            Self::DeleteLog { .. } | Self::Put { .. } | Self::DeleteRows { .. } => {
                Err(EngineError::Poisoned { reason: reason.into() })
            }
        }
    }
}

pub(crate) struct Command {
    pub(crate) write: Write,
    /// Rows whose values the caller wants to know once the write is visible. This thread may wait for a disk; others
    /// would have to wake a thread for it.
    pub(crate) reads: Vec<RowKey>,
    pub(crate) reply: oneshot::Sender<Result<Answer, EngineError>>,
    /// Room in the queue, given back when the command is done.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What a caller is told.
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// Of the rows that were to be read, in that order.
    pub(crate) values: Vec<Option<Bytes>>,
}

/// What the thread decided about one command of the group.
struct Decided {
    command: Command,
    answer: Result<Outcome, EngineError>,
}

/// Nobody has written for so long: there is nothing to do.
const IDLE: Duration = Duration::from_secs(10);
/// Less than this is left where it is.
const WRITE_OUT_MIN: u64 = 1024 * 1024;

pub(crate) struct Committer {
    tables: Arc<Tables>,
    config: CommitConfig,
    heads: HeadCache,
    space: Space,
    poisoned: watch::Sender<Option<String>>,
    /// Number of the last group, and of the last one that was synced.
    group: u64,
    synced: u64,
    /// Bytes in memory that no table holds yet, about.
    unwritten: u64,
    /// What was written out last may still be in memory.
    held: bool,
}

/// Values of rows that the group so far would leave: only those that conditions asked about or changed.
type Overlay = HashMap<(bool, Vec<u8>), Option<Bytes>>;

impl Committer {
    pub(crate) fn new(
        tables: Arc<Tables>,
        config: CommitConfig,
        heads_max: usize,
        space: Space,
        poisoned: watch::Sender<Option<String>>,
        group: u64,
        recovered: u64,
    ) -> Self {
        let heads = HeadCache::new(heads_max);
        Self {
            tables,
            config,
            heads,
            space,
            poisoned,
            group,
            synced: group,
            unwritten: recovered,
            held: false,
        }
    }

    /// Runs until every sender is gone.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        let mut waiting = VecDeque::new();
        while self.gather(commands, &mut waiting) {
            if waiting.is_empty() {
                self.write_out();
                continue;
            }
            if let Some(reason) = self.poisoned.borrow().clone() {
                refuse(&mut waiting, &reason);
                continue;
            }
            self.commit(&mut waiting);
            self.heads.shrink();
        }
        if self.poisoned.borrow().is_none() {
            // So that what was synced last is known as such, and damage to it is told from a torn end.
            let _ = self.write(Vec::new(), true);
        }
    }

    /// While there is nothing to do, what lies in memory and in the journal is written to tables: so an idle server holds
    /// little, and a start has little to read. The tables forget what they have written out when one of them does so
    /// again; so there is a second time, for next to nothing.
    fn write_out(&mut self) {
        let much = self.unwritten >= WRITE_OUT_MIN;
        if !(much || self.held) || self.space.shortage().is_some() || self.poisoned.borrow().is_some() {
            return;
        }
        // Tables that have nothing new are not written out, so something has to be.
        if !much && self.write(Vec::new(), true).is_err() {
            return;
        }
        (self.held, self.unwritten) = (much, 0);
        if let Err(error) = self.tables.write_out() {
            tracing::warn!(%error, "tables are not written out");
        }
    }

    /// Waits for a command, then takes what else is there. None after a while: there is nothing to do. `false`: nobody can
    /// send any more.
    fn gather(&self, commands: &Receiver<Command>, waiting: &mut VecDeque<Command>) -> bool {
        let first = match commands.recv_timeout(IDLE) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let mut bytes = first.write.bytes();
        waiting.push_back(first);
        let until = Instant::now() + Duration::from_millis(self.config.linger_ms);
        while waiting.len() < self.config.batch_max && bytes < self.config.batch_bytes_max {
            let next = if self.config.linger_ms == 0 {
                commands.try_recv().map_err(|_| RecvTimeoutError::Timeout)
            } else {
                commands.recv_timeout(until.saturating_duration_since(Instant::now()))
            };
            let Ok(next) = next else { break };
            bytes += next.write.bytes();
            waiting.push_back(next);
        }
        true
    }

    fn commit(&mut self, waiting: &mut VecDeque<Command>) {
        let started = Instant::now();
        let shortage = self.space.shortage();
        let mut items = Vec::new();
        let mut overlay = Overlay::new();
        let mut sync = false;
        let mut bytes = 0;
        let mut group = Vec::with_capacity(waiting.len());
        for mut command in waiting.drain(..) {
            let answer = match &shortage {
                Some(reason) if command.write.grows() => Err(EngineError::Full { reason: reason.clone() }),
                _ => self.decide(&mut command.write, &mut items, &mut overlay),
            };
            if matches!(answer, Ok(Outcome::Applied)) {
                sync |= command.write.needs_sync();
                bytes += command.write.bytes();
            }
            group.push(Decided { command, answer });
        }
        if items.is_empty() && !sync {
            answer(&self.tables, group, None);
            return;
        }
        self.space.wrote(bytes);
        self.unwritten += bytes as u64;
        let failed = self.write(items, sync).err();
        if failed.is_none() {
            metrics::histogram!("postrider_engine_group_writes").record(group.len() as f64);
            metrics::histogram!("postrider_engine_group_seconds").record(started.elapsed().as_secs_f64());
        }
        answer(&self.tables, group, failed.as_deref());
    }

    /// Decides one write, and adds what it writes to the group.
    fn decide(
        &mut self,
        write: &mut Write,
        items: &mut Vec<Item>,
        overlay: &mut Overlay,
    ) -> Result<Outcome, EngineError> {
        match write {
            Write::Create { log, snapshot } => {
                if self.heads.get(&self.tables, *log)?.is_some() {
                    return Ok(Outcome::Conflict);
                }
                let key = snapshot_key(*log);
                items.push(Item::log(value::encode_snapshot(&key, *snapshot), key));
                self.heads.set(*log, Some(Head { seq: snapshot.seq, snapshot: *snapshot }));
            }
            Write::Append { log, entry, trim } => {
                let Some(head) = self.heads.get(&self.tables, *log)? else { return Ok(Outcome::Conflict) };
                if head.seq.checked_add(1) != Some(entry.first_seq) || entry.last_seq < entry.first_seq {
                    return Ok(Outcome::Conflict);
                }
                items.extend(trim.drain(..).map(Item::log_delete));
                let key = entry_key(*log, entry.last_seq);
                items.push(Item::log(value::encode_entry(&key, entry), key));
                self.heads.set(*log, Some(Head { seq: entry.last_seq, ..head }));
            }
            Write::Swing { log, base, new } => match self.heads.get(&self.tables, *log)? {
                Some(head) if head.snapshot.id == *base => {
                    let key = snapshot_key(*log);
                    items.push(Item::log(value::encode_snapshot(&key, *new), key));
                    self.heads.set(*log, Some(Head { snapshot: *new, ..head }));
                }
                _ => return Ok(Outcome::Conflict),
            },
            Write::DeleteLog { log } => {
                let written = self.tables.entry_keys(*log, 0, u64::MAX)?;
                items.extend(written.into_iter().map(Item::log_delete));
                delete_unwritten(*log, items);
                items.push(Item::log_delete(snapshot_key(*log)));
                self.heads.set(*log, None);
            }
            Write::Put { rows, .. } => {
                for row in rows.drain(..) {
                    if !overlay.is_empty() {
                        overlay.remove(&(row.page, row.key.clone()));
                        let payload = value::decode("row", &row.key, &row.value.clone().into())?;
                        overlay.insert((row.page, row.key.clone()), Some(payload));
                    }
                    items.push(Item { table: table(row.page), key: row.key, value: Some(row.value) });
                }
            }
            Write::Replace { page, key, expected, new } => {
                let place = (*page, std::mem::take(key));
                let current = self.row(items, overlay, &place)?;
                if current != *expected {
                    return Ok(Outcome::Conflict);
                }
                let value = new.as_ref().map(|new| value::encode(&place.1, &[new]));
                items.push(Item { table: table(place.0), key: place.1.clone(), value });
                overlay.insert(place, new.take());
            }
            Write::DeleteRows { rows } => {
                for row in rows.drain(..) {
                    if !overlay.is_empty() {
                        overlay.insert((row.page, row.key.clone()), None);
                    }
                    items.push(Item { table: table(row.page), key: row.key, value: None });
                }
            }
        }
        Ok(Outcome::Applied)
    }

    /// The value of a row as the group so far would leave it.
    fn row(
        &self,
        items: &[Item],
        overlay: &Overlay,
        place: &(bool, Vec<u8>),
    ) -> Result<Option<Bytes>, EngineError> {
        if let Some(value) = overlay.get(place) {
            return Ok(value.clone());
        }
        // Conditions are rare, so plain puts before the first one in a group are searched rather than indexed.
        let earlier = items.iter().rev().find(|item| item.table == table(place.0) && item.key == place.1);
        let value = match earlier {
            Some(item) => item.value.clone().map(Bytes::from),
            None => self.tables.get(self.keyspace(table(place.0)), &place.1)?,
        };
        value.map(|value| value::decode("row", &place.1, &value)).transpose()
    }

    fn keyspace(&self, table: TableName) -> &Keyspace {
        match table {
            TableName::Log => &self.tables.log,
            TableName::Page => &self.tables.page,
            TableName::Row => &self.tables.row,
        }
    }

    /// Writes the group, and syncs it if somebody waits for that. An error poisons the engine.
    fn write(&mut self, items: Vec<Item>, sync: bool) -> Result<(), String> {
        let number = self.group + 1;
        let mark = [number.to_le_bytes(), self.synced.to_le_bytes()].concat();
        // Without a sync the batch stays in the buffer of the process or the system; the next sync covers it.
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.tables.database.batch().durability(Some(mode));
        batch.insert(&self.tables.row, GROUP_KEY, value::encode(GROUP_KEY, &[&mark]));
        for item in items {
            let keyspace = self.keyspace(item.table);
            match item.value {
                Some(value) => batch.insert(keyspace, item.key, value),
                None => batch.remove(keyspace, item.key),
            }
        }
        self.tables.commit(batch).map_err(|reason| {
            tracing::error!(%reason, "write error, storage engine stopped");
            self.poisoned.send_replace(Some(reason.clone()));
            reason
        })?;
        self.group = number;
        if sync {
            self.synced = number;
        }
        Ok(())
    }
}

/// Entries of a log that this very group appends must not outlive its deletion.
fn delete_unwritten(log: LogId, items: &mut Vec<Item>) {
    let prefix = log.to_bytes();
    let unwritten: Vec<Vec<u8>> = items
        .iter()
        .filter(|item| item.table == TableName::Log && item.value.is_some() && item.key.starts_with(&prefix))
        .map(|item| item.key.clone())
        .collect();
    items.extend(unwritten.into_iter().map(Item::log_delete));
}

fn refuse(waiting: &mut VecDeque<Command>, reason: &str) {
    for command in waiting.drain(..) {
        let Command { reply, permit, .. } = command;
        drop(permit);
        let _ = reply.send(Err(EngineError::Poisoned { reason: reason.into() }));
    }
}

fn answer(tables: &Tables, group: Vec<Decided>, failed: Option<&str>) {
    for Decided { command, answer } in group {
        let Command { write, reads, reply, permit } = command;
        drop(permit);
        let outcome = match failed {
            Some(reason) => write.failed(reason),
            None => answer,
        };
        let answer = outcome.and_then(|outcome| {
            Ok(Answer { outcome, values: reads.iter().map(|key| tables.row(key)).collect::<Result<_, _>>()? })
        });
        // A caller that has gone needs no answer.
        let _ = reply.send(answer);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TableName {
    Log,
    Page,
    Row,
}

fn table(page: bool) -> TableName {
    if page { TableName::Page } else { TableName::Row }
}

struct Item {
    table: TableName,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Item {
    fn log(value: Vec<u8>, key: Vec<u8>) -> Self {
        Self { table: TableName::Log, key, value: Some(value) }
    }

    fn log_delete(key: Vec<u8>) -> Self {
        Self { table: TableName::Log, key, value: None }
    }
}
