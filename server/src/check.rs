//! `postrider check`: reads everything that is stored and holds it against itself. Nothing is repaired, but for what
//! every start does: what the last process left open is closed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use blob::KeyId;
use directory::look::{DomainState, RegistryState};
use engine::{LogId, State};
use mail::address::Address;
use mail::id::AccountId;
use queue::ShardId;
use queue::fold::ShardState;
use storage::CheckDepth;

use crate::args::Bodies;
use crate::config::Config;
use crate::maintenance::{self, Orphans};
use crate::wire::Ground;

/// Segments listed at once.
const SEGMENTS: usize = 256;

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
struct Found {
    logs: u64,
    entries: u64,
    pages: u64,
    accounts: u64,
    messages: u64,
    bodies: u64,
    segments: u64,
    frames: usize,
    orphans: Orphans,
    problems: Vec<String>,
}

impl Found {
    fn problem(&mut self, place: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{place}: {what}"));
    }
}

/// Checks a store that no server has open. An error says that something is wrong, or that it could not be looked at.
pub(crate) async fn run(config: &Config, bodies: Bodies) -> anyhow::Result<()> {
    if !crate::back_end::is_there(config) {
        bail!("{} holds no store", config.data.display());
    }
    let ground = Ground::open(config).await?;
    let mut found = Found::default();
    let outcome = everything(config, &ground, bodies, &mut found).await;
    ground.close().await;
    outcome?;
    tell(&config.data, &found);
    match found.problems.len() {
        0 => Ok(()),
        count => bail!("{count} problems were found"),
    }
}

async fn everything(
    config: &Config,
    ground: &Ground,
    bodies: Bodies,
    found: &mut Found,
) -> anyhow::Result<()> {
    let report = ground.directory.verify().await.context("directory")?;
    for finding in &report.findings {
        found.problem("directory", finding);
    }
    if let Some(log) = report.registry {
        log_of::<RegistryState>(ground, "registry", log, found).await;
    }
    for (name, log) in &report.logs {
        log_of::<DomainState>(ground, &format!("domain {name}"), *log, found).await;
    }
    shards(config, ground, found).await?;
    for (id, address) in &report.accounts {
        account(ground, *id, address, bodies, found).await;
    }
    segments(ground, found).await?;
    // No trouble, but room that could be had: what a process left that ended in the midst of a write.
    let age = Duration::from_secs(config.maintenance.age_seconds);
    found.orphans = maintenance::orphans(&ground.blobs, age, Duration::ZERO).await.context("segments")?;
    Ok(())
}

/// A log's entries, its snapshot and its archive.
async fn log_of<S: State>(ground: &Ground, place: &str, log: LogId, found: &mut Found) {
    let sealer = match ground.keys.sealer(KeyId::of_log(log)).await {
        Ok(sealer) => sealer,
        Err(error) => return found.problem(place, error),
    };
    match engine::verify::<S>(&ground.engine, log, sealer, Some(Arc::clone(&ground.archive))).await {
        Ok(verified) => {
            found.logs += 1;
            found.entries += verified.entries + verified.archived_entries;
            found.pages += verified.pages;
            for problem in verified.problems {
                found.problem(place, problem);
            }
        }
        Err(error) => found.problem(place, error),
    }
}

/// The queue's shards; outbound ones that never had an item do not exist.
async fn shards(config: &Config, ground: &Ground, found: &mut Found) -> anyhow::Result<()> {
    let ingest = (0..config.queue.ingest_shards).map(ShardId::ingest);
    let outbound = (0..config.queue.outbound_shards).map(ShardId::outbound);
    for shard in ingest.chain([ShardId::QUARANTINE]).chain(outbound) {
        let log = LogId::shard(shard.log_id());
        if ground.engine.log.head(log).await.context("queue")?.is_some() {
            log_of::<ShardState>(ground, &format!("shard {shard:?}"), log, found).await;
        }
    }
    Ok(())
}

async fn account(ground: &Ground, id: AccountId, address: &Address, bodies: Bodies, found: &mut Found) {
    let depth = match bodies {
        Bodies::Read => CheckDepth::Bodies,
        Bodies::Skip => CheckDepth::Metadata,
    };
    let place = format!("account {address}");
    found.accounts += 1;
    match ground.storage.check(id, depth).await {
        Ok(report) => {
            found.entries += report.operations;
            found.messages += report.messages;
            found.bodies += report.bodies;
            for problem in &report.problems {
                found.problem(&place, problem);
            }
            if report.problems_untold > 0 {
                found.problem(&place, format!("and {} more", report.problems_untold));
            }
        }
        Err(error) => found.problem(&place, error),
    }
}

async fn segments(ground: &Ground, found: &mut Found) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let listed = ground.blobs.blobs().list(after, SEGMENTS).await.context("segments")?;
        let Some(last) = listed.last() else { return Ok(()) };
        after = Some(last.segment);
        for info in listed {
            let place = format!("segment {}", info.segment);
            found.segments += 1;
            match ground.blobs.check_segment(info.segment).await {
                Ok(check) => {
                    found.frames += check.frames;
                    for (offset, what) in check.damaged {
                        found.problem(&place, format!("at {offset}: {what}"));
                    }
                }
                Err(error) => found.problem(&place, error),
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "telling what was found is what the command is for")]
fn tell(data: &Path, found: &Found) {
    for problem in &found.problems {
        println!("{problem}");
    }
    let Found { logs, entries, pages, accounts, messages, bodies, segments, frames, orphans, problems } =
        found;
    if orphans.segments > 0 {
        println!("nobody refers to {} segments of {} bytes", orphans.segments, orphans.bytes);
    }
    println!(
        "{}: {accounts} accounts with {messages} messages, {logs} other logs, {entries} entries, {pages} pages, {bodies} bodies \
        and {segments} segments with {frames} frames were checked; {} problems",
        data.display(),
        problems.len()
    );
}
