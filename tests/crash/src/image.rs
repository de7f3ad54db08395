//! What a disk may hold after the power is cut: what was synced, and of the rest nothing, all, or torn pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rand::Rng;
use rand::rngs::StdRng;

use crate::strace::{Change, Event};

/// What becomes of writes that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Dropped,
    Kept,
    Torn,
}

impl Unsynced {
    pub(crate) const ALL: [Self; 3] = [Self::Dropped, Self::Kept, Self::Torn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dropped => "unsynced writes dropped",
            Self::Kept => "unsynced writes kept",
            Self::Torn => "unsynced writes torn",
        }
    }
}

/// A disk while events are played to it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: Vec<Inode>,
    /// Names as a running system sees them.
    names: BTreeMap<PathBuf, usize>,
    /// Names that survive: those of a folder when it was last synced, and those of files that were synced.
    durable_names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    /// Folders whose new name no sync of the folder above has covered.
    renamed: Vec<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    /// Index of the event, and what it did.
    pending: Vec<(usize, Pending)>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: u64, data: Vec<u8> },
    Length { length: u64, grow_only: bool },
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let start = *offset as usize;
                if content.len() < start + data.len() {
                    content.resize(start + data.len(), 0);
                }
                content[start..start + data.len()].copy_from_slice(data);
            }
            Self::Length { length, grow_only } => {
                if !*grow_only || content.len() < *length as usize {
                    content.resize(*length as usize, 0);
                }
            }
        }
    }
}

impl Disk {
    /// Plays the event with this index.
    pub(crate) fn play(&mut self, index: usize, event: &Event) {
        match &event.change {
            Change::Folder(path) => {
                self.folders.insert(path.clone());
            }
            Change::Create { file, path, truncate } => {
                if *truncate {
                    self.files[*file].pending.push((index, Pending::Length { length: 0, grow_only: false }));
                } else {
                    self.files.resize(self.files.len().max(file + 1), Inode::default());
                    self.names.insert(path.clone(), *file);
                }
            }
            Change::Write { file, offset, data } => {
                let write = Pending::Write { offset: *offset, data: data.clone() };
                self.files[*file].pending.push((index, write));
            }
            Change::Length { file, length, grow_only } => {
                let change = Pending::Length { length: *length, grow_only: *grow_only };
                self.files[*file].pending.push((index, change));
            }
            Change::Rename { from, to } => {
                rename_below(&mut self.names, from, to);
                if self.folders.remove(from) {
                    self.folders.insert(to.clone());
                    self.renamed.push((from.clone(), to.clone()));
                }
            }
            Change::Link { file, to } => {
                self.names.insert(to.clone(), *file);
            }
            Change::Unlink(path) => {
                self.names.remove(path);
            }
            Change::RemoveFolder(path) => {
                self.folders.remove(path);
            }
            Change::Sync { file } => {
                let inode = &mut self.files[*file];
                let (covered, left) =
                    inode.pending.drain(..).partition(|(written, _)| *written < event.began_after);
                inode.pending = left;
                let covered: Vec<(usize, Pending)> = covered;
                for (_, change) in covered {
                    change.apply(&mut inode.durable);
                }
                // The usual file systems write the name of a new file together with its first sync.
                if !self.durable_names.values().any(|known| known == file) {
                    let names = self.names.iter().filter(|(_, named)| *named == file);
                    self.durable_names.extend(names.map(|(name, file)| (name.clone(), *file)));
                }
            }
            Change::SyncFolder(path) => {
                for (from, to) in self.renamed.extract_if(.., |(_, to)| to.parent() == Some(path)) {
                    rename_below(&mut self.durable_names, &from, &to);
                }
                self.durable_names.retain(|name, _| name.parent() != Some(path));
                let names = self.names.iter().filter(|(name, _)| name.parent() == Some(path));
                self.durable_names.extend(names.map(|(name, file)| (name.clone(), *file)));
            }
        }
    }

    /// Writes the image of the disk, with paths below `root` going below `target`.
    pub(crate) fn write(
        &self,
        root: &Path,
        target: &Path,
        unsynced: Unsynced,
        random: &mut StdRng,
    ) -> Result<()> {
        fs::create_dir_all(target)?;
        for folder in &self.folders {
            fs::create_dir_all(target.join(folder.strip_prefix(root)?))?;
        }
        // With everything kept, the names are those that the running system saw; otherwise those known to survive.
        let names = if unsynced == Unsynced::Kept { &self.names } else { &self.durable_names };
        for (name, file) in names {
            let path = target.join(name.strip_prefix(root)?);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            write_sparse(&path, &self.content(*file, unsynced, random))?;
        }
        Ok(())
    }

    fn content(&self, file: usize, unsynced: Unsynced, random: &mut StdRng) -> Vec<u8> {
        let inode = &self.files[file];
        let mut content = inode.durable.clone();
        for (_, change) in &inode.pending {
            match unsynced {
                Unsynced::Dropped => {}
                Unsynced::Kept => change.apply(&mut content),
                Unsynced::Torn => tear(change, &mut content, random),
            }
        }
        content
    }

    /// Compares the running system's view with a real folder: the record has missed nothing.
    pub(crate) fn compare(&self, root: &Path) -> Result<()> {
        use rand::SeedableRng;
        let mut random = StdRng::seed_from_u64(0);
        for (name, file) in &self.names {
            let real = fs::read(name)?;
            let played = self.content(*file, Unsynced::Kept, &mut random);
            if real != played {
                let at = real.iter().zip(&played).position(|(a, b)| a != b);
                bail!(
                    "{}: {} bytes, the record says {} (first difference {at:?})",
                    name.display(),
                    real.len(),
                    played.len()
                );
            }
        }
        let mut real = 0;
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    real += 1;
                    if !self.names.contains_key(&entry.path()) {
                        bail!("{} is not in the record", entry.path().display());
                    }
                }
            }
        }
        if real != self.names.len() {
            bail!("{real} files, the record has {}", self.names.len());
        }
        Ok(())
    }
}

/// Gives what lies at or below a name another one.
fn rename_below(names: &mut BTreeMap<PathBuf, usize>, from: &Path, to: &Path) {
    let below: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
    for name in below {
        if let (Some(file), Ok(rest)) = (names.remove(&name), name.strip_prefix(from)) {
            let target = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
            names.insert(target, file);
        }
    }
}

/// Applies a write in part: whole sectors of it, or none; a change of length happens or not.
fn tear(change: &Pending, content: &mut Vec<u8>, random: &mut StdRng) {
    const SECTOR: usize = 512;
    match change {
        Pending::Length { .. } => {
            if random.random_bool(0.5) {
                change.apply(content);
            }
        }
        Pending::Write { offset, data } => {
            let mut start = 0;
            while start < data.len() {
                let boundary = SECTOR - (*offset as usize + start) % SECTOR;
                let end = (start + boundary).min(data.len());
                if random.random_bool(0.6) {
                    let piece =
                        Pending::Write { offset: offset + start as u64, data: data[start..end].to_vec() };
                    piece.apply(content);
                }
                start = end;
            }
        }
    }
}

fn write_sparse(path: &Path, content: &[u8]) -> Result<()> {
    // The server's files are its own; a key file that others may read is refused.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_len(content.len() as u64)?;
    for (index, chunk) in content.chunks(64 * 1024).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, index as u64 * 64 * 1024)?;
        }
    }
    Ok(())
}
