//! Real mail.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Its messages, of the folder that `POSTRIDER_CORPUS` names: name and bytes, in a fixed order.
pub fn messages() -> Result<Vec<(String, Vec<u8>)>> {
    let root =
        PathBuf::from(std::env::var_os("POSTRIDER_CORPUS").context("POSTRIDER_CORPUS names the test mail")?);
    let mut messages = Vec::new();
    for part in ["spam-assassin", "cpython"] {
        for entry in std::fs::read_dir(root.join(part))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            messages.push((format!("{part}/{name}"), std::fs::read(&path)?));
        }
    }
    messages.sort();
    Ok(messages)
}
