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
    let config = Config::read(file)?;
    let mut keyspaces = vec![config.cql.clone()];
    if config.regions.here()?.is_some() {
        keyspaces.push(config.regions.table(&config.cql));
    }
    let mut trouble = Vec::new();
    for keyspace in &keyspaces {
        let what = || format!("keyspace {}", keyspace.keyspace);
        match command {
            SchemaCommand::Print { .. } => {
                print::line(Cql::schema_text(keyspace).await.with_context(what)?.trim_end());
            }
            SchemaCommand::Apply { .. } => {
                let state = Cql::apply_schema(keyspace).await.with_context(what)?;
                print::line(&format!("keyspace {} has version {}", keyspace.keyspace, state.found));
            }
            SchemaCommand::Check { .. } => trouble.extend(check(keyspace).await.with_context(what)?),
        }
    }
    match trouble.first() {
        Some(trouble) => bail!("{trouble}"),
        None => Ok(()),
    }
}

/// Says what is there, and what is wrong enough to fail.
async fn check(keyspace: &engine_cql::Config) -> anyhow::Result<Option<&'static str>> {
    let (state, findings) = Cql::check(keyspace).await?;
    print::line(&format!(
        "keyspace {} has version {}, this release needs {}",
        keyspace.keyspace, state.found, state.needed
    ));
    for finding in &findings {
        let node = if finding.node.is_empty() { "all nodes" } else { &finding.node };
        print::line(&format!("{:?}: {node}: {}", finding.severity, finding.text));
    }
    if findings.iter().any(|finding| finding.severity == Severity::Danger) {
        return Ok(Some("acknowledged mail could be lost"));
    }
    Ok((state.found != state.needed).then_some("the schema is not the one of this release"))
}
