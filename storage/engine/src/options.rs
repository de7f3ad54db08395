//! Settings of the actors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How logs are kept. The defaults serve one node with an engine of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// A group is closed when its operations would pass this size. 32 KiB keeps a round of Paxos and a read of the tail
    /// short; a commit that is larger by itself stands alone in its entry.
    pub entry_bytes_max: usize,
    /// The largest commit. Larger ones are refused: bulk operations are ranges and are split by who makes them, bigger
    /// payloads go to a blob.
    pub commit_bytes_max: usize,
    /// Commits and reads that may wait for one log; who comes then waits in front of the queue, under its deadline.
    pub inbox_max: usize,
    /// How long a commit or read may take before its caller is told that it is not known. Below the 5 minutes after
    /// which SMTP clients give up on the final dot (RFC 5321 §4.5.3.2.6), above a fail-over of the engine.
    pub deadline_seconds: u64,
    /// No snapshot before so many entries or [`Self::snapshot_bytes_min`] are in the tail.
    pub snapshot_entries_min: usize,
    /// No snapshot before so many bytes or [`Self::snapshot_entries_min`] are in the tail.
    pub snapshot_bytes_min: usize,
    /// A snapshot is due when the tail is larger than this share of the pages that it dirties: so writing pages costs
    /// at most four times what the log itself costs, and a cold start reads little.
    pub snapshot_share_percent: usize,
    /// A snapshot is due after so many entries whatever it costs, so that a cold start stays bounded.
    pub snapshot_entries_max: usize,
    /// Bytes of pages that snapshots may have in memory at one time, all logs together. A larger one goes alone. After a
    /// start all logs with a long tail want theirs.
    pub snapshot_memory_bytes_max: usize,
    /// Entries read at once; with the size of an entry this bounds the memory of a read.
    pub read_entries_max: usize,
    /// Memory of all open logs together; the ones used longest ago are closed or shrunk beyond it.
    pub memory_bytes_max: usize,
    /// Logs open at once; the ones used longest ago and idle are closed beyond it.
    pub open_logs_max: usize,
    /// Whether other nodes commit to the same logs. Then reads that must be fresh look at the head first, answers that
    /// change nothing are confirmed by such a look, and open logs that somebody holds are looked at now and then.
    pub shared: bool,
    /// How often the head of an open log is looked at when logs are shared, since hints can be lost. An account that no session
    /// holds is left alone: whoever comes looks first.
    pub head_poll_ms: u64,
    /// Whether open logs that nobody holds are looked at, now and then and when a hint comes. For logs whose folded state is taken as it is, by whoever opens
    /// them again and again.
    #[serde(skip, default = "yes")]
    pub poll_unheld: bool,
    /// First pause after a conflict or an unknown outcome; doubled each time, with jitter, since proposers that meet
    /// on one log slow each other down several times over.
    pub backoff_ms_min: u64,
    /// Longest such pause.
    pub backoff_ms_max: u64,
    /// Pause after a snapshot or archive chunk could not be written.
    pub retry_ms: u64,
    /// A defect to plant, so that a checker can be seen to notice it.
    #[cfg(any(test, feature = "sabotage"))]
    #[serde(skip)]
    pub sabotage: Option<Sabotage>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            entry_bytes_max: 32 * 1024,
            commit_bytes_max: 256 * 1024,
            inbox_max: 1024,
            deadline_seconds: 30,
            snapshot_entries_min: 64,
            snapshot_bytes_min: 32 * 1024,
            snapshot_share_percent: 25,
            snapshot_entries_max: 1024,
            snapshot_memory_bytes_max: 8 * 1024 * 1024,
            read_entries_max: 256,
            memory_bytes_max: 256 * 1024 * 1024,
            open_logs_max: 20_000,
            shared: false,
            head_poll_ms: 15_000,
            poll_unheld: true,
            backoff_ms_min: 5,
            backoff_ms_max: 2_000,
            retry_ms: 5_000,
            #[cfg(any(test, feature = "sabotage"))]
            sabotage: None,
        }
    }
}

fn yes() -> bool {
    true
}

impl LogOptions {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    pub(crate) fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }

    /// Room for snapshots, in KiB.
    pub(crate) fn snapshot_room(&self) -> usize {
        self.snapshot_memory_bytes_max.div_ceil(1024).clamp(1, 1 << 20)
    }

    /// Whether a snapshot is due for a tail of so many entries and bytes that dirties so many bytes of pages.
    pub(crate) fn snapshot_due(&self, entries: usize, bytes: usize, dirty_bytes: usize) -> bool {
        let enough = entries >= self.snapshot_entries_min || bytes >= self.snapshot_bytes_min;
        let worth = bytes.saturating_mul(100) >= dirty_bytes.saturating_mul(self.snapshot_share_percent);
        entries > 0 && enough && (worth || entries >= self.snapshot_entries_max)
    }

    /// The pause before attempt number `attempt` (from 1): exponential, with full jitter in its upper half.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self.backoff_ms_min.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let most = doubled.clamp(self.backoff_ms_min, self.backoff_ms_max.max(self.backoff_ms_min));
        let micros = most.saturating_mul(1000);
        Duration::from_micros(rand::random_range(micros / 2..=micros.max(1)))
    }
}

/// A rule that is left out, to show that a checker notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// After an unknown outcome the group is proposed anew, with a new nonce.
    NewNonceAfterUnknown,
    /// After an unknown outcome a conflict is taken as lost, without looking for the own entry.
    ConflictTakenAsLost,
    /// What a build closure decided first is kept when the compare-and-swap is lost.
    BuiltBeforeCas,
    /// Pages are collected that the new root does not list, whatever they were built on.
    CollectNotListed,
    /// A commit trims up to the head instead of up to the snapshot.
    TrimBeyondSnapshot,
    /// A tail that is not dense is folded as it is.
    NoDensityCheck,
    /// Commits are answered when they are proposed.
    AnswerBeforeCas,
}

#[cfg(any(test, feature = "sabotage"))]
impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NewNonceAfterUnknown,
        Self::ConflictTakenAsLost,
        Self::BuiltBeforeCas,
        Self::CollectNotListed,
        Self::TrimBeyondSnapshot,
        Self::NoDensityCheck,
        Self::AnswerBeforeCas,
    ];

    /// The one that is written so. `None`: there is none.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == name)
    }
}

impl LogOptions {
    /// Whether this defect is planted. Without the feature `sabotage` there is none.
    #[cfg(any(test, feature = "sabotage"))]
    pub(crate) fn sabotaged(&self, defect: Sabotage) -> bool {
        self.sabotage == Some(defect)
    }

    #[cfg(not(any(test, feature = "sabotage")))]
    #[allow(clippy::unused_self, reason = "same shape as with the feature")]
    pub(crate) const fn sabotaged(&self, _: Sabotage) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_due_by_share_and_at_the_latest_by_count() {
        let options = LogOptions::default();
        for (entries, bytes, dirty, due) in [
            (0, 0, 0, false),
            (63, 32_767, 0, false),
            (64, 1_000, 0, true),
            (64, 1_000, 4_001, false),
            (2, 32_768, 100_000, true),
            (2, 32_768, 200_000, false),
            (1_024, 50_000, 9_000_000, true),
        ] {
            assert_eq!(options.snapshot_due(entries, bytes, dirty), due, "{entries} {bytes} {dirty}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let options = LogOptions::default();
        for attempt in 1..40 {
            let pause = options.backoff(attempt);
            assert!(pause <= Duration::from_millis(options.backoff_ms_max));
            assert!(pause >= Duration::from_micros(options.backoff_ms_min * 500));
        }
    }
}
