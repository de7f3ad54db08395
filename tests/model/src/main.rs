//! Checked models of the protocols of storage and queue: every order of steps of a few nodes, within bounds, with
//! answers that are lost, writes that land late, crashes and pauses.
//!
//! A model is a statement of rules. Each is an enum variant that says what is done and, in the test, which property
//! breaks without it; the code names the variant where it follows it. Properties begin with the number of the invariant
//! that they stand for (README.md lists those). Read `commit` first.
//!
//! `cargo test -p model` explores bounds that end in seconds, and removes each rule in turn; this program does the same,
//! goes on with wider bounds for as long as it is told and prints a line `result<TAB>…`.
#![allow(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod check;
mod commit;
mod page_collection;
mod quarantine;
mod queue;
mod references;

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clap::Parser;

use crate::check::{Checked, check_bounds, check_rules, holds_for};
use crate::commit::Commit;
use crate::page_collection::PageCollection;
use crate::quarantine::Quarantine;
use crate::queue::Queue;
use crate::references::References;

#[derive(Parser)]
struct Arguments {
    /// How long the wide bounds are explored, all of them together.
    #[arg(long)]
    minutes: u64,
}

fn main() -> Result<()> {
    let Arguments { minutes } = Arguments::parse();
    let models = [
        explore::<Commit>,
        explore::<PageCollection>,
        explore::<References>,
        explore::<Queue>,
        explore::<Quarantine>,
    ];
    let each = Duration::from_secs(minutes * 60) / models.len() as u32;
    let counts = models.iter().map(|explore| explore(each)).collect::<Result<Vec<String>>>()?;
    println!("result\tall rules, and each removed\t{}", counts.join(" "));
    Ok(())
}

/// Explores the bounds of a model, looks for the counterexample to each rule, and explores the wide bounds for so long.
/// Gives the states of the wide ones, and how many rules there are.
fn explore<M: Checked>(time: Duration) -> Result<String> {
    check_bounds::<M>().map_err(Error::msg)?;
    let rules = check_rules::<M>().map_err(Error::msg)?.len();
    let wide = M::wide();
    let each = time / wide.len().max(1) as u32;
    let mut states = 0;
    for (name, model) in wide {
        let began = Instant::now();
        let explored =
            holds_for(model, each).map_err(|error| Error::msg(format!("{}, {name}: {error}", M::NAME)))?;
        let end = if began.elapsed() < each { "all of them" } else { "no more time" };
        println!("{}, {name}: {} states, depth {}, {end}", M::NAME, explored.states, explored.depth);
        states += explored.states;
    }
    let name = M::NAME.replace(' ', "_");
    Ok(format!("{name}_states={states} {name}_rules={rules}"))
}
