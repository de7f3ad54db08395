//! What the process knows of itself: whether it works, whether it takes work, and why not.

use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Notify, watch};
use webmail_api::admin::migration::MigrationView;
use webmail_api::admin::monitor::Monitor;
use webmail_api::admin::nodes::ClusterView;

use crate::cluster::Cluster;
use crate::migration::Migration;

/// The phases of a process's life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Draining,
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Health {
    phase: Arc<watch::Sender<Phase>>,
    broken: Arc<watch::Sender<Option<String>>>,
    metrics: PrometheusHandle,
    cluster: Arc<OnceLock<Cluster>>,
    drain: Arc<Notify>,
    migration: Arc<OnceLock<Migration>>,
}

impl Health {
    pub(crate) fn new(metrics: PrometheusHandle) -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            broken: Arc::new(watch::Sender::new(None)),
            metrics,
            cluster: Arc::default(),
            drain: Arc::default(),
            migration: Arc::default(),
        }
    }

    /// The process is one of the nodes of a cluster.
    pub(crate) fn joined(&self, cluster: Cluster) {
        let _ = self.cluster.set(cluster);
    }

    /// Everything in the process can move to other back ends.
    pub(crate) fn may_move(&self, migration: Migration) {
        let _ = self.migration.set(migration);
    }

    /// Whether no other node works on the same; an error says which do.
    pub(crate) fn alone(&self) -> Result<(), String> {
        let Some(view) = self.cluster() else { return Ok(()) };
        let others: Vec<&str> = view
            .nodes
            .iter()
            .filter(|node| node.standing == "live" && node.name != view.node)
            .map(|node| &node.name[..])
            .collect();
        match (view.stale, others.is_empty()) {
            (false, true) => Ok(()),
            (true, true) => Err("this node does not see at present which others live".to_owned()),
            _ => Err(format!("other nodes work on the same mail: stop them first ({})", others.join(", "))),
        }
    }

    /// Waits until an operator wants the process to end.
    pub(crate) async fn until_drained(&self) {
        self.drain.notified().await;
    }

    /// All listeners are open.
    pub(crate) fn running(&self) {
        self.phase.send_replace(Phase::Running);
    }

    /// The process takes no new work.
    pub(crate) fn draining(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// The process cannot go on. The first reason stays.
    pub(crate) fn broke(&self, why: &str) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            if first {
                *broken = Some(why.to_owned());
            }
            first
        });
    }

    /// Waits until the process cannot go on, and says why.
    pub(crate) async fn until_broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        match broken.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender is held by self.
            Err(_) => std::future::pending().await,
        }
    }

    /// Folds measurements into their histograms.
    pub(crate) fn upkeep(&self) {
        self.metrics.run_upkeep();
    }
}

impl Monitor for Health {
    fn health(&self) -> Result<(), String> {
        match &*self.broken.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), String> {
        self.health()?;
        match &*self.phase.borrow() {
            Phase::Running => Ok(()),
            Phase::Starting => Err("starting".to_owned()),
            Phase::Draining => Err("ending".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn cluster(&self) -> Option<ClusterView> {
        self.cluster.get().map(Cluster::view)
    }

    fn migrate(&self, to: String) -> Result<(), String> {
        let migration = self.migration.get().ok_or("the server is starting")?;
        self.alone()?;
        let health = self.clone();
        migration.start(to.into(), Box::new(move || health.alone()))
    }

    fn migration(&self) -> Option<MigrationView> {
        self.migration.get().and_then(Migration::view)
    }

    fn drain(&self) {
        self.drain.notify_one();
    }
}
