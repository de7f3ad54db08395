//! What a shard's log folds into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use engine::{Archived, FoldError, FormatError, LogId, PageId, PartPages, SnapshotPages, State};
use uuid::Uuid;

use crate::entry::{Operation, Place};
use crate::item::{Derivation, Item};
use crate::page::{CHUNK_ITEMS_MAX, Chunk};
use crate::root::{ChunkRow, KnownRow, Layout, PageRow, Root, Scalars};
use crate::shard_id::ShardId;

/// A shard in memory. Items lie in chunks by the hour in which they are due, so that of a million that wait only the
/// next hour's are loaded.
#[derive(Clone, Debug)]
pub struct ShardState {
    scalars: Scalars,
    /// By id, which only grows.
    slots: Vec<Arc<Slot>>,
    /// Which chunk takes the next item of an hour.
    filling: BTreeMap<u32, u32>,
    known: BTreeMap<Uuid, Arc<Known>>,
    /// Consumers, and what each will read next.
    cursors: BTreeMap<String, u64>,
}

/// Ids of a producer that have been taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// All of the producer's items below this number are done.
    watermark: u64,
    /// Taken, and not below the watermark.
    ids: BTreeSet<(u64, u32)>,
}

#[derive(Clone, Debug)]
struct Slot {
    row: ChunkRow,
    page: Option<PageRow>,
    /// The last operation that is not in the page.
    changed: Option<u64>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Loaded(Arc<Chunk>),
    /// Still in its page.
    Away(Pending),
}

/// Operations that came for a chunk that is not loaded, with their numbers. Encoded: one with a hundred recipients is
/// hundreds of small pieces of memory otherwise, and thousands may wait.
#[derive(Clone, Debug, Default)]
struct Pending {
    operations: Vec<(u64, Arc<[u8]>)>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, seq: u64, operation: &Operation) {
        let mut encoded = Vec::new();
        operation.encode(&mut encoded);
        self.bytes += encoded.len();
        self.operations.push((seq, encoded.into()));
    }
}

/// What is known about a derived item before it is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing: it may come.
    New,
    /// It came already.
    Already,
    /// Its producer has finished the item that it comes from: it must have come already, and is refused.
    Below,
}

/// What a reader may want to know of a chunk without loading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkView {
    /// Its number.
    pub id: u32,
    /// Its items are due in this hour.
    pub hour: u32,
    /// Items that ever came into it.
    pub items: u32,
    /// Unfinished items.
    pub live: u32,
    /// Finished ones.
    pub done: u32,
    /// No unfinished item expires before.
    pub expires: u64,
    /// When an item last finished.
    pub finished: u64,
}

impl ShardState {
    /// A shard with nothing in it.
    pub fn new(shard: ShardId, layout: Layout) -> Self {
        Self {
            scalars: Scalars {
                shard,
                layout,
                seq: 0,
                next_chunk: 0,
                window_below: 0,
                suspect_below: 0,
                boot: None,
                booted_at: 0,
                accepted: 0,
                finished: 0,
                archived_seq: 0,
                archived_address: Vec::new(),
                archived_nonce: Uuid::nil(),
            },
            slots: Vec::new(),
            filling: BTreeMap::new(),
            known: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// Consumers, and the next operation that each will read.
    pub fn cursors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.cursors.iter().map(|(name, to)| (name.as_str(), *to))
    }

    /// Which shard it is.
    pub fn shard(&self) -> ShardId {
        self.scalars.shard
    }

    /// How many shards there are.
    pub fn layout(&self) -> Layout {
        self.scalars.layout
    }

    /// The last operation folded.
    pub fn seq(&self) -> u64 {
        self.scalars.seq
    }

    /// Items ever accepted and ever finished.
    pub fn totals(&self) -> (u64, u64) {
        (self.scalars.accepted, self.scalars.finished)
    }

    /// Unfinished items.
    pub fn live(&self) -> u64 {
        self.scalars.accepted - self.scalars.finished
    }

    /// All items with a lower number are done. To be carried with every append into another log; a value that was true
    /// once stays true.
    pub fn watermark(&self) -> u64 {
        let live = self.slots.iter().filter(|slot| slot.row.live > 0);
        live.map(|slot| slot.row.floor).min().unwrap_or(self.scalars.seq + 1)
    }

    /// Delivery may begin with items below this number.
    pub fn window_below(&self) -> u64 {
        self.scalars.window_below
    }

    /// Items below this number that were never begun with care may have been begun before the last boot.
    pub fn suspect_below(&self) -> u64 {
        self.scalars.suspect_below
    }

    /// The process that last began to work on the shard, and when.
    pub fn boot(&self) -> (Option<Uuid>, u64) {
        (self.scalars.boot, self.scalars.booted_at)
    }

    /// All chunks, by id.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkView> {
        self.slots.iter().map(|slot| ChunkView {
            id: slot.row.id,
            hour: slot.row.hour,
            items: slot.row.items,
            live: slot.row.live,
            done: slot.row.done,
            expires: slot.row.expires,
            finished: slot.row.finished,
        })
    }

