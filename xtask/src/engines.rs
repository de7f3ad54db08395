//! `cargo xtask engines`: real Cassandra, S3 and NATS, left running for tests and for trying things.

use std::path::PathBuf;
use std::time::Instant;

use ::engines::standing::{Named, Standing, Up};
use ::engines::{Identity, Options};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Which set; several may stand side by side.
    #[arg(long, global = true, default_value = "default")]
    name: String,
}

#[derive(Subcommand)]
enum Command {
    /// Starts them, fetches what is missing, and prints how to reach them.
    Up {
        /// Nodes of Cassandra, with 0.9 GB of memory each.
        #[arg(long, default_value_t = 1)]
        nodes: usize,
        /// Where data and logs go; a temporary folder when not given.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Stops them and removes their data; logs stay.
    Down,
    /// Says of each process where it is, whether it runs and what memory it holds.
    Status,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let named = Named::hold(&arguments.name)?;
    match &arguments.command {
        Command::Up { nodes, folder } => up(&named, *nodes, folder.clone()),
        Command::Down => down(&named),
        Command::Status => status(&named),
    }
}

fn up(named: &Named, nodes: usize, folder: Option<PathBuf>) -> Result<()> {
    check_nodes(nodes)?;
    let began = Instant::now();
    let options = Options { cassandra_nodes: nodes, s3: true, nats: true, folder, ..Options::default() };
    match named.up(&options)? {
        Up::Started(standing) => {
            println!(
                "# ready after {:.1} s; logs in {}",
                began.elapsed().as_secs_f32(),
                standing.folder.display()
            );
            print_access(&standing);
        }
        Up::Already(standing) if standing.configuration.is_empty() => {
            print_processes(&standing);
            bail!("an earlier start was cut off; `down` stops what it left");
        }
        Up::Already(standing) => {
            println!("# they are up already; logs in {}", standing.folder.display());
            print_processes(&standing);
            print_access(&standing);
        }
    }
    Ok(())
}

/// That so many nodes of Cassandra are something to test with.
pub(crate) fn check_nodes(nodes: usize) -> Result<()> {
    if nodes != 1 && nodes != 3 {
        bail!("one node, or three for three copies");
    }
    Ok(())
}

fn down(named: &Named) -> Result<()> {
    match named.down()? {
        Some(standing) => println!("stopped; logs stay in {}", standing.folder.display()),
        None => println!("nothing is up"),
    }
    Ok(())
}

fn status(named: &Named) -> Result<()> {
    match named.standing()? {
        Some(standing) => {
            print_processes(&standing);
            println!("# logs in {}", standing.folder.display());
        }
        None => println!("nothing is up"),
    }
    Ok(())
}

/// The configuration of a server that uses them, and what tests are told of them.
fn print_access(standing: &Standing) {
    println!("\n{}", standing.configuration);
    for (name, value) in &standing.environment {
        println!("export {name}={value}");
    }
}

/// A line for each.
pub(crate) fn print_processes(standing: &Standing) {
    for process in &standing.processes {
        print_process(&process.name, &process.address, Some(process.identity));
    }
}

/// Whether one runs, and what it holds.
pub(crate) fn print_process(name: &str, address: &str, process: Option<Identity>) {
    let state = if process.is_some_and(Identity::is_up) { "up" } else { "down" };
    let number = process.map(|process| process.number.to_string()).unwrap_or_default();
    let memory =
        process.and_then(Identity::resident_kib).map(|kib| format!("{} MiB", kib / 1024)).unwrap_or_default();
    println!("# {name:<12} {address:<22} process {number:<8} {state:<5} {memory}");
}
