//! What outlives hosts: engines, dice, who is cut off from what, and the record of everything that happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use blob::Growth;
use blob::memory::MemoryBlobs;
use engine::LogId;
use engine::memory::MemoryEngine;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bug::Bug;
use crate::counts::Counts;
use crate::reach::Late;
use simulation::ledger::Ledger;

/// Nodes.
pub(crate) const NODES: usize = 3;
/// The host of all clients.
pub(crate) const CLIENTS: &str = "clients";

/// How often what goes wrong, per call, from zero to one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// A call is refused, and that is known.
    pub(crate) refused: f64,
    /// A call is lost on its way, without effect.
    pub(crate) lost: f64,
    /// The answer is lost, after the effect.
    pub(crate) unanswered: f64,
    /// A compare-and-swap is lost, and takes effect some calls later if its condition still holds.
    pub(crate) late: f64,
    /// A call takes a hundred times as long.
    pub(crate) slow: f64,
    /// A hint is lost, told twice, told seconds later: each.
    pub(crate) hint: f64,
}

impl Rates {
    pub(crate) const NONE: Self =
        Self { refused: 0.0, lost: 0.0, unanswered: 0.0, late: 0.0, slow: 0.0, hint: 0.0 };

    pub(crate) fn is_none(&self) -> bool {
        self.lost == 0.0
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) engine: MemoryEngine,
    pub(crate) blobs: MemoryBlobs,
    pub(crate) bug: Option<Bug>,
    dice: Mutex<StdRng>,
    rates: Mutex<Rates>,
    pub(crate) limbo: Mutex<Vec<Late>>,
    /// The greatest number that a node was told by a hint, by log.
    heard: Mutex<BTreeMap<(usize, LogId), u64>>,
    /// Whether a node cannot reach the engines.
    cut_off: [AtomicBool; NODES],
    /// Seconds by which a node's wall clock is ahead.
    ahead: [AtomicI64; NODES],
    /// Accounts are there, so nodes may start.
    pub(crate) is_ready: AtomicBool,
    /// No more faults begin.
    pub(crate) is_calm: AtomicBool,
    /// Clients have done what they do.
    pub(crate) load_is_over: AtomicBool,
    pub(crate) ledger: Mutex<Ledger>,
    /// Messages that were accepted for an account, and that nobody works on yet.
    pub(crate) delivered: Mutex<Vec<(String, String)>>,
    counts: Mutex<Counts>,
    trace: Mutex<blake3::Hasher>,
    says_trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Arc<Self> {
        let world = Self {
            seed,
            engine: MemoryEngine::new(),
            // As an object store: nodes share it, and a segment is there as a whole or not at all.
            blobs: MemoryBlobs::growing(Growth::Whole),
            bug,
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            rates: Mutex::new(Rates::NONE),
            limbo: Mutex::default(),
            heard: Mutex::default(),
            cut_off: Default::default(),
            ahead: Default::default(),
            is_ready: AtomicBool::new(false),
            is_calm: AtomicBool::new(false),
            load_is_over: AtomicBool::new(false),
            ledger: Mutex::default(),
            delivered: Mutex::default(),
            counts: Mutex::default(),
            trace: Mutex::default(),
            says_trace: std::env::var_os("POSTRIDER_SIMULATION_TRACE").is_some(),
        };
        Arc::new(world)
    }

    /// Dice of its own for whoever wants them: what one throws does not change what another gets.
    pub(crate) fn dice_for(&self, who: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(who))
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.dice.lock().random_bool(probability)
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.dice.lock().random_range(0..end)
    }

    pub(crate) fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.lock().random_range(range))
    }

    pub(crate) fn rates(&self) -> Rates {
        *self.rates.lock()
    }

    pub(crate) fn set_rates(&self, rates: Rates) {
        *self.rates.lock() = rates;
    }

    pub(crate) fn is_cut_off(&self, node: usize) -> bool {
        self.cut_off[node].load(Ordering::Relaxed)
    }

    pub(crate) fn cut_off(&self, node: usize, is: bool) {
        self.cut_off[node].store(is, Ordering::Relaxed);
    }

    pub(crate) fn seconds_ahead(&self, node: usize) -> i64 {
        self.ahead[node].load(Ordering::Relaxed)
    }

    pub(crate) fn set_seconds_ahead(&self, node: usize, seconds: i64) {
        self.ahead[node].store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self, node: usize, log: LogId) -> u64 {
        self.heard.lock().get(&(node, log)).copied().unwrap_or(0)
    }

    pub(crate) fn hears(&self, node: usize, log: LogId, seq: u64) {
        let mut heard = self.heard.lock();
        let known = heard.entry((node, log)).or_default();
        *known = seq.max(*known);
    }

    pub(crate) fn count(&self, name: &str) {
        self.counts.lock().add(name, 1);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// Something happened. Two runs are the same when all of this is the same, in the same order at the same time.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("{:?} {what}\n", turmoil::sim_elapsed().unwrap_or_default());
        if self.says_trace {
            eprint!("{line}");
        }
        self.trace.lock().update(line.as_bytes());
    }

    /// The hash of all that happened.
    pub(crate) fn trace(&self) -> String {
        self.trace.lock().finalize().to_hex()[..16].to_owned()
    }
}