    /// A chunk's content. `None`: there is no such chunk, or it is not loaded.
    pub fn chunk(&self, id: u32) -> Option<&Chunk> {
        match &self.slot(id)?.content {
            Content::Loaded(chunk) => Some(chunk),
            Content::Away(_) => None,
        }
    }

    /// An unfinished item, if its chunk is loaded.
    pub fn item(&self, place: Place) -> Option<&Arc<Item>> {
        self.chunk(place.chunk)?.get(place.number)
    }

    /// The chunk for one more item that is due in `hour`. For builders; the operation carries the answer.
    pub fn chunk_for(&self, hour: u32) -> u32 {
        let open = self.filling.get(&hour).and_then(|id| self.slot(*id));
        match open {
            Some(slot) if slot.row.items < CHUNK_ITEMS_MAX => slot.row.id,
            _ => self.scalars.next_chunk,
        }
    }

    /// The hour in which a chunk's items are due.
    pub fn hour_of(&self, chunk: u32) -> Option<u32> {
        self.slot(chunk).map(|slot| slot.row.hour)
    }

    /// What is known of a derived item.
    pub fn seen(&self, derived: &Derivation) -> Seen {
        match self.known.get(&derived.producer) {
            // Model queue: Rule::BelowWatermarkRefused.
            Some(known) if derived.number < known.watermark => Seen::Below,
            Some(known) if known.ids.contains(&(derived.number, derived.part)) => Seen::Already,
            _ => Seen::New,
        }
    }

    /// Up to where the items of a producer are known to be done.
    pub fn watermark_of(&self, producer: Uuid) -> u64 {
        self.known.get(&producer).map_or(0, |known| known.watermark)
    }

    /// Ids that are remembered, of all producers.
    pub fn remembered(&self) -> usize {
        self.known.values().map(|known| known.ids.len()).sum()
    }

