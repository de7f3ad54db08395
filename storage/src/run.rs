//! Thread keys: which thread a message-id leads to, in sorted runs that are merged in levels.
//!
//! Keys are hashes, so new ones fall everywhere. Kept in one sorted list of pages, each snapshot would rewrite nearly
//! all of it; instead new keys form a run of their own, and runs are merged when they have become as large as the one
//! before. An account with *n* keys has about log *n* runs, and a look-up reads one page of each.

use std::sync::Arc;

use bytes::Bytes;
use engine::{FormatError, PageId};
use serde::{Deserialize, Serialize};

use crate::index::StoredPage;
use crate::pack::{Unpack, put_delta, put_varint, row_digest};

const VERSION: u8 = 1;
/// The most keys a page may hold.
const KEYS_MAX: usize = 4096;

/// A key and the thread that it leads to.
type Entry = (u64, u64);

/// Keys and threads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadKeys {
    /// What the snapshot does not have: sorted pieces, each at least twice as large as the next.
    recent: Vec<Arc<Vec<Entry>>>,
    /// Stored runs, largest and oldest first.
    runs: Vec<Run>,
}

#[derive(Clone, Debug, Default)]
struct Run {
    pages: Vec<RunPage>,
}

#[derive(Clone, Debug)]
struct RunPage {
    first: u64,
    count: u32,
    stored: StoredPage,
    keys: Option<Arc<Vec<Entry>>>,
}

/// A page of a run as the root lists it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StoredRunPage {
    first: u64,
    count: u32,
    page: StoredPage,
}

/// What a snapshot did, to be taken over when it is current.
#[derive(Debug)]
pub(crate) struct RunsWritten {
    keys: Vec<Entry>,
    runs: Vec<Run>,
}

impl ThreadKeys {
    pub(crate) fn from_stored(runs: Vec<Vec<StoredRunPage>>) -> Self {
        let run = |pages: Vec<StoredRunPage>| Run {
            pages: pages
                .into_iter()
                .map(|page| RunPage { first: page.first, count: page.count, stored: page.page, keys: None })
                .collect(),
        };
        Self { recent: Vec::new(), runs: runs.into_iter().map(run).collect() }
    }

    /// The thread a key leads to. `Err`: the page that would know is not loaded.
    pub(crate) fn get(&self, key: u64) -> Result<Option<u64>, PageId> {
        if let Some(thread) = self.recent.iter().rev().find_map(|piece| find(piece, key)) {
            return Ok(Some(thread));
        }
        for page in self.runs.iter().filter_map(|run| run.page_of(key)) {
            let keys = page.keys.as_ref().ok_or(page.stored.id)?;
            if let Some(thread) = find(keys, key) {
                return Ok(Some(thread));
            }
        }
        Ok(None)
    }

    /// Adds keys that lead nowhere yet.
    pub(crate) fn insert(&mut self, keys: &[u64], thread: u64) {
        if keys.is_empty() {
            return;
        }
        let mut piece: Vec<Entry> = keys.iter().map(|key| (*key, thread)).collect();
        piece.sort_unstable();
        let mut piece = Arc::new(piece);
        while let Some(before) = self.recent.pop_if(|before| before.len() < piece.len() * 2) {
            piece = Arc::new(merge(&before, &piece));
        }
        self.recent.push(piece);
    }

    /// Pages to load before [`Self::get`] can answer for this key.
    pub(crate) fn missing(&self, key: u64) -> Vec<PageId> {
        let pages = self.runs.iter().filter_map(|run| run.page_of(key));
        pages.filter(|page| page.keys.is_none()).map(|page| page.stored.id).collect()
    }

    /// Pages to load before [`Self::store`] can merge.
    pub(crate) fn missing_for_store(&self) -> Vec<PageId> {
        let pages = self.runs[self.runs_kept()..].iter().flat_map(|run| &run.pages);
        pages.filter(|page| page.keys.is_none()).map(|page| page.stored.id).collect()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.recent.is_empty()
    }

    pub(crate) fn install(&mut self, pages: &[(PageId, Bytes)]) -> Result<(), FormatError> {
        for page in self.runs.iter_mut().flat_map(|run| &mut run.pages).filter(|page| page.keys.is_none()) {
            let Some((_, bytes)) = pages.iter().find(|(id, _)| *id == page.stored.id) else { continue };
            let keys = decode(bytes)?;
            if keys.len() != page.count as usize || keys.first().is_none_or(|(key, _)| *key != page.first) {
                return Err(FormatError::malformed("page of thread keys", "not what the root says"));
            }
            page.keys = Some(Arc::new(keys));
        }
        Ok(())
    }

