//! Nodes of Postrider on real engines: Cassandra, S3 and NATS, all on loopback addresses of their own; faults in them, and
//! rounds of load with a fault in each. Also the steps of the guide to such clusters, for a test and for people to try.
//!
//! They run by `cargo xtask ci --only build,cluster`, which names the binary in `POSTRIDER_BIN`. Start reading at
//! [`rounds`].

pub mod between;
mod clock;
#[cfg(feature = "costs")]
pub mod costs;
pub mod faults;
pub mod guide;
pub mod region;
pub mod rounds;
pub mod standing;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engines::Engines;
use tempfile::TempDir;
use testkit::doors::{Door, Doors};
use testkit::server::{Options, PASSWORD, Server, binary};

/// What a node may take to start: the schema is made, and three nodes share two cores with three engines.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// What a node may take to end: what sessions get, and a little.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Engines, and nodes that stand on them.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; `None` while one is down.
    pub nodes: Vec<Option<Server>>,
    /// Where clients connect.
    pub doors: Arc<Doors>,
    /// The engines. Stopped after the nodes.
    pub engines: Engines,
    /// What stands in front of the engines, where it was asked for.
    pub between: Option<Between>,
    /// Nodes whose clock is libfaketime's when they are started, and the file that says how wrong it is.
    pub clocks: BTreeMap<usize, PathBuf>,
    settings: String,
    arguments: Vec<String>,
    folder: TempDir,
}

/// Proxies.
#[derive(Debug)]
pub struct Between {
    /// In front of each node of Cassandra.
    pub cql: between::cql::Ways,
    /// In front of S3.
    pub s3: between::s3::Way,
}

/// What a cluster consists of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Nodes of Cassandra.
    pub cassandra_nodes: usize,
    /// Whether proxies stand in front of Cassandra and S3; with the seed of what they choose.
    pub proxies: Option<u64>,
    /// Nodes of Postrider.
    pub nodes: usize,
    /// Added to the configuration of each.
    pub settings: String,
    /// Arguments of each behind `dev`.
    pub arguments: Vec<String>,
}

impl Cluster {
    /// Starts all of it.
    pub fn start_as(setup: &Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postrider-cluster-").tempdir()?;
        let engines = Engines::start(&engines::Options {
            cassandra_nodes: setup.cassandra_nodes,
            cassandra_behind_proxies: setup.proxies.is_some(),
            s3: true,
            nats: true,
            folder: Some(folder.path().join("engines")),
            ..engines::Options::default()
        })?;
        let mut configuration = engines.configuration();
        let between = match (setup.proxies, &engines.s3) {
            (Some(seed), Some(s3)) => {
                let behind = engines.cassandra.iter().map(engines::Engine::address);
                let ways: Vec<_> = engines.announced.iter().copied().zip(behind).collect();
                let way = between::s3::Way::start(s3.engine.address(), seed)?;
                configuration = configuration.replace(&s3.endpoint(), &way.endpoint());
                Some(Between { cql: between::cql::Ways::start(&ways, seed)?, s3: way })
            }
            _ => None,
        };
        let settings = format!("{}\n{configuration}", setup.settings);
        let mut cluster = Self {
            nodes: Vec::new(),
            doors: Arc::new(Doors::new(Vec::new())),
            engines,
            between,
            clocks: BTreeMap::new(),
            settings,
            arguments: setup.arguments.clone(),
            folder,
        };
        // The first one makes schema and key; the others have the key before they start.
        let first = cluster.start_node(0)?;
        cluster.nodes.push(Some(first));
        let key = cluster.key();
        for number in 1..setup.nodes {
            let data = cluster.data(number);
            fs::create_dir_all(&data)?;
            fs::copy(&key, data.join("key-encryption.key")).context("the key of the first node")?;
        }
        let started: Vec<Result<Server>> = std::thread::scope(|scope| {
            let cluster = &cluster;
            let starts: Vec<_> =
                (1..setup.nodes).map(|number| scope.spawn(move || cluster.start_node(number))).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        for server in started {
            cluster.nodes.push(Some(server?));
        }
        cluster.doors = Arc::new(Doors::new(cluster.nodes.iter().flatten().map(Door::of).collect()));
        cluster.tell_processes();
        Ok(cluster)
    }

    /// A node that is up.
    pub fn node(&self, number: usize) -> Result<&Server> {
        self.nodes.get(number).and_then(Option::as_ref).with_context(|| format!("node {number} is down"))
    }

    /// Takes a node out: what is done with it is up to the caller.
    pub fn take_node(&mut self, number: usize) -> Result<Server> {
        self.nodes.get_mut(number).and_then(Option::take).with_context(|| format!("node {number} is down"))
    }

    /// SIGTERM to a node, until it has ended in order.
    pub fn stop_node(&mut self, number: usize) -> Result<()> {
        self.take_node(number)?.stop(STOP_PATIENCE).with_context(|| format!("node {number}"))
    }

    /// Starts a node that is down, and tells clients where it is now.
    pub fn restart_node(&mut self, number: usize) -> Result<()> {
        let server = self.start_node(number)?;
        self.doors.set(number, Door::of(&server));
        self.nodes[number] = Some(server);
        self.tell_processes();
        Ok(())
    }

    /// The proxies know nodes by their processes.
    fn tell_processes(&self) {
        if let Some(between) = &self.between {
            let processes = self.nodes.iter().map(|node| node.as_ref().map_or(0, Server::pid));
            between.cql.processes(processes.collect());
        }
    }

    /// Starts a node of this number with the data folder that it had.
    pub fn start_node(&self, number: usize) -> Result<Server> {
        let data = self.data(number);
        let file = data.with_extension("toml");
        let name = format!("[cluster]\nnode = \"node{number}\"\n");
        fs::write(&file, format!("{}\n{name}", self.settings))?;
        let mut options = Options::new(&data);
        options.arguments = vec!["--config".to_owned(), file.to_string_lossy().into_owned()];
        options.arguments.extend(self.arguments.iter().cloned());
        options.patience = START_PATIENCE;
        if let Some(clock) = self.clocks.get(&number) {
            options.environment = clock::environment(clock)?;
        }
        Server::start(&options).with_context(|| format!("node {number}"))
    }

    /// Makes an account, with the password that all have.
    pub fn add_account(&self, address: &str) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(["account", "add", address, "--data"]).arg(self.data(0));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("standard input")?.write_all(format!("{PASSWORD}\n").as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("account add {address}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// `postrider check` over everything that is stored. No node may be up.
    pub fn check(&self) -> Result<String> {
        if self.nodes.iter().any(Option::is_some) {
            bail!("a node is up");
        }
        let file = self.folder().join("check.toml");
        let (data, key) = (self.folder().join("check"), self.key());
        let places =
            format!("listeners = []\ndata = \"{}\"\nkey_file = \"{}\"\n", data.display(), key.display());
        fs::write(&file, format!("{places}{}", self.settings))?;
        let output = Command::new(binary()?).args(["check", "--config"]).arg(&file).output()?;
        let told =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if !output.status.success() {
            bail!(testkit::observe::Damage(format!("postrider check: {}\n{told}", output.status)));
        }
        Ok(told)
    }

    /// The folder that is a node's own: nothing in it matters but the key.
    pub fn data(&self, number: usize) -> PathBuf {
        self.folder().join(format!("node{number}"))
    }

    fn key(&self) -> PathBuf {
        self.data(0).join("key-encryption.key")
    }

    /// Where test files may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder, with all logs, when the cluster has ended; says where.
    pub fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder().to_path_buf()
    }
}
