//! Mixed load: mail over SMTP, submission and LMTP, IMAP sessions that append, flag, copy, move and expunge, and one that
//! makes, renames, subscribes to and deletes mailboxes. Every step goes through the ledger. A connection that breaks
//! ends its worker's present step as undecided; the worker connects again, to another node where there are several, until
//! it is told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::doors::{Door, Doors};
use crate::imap::{self, Imap};
use crate::ledger::{Effect, Ledger, Subject};
use crate::message;
use crate::server::{PASSWORD, Server};
use crate::smtp::Smtp;

/// The accounts of `postrider dev`.
pub const ACCOUNTS: [&str; 2] = ["alice@example.test", "bob@example.test"];

/// What the names of mailboxes begin with that come and go; no message is put into them.
const BOX: &str = "Box-";

/// Numbers for messages, never used twice in a run, and the ledger that they stand in.
#[derive(Debug, Default)]
pub struct Run {
    /// What was asked for, and what was acknowledged.
    pub ledger: Ledger,
    next: AtomicU64,
    stop: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

/// What it means that a message is put off with 4xx when it has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOff {
    /// It is not there.
    Refused,
    /// It may come: who answers may not know what became of it.
    Undecided,
}

/// How workers work.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose mail it is.
    pub accounts: Vec<String>,
    /// Seed of all random choices.
    pub seed: u64,
    /// How 4xx at the final dot is understood. Who understands it as undecided goes to another node after it, and after
    /// any NO of IMAP.
    pub put_off: PutOff,
    /// How long a client waits for an answer before it goes.
    pub patience: Duration,
    /// How long it rests after a step.
    pub pause: Duration,
    /// How long it rests before it connects again.
    pub retry_pause: Duration,
}

impl Plan {
    /// For one server that has its disk to itself, as fast as it goes.
    pub fn one_server(seed: u64) -> Self {
        Self {
            accounts: ACCOUNTS.map(str::to_owned).into(),
            seed,
            put_off: PutOff::Refused,
            patience: Duration::from_secs(60),
            pause: Duration::ZERO,
            retry_pause: Duration::from_millis(2),
        }
    }
}

/// Workers at work.
#[derive(Debug)]
pub struct Load {
    run: Arc<Run>,
    doors: Arc<Doors>,
    plan: Plan,
    workers: Vec<JoinHandle<Duration>>,
}

impl Load {
    /// Starts three SMTP senders, one LMTP sender, four IMAP sessions that work on messages, one user who submits, and
    /// one IMAP session that works on mailboxes.
    pub fn start(run: &Arc<Run>, server: &Server, seed: u64) -> Self {
        let doors = Arc::new(Doors::new(vec![Door::of(server)]));
        Self::over(run, &doors, Plan::one_server(seed))
    }

    /// The same over several nodes.
    pub fn over(run: &Arc<Run>, doors: &Arc<Doors>, plan: Plan) -> Self {
        run.stop.store(false, Ordering::SeqCst);
        let mut load = Self { run: Arc::clone(run), doors: Arc::clone(doors), plan, workers: Vec::new() };
        for number in 0..10_usize {
            load.also(move |worker| match number {
                0..3 => send(worker, "load@example.net", |worker, door| worker.smtp(door.smtp, "EHLO")),
                8 => {
                    let from = worker.plan.accounts[0].clone();
                    send(worker, &from, |worker, door| {
                        let mut client = worker.smtp(door.submission, "EHLO")?;
                        authenticate(&mut client, &worker.plan.accounts[0])?;
                        Ok(client)
                    })
                }
                9 => {
                    let account = worker.any_account();
                    mailboxes(worker, &account)
                }
                3 => send_lmtp(worker),
                _ => {
                    let account = worker.plan.accounts[number % worker.plan.accounts.len()].clone();
                    session(worker, &account)
                }
            });
        }
        load
    }

    /// One more worker, which does this again and again; it returns when it is told to stop, or with an error.
    pub fn also(&mut self, mut work: impl FnMut(&mut Worker) -> Result<()> + Send + 'static) {
        let number = self.workers.len() as u64;
        let mut worker = Worker {
            run: Arc::clone(&self.run),
            doors: Arc::clone(&self.doors),
            random: StdRng::seed_from_u64(self.plan.seed.wrapping_mul(1_000) + number),
            plan: self.plan.clone(),
            at: None,
            success: Instant::now(),
            outage: Duration::ZERO,
        };
        self.workers.push(std::thread::spawn(move || {
            while !worker.stopped() {
                // Any error means that the server has gone: the step stays undecided.
                let _ = work(&mut worker);
                std::thread::sleep(worker.plan.retry_pause);
            }
            worker.outage.max(worker.success.elapsed())
        }));
    }

    /// Tells the workers to stop and waits for them: for how long each was without success at the longest.
    pub fn stop(self) -> Vec<Duration> {
        self.run.stop.store(true, Ordering::SeqCst);
        self.workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    }
}

