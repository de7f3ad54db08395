//! Postrider and its peers, measured in turns within one run on one machine, and one table of the ratios.
//!
//! Every figure comes from outside: the same program drives both sides over loopback. A peer keeps the durability
//! settings that are named beside the table; nothing is asserted here, `--smoke` only shows that every row runs.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod mailbox;
mod memory;
mod outbound;
mod peer;
mod smtp;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::table::Table;

/// What is measured, and how often.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Plan {
    /// Rounds per row; the sides take turns within one, and the medians are compared.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Where the table is written; nowhere when it is missing.
    #[arg(long)]
    output: Option<String>,
    /// One round of everything at a hundredth of its size.
    #[arg(long)]
    smoke: bool,
}

impl Plan {
    /// A size, made small for a smoke run.
    pub(crate) fn size(&self, full: usize) -> usize {
        if self.smoke { (full / 100).max(20) } else { full }
    }

    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|part| row.contains(part.as_str()))
    }
}

fn main() -> ExitCode {
    let mut plan = Plan::parse();
    if plan.smoke {
        plan.rounds = 1;
    }
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    smtp::accept(plan, &mut table)?;
    smtp::visible(plan, &mut table)?;
    mailbox::appends(plan, &mut table)?;
    mailbox::large(plan, &mut table)?;
    memory::large_message(plan, &mut table)?;
    memory::idle_sessions(plan, &mut table)?;
    outbound::through(plan, &mut table)?;
    outbound::latency(plan, &mut table)?;
    outbound::waiting(plan, &mut table)?;
    let text = table.markdown(plan)?;
    println!("{text}");
    if let (Some(output), false) = (&plan.output, plan.smoke) {
        std::fs::write(output, text)?;
    }
    Ok(())
}
