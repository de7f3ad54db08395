//! The engines without any mail: what their own drivers get out of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use engines::Engines;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::{Consistency, SerialConsistency};

/// What is written beside each change of a head, about as much as a commit.
const ENTRY_BYTES: usize = 1_000;
/// How many are under way at once, by turns.
const CONCURRENCIES: [usize; 3] = [32, 128, 500];
const LASTS: Duration = Duration::from_secs(8);

/// Commits to logs of their own, as the nodes make them: a batch of a conditional change of the head and of an entry.
pub(super) fn conditional_rate(engines: &Engines) -> Result<f64> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let session = SessionBuilder::new().known_nodes(engines.contact_points()).build().await?;
        let copies = engines.cassandra.len();
        session
            .query_unpaged(
                format!(
                    "CREATE KEYSPACE IF NOT EXISTS raw WITH replication = {{'class': 'NetworkTopologyStrategy', \
                     'datacenter1': {copies}}}"
                ),
                (),
            )
            .await?;
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
        let (session, batch) = (Arc::new(session), Arc::new(batch));
        let mut best: f64 = 0.0;
        let mut first = 0;
        for concurrency in CONCURRENCIES {
            let done = Arc::new(AtomicUsize::new(0));
            let (started, deadline) = (Instant::now(), Instant::now() + LASTS);
            let writers: Vec<_> = (first..first + concurrency as i64)
                .map(|id| {
                    let (session, batch, done) =
                        (Arc::clone(&session), Arc::clone(&batch), Arc::clone(&done));
                    tokio::spawn(async move {
                        let entry = vec![7_u8; ENTRY_BYTES];
                        let mut head: Option<i64> = None;
                        while Instant::now() < deadline {
                            let next = head.unwrap_or(0) + 1;
                            session.batch(&batch, ((next, id, head), (id, next, &entry))).await?;
                            head = Some(next);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        anyhow::Ok(())
                    })
                })
                .collect();
            for writer in writers {
                // One that timed out has nothing more to say about the rate.
                drop(writer.await?);
            }
            best = best.max(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64());
            first += concurrency as i64;
        }
        Ok(best)
    })
}