/// One client, that connects again and again.
#[derive(Debug)]
pub struct Worker {
    /// What all of them do.
    pub run: Arc<Run>,
    /// How they do it.
    pub plan: Plan,
    /// Its own choices.
    pub random: StdRng,
    doors: Arc<Doors>,
    at: Option<usize>,
    success: Instant,
    outage: Duration,
}

impl Worker {
    /// Whether it was told to stop.
    pub fn stopped(&self) -> bool {
        self.run.stop.load(Ordering::SeqCst)
    }

    /// The node to connect to now: not the one that it had before.
    pub fn door(&mut self) -> Door {
        let (number, door) = self.doors.choose(&mut self.random, self.at);
        self.at = Some(number);
        door
    }

    /// An IMAP session of this account, at the next node.
    pub fn imap(&mut self, account: &str) -> Result<Imap> {
        let address = self.door().imap;
        Imap::login_within(address, account, PASSWORD, self.plan.patience)
    }

    /// An SMTP or LMTP session.
    pub fn smtp(&self, address: SocketAddr, hello: &str) -> Result<Smtp> {
        let mut client = Smtp::connect_within(address, self.plan.patience)?;
        client.command(&format!("{hello} client.example.net"), 250)?;
        Ok(client)
    }

    /// Any of the accounts.
    pub fn any_account(&mut self) -> String {
        self.plan.accounts[self.random.random_range(0..self.plan.accounts.len())].clone()
    }

    /// It had what it asked for. Rests a little.
    pub fn succeeded(&mut self) {
        self.outage = self.outage.max(self.success.elapsed());
        std::thread::sleep(self.plan.pause);
        self.success = Instant::now();
    }

    /// Asks for one step; an error leaves it undecided.
    fn step<T>(
        &mut self,
        subject: &Subject,
        effect: Effect,
        ask: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.run.ledger.invoke(subject, effect);
        let answer = ask()?;
        match answer {
            Some(_) => {
                self.run.ledger.acknowledge(subject);
                self.succeeded();
            }
            None => {
                self.run.ledger.refuse(subject);
                if self.plan.put_off == PutOff::Undecided {
                    bail!("refused here");
                }
            }
        }
        Ok(answer)
    }

    /// What the reply behind a message's final dot means for a recipient.
    fn answered(&self, subject: &Subject, code: u16) {
        match (code, self.plan.put_off) {
            (250, _) => self.run.ledger.acknowledge(subject),
            (400..500, PutOff::Undecided) => {}
            _ => self.run.ledger.refuse(subject),
        }
    }
}

impl Run {
    /// A number for a message, or for whatever else must have one.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A client was shown what is not so.
    pub fn shown_wrong(&self, what: String) {
        self.wrong.lock().expect("nobody panics with the lock").push(what);
    }

