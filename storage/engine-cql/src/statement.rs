//! Every statement that is used, prepared, with the consistency of its kind.

use std::sync::Arc;

use engine::{LogKind, Table};
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy, RetryPolicy};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};

/// What kind of statement it is, and so at which consistency it runs and whether the driver may repeat it.
///
/// | kind | consistency | repeated by the driver | why |
/// |---|---|---|---|
/// | `Conditional` | `LOCAL_SERIAL`, committed at `LOCAL_QUORUM` | never | one datacentre decides; what was answered is seen by every later quorum read. After a time-out the statement may still be applied, and only the actor knows whether it may be proposed again |
/// | `Read` | `LOCAL_QUORUM` | yes | meets every answered write; blocking read repair keeps what was seen once |
/// | `ReadOnce` | `LOCAL_ONE` | yes | for rows that are written once under a name that only a later answer tells: whoever has one has the right one. Who has none says nothing: then `Read` decides. And for the entries of a log up to a number that a node has told: whoever has come so far without a gap has what was decided, for a replica gets entries by decisions alone |
/// | `SerialRead` | `LOCAL_SERIAL` | yes | completes a proposal that hangs: for a tail that does not fit its head |
/// | `Write` | `LOCAL_QUORUM` | yes | rows are written once, with the same bytes, under a fresh key |
/// | `Delete` | `LOCAL_QUORUM` | yes | what is deleted is never needed again |
/// | `Heartbeat` | `LOCAL_ONE` | no | the next one comes in a second |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Conditional,
    Read,
    ReadOnce,
    SerialRead,
    Write,
    Delete,
    Heartbeat,
}

impl Kind {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Conditional => "conditional",
            Self::Read => "read",
            Self::ReadOnce => "read_once",
            Self::SerialRead => "serial_read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Heartbeat => "heartbeat",
        }
    }

    pub(crate) fn consistency(self) -> Consistency {
        match self {
            Self::SerialRead => Consistency::LocalSerial,
            Self::ReadOnce | Self::Heartbeat => Consistency::LocalOne,
            Self::Conditional | Self::Read | Self::Write | Self::Delete => Consistency::LocalQuorum,
        }
    }

    pub(crate) fn is_repeated(self) -> bool {
        !matches!(self, Self::Conditional | Self::Heartbeat)
    }

    pub(crate) fn retries(self) -> Arc<dyn RetryPolicy> {
        if self.is_repeated() {
            Arc::new(DefaultRetryPolicy::new())
        } else {
            Arc::new(FallthroughRetryPolicy::new())
        }
    }
}

/// A statement and its kind.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) kind: Kind,
    /// The table that it is about, for metrics.
    pub(crate) table: Arc<str>,
    pub(crate) statement: PreparedStatement,
}

/// A conditional batch on one partition.
pub(crate) struct PreparedBatch {
    /// The table that it is about, for metrics.
    pub(crate) table: Arc<str>,
    pub(crate) batch: Batch,
}

/// Makes the statements of one keyspace.
struct Maker<'a> {
    session: &'a Session,
    keyspace: &'a str,
}

impl Maker<'_> {
    /// In `text`, `{k}` stands for the keyspace.
    async fn make(&self, kind: Kind, text: &str) -> Result<Prepared, PrepareError> {
        let mut statement = self.session.prepare(text.replace("{k}", self.keyspace)).await?;
        statement.set_consistency(kind.consistency());
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        statement.set_is_idempotent(kind.is_repeated());
        statement.set_retry_policy(Some(kind.retries()));
        Ok(Prepared { kind, table: table_of(text), statement })
    }
}

/// What stands behind the keyspace in a statement.
fn table_of(text: &str) -> Arc<str> {
    let behind = text.split_once("{k}.").map_or("", |(_, behind)| behind);
    behind.split(' ').next().unwrap_or_default().into()
}

/// Statements about the logs of one kind and their pages.
pub(crate) struct LogStatements {
    /// head, snap, snap_seq, snap_base, id
    pub(crate) create: Prepared,
    /// id
    pub(crate) head: Prepared,
    /// id, after, limit
    pub(crate) slice_once: Prepared,
    pub(crate) slice: Prepared,
    pub(crate) slice_serial: Prepared,
    /// head, id, expected; id, last_seq, first_seq, nonce, entry
    pub(crate) append: PreparedBatch,
    /// the same; id, trim_to
    pub(crate) append_trim: PreparedBatch,
    /// snap, snap_seq, snap_base, id, base
    pub(crate) swing: Prepared,
    /// id; id
    pub(crate) delete: PreparedBatch,
    /// limit
    pub(crate) first_logs: Prepared,
    /// after, limit
    pub(crate) next_logs: Prepared,
    pub(crate) page: PageStatements,
}

