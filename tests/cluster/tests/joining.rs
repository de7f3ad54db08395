//! What a node looks at before it takes part, and while it does: the feature level of the installation, and its clock. And
//! what nodes count together: failed logins.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::{Cluster, Setup, clock};
use serde_json::Value;
use testkit::imap::Imap;
use testkit::server::{EVENTFUL, PASSWORD, binary};
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
/// What something may take on a busy machine that comes by itself.
const PATIENCE: Duration = Duration::from_secs(90);
/// Six wrong passwords, and one more in an hour. One process looks for what others left behind, all the time.
const LIMITS: &str = "\
[directory]
throttle_account = { failures_burst = 6, refill_seconds = 3600 }

[maintenance]
every_seconds = 1
";
/// A level is raised soon here, and a silent node forgotten.
const SOON: &str = "level_after_seconds = 3\nforget_after_seconds = 8\n";

#[test]
fn a_release_that_cannot_read_the_level_is_kept_out_and_so_is_a_wrong_clock() -> Result<()> {
    let mut cluster = Cluster::start_as(&Setup {
        cassandra_nodes: 1,
        nodes: 2,
        settings: format!("{EVENTFUL}\n{LIMITS}"),
        of_cluster: SOON.to_owned(),
        ..Setup::default()
    })?;
    let steps = logins(&cluster).and_then(|()| levels(&mut cluster)).and_then(|()| clocks(&mut cluster));
    steps.map_err(|error| {
        let kept = cluster.keep_logs();
        error.context(format!("kept in {}", kept.display()))
    })
}

/// Whether an IMAP server looked at a password, or did not.
fn tries(cluster: &Cluster, node: usize, account: &str, password: &str) -> Result<bool> {
    let mut client = Imap::connect(cluster.node(node)?.imap())?;
    let tag = client.send(&format!("LOGIN {account} \"{password}\""))?;
    let said = client.finish(&tag)?.tagged;
    Ok(!said.contains("Too many failed logins"))
}

fn logins(cluster: &Cluster) -> Result<()> {
    // Told a moment after each; so that one is not told when the next is tried, they are not tried in one moment.
    let pause = || std::thread::sleep(Duration::from_millis(300));
    let mut looked_at = 0;
    for attempt in 0..20 {
        looked_at += usize::from(tries(cluster, attempt % 2, "bob@example.test", "a guess")?);
        pause();
    }
    ensure!(looked_at == 6, "{looked_at} guesses were looked at, of which both nodes together allow six");
    for node in 0..2 {
        ensure!(
            !tries(cluster, node, "bob@example.test", PASSWORD)?,
            "node {node}: the right one is not looked at"
        );
    }
    let rounds = |node| -> Result<u64> {
        let metrics = cluster.node(node)?.metrics()?;
        let line = metrics.lines().find(|line| line.starts_with("postrider_maintenance_rounds_total"));
        Ok(line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap_or(0))
    };
    let before = [rounds(0)?, rounds(1)?];
    std::thread::sleep(Duration::from_secs(6));
    let after = [rounds(0)?, rounds(1)?];
    let looking = (0..2).filter(|node| after[*node] > before[*node]).count();
    ensure!(looking == 1, "one node looks for what others left behind: {before:?}, then {after:?}");
    Ok(())
}

