//! The fold of a table's log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use bytes::Bytes;
use engine::{Archived, FoldError, FormatError, LogId, PageId, PartPages, SnapshotPages, State};
use uuid::Uuid;

use super::page::{Records, Root, StoredPage, decode, decode_records, encode, encode_records};
use super::{Operation, Table, mix, record_digest};

/// Rough cost in memory of a slot and of a record beside its stored octets.
const SLOT_WEIGHT: usize = 160;
const RECORD_WEIGHT: usize = 96;

/// A table as far as its log is folded.
pub struct TableState<T: Table> {
    log: LogId,
    settings: Arc<T::Settings>,
    count: u64,
    content: [u8; 32],
    archived: Archived,
    /// By first key. There is always one, and the first covers everything before the second.
    slots: Arc<Vec<Arc<Slot<T>>>>,
    /// Counts uses, to tell which page was used longest ago.
    clock: Arc<AtomicU64>,
}

/// A range of keys that one page covers.
struct Slot<T: Table> {
    /// The smallest key that can be here; empty for the first slot.
    first: String,
    /// The page of the snapshot; `None` while the range was never in one.
    stored: Option<(PageId, u32)>,
    content: Content<T>,
    used: AtomicU64,
}

enum Content<T: Table> {
    /// Not read. What was folded meanwhile waits.
    Missing { waiting: Vec<(u64, Operation<T>)> },
    Loaded {
        records: Records<T::Record>,
        /// Number of the last operation since the snapshot that changed something here. `None`: as stored.
        changed: Option<u64>,
        /// About how many octets the records have when stored.
        bytes: usize,
    },
}

impl<T: Table> Clone for TableState<T> {
    fn clone(&self) -> Self {
        Self {
            log: self.log,
            settings: Arc::clone(&self.settings),
            count: self.count,
            content: self.content,
            archived: self.archived.clone(),
            slots: Arc::clone(&self.slots),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl<T: Table> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self {
            first: self.first.clone(),
            stored: self.stored,
            content: self.content.clone(),
            used: AtomicU64::new(self.used.load(Ordering::Relaxed)),
        }
    }
}

impl<T: Table> Clone for Content<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Missing { waiting } => Self::Missing { waiting: waiting.clone() },
            Self::Loaded { records, changed, bytes } => {
                Self::Loaded { records: records.clone(), changed: *changed, bytes: *bytes }
            }
        }
    }
}

