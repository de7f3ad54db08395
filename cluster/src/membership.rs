//! Membership: each node writes a heartbeat and looks at those of the others.
//!
//! A heartbeat is a row of its own for each boot, whose value begins with a counter that grows with each. Nobody compares
//! clocks: a node is held for dead when an observer has looked for so long, on its own monotonic clock, and the counter
//! did not move. What cannot be read says nothing about anybody: the last view stays, and is marked as old.
//!
//! Nothing here decides what is true. Who owns what follows from it softly, and the log alone says what was committed.

mod observer;
mod view;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::rows::successor;
use engine::{EngineError, Row, RowKey, Rows, Table};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Config;
use crate::node::{Boot, Node};
use observer::{Observer, Seen};
pub use view::{Member, Standing, View};

/// The partition of table `Node` in which heartbeats lie.
const PARTITION: &[u8] = b"node";

/// Rows read at once.
const SCAN_ROWS: usize = 256;

/// Rows looked at in all: more than there will be nodes, so that a table full of nonsense cannot fill the memory.
const ROWS_MAX: usize = 16_384;

/// This node among the others. Cheap to clone; ends without a word when the last clone is dropped.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
    task: Arc<Task>,
}

struct Shared {
    rows: Arc<dyn Rows>,
    config: Config,
    node: Node,
    view: watch::Sender<Arc<View>>,
    pulse: Mutex<Pulse>,
    /// The level of the installation, which heartbeats say from then on.
    agreed_level: AtomicU32,
    /// Set once, when this node leaves.
    leaves: watch::Sender<bool>,
}

/// What is known of the own heartbeat.
#[derive(Default)]
struct Pulse {
    counter: u64,
    generation: u64,
    /// When the last write began that is known to have been done.
    written: Option<Instant>,
    /// The row was not there, although it had been written, or belongs to an earlier boot than another node's.
    displaced: bool,
}

struct Task(Mutex<Option<JoinHandle<()>>>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut().take() {
            task.abort();
        }
    }
}

impl Membership {
    /// Begins to be one of the nodes. Returns at once; the engine need not be there yet. `config` has been checked.
    pub fn join(rows: Arc<dyn Rows>, node: Node, config: Config) -> Self {
        let shared = Arc::new(Shared {
            rows,
            config,
            view: watch::Sender::new(Arc::new(View::unknown(Instant::now()))),
            agreed_level: AtomicU32::new(node.agreed_level),
            pulse: Mutex::default(),
            leaves: watch::Sender::new(false),
            node,
        });
        let task = tokio::spawn(shared.clone().run());
        Self { shared, task: Arc::new(Task(Mutex::new(Some(task)))) }
    }

    /// This node's boot.
    pub fn boot(&self) -> Boot {
        self.shared.node.boot
    }

