//! One engine: a process at an address, that can be killed, paused and started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use testkit::child::{self, Life};

use crate::gossip::Peer;
use crate::greeting::{self, Greeting};
use crate::proc;
use crate::standing::Process;

/// An engine that was started, and may have been killed since. Killed when dropped.
#[derive(Debug)]
pub struct Engine {
    pub(crate) plan: Plan,
    child: Option<Child>,
}

/// All that is needed to start an engine, the first time and again.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Holds `data`, logs and configuration.
    pub(crate) folder: PathBuf,
    pub(crate) life: Life,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    pub(crate) greeting: Greeting,
    /// The other nodes of a cluster: those that answer must see this one, and it them, before it counts as ready.
    pub(crate) peers: Vec<Peer>,
}

/// Far more than a start takes, for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Starts it and waits until it is ready.
    pub(crate) fn begin(plan: Plan) -> Result<Self> {
        let mut engine = Self { plan, child: None };
        engine.start()?;
        Ok(engine)
    }

    /// Starts it again, with the same data at the same address, and waits until it is ready: it answers, and where it is a node
    /// of a cluster, it and the nodes that answer see each other up and joined. An error if it runs, or does not become ready.
    pub fn start(&mut self) -> Result<()> {
        let name = &self.plan.name;
        if self.child.is_some() {
            bail!("{name} has been started already");
        }
        let own = self.plan.as_peer();
        let before = own.log_bytes();
        let peers: Vec<(&Peer, u64)> = self.plan.peers.iter().map(|peer| (peer, peer.log_bytes())).collect();
        let child = self.child.insert(self.plan.spawn().with_context(|| format!("cannot start {name}"))?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}:\n{}", self.plan.last_words());
            }
            let all_see = || {
                let heard = |(peer, _): &&(&Peer, u64)| self.plan.greeting.is_heard_at(peer.address);
                let alive: Vec<_> = peers.iter().filter(heard).collect();
                let knows_all = |peer: &Peer| {
                    alive.is_empty()
                        || greeting::joined_others(peer.address).is_some_and(|n| n >= alive.len() as u64)
                };
                let is_seen = |(peer, seen): &(&Peer, u64)| {
                    own.sees(peer, before) && peer.sees(&own, *seen) && knows_all(peer)
                };
                knows_all(&own) && alive.iter().all(|peer| is_seen(peer))
            };
            if self.plan.greeting.is_heard_at(self.plan.address) && all_see() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{name} does not become ready:\n{}", self.plan.last_words());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// kill -9. Nothing happens where it was killed before.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops it where it stands: its connections stay open and nothing is answered. An error if it does not run, or does not
    /// stand still.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + PATIENCE;
        while !proc::is_stopped(self.process()?)? {
            if Instant::now() > deadline {
                bail!("{} does not stand still", self.plan.name);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Lets it go on after [`Engine::pause`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Where clients connect: CQL, HTTP, or NATS.
    pub fn address(&self) -> SocketAddr {
        self.plan.address
    }

    /// What it is called: `cassandra-1`, `s3`, `nats`.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its log. Cassandra's is kept over starts; what it prints beside it is in `out.log` of the same folder.
    pub fn log(&self) -> PathBuf {
        self.plan.log()
    }

    /// The number of its process. An error if it was killed.
    pub fn process(&self) -> Result<u32> {
        Ok(self.child.as_ref().with_context(|| format!("{} does not run", self.plan.name))?.id())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.plan.name))?;
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("{signal:?} to {}", self.plan.name))
    }

    /// Leaves the process to itself.
    pub(crate) fn forget(mut self) {
        self.child = None;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Plan {
    fn spawn(&self) -> Result<Child> {
        fs::create_dir_all(self.data())?;
        let output = File::options().create(true).append(true).open(self.folder.join("out.log"))?;
        let mut command = self.life.command(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().copied()).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = child::spawn(command)?;
        if self.life == Life::Detached
            && let Err(error) = Process::of(self, &child).and_then(|process| process.record(&self.folder))
        {
            // What nobody could stop later must not run.
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        Ok(child)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        log(&self.folder, self.greeting)
    }

    pub(crate) fn as_peer(&self) -> Peer {
        Peer { address: self.address, log: self.log() }
    }

    /// The end of what it printed and logged.
    fn last_words(&self) -> String {
        let printed = fs::read(self.folder.join("out.log")).unwrap_or_default();
        let logged = fs::read(self.folder.join("system.log")).unwrap_or_default();
        [printed, logged].map(|text| tail(&String::from_utf8_lossy(&text)).to_owned()).join("\n")
    }
}

/// Where an engine in this folder logs.
pub(crate) fn log(folder: &Path, greeting: Greeting) -> PathBuf {
    folder.join(if matches!(greeting, Greeting::Cql) { "system.log" } else { "out.log" })
}

/// The last thirty lines.
fn tail(text: &str) -> &str {
    text.trim_end().rmatch_indices('\n').nth(29).map_or(text, |(at, _)| &text[at + 1..])
}
