//! `postrider cluster schema`: works on the engine's nodes themselves, whether a server runs or not.

use anyhow::{Context, bail};
use engine_cql::{Cql, Severity};

use super::print;
use crate::args::SchemaCommand;
use crate::config::Config;

/// Carries out one of the commands. An error also says that mail would be lost as things are set up.
pub(crate) async fn run(command: SchemaCommand) -> anyhow::Result<()> {
    let file = match &command {
        SchemaCommand::Print { config }
        | SchemaCommand::Apply { config }
        | SchemaCommand::Check { config } => config,
    };
    let config = Config::read(file)?.cql;
    match command {
        SchemaCommand::Print { .. } => {
            print::line(Cql::schema_text(&config).await.context("cql")?.trim_end());
        }
        SchemaCommand::Apply { .. } => {
            let state = Cql::apply_schema(&config).await.context("cql")?;
            print::line(&format!("keyspace {} has version {}", config.keyspace, state.found));
        }
        SchemaCommand::Check { .. } => {
            let (state, findings) = Cql::check(&config).await.context("cql")?;
            print::line(&format!(
                "keyspace {} has version {}, this release needs {}",
                config.keyspace, state.found, state.needed
            ));
            for finding in &findings {
                let node = if finding.node.is_empty() { "all nodes" } else { &finding.node };
                print::line(&format!("{:?}: {node}: {}", finding.severity, finding.text));
            }
            if findings.iter().any(|finding| finding.severity == Severity::Danger) {
                bail!("acknowledged mail could be lost");
            }
            if state.found != state.needed {
                bail!("the schema is not the one of this release");
            }
        }
    }
    Ok(())
}