    /// The nodes, as this one sees them.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.borrow().clone()
    }

    /// Says with each heartbeat from now on which level the installation has.
    pub(crate) fn say_agreed_level(&self, level: u32) {
        self.shared.agreed_level.store(level, Ordering::Relaxed);
    }

    /// Changes when the view does.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.subscribe()
    }

    /// Whether others may hold this node for dead: no heartbeat of it is known to have been written for as long as they
    /// wait, its row was taken away, or another process has its name. Who is isolated owns nothing. True until the first
    /// heartbeat was written.
    pub fn is_isolated(&self) -> bool {
        let pulse = self.shared.pulse.lock();
        let silent = |written: Instant| written.elapsed() >= self.shared.config.dead_after();
        pulse.displaced || pulse.written.is_none_or(silent)
    }

    /// Whether this node should do what belongs to the owner of `key` among those with `role`.
    pub fn is_mine(&self, key: &[u8], role: &str) -> bool {
        !self.is_isolated() && self.view().owner(key, role).is_some_and(|owner| owner.boot == self.boot())
    }

    /// Leaves in good order: the others see that this node leaves, and then nothing of it. There are no heartbeats any
    /// more when this returns, whatever it returns; with an error the others notice by the silence.
    pub async fn leave(&self) -> Result<(), EngineError> {
        let Some(task) = self.task.0.lock().take() else { return Ok(()) };
        self.shared.leaves.send_replace(true);
        // A heartbeat that is being written must not come after the row was deleted, so it is waited for. A task that
        // panicked writes none.
        let _ = task.await;
        if self.shared.pulse.lock().counter == 0 {
            return Ok(());
        }
        self.shared.rows.put(vec![self.shared.heartbeat(true)]).await?;
        self.shared.rows.delete(vec![row_key(self.boot())]).await
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("node", &self.shared.node.id).finish_non_exhaustive()
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        // The generation is one more than that of any earlier boot, so there is no heartbeat before they could be read.
        let mut observer = Observer::new(&self.config);
        let mut waits = false;
        loop {
            self.look(&mut observer).await;
            if let Some(generation) = observer.next_generation(&self.node) {
                self.pulse.lock().generation = generation;
                break;
            }
            if !waits {
                tracing::warn!(node = %self.node.id, "node joins when the others can be seen");
            }
            waits = true;
            if self.pause(Instant::now() + self.config.heartbeat()).await {
                return;
            }
        }
        tokio::join!(self.beat(), self.observe(&mut observer));
    }

    async fn beat(&self) {
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let row = self.heartbeat(false);
            match bounded(self.config.dead_after(), self.rows.put(vec![row])).await {
                Ok(()) => {
                    self.pulse.lock().written = Some(begun);
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "heartbeat not written");
                    }
                    failing = true;
                }
            }
            if self.pause(begun + self.config.heartbeat()).await {
                return;
            }
        }
    }

    async fn observe(&self, observer: &mut Observer) {
        // The pause is between the end of a look and the begin of the next, so that an engine that is slow is not also
        // kept busy, and so that there is a time in which others could have been silent.
        while !self.pause(Instant::now() + self.config.heartbeat()).await {
            self.look(observer).await;
        }
    }

    /// Waits, and says whether this node leaves.
    async fn pause(&self, until: Instant) -> bool {
        let mut leaves = self.leaves.subscribe();
        tokio::select! {
            _ = leaves.wait_for(|leaves| *leaves) => true,
            () = sleep_until(until) => false,
        }
    }

    async fn look(&self, observer: &mut Observer) {
        let (begun, written) = (Instant::now(), self.pulse.lock().written);
        let rows = match bounded(self.config.dead_after(), self.scan()).await {
            Ok(rows) => rows,
            Err(error) => {
                let was_stale = self.view.send_if_modified(View::grow_stale);
                if was_stale {
                    tracing::warn!(%error, "nodes cannot be seen, they are taken to be as they were");
                }
                return;
            }
        };
        let forgotten = observer.observe(begun, Instant::now(), rows);
        let members = observer.members();
        self.find_self(&members, written.is_some());
        if self.view.send_if_modified(|view| View::update(view, members, Instant::now())) {
            let live = self.view.borrow().live().count();
            metrics::gauge!("postrider_cluster_nodes_live").set(live as f64);
        }
        if !forgotten.is_empty() {
            tracing::info!(boots = ?forgotten, "rows of dead nodes are deleted");
            // Cleaning only: what fails is done at another time, or by another node.
            let keys = forgotten.into_iter().map(row_key).collect();
            let _ = bounded(self.config.dead_after(), self.rows.delete(keys)).await;
        }
    }

    /// Whether the others can see this node at all.
    fn find_self(&self, members: &[Member], written: bool) {
        let own = members.iter().find(|member| member.node.boot == self.node.boot);
        let displaced = match own {
            Some(member) => member.standing == Standing::Superseded,
            None => written,
        };
        let mut pulse = self.pulse.lock();
        if displaced && !pulse.displaced {
            let reason =
                if own.is_some() { "another process has its name" } else { "its row was taken away" };
            tracing::error!(node = %self.node.id, reason, "node counts for nothing");
        }
        pulse.displaced = displaced;
    }

    async fn scan(&self) -> Result<Vec<Seen>, EngineError> {
        let mut seen = Vec::new();
        let mut from = Bytes::new();
        loop {
            let partition = Bytes::from_static(PARTITION);
            let rows = self.rows.scan(Table::Node, partition, from, SCAN_ROWS).await?;
            let complete = rows.len() < SCAN_ROWS || seen.len() >= ROWS_MAX;
            from = rows.last().map(|(key, _)| successor(key)).unwrap_or_default();
            seen.extend(rows.iter().filter_map(|(key, value)| Seen::parse(key, value)));
            if complete {
                return Ok(seen);
            }
        }
    }

    fn heartbeat(&self, leaving: bool) -> Row {
        let mut pulse = self.pulse.lock();
        pulse.counter += 1;
        let agreed_level = self.agreed_level.load(Ordering::Relaxed);
        let node = Node { generation: pulse.generation, agreed_level, leaving, ..self.node.clone() };
        let mut value = pulse.counter.to_be_bytes().to_vec();
        serde_json::to_writer(&mut value, &node).expect("texts and numbers are JSON");
        let key = row_key(self.node.boot);
        Row { key, value: value.into() }
    }
}

fn row_key(boot: Boot) -> RowKey {
    RowKey::new(Table::Node, PARTITION, Bytes::copy_from_slice(boot.as_bytes()))
}

/// An engine may take its time, but not for ever.
async fn bounded<T>(
    within: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match timeout(within, call).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::unavailable("no answer in time")),
    }
}

#[cfg(test)]
mod tests;