impl<T: Table> fmt::Debug for TableState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableState")
            .field("log", &self.log)
            .field("count", &self.count)
            .field("pages", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// What becomes of the slots that a snapshot writes anew.
#[derive(Debug)]
pub struct Plan {
    /// By the first key of the slot that was: the pages it became.
    rewritten: Vec<(String, Vec<StoredPage>)>,
}

impl<T: Table> TableState<T> {
    /// An empty table.
    pub fn new(log: LogId, settings: T::Settings) -> Self {
        let slot = Slot {
            first: String::new(),
            stored: None,
            content: Content::Loaded { records: Records::new(), changed: None, bytes: 0 },
            used: AtomicU64::new(0),
        };
        Self {
            log,
            settings: Arc::new(settings),
            count: 0,
            content: [0; 32],
            archived: Archived::default(),
            slots: Arc::new(vec![Arc::new(slot)]),
            clock: Arc::default(),
        }
    }

    /// The log it is folded from.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Settings of the whole.
    pub fn settings(&self) -> &T::Settings {
        &self.settings
    }

    /// Records in the table.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Exclusive or of the digests of all records.
    pub(crate) fn content(&self) -> [u8; 32] {
        self.content
    }

    /// The record under a key. The part `key` must be loaded.
    pub fn get(&self, key: &str) -> Option<&Arc<T::Record>> {
        match &self.slots[self.position(key)].content {
            Content::Loaded { records, .. } => records.get(key),
            Content::Missing { .. } => {
                debug_assert!(false, "the part of a key is loaded before the key is asked for");
                None
            }
        }
    }

    /// The records of the page that covers `key` if it is loaded, and the first key of the next page.
    pub(crate) fn page(&self, key: &str) -> (Option<&Records<T::Record>>, Option<&str>) {
        let position = self.position(key);
        let next = self.slots.get(position + 1).map(|slot| slot.first.as_str());
        match &self.slots[position].content {
            Content::Loaded { records, .. } => (Some(records), next),
            Content::Missing { .. } => (None, next),
        }
    }

    /// The operation that puts a record under a key. The part must be loaded.
    pub fn put(&self, key: &str, record: T::Record) -> Operation<T> {
        let replaces = self.get(key).map(|old| record_digest(key, &**old));
        Operation::Put { key: key.to_owned(), record, replaces }
    }

    /// The operation that changes a part of the record under a key, if there is one and the change fits. The part must
    /// be loaded.
    pub fn amend(&self, key: &str, amendment: T::Amendment) -> Option<Operation<T>> {
        let old = self.get(key)?;
        let before = record_digest(key, &**old);
        let mut new = T::Record::clone(old);
        T::amend(&mut new, &amendment).ok()?;
        Some(Operation::Amend { key: key.to_owned(), amendment, before, after: record_digest(key, &new) })
    }

    /// The operation that removes the record under a key, if there is one. The part must be loaded.
    pub fn remove(&self, key: &str) -> Option<Operation<T>> {
        let old = self.get(key)?;
        Some(Operation::Remove { key: key.to_owned(), removes: record_digest(key, &**old) })
    }

    fn position(&self, key: &str) -> usize {
        self.slots.partition_point(|slot| slot.first.as_str() <= key).saturating_sub(1)
    }

    fn change(&mut self, seq: u64, key: &str, operation: &Operation<T>) -> Result<(), FoldError> {
        let position = self.position(key);
        let slot = Arc::make_mut(&mut Arc::make_mut(&mut self.slots)[position]);
        match &mut slot.content {
            Content::Missing { waiting } => waiting.push((seq, operation.clone())),
            Content::Loaded { records, changed, bytes } => {
                apply::<T>(records, bytes, seq, operation)?;
                *changed = Some(seq);
            }
        }
        Ok(())
    }
}

/// Applies an operation to the records of the page that covers its key.
fn apply<T: Table>(
    records: &mut Records<T::Record>,
    bytes: &mut usize,
    seq: u64,
    operation: &Operation<T>,
) -> Result<(), FoldError> {
    let differs =
        |key: &str| FoldError::new(seq, format!("the record of {key:?} is not the one that was found"));
    let digest_of =
        |records: &Records<T::Record>, key: &String| records.get(key).map(|old| record_digest(key, &**old));
    match operation {
        Operation::Put { key, record, replaces } => {
            if digest_of(records, key) != *replaces {
                return Err(differs(key));
            }
            let old = records.insert(key.clone(), Arc::new(record.clone()));
            *bytes += size_of_pair(key, record);
            *bytes -= old.map_or(0, |old| size_of_pair(key, &*old)).min(*bytes);
        }
        Operation::Amend { key, amendment, before, after } => {
            if digest_of(records, key) != Some(*before) {
                return Err(differs(key));
            }
            let record = records.get_mut(key).expect("its digest was just computed");
            *bytes -= size_of_pair(key, &**record).min(*bytes);
            let record = Arc::make_mut(record);
            T::amend(record, amendment).map_err(|why| FoldError::new(seq, why))?;
            if record_digest(key, record) != *after {
                return Err(FoldError::new(seq, format!("the record of {key:?} became another one")));
            }
            *bytes += size_of_pair(key, record);
        }
        Operation::Remove { key, removes } => {
            if digest_of(records, key) != Some(*removes) {
                return Err(differs(key));
            }
            if let Some(old) = records.remove(key) {
                *bytes -= size_of_pair(key, &*old).min(*bytes);
            }
        }
        Operation::Archived { .. } | Operation::Settings(_) => {}
    }
    Ok(())
}

fn size_of_pair<R: serde::Serialize>(key: &str, record: &R) -> usize {
    postcard::experimental::serialized_size(&(key, record)).unwrap_or(0)
}

impl<T: Table> Slot<T> {
    fn is_dirty(&self) -> bool {
        match &self.content {
            Content::Missing { waiting } => !waiting.is_empty(),
            Content::Loaded { changed, .. } => changed.is_some(),
        }
    }

    fn stored_bytes(&self) -> usize {
        match &self.content {
            Content::Loaded { bytes, .. } => *bytes,
            Content::Missing { waiting } => {
                self.stored.map_or(0, |(_, bytes)| bytes as usize) + waiting.len() * 512
            }
        }
    }

    fn weight(&self) -> usize {
        SLOT_WEIGHT
            + match &self.content {
                Content::Loaded { records, bytes, .. } => records.len() * RECORD_WEIGHT + bytes,
                Content::Missing { waiting } => waiting.len() * 512,
            }
    }
}

impl<T: Table> State for TableState<T> {
    type Operation = Operation<T>;
    type Part = String;
    type Plan = Plan;

    fn encode_operation(operation: &Self::Operation, out: &mut Vec<u8>) {
        out.extend_from_slice(&encode(operation));
    }

    fn decode_operation(bytes: &[u8]) -> Result<Self::Operation, FormatError> {
        decode("directory operation", bytes)
    }

    fn from_root(log: LogId, root: &[u8]) -> Result<Self, FormatError> {
        let root: Root<T::Settings> = decode("directory root", root)?;
        if !root.pages.is_sorted_by(|a, b| a.first < b.first)
            || root.pages.first().is_some_and(|page| !page.first.is_empty())
        {
            return Err(FormatError::malformed("directory root", "pages do not ascend from the empty key"));
        }
        let mut state = Self::new(log, root.settings);
        state.count = root.count;
        state.content = root.content;
        state.archived = Archived { seq: root.archived_seq, address: root.archived_address.into() };
        if !root.pages.is_empty() {
            let slots = root.pages.into_iter().map(|page| {
                Arc::new(Slot {
                    first: page.first,
                    stored: Some((page.id, page.bytes)),
                    content: Content::Missing { waiting: Vec::new() },
                    used: AtomicU64::new(0),
                })
            });
            state.slots = Arc::new(slots.collect());
        }
        Ok(state)
    }

    fn fold(&mut self, seq: u64, operation: &Self::Operation) -> Result<(), FoldError> {
        match operation {
            Operation::Archived { to, address, .. } => {
                self.archived = Archived { seq: *to, address: address.clone().into() };
                return Ok(());
            }
            Operation::Settings(settings) => {
                self.settings = Arc::new(settings.clone());
                return Ok(());
            }
            Operation::Put { key, record, replaces } => {
                self.change(seq, key, operation)?;
                match replaces {
                    Some(old) => mix(&mut self.content, old),
                    None => self.count += 1,
                }
                mix(&mut self.content, &record_digest(key, record));
            }
            Operation::Amend { key, before, after, .. } => {
                self.change(seq, key, operation)?;
                mix(&mut self.content, before);
                mix(&mut self.content, after);
            }
            Operation::Remove { key, removes } => {
                self.change(seq, key, operation)?;
                mix(&mut self.content, removes);
                self.count = self
                    .count
                    .checked_sub(1)
                    .ok_or_else(|| FoldError::new(seq, "a record goes from an empty table"))?;
            }
        }
        Ok(())
    }

    fn pages_of(&self, part: &String) -> PartPages {
        let slot = &self.slots[self.position(part)];
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        match (&slot.content, slot.stored) {
            (Content::Missing { .. }, Some((id, _))) => PartPages::Missing(vec![id]),
            _ => PartPages::Loaded,
        }
    }

    fn install(&mut self, part: &String, pages: Vec<(PageId, Bytes)>) -> Result<(), FormatError> {
        let position = self.position(part);
        let upper = self.slots.get(position + 1).map(|slot| slot.first.clone());
        let slot = Arc::make_mut(&mut Arc::make_mut(&mut self.slots)[position]);
        let Content::Missing { waiting } = &mut slot.content else { return Ok(()) };
        let page = pages.into_iter().find(|(id, _)| slot.stored.is_some_and(|(stored, _)| stored == *id));
        let Some((_, stored)) = page else {
            return Err(FormatError::malformed("directory page", "not the page that was asked for"));
        };
        let mut records = decode_records::<T::Record>(&stored)?;
        let inside = records.keys().next().is_none_or(|key| *key >= slot.first)
            && upper.is_none_or(|upper| records.keys().next_back().is_none_or(|key| *key < upper));
        if !inside {
            return Err(FormatError::malformed("directory page", "holds keys that belong elsewhere"));
        }
        let mut bytes = stored.len();
        let mut changed = None;
        for (seq, operation) in std::mem::take(waiting) {
            apply::<T>(&mut records, &mut bytes, seq, &operation)
                .map_err(|error| FormatError::malformed("directory page", error))?;
            changed = Some(seq);
        }
        slot.content = Content::Loaded { records, changed, bytes };
        Ok(())
    }

    fn parts_dirty(&self) -> Vec<String> {
        self.slots.iter().filter(|slot| slot.is_dirty()).map(|slot| slot.first.clone()).collect()
    }

    fn dirty_bytes(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_dirty()).map(|slot| slot.stored_bytes()).sum()
    }

    fn snapshot(&self, new_page_id: &mut dyn FnMut() -> PageId) -> SnapshotPages<Plan> {
        let mut pages: Vec<StoredPage> = Vec::with_capacity(self.slots.len());
        let mut written = Vec::new();
        let mut rewritten = Vec::new();
        for slot in self.slots.iter() {
            match (&slot.content, slot.stored) {
                (Content::Loaded { changed: None, .. } | Content::Missing { .. }, Some((id, bytes))) => {
                    pages.push(StoredPage { first: slot.first.clone(), id, bytes });
                }
                (Content::Loaded { records, .. }, _) => {
                    // A slot that has become empty stays, as a page of three octets: another slot could take over
                    // its range only if it were loaded too.
                    let mut became = Vec::new();
                    for (first, bytes) in encode_records(records) {
                        // The first page takes over the slot's own range, whatever its smallest key is now.
                        let first =
                            if became.is_empty() { slot.first.as_str() } else { first.unwrap_or_default() };
                        let id = new_page_id();
                        became.push(StoredPage { first: first.to_owned(), id, bytes: bytes.len() as u32 });
                        written.push((id, bytes));
                    }
                    pages.extend(became.iter().cloned());
                    rewritten.push((slot.first.clone(), became));
                }
                (Content::Missing { .. }, None) => unreachable!("a slot is missing only if it is stored"),
            }
        }
        let listed = pages.iter().map(|page| page.id).collect();
        let root = encode(&Root {
            settings: &*self.settings,
            count: self.count,
            content: self.content,
            archived_seq: self.archived.seq,
            archived_address: self.archived.address.to_vec(),
            pages,
        });
        SnapshotPages { root, written, listed, plan: Plan { rewritten } }
    }

    fn snapshotted(&mut self, seq: u64, taken: &SnapshotPages<Plan>) {
        let mut rewritten = taken.plan.rewritten.iter().peekable();
        let mut slots: Vec<Arc<Slot<T>>> = Vec::with_capacity(self.slots.len());
        for slot in self.slots.iter() {
            let Some((_, became)) = rewritten.next_if(|(first, _)| *first == slot.first) else {
                slots.push(Arc::clone(slot));
                continue;
            };
            let Content::Loaded { records, changed, .. } = &slot.content else {
                unreachable!("a dirty slot stays loaded")
            };
            // Whatever was folded after the snapshot keeps all of the slot dirty; that costs a page or two more in
            // the next snapshot, and needs no list of keys.
            let changed = changed.filter(|changed| *changed > seq);
            let used = slot.used.load(Ordering::Relaxed);
            let mut rest = records.clone();
            for page in became.iter().rev() {
                // The slot's first page takes what is left, the others start at their first key.
                let mine = if page.first == slot.first {
                    std::mem::take(&mut rest)
                } else {
                    rest.split_off(&page.first)
                };
                let bytes = mine.iter().map(|(key, record)| size_of_pair(key, &**record)).sum();
                slots.push(Arc::new(Slot {
                    first: page.first.clone(),
                    stored: Some((page.id, page.bytes)),
                    content: Content::Loaded { records: mine, changed, bytes },
                    used: AtomicU64::new(used),
                }));
            }
            let from = slots.len() - became.len();
            slots[from..].reverse();
        }
        self.slots = Arc::new(slots);
    }

    fn archived_operation(to: u64, address: Bytes, nonce: Uuid) -> Self::Operation {
        Operation::Archived { to, address: address.to_vec(), nonce }
    }

    fn archived(&self) -> Archived {
        self.archived.clone()
    }

    fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&encode(&*self.settings));
        context.update(&self.count.to_be_bytes());
        context.update(&self.content);
        context.finish().as_ref().try_into().expect("SHA-256 gives 32 octets")
    }

    fn weight(&self) -> usize {
        self.slots.iter().map(|slot| slot.weight()).sum()
    }

    fn shed(&mut self, bytes: usize) {
        let mut clean: Vec<(u64, usize, usize)> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| {
                slot.stored.is_some() && matches!(slot.content, Content::Loaded { changed: None, .. })
            })
            .map(|(position, slot)| (slot.used.load(Ordering::Relaxed), position, slot.weight()))
            .collect();
        clean.sort_unstable();
        let mut freed = 0;
        let slots = Arc::make_mut(&mut self.slots);
        for (_, position, weight) in clean {
            if freed >= bytes {
                break;
            }
            Arc::make_mut(&mut slots[position]).content = Content::Missing { waiting: Vec::new() };
            freed += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Words;

    impl Table for Words {
        type Settings = String;
        type Record = String;
        type Amendment = String;

        fn amend(record: &mut String, more: &String) -> Result<(), &'static str> {
            record.push_str(more);
            Ok(())
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, usize),
        Amend(u16),
        Remove(u16),
        Settings,
        Snapshot { then: u8 },
        Shed,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..40u16;
        prop_oneof![
            6 => (key.clone(), 1..9000usize).prop_map(|(key, size)| Step::Put(key, size)),
            2 => key.clone().prop_map(Step::Amend),
            3 => key.prop_map(Step::Remove),
            1 => Just(Step::Settings),
            2 => (0..4u8).prop_map(|then| Step::Snapshot { then }),
            1 => Just(Step::Shed),
        ]
    }

    struct Bench {
        state: TableState<Words>,
        /// The same operations, on a state that never saw a snapshot.
        plain: TableState<Words>,
        model: BTreeMap<String, String>,
        pages: HashMap<PageId, Vec<u8>>,
        seq: u64,
        ids: u32,
    }

    impl Bench {
        fn load(state: &mut TableState<Words>, pages: &HashMap<PageId, Vec<u8>>, part: &String) {
            if let PartPages::Missing(ids) = state.pages_of(part) {
                let found = ids.iter().map(|id| (*id, Bytes::from(pages[id].clone()))).collect();
                state.install(part, found).unwrap();
            }
            assert_eq!(state.pages_of(part), PartPages::Loaded);
        }

        fn fold(&mut self, operation: &Operation<Words>) {
            self.seq += 1;
            let mut bytes = Vec::new();
            TableState::<Words>::encode_operation(operation, &mut bytes);
            let read = TableState::<Words>::decode_operation(&bytes).unwrap();
            assert_eq!(read, *operation);
            self.state.fold(self.seq, &read).unwrap();
            self.plain.fold(self.seq, &read).unwrap();
        }

        /// Operations are built on the plain state, so that they meet pages of the other that are not loaded.
        fn put(&mut self, key: u16, size: usize) {
            let key = format!("{key:03}");
            let record = format!("{}:{}", self.seq, "x".repeat(size));
            self.model.insert(key.clone(), record.clone());
            self.fold(&self.plain.put(&key, record));
        }

        fn snapshot(&mut self, then: u8) {
            for part in self.state.parts_dirty() {
                Self::load(&mut self.state, &self.pages, &part);
            }
            let (frozen, at) = (self.state.clone(), self.seq);
            let mut new_id = || {
                self.ids += 1;
                PageId { base_seq: at, attempt: Uuid::from_u128(1), number: self.ids }
            };
            let taken = frozen.snapshot(&mut new_id);
            for n in 0..then {
                self.put(u16::from(n) * 13, 100);
            }
            self.pages.extend(taken.written.iter().cloned());
            self.pages.retain(|id, _| taken.listed.contains(id));
            let root = TableState::<Words>::from_root(frozen.log, &taken.root).unwrap();
            assert_eq!(root.digest(), frozen.digest());
            self.state.snapshotted(at, &taken);
            if then % 2 == 1 {
                return;
            }
            // Go on from what was stored, as another node would.
            let mut other = root;
            for seq in at + 1..=self.seq {
                // The tail was put by this function alone.
                let key = format!("{:03}", (seq - at - 1) * 13);
                Self::load(&mut other, &self.pages, &key);
                let record = self.plain.get(&key).unwrap().to_string();
                other.fold(seq, &other.put(&key, record)).unwrap();
            }
            self.state = other;
        }

        fn compare(&mut self) {
            assert_eq!(self.state.digest(), self.plain.digest());
            assert_eq!(self.state.count(), self.model.len() as u64);
            let mut seen = BTreeMap::new();
            let mut from = Some(String::new());
            while let Some(part) = from {
                Self::load(&mut self.state, &self.pages, &part);
                let (records, next) = self.state.page(&part);
                seen.extend(records.unwrap().iter().map(|(key, record)| (key.clone(), record.to_string())));
                from = next.map(str::to_owned);
            }
            assert_eq!(seen, self.model);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_history_gives_the_same_table(steps in prop::collection::vec(step(), 1..60)) {
            let log = LogId::domain(Uuid::from_u128(7));
            let empty = TableState::new(log, String::new());
            let mut bench = Bench {
                state: empty.clone(), plain: empty, model: BTreeMap::new(), pages: HashMap::new(), seq: 0, ids: 0,
            };
            for step in steps {
                match step {
                    Step::Put(key, size) => bench.put(key, size),
                    Step::Amend(key) => {
                        let key = format!("{key:03}");
                        let operation = bench.plain.amend(&key, "+".to_owned());
                        prop_assert_eq!(operation.is_some(), bench.model.contains_key(&key));
                        if let Some(operation) = operation {
                            bench.model.get_mut(&key).unwrap().push('+');
                            bench.fold(&operation);
                        }
                    }
                    Step::Remove(key) => {
                        let key = format!("{key:03}");
                        let operation = bench.plain.remove(&key);
                        prop_assert_eq!(operation.is_some(), bench.model.remove(&key).is_some());
                        if let Some(operation) = operation {
                            bench.fold(&operation);
                        }
                    }
                    Step::Settings => bench.fold(&Operation::Settings(format!("{}", bench.seq))),
                    Step::Snapshot { then } => bench.snapshot(then),
                    Step::Shed => {
                        let before = bench.state.weight();
                        bench.state.shed(20_000);
                        prop_assert!(bench.state.weight() <= before);
                    }
                }
            }
            bench.compare();
        }
    }

    #[test]
    fn an_operation_that_does_not_fit_is_refused() {
        let mut state = TableState::<Words>::new(LogId::domain(Uuid::from_u128(7)), String::new());
        let put = state.put("a", "one".to_owned());
        state.fold(1, &put).unwrap();
        assert!(state.fold(2, &put).is_err(), "says that nothing was there");
        let remove = state.remove("a").unwrap();
        let amend = state.amend("a", "!".to_owned()).unwrap();
        state.fold(2, &amend).unwrap();
        assert!(state.fold(3, &remove).is_err(), "the record is another one now");
        assert!(state.fold(3, &amend).is_err());
        assert_eq!(**state.get("a").unwrap(), "one!");
    }
}
