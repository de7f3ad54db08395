//! Real mail goes in by 20 sessions at once and is read by mbsync and by Python's imaplib: each message is there once,
//! its bytes unchanged below the trace fields that the server adds.
#![allow(clippy::print_stdout, reason = "what was counted is for people")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, run, run_in, script};
use testkit::corpus;
use testkit::imap::{self, Imap};
use testkit::server::PASSWORD;
use testkit::smtp::Smtp;

const SESSIONS: usize = 20;
/// RFC 5322 §2.1.1: longer lines cannot pass by DATA.
const LINE_MAX: usize = 998;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Data,
    Binary,
    Refused,
}

/// How a message has to go in. A carriage return or line feed that stands alone is to be refused (RFC 5321 §2.3.8).
fn way(message: &[u8]) -> Way {
    let alone = message.iter().enumerate().any(|(at, byte)| match byte {
        b'\r' => message.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || message[at - 1] != b'\r',
        _ => false,
    });
    if alone {
        return Way::Refused;
    }
    let long = message.split(|byte| *byte == b'\n').any(|line| line.len() > LINE_MAX + 1);
    if long { Way::Binary } else { Way::Data }
}

fn send_all(scene: &Scene, messages: &[(String, Vec<u8>)]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let address = scene.server.smtp();
    let work = || -> Result<()> {
        let mut client = Smtp::hello(address)?;
        loop {
            let index = next.fetch_add(1, Ordering::SeqCst);
            let Some((name, message)) = messages.get(index) else { return Ok(()) };
            let from = format!("m{index}@corpus.example");
            let reply = match way(message) {
                Way::Data | Way::Refused => client.send(&from, &["alice@example.test"], message),
                Way::Binary => client.send_binary(&from, &["alice@example.test"], message),
            };
            let reply = reply.with_context(|| name.clone())?;
            let accepted = reply.code == 250;
            ensure!(accepted != (way(message) == Way::Refused), "{name}: {reply:?}");
            if !accepted {
                client = Smtp::hello(address)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(work)).collect();
        sessions.into_iter().try_for_each(|session| session.join().expect("a session does not panic"))
    })
}

fn wait_for(scene: &Scene, count: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut client = Imap::login(scene.server.imap(), "alice@example.test", PASSWORD)?;
    loop {
        let answer = client.ok("STATUS INBOX (MESSAGES)")?;
        let there = answer.text().iter().find_map(|line| imap::number_after(line, "MESSAGES"));
        if there == Some(count as u64) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{there:?} of {count} messages arrived");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The number in the Return-Path that the message was sent with, and what follows the server's own trace fields.
fn index_of(received: &[u8]) -> Option<usize> {
    let text = received.strip_prefix(b"Return-Path: <m")?;
    let digits: Vec<u8> = text.iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

/// mbsync passes over messages whose header does not end («has incomplete header»); CPython's tests have one.
fn has_header_end(message: &[u8]) -> bool {
    message.windows(4).any(|part| part == b"\r\n\r\n")
}

fn judge(
    found: &BTreeMap<usize, Vec<Vec<u8>>>,
    messages: &[(String, Vec<u8>)],
    takes: fn(&[u8]) -> bool,
    form: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<()> {
    let expected =
        messages.iter().filter(|(_, message)| way(message) != Way::Refused && takes(message)).count();
    ensure!(found.len() == expected, "{} different messages found, {expected} sent", found.len());
    for (index, copies) in found {
        let (name, message) = &messages[*index];
        ensure!(copies.len() == 1, "{name} is there {} times", copies.len());
        let original = form(message);
        ensure!(copies[0].ends_with(&original), "{name}: its bytes have changed");
        let prefix = &copies[0][..copies[0].len() - original.len()];
        let text = String::from_utf8_lossy(prefix);
        let foreign = text.lines().find(|line| {
            let known = ["Return-Path:", "Delivered-To:", "Received:"];
            !line.starts_with(['\t', ' ']) && !known.iter().any(|field| line.starts_with(field))
        });
        ensure!(foreign.is_none(), "{name}: {foreign:?} stands before the original");
    }
    Ok(())
}

/// Takes away the field that mbsync itself writes into what it stores.
fn without_mark(bytes: Vec<u8>) -> Vec<u8> {
    let Some(start) = bytes.windows(9).position(|part| part == b"\nX-TUID: ") else { return bytes };
    let end = bytes[start + 1..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |end| start + 1 + end + 1);
    [&bytes[..=start], &bytes[end..]].concat()
}

fn by_mbsync(scene: &Scene) -> Result<BTreeMap<usize, Vec<Vec<u8>>>> {
    let home = scene.path("mbsync");
    std::fs::create_dir_all(home.join("mail"))?;
    let port = scene.server.imap().port();
    let configuration = format!(
        "IMAPAccount postrider\nHost 127.0.0.1\nPort {port}\nUser alice@example.test\nPass {PASSWORD}\n\
         SSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount postrider\n\nMaildirStore near\nPath {home}/mail/\n\
         Inbox {home}/mail/INBOX\n\nChannel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\n",
        home = home.display()
    );
    std::fs::write(home.join("mbsyncrc"), configuration)?;
    run_in(&home, "mbsync", &["-q", "-c", "mbsyncrc", "all"])?;
    // A second run has nothing to do: what it sees now is what it saw before.
    let again = run_in(&home, "mbsync", &["-c", "mbsyncrc", "all"])?;
    ensure!(!again.contains("error"), "mbsync: {again}");
    let mut found: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    for folder in ["cur", "new"] {
        for entry in std::fs::read_dir(home.join("mail/INBOX").join(folder))? {
            let bytes = without_mark(std::fs::read(entry?.path())?);
            let index = index_of(&bytes).context("a message that was not sent")?;
            found.entry(index).or_default().push(bytes);
        }
    }
    Ok(found)
}

fn by_imaplib(scene: &Scene) -> Result<BTreeMap<usize, Vec<Vec<u8>>>> {
    let target = scene.path("imaplib");
    std::fs::create_dir_all(&target)?;
    let port = scene.server.imap().port().to_string();
    run(
        "python3",
        &[&script("fetch_all.py"), &port, "alice@example.test", PASSWORD, &target.to_string_lossy()],
    )?;
    let mut found: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(&target))? {
        let bytes = std::fs::read(entry?.path())?;
        let index = index_of(&bytes).context("a message that was not sent")?;
        found.entry(index).or_default().push(bytes);
    }
    Ok(found)
}

#[test]
fn real_mail_arrives_once_and_unchanged() -> Result<()> {
    let messages = corpus::messages()?;
    let counts = [Way::Data, Way::Binary, Way::Refused]
        .map(|kind| messages.iter().filter(|(_, message)| way(message) == kind).count());
    let scene = Scene::start()?;
    send_all(&scene, &messages)?;
    wait_for(&scene, counts[0] + counts[1])?;
    judge(&by_mbsync(&scene)?, &messages, has_header_end, |message| {
        message.iter().copied().filter(|byte| *byte != b'\r').collect()
    })
    .context("mbsync")?;
    judge(&by_imaplib(&scene)?, &messages, |_| true, <[u8]>::to_vec).context("imaplib")?;
    println!(
        "{} messages: {} by DATA, {} by BDAT BINARYMIME, {} refused for a bare CR or LF; the rest read once each by mbsync and imaplib",
        messages.len(),
        counts[0],
        counts[1],
        counts[2]
    );
    scene.log_is_quiet(&[])
}
