//! Clients that nobody here wrote, each doing what its users do.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, run, run_in, script};
use testkit::imap::{self, Imap};
use testkit::message;
use testkit::server::PASSWORD;
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";

/// Waits until the mailbox holds this many messages.
fn wait(scene: &Scene, user: &str, mailbox: &str, count: u64) -> Result<()> {
    let mut client = Imap::login(scene.server.imap(), user, PASSWORD)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.ok(&format!("STATUS {mailbox} (MESSAGES)"))?;
        let there = answer.text().iter().find_map(|line| imap::number_after(line, "MESSAGES"));
        if there == Some(count) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{mailbox} of {user} holds {there:?}, not {count}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// swaks, all four ways in: as another server, by submission with STARTTLS, by submission over TLS, by LMTP.
#[test]
fn swaks_all_four_ways() -> Result<()> {
    let scene = Scene::start()?;
    let port = |address: std::net::SocketAddr| format!("127.0.0.1:{}", address.port());
    let common = ["--to", ALICE, "--header", "Subject: by swaks", "--body", "hello", "--hide-all"];
    let with = |server: String, more: &[&str]| {
        let mut arguments = vec!["--server", &server];
        arguments.extend(more);
        arguments.extend(common);
        run("swaks", &arguments)
    };
    with(port(scene.server.smtp()), &["--from", "someone@example.net"])?;
    let login = ["--from", BOB, "--auth-user", BOB, "--auth-password", PASSWORD];
    for mechanism in ["PLAIN", "LOGIN"] {
        let mut arguments = vec!["--tls", "--auth", mechanism];
        arguments.extend(login);
        with(port(scene.server.submission()), &arguments)?;
        arguments[0] = "--tls-on-connect";
        with(port(scene.server.submissions()), &arguments)?;
    }
    with(port(scene.server.lmtp()), &["--protocol", "LMTP", "--from", "someone@example.net"])?;
    wait(&scene, ALICE, "INBOX", 6)?;

    // What has to be refused: relaying without a login, a stranger's sender address, an unknown recipient.
    let refused = [
        run(
            "swaks",
            &["--server", &port(scene.server.smtp()), "--from", "a@example.net", "--to", "b@example.org"],
        ),
        run(
            "swaks",
            &[
                "--server",
                &port(scene.server.smtp()),
                "--from",
                "a@example.net",
                "--to",
                "nobody@example.test",
            ],
        ),
        run(
            "swaks",
            &[
                "--server",
                &port(scene.server.submission()),
                "--tls",
                "--auth",
                "PLAIN",
                "--auth-user",
                BOB,
                "--auth-password",
                PASSWORD,
                "--from",
                ALICE,
                "--to",
                ALICE,
            ],
        ),
        run(
            "swaks",
            &[
                "--server",
                &port(scene.server.submission()),
                "--tls",
                "--auth",
                "PLAIN",
                "--auth-user",
                BOB,
                "--auth-password",
                "wrong",
                "--from",
                BOB,
                "--to",
                ALICE,
            ],
        ),
    ];
    for (index, outcome) in refused.into_iter().enumerate() {
        ensure!(outcome.is_err(), "case {index} was not refused");
    }
    wait(&scene, ALICE, "INBOX", 6)
}

/// curl sends by submission over TLS and reads by IMAP, plain and over TLS.
#[test]
fn curl_sends_and_reads() -> Result<()> {
    let scene = Scene::start()?;
    let file = scene.path("message.eml");
    std::fs::write(&file, message::numbered(7, 4_000))?;
    let file = file.to_string_lossy().into_owned();
    let user = format!("{ALICE}:{PASSWORD}");
    let submissions = format!("smtps://127.0.0.1:{}", scene.server.submissions().port());
    run(
        "curl",
        &[
            "-sS",
            "-k",
            "--url",
            &submissions,
            "--user",
            &user,
            "--mail-from",
            ALICE,
            "--mail-rcpt",
            BOB,
            "--upload-file",
            &file,
        ],
    )?;
    wait(&scene, BOB, "INBOX", 1)?;
    let user = format!("{BOB}:{PASSWORD}");
    for url in [
        format!("imap://127.0.0.1:{}/INBOX;MAILINDEX=1", scene.server.imap().port()),
        format!("imaps://127.0.0.1:{}/INBOX;UID=1", scene.server.imaps().port()),
    ] {
        let read = run("curl", &["-sS", "-k", "--url", &url, "--user", &user])?;
        ensure!(read.ends_with(&message::numbered(7, 4_000)), "curl read other bytes from {url}");
    }
    Ok(())
}

/// Python's smtplib and imaplib: login over TLS, append, search, flags, copy, expunge.
#[test]
fn python_scripts() -> Result<()> {
    let scene = Scene::start()?;
    let ports = [scene.server.submission(), scene.server.imap(), scene.server.imaps()]
        .map(|address| address.port().to_string());
    let printed =
        run("python3", &[&script("clients.py"), &ports[0], &ports[1], &ports[2], ALICE, BOB, PASSWORD])?;
    ensure!(printed.contains("all done"), "{printed}");
    Ok(())
}

/// IMAPClient, in two sessions: append, search, flags by modification sequence, idle, copy, move, expunge, folders.
#[test]
fn imapclient_session() -> Result<()> {
    let scene = Scene::start()?;
    let ports = [scene.server.imap(), scene.server.imaps()].map(|address| address.port().to_string());
    let printed = run("python3", &[&script("imapclient_session.py"), &ports[0], &ports[1], ALICE, PASSWORD])?;
    ensure!(printed.contains("all done"), "{printed}");
    scene.log_is_quiet(&[])
}

/// jmapc: a draft with an attachment is written, found, read, flagged and destroyed, and an event source tells of it.
#[test]
fn jmapc_session() -> Result<()> {
    let scene = Scene::start()?;
    let host = format!("localhost:{}", scene.server.https().port());
    let printed = run("python3", &[&script("jmapc_session.py"), &host, ALICE, PASSWORD])?;
    ensure!(printed.contains("all done"), "{printed}");
    scene.log_is_quiet(&[])
}

/// mbsync both ways: a message made locally goes up, flags go both ways, a removal goes down.
#[test]
fn mbsync_both_ways() -> Result<()> {
    let scene = Scene::start()?;
    let mut smtp = Smtp::hello(scene.server.smtp())?;
    for id in 1..=5 {
        smtp.send("someone@example.net", &[ALICE], message::numbered(id, 2_000).as_bytes())?;
    }
    wait(&scene, ALICE, "INBOX", 5)?;
    let home = scene.path("home");
    std::fs::create_dir_all(home.join("mail"))?;
    let configuration = format!(
        "IMAPAccount postrider\nHost 127.0.0.1\nPort {}\nUser {ALICE}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount postrider\n\nMaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSync All\n",
        scene.server.imap().port(),
        home = home.display()
    );
    std::fs::write(home.join("mbsyncrc"), configuration)?;
    let sync = || run_in(&home, "mbsync", &["-q", "-c", "mbsyncrc", "all"]);
    sync()?;
    let inbox = home.join("mail/INBOX");
    let mut local: Vec<_> = ["cur", "new"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(inbox.join(folder)).into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    local.sort();
    ensure!(local.len() == 5, "mbsync brought {} messages", local.len());

    // Locally: the first becomes read, the second goes away, a new one is written.
    let name = local[0].file_name().context("a name")?.to_string_lossy().into_owned();
    let read = inbox.join("cur").join(format!("{}:2,S", name.split(':').next().unwrap_or_default()));
    std::fs::rename(&local[0], read)?;
    std::fs::remove_file(&local[1])?;
    let fresh = message::numbered(99, 1_000).replace("\r\n", "\n");
    std::fs::write(inbox.join("cur/1700000000.1.here:2,F"), fresh)?;
    sync()?;
    let mut client = Imap::login(scene.server.imap(), ALICE, PASSWORD)?;
    client.ok("SELECT INBOX")?;
    for (search, count) in [("ALL", 5), ("SEEN", 1), ("FLAGGED", 1)] {
        let answer = client.ok(&format!("UID SEARCH {search}"))?;
        let found = answer.text().iter().find_map(|line| line.strip_prefix("* SEARCH").map(str::to_owned));
        let found = found.context("no SEARCH response")?.split_whitespace().count();
        ensure!(found == count, "{search}: {found} instead of {count}");
    }

    // On the server: a flag and a removal go down.
    client.ok("UID STORE 3 +FLAGS (\\Answered \\Deleted)")?;
    client.ok("UID EXPUNGE 3")?;
    client.ok("UID STORE 4 +FLAGS (\\Answered)")?;
    sync()?;
    let names: Vec<String> = std::fs::read_dir(inbox.join("cur"))?
        .chain(std::fs::read_dir(inbox.join("new"))?)
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    ensure!(names.len() == 4, "{names:?}");
    ensure!(
        names.iter().any(|name| name.rsplit(',').next().is_some_and(|flags| flags.contains('R'))),
        "{names:?}"
    );
    scene.log_is_quiet(&[])
}

/// neomutt with QRESYNC reads a folder, flags a message, leaves, and comes back to what another client has changed.
#[test]
fn neomutt_with_qresync() -> Result<()> {
    let scene = Scene::start()?;
    let mut client = Imap::login(scene.server.imap(), ALICE, PASSWORD)?;
    for id in 1..=6 {
        client.append("INBOX", "", message::numbered(id, 1_500).as_bytes())?;
    }
    let home = scene.path("mutt");
    std::fs::create_dir_all(home.join("headers"))?;
    std::fs::create_dir_all(home.join("bodies"))?;
    let rc = format!(
        "set folder=imap://127.0.0.1:{}/\nset spoolfile=+INBOX\nset imap_user={ALICE}\nset imap_pass={PASSWORD}\n\
         set ssl_starttls=no\nset ssl_force_tls=no\nset imap_qresync=yes\nset imap_condstore=yes\nset imap_idle=no\n\
         set header_cache={home}/headers\nset message_cachedir={home}/bodies\nset move=no\nset sort=date\nset wait_key=no\n\
         set quit=yes\nset delete=yes\nset mail_check=1\nset timeout=1\n",
        scene.server.imap().port(),
        home = home.display()
    );
    std::fs::write(home.join("rc"), rc)?;
    let visit = |keys: &str| -> Result<()> {
        let session = format!("postrider-{}-{}", std::process::id(), scene.server.offset());
        let log = home.join("log");
        let command = format!(
            "HOME={home} TERM=xterm neomutt -n -F {home}/rc -d 2 -l {log} -e 'push \"{keys}\"'; echo $? > {home}/ended",
            home = home.display(),
            log = log.display()
        );
        let _ = std::fs::remove_file(home.join("ended"));
        run("tmux", &["-L", &session, "new-session", "-d", "-x", "100", "-y", "30", &command])?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !home.join("ended").exists() {
            if Instant::now() > deadline {
                let screen = run("tmux", &["-L", &session, "capture-pane", "-p"]).unwrap_or_default();
                let _ = run("tmux", &["-L", &session, "kill-server"]);
                anyhow::bail!("neomutt does not end:\n{screen}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = run("tmux", &["-L", &session, "kill-server"]);
        ensure!(std::fs::read_to_string(home.join("ended"))?.trim() == "0", "neomutt failed");
        Ok(())
    };
    // The first message is flagged, the second deleted, and the folder is left with both written.
    visit("<first-entry><flag-message><first-entry><next-entry><delete-message><sync-mailbox><exit>")?;
    client.ok("SELECT INBOX")?;
    let flagged = client.ok("UID SEARCH FLAGGED")?.text().join(" ");
    ensure!(flagged.contains("SEARCH 1"), "{flagged}");
    ensure!(client.ok("UID SEARCH ALL")?.text().join(" ").contains("SEARCH 1 3 4 5 6"));
    client.ok("UID STORE 4 +FLAGS (\\Seen \\Answered)")?;
    client.ok("UID STORE 5 +FLAGS (\\Deleted)")?;
    client.ok("UID EXPUNGE 5")?;
    // Back again: from its cache and QRESYNC it sees four messages; the last one is flagged.
    visit("<last-entry><flag-message><sync-mailbox><exit>")?;
    let log: String = std::fs::read_dir(&home)?
        .filter_map(|entry| entry.ok().filter(|entry| entry.file_name().to_string_lossy().starts_with("log")))
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect();
    ensure!(log.contains("QRESYNC"), "neomutt did not use QRESYNC");
    let flagged = client.ok("UID SEARCH FLAGGED")?.text().join(" ");
    ensure!(flagged.contains("SEARCH 1 6"), "{flagged}");
    scene.log_is_quiet(&[])
}

/// A second session that idles is told of new mail.
#[test]
fn idle_sees_new_mail() -> Result<()> {
    let scene = Scene::start()?;
    let port = scene.server.imaps().port().to_string();
    let mut idle = Command::new("python3")
        .args([&script("idle.py"), &port, ALICE, PASSWORD])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(idle.stdout.take().context("its output")?).lines();
    ensure!(lines.next().context("a line")?? == "idling");
    let mut smtp = Smtp::hello(scene.server.smtp())?;
    let sent = Instant::now();
    smtp.send("someone@example.net", &[ALICE], message::numbered(1, 1_000).as_bytes())?;
    let told = lines.next().context("a line")??;
    ensure!(told.contains("EXISTS"), "{told}");
    println!("an idle session was told {} ms after the mail was sent", sent.elapsed().as_millis());
    ensure!(idle.wait()?.success());
    Ok(())
}
