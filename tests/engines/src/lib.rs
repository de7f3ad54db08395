//! Real engines for tests: Apache Cassandra, a server that speaks S3 (versitygw), and NATS.
//!
//! [`Engines::start`] fetches what it does not find in the user's cache folder, starts it on loopback addresses of its own, and
//! returns when everything answers. Sets run side by side. All of it blocks; async tests start engines before their runtime or
//! on a blocking thread. Linux only: it relies on the whole of 127/8 being local, and on /proc.
//!
//! Start reading at [`Engines`]; [`Engine`] is what can be done to one of them.

mod cassandra;
mod engine;
mod fetch;
mod gossip;
mod greeting;
mod loopback;
mod missing;
mod nats;
mod proc;
pub mod s3;
pub mod standing;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub use engine::Engine;
pub use missing::missing;
pub use proc::Identity;
pub use s3::S3;
pub use testkit::child::Life;

/// What is to be started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nodes of Cassandra, each with 0.9 GB in memory: none, one, or three for three copies of everything.
    pub cassandra_nodes: usize,
    /// Whether nodes of Cassandra tell clients another address than the one that they listen at, see
    /// [`Engines::announced`], so that a proxy can stand there.
    pub cassandra_behind_proxies: bool,
    /// Whether S3 is wanted.
    pub s3: bool,
    /// Whether NATS is wanted.
    pub nats: bool,
    /// Where data and logs go, and stay; it must hold no engines yet. A temporary folder when there is none, of which logs stay
    /// where a test panics.
    pub folder: Option<PathBuf>,
    /// When they end.
    pub life: Life,
}

/// Engines that were started together, killed when dropped.
#[derive(Debug)]
pub struct Engines {
    /// Nodes of one Cassandra cluster, the seed first.
    pub cassandra: Vec<Engine>,
    /// S3, with the bucket [`s3::BUCKET`].
    pub s3: Option<S3>,
    /// NATS.
    pub nats: Option<Engine>,
    /// Where clients are told to find the nodes of Cassandra, in their order: where they listen, or where proxies must be.
    pub announced: Vec<SocketAddr>,
    folder: PathBuf,
    temporary: Option<TempDir>,
}

impl Engines {
    /// Fetches what is not in the cache, starts everything and waits until it is ready. An error says what [`missing()`] found, or
    /// what the engine that did not become ready said last.
    pub fn start(options: &Options) -> Result<Self> {
        let missing = missing(options);
        if !missing.is_empty() {
            bail!("not found: {}", missing.join("; "));
        }
        let (folder, temporary) = match &options.folder {
            Some(folder) => (folder.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("postrider-engines-").tempdir()?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let folder = folder.canonicalize()?;
        if ["cassandra-1", "s3", "nats"].iter().any(|name| folder.join(name).exists()) {
            bail!("{} holds engines already; their addresses would not be those of these", folder.display());
        }
        let block = loopback::Block::free(options.cassandra_nodes)?;
        // From here on whatever fails takes down what has been started.
        let announced = (1..=options.cassandra_nodes).map(|number| {
            if options.cassandra_behind_proxies { block.proxy(number) } else { block.cql(number) }
        });
        let mut engines = Self {
            cassandra: Vec::new(),
            s3: None,
            nats: None,
            announced: announced.collect(),
            folder,
            temporary,
        };
        let folder = &engines.folder;
        if options.nats {
            engines.nats = Some(nats::start(block, folder, options.life)?);
        }
        if options.s3 {
            engines.s3 = Some(S3::start(block, folder, options.life)?);
        }
        engines.cassandra = cassandra::start(&engines.announced, block, folder, options.life)?;
        Ok(engines)
    }

    /// Where data and logs lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Cassandra's contact points, as `ADDRESS:PORT`.
    pub fn contact_points(&self) -> Vec<String> {
        self.announced.iter().map(SocketAddr::to_string).collect()
    }

    /// How tests that find engines by the environment are told of these: `POSTRIDER_CQL` (contact points with commas between),
    /// `POSTRIDER_S3` (endpoint), `POSTRIDER_S3_KEY`, `POSTRIDER_S3_SECRET`, `POSTRIDER_S3_BUCKET`, `POSTRIDER_NATS` (URL);
    /// those of engines that were started.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = Vec::new();
        let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
        if !self.cassandra.is_empty() {
            set("POSTRIDER_CQL", self.contact_points().join(","));
        }
        if let Some(s3) = &self.s3 {
            set("POSTRIDER_S3", s3.endpoint());
            set("POSTRIDER_S3_KEY", s3::ACCESS_KEY.to_owned());
            set("POSTRIDER_S3_SECRET", s3::SECRET_KEY.to_owned());
            set("POSTRIDER_S3_BUCKET", s3::BUCKET.to_owned());
        }
        if let Some(url) = self.nats_url() {
            set("POSTRIDER_NATS", url);
        }
        environment
    }

    /// `nats://ADDRESS:PORT`, where NATS was started.
    pub fn nats_url(&self) -> Option<String> {
        Some(format!("nats://{}", self.nats.as_ref()?.address()))
    }

    /// The section of Postrider's configuration file that uses these engines.
    pub fn configuration(&self) -> String {
        let mut text = String::new();
        let mut add = |section: std::fmt::Arguments<'_>| text.write_fmt(section).expect("a string takes all");
        if !self.cassandra.is_empty() {
            add(format_args!(
                "[cql]\nnodes = {:?}\nreplication = {}\n",
                self.contact_points(),
                self.cassandra.len().min(3)
            ));
        }
        if let Some(s3) = &self.s3 {
            add(format_args!("[s3]\nendpoint = \"{}\"\nregion = \"{}\"\n", s3.endpoint(), s3::REGION));
            add(format_args!("bucket = \"{}\"\npath_style = true\n", s3::BUCKET));
            add(format_args!(
                "access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
                s3::ACCESS_KEY,
                s3::SECRET_KEY
            ));
        }
        if let Some(url) = self.nats_url() {
            add(format_args!("[cluster.nats]\nservers = [\"{url}\"]\n"));
        }
        text
    }

    /// Lets detached engines run on.
    pub(crate) fn forget(mut self) {
        let engines =
            self.cassandra.drain(..).chain(self.s3.take().map(|s3| s3.engine)).chain(self.nats.take());
        engines.for_each(Engine::forget);
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
    }

    /// Every engine, Cassandra first.
    pub fn all(&self) -> impl Iterator<Item = &Engine> {
        self.cassandra.iter().chain(self.s3.as_ref().map(|s3| &s3.engine)).chain(&self.nats)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        let killed =
            self.cassandra.drain(..).chain(self.s3.take().map(|s3| s3.engine)).chain(self.nats.take());
        let folders: Vec<PathBuf> = killed.map(|engine| engine.plan.data()).collect();
        if let Some(temporary) = &mut self.temporary
            && std::thread::panicking()
        {
            temporary.disable_cleanup(true);
            for data in folders {
                let _ = std::fs::remove_dir_all(data);
            }
            eprintln!("logs of the engines are kept in {}", self.folder.display());
        }
    }
}
