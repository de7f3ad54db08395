//! The rows, their medians and their ratios.

use std::fmt::Write as _;

use anyhow::Result;

use crate::Plan;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Messages or operations in a second: more is better.
    PerSecond,
    /// Milliseconds: less is better.
    Milliseconds,
    /// KiB of memory: less is better; compared with an aim, not with a peer.
    KiB,
}

#[derive(Debug)]
struct Row {
    name: String,
    peer: String,
    unit: Unit,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    aim: String,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row with the figures of all rounds; `theirs` is empty for a row without a peer.
    pub(crate) fn add(
        &mut self,
        name: &str,
        peer: &str,
        unit: Unit,
        ours: Vec<f64>,
        theirs: Vec<f64>,
        aim: &str,
    ) {
        println!("{name} | {peer} | {ours:.1?} | {theirs:.1?} | aim {aim}");
        self.rows.push(Row { name: name.into(), peer: peer.into(), unit, ours, theirs, aim: aim.into() });
    }

    /// The page.
    pub(crate) fn markdown(&self, plan: &Plan) -> Result<String> {
        let mut text = String::from(
            "# Benchmarks\n\nWritten by `cargo xtask bench`: Postrider and the peer take turns within one run on one machine; figures are\n\
             medians, with every measurement in brackets. A ratio above 1 means that Postrider is faster.\n\n",
        );
        writeln!(text, "- Machine: {}", machine())?;
        writeln!(text, "- Rounds: {}", plan.rounds)?;
        text.push_str(
            "- Durability: Postrider answers after body and queue entry (or account entry) are synced (`fdatasync`, grouped). Postfix syncs\n  \
             each queue file before its 250 (its default). Dovecot `mail_fsync=optimized` (its default: saved mail is synced). smtp-sink\n  \
             stores nothing.\n\n| row | peer | Postrider | peer's figure | ratio | aim |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let unit = match row.unit {
                Unit::PerSecond => "/s",
                Unit::Milliseconds => " ms",
                Unit::KiB => " KiB",
            };
            let show = |figures: &[f64]| match median(figures) {
                Some(middle) => format!("{middle:.1}{unit} {figures:.1?}"),
                None => "–".into(),
            };
            let ratio = match (median(&row.ours), median(&row.theirs)) {
                (Some(ours), Some(theirs)) if ours > 0.0 && theirs > 0.0 => {
                    let ratio = if row.unit == Unit::PerSecond { ours / theirs } else { theirs / ours };
                    format!("{ratio:.2}×")
                }
                _ => "–".into(),
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {ratio} | {} |",
                row.name,
                row.peer,
                show(&row.ours),
                show(&row.theirs),
                row.aim
            )?;
        }
        text.push_str(BOUNDS);
        Ok(text)
    }
}

/// What is known of rows that miss their aim; written by hand.
const BOUNDS: &str = include_str!("../bounds.md");

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        None
    } else if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        Some(f64::midpoint(sorted[middle - 1], sorted[middle]))
    }
}

fn machine() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} × {cores} cores, {} GiB, Linux {}",
        model.map_or("unknown processor", |(_, name)| name),
        memory.unwrap_or_default() / 1024 / 1024,
        kernel.trim()
    )
}
