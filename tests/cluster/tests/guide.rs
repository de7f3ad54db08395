//! The guide to many machines, executed as it stands on three nodes of Cassandra, S3 and NATS; and what it promises: any node serves
//! anyone. A message comes in at one node, is read at another, and a client that waits at a third hears of it.
#![allow(clippy::print_stdout, reason = "times are for people")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::guide::{self, GUIDE, NODES, PASSWORD, Place};
use engines::{Engines, Life, Options};
use testkit::server::{binary, is_quiet};

const ALICE: &str = "alice@example.test";
/// What the driver says of engines that have just started is not of interest here, nor are the clocks of one machine.
const EXPECTED: [&str; 2] = ["clock and ours", "WARN scylla::"];

/// What something may take on a busy machine that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

#[test]
fn the_guide_works_as_it_stands() -> Result<()> {
    let steps = guide::steps(GUIDE)?;
    let folder = tempfile::Builder::new().prefix("postrider-guide-").tempdir()?;
    let began = Instant::now();
    let engines = Engines::start(&Options {
        cassandra_nodes: 3,
        s3: true,
        nats: true,
        folder: Some(folder.path().join("engines")),
        ..Options::default()
    })?;
    println!("engines run after {} s", began.elapsed().as_secs());
    let place = Place::new(&folder.path().canonicalize()?, &binary()?, &engines.environment())?;
    let _nodes = Nodes(&place);
    let mut executed = Vec::new();
    for step in &steps {
        let began = Instant::now();
        let said = place.execute(step).with_context(|| last_words(&place))?;
        println!("{}: {} ms", step.name, began.elapsed().as_millis());
        match step.name.as_str() {
            "status" => ensure!(said.contains("seen by node-2"), "{said}"),
            "send-and-read" => {
                any_node_serves_anyone(&place).with_context(|| last_words(&place))?;
                for node in 1..=NODES {
                    is_quiet(&guide::log(place.folder(), node), &EXPECTED)
                        .with_context(|| format!("node {node}"))?;
                }
            }
            "drain" => ensure!(running(&place)? == [1, 2], "node 3 was drained"),
            "rolling-upgrade" => ensure!(running(&place)? == [1, 2, 3], "all were started again"),
            "stop" => ensure!(running(&place)?.is_empty(), "all were stopped"),
            _ => {}
        }
        executed.push(step.name.as_str());
    }
    for node in 1..=NODES {
        is_quiet(&guide::log(place.folder(), node), &EXPECTED).with_context(|| format!("node {node}"))?;
    }
    // Counted apart from what reads the steps, which has to find all of them.
    ensure!(
        executed.len() == GUIDE.matches("<!-- step: ").count(),
        "of the guide only {executed:?} were executed"
    );
    for name in ["status", "send-and-read", "drain", "rolling-upgrade", "stop"] {
        ensure!(executed.contains(&name), "what was to be seen behind «{name}» was not looked at");
    }
    Ok(())
}

/// Ends what the steps have started, however the test ends.
struct Nodes<'a>(&'a Place);

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        if let Err(error) = guide::stop(self.0.folder()) {
            println!("nodes were not stopped: {error:#}");
        }
    }
}

/// The numbers of the nodes that run.
fn running(place: &Place) -> Result<Vec<usize>> {
    let mut running = Vec::new();
    for node in 1..=NODES {
        if guide::process(place.folder(), node)?.is_some() {
            running.push(node);
        }
    }
    Ok(running)
}

/// The end of each node's log.
fn last_words(place: &Place) -> String {
    let logs = (1..=NODES).map(|node| {
        let log = guide::log(place.folder(), node);
        let lines: Vec<&str> = log.lines().collect();
        format!("node {node}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
    });
    logs.collect()
}

/// Clients that nobody here wrote, each at another node.
fn any_node_serves_anyone(place: &Place) -> Result<()> {
    let mut waiting = Life::Bound.command(Path::new("python3"));
    waiting.args(["../e2e/scripts/idle.py", &format!("{}:2993", place.address(3)), ALICE, PASSWORD]);
    let mut waiting = waiting.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(waiting.stdout.take().context("its output")?).lines();
    ensure!(lines.next().context("a line")?? == "idling");
    let sent = Instant::now();
    swaks(place, 1, "first")?;
    let told = lines.next().context("a line")??;
    // Far below the poll of 15 s, so that it was a hint; no more than that is asked of the time.
    println!("IDLE at the third node fired after {} ms", sent.elapsed().as_millis());
    ensure!(told.contains("EXISTS"), "{told}");
    ensure!(waiting.wait()?.success());

    let mail = mbsync(place, 2, "two")?;
    let first = mail.iter().filter(|text| text.contains("Subject: first")).count();
    ensure!(first == 1, "mbsync at the second node: {mail:?}");

    // Each node takes mail, and each shows all of it.
    swaks(place, 2, "second")?;
    swaks(place, 3, "third")?;
    for node in 1..=NODES {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mail = mbsync(place, node, &format!("all{node}"))?;
            if ["over three nodes", "first", "second", "third"].iter().all(|subject| {
                mail.iter().filter(|text| text.contains(&format!("Subject: {subject}"))).count() == 1
            }) {
                break;
            }
            ensure!(Instant::now() < deadline, "node {node} shows {} messages", mail.len());
            std::thread::sleep(PAUSE);
        }
    }
    for node in 1..=NODES {
        sees_all(place, node)?;
    }
    Ok(())
}

/// A node, which looks for the others every few seconds, finds all of them.
fn sees_all(place: &Place, node: usize) -> Result<()> {
    let file = guide::node_folder(place.folder(), node).join("postrider.toml");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status =
            Command::new(place.postrider()).args(["cluster", "status", "--config"]).arg(&file).output()?;
        let said = String::from_utf8_lossy(&status.stdout);
        if said.matches(" live ").count() == NODES {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "node {node} sees {said}");
        std::thread::sleep(PAUSE);
    }
}

/// A message to alice.
fn swaks(place: &Place, node: usize, subject: &str) -> Result<()> {
    let output = Command::new("swaks")
        .args(["--server", &format!("{}:2525", place.address(node))])
        .args(["--from", "someone@elsewhere.example", "--to", ALICE])
        .args(["--header", &format!("Subject: {subject}"), "--body", "hello"])
        .stdin(Stdio::null())
        .output()
        .context("swaks")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("250 2.0.0"), "swaks: {said}");
    Ok(())
}

/// What mbsync fetches from a node into a folder: the texts of alice's messages.
fn mbsync(place: &Place, node: usize, name: &str) -> Result<Vec<String>> {
    let home = place.folder().join(name);
    fs::create_dir_all(home.join("mail"))?;
    // Not its own TLS: it compares the address with the name in the certificate.
    let configuration = format!(
        "IMAPAccount here\nTunnel \"openssl s_client -quiet -connect {}:2993 2> s_client\"\n\
         User {ALICE}\nPass \"{PASSWORD}\"\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount here\n\nMaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync All\n",
        place.address(node),
        home = home.display()
    );
    fs::write(home.join("mbsyncrc"), configuration)?;
    let output = Command::new("mbsync")
        .args(["-q", "-c", "mbsyncrc", "all"])
        .current_dir(&home)
        .env("HOME", &home)
        .stdin(Stdio::null())
        .output()
        .context("mbsync")?;
    ensure!(output.status.success(), "mbsync: {}", String::from_utf8_lossy(&output.stderr));
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        for entry in fs::read_dir(home.join("mail/INBOX").join(folder))? {
            found.push(fs::read_to_string(entry?.path())?);
        }
    }
    Ok(found)
}
