//! How a server ends that clients are at.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::server::{Options, Server, binary};
use testkit::smtp::Smtp;

const TO: &str = "alice@example.test";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is being drained, and a client in the midst of a message.
fn draining() -> Result<(tempfile::TempDir, Server, Smtp)> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // Longer than anybody here waits.
    let file = folder.path().join("postrider.toml");
    std::fs::write(&file, "shutdown_seconds = 600\n")?;
    let mut options = Options::new(&data);
    options.arguments = vec!["--config".to_owned(), file.display().to_string()];
    let server = Server::start(&options)?;
    let mut client = Smtp::hello(server.smtp())?;
    client.begin("bob@example.net", &[TO])?;
    client.raw(b"Subject: half\r\n\r\nThe first half,\r\n")?;
    let drained = Command::new(binary()?).args(["cluster", "drain", "--data"]).arg(&data).output()?;
    ensure!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    let deadline = Instant::now() + PATIENCE;
    while !server.log().contains("told to end by an operator") {
        ensure!(Instant::now() < deadline, "it does not end:\n{}", server.log_tail(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((folder, server, client))
}

/// What a supervisor does when the hook that drains has returned.
#[test]
fn a_signal_after_a_drain_cuts_nothing_off() -> Result<()> {
    let (_folder, server, mut client) = draining()?;
    let stopping = std::thread::spawn(move || server.stop(PATIENCE));
    // Longer than a session lives that is cut off at once.
    std::thread::sleep(Duration::from_secs(2));
    client.raw(b"and the second.\r\n.\r\n")?;
    client.expect(250).context("the message is finished")?;
    drop(client);
    stopping.join().expect("no panic")
}

#[test]
fn a_second_signal_means_now() -> Result<()> {
    let (_folder, server, mut client) = draining()?;
    let pid = server.pid().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status()?;
    ensure!(sent.success(), "the first signal");
    std::thread::sleep(Duration::from_millis(500));
    server.stop(PATIENCE).context("it waits for the client")?;
    ensure!(client.reply().map_or(true, |reply| reply.code == 421), "the client was served");
    Ok(())
}