    /// What clients were shown that is not so.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("nobody panics with the lock").clone()
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

/// A submission session of this account, in plain, which the configuration of the test allows.
pub fn log_in(submission: SocketAddr, account: &str) -> Result<Smtp> {
    let mut client = Smtp::hello(submission)?;
    authenticate(&mut client, account)?;
    Ok(client)
}

/// Name and password at once (RFC 4616 §2).
pub fn authenticate(client: &mut Smtp, account: &str) -> Result<()> {
    let plain = base64(format!("\0{account}\0{PASSWORD}").as_bytes());
    client.command(&format!("AUTH PLAIN {plain}"), 235)?;
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn send(worker: &mut Worker, from: &str, connect: impl Fn(&mut Worker, Door) -> Result<Smtp>) -> Result<()> {
    let door = worker.door();
    let mut client = connect(worker, door)?;
    while !worker.stopped() {
        let recipients = some_recipients(worker);
        let subjects = sent(worker, &recipients, Effect::Deliver, &mut client, from)?;
        let reply = client.body(text_of(subjects[0].id).as_bytes())?;
        for subject in &subjects {
            worker.answered(subject, reply.code);
        }
        concluded(worker, reply.code)?;
        if worker.random.random_range(0..10) == 0 {
            let door = worker.door();
            client = connect(worker, door)?;
        }
    }
    Ok(())
}

fn send_lmtp(worker: &mut Worker) -> Result<()> {
    let address = worker.door().lmtp;
    let mut client = worker.smtp(address, "LHLO")?;
    while !worker.stopped() {
        let recipients = some_recipients(worker);
        let subjects = sent(worker, &recipients, Effect::Appear, &mut client, "load@example.net")?;
        // One reply for each recipient, in their order (RFC 2033 §4.2).
        let mut reply = client.body(text_of(subjects[0].id).as_bytes())?;
        let mut worst = reply.code;
        for (index, subject) in subjects.iter().enumerate() {
            if index > 0 {
                reply = client.reply()?;
            }
            worker.answered(subject, reply.code);
            worst = worst.max(reply.code);
        }
        concluded(worker, worst)?;
    }
    Ok(())
}

/// One account, or two.
fn some_recipients(worker: &mut Worker) -> Vec<String> {
    let accounts = &worker.plan.accounts;
    let first = worker.random.random_range(0..accounts.len());
    let count = if worker.random.random_range(0..4) == 0 { accounts.len().min(2) } else { 1 };
    (0..count).map(|turn| accounts[(first + turn) % accounts.len()].clone()).collect()
}

/// Begins to send a message with a number of its own. What is refused before its text is sent has not happened.
fn sent(
    worker: &Worker,
    recipients: &[String],
    effect: impl Fn(String) -> Effect,
    client: &mut Smtp,
    from: &str,
) -> Result<Vec<Subject>> {
    let id = worker.run.number();
    let subjects: Vec<Subject> = recipients.iter().map(|account| subject(account, id)).collect();
    for subject in &subjects {
        worker.run.ledger.invoke(subject, effect("INBOX".to_owned()));
    }
    let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
    if let Err(error) = client.begin(from, &to) {
        for subject in &subjects {
            worker.run.ledger.refuse(subject);
        }
        return Err(error);
    }
    Ok(subjects)
}

/// Goes elsewhere when a message was put off and its node may be in trouble.
fn concluded(worker: &mut Worker, code: u16) -> Result<()> {
    if code == 250 {
        worker.succeeded();
    } else if worker.plan.put_off == PutOff::Undecided {
        bail!("put off with {code}");
    }
    Ok(())
}

/// Works on messages that it has appended itself, so that their steps come one after the other.
fn session(worker: &mut Worker, account: &str) -> Result<()> {
    let mut client = worker.imap(account)?;
    client.command("CREATE Work")?;
    let mut selected = String::new();
    // Messages of this session: where they lie now, mailbox → UID.
    let mut mine: BTreeMap<u64, BTreeMap<String, u32>> = BTreeMap::new();
    while !worker.stopped() {
        let choice = worker.random.random_range(0..10);
        if mine.is_empty() || choice < 3 {
            let id = worker.run.number();
            let mailbox = ["INBOX", "Work", "Archive"][worker.random.random_range(0..3_usize)];
            let uid = worker.step(&subject(account, id), Effect::Appear(mailbox.into()), || {
                let answer = client.append(mailbox, "", text_of(id).as_bytes())?;
                decided(&answer, |tagged| last_number(imap::code(tagged, "APPENDUID")?))
            })?;
            if let Some(uid) = uid {
                mine.entry(id).or_default().insert(mailbox.to_owned(), uid);
            }
            continue;
        }
        let index = worker.random.random_range(0..mine.len());
        let (&id, places) = mine.iter_mut().nth(index).context("the index is in range")?;
        let at = worker.random.random_range(0..places.len());
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
                let flag =
                    ["\\Seen", "\\Flagged", "\\Answered", "$Work"][worker.random.random_range(0..4_usize)];
                worker.step(&subject, Effect::Flag(mailbox, flag.into()), || {
                    let answer = client.command(&format!("UID STORE {uid} +FLAGS.SILENT ({flag})"))?;
                    decided(&answer, |_| Ok(()))
                })?;
            }
            (6, Some(other)) => {
                let copied = worker.step(&subject, Effect::Copy(mailbox, other.into()), || {
                    let answer = client.command(&format!("UID COPY {uid} {other}"))?;
                    decided(&answer, |tagged| last_number(imap::code(tagged, "COPYUID")?))
                })?;
                if let Some(uid) = copied {
                    places.insert(other.to_owned(), uid);
                }
            }
            (7 | 8, Some(other)) => {
                let moved = worker.step(&subject, Effect::Move(mailbox.clone(), other.into()), || {
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
                worker.step(&subject, Effect::Flag(mailbox.clone(), "\\Deleted".into()), || {
                    let answer = client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"))?;
                    decided(&answer, |_| Ok(()))
                })?;
                let gone = worker.step(&subject, Effect::Expunge(mailbox.clone()), || {
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
fn mailboxes(worker: &mut Worker, account: &str) -> Result<()> {
    let mut client = worker.imap(account)?;
    let mut ask = |worker: &mut Worker, subject: &Subject, effect: Effect, command: &str| {
        worker.step(subject, effect, || {
            let answer = client.command(command)?;
            decided(&answer, |_| Ok(()))
        })
    };
    while !worker.stopped() {
        let id = worker.run.number();
        let (old, new) = (format!("{BOX}{id}"), format!("{BOX}{id}-new"));
        let mailbox = subject(&format!("{account} mailbox"), id);
        ask(worker, &mailbox, Effect::Appear(old.clone()), &format!("CREATE {old}"))?;
        ask(worker, &mailbox, Effect::Move(old.clone(), new.clone()), &format!("RENAME {old} {new}"))?;
        // A subscription is to a name: it stays when the mailbox is deleted (RFC 9051 §6.3.7).
        let subscription = subject(&format!("{account} subscription"), id);
        ask(worker, &subscription, Effect::Appear(new.clone()), &format!("SUBSCRIBE {new}"))?;
        if worker.random.random_bool(0.8) {
            ask(worker, &mailbox, Effect::Expunge(new.clone()), &format!("DELETE {new}"))?;
            ask(worker, &subscription, Effect::Expunge(new.clone()), &format!("UNSUBSCRIBE {new}"))?;
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
