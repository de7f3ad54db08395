//! How far a move is, for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Rows: keys, references.
    Rows,
    /// Segments of message bytes.
    Segments,
    /// Logs, one by one.
    Logs,
    /// What came meanwhile.
    Rest,
    /// Everything is at the target.
    Done,
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Segments => "segments",
            Self::Logs => "logs",
            Self::Rest => "rest",
            Self::Done => "done",
        }
    }
}

/// How far a move is.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Logs (accounts, shards, domains, the registry) that are at the target.
    pub logs_done: u64,
    /// Logs that were found.
    pub logs_total: u64,
    /// Segments that are at the target.
    pub segments_done: u64,
    /// Segments that were found.
    pub segments_total: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Bytes that this process copied.
    pub bytes: u64,
    /// Seconds since this process began.
    pub seconds: f64,
    /// What went wrong last and is tried again, or what keeps the move from going on.
    pub trouble: Option<String>,
    /// Whether nothing is missing but segments that messages are still written into. They are closed with the next
    /// message, or when the process ends.
    pub waits_for_segments: bool,
    /// Whether it goes on by itself.
    pub running: bool,
}

/// The figures as they grow. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    begun: Instant,
    state: Mutex<(Stage, Option<String>, bool)>,
    logs_done: AtomicU64,
    logs_total: AtomicU64,
    segments_done: AtomicU64,
    segments_total: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    waits_for_segments: AtomicBool,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Figures {
            begun: Instant::now(),
            state: Mutex::new((Stage::Rows, None, true)),
            logs_done: AtomicU64::new(0),
            logs_total: AtomicU64::new(0),
            segments_done: AtomicU64::new(0),
            segments_total: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            waits_for_segments: AtomicBool::new(false),
        }))
    }

    pub(crate) fn enters(&self, stage: Stage) {
        self.0.state.lock().0 = stage;
    }

    pub(crate) fn trouble(&self, trouble: Option<String>) {
        self.0.state.lock().1 = trouble;
    }

    pub(crate) fn waits_for_segments(&self, waits: bool) {
        self.0.waits_for_segments.store(waits, Ordering::Relaxed);
    }

    pub(crate) fn runs(&self, running: bool) {
        self.0.state.lock().2 = running;
    }

    pub(crate) fn compared(&self, rows: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A look at all logs begins.
    pub(crate) fn logs(&self, total: u64) {
        self.0.logs_total.store(total, Ordering::Relaxed);
        self.0.logs_done.store(0, Ordering::Relaxed);
    }

    pub(crate) fn log_done(&self) {
        self.0.logs_done.fetch_add(1, Ordering::Relaxed);
    }

    /// A look at all segments begins.
    pub(crate) fn segments(&self, total: u64) {
        self.0.segments_total.store(total, Ordering::Relaxed);
        self.0.segments_done.store(0, Ordering::Relaxed);
    }

    pub(crate) fn segment_done(&self) {
        self.0.segments_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn show(&self) -> Progress {
        let (stage, trouble, running) = self.0.state.lock().clone();
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Progress {
            stage,
            logs_done: read(&self.0.logs_done),
            logs_total: read(&self.0.logs_total),
            segments_done: read(&self.0.segments_done),
            segments_total: read(&self.0.segments_total),
            rows: read(&self.0.rows),
            bytes: read(&self.0.bytes),
            seconds: self.0.begun.elapsed().as_secs_f64(),
            trouble,
            waits_for_segments: self.0.waits_for_segments.load(Ordering::Relaxed),
            running,
        }
    }
}
