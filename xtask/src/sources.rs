//! Fresh clones that need not compile everything again.
//!
//! Cargo compiles a crate anew when a file of it is younger than what was made of it, and in a fresh clone every file is.
//! The shared target folder therefore remembers the content of each file and when that content was first seen; a file
//! that holds the same in another clone gets that time back. What has changed is as young as can be. So cargo decides
//! as if all clones were one working tree that is edited in place.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::process::{self, command};

/// Content and age of a file.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    content: String,
    since: Duration,
}

/// A run over the sources; [`Run::end`] closes it.
pub(crate) struct Run {
    list: PathBuf,
    unfinished: PathBuf,
}

/// Gives files their times, before anything is compiled into the target folder.
pub(crate) fn begin() -> Result<Run> {
    let target = process::target()?;
    fs::create_dir_all(&target)?;
    let run = Run { list: target.join("sources.tsv"), unfinished: target.join("sources.unfinished") };
    // A run that did not end may have compiled what was edited under it: then only what nobody touched counts as known.
    let distrust = run.unfinished.exists();
    let known = read(&run.list)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut seen = BTreeMap::new();
    for (path, content) in contents()? {
        let since = match known.get(&path) {
            None => age(&path)?,
            Some(known) if known.content == content && (!distrust || age(&path)? == known.since) => {
                known.since
            }
            Some(_) => now,
        };
        set_age(&path, since)?;
        seen.insert(path, Seen { content, since });
    }
    write(&run.list, &seen)?;
    File::create(&run.unfinished)?;
    Ok(run)
}

impl Run {
    /// Remembers what was edited meanwhile.
    pub(crate) fn end(self) -> Result<()> {
        let mut seen = read(&self.list)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        for (path, content) in contents()? {
            let known = seen.get(&path);
            if known.is_none_or(|known| known.content != content || age(&path).ok() != Some(known.since)) {
                set_age(&path, now)?;
                seen.insert(path, Seen { content, since: now });
            }
        }
        write(&self.list, &seen)?;
        let other = "another run has ended in the same target folder meanwhile";
        fs::remove_file(&self.unfinished).context(other)
    }
}

/// The files that git tracks or would, with a hash of each.
fn contents() -> Result<Vec<(String, String)>> {
    let list = process::output(&mut command("git", ["ls-files", "-co", "--exclude-standard"]))?;
    let is_file = |path: &&str| process::root().join(path).is_file();
    let paths: Vec<&str> = list.lines().filter(is_file).collect();
    let mut hasher = command("git", ["hash-object", "--stdin-paths"]);
    let mut child = hasher.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let names = paths.join("\n");
    let writer = std::thread::spawn(move || input.write_all(names.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().expect("writing does not panic")?;
    let hashes = String::from_utf8(output.stdout)?;
    let pairs: Vec<(String, String)> =
        paths.iter().zip(hashes.lines()).map(|(path, hash)| ((*path).to_owned(), hash.to_owned())).collect();
    if pairs.len() != paths.len() || !output.status.success() {
        bail!("git hash-object ended with {}", output.status);
    }
    Ok(pairs)
}

fn age(path: &str) -> Result<Duration> {
    let modified = fs::metadata(process::root().join(path))?.modified()?;
    Ok(modified.duration_since(UNIX_EPOCH)?)
}

fn set_age(path: &str, since: Duration) -> Result<()> {
    if age(path)? != since {
        File::open(process::root().join(path))?.set_modified(UNIX_EPOCH + since)?;
    }
    Ok(())
}

/// `path TAB hash TAB nanoseconds` a line.
fn read(list: &Path) -> Result<BTreeMap<String, Seen>> {
    let Ok(text) = fs::read_to_string(list) else { return Ok(BTreeMap::new()) };
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (path, content) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let since = Duration::from_nanos(fields.next()?.parse().ok()?);
        Some((path, Seen { content, since }))
    };
    text.lines().map(|text| line(text).with_context(|| format!("{}: {text:?}", list.display()))).collect()
}

fn write(list: &Path, seen: &BTreeMap<String, Seen>) -> Result<()> {
    let mut text = String::new();
    for (path, Seen { content, since }) in seen {
        writeln!(text, "{path}\t{content}\t{}", since.as_nanos())?;
    }
    let aside = list.with_extension("new");
    fs::write(&aside, text)?;
    fs::rename(aside, list)?;
    Ok(())
}
