//! Mixed load: mail over SMTP, submission and LMTP, IMAP sessions that append, flag, copy, move and expunge, and one that
//! makes, renames, subscribes to and deletes mailboxes. Every step goes through the ledger. A connection that breaks
//! ends its worker's present step as undecided; the worker connects again until it is told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::imap::{self, Imap};
use crate::ledger::{Effect, Ledger, Subject};
use crate::message;
use crate::server::{PASSWORD, Server};
use crate::smtp::Smtp;
use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The accounts of `postrider dev`.
pub const ACCOUNTS: [&str; 2] = ["alice@example.test", "bob@example.test"];

/// The first account's name and password in base64 (RFC 4616 §2).
const FIRST_ACCOUNT_PLAIN: &str = "AGFsaWNlQGV4YW1wbGUudGVzdABwb3N0cmlkZXI=";

/// What the names of mailboxes begin with that come and go; no message is put into them.
const BOX: &str = "Box-";

/// Numbers for messages, never used twice in a run, and the ledger that they stand in.
#[derive(Debug, Default)]
pub struct Run {
    /// What was asked for, and what was acknowledged.
    pub ledger: Ledger,
    next: AtomicU64,
    stop: AtomicBool,
}

/// Workers at work.
#[derive(Debug)]
pub struct Load {
    run: Arc<Run>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts three SMTP senders, one LMTP sender, four IMAP sessions that work on messages, one user who submits, and
    /// one IMAP session that works on mailboxes.
    pub fn start(run: &Arc<Run>, server: &Server, seed: u64) -> Self {
        run.stop.store(false, Ordering::SeqCst);
        let (smtp, lmtp, imap) = (server.smtp(), server.lmtp(), server.imap());
        let submission = server.submission();
        let mut workers = Vec::new();
        for worker in 0..10_u64 {
            let run = Arc::clone(run);
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000) + worker);
            workers.push(std::thread::spawn(move || {
                while !run.stop.load(Ordering::SeqCst) {
                    // Any error means that the server has gone: the step stays undecided.
                    let _ = match worker {
                        0..3 => send(&run, &mut random, "load@example.net", || Smtp::hello(smtp)),
                        8 => send(&run, &mut random, ACCOUNTS[0], || log_in(submission)),
                        9 => {
                            let account = ACCOUNTS[random.random_range(0..ACCOUNTS.len())];
                            mailboxes(&run, &mut random, account, || Imap::login(imap, account, PASSWORD))
                        }
                        3 => send_lmtp(&run, &mut random, || Smtp::hello_lmtp(lmtp)),
                        _ => {
                            let account = ACCOUNTS[(worker % 2) as usize];
                            session(&run, &mut random, account, || Imap::login(imap, account, PASSWORD))
                        }
                    };
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }));
        }
        Self { run: Arc::clone(run), workers }
    }

    /// Tells the workers to stop and waits for them.
    pub fn stop(self) {
        self.run.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            let _ = worker.join();
        }
    }
}

impl Run {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks for one step; an error leaves it undecided.
    fn step<T>(
        &self,
        subject: &Subject,
        effect: Effect,
        ask: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.ledger.invoke(subject, effect);
        let answer = ask()?;
        match answer {
            Some(_) => self.ledger.acknowledge(subject),
            None => self.ledger.refuse(subject),
        }
        Ok(answer)
    }
}

/// The size of a message: mostly small, now and then more than a megabyte. What a message is can be told from its
/// number alone, so that an observer can check its bytes.
pub fn text_of(id: u64) -> String {
    let size = match id % 50 {
        0 => 1_300_000,
        1..10 => 60_000,
        10..30 => 4_000,
        _ => 700,
    };
    message::numbered(id, size)
}

fn subject(account: &str, id: u64) -> Subject {
    Subject { account: account.to_owned(), id }
}

/// A submission session of the first account, in plain, which the configuration of the test allows.
pub fn log_in(submission: SocketAddr) -> Result<Smtp> {
    let mut client = Smtp::hello(submission)?;
    client.command(&format!("AUTH PLAIN {FIRST_ACCOUNT_PLAIN}"), 235)?;
    Ok(client)
}

