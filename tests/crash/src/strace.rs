//! Reads what strace recorded of a server: every change of a file below one folder, and every sync, in the order in
//! which they ended.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Arguments that make strace record what [`read`] understands.
pub(crate) fn arguments(output: &Path) -> Vec<String> {
    let calls = "trace=write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,rename,renameat,\
                 renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,open,openat,creat,lseek,fcntl,dup,close,\
                 copy_file_range,sync_file_range,link,linkat";
    [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-q",
        "-ttt",
        "-y",
        "-xx",
        "-s",
        "4194304",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
    ]
    .iter()
    .map(|argument| (*argument).to_owned())
    .chain([output.to_string_lossy().into_owned()])
    .collect()
}

/// One recorded change.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When the call ended, in seconds since 1970.
    pub(crate) ended: f64,
    /// Index of the event that had ended last when this call began: a sync covers what had ended by then.
    pub(crate) began_after: usize,
    pub(crate) change: Change,
}

/// A change of the file system. Files are numbered in the order of their creation, since names can change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Folder(PathBuf),
    Create { file: usize, path: PathBuf, truncate: bool },
    Write { file: usize, offset: u64, data: Vec<u8> },
    Length { file: usize, length: u64, grow_only: bool },
    Rename { from: PathBuf, to: PathBuf },
    Link { file: usize, to: PathBuf },
    Unlink(PathBuf),
    RemoveFolder(PathBuf),
    Sync { file: usize },
    SyncFolder(PathBuf),
}

/// An open file description.
#[derive(Clone, Debug)]
enum Open {
    File { description: usize },
    Folder(PathBuf),
}

#[derive(Debug, Default)]
struct Reader {
    root: PathBuf,
    events: Vec<Event>,
    open: HashMap<u32, Open>,
    /// Per description: file, offset, append.
    descriptions: Vec<(usize, u64, bool)>,
    names: HashMap<PathBuf, usize>,
    lengths: Vec<u64>,
    unfinished: HashMap<u32, (String, usize)>,
}