pub(crate) struct PageStatements {
    /// id, bucket, key, value
    pub(crate) put: Prepared,
    /// id, bucket, key
    pub(crate) get_once: Prepared,
    pub(crate) get: Prepared,
    pub(crate) delete: Prepared,
    /// id, bucket, from, limit
    pub(crate) scan: Prepared,
    pub(crate) scan_keys: Prepared,
    /// id, bucket
    pub(crate) put_bucket: Prepared,
    pub(crate) delete_bucket: Prepared,
    /// id, from
    pub(crate) buckets: Prepared,
}

/// Statements about the rows of one table.
pub(crate) struct RowStatements {
    /// part, key, value (heartbeats: timestamp)
    pub(crate) put: Prepared,
    /// part, key
    pub(crate) get: Prepared,
    /// part, key (heartbeats: timestamp first)
    pub(crate) delete: Prepared,
    /// part, from, limit
    pub(crate) scan: Prepared,
    pub(crate) scan_keys: Prepared,
    /// part, key, value
    pub(crate) put_new: Prepared,
    /// new, part, key, expected
    pub(crate) replace: Prepared,
    /// part, key, expected
    pub(crate) delete_if: Prepared,
    /// limit
    pub(crate) first_partitions: Prepared,
    /// after, limit
    pub(crate) next_partitions: Prepared,
}

/// All of them.
pub(crate) struct Statements {
    account: LogStatements,
    shard: LogStatements,
    domain: LogStatements,
    registry: LogStatements,
    segment: RowStatements,
    reference: RowStatements,
    moved: RowStatements,
    key: RowStatements,
    mark: RowStatements,
    node: RowStatements,
}

impl Statements {
    pub(crate) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PrepareError> {
        let maker = Maker { session, keyspace };
        Ok(Self {
            account: maker.logs("account", "user_id").await?,
            shard: maker.logs("shard", "shard_id").await?,
            domain: maker.logs("domain", "domain_id").await?,
            registry: maker.logs("registry", "registry_id").await?,
            segment: maker.rows(Table::Segment).await?,
            reference: maker.rows(Table::SegmentReference).await?,
            moved: maker.rows(Table::Moved).await?,
            key: maker.rows(Table::Key).await?,
            mark: maker.rows(Table::Mark).await?,
            node: maker.rows(Table::Node).await?,
        })
    }

    pub(crate) fn logs(&self, kind: LogKind) -> &LogStatements {
        match kind {
            LogKind::Account => &self.account,
            LogKind::Shard => &self.shard,
            LogKind::Domain => &self.domain,
            LogKind::Registry => &self.registry,
        }
    }

    /// `None`: pages, which lie with their logs, or a table that this release does not know.
    pub(crate) fn rows(&self, table: Table) -> Option<&RowStatements> {
        Some(match table {
            Table::Segment => &self.segment,
            Table::SegmentReference => &self.reference,
            Table::Moved => &self.moved,
            Table::Key => &self.key,
            Table::Mark => &self.mark,
            Table::Node => &self.node,
            _ => return None,
        })
    }
}

/// The name of a table of rows.
fn table_name(table: Table) -> &'static str {
    match table {
        Table::Segment => "segment",
        Table::SegmentReference => "segment_ref",
        Table::Moved => "moved",
        Table::Key => "wrapped_key",
        Table::Node => "node",
        _ => "mark",
    }
}

