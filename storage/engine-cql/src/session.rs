//! Opening: connections, schema, settings of the nodes, prepared statements.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, LogId};
use quick_cache::sync::Cache;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::{Session, TlsContext};
use scylla::client::session_builder::SessionBuilder;
use scylla::cluster::Node;
use scylla::errors::{NewSessionError, PrepareError};
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use zeroize::Zeroizing;

use crate::call::Calls;
use crate::clock;
use crate::config::{Config, SchemaPolicy};
use crate::schema::{self, SCHEMA_VERSION, Schema, SchemaError, SchemaState};
use crate::second_ask::{self, SecondAsk};
use crate::settings::{self, Finding};
use crate::statement::Statements;
use crate::together::Gathering;

/// Buckets of pages that are known to be written down.
const BUCKETS_KNOWN_MAX: usize = 100_000;

/// Schema agreement takes Cassandra about a second; asking more often only makes it slower.
const AGREEMENT_INTERVAL: Duration = Duration::from_millis(500);

/// Why the engine was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration cannot be right.
    #[error("{0}")]
    Config(String),
    /// A file could not be read.
    #[error("{path}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("{path} holds no certificate that can be used: {reason}", path = .path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No node could be reached.
    #[error("no node of {nodes} could be reached")]
    Connect {
        /// The ones that were tried.
        nodes: String,
        /// Why not.
        #[source]
        source: Box<NewSessionError>,
    },
    /// Our clock is wrong, as most nodes have it.
    #[error(
        "the clock of this machine is {} s {} those of most nodes of Cassandra, and a start is refused from {ms_refused} ms \
         on (cql.clock_difference_ms_refused): let all machines follow one time server",
        .ahead_ms.unsigned_abs() / 1_000,
        if *.ahead_ms > 0 { "ahead of" } else { "behind" }
    )]
    Clock {
        /// By how many milliseconds it is ahead.
        ahead_ms: i64,
        /// Milliseconds from which on a start is refused.
        ms_refused: u64,
    },
    /// The schema is not what this release needs.
    #[error("schema")]
    Schema(#[from] SchemaError),
    /// A statement was not understood.
    #[error("statements cannot be prepared")]
    Prepare(#[from] PrepareError),
}

/// Logs and rows on CQL. Cheap to clone.
#[derive(Clone)]
pub struct Cql {
    inner: Arc<Inner>,
}

/// What all calls need.
pub struct Inner {
    pub(crate) calls: Calls,
    pub(crate) statements: Statements,
    /// Buckets that are written down.
    pub(crate) buckets_known: Cache<(LogId, i64), ()>,
    /// Rows that wait for those before them in their partition.
    pub(crate) gathering: Gathering,
    findings: Vec<Finding>,
}

impl std::ops::Deref for Cql {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::fmt::Debug for Cql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cql")
    }
}

impl Cql {
    /// Connects, refuses to go on with a wrong clock, makes or checks the schema as the configuration has it, looks at the
    /// settings of all nodes and prepares the statements. What it found about the nodes is in [`Self::findings`] and in the log.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let (session, second_ask) = connect(config).await?;
        clock::refuse_a_wrong_one(&session, config).await?;
        Schema { session: &session, config }.prepare(config.schema).await?;
        let findings = settings::look(&session, config).await;
        for finding in &findings {
            finding.log();
        }
        let statements = Box::pin(Statements::prepare(&session, &config.keyspace)).await?;
        let inner = Inner {
            calls: Calls::new(session, second_ask, config),
            statements,
            buckets_known: Cache::new(BUCKETS_KNOWN_MAX),
            gathering: Gathering::default(),
            findings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its logs and rows.
    pub fn engine(&self) -> Engine {
        Engine::new(Arc::new(self.clone()), Arc::new(self.clone()))
    }

    /// What a start found about the settings of the nodes.
    pub fn findings(&self) -> &[Finding] {
        &self.inner.findings
    }

    /// The statements that make the schema, for operators who apply it themselves. Asks the nodes for their datacentre
    /// where the configuration names none.
    pub async fn schema_text(config: &Config) -> Result<String, OpenError> {
        if !config.datacentre.is_empty() {
            config.check().map_err(OpenError::Config)?;
            return Ok(schema::text(config, &config.datacentre));
        }
        let (session, _) = connect(config).await?;
        let datacentre = Schema { session: &session, config }.datacentre().await?;
        Ok(schema::text(config, &datacentre))
    }

    /// Makes or upgrades the schema.
    pub async fn apply_schema(config: &Config) -> Result<SchemaState, OpenError> {
        let (session, _) = connect(config).await?;
        let schema = Schema { session: &session, config };
        schema.prepare(SchemaPolicy::Apply).await?;
        Ok(SchemaState { found: schema.version().await?, needed: SCHEMA_VERSION })
    }

    /// Which schema is there, and what is to be said about the nodes.
    pub async fn check(config: &Config) -> Result<(SchemaState, Vec<Finding>), OpenError> {
        let (session, _) = connect(config).await?;
        let found = Schema { session: &session, config }.version().await?;
        Ok((SchemaState { found, needed: SCHEMA_VERSION }, settings::look(&session, config).await))
    }
}

/// A statement that this node answers, and no other.
pub(crate) fn asked_of(node: &Arc<Node>, text: &str) -> Statement {
    let mut statement = Statement::new(text);
    let target = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None);
    statement.set_load_balancing_policy(Some(target));
    statement.set_consistency(Consistency::One);
    statement
}

/// The session, and what it has to be told of how long calls took.
async fn connect(config: &Config) -> Result<(Session, Arc<SecondAsk>), OpenError> {
    config.check().map_err(OpenError::Config)?;
    if config.nodes.is_empty() {
        return Err(OpenError::Config("no node is named in `nodes`".to_owned()));
    }
    let connections = NonZeroUsize::new(config.connections).unwrap_or(NonZeroUsize::MIN);
    // For statements that may be repeated; conditional ones are never.
    let second_ask = Arc::new(SecondAsk::new(config.second_ask()));
    let speculation = second_ask::Policy(Arc::clone(&second_ask));
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(config.request_timeout()))
        .speculative_execution_policy(Some(Arc::new(speculation)))
        .build();
    // A node that was stopped keeps its connections: it is asked whether it lives.
    let half = Duration::from_millis(config.silence_ms_max.div_ceil(2));
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .keepalive_interval(half)
        .keepalive_timeout(half)
        .connection_timeout(Duration::from_millis(config.connect_timeout_ms))
        .schema_agreement_interval(AGREEMENT_INTERVAL)
        .pool_size(PoolSize::PerHost(connections));
    if !config.user.is_empty() {
        builder = builder.user(&config.user, password(&config.password_file)?.as_str());
    }
    if !config.ca_file.as_os_str().is_empty() {
        builder = builder.tls_context(Some(TlsContext::Rustls023(trusting(&config.ca_file)?)));
    }
    let failed = |source| OpenError::Connect { nodes: config.nodes.join(", "), source: Box::new(source) };
    Ok((builder.build().await.map_err(failed)?, second_ask))
}

fn password(path: &Path) -> Result<Zeroizing<String>, OpenError> {
    let text =
        fs::read_to_string(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// TLS that trusts the certificates in a file and nothing else.
fn trusting(path: &Path) -> Result<Arc<ClientConfig>, OpenError> {
    let refused = |reason: &dyn std::fmt::Display| OpenError::Certificates {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))? {
        let certificate = certificate.map_err(|error| refused(&error))?;
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    if roots.is_empty() {
        return Err(refused(&"it has none"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