    fn slot(&self, id: u32) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&id, |slot| slot.row.id).ok()?;
        Some(&self.slots[at])
    }

    fn slot_mut(&mut self, seq: u64, id: u32) -> Result<&mut Slot, FoldError> {
        let at = self
            .slots
            .binary_search_by_key(&id, |slot| slot.row.id)
            .map_err(|_| FoldError::new(seq, format!("there is no chunk {id}")))?;
        Ok(Arc::make_mut(&mut self.slots[at]))
    }

    /// One more item for a chunk, which is made if it is the next.
    fn enter(&mut self, seq: u64, chunk: u32, hour: u32, number: u64, expires: u64) -> Result<(), FoldError> {
        if chunk == self.scalars.next_chunk {
            self.scalars.next_chunk += 1;
            let row =
                ChunkRow { id: chunk, hour, items: 0, live: 0, done: 0, floor: number, expires, finished: 0 };
            let content = Content::Loaded(Arc::default());
            self.slots.push(Arc::new(Slot { row, page: None, changed: Some(seq), content }));
            self.filling.insert(hour, chunk);
        }
        let row = &mut self.slot_mut(seq, chunk)?.row;
        if row.hour != hour {
            return Err(FoldError::new(seq, format!("chunk {chunk} is for hour {}", row.hour)));
        }
        if row.live == 0 {
            (row.floor, row.expires) = (number, expires);
        }
        row.items += 1;
        row.live += 1;
        row.floor = row.floor.min(number);
        row.expires = row.expires.min(expires);
        Ok(())
    }

    /// An item leaves the unfinished ones of a chunk; into its history, if it finished.
    fn leave(&mut self, seq: u64, chunk: u32, finished: Option<u64>) -> Result<(), FoldError> {
        let row = &mut self.slot_mut(seq, chunk)?.row;
        row.live =
            row.live.checked_sub(1).ok_or_else(|| FoldError::new(seq, format!("chunk {chunk} is empty")))?;
        if let Some(at) = finished {
            row.done += 1;
            row.finished = row.finished.max(at);
            self.scalars.finished += 1;
        }
        Ok(())
    }

    fn apply(&mut self, seq: u64, chunk: u32, operation: &Operation) -> Result<(), FoldError> {
        let slot = self.slot_mut(seq, chunk)?;
        slot.changed = Some(seq);
        match &mut slot.content {
            Content::Loaded(content) => Arc::make_mut(content).apply(chunk, seq, operation)?,
            Content::Away(pending) => pending.push(seq, operation),
        }
        // Nothing is left that anybody could want to read, so there is nothing to be written either.
        if slot.row.live == 0 && slot.row.done == 0 {
            self.slots.retain(|slot| slot.row.id != chunk);
        }
        Ok(())
    }

    fn learn(&mut self, derived: &Derivation, watermark: u64) {
        let known = Arc::make_mut(self.known.entry(derived.producer).or_default());
        known.ids.insert((derived.number, derived.part));
        known.raise(watermark);
    }

    fn rows(&self, pages: &BTreeMap<u32, PageRow>) -> Root {
        Root {
            scalars: self.scalars.clone(),
            chunks: self
                .slots
                .iter()
                .map(|slot| (slot.row.clone(), pages.get(&slot.row.id).copied().or(slot.page)))
                .collect(),
            filling: self.filling.iter().map(|(hour, chunk)| (*hour, *chunk)).collect(),
            known: self
                .known
                .iter()
                .map(|(producer, known)| KnownRow {
                    producer: *producer,
                    watermark: known.watermark,
                    ids: known.ids.iter().copied().collect(),
                })
                .collect(),
            cursors: self.cursors.clone(),
        }
    }
}

impl Known {
    fn raise(&mut self, watermark: u64) {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.ids = self.ids.split_off(&(watermark, 0));
        }
    }
}

impl State for ShardState {
    type Operation = Operation;
    /// A chunk, by id.
    type Part = u32;
    /// Which chunk was written to which page.
    type Plan = BTreeMap<u32, PageRow>;

    fn encode_operation(operation: &Operation, out: &mut Vec<u8>) {
        operation.encode(out);
    }

    fn decode_operation(bytes: &[u8]) -> Result<Operation, FormatError> {
        Operation::decode(bytes)
    }

    fn from_root(log: LogId, root: &[u8]) -> Result<Self, FormatError> {
        let root = Root::decode(root)?;
        if root.scalars.shard.log_id() != log.id {
            return Err(FormatError::malformed("queue root", "belongs to another shard"));
        }
        if root.scalars.finished > root.scalars.accepted {
            return Err(FormatError::malformed("queue root", "more items finished than accepted"));
        }
        let slots = root
            .chunks
            .into_iter()
            .map(|(row, page)| {
                let page =
                    page.ok_or_else(|| FormatError::malformed("queue root", "chunk without a page"))?;
                let content = Content::Away(Pending::default());
                Ok(Arc::new(Slot { row, page: Some(page), changed: None, content }))
            })
            .collect::<Result<Vec<_>, FormatError>>()?;
        if !slots.is_sorted_by(|one, next| one.row.id < next.row.id) {
            return Err(FormatError::malformed("queue root", "chunks out of order"));
        }
        let known = root.known.into_iter().map(|row| {
            (row.producer, Arc::new(Known { watermark: row.watermark, ids: row.ids.into_iter().collect() }))
        });
        Ok(Self {
            scalars: root.scalars,
            slots,
            filling: root.filling.into_iter().collect(),
            known: known.collect(),
            cursors: root.cursors,
        })
    }