/// Reads a record; only what lies below `root` is kept.
pub(crate) fn read(record: &Path, root: &Path) -> Result<Vec<Event>> {
    let bytes = std::fs::read(record)?;
    let mut reader = Reader { root: root.to_path_buf(), ..Reader::default() };
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let Ok(line) = std::str::from_utf8(line) else { bail!("line {number} is not ASCII") };
        reader.line(line).with_context(|| format!("line {}: {:.300}", number + 1, line))?;
    }
    Ok(reader.events)
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        let Some((pid, rest)) = line.trim_start().split_once(char::is_whitespace) else { return Ok(()) };
        let Ok(pid) = pid.parse::<u32>() else { return Ok(()) };
        let Some((time, call)) = rest.trim_start().split_once(' ') else { return Ok(()) };
        let time: f64 = time.parse()?;
        if call.starts_with("+++") || call.starts_with("---") {
            return Ok(());
        }
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            self.unfinished.insert(pid, (begun.to_owned(), self.events.len()));
            return Ok(());
        }
        if let Some(resumed) = call.strip_prefix("<... ") {
            let Some((_, end)) = resumed.split_once(" resumed>") else { bail!("resumed without a name") };
            let Some((begun, began_after)) = self.unfinished.remove(&pid) else { return Ok(()) };
            return self.call(&format!("{begun}{end}"), began_after, time);
        }
        self.call(call, self.events.len(), time)
    }

    fn call(&mut self, call: &str, began_after: usize, ended: f64) -> Result<()> {
        let Some((name, rest)) = call.split_once('(') else { return Ok(()) };
        let Some(split) = rest.rfind(") = ").or_else(|| rest.rfind(") ")) else { return Ok(()) };
        let result = rest[split + 1..].trim_start().trim_start_matches('=').trim_start();
        if result.starts_with('-') || result.starts_with('?') {
            return Ok(());
        }
        let arguments = split_arguments(&rest[..split]);
        let mut changes = Vec::new();
        self.apply(name, &arguments, result, &mut changes)?;
        self.events.extend(changes.into_iter().map(|change| Event { ended, began_after, change }));
        Ok(())
    }

    fn apply(&mut self, name: &str, arguments: &[&str], result: &str, out: &mut Vec<Change>) -> Result<()> {
        let first = arguments.first().copied().unwrap_or_default();
        match name {
            "open" | "openat" | "creat" => {
                let (path, flags) = if name == "openat" {
                    (Self::path_at(first, arguments.get(1).copied().unwrap_or_default())?, arguments.get(2))
                } else {
                    (text(first)?.into(), arguments.get(1))
                };
                self.opened(&path, flags.copied().unwrap_or("O_CREAT|O_TRUNC"), result, out);
            }
            "fcntl" if arguments.get(1).is_some_and(|what| what.starts_with("F_DUPFD")) => {
                self.duplicated(first, result);
            }
            "dup" => self.duplicated(first, result),
            "close" => {
                self.open.remove(&descriptor(first).unwrap_or(u32::MAX));
            }
            "lseek" => {
                if let (Some(description), Ok(offset)) = (self.description(first), number(result)) {
                    self.descriptions[description].1 = offset;
                }
            }
            "write" | "writev" => {
                if let Some(description) = self.description(first) {
                    let (file, position, append) = self.descriptions[description];
                    let data = written(arguments, result)?;
                    let offset = if append { self.lengths[file] } else { position };
                    self.descriptions[description].1 = offset + data.len() as u64;
                    self.wrote(file, offset, data, out);
                }
            }
            "pwrite64" | "pwritev" | "pwritev2" => {
                if let Some(description) = self.description(first) {
                    let file = self.descriptions[description].0;
                    let position = if name == "pwritev2" { arguments.len() - 2 } else { arguments.len() - 1 };
                    let offset = number(arguments[position])?;
                    self.wrote(file, offset, written(arguments, result)?, out);
                }
            }
            "ftruncate" => {
                if let Some(description) = self.description(first) {
                    let (file, length) = (self.descriptions[description].0, number(arguments[1])?);
                    self.lengths[file] = length;
                    out.push(Change::Length { file, length, grow_only: false });
                }
            }
            "fallocate" => {
                if let Some(description) = self.description(first) {
                    let file = self.descriptions[description].0;
                    if arguments[1] != "0" {
                        if arguments[1].contains("KEEP_SIZE") && !arguments[1].contains("PUNCH") {
                            return Ok(());
                        }
                        bail!("fallocate with {} is not understood", arguments[1]);
                    }
                    let length = number(arguments[2])? + number(arguments[3])?;
                    self.lengths[file] = self.lengths[file].max(length);
                    out.push(Change::Length { file, length, grow_only: true });
                }
            }
            "fsync" | "fdatasync" => match descriptor(first).and_then(|number| self.open.get(&number)) {
                Some(Open::File { description }) => {
                    out.push(Change::Sync { file: self.descriptions[*description].0 });
                }
                Some(Open::Folder(path)) => out.push(Change::SyncFolder(path.clone())),
                None => {}
            },
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = if name == "rename" {
                    (PathBuf::from(text(first)?), PathBuf::from(text(arguments[1])?))
                } else {
                    (Self::path_at(first, arguments[1])?, Self::path_at(arguments[2], arguments[3])?)
                };
                if self.inside(&from) {
                    self.moved(&from, &to);
                    out.push(Change::Rename { from, to });
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let path = if name == "unlinkat" {
                    Self::path_at(first, arguments[1])?
                } else {
                    PathBuf::from(text(first)?)
                };
                if self.inside(&path) {
                    if self.names.remove(&path).is_some() {
                        out.push(Change::Unlink(path));
                    } else {
                        out.push(Change::RemoveFolder(path));
                    }
                }
            }
            "mkdir" | "mkdirat" => {
                let path = if name == "mkdirat" {
                    Self::path_at(first, arguments[1])?
                } else {
                    PathBuf::from(text(first)?)
                };
                if self.inside(&path) {
                    out.push(Change::Folder(path));
                }
            }
            "link" | "linkat" => {
                let (from, to) = if name == "link" {
                    (PathBuf::from(text(first)?), PathBuf::from(text(arguments[1])?))
                } else {
                    (Self::path_at(first, arguments[1])?, Self::path_at(arguments[2], arguments[3])?)
                };
                if let Some(file) = self.names.get(&from).copied() {
                    self.names.insert(to.clone(), file);
                    out.push(Change::Link { file, to });
                }
            }
            "copy_file_range" if arguments.get(2).is_some_and(|to| self.description(to).is_some()) => {
                bail!("{name} is not understood");
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, path: &Path, flags: &str, result: &str, out: &mut Vec<Change>) {
        let Some(number) = descriptor(result) else { return };
        self.open.remove(&number);
        if !self.inside(path) && path != self.root {
            return;
        }
        if flags.contains("O_DIRECTORY") || (path.is_dir() && !self.names.contains_key(path)) {
            self.open.insert(number, Open::Folder(path.to_path_buf()));
            return;
        }
        let truncate = flags.contains("O_TRUNC");
        let file = match self.names.get(path) {
            Some(file) => *file,
            None if flags.contains("O_CREAT") => {
                self.lengths.push(0);
                self.names.insert(path.to_path_buf(), self.lengths.len() - 1);
                out.push(Change::Create {
                    file: self.lengths.len() - 1,
                    path: path.to_path_buf(),
                    truncate: false,
                });
                self.lengths.len() - 1
            }
            // A folder opened without O_DIRECTORY, to be synced.
            None => {
                self.open.insert(number, Open::Folder(path.to_path_buf()));
                return;
            }
        };
        if truncate && self.lengths[file] > 0 {
            self.lengths[file] = 0;
            out.push(Change::Create { file, path: path.to_path_buf(), truncate });
        }
        self.descriptions.push((file, 0, flags.contains("O_APPEND")));
        self.open.insert(number, Open::File { description: self.descriptions.len() - 1 });
    }

    fn duplicated(&mut self, old: &str, new: &str) {
        if let (Some(old), Some(new)) = (descriptor(old), descriptor(new)) {
            match self.open.get(&old).cloned() {
                Some(open) => self.open.insert(new, open),
                None => self.open.remove(&new),
            };
        }
    }

    fn wrote(&mut self, file: usize, offset: u64, data: Vec<u8>, out: &mut Vec<Change>) {
        self.lengths[file] = self.lengths[file].max(offset + data.len() as u64);
        out.push(Change::Write { file, offset, data });
    }

    fn moved(&mut self, from: &Path, to: &Path) {
        let below: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for name in below {
            if let (Some(file), Ok(rest)) = (self.names.remove(&name), name.strip_prefix(from)) {
                let target = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
                self.names.insert(target, file);
            }
        }
    }

    fn description(&self, argument: &str) -> Option<usize> {
        match self.open.get(&descriptor(argument)?)? {
            Open::File { description } => Some(*description),
            Open::Folder(_) => None,
        }
    }

    fn inside(&self, path: &Path) -> bool {
        path.starts_with(&self.root) && path != self.root
    }

    /// Resolves `AT_FDCWD</cwd>, "name"` and `7</folder>, "name"`.
    fn path_at(folder: &str, name: &str) -> Result<PathBuf> {
        let name = PathBuf::from(text(name)?);
        if name.is_absolute() {
            return Ok(name);
        }
        let start = folder.find('<').context("no folder")?;
        Ok(PathBuf::from(unescape_path(folder[start + 1..].trim_end_matches('>'))?).join(name))
    }
}

/// Splits at commas that stand outside of strings, brackets and paths.
fn split_arguments(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut quoted, mut start) = (0_i32, false, 0);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' | b'<' => depth += 1,
            b']' | b'}' | b'>' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// `12</path>` → 12.
fn descriptor(text: &str) -> Option<u32> {
    text.split(['<', ' ']).next()?.parse().ok()
}

fn number(text: &str) -> Result<u64> {
    text.split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("«{text:.60}» is not a number"))
}

