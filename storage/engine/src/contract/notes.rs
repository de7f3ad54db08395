//! A small state with everything that a real one has: numbers given out in the commit, ids that make a delivery
//! repeatable, parts whose pages are copied on write, effects remembered for parts that are not loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{FoldError, FormatError};
use crate::id::{LogId, PageId};
use crate::state::{Archived, PartPages, SnapshotPages, State};

pub const SHELVES: u8 = 4;
const NOTES_PER_PAGE: u64 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Put { shelf: u8, number: u64, id: u64, delivery: Option<u64> },
    Remove { shelf: u8, number: u64 },
    Archived { to: u64, address: Vec<u8>, nonce: Uuid },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    id: PageId,
    content: [u8; 32],
}

#[derive(Clone, Debug, Default)]
struct Shelf {
    /// By page number: note number / [`NOTES_PER_PAGE`].
    pages: BTreeMap<u64, PageRef>,
    /// Note numbers and ids.
    notes: Option<BTreeMap<u64, u64>>,
    /// Effects that wait for the notes.
    pending: Vec<Operation>,
    /// Page numbers that differ from `pages`, with the number of their last change.
    dirty: BTreeMap<u64, u64>,
}

impl Shelf {
    fn apply(&mut self, operation: &Operation) {
        let Some(notes) = &mut self.notes else {
            self.pending.push(operation.clone());
            return;
        };
        match operation {
            Operation::Put { number, id, .. } => {
                notes.insert(*number, *id);
            }
            Operation::Remove { number, .. } => {
                notes.remove(number);
            }
            Operation::Archived { .. } => {}
        }
    }

