//! A cluster that stands between commands, for people to try: engines, and nodes that were started as the guide says.
//!
//! Engines are remembered as [`engines::standing`] does it. Nodes are known by the folder of the set, which their command line names:
//! so those are found too that somebody has started anew by the guide, or whose start was cut off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engines::standing::{Named, Standing, Up};
use engines::{Identity, Options};

use crate::guide::{self, NODES, Place};

/// The place of one such cluster, held so that two commands do not change it at once.
#[derive(Debug)]
pub struct Trial {
    named: Named,
}

/// What [`Trial::up`] did.
#[derive(Debug)]
pub enum Begun {
    /// Everything was started.
    Started {
        /// What stands now.
        stands: Stands,
        /// What the engines took to be ready.
        engines: Duration,
        /// What the nodes took behind that, with the accounts.
        nodes: Duration,
    },
    /// Something stands since an earlier time, and nothing was done.
    Already(Stands),
}

/// What stands.
#[derive(Debug)]
pub struct Stands {
    /// The engines.
    pub engines: Standing,
    /// The processes of the nodes, in order; none for one that is down.
    pub nodes: Vec<Option<Identity>>,
    /// Where the nodes are, once accounts are made; none where a start was cut off.
    pub place: Option<Place>,
}

/// The steps of the guide that bring up what people try.
const STEPS: [&str; 5] = ["configure", "first-node", "copy-key", "other-nodes", "accounts"];
/// Says that a set is complete; holds the binary that it was started with.
const COMPLETE: &str = "postrider-binary";

impl Trial {
    /// The cluster of this name; waits for a command that changes it. An error if the name would be a path.
    pub fn hold(name: &str) -> Result<Self> {
        Ok(Self { named: Named::hold(&format!("cluster-{name}"))? })
    }

    /// What was left running, though it may have ended since; none after [`Trial::down`].
    pub fn standing(&self) -> Result<Option<Stands>> {
        let Some(engines) = self.named.standing()? else { return Ok(None) };
        let folder = &engines.folder;
        let place = match fs::read_to_string(folder.join(COMPLETE)) {
            Ok(postrider) => Some(Place::new(folder, Path::new(&postrider), &engines.environment)?),
            Err(_) => None,
        };
        let nodes = (1..=NODES).map(|node| guide::process(folder, node)).collect::<Result<_>>()?;
        Ok(Some(Stands { engines, nodes, place }))
    }

    /// Starts engines, nodes on them, and makes the guide's accounts, unless some of that runs. `postrider` is the
    /// binary; data and logs go into `folder`, or into a temporary one. Where a part does not start, what was started is
    /// stopped, and logs stay.
    pub fn up(&self, postrider: &Path, cassandra_nodes: usize, folder: Option<PathBuf>) -> Result<Begun> {
        if let Some(stands) = self.standing()?
            && stands.runs()
        {
            return Ok(Begun::Already(stands));
        }
        let folder = match folder {
            Some(folder) => folder,
            None => tempfile::Builder::new().prefix("postrider-cluster-").tempdir()?.keep(),
        };
        let began = Instant::now();
        let options =
            Options { cassandra_nodes, s3: true, nats: true, folder: Some(folder), ..Options::default() };
        let (Up::Started(engines) | Up::Already(engines)) = self.named.up(&options)?;
        let ready = Instant::now();
        let started = begin(&engines, postrider);
        if started.is_err() {
            self.down()?;
        }
        started.with_context(|| format!("logs are in {}", engines.folder.display()))?;
        let stands = self.standing()?.context("what was started is remembered")?;
        Ok(Begun::Started { stands, engines: ready - began, nodes: ready.elapsed() })
    }

    /// Stops nodes, and then engines, by TERM and after a while by KILL; removes their data. Logs stay. Returns what was stopped,
    /// none where nothing was left running.
    pub fn down(&self) -> Result<Option<Stands>> {
        let Some(stands) = self.standing()? else { return Ok(None) };
        let folder = &stands.engines.folder;
        guide::stop(folder)?;
        let _ = fs::remove_file(folder.join(COMPLETE));
        for node in 1..=NODES {
            let _ = fs::remove_dir_all(guide::node_folder(folder, node).join("data"));
        }
        self.named.down()?;
        Ok(Some(stands))
    }
}

impl Stands {
    /// Whether any of it runs.
    pub fn runs(&self) -> bool {
        let mut engines = self.engines.processes.iter().map(|process| process.identity);
        engines.any(Identity::is_up) || self.nodes.iter().any(Option::is_some)
    }
}

/// Executes what the guide has for it.
fn begin(engines: &Standing, postrider: &Path) -> Result<()> {
    let place = Place::new(&engines.folder, postrider, &engines.environment)?;
    let steps = guide::steps(guide::GUIDE)?;
    for name in STEPS {
        let step = steps.iter().find(|step| step.name == name);
        place.execute(step.with_context(|| format!("the guide has no step «{name}»"))?)?;
    }
    fs::write(engines.folder.join(COMPLETE), postrider.display().to_string())?;
    Ok(())
}
