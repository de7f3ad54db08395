//! Programs made from Go modules, pinned, once per user in the cache folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{self, command};

/// A program and the package that it is made from.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) package: &'static str,
}

impl Program {
    /// The program, to be run in the root folder; made first if it is not there, which takes minutes.
    pub(crate) fn command(&self) -> Result<Command> {
        Ok(command(&self.get()?.to_string_lossy(), [] as [&str; 0]))
    }

    /// It is made under another name and renamed when it is complete, so what was cut off leaves nothing that counts; who
    /// comes second waits for the first and finds its work done.
    fn get(&self) -> Result<PathBuf> {
        let folder = process::cache().join("go");
        let path = folder.join(format!("{}-{}", self.name, self.version));
        if path.is_file() {
            return Ok(path);
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let lock = File::create(folder.join(format!("{}-{}.lock", self.name, self.version)))?;
        lock.lock().context("waiting for another build")?;
        if !path.is_file() {
            let aside = folder.join(format!("{}-{}.making", self.name, self.version));
            self.make(&aside).with_context(|| format!("making {} {}", self.name, self.version))?;
            fs::rename(aside.join(self.name), &path).with_context(|| path.display().to_string())?;
            fs::remove_dir_all(&aside)?;
        }
        Ok(path)
    }

    fn make(&self, folder: &Path) -> Result<()> {
        println!("making {} {} in {}", self.name, self.version, folder.display());
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let package = format!("{}@v{}", self.package, self.version);
        process::run(command("go", ["install", package.as_str()]).env("GOBIN", folder))?;
        ensure!(folder.join(self.name).is_file(), "{package} brought no program {}", self.name);
        Ok(())
    }
}