    fn fold(&mut self, seq: u64, operation: &Operation) -> Result<(), FoldError> {
        self.scalars.seq = seq;
        match operation {
            Operation::Accepted { chunk, hour, message, claimable, watermark, .. } => {
                self.enter(seq, *chunk, *hour, seq, message.expires)?;
                self.scalars.accepted += 1;
                if *claimable {
                    self.scalars.window_below = seq + 1;
                }
                if let Some(derived) = &message.derived {
                    self.learn(derived, watermark.unwrap_or(0));
                }
                // Nothing is accepted for past hours any more.
                let now = (message.accepted / 3_600) as u32;
                self.filling.retain(|hour, _| *hour + 1 >= now);
                self.apply(seq, *chunk, operation)?;
            }
            Operation::Expanded { place, .. }
            | Operation::PutOff { place, .. }
            | Operation::Rerouted { place, .. }
            | Operation::Began { place, .. } => {
                self.apply(seq, place.chunk, operation)?;
            }
            Operation::Settled { place, finished, .. }
            | Operation::RemoteSettled { place, finished, .. }
            | Operation::Remote { place, finished, .. } => {
                if finished.is_some() {
                    self.leave(seq, place.chunk, *finished)?;
                }
                self.apply(seq, place.chunk, operation)?;
            }
            Operation::Left { place, at, .. } => {
                self.leave(seq, place.chunk, Some(*at))?;
                self.apply(seq, place.chunk, operation)?;
            }
            Operation::Moved { from, chunk, hour, item } => {
                self.enter(seq, *chunk, *hour, item.number, item.message.expires)?;
                self.leave(seq, from.chunk, None)?;
                self.apply(seq, *chunk, operation)?;
                if from.chunk != *chunk {
                    self.apply(seq, from.chunk, operation)?;
                }
            }
            Operation::Booted { boot, at } => {
                self.scalars.boot = Some(*boot);
                self.scalars.booted_at = *at;
                self.scalars.suspect_below = self.scalars.window_below;
            }
            Operation::Window { below } => {
                self.scalars.window_below = self.scalars.window_below.max(*below);
            }
            Operation::Forgotten { chunks } => {
                if let Some(slot) =
                    chunks.iter().filter_map(|id| self.slot(*id)).find(|slot| slot.row.live > 0)
                {
                    return Err(FoldError::new(seq, format!("chunk {} holds unfinished items", slot.row.id)));
                }
                self.slots.retain(|slot| !chunks.contains(&slot.row.id));
            }
            Operation::Watermark { producer, watermark } => {
                Arc::make_mut(self.known.entry(*producer).or_default()).raise(*watermark);
            }
            Operation::Archived { to, address, nonce } => {
                self.scalars.archived_seq = *to;
                self.scalars.archived_address.clone_from(address);
                self.scalars.archived_nonce = *nonce;
            }
            Operation::Cursor { name, to: 0 } => {
                self.cursors.remove(name);
            }
            Operation::Cursor { name, to } => {
                self.cursors.insert(name.clone(), *to);
            }
        }
        Ok(())
    }

    fn pages_of(&self, part: &u32) -> PartPages {
        match self.slot(*part) {
            Some(Slot { content: Content::Away(_), page: Some(page), .. }) => {
                PartPages::Missing(vec![page.id])
            }
            _ => PartPages::Loaded,
        }
    }

    fn install(&mut self, part: &u32, pages: Vec<(PageId, Bytes)>) -> Result<(), FormatError> {
        const WHAT: &str = "queue page";
        let Ok(at) = self.slots.binary_search_by_key(part, |slot| slot.row.id) else { return Ok(()) };
        let slot = Arc::make_mut(&mut self.slots[at]);
        let Content::Away(pending) = &slot.content else { return Ok(()) };
        let [(id, bytes)] = pages.as_slice() else {
            return Err(FormatError::malformed(WHAT, "a chunk has one page"));
        };
        let page = slot.page.filter(|page| page.id == *id);
        let Some(page) = page else {
            return Err(FormatError::malformed(WHAT, "another page than was asked for"));
        };
        if *blake3::hash(bytes).as_bytes() != page.hash {
            return Err(FormatError::malformed(WHAT, "hash does not match the root"));
        }
        let mut chunk = Chunk::decode(bytes)?;
        for (seq, encoded) in &pending.operations {
            let operation = Operation::decode(encoded)?;
            chunk.apply(*part, *seq, &operation).map_err(|error| FormatError::malformed(WHAT, error))?;
        }
        slot.content = Content::Loaded(Arc::new(chunk));
        Ok(())
    }

    fn parts(&self) -> Vec<u32> {
        self.slots.iter().map(|slot| slot.row.id).collect()
    }

    fn parts_dirty(&self) -> Vec<u32> {
        self.slots.iter().filter(|slot| slot.changed.is_some()).map(|slot| slot.row.id).collect()
    }

