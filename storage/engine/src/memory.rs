//! The engine in memory: for tests of everything above, with faults on demand.
//!
//! It keeps two images: what readers see, and what would survive a power cut. A durable write copies itself, and all
//! ordered writes before it, into the second. Conditional writes may time out although they were applied, although they
//! were not, or although they will be later ("limbo"), as on a replicated engine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::archive::Archive;
use crate::context::Engine;
use crate::error::{ArchiveError, EngineError};
use crate::id::{LogId, LogKind};
use crate::log::{EntryRow, Head, Log, Outcome, SnapshotPointer, Tail};
use crate::rows::{Row, RowKey, Rows, Table};

/// What goes wrong, and how often. Probabilities are per call, from zero to one.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Where the dice start.
    pub seed: u64,
    /// A conditional write is applied, and its outcome unknown.
    pub unknown_applied: f64,
    /// A conditional write is not applied, and its outcome unknown.
    pub unknown_not_applied: f64,
    /// The outcome of a conditional write is unknown, and it is applied some calls later, if its condition holds then.
    pub unknown_late: f64,
    /// The copy that [`Log::tail_of_any`] asks lacks the last entry.
    pub old_copy: f64,
    /// Any call fails with an I/O error, without effect.
    pub unavailable: f64,
    /// Writes fail for want of space; deletes work.
    pub full: bool,
    /// A slow disk: each call takes so long, half of it before its effect.
    pub latency: Option<Range<Duration>>,
    /// After so many syncs the power fails: the write that would have needed the next one may have been caught by it or
    /// not, and nothing is written any more. See [`MemoryEngine::after_power_cut`].
    pub power_cut_after_sync: Option<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 0,
            unknown_applied: 0.0,
            unknown_not_applied: 0.0,
            old_copy: 0.0,
            unknown_late: 0.0,
            unavailable: 0.0,
            full: false,
            latency: None,
            power_cut_after_sync: None,
        }
    }
}

#[derive(Clone)]
struct MemoryLog {
    head: Head,
    /// By their last number.
    entries: BTreeMap<u64, EntryRow>,
    /// All entries that were ever applied.
    history: Vec<EntryRow>,
    swings: Vec<SnapshotPointer>,
}

#[derive(Clone, Default)]
struct Image {
    logs: BTreeMap<LogId, MemoryLog>,
    rows: BTreeMap<RowKey, Bytes>,
}

#[derive(Clone)]
enum Mutation {
    Create(LogId, SnapshotPointer),
    Append(LogId, EntryRow, Option<u64>),
    Swing(LogId, Uuid, SnapshotPointer),
    DeleteLog(LogId),
    Put(Row),
    DeleteRow(RowKey),
}

impl Image {
    /// Applies a mutation if its condition holds.
    fn apply(&mut self, mutation: &Mutation) -> bool {
        match mutation {
            Mutation::Create(log, snapshot) => {
                if self.logs.contains_key(log) {
                    return false;
                }
                let head = Head { seq: snapshot.seq, snapshot: *snapshot };
                let swings = vec![*snapshot];
                let new = MemoryLog { head, entries: BTreeMap::new(), history: Vec::new(), swings };
                self.logs.insert(*log, new);
            }
            Mutation::Append(log, entry, trim_to) => {
                let Some(log) = self.logs.get_mut(log) else { return false };
                if log.head.seq + 1 != entry.first_seq {
                    return false;
                }
                log.head.seq = entry.last_seq;
                log.entries.insert(entry.last_seq, entry.clone());
                log.history.push(entry.clone());
                if let Some(to) = trim_to {
                    log.entries = log.entries.split_off(&(to + 1));
                }
            }
            Mutation::Swing(log, base, new) => {
                let Some(log) = self.logs.get_mut(log) else { return false };
                if log.head.snapshot.id != *base {
                    return false;
                }
                log.head.snapshot = *new;
                log.swings.push(*new);
            }
            Mutation::DeleteLog(log) => {
                self.logs.remove(log);
            }
            Mutation::Put(row) => {
                self.rows.insert(row.key.clone(), row.value.clone());
            }
            Mutation::DeleteRow(key) => {
                self.rows.remove(key);
            }
        }
        true
    }
}

