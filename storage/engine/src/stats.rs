//! What the actors did: for operators, and for campaigns that must see every mechanism at work.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $metric:literal,)*) => {
        /// Counts since the start, over all logs of one [`crate::Logs`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct LogStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl LogStats {
            /// Both together.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }

        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn new() -> Self {
                Self { $($name: Counter::new(metrics::counter!($metric)),)* }
            }

            pub(crate) fn read(&self) -> LogStats {
                LogStats { $($name: self.$name.count(),)* }
            }
        }
    };
}

/// One count, and the metric that shows it.
pub(crate) struct Counter {
    count: AtomicU64,
    metric: metrics::Counter,
}

impl Counter {
    pub(crate) fn new(metric: metrics::Counter) -> Self {
        Self { count: AtomicU64::new(0), metric }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.metric.increment(count);
    }
}

counters! {
    /// Groups that were committed: entries written.
    groups => "postrider_log_groups_total",
    /// Commits with operations that were acknowledged.
    commits => "postrider_log_commits_total",
    /// Operations that were committed.
    operations => "postrider_log_operations_total",
    /// Compare-and-swaps that were lost to another proposer.
    conflicts => "postrider_log_conflicts_total",
    /// Compare-and-swaps whose outcome was not known at first.
    unknowns => "postrider_log_unknowns_total",
    /// Proposals with an unknown outcome that turned out to be applied.
    unknowns_applied => "postrider_log_unknowns_applied_total",
    /// Proposals whose place had been trimmed away before their fate was known.
    unknowns_trimmed => "postrider_log_unknowns_trimmed_total",
    /// Logs loaded from snapshot and tail, at opening or since the snapshot had been replaced.
    loads => "postrider_log_loads_total",
    /// Loads that had to be repeated, since snapshot and tail did not fit together.
    loads_torn => "postrider_log_loads_torn_total",
    /// Looks at a head, and reads of what is behind it.
    looks => "postrider_log_looks_total",
    /// Entries of other nodes that were folded.
    entries_followed => "postrider_log_entries_followed_total",
    /// Snapshots whose pages were written.
    snapshots => "postrider_log_snapshots_total",
    /// Snapshots that became current.
    swings => "postrider_log_swings_total",
    /// Snapshots that another node's was faster than, or whose swing stayed unknown.
    swings_lost => "postrider_log_swings_lost_total",
    /// Pages written.
    pages_written => "postrider_log_pages_written_total",
    /// Pages fetched for parts.
    pages_read => "postrider_log_pages_read_total",
    /// Pages collected.
    pages_collected => "postrider_log_pages_collected_total",
    /// Commits that trimmed the log.
    trims => "postrider_log_trims_total",
    /// Chunks written to the archive.
    archives => "postrider_log_archive_chunks_total",
    /// Logs closed to make room.
    evictions => "postrider_log_evictions_total",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_its_own() {
        let counters = Counters::new();
        counters.trims.add(2);
        counters.groups.add(1);
        assert_eq!(counters.read(), LogStats { trims: 2, groups: 1, ..LogStats::default() });
    }
}