    fn dirty_bytes(&self) -> usize {
        let dirty = self.slots.iter().filter(|slot| slot.changed.is_some());
        dirty.map(|slot| slot.bytes()).sum()
    }

    fn snapshot(&self, new_page_id: &mut dyn FnMut() -> PageId) -> SnapshotPages<Self::Plan> {
        let mut written = Vec::new();
        let mut plan = BTreeMap::new();
        for slot in self.slots.iter().filter(|slot| slot.changed.is_some()) {
            let Content::Loaded(chunk) = &slot.content else {
                unreachable!("dirty parts are loaded before a snapshot is taken")
            };
            let bytes = chunk.encode();
            let id = new_page_id();
            plan.insert(
                slot.row.id,
                PageRow { id, hash: *blake3::hash(&bytes).as_bytes(), bytes: bytes.len() as u32 },
            );
            written.push((id, bytes));
        }
        let root = self.rows(&plan);
        let listed = root.chunks.iter().filter_map(|(_, page)| page.map(|page| page.id)).collect();
        SnapshotPages { root: root.encode(), written, listed, plan }
    }

    fn snapshotted(&mut self, seq: u64, taken: &SnapshotPages<Self::Plan>) {
        for (chunk, page) in &taken.plan {
            let Ok(at) = self.slots.binary_search_by_key(chunk, |slot| slot.row.id) else { continue };
            let slot = Arc::make_mut(&mut self.slots[at]);
            slot.page = Some(*page);
            if slot.changed.is_some_and(|changed| changed <= seq) {
                slot.changed = None;
            }
        }
    }

    fn archived_operation(to: u64, address: Bytes, nonce: Uuid) -> Operation {
        Operation::archived(to, &address, nonce)
    }

    fn archived(&self) -> Archived {
        Archived {
            seq: self.scalars.archived_seq,
            address: Bytes::copy_from_slice(&self.scalars.archived_address),
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut root = self.rows(&BTreeMap::new());
        for (_, page) in &mut root.chunks {
            *page = None;
        }
        hasher.update(&root.encode());
        for slot in &self.slots {
            match (&slot.content, slot.changed, &slot.page) {
                (_, None, Some(page)) => hasher.update(&page.hash),
                (Content::Loaded(chunk), _, _) => hasher.update(blake3::hash(&chunk.encode()).as_bytes()),
                // Dirty parts are loaded before a digest is taken, unless their page cannot be read.
                (Content::Away(_), _, _) => hasher.update(b"away"),
            };
        }
        *hasher.finalize().as_bytes()
    }

    fn weight(&self) -> usize {
        let slots: usize = self.slots.iter().map(|slot| 200 + slot.memory()).sum();
        slots + self.remembered() * 24 + 1_024
    }

    fn put_away(&mut self, part: &u32) {
        if let Ok(at) = self.slots.binary_search_by_key(part, |slot| slot.row.id)
            && self.slots[at].changed.is_none()
            && self.slots[at].page.is_some()
        {
            Arc::make_mut(&mut self.slots[at]).content = Content::Away(Pending::default());
        }
    }

    fn shed(&mut self, bytes: usize) {
        let mut clean: Vec<usize> = (0..self.slots.len())
            .filter(|at| {
                let slot = &self.slots[*at];
                slot.changed.is_none() && slot.page.is_some() && matches!(slot.content, Content::Loaded(_))
            })
            .collect();
        // History goes first, then what is due last.
        clean.sort_by_key(|at| {
            let row = &self.slots[*at].row;
            (row.live > 0, std::cmp::Reverse(row.hour))
        });
        let mut freed = 0;
        for at in clean {
            if freed >= bytes {
                break;
            }
            let slot = Arc::make_mut(&mut self.slots[at]);
            freed += slot.memory();
            slot.content = Content::Away(Pending::default());
        }
    }
}

impl Slot {
    /// Bytes that its page takes, about.
    fn bytes(&self) -> usize {
        match &self.content {
            Content::Loaded(chunk) => chunk.bytes(),
            Content::Away(pending) => self.page.map_or(0, |page| page.bytes as usize) + pending.bytes,
        }
    }

    /// Bytes in memory, about: what is small in a page has its strings each by itself there.
    fn memory(&self) -> usize {
        match &self.content {
            Content::Loaded(chunk) => 2 * chunk.bytes(),
            Content::Away(pending) => pending.bytes + pending.operations.len() * 48,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
