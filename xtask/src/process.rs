//! Running other programs, and where things lie.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The root of the source tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root folder").to_path_buf()
}

/// Where fetched and compiled things are kept between clones: the user's cache folder.
pub(crate) fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    base.join("postrider")
}

/// A program with arguments, to be run in the root folder.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs it with its output going where ours goes; an error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs all of them at one time, and shows what each said when all have ended; an error when any fails.
pub(crate) fn run_beside(commands: &mut [Command]) -> Result<()> {
    let ended: Vec<Result<bool>> = std::thread::scope(|scope| {
        let running: Vec<_> = commands.iter_mut().map(|command| scope.spawn(|| said(command))).collect();
        running.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    for (command, succeeded) in commands.iter().zip(ended) {
        if !succeeded? {
            bail!("{command:?} failed, see above");
        }
    }
    Ok(())
}

/// Runs it, shows all that it said at once, and says whether it succeeded.
fn said(command: &mut Command) -> Result<bool> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let mut shown = std::io::stdout().lock();
    shown.write_all(&output.stderr)?;
    shown.write_all(&output.stdout)?;
    Ok(output.status.success())
}

/// Runs it and returns its standard output; an error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    String::from_utf8(output.stdout).context("its output is not UTF-8")
}

/// The target folder that checks compile into. Dependencies are compiled once per machine: the folder is kept by
/// toolchain in the cache folder, so that a fresh clone starts warm; what a changed Cargo.lock asks for anew, cargo knows.
/// When it has grown beyond reason it is begun again.
pub(crate) fn target() -> Result<PathBuf> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(target) = TARGET.get() {
        return Ok(target.clone());
    }
    let rustc = output(&mut command("rustc", ["-V"]))?;
    let version = rustc.split_whitespace().nth(1).context("rustc says no version")?;
    let target = cache().join(format!("target-{version}"));
    let kib = Command::new("du").arg("-sk").arg(&target).output().ok();
    let kib = kib.and_then(|output| String::from_utf8(output.stdout).ok());
    let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    if kib.is_some_and(|kib| kib > TARGET_KIB_MAX) {
        std::fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    Ok(TARGET.get_or_init(|| target).clone())
}

/// Several times what one build takes.
const TARGET_KIB_MAX: u64 = 40 << 20;