fn send(run: &Run, random: &mut StdRng, from: &str, connect: impl Fn() -> Result<Smtp>) -> Result<()> {
    let mut client = connect()?;
    while !run.stopped() {
        let id = run.number();
        let recipients: &[&str] = match random.random_range(0..4) {
            0 => &ACCOUNTS,
            1 => &ACCOUNTS[..1],
            _ => &ACCOUNTS[1..],
        };
        for account in recipients {
            run.ledger.invoke(&subject(account, id), Effect::Deliver("INBOX".into()));
        }
        let reply = client.send(from, recipients, text_of(id).as_bytes())?;
        for account in recipients {
            match reply.code {
                250 => run.ledger.acknowledge(&subject(account, id)),
                _ => run.ledger.refuse(&subject(account, id)),
            }
        }
        if random.random_range(0..10) == 0 {
            client = connect()?;
        }
    }
    Ok(())
}

fn send_lmtp(run: &Run, random: &mut StdRng, connect: impl Fn() -> Result<Smtp>) -> Result<()> {
    let mut client = connect()?;
    while !run.stopped() {
        let id = run.number();
        let recipients: &[&str] = if random.random_bool(0.5) { &ACCOUNTS } else { &ACCOUNTS[..1] };
        for account in recipients {
            run.ledger.invoke(&subject(account, id), Effect::Appear("INBOX".into()));
        }
        // One reply for each recipient, in their order (RFC 2033 §4.2).
        let mut reply = client.send("load@example.net", recipients, text_of(id).as_bytes())?;
        for (index, account) in recipients.iter().enumerate() {
            if index > 0 {
                reply = client.reply()?;
            }
            match reply.code {
                250 => run.ledger.acknowledge(&subject(account, id)),
                _ => run.ledger.refuse(&subject(account, id)),
            }
        }
    }
    Ok(())
}

