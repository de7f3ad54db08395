//! The engines without any mail: what their own driver gets out of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use engines::Engines;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};
use tokio::runtime::Runtime;

/// What is written beside each change of a head, about as much as a commit.
const ENTRY_BYTES: usize = 1_000;
/// How many are under way at once, by turns.
const CONCURRENCIES: [usize; 3] = [32, 128, 500];
/// Looks in a row that must find nothing to do, a second apart.
const QUIET_LOOKS: usize = 5;
/// How long nodes may take until they have nothing to do.
const SETTLING: Duration = Duration::from_secs(600);

/// The driver's session, what runs it, and logs of its own.
#[derive(Debug)]
pub(super) struct Alone {
    runtime: Runtime,
    session: Arc<Session>,
    commits: Arc<Commits>,
}

impl Alone {
    /// With so many logs.
    pub(super) fn connect(engines: &Engines, logs: usize) -> Result<Self> {
        let runtime = Runtime::new()?;
        let builder = SessionBuilder::new().known_nodes(engines.contact_points());
        let session = Arc::new(runtime.block_on(builder.build())?);
        let commits = runtime.block_on(Commits::prepare(&session, engines.cassandra.len(), logs))?;
        Ok(Self { runtime, session, commits: Arc::new(commits) })
    }

    /// Waits until no node compacts: what was done before must not be paid by what comes behind.
    pub(super) fn settle(&self) -> Result<()> {
        self.runtime.block_on(async {
            let (started, mut quiet) = (Instant::now(), 0);
            while quiet < QUIET_LOOKS {
                if started.elapsed() > SETTLING {
                    bail!("the nodes of Cassandra do not come to rest");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                quiet = if self.tasks().await? == 0 { quiet + 1 } else { 0 };
            }
            Ok(())
        })
    }

    /// Compactions and the like of all nodes.
    async fn tasks(&self) -> Result<usize> {
        let mut tasks = 0;
        let state = self.session.get_cluster_state();
        for node in state.get_nodes_info() {
            let mut query = Statement::new("SELECT task_id FROM system_views.sstable_tasks");
            let node = NodeIdentifier::Node(Arc::clone(node));
            query.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(node, None)));
            tasks += self.session.query_unpaged(query, ()).await?.into_rows_result()?.rows_num();
        }
        Ok(tasks)
    }

    /// So many commits to the logs by turns. How many in a second, with the best of several concurrencies.
    pub(super) fn conditional_rate(&self, count: usize) -> Result<f64> {
        let mut best: f64 = 0.0;
        for concurrency in CONCURRENCIES {
            best = best.max(self.runtime.block_on(self.commits.rate(count, concurrency))?);
        }
        Ok(best)
    }
}

/// Commits to logs by turns, as the nodes make them: a batch of a conditional change of the head and of an entry.
struct Commits {
    session: Arc<Session>,
    batch: Batch,
    /// The head of each log; 0: it has none.
    heads: Vec<AtomicI64>,
    next: AtomicUsize,
    applied: AtomicUsize,
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").field("logs", &self.heads.len()).finish_non_exhaustive()
    }
}

impl Commits {
    async fn prepare(session: &Arc<Session>, copies: usize, logs: usize) -> Result<Self> {
        let keyspace = format!(
            "CREATE KEYSPACE IF NOT EXISTS raw WITH replication = {{'class': 'NetworkTopologyStrategy', \
             'datacenter1': {copies}}}"
        );
        session.query_unpaged(keyspace, ()).await?;
        let table = "CREATE TABLE IF NOT EXISTS raw.log (id bigint, seq bigint, head bigint static, entry blob, \
                     PRIMARY KEY (id, seq))";
        session.query_unpaged(table, ()).await?;
        session.await_schema_agreement().await?;
        let mut batch = Batch::new(BatchType::Unlogged);
        for text in [
            "UPDATE raw.log SET head = ? WHERE id = ? IF head = ?",
            "INSERT INTO raw.log (id, seq, entry) VALUES (?, ?, ?)",
        ] {
            batch.append_statement(session.prepare(text).await?);
        }
        batch.set_consistency(Consistency::LocalQuorum);
        batch.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        Ok(Self {
            session: Arc::clone(session),
            batch,
            heads: (0..logs).map(|_| AtomicI64::new(0)).collect(),
            next: AtomicUsize::new(0),
            applied: AtomicUsize::new(0),
        })
    }

    async fn rate(self: &Arc<Self>, count: usize, concurrency: usize) -> Result<f64> {
        let (started, before) = (Instant::now(), self.applied.load(Ordering::Relaxed));
        let end = self.next.load(Ordering::Relaxed) + count;
        // No more than one at a log.
        let writers: Vec<_> = (0..concurrency.min(self.heads.len()))
            .map(|_| {
                let commits = Arc::clone(self);
                tokio::spawn(async move { commits.write(end).await })
            })
            .collect();
        for writer in writers {
            // One that timed out has nothing more to say about the rate.
            drop(writer.await?);
        }
        // Those that looked and found nothing left have counted on.
        self.next.store(end, Ordering::Relaxed);
        let applied = self.applied.load(Ordering::Relaxed) - before;
        Ok(applied as f64 / started.elapsed().as_secs_f64())
    }

    async fn write(&self, end: usize) -> Result<()> {
        let entry = vec![7_u8; ENTRY_BYTES];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(());
            }
            let id = number % self.heads.len();
            let head = self.heads[id].load(Ordering::Relaxed);
            let (next, id_stored) = (head + 1, id as i64);
            let expected = (head > 0).then_some(head);
            let values = ((next, id_stored, expected), (id_stored, next, &entry));
            let answer = self.session.batch(&self.batch, values).await?.into_rows_result()?;
            if answer.first_row::<Row>()?.columns.first() == Some(&Some(CqlValue::Boolean(true))) {
                self.heads[id].store(next, Ordering::Relaxed);
                self.applied.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
