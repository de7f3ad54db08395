//! `cargo xtask cluster`: a whole cluster on this machine, to try things with. What starts it are the steps of
//! `docs/guide/cluster.md`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use cluster_tests::guide::{NODES, PASSWORD, Place};
use cluster_tests::standing::{Begun, Stands, Trial};

use crate::{ci, engines, process, tools};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Which cluster; several may stand side by side.
    #[arg(long, global = true, default_value = "default")]
    name: String,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the server, starts engines and three nodes with two accounts, and prints what to try.
    Up {
        /// Nodes of Cassandra, with 0.9 GB of memory each: three, or one, which is there sooner and keeps one copy.
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Where data and logs go; a temporary folder when not given.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Stops nodes and engines and removes their data; logs stay.
    Down,
    /// Says of each process where it is, whether it runs and what memory it holds.
    Status,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let trial = Trial::hold(&arguments.name)?;
    match &arguments.command {
        Command::Up { nodes, folder } => up(&trial, *nodes, folder.clone()),
        Command::Down => down(&trial),
        Command::Status => status(&trial),
    }
}

fn up(trial: &Trial, cassandra_nodes: usize, folder: Option<PathBuf>) -> Result<()> {
    engines::check_nodes(cassandra_nodes)?;
    if let Some(stands) = trial.standing()?
        && stands.runs()
    {
        return already(&stands);
    }
    let missing: Vec<&str> = ["curl", "openssl"].into_iter().filter(|tool| !tools::found(tool)).collect();
    if !missing.is_empty() {
        bail!("not found: {}", missing.join(", "));
    }
    let postrider = binary()?;
    println!(
        "# starting engines, {cassandra_nodes} of them nodes of Cassandra, and {NODES} nodes of Postrider: a minute or two"
    );
    match trial.up(&postrider, cassandra_nodes, folder)? {
        Begun::Started { stands, engines, nodes } => {
            println!(
                "# ready after {:.0} s: engines {:.0} s, nodes {:.0} s",
                (engines + nodes).as_secs_f32(),
                engines.as_secs_f32(),
                nodes.as_secs_f32()
            );
            print(&stands);
            Ok(())
        }
        Begun::Already(stands) => already(&stands),
    }
}

/// The server. In the dev profile, which is optimised here and compiled sooner than a release. Without tests, which a gate
/// that was run before has compiled with other features: who only wants to try things waits for the least.
fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("POSTRIDER_BIN") {
        return Ok(std::path::absolute(named)?);
    }
    println!("# building postrider in the dev profile; POSTRIDER_BIN names another binary");
    let began = Instant::now();
    process::run(&mut ci::cargo(&["build", "--locked", "--package", "server"])?)?;
    println!("# built after {:.0} s", began.elapsed().as_secs_f32());
    Ok(process::target()?.join("debug/postrider"))
}

fn already(stands: &Stands) -> Result<()> {
    if stands.place.is_none() {
        print(stands);
        bail!("an earlier start was cut off; `cargo xtask cluster down` stops what it left");
    }
    println!("# a cluster stands already");
    print(stands);
    Ok(())
}

fn down(trial: &Trial) -> Result<()> {
    match trial.down()? {
        Some(stands) => println!("stopped; logs stay in {}", stands.engines.folder.display()),
        None => println!("nothing is up"),
    }
    Ok(())
}

fn status(trial: &Trial) -> Result<()> {
    match trial.standing()? {
        Some(stands) => print(&stands),
        None => println!("nothing is up"),
    }
    Ok(())
}

fn print(stands: &Stands) {
    engines::print_processes(&stands.engines);
    for (index, process) in stands.nodes.iter().enumerate() {
        let node = index + 1;
        let address = stands.place.as_ref().map(|place| place.address(node)).unwrap_or_default();
        engines::print_process(&format!("node-{node}"), &address, *process);
    }
    println!("# data and logs in {}", stands.engines.folder.display());
    if let Some(place) = &stands.place {
        print_access(place);
    }
}

/// Where the nodes are, and what to try, as it can be typed.
fn print_access(place: &Place) {
    println!();
    for node in 1..=NODES {
        let at = place.address(node);
        println!(
            "# node {node}: smtp {at}:2525  submission {at}:2587  imaps {at}:2993  admin https://{at}:8443"
        );
    }
    let postrider = place.postrider().display();
    println!("# accounts alice@example.test and bob@example.test, each with the password «{PASSWORD}»");
    println!("\n# mail to node 1, and what node 2 shows of it; the certificates are the cluster's own");
    println!(
        "swaks --server {}:2525 --from someone@elsewhere.example --to alice@example.test --header 'Subject: hello' --body hello",
        place.address(1)
    );
    println!(
        "curl -sk imaps://{}:2993/INBOX -u 'alice@example.test:{PASSWORD}' -X 'FETCH 1:* (FLAGS ENVELOPE)'",
        place.address(2)
    );
    println!("# the nodes, as node 3 sees them");
    println!("{postrider} cluster status --config {}/node-3/postrider.toml", place.folder().display());
    println!("\n# for docs/guide/cluster.md from «status» on");
    for (name, value) in place.variables() {
        println!("export {name}={value}");
    }
}
