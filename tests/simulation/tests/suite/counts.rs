//! What happened in a run, in numbers.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name, in the order of the names.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, name: &str, more: u64) {
        *self.0.entry(name.to_owned()).or_default() += more;
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn plus(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    /// What [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        Self(pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(name, count)| format!("{name}={count}")).collect();
        f.write_str(&pairs.join(" "))
    }
}
