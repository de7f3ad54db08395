//! What servers under test count of their own work, added up over their lives. A campaign in which no snapshot was
//! written says nothing about snapshots, so none of them may stay at zero.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::server::{EVENTFUL, Options, Server};

/// Metric, its name in a result line, and whether a run in which it stays at zero has tested nothing. Conflicts and
/// unknown outcomes need a second node or an engine that is far away: here they are shown and not asked for.
const COUNTED: [(&str, &str, bool); 9] = [
    ("postrider_log_groups_total", "entries", true),
    ("postrider_log_snapshots_total", "snapshots", true),
    ("postrider_log_swings_total", "swung", true),
    ("postrider_log_trims_total", "trims", true),
    ("postrider_log_archive_chunks_total", "archived_chunks", true),
    ("postrider_log_pages_collected_total", "pages_collected", true),
    ("postrider_log_loads_total", "loads", true),
    ("postrider_log_conflicts_total", "conflicts", false),
    ("postrider_log_unknowns_total", "unknowns", false),
];

/// The counts of all servers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts([u64; COUNTED.len()]);

impl Counts {
    /// Adds what a server that is about to end has counted since its start.
    pub(crate) fn add(&mut self, server: &Server) -> Result<()> {
        self.add_text(&server.metrics()?)
    }

    fn add_text(&mut self, metrics: &str) -> Result<()> {
        for (sum, (metric, ..)) in self.0.iter_mut().zip(COUNTED) {
            for line in metrics.lines() {
                if let Some(value) = line.strip_prefix(metric).and_then(|rest| rest.strip_prefix(' ')) {
                    *sum += value.parse::<u64>().with_context(|| line.to_owned())?;
                }
            }
        }
        Ok(())
    }

    /// An error when something did not happen at all.
    pub(crate) fn require(&self) -> Result<()> {
        for (count, (metric, _, required)) in self.0.iter().zip(COUNTED) {
            if required && *count == 0 {
                bail!("{metric} stayed at zero, so it was not tested: {self}");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, (_, name, _))) in self.0.iter().zip(COUNTED).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={count}")?;
        }
        Ok(())
    }
}

/// How to start a server in this data folder whose seldom events happen often. The configuration lies beside the folder.
pub(crate) fn options(data: &Path) -> Result<Options> {
    let file = data.with_extension("toml");
    if let Some(parent) = data.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&file, EVENTFUL)?;
    let mut options = Options::new(data);
    options.arguments = vec!["--config".to_owned(), file.to_string_lossy().into_owned()];
    Ok(options)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn counts_add_up_and_none_may_be_missing() {
        let mut counts = Counts::default();
        let mut text = String::new();
        for (metric, ..) in COUNTED.iter().take(7) {
            writeln!(text, "# TYPE {metric} counter\n{metric} 2\n{metric}_more 5\n").unwrap();
        }
        counts.add_text(&text).unwrap();
        counts.add_text("postrider_log_trims_total 3\n").unwrap();
        assert_eq!(
            counts.to_string(),
            "entries=2 snapshots=2 swung=2 trims=5 archived_chunks=2 pages_collected=2 loads=2 conflicts=0 unknowns=0"
        );
        counts.require().unwrap();
        let mut without = Counts::default();
        without.add_text(&text.replace("postrider_log_trims_total", "something_else")).unwrap();
        assert!(without.require().unwrap_err().to_string().contains("postrider_log_trims_total"));
        assert!(counts.add_text("postrider_log_trims_total x\n").is_err());
    }
}