    /// How many runs stay as they are when what is recent is stored: those more than twice as large as what comes to
    /// stand after them.
    fn runs_kept(&self) -> usize {
        if self.recent.is_empty() {
            return self.runs.len();
        }
        let mut merged: usize = self.recent.iter().map(|piece| piece.len()).sum();
        let mut kept = self.runs.len();
        while kept > 0 && self.runs[kept - 1].len() < merged * 2 {
            kept -= 1;
            merged += self.runs[kept].len();
        }
        kept
    }

    pub(crate) fn store(
        &self,
        page_keys: usize,
        mut write: impl FnMut(Vec<u8>, u128) -> StoredPage,
    ) -> RunsWritten {
        let keys = self.recent.iter().fold(Vec::new(), |all, piece| merge(&all, piece));
        let kept = self.runs_kept();
        let mut runs = self.runs[..kept].to_vec();
        if !keys.is_empty() {
            let old = self.runs[kept..].iter().rev().fold(keys.clone(), |all, run| {
                let pages = run.pages.iter().filter_map(|page| page.keys.as_deref());
                let run: Vec<Entry> = pages.flatten().copied().collect();
                merge(&run, &all)
            });
            let pages = old
                .chunks(page_keys.clamp(1, KEYS_MAX))
                .map(|chunk| RunPage {
                    first: chunk[0].0,
                    count: chunk.len() as u32,
                    stored: write(encode(chunk), digest(chunk)),
                    keys: Some(Arc::new(chunk.to_vec())),
                })
                .collect();
            runs.push(Run { pages });
        }
        RunsWritten { keys, runs }
    }

    /// What was recent then is stored now; what came since stays recent.
    pub(crate) fn stored(&mut self, written: &RunsWritten) {
        let since: Vec<Entry> = self.recent.iter().fold(Vec::new(), |all, piece| {
            let new: Vec<Entry> =
                piece.iter().copied().filter(|entry| written.keys.binary_search(entry).is_err()).collect();
            merge(&all, &new)
        });
        self.recent = if since.is_empty() { Vec::new() } else { vec![Arc::new(since)] };
        self.runs.clone_from(&written.runs);
    }

    pub(crate) fn digest(&self) -> u128 {
        let stored = self.runs.iter().flat_map(|run| &run.pages).map(|page| page.stored.digest);
        let recent = self.recent.iter().map(|piece| digest(piece));
        stored.chain(recent).fold(0, u128::wrapping_add)
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.recent.is_empty() {
            return 0;
        }
        let merged: usize = self.runs[self.runs_kept()..].iter().map(Run::len).sum();
        let recent: usize = self.recent.iter().map(|piece| piece.len()).sum();
        (merged + recent) * 11
    }

    pub(crate) fn weight(&self) -> usize {
        let loaded = self.runs.iter().flat_map(|run| &run.pages).filter_map(|page| page.keys.as_ref());
        let pages: usize = self.runs.iter().map(|run| run.pages.len()).sum();
        (loaded.chain(&self.recent).map(|keys| keys.len()).sum::<usize>()) * size_of::<Entry>()
            + pages * size_of::<RunPage>()
    }

    pub(crate) fn shed(&mut self) -> usize {
        let pages = self.runs.iter_mut().flat_map(|run| &mut run.pages);
        pages.filter_map(|page| page.keys.take()).map(|keys| keys.len() * size_of::<Entry>()).sum()
    }

    pub(crate) fn pages(&self) -> usize {
        self.runs.iter().map(|run| run.pages.len()).sum()
    }
}

impl RunsWritten {
    /// The lists for the root.
    pub(crate) fn lists(&self) -> Vec<Vec<StoredRunPage>> {
        let page = |page: &RunPage| StoredRunPage { first: page.first, count: page.count, page: page.stored };
        self.runs.iter().map(|run| run.pages.iter().map(page).collect()).collect()
    }

    pub(crate) fn page_ids(&self) -> impl Iterator<Item = PageId> {
        self.runs.iter().flat_map(|run| &run.pages).map(|page| page.stored.id)
    }
}

impl Run {
    fn len(&self) -> usize {
        self.pages.iter().map(|page| page.count as usize).sum()
    }

    fn page_of(&self, key: u64) -> Option<&RunPage> {
        let after = self.pages.partition_point(|page| page.first <= key);
        self.pages.get(after.checked_sub(1)?)
    }
}

fn find(entries: &[Entry], key: u64) -> Option<u64> {
    entries.binary_search_by_key(&key, |entry| entry.0).ok().map(|at| entries[at].1)
}

fn merge(left: &[Entry], right: &[Entry]) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut right = right.iter().copied().peekable();
    for entry in left {
        while let Some(before) = right.next_if(|other| other < entry) {
            merged.push(before);
        }
        merged.push(*entry);
    }
    merged.extend(right);
    merged
}

