//! Any node serves anyone: a message comes in at one node, is read at another, and a client that waits at a third hears
//! of it.
#![allow(clippy::print_stdout, reason = "times are for people")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::Cluster;
use testkit::imap::Imap;
use testkit::server::{PASSWORD, Server};

const ALICE: &str = "alice@example.test";

/// swaks, which nobody here wrote.
fn swaks(server: &Server, subject: &str) -> Result<String> {
    let output = Command::new("swaks")
        .args(["--server", &server.smtp().to_string(), "--from", "someone@elsewhere.example", "--to", ALICE])
        .args(["--header", &format!("Subject: {subject}"), "--body", "hello"])
        .stdin(Stdio::null())
        .output()
        .context("swaks")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("250 2.0.0"), "swaks: {said}");
    Ok(said)
}

/// What mbsync fetches from a node into a folder, by file name.
fn mbsync(cluster: &Cluster, server: &Server, name: &str) -> Result<Vec<String>> {
    let home = cluster.folder().join(name);
    fs::create_dir_all(home.join("mail"))?;
    let port = server.imap().port();
    let configuration = format!(
        "IMAPAccount here\nHost 127.0.0.1\nPort {port}\nUser {ALICE}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount here\n\nMaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync All\n",
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

#[test]
fn mail_at_one_node_is_everywhere() -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::start(3, 3, "")?;
    println!("engines and three nodes run after {} s", started.elapsed().as_secs());
    let [one, two, three] = [cluster.node(0)?, cluster.node(1)?, cluster.node(2)?];

    let mut waiting = Imap::login(three.imap(), ALICE, PASSWORD)?;
    waiting.ok("SELECT INBOX")?;
    let idle = waiting.send("IDLE")?;
    ensure!(waiting.response()?.starts_with(b"+"), "IDLE begins");

    let sent = Instant::now();
    swaks(one, "first")?;
    // Far below the poll of 15 s, so that it was a hint; no more than that is asked of the time.
    waiting.stream().set_read_timeout(Some(Duration::from_secs(60)))?;
    let heard = loop {
        let response = waiting.response()?;
        if response.ends_with(b" EXISTS") || response.windows(7).any(|part| part == b" EXISTS") {
            break sent.elapsed();
        }
    };
    waiting.raw(b"DONE\r\n")?;
    ensure!(waiting.finish(&idle)?.ok(), "IDLE ends");

    let mail = mbsync(&cluster, two, "two")?;
    ensure!(mail.len() == 1 && mail[0].contains("Subject: first"), "mbsync at the second node: {mail:?}");
    println!("IDLE at the third node fired after {} ms", heard.as_millis());

    // Each node takes mail, and each shows all of it.
    swaks(two, "second")?;
    swaks(three, "third")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    for (number, node) in [one, two, three].into_iter().enumerate() {
        loop {
            let mail = mbsync(&cluster, node, &format!("all{number}"))?;
            if ["first", "second", "third"].iter().all(|subject| {
                mail.iter().filter(|text| text.contains(&format!("Subject: {subject}"))).count() == 1
            }) {
                break;
            }
            ensure!(Instant::now() < deadline, "node {number} shows {} messages", mail.len());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    for node in [one, two, three] {
        let seen: String = node.get("/admin/v1/cluster")?;
        ensure!(seen.matches("\"live\"").count() == 3, "{seen}");
    }
    // What the driver says of engines that have just started is not of interest here.
    cluster.logs_are_quiet(&["clock and ours", "WARN scylla::"])
}
