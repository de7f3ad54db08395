//! The end of a run: everything comes to rest, and is read as each node shows it and as it is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use directory::Resolution;
use engine::LogId;
use futures_util::TryStreamExt;
use mail::id::AccountId;
use queue::{ShardId, ShardKind, Standing};
use simulation::ledger::{Found, Row};
use storage::{Account, CheckDepth, Principal};

use crate::clients::{Imap, text};
use crate::follow::{Follower, fetched};
use crate::load::{ACCOUNTS, MAILBOXES, SENDER, notice};
use crate::node::{Services, address, faultless};
use crate::world::{NODES, World};

/// How long it may take until the queue is empty; with a clock that was wrong, until what it put off has come.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
const CLOCK_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long it may take until a node answers and shows everything.
const NODE_PATIENCE: u32 = 40;
/// Items that are read at once: more than a run has.
const ITEMS_MAX: usize = 100_000;

/// Waits for rest, reads everything and gives what is wrong.
pub(crate) async fn judge(world: &Arc<World>, followers: &mut [Follower]) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(error) = settle(world).await {
        wrong.push(format!("{error:#}"));
    }
    match stored(world).await {
        Ok((found, problems)) => {
            wrong.extend(problems);
            wrong.extend(world.ledger.lock().judge(&found));
            for follower in followers {
                wrong.extend(compare_follower(world, follower, &found).await);
            }
            for node in 0..NODES {
                if let Err(error) = compare_node(node, &found).await {
                    wrong.push(format!("node {node}: {error:#}"));
                }
            }
        }
        Err(error) => wrong.push(format!("what is stored cannot be read: {error:#}")),
    }
    wrong
}

/// Until nothing is in the queue.
async fn settle(world: &Arc<World>) -> Result<()> {
    let patience = if world.counts().of("clock") > 0 { CLOCK_PATIENCE } else { SETTLE_PATIENCE };
    let until = tokio::time::Instant::now() + patience;
    loop {
        // What was lost on its way and is to arrive arrives before.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let services = faultless(world, true).await?;
        let mut open = Vec::new();
        for kind in [ShardKind::Ingest, ShardKind::Outbound, ShardKind::Quarantine] {
            open.extend(services.queue.list(kind, ITEMS_MAX).await?);
        }
        services.close();
        if open.is_empty() {
            return Ok(());
        }
        let left = open.len();
        ensure!(
            tokio::time::Instant::now() < until,
            "unfinished: {left} items are in the queue: {:?}",
            open[0]
        );
    }
}

/// What is stored, for a process that knows nothing else, and what is wrong with it in itself.
async fn stored(world: &Arc<World>) -> Result<(Found, Vec<String>)> {
    let services = faultless(world, true).await?;
    let (mut found, mut wrong) = (Found::new(), Vec::new());
    for name in ACCOUNTS.into_iter().chain([SENDER]) {
        let id = account_of(&services, name).await?;
        wrong.extend(dense(world, LogId::account(id.0)));
        let account = services.storage.account(&Principal::Operator, id).await?;
        found.insert(name.to_owned(), mailboxes_of(&account, name, &mut wrong).await?);
        let report = services.storage.check(id, CheckDepth::Bodies).await?;
        wrong.extend(report.problems.into_iter().map(|problem| format!("check of {name}: {problem}")));
    }
    for index in 0..services.queue.config().ingest_shards {
        wrong.extend(dense(world, LogId::shard(ShardId::ingest(index).log_id())));
    }
    wrong.extend(dense(world, LogId::shard(ShardId::QUARANTINE.log_id())));
    let mut ended = BTreeSet::new();
    for item in services.queue.history(ShardKind::Ingest, ITEMS_MAX).await? {
        ensure!(matches!(item.standing, Standing::Finished { .. }), "history has what is not finished");
        world.count("items_ended");
        if !ended.insert(item.queue_id) {
            wrong.push(format!("item {} ended twice", item.queue_id));
        }
    }
    services.close();
    Ok((found, wrong))
}