fn digest(entries: &[Entry]) -> u128 {
    entries.iter().fold(0, |sum, (key, thread)| {
        let mut row = [0; 16];
        row[..8].copy_from_slice(&key.to_le_bytes());
        row[8..].copy_from_slice(&thread.to_le_bytes());
        sum.wrapping_add(row_digest(2, &row))
    })
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + entries.len() * 11);
    out.push(VERSION);
    put_varint(&mut out, entries.len() as u64);
    let (mut before, mut thread_before) = (0u64, 0);
    for (key, thread) in entries {
        put_varint(&mut out, key.wrapping_sub(before));
        put_delta(&mut out, &mut thread_before, *thread);
        before = *key;
    }
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
    let mut unpack = Unpack::new("page of thread keys", bytes);
    let version = unpack.byte()?;
    if version != VERSION {
        return Err(FormatError::Unknown { what: "version of page of thread keys", number: version.into() });
    }
    let count = unpack.count(KEYS_MAX)?;
    let mut entries = Vec::with_capacity(count);
    let (mut before, mut thread_before) = (0u64, 0);
    for _ in 0..count {
        let gap = unpack.varint()?;
        before = before.checked_add(gap).ok_or_else(|| unpack.malformed("keys do not ascend"))?;
        entries.push((before, unpack.delta(&mut thread_before)?));
    }
    unpack.finish()?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};
    use uuid::Uuid;

    #[test]
    fn runs_stay_few_and_pages_are_rewritten_seldom() {
        let mut keys = ThreadKeys::default();
        let mut number = 0;
        let mut written_keys = 0;
        for round in 0..200u64 {
            for at in 0..20 {
                keys.insert(&[(round * 20 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15)], round);
            }
            let written = keys.store(16, |bytes, digest| {
                number += 1;
                written_keys += decode(&bytes).unwrap().len();
                StoredPage { id: page_id(number), digest, bytes: bytes.len() as u32 }
            });
            keys.stored(&written);
        }
        assert!(keys.runs.len() <= 10, "{} runs", keys.runs.len());
        assert!(written_keys < 4_000 * 12, "{written_keys} keys written for 4000");
    }

    fn page_id(number: u32) -> PageId {
        PageId { base_seq: 0, attempt: Uuid::nil(), number }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_map(steps in proptest::collection::vec((proptest::collection::vec(any::<u16>(), 0..5), 0u8..6), 1..60)) {
            let mut keys = ThreadKeys::default();
            let mut model: HashMap<u64, u64> = HashMap::new();
            let mut pages: BTreeMap<PageId, Bytes> = BTreeMap::new();
            let mut number = 0;
            for (thread, (new, action)) in steps.into_iter().enumerate() {
                let mut fresh: Vec<u64> =
                    new.into_iter().map(|key| u64::from(key) << 40).filter(|key| !model.contains_key(key)).collect();
                fresh.sort_unstable();
                fresh.dedup();
                let before = keys.clone();
                keys.insert(&fresh, thread as u64);
                model.extend(fresh.into_iter().map(|key| (key, thread as u64)));
                match action {
                    0 => {
                        let wanted: Vec<_> =
                            before.missing_for_store().into_iter().map(|id| (id, pages[&id].clone())).collect();
                        let mut base = before.clone();
                        base.install(&wanted).unwrap();
                        let written = base.store(8, |bytes, digest| {
                            number += 1;
                            pages.insert(page_id(number), Bytes::from(bytes));
                            StoredPage { id: page_id(number), digest, bytes: 0 }
                        });
                        // Keys that came while the snapshot was written stay recent.
                        keys.stored(&written);
                        let reopened = ThreadKeys::from_stored(written.lists());
                        prop_assert_eq!(reopened.digest(), before.digest());
                    }
                    1 => {
                        keys.shed();
                    }
                    _ => {}
                }
                prop_assert!(keys.recent.windows(2).all(|pair| pair[0].len() >= pair[1].len()));
            }
            for key in model.keys().copied().chain([1, u64::MAX]) {
                let wanted: Vec<_> = keys.missing(key).into_iter().map(|id| (id, pages[&id].clone())).collect();
                keys.install(&wanted).unwrap();
                prop_assert_eq!(keys.get(key).unwrap(), model.get(&key).copied());
            }
            let expected = model.iter().fold(0u128, |sum, (key, thread)| sum.wrapping_add(digest(&[(*key, *thread)])));
            prop_assert_eq!(keys.digest(), expected);
        }

        #[test]
        fn any_bytes_are_a_page_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode(&bytes);
        }
    }
}
