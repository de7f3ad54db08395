//! `cargo xtask earlier COMMIT`: the server of an earlier commit, for tests in which two releases run side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{self, command};

/// The binary of a commit in the dev profile, built once and kept in the cache folder.
pub(crate) fn binary(commit: &str) -> Result<PathBuf> {
    let named = format!("{commit}^{{commit}}");
    let full = process::output(&mut command("git", ["rev-parse", "--verify", &named]))?.trim().to_owned();
    let folder = process::cache().join("earlier");
    let kept = folder.join(&full).join("postrider");
    if kept.is_file() {
        return Ok(kept);
    }
    std::fs::create_dir_all(folder.join(&full))?;
    let tree = folder.join("tree").join(&full);
    let shown = tree.to_string_lossy().into_owned();
    process::output(&mut command("git", ["worktree", "add", "--force", "--detach", &shown, &full]))?;
    // In a target folder of its own: what it builds has the same name as what is tested beside it.
    let built = build(&tree, &folder.join("target"));
    process::output(&mut command("git", ["worktree", "remove", "--force", &shown]))?;
    // Moved into place, so that nobody takes half of it.
    let fresh = kept.with_extension("new");
    std::fs::copy(built?, &fresh).context("the binary")?;
    std::fs::rename(fresh, &kept)?;
    Ok(kept)
}

fn build(tree: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = command("cargo", ["build", "--locked", "--package", "server"]);
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "0");
    process::output(&mut cargo)?;
    Ok(target.join("debug/postrider"))
}
