//! The schema: numbered files, applied in order by one node at a time.

use std::fmt::Write as _;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};
use uuid::Uuid;

use crate::config::{Config, SchemaPolicy};

/// The steps, oldest first. One that was released is never changed.
const STEPS: &[&str] = &[include_str!("../schema/0001.cql")];

/// The version that this release needs: how many steps there are.
pub const SCHEMA_VERSION: i32 = STEPS.len() as i32;

/// How long the right to change the schema lasts when its holder died; longer than any step takes.
const LOCK_SECONDS: i32 = 120;
/// Pause between looks while another node changes the schema.
const LOOK: Duration = Duration::from_millis(500);
/// How long such a node is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a statement is executed again whose outcome is not known; far less than the lock lasts.
const UNDECIDED: Duration = Duration::from_secs(30);
/// How long nodes are asked for the name of their datacentre: just started, they may be too slow for the driver's first look,
/// which then knows their addresses only.
const NAMES: Duration = Duration::from_secs(30);

/// Why the schema is not what this release needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No node says which datacentre it lies in, and none is named.
    #[error("no node said within {} s in which datacentre it lies", NAMES.as_secs())]
    NoDatacentre,
    /// There are several datacentres, and none is named.
    #[error("the nodes lie in several datacentres ({0}): say in `datacentre` which one holds the keyspace")]
    Datacentres(String),
    /// The keyspace is replicated in another way than two sides can decide in.
    #[error(
        "keyspace {keyspace} is replicated to {found}, which must be exactly datacentre {datacentre}: with \
             several, both sides of a cut would win a compare-and-swap"
    )]
    Replication {
        /// The keyspace.
        keyspace: String,
        /// Where it is replicated to.
        found: String,
        /// The one that the configuration names.
        datacentre: String,
    },
    /// It is older than this release, or not there, and this node may not change it.
    #[error(
        "the schema has version {found}, this release needs {SCHEMA_VERSION}: run `postrider cluster schema apply`"
    )]
    Old {
        /// The version that is there; zero: none.
        found: i32,
    },
    /// A newer release changed it.
    #[error("the schema has version {found}, this release knows {SCHEMA_VERSION}")]
    New {
        /// The version that is there.
        found: i32,
    },
    /// Another node began to change it and did not finish.
    #[error("another node has been changing the schema for {0} s")]
    Busy(u64),
    /// A statement failed.
    #[error("schema statement failed: {statement}")]
    Statement {
        /// Its first line.
        statement: String,
        /// Why.
        #[source]
        source: Box<ExecutionError>,
    },
    /// The nodes do not agree on the schema.
    #[error("the nodes do not agree on the schema: {0}")]
    Disagreement(String),
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchemaState {
    /// Version of the keyspace; zero: none.
    pub found: i32,
    /// Version that this release needs.
    pub needed: i32,
}

/// All statements, as they would be executed.
pub(crate) fn text(config: &Config, datacentre: &str) -> String {
    let mut text = format!("{};\n{};\n", keyspace_statement(config, datacentre), version_table(config));
    for (number, step) in (1..).zip(STEPS) {
        let _ = write!(text, "\n-- Version {number}\n");
        for statement in statements(config, step) {
            text.push_str(&statement);
            text.push_str(";\n");
        }
    }
    text
}

fn keyspace_statement(config: &Config, datacentre: &str) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'NetworkTopologyStrategy', '{datacentre}': {}}}",
        config.keyspace, config.replication
    )
}

/// Every table has an id that follows from its name. Nodes that make it at the same moment make the same table then;
/// with random ids Cassandra would be left with two.
fn table_id(config: &Config, table: &str) -> Uuid {
    let hash = xxhash_rust::xxh3::xxh3_128(format!("{}.{table}", config.keyspace).as_bytes());
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

fn version_table(config: &Config) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {k}.schema_version (name text PRIMARY KEY, version int, holder uuid) WITH ID = {}",
        table_id(config, "schema_version"),
        k = config.keyspace
    )
}

/// The statements of a step, without comments.
fn statements(config: &Config, step: &str) -> Vec<String> {
    let lines = step.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text: Vec<&str> = lines.collect();
    let text = text.join("\n").replace("{keyspace}", &config.keyspace);
    let whole = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    whole
        .map(|statement| {
            let table = statement.split_once(&format!("{}.", config.keyspace)).map_or("", |(_, rest)| rest);
            let table = table.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).next();
            statement.replace("{id}", &table_id(config, table.unwrap_or_default()).to_string())
        })
        .collect()
}

