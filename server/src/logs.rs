//! The process's own log: tracing to standard error, as text or as JSON.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How the process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module, `info,imap=debug`.
    /// The environment variable `POSTRIDER_LOG` overrides it.
    pub(crate) filter: String,
    /// `text` for people, `json` for machines: one object a line.
    pub(crate) format: Format,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { filter: "info,fjall=warn,lsm_tree=warn".to_owned(), format: Format::Text }
    }
}

/// Starts logging, once in a process.
pub(crate) fn start(config: &Config) -> anyhow::Result<()> {
    let filter = std::env::var("POSTRIDER_LOG").unwrap_or_else(|_| config.filter.clone());
    let filter: Targets = filter.parse().with_context(|| format!("log filter {filter:?}"))?;
    // A log that cannot be written (its disk is full) must not end the session that wanted to say something: the
    // default complains on standard error, and panics when that fails too.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match config.format {
        Format::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}