fn levels(cluster: &mut Cluster) -> Result<()> {
    // The first node stays what it is; the second is of a later release.
    is_of_level(cluster, 1, 2);
    cluster.stop_node(1)?;
    cluster.restart_node(1)?;
    eventually("they see each other", || Ok(levels_of(cluster, 1)? == (1, 1, vec![1, 2])))?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!(levels_of(cluster, 1)? == (1, 1, vec![1, 2]), "{:?}", levels_of(cluster, 1)?);
    over(cluster, 1, 0, "from the later release to the earlier")?;
    over(cluster, 0, 1, "and back")?;

    // Standing still, it counts until it is forgotten; then the level is raised without it.
    cluster.node(0)?.pause()?;
    eventually("the level is raised", || Ok(levels_of(cluster, 1)?.0 == 2))?;
    cluster.node(0)?.resume()?;
    let mut old = cluster.take_node(0)?;
    eventually("the earlier release has ended", || Ok(old.ended()))?;
    let said = old.log_tail(40);
    ensure!(said.contains("feature level 2, and this release reads up to 1 only"), "{said}");
    drop(old);
    let refused = cluster.restart_node(0).err().context("it must not start")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("feature level 2, and this release reads up to 1 only"), "{refused}");
    ensure!(refused.contains("start the release that the other nodes run"), "{refused}");
    is_of_level(cluster, 0, 2);
    cluster.restart_node(0)?;
    over(cluster, 0, 1, "both of the later release")?;
    eventually("both are seen", || Ok(levels_of(cluster, 0)? == (2, 2, vec![2, 2])))
}

fn clocks(cluster: &mut Cluster) -> Result<()> {
    let file = cluster.data(0).with_extension("clock");
    cluster.stop_node(0)?;
    cluster.clocks.insert(0, file.clone());
    for (offset, how) in [("+1m", "s ahead of those of most nodes"), ("-1m", "s behind those of most nodes")]
    {
        clock::set(&file, offset)?;
        let refused =
            cluster.restart_node(0).err().with_context(|| format!("{offset}: it must not start"))?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains(how) && refused.contains("clock_difference_ms_refused"), "{refused}");
    }
    clock::set(&file, "+3")?;
    cluster.restart_node(0)?;
    let said = cluster.node(0)?.log_tail(1_000);
    ensure!(said.contains("its clock and ours are"), "three seconds are said");
    // One that runs goes on: what is under way there is worth more than a date.
    clock::set(&file, "+10m")?;
    over(cluster, 0, 1, "from a node whose clock is wrong")
}

/// What the node is started as from now on. Only test builds look at this.
fn is_of_level(cluster: &mut Cluster, node: usize, level: u32) {
    let variable = ("POSTRIDER_TEST_FEATURE_LEVEL".to_owned(), level.to_string());
    cluster.environments.insert(node, vec![variable]);
}

/// The installation's level, up to where all can read, and the levels of those that live, as a node sees it.
fn levels_of(cluster: &Cluster, node: usize) -> Result<(u64, u64, Vec<u64>)> {
    let mut command = Command::new(binary()?);
    let output = command.args(["cluster", "status", "--json", "--data"]).arg(cluster.data(node)).output()?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let live = status["nodes"].as_array().context("nodes")?.iter().filter(|node| node["standing"] == "live");
    let levels = live.filter_map(|node| node["feature_level"].as_u64()).collect();
    let number = |name: &str| status[name].as_u64().with_context(|| format!("{name} in {status}"));
    Ok((number("agreed_level")?, number("feature_level")?, levels))
}

/// A message comes in at one node and is read at another.
fn over(cluster: &Cluster, from: usize, to: usize, subject: &str) -> Result<()> {
    let mut smtp = Smtp::hello(cluster.node(from)?.smtp())?;
    smtp.command("MAIL FROM:<bob@example.net>", 250)?;
    smtp.command(&format!("RCPT TO:<{ALICE}>"), 250)?;
    smtp.command("DATA", 354)?;
    let reply = smtp.body(format!("Subject: {subject}\r\n\r\nhello\r\n").as_bytes())?;
    ensure!(reply.code == 250, "{}", reply.code);
    eventually(subject, || {
        let mut imap = Imap::login(cluster.node(to)?.imap(), ALICE, PASSWORD)?;
        imap.ok("EXAMINE INBOX")?;
        let found = imap.ok(&format!("SEARCH SUBJECT \"{subject}\""))?.text();
        Ok(found.iter().any(|line| line.starts_with("* SEARCH ") && line.len() > "* SEARCH ".len()))
    })
}

fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = holds();
        if matches!(held, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return held.map(drop).and_then(|()| anyhow::bail!("in vain")).context(what.to_owned());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}