impl Maker<'_> {
    async fn logs(&self, name: &str, id: &str) -> Result<LogStatements, PrepareError> {
        let log = format!("{{k}}.{name}_log");
        let set_head = format!("UPDATE {log} SET head = ? WHERE {id} = ? IF head = ?");
        let insert =
            format!("INSERT INTO {log} ({id}, last_seq, first_seq, nonce, entry) VALUES (?, ?, ?, ?, ?)");
        let trim = format!("DELETE FROM {log} WHERE {id} = ? AND last_seq <= ?");
        let end = format!(
            "UPDATE {log} SET head = null, snap = null, snap_seq = null, snap_base = null WHERE {id} = ? \
             IF head != null"
        );
        let everything = format!("DELETE FROM {log} WHERE {id} = ? AND last_seq >= 0");
        let columns = "head, snap, snap_seq, snap_base";
        let slice = format!(
            "SELECT {columns}, last_seq, first_seq, nonce, entry FROM {log} WHERE {id} = ? AND last_seq >= ? LIMIT ?"
        );
        Ok(LogStatements {
            create: self
                .make(
                    Kind::Conditional,
                    &format!(
                        "UPDATE {log} SET head = ?, snap = ?, snap_seq = ?, snap_base = ? WHERE {id} = ? \
                         IF head = null"
                    ),
                )
                .await?,
            head: self
                .make(Kind::Read, &format!("SELECT {columns} FROM {log} WHERE {id} = ? LIMIT 1"))
                .await?,
            slice_once: self.make(Kind::ReadOnce, &slice).await?,
            slice: self.make(Kind::Read, &slice).await?,
            slice_serial: self.make(Kind::SerialRead, &slice).await?,
            append: self.batch(&[&set_head, &insert]).await?,
            append_trim: self.batch(&[&set_head, &insert, &trim]).await?,
            swing: self
                .make(
                    Kind::Conditional,
                    &format!(
                        "UPDATE {log} SET snap = ?, snap_seq = ?, snap_base = ? WHERE {id} = ? IF snap = ?"
                    ),
                )
                .await?,
            delete: self.batch(&[&end, &everything]).await?,
            first_logs: self
                .make(Kind::Read, &format!("SELECT DISTINCT {id}, head FROM {log} LIMIT ?"))
                .await?,
            next_logs: self
                .make(
                    Kind::Read,
                    &format!("SELECT DISTINCT {id}, head FROM {log} WHERE token({id}) > token(?) LIMIT ?"),
                )
                .await?,
            page: self.pages(name, id).await?,
        })
    }

    async fn pages(&self, name: &str, id: &str) -> Result<PageStatements, PrepareError> {
        let page = format!("{{k}}.{name}_page");
        let bucket = format!("{{k}}.{name}_bucket");
        let from = format!("FROM {page} WHERE {id} = ? AND bucket = ? AND key");
        let put = format!("INSERT INTO {page} ({id}, bucket, key, value) VALUES (?, ?, ?, ?)");
        let get = format!("SELECT value {from} = ?");
        Ok(PageStatements {
            put: self.make(Kind::Write, &put).await?,
            get_once: self.make(Kind::ReadOnce, &get).await?,
            get: self.make(Kind::Read, &get).await?,
            delete: self.make(Kind::Delete, &format!("DELETE {from} = ?")).await?,
            scan: self.make(Kind::Read, &format!("SELECT key, value {from} >= ? LIMIT ?")).await?,
            scan_keys: self.make(Kind::Read, &format!("SELECT key {from} >= ? LIMIT ?")).await?,
            put_bucket: self
                .make(Kind::Write, &format!("INSERT INTO {bucket} ({id}, bucket) VALUES (?, ?)"))
                .await?,
            delete_bucket: self
                .make(Kind::Delete, &format!("DELETE FROM {bucket} WHERE {id} = ? AND bucket = ?"))
                .await?,
            buckets: self
                .make(Kind::Read, &format!("SELECT bucket FROM {bucket} WHERE {id} = ? AND bucket >= ?"))
                .await?,
        })
    }

    async fn rows(&self, table: Table) -> Result<RowStatements, PrepareError> {
        let name = format!("{{k}}.{}", table_name(table));
        let insert = format!("INSERT INTO {name} (part, key, value) VALUES (?, ?, ?)");
        let from = format!("FROM {name} WHERE part = ? AND key");
        let put = match table {
            Table::Node => self.make(Kind::Heartbeat, &format!("{insert} USING TIMESTAMP ?")).await?,
            _ => self.make(Kind::Write, &insert).await?,
        };
        let delete = match table {
            Table::Node => {
                let stamped = format!("DELETE FROM {name} USING TIMESTAMP ? WHERE part = ? AND key = ?");
                self.make(Kind::Delete, &stamped).await?
            }
            _ => self.make(Kind::Delete, &format!("DELETE {from} = ?")).await?,
        };
        let update = format!("UPDATE {name} SET value = ? WHERE part = ? AND key = ? IF value = ?");
        Ok(RowStatements {
            put,
            get: self.make(Kind::Read, &format!("SELECT value {from} = ?")).await?,
            delete,
            scan: self.make(Kind::Read, &format!("SELECT key, value {from} >= ? LIMIT ?")).await?,
            scan_keys: self.make(Kind::Read, &format!("SELECT key {from} >= ? LIMIT ?")).await?,
            put_new: self.make(Kind::Conditional, &format!("{insert} IF NOT EXISTS")).await?,
            replace: self.make(Kind::Conditional, &update).await?,
            delete_if: self.make(Kind::Conditional, &format!("DELETE {from} = ? IF value = ?")).await?,
            first_partitions: self
                .make(Kind::Read, &format!("SELECT DISTINCT part FROM {name} LIMIT ?"))
                .await?,
            next_partitions: self
                .make(
                    Kind::Read,
                    &format!("SELECT DISTINCT part FROM {name} WHERE token(part) > token(?) LIMIT ?"),
                )
                .await?,
        })
    }

    /// A conditional batch on one partition.
    async fn batch(&self, texts: &[&str]) -> Result<PreparedBatch, PrepareError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        for text in texts {
            batch.append_statement(self.make(Kind::Conditional, text).await?.statement);
        }
        batch.set_consistency(Kind::Conditional.consistency());
        batch.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        batch.set_is_idempotent(false);
        batch.set_retry_policy(Some(Kind::Conditional.retries()));
        Ok(PreparedBatch { table: texts.first().map_or_else(|| "".into(), |text| table_of(text)), batch })
    }
}
