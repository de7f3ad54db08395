//! Nodes of Postrider on real engines: Cassandra, S3 and NATS, all on loopback addresses of their own.
//!
//! They run by `cargo xtask ci --only build,cluster`, which names the binary in `POSTRIDER_BIN`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engines::Engines;
use tempfile::TempDir;
use testkit::server::{Options, Server};

/// What a node may take to start: the schema is made, and three nodes share two cores with three engines.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Engines, and nodes that stand on them.
#[derive(Debug)]
pub struct Cluster {
    /// The engines. Stopped after the nodes.
    pub engines: Engines,
    /// The nodes; `None` while one is down.
    pub nodes: Vec<Option<Server>>,
    settings: String,
    folder: TempDir,
}

impl Cluster {
    /// Starts the engines, with so many Cassandra nodes, and so many nodes of Postrider. `settings` are added to the
    /// configuration of each.
    pub fn start(cassandra_nodes: usize, nodes: usize, settings: &str) -> Result<Self> {
        let options =
            engines::Options { cassandra_nodes, s3: true, nats: true, ..engines::Options::default() };
        let engines = Engines::start(&options)?;
        let folder = tempfile::Builder::new().prefix("postrider-cluster-").tempdir()?;
        let settings = format!("{settings}\n{}", engines.configuration());
        let mut cluster = Self { engines, nodes: Vec::new(), settings, folder };
        // The first one makes schema and key; the others have the key before they start.
        let first = cluster.start_node(0)?;
        cluster.nodes.push(Some(first));
        let key = cluster.data(0).join("key-encryption.key");
        for number in 1..nodes {
            let data = cluster.data(number);
            fs::create_dir_all(&data)?;
            fs::copy(&key, data.join("key-encryption.key")).context("the key of the first node")?;
        }
        let started: Vec<Result<Server>> = std::thread::scope(|scope| {
            let cluster = &cluster;
            let starts: Vec<_> =
                (1..nodes).map(|number| scope.spawn(move || cluster.start_node(number))).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        for server in started {
            cluster.nodes.push(Some(server?));
        }
        Ok(cluster)
    }

    /// A node that is up.
    pub fn node(&self, number: usize) -> Result<&Server> {
        self.nodes.get(number).and_then(Option::as_ref).with_context(|| format!("node {number} is down"))
    }

    /// Starts a node of this number with the data folder that it had.
    pub fn start_node(&self, number: usize) -> Result<Server> {
        let data = self.data(number);
        let file = data.with_extension("toml");
        let name = format!("[cluster]\nnode = \"node{number}\"\n");
        fs::write(&file, format!("{}\n{name}", self.settings))?;
        let mut options = Options::new(&data);
        options.arguments = vec!["--config".to_owned(), file.to_string_lossy().into_owned()];
        options.patience = START_PATIENCE;
        Server::start(&options).with_context(|| format!("node {number}"))
    }

    /// The folder that is a node's own: nothing in it matters but the key.
    pub fn data(&self, number: usize) -> PathBuf {
        self.folder().join(format!("node{number}"))
    }

    /// Where test files may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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
