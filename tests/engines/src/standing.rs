//! Engines that stand between commands: started by one process, stopped by another.
//!
//! A state file in the user's cache folder names the folder of the set. In there each detached engine has a file with number and
//! start time of its process. Together they name one process and no other, though numbers be given again; nothing is ever
//! looked for by its name. Both are written before anything can be lost: a start that is cut off leaves what can be stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::engine::Plan;
use crate::{Engines, Identity, Life, Options, fetch};

/// A set of engines that was left running.
#[derive(Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Where their logs are and, while they run, their data.
    pub folder: PathBuf,
    /// [`Engines::configuration`]; empty while they start, and where that was cut off.
    pub configuration: String,
    /// [`Engines::environment`]; likewise.
    pub environment: Vec<(String, String)>,
    /// Their processes, in the order of their names.
    #[serde(skip)]
    pub processes: Vec<Process>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Process {
    /// `cassandra-1`, `s3`, `nats`.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// Which process it is.
    #[serde(flatten)]
    pub identity: Identity,
    data: PathBuf,
}

/// What [`Named::up`] did.
#[derive(Debug)]
pub enum Up {
    /// Everything was started.
    Started(Standing),
    /// Some of them run since an earlier time, and nothing was done.
    Already(Standing),
}

/// The place of one standing set, held so that two commands do not change it at once.
#[derive(Debug)]
pub struct Named {
    state: PathBuf,
    _lock: File,
}

/// The file of a process, in the folder of its engine.
const RECORD: &str = "process.json";
/// How long a process may take to end by itself.
const TERM_PATIENCE: Duration = Duration::from_secs(10);

impl Named {
    /// The set of this name; waits for a command that changes it. An error if the name would be a path.
    pub fn hold(name: &str) -> Result<Self> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            bail!("«{name}» is not a name of letters, digits and hyphens");
        }
        let folder = fetch::folder();
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let lock = File::create(folder.join(format!("up-{name}.lock")))?;
        lock.lock().context("waiting for another command")?;
        Ok(Self { state: folder.join(format!("up-{name}.json")), _lock: lock })
    }

    /// What was left running, though it may have ended since; none after [`Named::down`].
    pub fn standing(&self) -> Result<Option<Standing>> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| self.state.display().to_string()),
        };
        let mut standing: Standing =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", self.state.display()))?;
        standing.processes = recorded(&standing.folder)?;
        Ok(Some(standing))
    }

    /// Starts engines that outlive this process, unless some of this set run.
    pub fn up(&self, options: &Options) -> Result<Up> {
        if let Some(standing) = self.standing()?
            && standing.processes.iter().any(|process| process.identity.is_up())
        {
            return Ok(Up::Already(standing));
        }
        let folder = match &options.folder {
            Some(folder) => folder.clone(),
            None => tempfile::Builder::new().prefix("postrider-engines-").tempdir()?.keep(),
        };
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let folder = folder.canonicalize()?;
        let starting = Standing {
            folder: folder.clone(),
            configuration: String::new(),
            environment: Vec::new(),
            processes: Vec::new(),
        };
        self.remember(&starting)?;
        let started = Engines::start(&Options {
            life: Life::Detached,
            folder: Some(folder.clone()),
            ..options.clone()
        });
        let engines = match started {
            Ok(engines) => engines,
            Err(error) => {
                fs::remove_file(&self.state)?;
                return Err(error.context(format!("logs are in {}", folder.display())));
            }
        };
        let standing = Standing {
            configuration: engines.configuration(),
            environment: engines.environment(),
            processes: recorded(&folder)?,
            ..starting
        };
        self.remember(&standing)?;
        engines.forget();
        Ok(Up::Started(standing))
    }

    fn remember(&self, standing: &Standing) -> Result<()> {
        let aside = self.state.with_extension("new");
        fs::write(&aside, serde_json::to_vec_pretty(standing)?)?;
        fs::rename(&aside, &self.state).with_context(|| self.state.display().to_string())
    }

    /// Stops what runs of this set, by TERM and after ten seconds by KILL, and removes its data; logs stay. Returns what was
    /// stopped, none where nothing was left running.
    pub fn down(&self) -> Result<Option<Standing>> {
        let Some(standing) = self.standing()? else { return Ok(None) };
        let processes: Vec<Identity> = standing.processes.iter().map(|process| process.identity).collect();
        Identity::stop(&processes, TERM_PATIENCE)?;
        for process in &standing.processes {
            let _ = fs::remove_dir_all(&process.data);
        }
        fs::remove_file(&self.state)?;
        Ok(Some(standing))
    }
}

impl Process {
    pub(crate) fn of(plan: &Plan, child: &Child) -> Result<Self> {
        Ok(Self {
            name: plan.name.clone(),
            address: plan.address.to_string(),
            identity: Identity::of(child.id()).with_context(|| format!("{} has ended", plan.name))?,
            data: plan.data(),
        })
    }

    /// Puts it where [`Named::standing`] finds it.
    pub(crate) fn record(&self, folder: &Path) -> Result<()> {
        Ok(fs::write(folder.join(RECORD), serde_json::to_vec(self)?)?)
    }
}

/// What engines in this folder have recorded.
fn recorded(folder: &Path) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    // A folder that is gone, as temporary ones may be after a restart of the machine, holds nothing that runs.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path().join(RECORD);
        if let Ok(text) = fs::read(&path) {
            let process: Process =
                serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
            processes.push(process);
        }
    }
    processes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(processes)
}