/// A quoted string in strace's `-xx` form.
fn text(quoted: &str) -> Result<String> {
    String::from_utf8(bytes(quoted)?).context("a name is not UTF-8")
}

fn unescape_path(path: &str) -> Result<String> {
    if path.contains("\\x") { text(&format!("\"{path}\"")) } else { Ok(path.to_owned()) }
}

fn bytes(quoted: &str) -> Result<Vec<u8>> {
    if quoted.ends_with("...") {
        bail!("strace has cut a string");
    }
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).context("not a string")?;
    inner
        .split("\\x")
        .skip(1)
        .map(|pair| u8::from_str_radix(pair, 16).context("not a hexadecimal pair"))
        .collect()
}

/// The bytes that a write call has written: as many as its result says.
fn written(arguments: &[&str], result: &str) -> Result<Vec<u8>> {
    let mut data = if arguments[1].starts_with('[') {
        let mut all = Vec::new();
        for part in arguments[1].split("iov_base=").skip(1) {
            let end = part[1..].find('"').context("an unfinished string")? + 2;
            all.extend(bytes(&part[..end])?);
        }
        all
    } else {
        bytes(arguments[1])?
    };
    data.truncate(usize::try_from(number(result)?)?);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_offsets_names_and_unfinished_calls() {
        let folder = std::env::temp_dir().join("strace-reader-test");
        let record = folder.with_extension("record");
        let hex = |text: &str| text.bytes().fold(String::new(), |all, byte| format!("{all}\\x{byte:02x}"));
        let (cwd, path, other) = ("AT_FDCWD</>", hex("/data/a"), hex("/data/b"));
        let lines = [
            format!("7 1.0 openat({cwd}, \"{path}\", O_WRONLY|O_CREAT, 0666) = 3</data/a>"),
            "7 1.1 write(3</data/a>, \"\\x41\\x42\", 2) = 2".to_owned(),
            "7 1.2 write(3</data/a>, \"\\x43\", 1 <unfinished ...>".to_owned(),
            "8 1.3 fdatasync(3</data/a>) = 0".to_owned(),
            "7 1.4 <... write resumed>) = 1".to_owned(),
            "7 1.5 pwrite64(3</data/a>, \"\\x44\", 1, 9) = 1".to_owned(),
            format!("7 1.6 rename(\"{path}\", \"{other}\") = 0"),
            "7 1.7 write(5<socket:[1]>, \"\\x41\", 1) = 1".to_owned(),
        ];
        std::fs::write(&record, lines.join("\n")).unwrap();
        let events = read(&record, Path::new("/data")).unwrap();
        std::fs::remove_file(&record).unwrap();
        let seen: Vec<String> = events.iter().map(|event| format!("{:?}", event.change)).collect();
        assert_eq!(
            seen,
            [
                "Create { file: 0, path: \"/data/a\", truncate: false }",
                "Write { file: 0, offset: 0, data: [65, 66] }",
                "Sync { file: 0 }",
                "Write { file: 0, offset: 2, data: [67] }",
                "Write { file: 0, offset: 9, data: [68] }",
                "Rename { from: \"/data/a\", to: \"/data/b\" }",
            ]
        );
        assert_eq!(events[2].began_after, 2, "the write that was under way is not covered by the sync");
    }
}
