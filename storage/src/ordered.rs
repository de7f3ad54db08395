//! Ordered sets that are cheap to clone and to change a little: pieces behind `Arc`, copied when they are changed.

use std::ops::RangeInclusive;
use std::sync::Arc;

/// A piece is divided when it has so many keys: copying one costs about a microsecond, and a clone of the whole is an
/// `Arc` for every few hundred keys.
const PIECE_KEYS_MAX: usize = 512;

/// An ordered set.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<K> {
    /// None is empty; all keys of one are below all of the next.
    pieces: Vec<Arc<Vec<K>>>,
    len: usize,
}

impl<K> Default for Ordered<K> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Copy> Ordered<K> {
    /// All these keys, in whatever order they come.
    pub(crate) fn of(mut keys: Vec<K>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        let len = keys.len();
        // Not full, so that the next key does not divide a piece.
        let pieces = keys.chunks(PIECE_KEYS_MAX * 3 / 4).map(|piece| Arc::new(piece.to_vec())).collect();
        Self { pieces, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes in memory.
    pub(crate) fn weight(&self) -> usize {
        self.len * size_of::<K>() * 4 / 3 + self.pieces.len() * 64
    }

    pub(crate) fn insert(&mut self, key: K) {
        let at = self.piece_of(&key).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(Arc::new(vec![key]));
            self.len = 1;
            return;
        };
        let Err(place) = piece.binary_search(&key) else { return };
        let keys = Arc::make_mut(piece);
        keys.insert(place, key);
        self.len += 1;
        if keys.len() >= PIECE_KEYS_MAX {
            // What grows at its end leaves full pieces behind, not half ones.
            let is_end = at + 1 == self.pieces.len() && place + 1 == PIECE_KEYS_MAX;
            let keys = Arc::make_mut(&mut self.pieces[at]);
            let right = keys.split_off(if is_end { PIECE_KEYS_MAX * 7 / 8 } else { PIECE_KEYS_MAX / 2 });
            self.pieces.insert(at + 1, Arc::new(right));
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        let at = self.piece_of(key);
        let Some(piece) = self.pieces.get_mut(at) else { return };
        let Ok(place) = piece.binary_search(key) else { return };
        Arc::make_mut(piece).remove(place);
        self.len -= 1;
        let left = self.pieces[at].len();
        if left == 0 {
            self.pieces.remove(at);
        } else if left < PIECE_KEYS_MAX / 8
            && at > 0
            && self.pieces[at - 1].len() + left <= PIECE_KEYS_MAX * 3 / 4
        {
            let right = self.pieces.remove(at);
            Arc::make_mut(&mut self.pieces[at - 1]).extend_from_slice(&right);
        }
    }

    /// The keys within these bounds, ascending.
    pub(crate) fn range(&self, bounds: RangeInclusive<K>) -> impl DoubleEndedIterator<Item = K> + '_ {
        let (start, end) = bounds.into_inner();
        let first = self.piece_of(&start);
        let last = self.pieces.partition_point(|piece| piece.first().is_some_and(|key| *key <= end));
        self.pieces[first..last.max(first)].iter().flat_map(move |piece| {
            let from = piece.partition_point(|key| *key < start);
            let to = piece.partition_point(|key| *key <= end);
            piece[from..to.max(from)].iter().copied()
        })
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = K> + '_ {
        self.pieces.iter().flat_map(|piece| piece.iter().copied())
    }

    /// The first piece with a key that is not below this one.
    fn piece_of(&self, key: &K) -> usize {
        self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last < key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_set(first in proptest::collection::vec(0u32..4000, 0..2000),
                        steps in proptest::collection::vec((0u8..5, 0u32..4000), 0..2000),
                        bounds in proptest::collection::vec((0u32..4100, 0u32..4100), 8)) {
            let mut set = Ordered::of(first.clone());
            let mut model: BTreeSet<u32> = first.into_iter().collect();
            let before = (set.clone(), model.clone());
            for (action, key) in steps {
                if action < 2 {
                    set.insert(key);
                    model.insert(key);
                } else {
                    set.remove(&key);
                    model.remove(&key);
                }
                prop_assert_eq!(set.len(), model.len());
            }
            for (set, model) in [(set, model), before] {
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert!(set.pieces.iter().all(|piece| !piece.is_empty() && piece.len() < PIECE_KEYS_MAX));
                for (one, other) in &bounds {
                    let bounds = *one.min(other)..=*one.max(other);
                    let found: Vec<u32> = set.range(bounds.clone()).collect();
                    prop_assert_eq!(found, model.range(bounds.clone()).copied().collect::<Vec<_>>());
                    let found: Vec<u32> = set.range(bounds.clone()).rev().collect();
                    prop_assert_eq!(found, model.range(bounds).rev().copied().collect::<Vec<_>>());
                }
            }
        }

        #[test]
        fn growing_at_the_end_fills_pieces(keys in 1000u32..5000) {
            let mut set = Ordered::default();
            (0..keys).for_each(|key| set.insert(key));
            prop_assert!(set.pieces.len() <= keys as usize / (PIECE_KEYS_MAX * 3 / 4) + 2);
        }
    }
}