async fn account_of(services: &Services, name: &str) -> Result<AccountId> {
    match services.directory.resolve(&address(name)?).await? {
        Resolution::Account(route) => Ok(route.account),
        other => anyhow::bail!("{name} is {other:?}"),
    }
}

async fn mailboxes_of(
    account: &Account,
    name: &str,
    wrong: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<Row>>> {
    let mut mailboxes = BTreeMap::new();
    for mailbox in MAILBOXES {
        let id = account.state().mailbox_by_name(mailbox).context("a mailbox is missing")?.id;
        let state = account.mailbox(id).await?;
        let mut rows = Vec::new();
        for row in state.index(id).context("no index")?.iter() {
            let email = account.email(row.email).await?.context("an email has no record")?;
            let body = account.body(&email).await?;
            let pieces: Vec<bytes::Bytes> = body.range(0..u64::MAX).try_collect().await?;
            let bytes = String::from_utf8(pieces.concat()).context("not what was written")?;
            let (message, whole) = named(&bytes);
            if !whole {
                wrong.push(format!("bytes of {message} in {name} {mailbox} are not those that were written"));
            }
            let flags = state.flag_set(row.marks).to_string();
            let flags = flags.split_whitespace().map(str::to_owned).collect();
            rows.push(Row { uid: row.uid.get(), modseq: row.modseq.0, message, flags });
        }
        mailboxes.insert(mailbox.to_owned(), rows);
    }
    Ok(mailboxes)
}

/// Which message these bytes are, and whether they are whole.
fn named(bytes: &str) -> (String, bool) {
    let after = |name| bytes.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    if bytes.contains("Final-Recipient:") {
        return (notice(after("Original-Envelope-Id: ")), true);
    }
    let message = after("Subject: ").to_owned();
    let whole = bytes.ends_with(&text(&message));
    (message, whole)
}

/// Entries of a log follow one another.
fn dense(world: &World, log: LogId) -> Vec<String> {
    let mut last = 0;
    let mut wrong = Vec::new();
    for entry in world.engine.history(log) {
        if entry.first_seq != last + 1 {
            wrong.push(format!("{log}: entry {} follows {last}", entry.first_seq));
        }
        last = entry.last_seq;
    }
    wrong
}

/// What a client of a node is shown is what is stored.
async fn compare_node(node: usize, found: &Found) -> Result<()> {
    for (account, mailboxes) in found {
        let mut imap = login(node, account).await?;
        for (mailbox, rows) in mailboxes {
            imap.ok(&format!("SELECT {mailbox}")).await.ok().context("SELECT failed")?;
            let reply = imap.ok("UID FETCH 1:* (FLAGS)").await.ok().context("FETCH failed")?;
            let shown: BTreeMap<_, _> = reply.untagged.iter().filter_map(|line| fetched(line)).collect();
            let there: BTreeMap<_, _> = rows.iter().map(|row| (row.uid, row.flags.clone())).collect();
            ensure!(shown == there, "{account} {mailbox} shows {shown:?} and has {there:?}");
        }
    }
    Ok(())
}

async fn login(node: usize, account: &str) -> Result<Imap> {
    for _ in 0..NODE_PATIENCE {
        if let Ok(imap) = Imap::login(node, account).await {
            return Ok(imap);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("nobody can log in")
}

/// A client that followed a mailbox all along has what is there.
async fn compare_follower(world: &World, follower: &mut Follower, found: &Found) -> Option<String> {
    let mut synced = Err(crate::clients::Lost);
    for turn in 0..NODE_PATIENCE {
        synced = follower.sync(world, turn as usize % NODES).await;
        if synced.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (account, mailbox) = (follower.account, follower.mailbox);
    if synced.is_err() {
        return Some(format!("{account} {mailbox} cannot be followed any more"));
    }
    let rows = &found[account][mailbox];
    let there: BTreeMap<_, _> = rows.iter().map(|row| (row.uid, (row.flags.clone(), row.modseq))).collect();
    let known = &follower.known;
    (*known != there).then(|| format!("a client of {account} {mailbox} knows {known:?}, there is {there:?}"))
}