struct Inner {
    live: Image,
    durable: Image,
    /// Written in order, not yet synced.
    ordered: Vec<Mutation>,
    limbo: Vec<Mutation>,
    syncs: u64,
    power_is_cut: bool,
    faults: Faults,
    dice: StdRng,
}

/// Logs and rows in memory. Clones share them.
#[derive(Clone)]
pub struct MemoryEngine {
    inner: Arc<Mutex<Inner>>,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryEngine")
    }
}

impl MemoryEngine {
    /// An empty engine without faults.
    pub fn new() -> Self {
        Self::with_faults(Faults::default())
    }

    /// An empty engine with faults.
    pub fn with_faults(faults: Faults) -> Self {
        Self::from_image(Image::default(), faults)
    }

    fn from_image(image: Image, faults: Faults) -> Self {
        let inner = Inner {
            durable: image.clone(),
            live: image,
            ordered: Vec::new(),
            limbo: Vec::new(),
            syncs: 0,
            power_is_cut: false,
            dice: StdRng::seed_from_u64(faults.seed),
            faults,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Its logs and rows.
    pub fn engine(&self) -> Engine {
        Engine::new(Arc::new(self.clone()), Arc::new(self.clone()))
    }

    /// Other faults from now on. The dice go on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// How many durable writes there were.
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// Whether the power was cut.
    pub fn power_is_cut(&self) -> bool {
        self.inner.lock().power_is_cut
    }

    /// What a machine finds that comes up again now: everything that was synced, and of the ordered writes since then a
    /// part from the front.
    pub fn after_power_cut(&self, faults: Faults) -> Self {
        let mut inner = self.inner.lock();
        let mut image = inner.durable.clone();
        let survivors = match inner.ordered.len() {
            0 => 0,
            length => inner.dice.random_range(0..=length),
        };
        for mutation in &inner.ordered[..survivors] {
            image.apply(mutation);
        }
        Self::from_image(image, faults)
    }

    /// Every entry that was ever applied to a log, trimmed ones too: the truth that tests compare with.
    pub fn history(&self, log: LogId) -> Vec<EntryRow> {
        self.inner.lock().live.logs.get(&log).map(|log| log.history.clone()).unwrap_or_default()
    }

    /// Every snapshot that was ever current.
    pub fn snapshots(&self, log: LogId) -> Vec<SnapshotPointer> {
        self.inner.lock().live.logs.get(&log).map(|log| log.swings.clone()).unwrap_or_default()
    }

    /// Numbers of the entries that have not been trimmed.
    pub fn entries(&self, log: LogId) -> Vec<EntryRow> {
        let inner = self.inner.lock();
        inner.live.logs.get(&log).map(|log| log.entries.values().cloned().collect()).unwrap_or_default()
    }

    /// Changes a stored row behind everybody's back. `false`: there is none.
    pub fn damage_row(&self, key: &RowKey, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut inner = self.inner.lock();
        let Some(value) = inner.live.rows.get_mut(key) else { return false };
        let mut bytes = value.to_vec();
        change(&mut bytes);
        *value = bytes.into();
        true
    }

    /// Changes a stored entry behind everybody's back. `false`: there is none that ends at `last_seq`.
    pub fn damage_entry(&self, log: LogId, last_seq: u64, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut inner = self.inner.lock();
        let entry = inner.live.logs.get_mut(&log).and_then(|log| log.entries.get_mut(&last_seq));
        let Some(entry) = entry else { return false };
        let mut bytes = entry.bytes.to_vec();
        change(&mut bytes);
        entry.bytes = bytes.into();
        true
    }

    async fn pause(&self) {
        let pause = {
            let mut inner = self.inner.lock();
            let Inner { faults, dice, .. } = &mut *inner;
            match &faults.latency {
                Some(latency) if !latency.is_empty() => Some(dice.random_range(latency.clone()) / 2),
                _ => None,
            }
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }

    async fn read<T>(&self, read: impl FnOnce(&Image) -> T) -> Result<T, EngineError> {
        self.pause().await;
        let result = {
            let mut inner = self.inner.lock();
            inner.land_late();
            inner.maybe_unavailable()?;
            read(&inner.live)
        };
        self.pause().await;
        Ok(result)
    }

    /// A conditional write.
    async fn decide(&self, mutation: Mutation) -> Result<Outcome, EngineError> {
        self.pause().await;
        let outcome = self.inner.lock().decide(mutation);
        self.pause().await;
        outcome
    }

    async fn write(&self, mutations: Vec<Mutation>, durable: bool) -> Result<(), EngineError> {
        self.pause().await;
        let result = {
            let mut inner = self.inner.lock();
            inner.writable()?;
            inner.maybe_unavailable()?;
            inner.write(mutations, durable)
        };
        self.pause().await;
        result
    }
}

impl Inner {
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.dice.random_bool(probability.min(1.0))
    }

    fn maybe_unavailable(&mut self) -> Result<(), EngineError> {
        let probability = self.faults.unavailable;
        if self.chance(probability) {
            return Err(EngineError::unavailable("injected I/O error"));
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), EngineError> {
        if self.power_is_cut {
            return Err(EngineError::Poisoned { reason: "the power was cut".into() });
        }
        if self.faults.full {
            return Err(EngineError::Full { reason: "injected".into() });
        }
        Ok(())
    }

    /// Writes that timed out long ago may land now.
    fn land_late(&mut self) {
        while !self.limbo.is_empty() && !self.power_is_cut && self.chance(0.2) {
            let which = self.dice.random_range(0..self.limbo.len());
            let late = self.limbo.swap_remove(which);
            if self.live.apply(&late) {
                self.sync(&late);
            }
        }
    }

    /// `mutation` is in the live image; makes it and what was written in order before it durable.
    fn sync(&mut self, mutation: &Mutation) {
        for ordered in std::mem::take(&mut self.ordered) {
            self.durable.apply(&ordered);
        }
        self.durable.apply(mutation);
        self.syncs += 1;
    }

    /// Whether the next sync is the one that the power cut prevents.
    fn cut_now(&mut self) -> bool {
        self.power_is_cut |= self.faults.power_cut_after_sync.is_some_and(|last| self.syncs >= last);
        self.power_is_cut
    }

    fn write(&mut self, mutations: Vec<Mutation>, durable: bool) -> Result<(), EngineError> {
        if durable && self.cut_now() {
            self.ordered.extend(mutations);
            return Err(EngineError::Poisoned { reason: "the power was cut".into() });
        }
        for mutation in mutations {
            self.live.apply(&mutation);
            self.ordered.push(mutation);
        }
        if durable && let Some(last) = self.ordered.pop() {
            self.sync(&last);
        }
        Ok(())
    }

    fn decide(&mut self, mutation: Mutation) -> Result<Outcome, EngineError> {
        self.land_late();
        self.writable()?;
        self.maybe_unavailable()?;
        if self.cut_now() {
            self.ordered.push(mutation);
            return Ok(Outcome::Unknown);
        }
        let Faults { unknown_applied, unknown_not_applied, unknown_late, .. } = self.faults;
        if self.chance(unknown_not_applied) {
            return Ok(Outcome::Unknown);
        }
        if self.chance(unknown_late) {
            self.limbo.push(mutation);
            return Ok(Outcome::Unknown);
        }
        let applied = self.live.apply(&mutation);
        if applied {
            self.sync(&mutation);
        }
        if self.chance(unknown_applied) {
            return Ok(Outcome::Unknown);
        }
        Ok(if applied { Outcome::Applied } else { Outcome::Conflict })
    }

    /// A conditional write of a row.
    fn decide_row(&mut self, holds: bool, mutation: Mutation) -> Result<bool, EngineError> {
        self.writable()?;
        self.maybe_unavailable()?;
        let undecided = || EngineError::Undecided { reason: "injected timeout".into() };
        let Faults { unknown_applied, unknown_not_applied, .. } = self.faults;
        if self.chance(unknown_not_applied) {
            return Err(undecided());
        }
        if !holds {
            return Ok(false);
        }
        self.write(vec![mutation], true)?;
        if self.chance(unknown_applied) {
            return Err(undecided());
        }
        Ok(true)
    }
}

#[async_trait]
impl Log for MemoryEngine {
    async fn create(&self, log: LogId, snapshot: SnapshotPointer) -> Result<Outcome, EngineError> {
        self.decide(Mutation::Create(log, snapshot)).await
    }

    async fn load(&self, log: LogId, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.read(|image| {
            let log = image.logs.get(&log)?;
            let after = log.head.snapshot.seq;
            let rows = log.entries.range(after + 1..).take(limit).map(|(_, entry)| entry.clone()).collect();
            Some(Tail { head: log.head, rows })
        })
        .await
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, EngineError> {
        self.read(|image| image.logs.get(&log).map(|log| log.head)).await
    }

    async fn tail_after(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        self.read(|image| {
            let log = image.logs.get(&log)?;
            let rows = log.entries.range(after + 1..).take(limit).map(|(_, entry)| entry.clone()).collect();
            Some(Tail { head: log.head, rows })
        })
        .await
    }

    async fn tail_of_any(&self, log: LogId, after: u64, limit: usize) -> Result<Option<Tail>, EngineError> {
        let tail = self.tail_after(log, after, limit).await?;
        let mut inner = self.inner.lock();
        let is_old = inner.faults.old_copy;
        Ok(tail.map(|mut tail| {
            if inner.chance(is_old)
                && let Some(lacking) = tail.rows.pop()
            {
                tail.head.seq = lacking.first_seq - 1;
            }
            tail
        }))
    }

    async fn append(
        &self,
        log: LogId,
        entry: &EntryRow,
        trim_to: Option<u64>,
    ) -> Result<Outcome, EngineError> {
        self.decide(Mutation::Append(log, entry.clone(), trim_to)).await
    }

    async fn swing(&self, log: LogId, base: Uuid, new: SnapshotPointer) -> Result<Outcome, EngineError> {
        self.decide(Mutation::Swing(log, base, new)).await
    }

    async fn delete(&self, log: LogId) -> Result<(), EngineError> {
        self.write(vec![Mutation::DeleteLog(log)], true).await
    }

    async fn list(
        &self,
        kind: LogKind,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, EngineError> {
        let listed = |log: &&LogId| log.kind == kind && after.is_none_or(|after| **log > after);
        self.read(|image| image.logs.keys().filter(listed).take(limit).copied().collect()).await
    }
}

#[async_trait]
impl Rows for MemoryEngine {
    async fn put(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.write(rows.into_iter().map(Mutation::Put).collect(), true).await
    }

    async fn put_ordered(&self, rows: Vec<Row>) -> Result<(), EngineError> {
        self.write(rows.into_iter().map(Mutation::Put).collect(), false).await
    }

    async fn put_new(&self, row: Row) -> Result<bool, EngineError> {
        self.pause().await;
        let result = {
            let mut inner = self.inner.lock();
            let free = !inner.live.rows.contains_key(&row.key);
            inner.decide_row(free, Mutation::Put(row))
        };
        self.pause().await;
        result
    }

    async fn replace_if(
        &self,
        key: RowKey,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, EngineError> {
        self.pause().await;
        let result = {
            let mut inner = self.inner.lock();
            let holds = inner.live.rows.get(&key) == expected.as_ref();
            let mutation = match new {
                Some(value) => Mutation::Put(Row { key, value }),
                None => Mutation::DeleteRow(key),
            };
            inner.decide_row(holds, mutation)
        };
        self.pause().await;
        result
    }

    async fn get(&self, key: RowKey) -> Result<Option<Bytes>, EngineError> {
        self.read(|image| image.rows.get(&key).cloned()).await
    }

    async fn get_many(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.read(|image| keys.iter().map(|key| image.rows.get(key).cloned()).collect()).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let start = RowKey { table, partition: partition.clone(), key: from };
        self.read(|image| {
            image
                .rows
                .range(start..)
                .take_while(|(key, _)| key.table == table && key.partition == partition)
                .take(limit)
                .map(|(key, value)| (key.key.clone(), value.clone()))
                .collect()
        })
        .await
    }

    async fn partitions(
        &self,
        table: Table,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<Bytes>, EngineError> {
        self.read(|image| {
            let behind = |key: &&RowKey| {
                key.table == table && after.as_ref().is_none_or(|after| key.partition > *after)
            };
            let mut found: Vec<Bytes> = Vec::new();
            for key in image.rows.keys().filter(behind) {
                if found.last() == Some(&key.partition) {
                    continue;
                }
                if found.len() == limit {
                    break;
                }
                found.push(key.partition.clone());
            }
            found
        })
        .await
    }

    async fn delete(&self, keys: Vec<RowKey>) -> Result<(), EngineError> {
        self.pause().await;
        {
            let mut inner = self.inner.lock();
            inner.maybe_unavailable()?;
            if inner.power_is_cut {
                return Err(EngineError::Poisoned { reason: "the power was cut".into() });
            }
            inner.write(keys.into_iter().map(Mutation::DeleteRow).collect(), false)?;
        }
        self.pause().await;
        Ok(())
    }
}

/// An archive in memory. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct MemoryArchive {
    chunks: Arc<Mutex<Vec<(LogId, Bytes)>>>,
}

impl MemoryArchive {
    /// All chunks of a log, in the order in which they were written; chunks whose commit was lost among them.
    pub fn chunks(&self, log: LogId) -> Vec<Bytes> {
        let chunks = self.chunks.lock();
        chunks.iter().filter(|(of, _)| *of == log).map(|(_, chunk)| chunk.clone()).collect()
    }
}

#[async_trait]
impl Archive for MemoryArchive {
    async fn write(&self, log: LogId, chunk: Bytes) -> Result<Bytes, ArchiveError> {
        let mut chunks = self.chunks.lock();
        let address = (chunks.len() as u64).to_be_bytes();
        chunks.push((log, chunk));
        Ok(Bytes::copy_from_slice(&address))
    }

    async fn read(&self, log: LogId, address: Bytes) -> Result<Bytes, ArchiveError> {
        let missing = || ArchiveError::Missing(address.clone());
        let number = u64::from_be_bytes(address[..].try_into().map_err(|_| missing())?);
        match self.chunks.lock().get(number as usize) {
            Some((of, chunk)) if *of == log => Ok(chunk.clone()),
            _ => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static str) -> Row {
        Row::new(Table::Mark, &b"p"[..], key.as_bytes(), &b"v"[..])
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        crate::contract::all(&MemoryEngine::new().engine()).await;
    }

    #[tokio::test]
    async fn a_power_cut_keeps_what_was_synced() {
        for seed in 0..20 {
            let faults = Faults { seed, power_cut_after_sync: Some(2), ..Faults::default() };
            let engine = MemoryEngine::with_faults(faults);
            engine.put_ordered(vec![row("a")]).await.unwrap();
            engine.put(vec![row("b")]).await.unwrap();
            engine.put(vec![row("c")]).await.unwrap();
            engine.put_ordered(vec![row("d")]).await.unwrap();
            assert!(matches!(engine.put(vec![row("e")]).await, Err(EngineError::Poisoned { .. })));
            assert!(engine.power_is_cut());
            let after = engine.after_power_cut(Faults::default());
            let found = |key: &'static str| after.inner.lock().live.rows.contains_key(&row(key).key);
            assert!(found("a") && found("b") && found("c"));
            assert!(found("d") || !found("e"), "ordered writes survive from the front");
        }
    }

    #[tokio::test]
    async fn a_late_write_lands_only_where_its_condition_still_holds() {
        let engine = MemoryEngine::new();
        let log = LogId::shard(Uuid::from_u128(1));
        let snapshot = SnapshotPointer { id: Uuid::from_u128(1), seq: 0, base_seq: 0 };
        engine.create(log, snapshot).await.unwrap();
        let entry = |nonce| EntryRow {
            first_seq: 1,
            last_seq: 1,
            nonce: Uuid::from_u128(nonce),
            bytes: Bytes::new(),
        };
        engine.set_faults(Faults { unknown_late: 1.0, ..Faults::default() });
        assert_eq!(engine.append(log, &entry(1), None).await.unwrap(), Outcome::Unknown);
        assert_eq!(engine.append(log, &entry(2), None).await.unwrap(), Outcome::Unknown);
        engine.set_faults(Faults::default());
        for _ in 0..100 {
            engine.head(log).await.unwrap();
        }
        assert_eq!(engine.history(log).len(), 1);
        assert_eq!(engine.append(log, &entry(3), None).await.unwrap(), Outcome::Conflict);
    }
}
