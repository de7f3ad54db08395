//! Mail between two servers: over the DNS, over a relay, and back when it cannot be delivered. Name server and servers
//! are on loopback.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, run};
use testkit::dns::{Data, Dns};
use testkit::imap::{self, Imap};
use testkit::message;
use testkit::server::{PASSWORD, binary};

const BOB: &str = "bob@example.test";
const CAROL: &str = "carol@other.test";

/// A server for `other.test` with one account, which the name server knows.
fn other(dns: &Dns) -> Result<Scene> {
    let scene = Scene::start()?;
    let data = scene.path("data");
    command(&data, &["domain", "add", "other.test"], "")?;
    command(&data, &["account", "add", CAROL], PASSWORD)?;
    dns.add("other.test", Data::Mx(10, "dead.other.test".to_owned()));
    dns.add("dead.other.test", Data::A(Ipv4Addr::new(127, 0, 0, 99)));
    dns.exchanger("other.test", 20, "mx.other.test", Ipv4Addr::LOCALHOST);
    Ok(scene)
}

/// A command of the administrator, with a line for its standard input.
fn command(data: &Path, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(binary()?)
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    writeln!(child.stdin.take().context("its input")?, "{input}")?;
    ensure!(child.wait()?.success(), "{}", arguments.join(" "));
    Ok(())
}

/// Submits a message as bob does, over TLS.
fn submit(scene: &Scene, id: u64, to: &[&str]) -> Result<()> {
    let file = scene.path(&format!("{id}.eml"));
    std::fs::write(&file, message::numbered(id, 20_000))?;
    let url = format!("smtps://127.0.0.1:{}", scene.server.submissions().port());
    let (user, file) = (format!("{BOB}:{PASSWORD}"), file.to_string_lossy().into_owned());
    let mut arguments =
        vec!["-sS", "-k", "--url", &url, "--user", &user, "--mail-from", BOB, "--upload-file", &file];
    for to in to {
        arguments.extend(["--mail-rcpt", *to]);
    }
    run("curl", &arguments).map(drop)
}

/// Waits until the inbox holds so many messages, and returns the last.
fn wait(scene: &Scene, user: &str, count: u64) -> Result<String> {
    let mut client = Imap::login(scene.server.imap(), user, PASSWORD)?;
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let answer = client.ok("STATUS INBOX (MESSAGES)")?;
        let there = answer.text().iter().find_map(|line| imap::number_after(line, "MESSAGES"));
        if there == Some(count) {
            break;
        }
        ensure!(Instant::now() < deadline, "the inbox of {user} holds {there:?}, not {count}");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.ok("SELECT INBOX")?;
    Ok(client.ok(&format!("FETCH {count} BODY.PEEK[]"))?.text().join("\n"))
}

/// By MX: a dead host is passed over, TLS is used where it is offered, every octet arrives, and what cannot be delivered
/// comes back once.
#[test]
fn there_and_back() -> Result<()> {
    let dns = Dns::start()?;
    let there = other(&dns)?;
    let (resolver, port) = (dns.address().to_string(), there.server.smtp().port().to_string());
    let here = Scene::start_with(&["--resolver", &resolver, "--mx-port", &port])?;
    submit(&here, 1, &[CAROL])?;
    let arrived = wait(&there, CAROL, 1)?;
    ensure!(arrived.contains(&message::numbered(1, 20_000)), "other octets: {arrived}");
    ensure!(arrived.contains("with ESMTPS"), "not encrypted: {arrived}");

    submit(&here, 2, &["nobody@other.test", CAROL])?;
    wait(&there, CAROL, 2)?;
    let bounce = wait(&here, BOB, 1)?;
    for part in ["nobody@other.test", "5.1.1", "Action: failed", "multipart/report"] {
        ensure!(bounce.contains(part), "the notification has no {part}: {bounce}");
    }
    submit(&here, 3, &["somebody@missing.test"])?;
    let bounce = wait(&here, BOB, 2)?;
    ensure!(bounce.contains("5.1.2") && bounce.contains("somebody@missing.test"), "{bounce}");
    here.log_is_quiet(&[])?;
    there.log_is_quiet(&[])
}

/// All of it to one host, whatever the DNS says.
#[test]
fn over_a_relay() -> Result<()> {
    let dns = Dns::start()?;
    let there = other(&dns)?;
    let relay = there.server.smtp().to_string();
    let here = Scene::start_with(&["--relay", &relay])?;
    submit(&here, 1, &[CAROL])?;
    wait(&there, CAROL, 1)?;
    // The relay takes no mail for others from strangers.
    submit(&here, 2, &["somebody@elsewhere.test"])?;
    let bounce = wait(&here, BOB, 1)?;
    ensure!(bounce.contains("5.7.1") && bounce.contains("somebody@elsewhere.test"), "{bounce}");
    ensure!(dns.questions().is_empty(), "the DNS was asked");
    here.log_is_quiet(&[])
}

/// Nothing leaves a development server that was not told where to.
#[test]
fn nothing_is_sent_unasked() -> Result<()> {
    let here = Scene::start()?;
    submit(&here, 1, &["somebody@elsewhere.test"])?;
    std::thread::sleep(Duration::from_secs(2));
    let mut client = Imap::login(here.server.imap(), BOB, PASSWORD)?;
    let answer = client.ok("STATUS INBOX (MESSAGES)")?;
    ensure!(answer.text().iter().any(|line| line.contains("MESSAGES 0")), "{:?}", answer.text());
    here.log_is_quiet(&[])
}
