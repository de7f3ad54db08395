//! Nodes of Postrider on real engines: Cassandra, S3 and NATS, all on loopback addresses of their own; faults in them, and
//! rounds of load with a fault in each.
//!
//! They run by `cargo xtask ci --only build,cluster`, which names the binary in `POSTRIDER_BIN`. Start reading at
//! [`rounds`].

pub mod faults;
pub mod rounds;

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
    settings: String,
    arguments: Vec<String>,
    folder: TempDir,
}

/// What a cluster consists of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Nodes of Cassandra.
    pub cassandra_nodes: usize,
    /// Nodes of Postrider.
    pub nodes: usize,
    /// Added to the configuration of each.
    pub settings: String,
    /// Arguments of each behind `dev`.
    pub arguments: Vec<String>,
}

impl Cluster {
    /// Starts the engines, with so many Cassandra nodes, and so many nodes of Postrider. `settings` are added to the
    /// configuration of each.
    pub fn start(cassandra_nodes: usize, nodes: usize, settings: &str) -> Result<Self> {
        let settings = settings.to_owned();
        Self::start_as(&Setup { cassandra_nodes, nodes, settings, ..Setup::default() })
    }

    /// Starts all of it.
    pub fn start_as(setup: &Setup) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postrider-cluster-").tempdir()?;
        let engines = Engines::start(&engines::Options {
            cassandra_nodes: setup.cassandra_nodes,
            s3: true,
            nats: true,
            folder: Some(folder.path().join("engines")),
            ..engines::Options::default()
        })?;
        let settings = format!("{}\n{}", setup.settings, engines.configuration());
        let mut cluster = Self {
            nodes: Vec::new(),
            doors: Arc::new(Doors::new(Vec::new())),
            engines,
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
        Ok(())
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

    /// No node has said WARN or ERROR but with one of `expected` in it.
    pub fn logs_are_quiet(&self, expected: &[&str]) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let log = node.log();
            let loud: Vec<&str> = log
                .lines()
                .filter(|line| {
                    line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked")
                })
                .filter(|line| !expected.iter().any(|known| line.contains(known)))
                .collect();
            if !loud.is_empty() {
                bail!(
                    "node {number}: unexpected lines in the log:\n{}",
                    loud[..loud.len().min(20)].join("\n")
                );
            }
        }
        Ok(())
    }
}
