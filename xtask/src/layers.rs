//! The layer rule: imports go down only, and sideways only along a short list of edges.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// Each package and its layer. A package that is missing here fails the check, so a new crate has to be placed.
const LAYERS: &[(&str, u8)] = &[
    ("mail", 0),
    ("machine", 1),
    ("sasl", 1),
    ("smtp-protocol", 1),
    ("imap-protocol", 1),
    ("jmap-protocol", 1),
    ("net", 2),
    ("engine", 2),
    ("blob", 2),
    ("blob-s3", 2),
    ("engine-embedded", 2),
    ("engine-cql", 2),
    ("engine-move", 2),
    ("cluster", 2),
    ("storage", 3),
    ("directory", 3),
    ("queue", 3),
    ("region", 3),
    ("search", 3),
    ("smtp-in", 4),
    ("delivery", 4),
    ("smtp-out", 4),
    ("imap", 4),
    ("webmail-api", 4),
    ("server", 5),
];

/// Edges between packages of one layer, user first.
const SIDEWAYS: &[(&str, &str)] = &[
    ("sasl", "machine"),
    ("smtp-protocol", "machine"),
    ("imap-protocol", "machine"),
    ("smtp-protocol", "sasl"),
    ("imap-protocol", "sasl"),
    ("blob", "engine"),
    ("blob-s3", "blob"),
    ("engine-embedded", "engine"),
    ("engine-cql", "engine"),
    ("engine-move", "engine"),
    ("engine-move", "blob"),
    ("cluster", "engine"),
    ("queue", "storage"),
    ("search", "storage"),
    ("region", "directory"),
];

/// Packages outside of the layers: they test or build the others.
const OUTSIDE: &[&str] = &[
    "xtask",
    "testkit",
    "engines",
    "model",
    "cluster-tests",
    "simulation",
    "end-to-end",
    "crash",
    "bench",
    "conformance",
    "fuzz-targets",
];

/// Reads the edges from `cargo metadata` and fails on the first set that breaks the rule.
pub(crate) fn run() -> Result<()> {
    let text = process::output(&mut process::command(
        "cargo",
        ["metadata", "--format-version", "1", "--no-deps", "--offline"],
    ))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let mut edges = Vec::new();
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests may look at whatever they need; only what is shipped has layers.
            if dependency["kind"] != Value::String("dev".into()) && dependency["path"].is_string() {
                edges.push((name.clone(), dependency["name"].as_str().unwrap_or_default().to_owned()));
            }
        }
        packages.push(name);
    }
    let faults = faults(&packages, &edges);
    if !faults.is_empty() {
        bail!("layers: {}", faults.join("\nlayers: "));
    }
    println!("layers: {} packages, {} edges, each goes down or is listed", packages.len(), edges.len());
    Ok(())
}

fn faults(packages: &[String], edges: &[(String, String)]) -> Vec<String> {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut faults: Vec<String> = packages
        .iter()
        .filter(|name| !layers.contains_key(name.as_str()) && !OUTSIDE.contains(&name.as_str()))
        .map(|name| format!("{name} has no layer"))
        .collect();
    for (user, used) in edges {
        if OUTSIDE.contains(&user.as_str()) {
            continue;
        }
        let (Some(above), Some(below)) = (layers.get(user.as_str()), layers.get(used.as_str())) else {
            faults.push(format!("{user} → {used}: not part of the layers"));
            continue;
        };
        let listed = SIDEWAYS.contains(&(user.as_str(), used.as_str()));
        if below > above || (below == above && !listed) {
            faults.push(format!("{user} (L{above}) → {used} (L{below})"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&str, &str)]) -> Vec<String> {
        let edges: Vec<_> = edges.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        faults(&["mail".to_owned()], &edges)
    }

    #[test]
    fn refuses_upward_and_unlisted_sideways_edges() {
        assert!(check(&[("imap", "storage"), ("blob", "engine"), ("xtask", "server")]).is_empty());
        assert_eq!(check(&[("mail", "imap")]).len(), 1);
        assert_eq!(check(&[("imap", "smtp-in")]).len(), 1);
        assert_eq!(check(&[("imap", "testkit")]).len(), 1);
        assert_eq!(faults(&["stray".to_owned()], &[]).len(), 1);
    }
}
