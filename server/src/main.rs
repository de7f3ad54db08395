//! `postrider`: the binary. It reads the command line and the configuration, puts the crates together, and runs them.
//!
//! Start reading at `wire`, which is the only place that knows every crate, then `run`, which is a server's life.

mod args;
mod audit;
mod back_end;
mod check;
mod cluster;
mod config;
mod ctl;
mod dev;
mod health;
mod index;
mod level;
mod logins;
mod logs;
mod maintenance;
mod memory;
mod metrics;
mod migration;
mod privilege;
mod regions;
mod role;
mod run;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{AccountCommand, Arguments, ClusterCommand, Command, ConfigCommand, RegionsCommand};
use crate::config::Config;
use crate::run::Mode;

fn main() -> ExitCode {
    memory::set_up();
    let command = match Arguments::parse().command {
        Command::ExtractText { arguments } => return search::attachment::serve(arguments),
        command => command,
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postrider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Dev(dev) => {
            let config = dev::config(&dev)?;
            logs::start(&config.log)?;
            let made = config.clone();
            let prepare = async move |started: run::Started<'_>| dev::prepare(started, &made).await;
            runtime()?.block_on(Box::pin(run::serve(config, None, Mode::Development, prepare)))
        }
        Command::Serve { config: file } => {
            let config = Config::read(&file)?;
            // Before there is any other thread.
            privilege::become_user(&config.user)?;
            logs::start(&config.log)?;
            let prepare = async |_: run::Started<'_>| Ok(String::new());
            runtime()?.block_on(Box::pin(run::serve(config, Some(file), Mode::Configured, prepare)))
        }
        Command::Config(ConfigCommand::PrintDefaults) => {
            print_defaults();
            Ok(())
        }
        Command::Config(ConfigCommand::Check { file }) => Config::read(&file).map(drop),
        Command::Check { store, bodies } => {
            let config = Config::of_store(&store)?;
            logs::start(&config.log)?;
            runtime()?.block_on(Box::pin(check::run(&config, bodies)))
        }
        Command::Migrate { to, reach } => runtime()?.block_on(Box::pin(ctl::migrate(&to, &reach))),
        Command::Account(AccountCommand::Move { address, region, to, store }) => {
            runtime()?.block_on(Box::pin(ctl::account_move(&address, &region, &to, &store)))
        }
        Command::Cluster(ClusterCommand::Regions(RegionsCommand::Register { store })) => {
            runtime()?.block_on(Box::pin(ctl::register_names(&store)))
        }
        Command::Cluster(ClusterCommand::Schema(command)) => {
            runtime()?.block_on(Box::pin(ctl::schema(command)))
        }
        command => runtime()?.block_on(Box::pin(ctl::run(command))),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print_defaults() {
    print!("{}", include_str!("config/defaults.toml"));
}