/// Works on messages that it has appended itself, so that their steps come one after the other.
fn session(run: &Run, random: &mut StdRng, account: &str, connect: impl Fn() -> Result<Imap>) -> Result<()> {
    let mut client = connect()?;
    client.command("CREATE Work")?;
    let mut selected = String::new();
    // Messages of this session: where they lie now, mailbox → UID.
    let mut mine: BTreeMap<u64, BTreeMap<String, u32>> = BTreeMap::new();
    while !run.stopped() {
        let choice = random.random_range(0..10);
        if mine.is_empty() || choice < 3 {
            let id = run.number();
            let mailbox = ["INBOX", "Work", "Archive"][random.random_range(0..3_usize)];
            let uid = run.step(&subject(account, id), Effect::Appear(mailbox.into()), || {
                let answer = client.append(mailbox, "", text_of(id).as_bytes())?;
                decided(&answer, |tagged| last_number(imap::code(tagged, "APPENDUID")?))
            })?;
            if let Some(uid) = uid {
                mine.entry(id).or_default().insert(mailbox.to_owned(), uid);
            }
            continue;
        }
        let index = random.random_range(0..mine.len());
        let (&id, places) = mine.iter_mut().nth(index).context("the index is in range")?;
        let at = random.random_range(0..places.len());
        let (mailbox, uid) =
            places.iter().nth(at).map(|(m, u)| (m.clone(), *u)).context("it lies somewhere")?;
        if selected != mailbox {
            client.ok(&format!("SELECT {mailbox}"))?;
            selected.clone_from(&mailbox);
        }
        let other = ["INBOX", "Work", "Archive"].into_iter().find(|name| !places.contains_key(*name));
        let subject = subject(account, id);
        match (choice, other) {
            (3..6, _) => {
                let flag = ["\\Seen", "\\Flagged", "\\Answered", "$Work"][random.random_range(0..4_usize)];
                run.step(&subject, Effect::Flag(mailbox, flag.into()), || {
                    let answer = client.command(&format!("UID STORE {uid} +FLAGS.SILENT ({flag})"))?;
                    decided(&answer, |_| Ok(()))
                })?;
            }
            (6, Some(other)) => {
                let copied = run.step(&subject, Effect::Copy(mailbox, other.into()), || {
                    let answer = client.command(&format!("UID COPY {uid} {other}"))?;
                    decided(&answer, |tagged| last_number(imap::code(tagged, "COPYUID")?))
                })?;
                if let Some(uid) = copied {
                    places.insert(other.to_owned(), uid);
                }
            }
            (7 | 8, Some(other)) => {
                let moved = run.step(&subject, Effect::Move(mailbox.clone(), other.into()), || {
                    let answer = client.command(&format!("UID MOVE {uid} {other}"))?;
                    let untagged = answer.text().into_iter().find(|line| line.contains("[COPYUID "));
                    decided(&answer, |tagged| {
                        last_number(imap::code(untagged.as_deref().unwrap_or(tagged), "COPYUID")?)
                    })
                })?;
                if let Some(uid) = moved {
                    places.remove(&mailbox);
                    places.insert(other.to_owned(), uid);
                }
            }
            _ => {
                run.step(&subject, Effect::Flag(mailbox.clone(), "\\Deleted".into()), || {
                    let answer = client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"))?;
                    decided(&answer, |_| Ok(()))
                })?;
                let gone = run.step(&subject, Effect::Expunge(mailbox.clone()), || {
                    let answer = client.command(&format!("UID EXPUNGE {uid}"))?;
                    decided(&answer, |_| Ok(()))
                })?;
                if gone.is_some() {
                    places.remove(&mailbox);
                    if places.is_empty() {
                        mine.remove(&id);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The subject that stands for a mailbox: it is in the place that has its name.
pub fn mailbox_subject(account: &str, name: &str) -> Option<Subject> {
    Some(subject(&format!("{account} mailbox"), number_of(name)?))
}

/// The subject that stands for a subscription.
pub fn subscription_subject(account: &str, name: &str) -> Option<Subject> {
    Some(subject(&format!("{account} subscription"), number_of(name)?))
}

/// `Box-17` and `Box-17-new` → 17; `None` for mailboxes that messages are in.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(BOX)?.split('-').next()?.parse().ok()
}

/// Makes mailboxes, subscribes to them, renames them and deletes most of them again.
fn mailboxes(
    run: &Run,
    random: &mut StdRng,
    account: &str,
    connect: impl Fn() -> Result<Imap>,
) -> Result<()> {
    let mut client = connect()?;
    let mut ask = |subject: &Subject, effect: Effect, command: &str| {
        run.step(subject, effect, || {
            let answer = client.command(command)?;
            decided(&answer, |_| Ok(()))
        })
    };
    while !run.stopped() {
        let id = run.number();
        let (old, new) = (format!("{BOX}{id}"), format!("{BOX}{id}-new"));
        let mailbox = subject(&format!("{account} mailbox"), id);
        ask(&mailbox, Effect::Appear(old.clone()), &format!("CREATE {old}"))?;
        ask(&mailbox, Effect::Move(old.clone(), new.clone()), &format!("RENAME {old} {new}"))?;
        // A subscription is to a name: it stays when the mailbox is deleted (RFC 9051 §6.3.7).
        let subscription = subject(&format!("{account} subscription"), id);
        ask(&subscription, Effect::Appear(new.clone()), &format!("SUBSCRIBE {new}"))?;
        if random.random_bool(0.8) {
            ask(&mailbox, Effect::Expunge(new.clone()), &format!("DELETE {new}"))?;
            ask(&subscription, Effect::Expunge(new.clone()), &format!("UNSUBSCRIBE {new}"))?;
        }
        // Most of the load are messages.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// OK is an acknowledgement, NO a refusal, anything else leaves the step undecided.
fn decided<T>(answer: &imap::Answer, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
    if answer.ok() {
        return read(&answer.tagged).map(Some);
    }
    if answer.tagged.starts_with("NO") {
        return Ok(None);
    }
    bail!("undecided: {}", answer.tagged)
}

fn last_number(code: &str) -> Result<u32> {
    code.rsplit(' ').next().and_then(|number| number.parse().ok()).with_context(|| code.to_owned())
}