    fn page(&self, page: u64) -> Vec<(u64, u64)> {
        let notes = self.notes.as_ref().expect("dirty shelves are loaded");
        let range = page * NOTES_PER_PAGE..(page + 1) * NOTES_PER_PAGE;
        notes.range(range).map(|(number, id)| (*number, *id)).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Notes {
    /// The last operation; so a reader knows what it looks at.
    pub seq: u64,
    pub next: u64,
    pub count: i64,
    pub deliveries: Arc<BTreeSet<u64>>,
    archived: Archived,
    shelves: Vec<Arc<Shelf>>,
}

#[derive(Serialize, Deserialize)]
struct RootForm {
    seq: u64,
    next: u64,
    count: i64,
    deliveries: BTreeSet<u64>,
    archived_seq: u64,
    archived_address: Vec<u8>,
    shelves: Vec<BTreeMap<u64, PageRef>>,
}

/// What became of each dirty page: a new one, or none where it has become empty.
pub type Plan = Vec<BTreeMap<u64, Option<PageRef>>>;

impl Default for Notes {
    fn default() -> Self {
        Self::new()
    }
}

impl Notes {
    pub fn new() -> Self {
        let empty = || Arc::new(Shelf { notes: Some(BTreeMap::new()), ..Shelf::default() });
        Self {
            seq: 0,
            next: 1,
            count: 0,
            deliveries: Arc::default(),
            archived: Archived::default(),
            shelves: (0..SHELVES).map(|_| empty()).collect(),
        }
    }

    pub fn notes(&self, shelf: u8) -> &BTreeMap<u64, u64> {
        self.shelves[usize::from(shelf)].notes.as_ref().expect("asked for loaded shelves only")
    }

    pub fn all_shelves() -> Vec<u8> {
        (0..SHELVES).collect()
    }
}

impl State for Notes {
    type Operation = Operation;
    type Part = u8;
    type Plan = Plan;

    fn encode_operation(operation: &Operation, out: &mut Vec<u8>) {
        out.extend(postcard::to_allocvec(operation).expect("operations can be encoded"));
    }

    fn decode_operation(bytes: &[u8]) -> Result<Operation, FormatError> {
        postcard::from_bytes(bytes).map_err(|error| FormatError::malformed("operation", error))
    }

    fn from_root(_: LogId, root: &[u8]) -> Result<Self, FormatError> {
        let form: RootForm =
            postcard::from_bytes(root).map_err(|error| FormatError::malformed("root", error))?;
        let shelf = |pages: BTreeMap<u64, PageRef>| {
            let notes = pages.is_empty().then(BTreeMap::new);
            Arc::new(Shelf { pages, notes, ..Shelf::default() })
        };
        Ok(Self {
            seq: form.seq,
            next: form.next,
            count: form.count,
            deliveries: Arc::new(form.deliveries),
            archived: Archived { seq: form.archived_seq, address: form.archived_address.into() },
            shelves: form.shelves.into_iter().map(shelf).collect(),
        })
    }

    fn fold(&mut self, seq: u64, operation: &Operation) -> Result<(), FoldError> {
        self.seq = seq;
        let (shelf, number) = match operation {
            Operation::Put { shelf, number, delivery, .. } => {
                self.next = self.next.max(number + 1);
                self.count += 1;
                if let Some(delivery) = delivery {
                    Arc::make_mut(&mut self.deliveries).insert(*delivery);
                }
                (shelf, number)
            }
            Operation::Remove { shelf, number } => {
                self.count -= 1;
                (shelf, number)
            }
            Operation::Archived { to, address, .. } => {
                self.archived = Archived { seq: *to, address: address.clone().into() };
                return Ok(());
            }
        };
        let shelf = self
            .shelves
            .get_mut(usize::from(*shelf))
            .ok_or_else(|| FoldError::new(seq, format!("no shelf {shelf}")))?;
        let shelf = Arc::make_mut(shelf);
        shelf.apply(operation);
        shelf.dirty.insert(number / NOTES_PER_PAGE, seq);
        Ok(())
    }

    fn pages_of(&self, part: &u8) -> PartPages {
        match self.shelves.get(usize::from(*part)) {
            Some(shelf) if shelf.notes.is_none() => {
                PartPages::Missing(shelf.pages.values().map(|page| page.id).collect())
            }
            _ => PartPages::Loaded,
        }
    }

    fn install(&mut self, part: &u8, pages: Vec<(PageId, Bytes)>) -> Result<(), FormatError> {
        let shelf = Arc::make_mut(&mut self.shelves[usize::from(*part)]);
        let mut notes = BTreeMap::new();
        for (_, bytes) in pages {
            let page: Vec<(u64, u64)> =
                postcard::from_bytes(&bytes).map_err(|error| FormatError::malformed("page", error))?;
            notes.extend(page);
        }
        shelf.notes = Some(notes);
        for operation in std::mem::take(&mut shelf.pending) {
            shelf.apply(&operation);
        }
        Ok(())
    }

    fn parts(&self) -> Vec<u8> {
        Self::all_shelves()
    }

    fn parts_dirty(&self) -> Vec<u8> {
        (0..SHELVES).filter(|shelf| !self.shelves[usize::from(*shelf)].dirty.is_empty()).collect()
    }

    fn dirty_bytes(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.dirty.len() * 40).sum()
    }

    fn snapshot(&self, new_page_id: &mut dyn FnMut() -> PageId) -> SnapshotPages<Plan> {
        let mut plan = Plan::new();
        let mut written = Vec::new();
        let mut listed = Vec::new();
        let mut shelves = Vec::new();
        for shelf in &self.shelves {
            let mut pages = shelf.pages.clone();
            let mut changes = BTreeMap::new();
            for page in shelf.dirty.keys() {
                let notes = shelf.page(*page);
                if notes.is_empty() {
                    pages.remove(page);
                    changes.insert(*page, None);
                    continue;
                }
                let bytes = postcard::to_allocvec(&notes).expect("pages can be encoded");
                let new = PageRef { id: new_page_id(), content: *blake3::hash(&bytes).as_bytes() };
                written.push((new.id, bytes));
                pages.insert(*page, new);
                changes.insert(*page, Some(new));
            }
            listed.extend(pages.values().map(|page| page.id));
            plan.push(changes);
            shelves.push(pages);
        }
        let form = RootForm {
            seq: self.seq,
            next: self.next,
            count: self.count,
            deliveries: (*self.deliveries).clone(),
            archived_seq: self.archived.seq,
            archived_address: self.archived.address.to_vec(),
            shelves,
        };
        let root = postcard::to_allocvec(&form).expect("roots can be encoded");
        SnapshotPages { root, written, listed, plan }
    }

    fn snapshotted(&mut self, seq: u64, taken: &SnapshotPages<Plan>) {
        for (shelf, changes) in self.shelves.iter_mut().zip(&taken.plan) {
            if changes.is_empty() {
                continue;
            }
            let shelf = Arc::make_mut(shelf);
            for (page, change) in changes {
                match change {
                    Some(new) => shelf.pages.insert(*page, *new),
                    None => shelf.pages.remove(page),
                };
                if shelf.dirty.get(page).is_some_and(|changed| *changed <= seq) {
                    shelf.dirty.remove(page);
                }
            }
        }
    }

    fn archived_operation(to: u64, address: Bytes, nonce: Uuid) -> Operation {
        Operation::Archived { to, address: address.to_vec(), nonce }
    }

    fn archived(&self) -> Archived {
        self.archived.clone()
    }

    fn digest(&self) -> [u8; 32] {
        let mut content = Vec::new();
        for shelf in &self.shelves {
            let mut pages: BTreeMap<u64, [u8; 32]> =
                shelf.pages.iter().map(|(page, kept)| (*page, kept.content)).collect();
            for page in shelf.dirty.keys() {
                let notes = shelf.page(*page);
                pages.remove(page);
                if !notes.is_empty() {
                    let bytes = postcard::to_allocvec(&notes).expect("pages can be encoded");
                    pages.insert(*page, *blake3::hash(&bytes).as_bytes());
                }
            }
            content.push(pages);
        }
        let whole = (self.next, self.count, &*self.deliveries, self.archived.seq, content);
        *blake3::hash(&postcard::to_allocvec(&whole).expect("digests can be encoded")).as_bytes()
    }

    fn weight(&self) -> usize {
        let notes = |shelf: &Arc<Shelf>| shelf.notes.as_ref().map_or(0, BTreeMap::len);
        200 + self.shelves.iter().map(notes).sum::<usize>() * 32
    }

    fn shed(&mut self, _: usize) {
        for shelf in &mut self.shelves {
            if shelf.dirty.is_empty() && !shelf.pages.is_empty() {
                Arc::make_mut(shelf).notes = None;
            }
        }
    }
}
