//! Up to which feature level this process may write.
//!
//! A level stands for all operations and formats that came with one release. During an upgrade two releases work on the
//! same logs, and the earlier one stops a log whose entries it does not know; so what came with a level is written only
//! when every process that may read it has it. Who finds that out is not said here: whoever builds an operation asks this
//! value, and never a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What this process may write at present. Cheap to clone; all clones are one. It only grows.
#[derive(Clone, Debug)]
pub struct FeatureLevel(Arc<AtomicU32>);

impl FeatureLevel {
    /// No process of another release reads what this one writes, so everything may be written that it knows.
    pub fn newest() -> Self {
        Self::at(u32::MAX)
    }

    /// What came up to `level` may be written.
    pub fn at(level: u32) -> Self {
        Self(Arc::new(AtomicU32::new(level)))
    }

    /// Whether what came with `level` may be written. Asked when an operation is built, and not remembered.
    pub fn allows(&self, level: u32) -> bool {
        level <= self.get()
    }

    /// The greatest level that may be written.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// From now on, everything up to `level` may be written.
    pub fn raise(&self, level: u32) {
        self.0.fetch_max(level, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_for_all_who_have_it() {
        let level = FeatureLevel::at(2);
        let clone = level.clone();
        assert!(clone.allows(1) && clone.allows(2) && !clone.allows(3));
        level.raise(3);
        level.raise(1);
        assert_eq!((clone.get(), clone.allows(3), clone.allows(4)), (3, true, false));
        assert!(FeatureLevel::newest().allows(u32::MAX));
    }
}