pub(crate) struct Schema<'a> {
    pub(crate) session: &'a Session,
    pub(crate) config: &'a Config,
}

impl Schema<'_> {
    /// Brings the keyspace to the version of this release, or only looks, as the configuration has it.
    pub(crate) async fn prepare(&self, policy: SchemaPolicy) -> Result<(), SchemaError> {
        let datacentre = self.datacentre().await?;
        match self.version().await? {
            SCHEMA_VERSION => {}
            found if found > SCHEMA_VERSION => return Err(SchemaError::New { found }),
            found if policy == SchemaPolicy::Check => return Err(SchemaError::Old { found }),
            _ => self.apply(&datacentre).await?,
        }
        self.check_replication(&datacentre).await
    }

    /// The datacentre that the keyspace lies in.
    pub(crate) async fn datacentre(&self) -> Result<String, SchemaError> {
        if !self.config.datacentre.is_empty() {
            return Ok(self.config.datacentre.clone());
        }
        let started = tokio::time::Instant::now();
        loop {
            let mut names = self.datacentres();
            match names.len() {
                1 => return Ok(names.remove(0)),
                0 if started.elapsed() > NAMES => return Err(SchemaError::NoDatacentre),
                0 => {
                    tokio::time::sleep(LOOK).await;
                    if let Err(error) = self.session.refresh_metadata().await {
                        tracing::debug!(%error, "the nodes do not say where they lie");
                    }
                }
                _ => return Err(SchemaError::Datacentres(names.join(", "))),
            }
        }
    }

    fn datacentres(&self) -> Vec<String> {
        let state = self.session.get_cluster_state();
        let mut names: Vec<String> =
            state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Zero: there is no keyspace, or nothing in it.
    pub(crate) async fn version(&self) -> Result<i32, SchemaError> {
        let there = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_version'";
        if self.query(there, (&self.config.keyspace,)).await?.is_empty() {
            return Ok(0);
        }
        let query =
            format!("SELECT version FROM {}.schema_version WHERE name = 'schema'", self.config.keyspace);
        match self.query(&query, ()).await?.first().and_then(|row| row.columns.first()) {
            Some(Some(CqlValue::Int(version))) => Ok(*version),
            _ => Ok(0),
        }
    }

    async fn apply(&self, datacentre: &str) -> Result<(), SchemaError> {
        self.change(&keyspace_statement(self.config, datacentre)).await?;
        self.change(&version_table(self.config)).await?;
        let started = tokio::time::Instant::now();
        let holder = Uuid::new_v4();
        while !self.lock(holder).await? {
            tokio::time::sleep(LOOK).await;
            if self.version().await? >= SCHEMA_VERSION {
                return self.agree().await;
            }
            if started.elapsed() > PATIENCE {
                return Err(SchemaError::Busy(started.elapsed().as_secs()));
            }
        }
        let done = self.apply_steps().await;
        let unlock = format!(
            "DELETE FROM {}.schema_version WHERE name = 'lock' IF holder = {holder}",
            self.config.keyspace
        );
        // If this fails, it goes by itself.
        if let Err(error) = self.conditional(&unlock).await {
            tracing::debug!(%error, "the schema lock was left behind");
        }
        done
    }

    async fn apply_steps(&self) -> Result<(), SchemaError> {
        let from = self.version().await?;
        for (number, step) in (1..).zip(STEPS).filter(|(number, _)| *number > from) {
            for statement in statements(self.config, step) {
                self.change(&statement).await?;
            }
            let k = &self.config.keyspace;
            let set = match number {
                1 => format!(
                    "INSERT INTO {k}.schema_version (name, version) VALUES ('schema', 1) IF NOT EXISTS"
                ),
                _ => format!(
                    "UPDATE {k}.schema_version SET version = {number} WHERE name = 'schema' IF version = {}",
                    number - 1
                ),
            };
            self.conditional(&set).await?;
            tracing::info!(version = number, keyspace = %k, "schema step applied");
        }
        Ok(())
    }

    async fn lock(&self, holder: Uuid) -> Result<bool, SchemaError> {
        let statement = format!(
            "INSERT INTO {}.schema_version (name, holder) VALUES ('lock', {holder}) IF NOT EXISTS USING TTL {LOCK_SECONDS}",
            self.config.keyspace
        );
        if self.conditional(&statement).await? {
            return Ok(true);
        }
        // It is ours too where an earlier attempt of the statement had no answer and was applied all the same.
        let k = &self.config.keyspace;
        let query = format!("SELECT holder FROM {k}.schema_version WHERE name = 'lock'");
        let rows = self.query(&query, ()).await?;
        let found = rows.first().and_then(|row| row.columns.first());
        Ok(matches!(found, Some(Some(CqlValue::Uuid(found))) if *found == holder))
    }

    /// A change of the schema, seen by all nodes that can be reached when it returns.
    async fn change(&self, text: &str) -> Result<(), SchemaError> {
        self.session.query_unpaged(text, ()).await.map_err(|source| failed(text, source))?;
        self.agree().await
    }

    async fn agree(&self) -> Result<(), SchemaError> {
        let agreed = self.session.await_schema_agreement().await;
        agreed.map(drop).map_err(|error| SchemaError::Disagreement(error.to_string()))
    }

    /// Whether it was applied. A node that has just started, on a busy machine, may not answer in time; so what is undecided is
    /// executed again, and each statement is one that may be.
    async fn conditional(&self, text: &str) -> Result<bool, SchemaError> {
        let mut statement = Statement::new(text);
        statement.set_consistency(Consistency::LocalQuorum);
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        let started = tokio::time::Instant::now();
        loop {
            match self.session.query_unpaged(statement.clone(), ()).await {
                Ok(answer) => return Ok(crate::outcome::applied(answer).unwrap_or(false)),
                Err(error)
                    if !crate::outcome::is_certainly_not_applied(&error) && started.elapsed() < UNDECIDED =>
                {
                    tracing::debug!(%error, "outcome of a schema statement is not known");
                    tokio::time::sleep(LOOK).await;
                }
                Err(source) => return Err(failed(text, source)),
            }
        }
    }

    async fn query(
        &self,
        text: &str,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<Row>, SchemaError> {
        let mut statement = Statement::new(text);
        statement.set_consistency(Consistency::LocalQuorum);
        let answer =
            self.session.query_unpaged(statement, values).await.map_err(|error| failed(text, error))?;
        let Ok(rows) = answer.into_rows_result() else { return Ok(Vec::new()) };
        let Ok(rows) = rows.rows::<Row>() else { return Ok(Vec::new()) };
        Ok(rows.filter_map(Result::ok).collect())
    }

    /// The keyspace lies in the one datacentre and nowhere else.
    async fn check_replication(&self, datacentre: &str) -> Result<(), SchemaError> {
        let query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let rows = self.query(query, (&self.config.keyspace,)).await?;
        let mut datacentres = Vec::new();
        if let Some(Some(CqlValue::Map(pairs))) = rows.first().and_then(|row| row.columns.first()) {
            for (name, count) in pairs {
                match (name.as_text().map(String::as_str), count.as_text()) {
                    (Some("class") | None, _) => {}
                    (Some(name), count) => {
                        datacentres.push(format!("{name} ({})", count.map_or("?", String::as_str)));
                    }
                }
            }
        }
        match datacentres.as_slice() {
            [one] if one.starts_with(&format!("{datacentre} (")) => Ok(()),
            found => Err(SchemaError::Replication {
                keyspace: self.config.keyspace.clone(),
                found: found.join(", "),
                datacentre: datacentre.to_owned(),
            }),
        }
    }
}

fn failed(text: &str, source: ExecutionError) -> SchemaError {
    let statement = text.lines().next().unwrap_or_default().to_owned();
    SchemaError::Statement { statement, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_names_its_keyspace_and_a_table_id_of_its_own() {
        let config = Config { keyspace: "region_one".into(), ..Config::default() };
        let mut ids = std::collections::BTreeSet::new();
        for step in STEPS {
            for statement in statements(&config, step) {
                assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS region_one."), "{statement}");
                assert!(!statement.contains(['{', ';']), "{statement}");
                let (_, id) = statement.split_once("ID = ").expect("an id");
                assert!(ids.insert(Uuid::parse_str(id).expect("a uuid")), "{statement}");
            }
        }
        let other = Config { keyspace: "region_two".into(), ..Config::default() };
        assert_ne!(table_id(&config, "mark"), table_id(&other, "mark"));
        let whole = text(&config, "dc1");
        assert!(whole.contains("'dc1': 3") && whole.contains("region_one.account_log"));
    }
}
