//! `postrider migrate`: asks the running server to move, and shows how far it is; without a server this process moves.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::Method;
use engine_move::{Moving, Standing};
use serde_json::{Value, json};

use super::client::{Client, Needs};
use super::print;
use crate::args::Reach;
use crate::back_end::{self, Side};
use crate::config::Config;

const PATH: &str = "/admin/v1/migrate";
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Characters of a whole bar.
const BAR: u64 = 30;

/// Moves. Ends when everything has moved, or cannot.
pub(crate) async fn run(to: &Path, reach: &Reach) -> anyhow::Result<()> {
    let to = match reach.url {
        Some(_) => to.to_owned(),
        None => std::path::absolute(to).context("--to")?,
    };
    if reach.url.is_none() {
        let config = Config::of_store(&reach.store)?;
        if tokio::net::UnixStream::connect(config.admin_socket()).await.is_err()
            && complete(&config, &to).await?
        {
            print::line("everything has moved");
            return Ok(());
        }
    }
    let client = Client::connect(reach, Needs::Directory).await?;
    let outcome = match &client {
        Client::Process { ground, .. } => {
            let migration = ground.migration().clone();
            watched(
                &to,
                async {
                    migration.open(&to).await?;
                    migration.run().await
                },
                || migration.view(),
            )
            .await
        }
        _ => asked(&client, &to, reach.json).await,
    };
    client.close().await;
    outcome
}

/// Makes good what a process left that died before its last step.
async fn complete(config: &Config, to: &Path) -> anyhow::Result<bool> {
    if !back_end::is_there(config) {
        return Ok(false);
    }
    let source = Box::pin(Side::open(config)).await?;
    let outcome = completed(&source, config, to).await;
    source.close().await;
    outcome
}

async fn completed(source: &Side, config: &Config, to: &Path) -> anyhow::Result<bool> {
    match Standing::away(&*source.engine.rows).await? {
        Some(away) if away.done => {
            if !back_end::hand_over(source, to).await? {
                bail!("everything has moved before: start with {}", away.place);
            }
            Ok(true)
        }
        _ if !config.in_cluster() => Ok(false),
        None => bail!("start one node of the cluster, and no other: its server is the one that moves"),
        Some(away) => {
            // Begun where this command is given, and perhaps not written down at the other side. A node that starts
            // does not do that: it might be on another machine.
            let target = Box::pin(Side::open(&Config::read(to)?)).await.context("the other side")?;
            let moving = Moving::new(source.engine.clone());
            let begun = moving.begin(target.engine.clone(), &away.place).await;
            drop(moving);
            target.close().await;
            begun?;
            bail!(
                "start the node of the cluster on this machine again, and no other: it goes on with the move"
            );
        }
    }
}

/// The server moves.
async fn asked(client: &Client, to: &Path, json: bool) -> anyhow::Result<()> {
    let to = to.to_str().context("--to is not UTF-8")?;
    client.send(Method::POST, PATH, Some(&json!({ "to": to }))).await?;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(view) = client.send(Method::GET, PATH, None).await? else { bail!("nothing moves") };
        if json {
            print::line(&view.to_string());
        } else {
            show(&view);
        }
        if view["stage"] == "done" {
            print::line("\neverything has moved: stop the server, and start it with the other configuration");
            return Ok(());
        }
        if view["running"] != Value::Bool(true) {
            bail!("it does not go on: {}", view["trouble"].as_str().unwrap_or("the server does not say why"));
        }
    }
}

/// This process moves.
async fn watched(
    to: &Path,
    work: impl Future<Output = anyhow::Result<bool>>,
    view: impl Fn() -> Option<webmail_api::admin::migration::MigrationView>,
) -> anyhow::Result<()> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                if !done? {
                    bail!("it was stopped");
                }
                print::line(&format!("\neverything has moved: start the server with {}", to.display()));
                return Ok(());
            }
            () = tokio::time::sleep(PAUSE) => {
                if let Some(view) = view() {
                    show(&serde_json::to_value(view)?);
                }
            }
        }
    }
}

/// One line that is written over.
#[expect(clippy::print_stdout, reason = "showing how far it is is what the command is for")]
fn show(view: &Value) {
    let number = |name: &str| view[name].as_u64().unwrap_or_default();
    let (done, total) = match view["stage"].as_str() {
        Some("segments") => (number("segments_done"), number("segments_total")),
        _ => (number("logs_done"), number("logs_total")),
    };
    let full = (done * BAR).checked_div(total).unwrap_or(0).min(BAR);
    let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
    let seconds = view["seconds"].as_f64().unwrap_or_default().max(1.0);
    let rate = number("bytes") as f64 / seconds / 1_048_576.0;
    let trouble = view["trouble"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    print!(
        "\r[{bar}] {:<8} {done}/{total}, {} rows, {rate:.1} MiB/s{trouble}\u{1b}[K",
        view["stage"].as_str().unwrap_or_default(),
        number("rows")
    );
    let _ = std::io::stdout().flush();
}
