//! Mail between two servers: over the DNS, over a relay, and back when it cannot be delivered. Name server and servers
//! are on loopback.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use end_to_end::{Scene, run, script};
use serde_json::Value;
use testkit::dns::{Data, Dns};
use testkit::imap::{self, Imap};
use testkit::message;
use testkit::reports;
use testkit::server::{PASSWORD, binary};
use testkit::sink::Sink;

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

/// `postrider queue …` against the running server: what it prints.
fn queue(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()?)
        .arg("queue")
        .args(arguments)
        .arg("--data")
        .arg(scene.path("data"))
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "queue {}: {text}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// Acts until so many recipients were changed: what is being tried at that moment is left alone.
fn act(scene: &Scene, arguments: &[&str], recipients: u64) -> Result<()> {
    let mut changed = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    while changed < recipients {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let answer: Value = serde_json::from_str(&queue(scene, &arguments)?)?;
        changed += answer["recipients"].as_u64().context("recipients")?;
        ensure!(Instant::now() < deadline, "{arguments:?} changed {changed} of {recipients}");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(changed == recipients, "{arguments:?} changed {changed} recipients, not {recipients}");
    Ok(())
}

/// Waits until the trace of a message says something.
fn traced(scene: &Scene, id: u64, expected: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = queue(scene, &["trace", &message::message_id(id)])?;
        if text.contains(expected) {
            return Ok(text);
        }
        ensure!(Instant::now() < deadline, "message {id} is not {expected:?}:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What operators do, on a queue that is at work: a domain whose host is dead, and one that takes everything.
#[test]
fn every_queue_command_on_a_live_queue() -> Result<()> {
    let dns = Dns::start()?;
    let live = Ipv4Addr::new(127, 0, 5, 1);
    let sink = Sink::start(&[live])?;
    dns.exchanger("slow.test", 10, "mx.slow.test", Ipv4Addr::new(127, 0, 5, 99));
    dns.exchanger("quick.test", 10, "mx.quick.test", live);
    let (resolver, port) = (dns.address().to_string(), sink.port().to_string());
    let here = Scene::start_with(&["--resolver", &resolver, "--mx-port", &port])?;
    for id in 1..=6 {
        submit(&here, id, &["a@slow.test", "b@slow.test"])?;
    }
    submit(&here, 7, &["a@quick.test"])?;
    for id in 1..=6 {
        traced(&here, id, "onnection refused")?;
    }
    // Where is my mail? One command, for what waits and for what has gone.
    let gone = traced(&here, 7, "<a@quick.test>  sent")?;
    ensure!(gone.contains("mx.quick.test [127.0.5.1]") && gone.contains("250 2.0.0 taken"), "{gone}");
    let waits = queue(&here, &["trace", &message::message_id(1)])?;
    ensure!(
        waits.contains("<a@slow.test>  pending") && waits.contains("Message-ID <1@load.example.net>"),
        "{waits}"
    );

    let summary = queue(&here, &["summary"])?;
    ensure!(
        summary.contains("6 waiting for other hosts (12 recipients)") && summary.contains("slow.test"),
        "{summary}"
    );
    let listed = |filter: &[&str]| -> Result<usize> {
        let arguments: Vec<&str> = ["list", "--json"].into_iter().chain(filter.iter().copied()).collect();
        Ok(queue(&here, &arguments)?.lines().count())
    };
    ensure!(listed(&[])? == 6 && listed(&["--limit", "4"])? == 4);
    ensure!(listed(&["--domain", "slow.test", "--sender", BOB])? == 6);
    ensure!(listed(&["--domain", "quick.test"])? == 0 && listed(&["--sender", "<>"])? == 0);
    ensure!(listed(&["--older-than", "1h"])? == 0 && listed(&["--newer-than", "1h"])? == 6);
    let id_of = |id: u64| -> Result<String> {
        let text = queue(&here, &["trace", &message::message_id(id), "--json"])?;
        let items: Value = serde_json::from_str(&text)?;
        Ok(items[0]["queue_id"].as_str().context("an id")?.to_owned())
    };
    let ids: Vec<String> = (1..=6).map(id_of).collect::<Result<_>>()?;

    act(&here, &["hold", &ids[0]], 2)?;
    traced(&here, 1, "<a@slow.test>  held")?;
    ensure!(listed(&["--state", "held"])? == 1);
    act(&here, &["release", &ids[0]], 2)?;
    traced(&here, 1, "<a@slow.test>  pending")?;
    act(&here, &["cancel", &ids[1]], 2)?;
    traced(&here, 2, "<b@slow.test>  cancelled")?;
    act(&here, &["expire", &ids[2]], 2)?;
    traced(&here, 3, "expired, its sender was told")?;
    ensure!(reports::reported(here.server.imap(), BOB)?.len() == 2);
    let before = sink.count();
    act(&here, &["reroute", "--to", &format!("{live}:{port}"), &ids[3]], 2)?;
    traced(&here, 4, "<b@slow.test>  sent")?;
    ensure!(sink.count() == before + 2);
    // Its host comes back to life, and the rest need not wait.
    dns.remove("mx.slow.test").add("mx.slow.test", Data::A(live));
    std::thread::sleep(Duration::from_millis(1_500));
    queue(&here, &["retry", "--domain", "slow.test"])?;
    for id in [1, 5, 6] {
        traced(&here, id, "<b@slow.test>  sent")?;
    }
    ensure!(queue(&here, &["drop", &ids[0]])?.contains("0 messages"));
    ensure!(listed(&[])? == 0, "{}", queue(&here, &["list"])?);
    here.log_is_quiet(&[])
}

/// What happened in a shard, for a consumer that goes on where it was; and what is said to other hosts, as it is said.
#[test]
fn replayed_and_watched() -> Result<()> {
    let dns = Dns::start()?;
    let live = Ipv4Addr::new(127, 0, 6, 1);
    let sink = Sink::start(&[live])?;
    dns.exchanger("quick.test", 10, "mx.quick.test", live);
    let (resolver, port) = (dns.address().to_string(), sink.port().to_string());
    let here = Scene::start_with(&["--resolver", &resolver, "--mx-port", &port])?;
    let watch = |host: &str, file: &str| -> Result<Stopped> {
        let lines = std::fs::File::create(here.path(file))?;
        let child = Command::new(binary()?)
            .args(["queue", "watch", "--host", host, "--data"])
            .arg(here.path("data"))
            .stdout(lines)
            .spawn()?;
        Ok(Stopped(child))
    };
    let (_watching, _other) = (watch("mx.quick.test", "said")?, watch("mx.other.test", "nothing")?);
    let said = |file: &str| std::fs::read_to_string(here.path(file));
    // A dialogue is kept from the first look on, so what goes out before that is sent again.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut id = 0;
    while !said("said")?.contains("RCPT TO:<a@quick.test>") {
        ensure!(Instant::now() < deadline, "nothing is shown: {}", said("said")?);
        id += 1;
        submit(&here, id, &["a@quick.test"])?;
        traced(&here, id, "<a@quick.test>  sent")?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let text = said("said")?;
    for words in ["mx.quick.test C: MAIL FROM:<bob@example.test>", "mx.quick.test S: 250 2.0.0 taken"] {
        ensure!(text.contains(words), "{words:?} is not shown: {text}");
    }
    ensure!(!text.contains("Subject:"), "the message is shown: {text}");
    ensure!(said("nothing")?.is_empty(), "another host was asked for: {}", said("nothing")?);

    let shards: Value = serde_json::from_str(&queue(&here, &["replay", "--json"])?)?;
    let outbound = |shard: &&Value| {
        shard["shard"].as_str().is_some_and(|name| name.starts_with("outbound"))
            && shard["seq"].as_u64() > Some(0)
    };
    let shard = shards.as_array().and_then(|shards| shards.iter().find(outbound)).context("a shard")?;
    let name = shard["shard"].as_str().context("its name")?.to_owned();
    let replay = |arguments: &[&str]| -> Result<Vec<Value>> {
        let arguments: Vec<&str> = ["replay", "--shard", &name].iter().chain(arguments).copied().collect();
        queue(&here, &arguments)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let sequence = |entries: &[Value]| -> Vec<u64> {
        entries.iter().filter_map(|entry| entry["seq"].as_u64()).collect()
    };
    let all = replay(&["--from", "1"])?;
    let numbers = sequence(&all);
    ensure!(numbers == (1..=all.len() as u64).collect::<Vec<u64>>(), "not dense: {numbers:?}");
    let accepted = all.iter().filter(|entry| entry["what"] == "accepted").count() as u64;
    ensure!(accepted == id, "{accepted} of {id} messages were accepted: {all:?}");
    let later = replay(&["--from", "3"])?;
    ensure!(sequence(&later) == numbers[2..], "{later:?}");

    // The same with a name, which is remembered: a second look gives what is new alone.
    let first = replay(&["--cursor", "feed"])?;
    ensure!(sequence(&first)[..numbers.len()] == numbers, "{first:?}");
    submit(&here, id + 1, &["b@quick.test"])?;
    traced(&here, id + 1, "<b@quick.test>  sent")?;
    let second = replay(&["--cursor", "feed"])?;
    let after = sequence(&first).last().copied().context("a number")?;
    ensure!(sequence(&second).first() == Some(&(after + 1)), "goes on behind {after}: {second:?}");
    let accepted: Vec<&Value> = second.iter().filter(|entry| entry["what"] == "accepted").collect();
    ensure!(accepted.len() == 1 && accepted[0]["details"]["recipients"] == 1, "{second:?}");
    ensure!(queue(&here, &["replay", "--json"])?.contains("feed"), "the cursor is not listed");
    ensure!(
        queue(&here, &["replay", "--shard", &name, "--cursor", "feed", "--forget"])?.contains("forgotten")
    );
    ensure!(!queue(&here, &["replay", "--json"])?.contains("feed"), "the cursor is still listed");
    let refused = queue(&here, &["replay", "--shard", "outbound-x"]).map_err(|error| error.to_string());
    ensure!(refused.as_ref().is_err_and(|error| error.contains("outbound-x")), "{refused:?}");
    here.log_is_quiet(&[])
}

/// A program that runs until it is no longer needed.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A notification as those see it who did not write it: Python's email package, and a mail client.
#[test]
fn notifications_are_read_by_others() -> Result<()> {
    let dns = Dns::start()?;
    let there = other(&dns)?;
    let (resolver, port) = (dns.address().to_string(), there.server.smtp().port().to_string());
    let here = Scene::start_with(&["--resolver", &resolver, "--mx-port", &port])?;
    submit(&here, 1, &["nobody@other.test"])?;
    wait(&here, BOB, 1)?;
    let imap = here.server.imap().port();
    let read = run("python3", &[&script("read_dsn.py"), &imap.to_string(), BOB, PASSWORD])?;
    let dsn: Value = serde_json::from_str(&read)?;
    let recipient = &dsn["recipients"][0];
    for (what, found, expected) in [
        ("subject", &dsn["subject"], "Your message could not be delivered"),
        ("return path", &dsn["return_path"], "<>"),
        ("RFC 3834", &dsn["auto_submitted"], "auto-replied"),
        ("reporting MTA", &dsn["reporting_mta"], "dns; localhost"),
        ("action", &recipient["Action"], "failed"),
        ("status", &recipient["Status"], "5.1.1"),
        ("final recipient", &recipient["Final-Recipient"], "rfc822; nobody@other.test"),
        ("remote MTA", &recipient["Remote-MTA"], "dns; mx.other.test"),
        ("returned", &dsn["returned"], "text/rfc822-headers"),
        ("returned subject", &dsn["returned_subject"], "test 1"),
    ] {
        ensure!(found == expected, "{what}: {found}, not {expected:?}: {dsn}");
    }
    ensure!(dsn["text"].as_str().is_some_and(|text| text.contains("mx.other.test said: 550 5.1.1")), "{dsn}");
    ensure!(recipient["Diagnostic-Code"].as_str().is_some_and(|code| code.starts_with("smtp; 550")), "{dsn}");

    let home = here.path("mutt");
    std::fs::create_dir_all(&home)?;
    let rc = format!(
        "set folder=imap://127.0.0.1:{imap}/\nset spoolfile=+INBOX\nset imap_user={BOB}\nset imap_pass={PASSWORD}\n\
         set ssl_starttls=no\nset ssl_force_tls=no\nset move=no\nset wait_key=no\nset quit=yes\nset pager_stop=yes\n"
    );
    std::fs::write(home.join("rc"), rc)?;
    let session = format!("postrider-{}-{}", std::process::id(), here.server.offset());
    let command = format!(
        "HOME={home} TERM=xterm neomutt -n -F {home}/rc -e 'push \"<first-entry><display-message>\"'",
        home = home.display()
    );
    run("tmux", &["-L", &session, "new-session", "-d", "-x", "120", "-y", "60", &command])?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let shown = loop {
        let screen = run("tmux", &["-L", &session, "capture-pane", "-p"]).unwrap_or_default();
        let words = ["could not be delivered to:", "nobody@other.test", "mx.other.test said: 550 5.1.1"];
        if words.iter().all(|words| screen.contains(words)) {
            break Ok(());
        }
        if Instant::now() > deadline {
            break Err(screen);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let _ = run("tmux", &["-L", &session, "kill-server"]);
    if let Err(screen) = shown {
        bail!("neomutt does not show it:\n{screen}");
    }

    // The address is not written to again until it is taken off the list, and a bounce of a bounce never happens.
    submit(&here, 2, &["nobody@other.test"])?;
    wait(&here, BOB, 2)?;
    ensure!(there.server.log().matches("nobody@other.test").count() <= 1, "it was tried again");
    command_at(&here, &["suppression", "remove", BOB, "nobody@other.test"])?;
    let list = command_at(&here, &["suppression", "list", BOB])?;
    ensure!(!list.contains("nobody@other.test"), "{list}");
    let data = here.path("null.eml");
    std::fs::write(&data, message::numbered(3, 500))?;
    let url = format!("smtps://127.0.0.1:{}", here.server.submissions().port());
    let (user, data) = (format!("{BOB}:{PASSWORD}"), data.to_string_lossy().into_owned());
    run(
        "curl",
        &[
            "-sS",
            "-k",
            "--url",
            &url,
            "--user",
            &user,
            "--mail-from",
            "",
            "--mail-rcpt",
            "nobody@other.test",
            "--upload-file",
            &data,
        ],
    )?;
    let ended = traced(&here, 3, "nobody was told")?;
    ensure!(ended.contains("5.1.1"), "{ended}");
    std::thread::sleep(Duration::from_secs(1));
    ensure!(reports::reported(here.server.imap(), BOB)?.values().sum::<u32>() == 2, "somebody was told");
    here.log_is_quiet(&[])
}

/// A command of the administrator: what it prints.
fn command_at(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()?)
        .args(arguments)
        .arg("--data")
        .arg(scene.path("data"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "{}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits between attempts as they are configured, on a clock that nobody sets: doubled from two seconds up to eight, a fifth
/// more or less, and as late as the queue looks and the site is left alone.
#[test]
fn retries_in_real_time() -> Result<()> {
    let dns = Dns::start()?;
    dns.exchanger("dead.test", 10, "mx.dead.test", Ipv4Addr::new(127, 0, 5, 98));
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("postrider.toml");
    std::fs::write(
        &settings,
        "[queue]\npoll_seconds = 1\n[queue.retry]\nseconds_min = 2\nseconds_max = 8\n\
         [smtp_out.limits]\nsuspend_seconds_min = 1\nsuspend_seconds_max = 1\n",
    )?;
    let resolver = dns.address().to_string();
    let here = Scene::start_with(&[
        "--config",
        &settings.to_string_lossy(),
        "--resolver",
        &resolver,
        "--mx-port",
        "2599",
    ])?;
    submit(&here, 1, &["a@dead.test"])?;
    let path = format!("/admin/v1/queue/trace?id={}", message::message_id(1));
    let mut tried: Vec<u64> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while tried.len() < 6 {
        ensure!(Instant::now() < deadline, "only {tried:?}");
        let traced: Value = serde_json::from_str(&here.server.get(&path)?)?;
        let items = traced.as_array().into_iter().flatten();
        for recipient in items.flat_map(|item| item["recipients"].as_array().into_iter().flatten()) {
            if let (Some(at), Some(deferrals)) =
                (recipient["last"]["at"].as_u64(), recipient["deferrals"].as_u64())
                && deferrals as usize == tried.len() + 1
            {
                tried.push(at);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for (pair, base) in tried.windows(2).zip([2.0, 4.0, 8.0, 8.0, 8.0]) {
        let wait = (pair[1] - pair[0]) as f64;
        // Times are in whole seconds on both sides.
        ensure!(
            (base * 0.8 - 1.0..=base * 1.2 + 3.0).contains(&wait),
            "{wait} s where {base} were due: {tried:?}"
        );
    }
    Ok(())
}
