//! Rounds: load on all nodes, a fault in the midst of it, and after it a judgement of what clients find at each node.
//!
//! What was acknowledged is there once, with its bytes and flags; what was refused is not; nodes agree; UIDs ascend and
//! mean what they meant.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::Rng as _;
use testkit::imap::Imap;
use testkit::ledger::{self, Effect, Subject};
use testkit::load::{ACCOUNTS, Load, Plan, PutOff, Run, Worker, authenticate, text_of};
use testkit::observe::{Damage, Observer, Seen};
use testkit::sending::{self, Book, Outside, Tally};
use testkit::server::{EVENTFUL, PASSWORD};
use testkit::smtp::Smtp;
use testkit::synced::{ByChanges, ByUid};
use testkit::watching;

use crate::faults::{Fault, Kind};
use crate::owners::{Cost, Moment, Owners, watch};
use crate::{Cluster, Setup};

/// Nodes of Postrider, and of Cassandra.
const NODES: usize = 3;
/// Accounts besides those of `postrider dev`.
const MORE_ACCOUNTS: [&str; 2] = ["dora@example.test", "emil@example.test"];
/// Who sends to hosts outside; notifications come to it, so its mailboxes are not those of the load.
const SENDER: &str = "sender@example.test";
/// Mailboxes that clients keep copies of.
const COPIED: [&str; 2] = ["INBOX", "Work"];
/// Load with one owner for each shard, which load with two is compared with.
const COMPARED: Duration = Duration::from_secs(60);
/// Load before a fault begins.
const BEFORE: Duration = Duration::from_secs(5);
/// How long load goes on after everything serves again.
const AFTER: Duration = Duration::from_secs(20);
/// How long it may take until every node serves again.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(180);
/// How long it may take until every node shows what it should.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// The same after a clock was ten minutes wrong: what was put off by it comes when its time has come.
const CLOCK_PATIENCE: Duration = Duration::from_secs(12 * 60);
/// Messages beyond which mailboxes are emptied between rounds, since each round reads all of them.
const MESSAGES_MAX: usize = 1_500;

/// Quick second attempts, so that much of it happens in a round.
const SETTINGS: &str = "\
[queue]
poll_seconds = 2
retry_seconds_min = 1
retry_seconds_max = 5
outbound_lease_seconds_max = 20

[smtp_out.timeouts]
attempt = 20

[queue.retry]
seconds_min = 1
seconds_max = 2

[smtp_out.limits]
suspend_seconds_min = 1
suspend_seconds_max = 1
";

/// A cluster under load, round after round.
#[derive(Debug)]
pub struct Rounds {
    /// The nodes, and what they stand on.
    pub cluster: Cluster,
    run: Arc<Run>,
    observer: Observer,
    accounts: Vec<String>,
    outside: Outside,
    book: Arc<Book>,
    copies: Arc<Copies>,
    heard: Arc<Mutex<Vec<f64>>>,
    /// Steps that were acknowledged, and that were open, before this round.
    before: (usize, usize),
    /// When the round before this one began, on the ledger's clock.
    last_began: f64,
}

/// What clients have that never look at anything again.
#[derive(Debug)]
struct Copies {
    by_uid: Mutex<Vec<ByUid>>,
    by_changes: Mutex<Vec<ByChanges>>,
}

impl Copies {
    fn of(accounts: &[String]) -> Self {
        let mailboxes = || accounts.iter().flat_map(|account| COPIED.map(|mailbox| (account, mailbox)));
        Self {
            by_uid: Mutex::new(mailboxes().map(|(account, mailbox)| ByUid::new(account, mailbox)).collect()),
            by_changes: Mutex::new(
                mailboxes().map(|(account, mailbox)| ByChanges::new(account, mailbox)).collect(),
            ),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the lock")
}

/// What happened in a round that found nothing wrong.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Steps that were acknowledged.
    pub acknowledged: usize,
    /// Steps without an answer, or with one that leaves them open.
    pub undecided: usize,
    /// For each worker the longest time without success.
    pub outages: Vec<Duration>,
    /// From the end of the fault until every node served.
    pub recovery: Duration,
    /// From the end of the load until everything was as it should be, all looks included.
    pub settled: Duration,
    /// Seconds from an acknowledgement until a client in IDLE had heard of the message.
    pub heard: Vec<f64>,
    /// What became of mail to hosts outside, in this round and the one before.
    pub sent: Tally,
    /// Where shards had two owners: how that went.
    pub owners: Option<Owners>,
}

/// The middle, and the greatest.
fn median_and_longest(mut seconds: Vec<f64>) -> (f64, f64) {
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or(0.0);
    (at(seconds.len() / 2), at(seconds.len().saturating_sub(1)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, longest) = median_and_longest(self.outages.iter().map(Duration::as_secs_f64).collect());
        let (idle_median, idle_longest) = median_and_longest(self.heard.clone());
        let Self { acknowledged, undecided, sent, .. } = self;
        write!(
            f,
            "acknowledged={acknowledged} undecided={undecided} lost=0 doubled=0 wrong=0 outage_median_s={median:.1} \
             outage_longest_s={longest:.1} recovery_s={:.1} settle_s={:.1} idle_heard={} idle_median_s={idle_median:.2} \
             idle_longest_s={idle_longest:.1} sent_recipients={} sent_bounced={} sent_doubled_in_doubt={}",
            self.recovery.as_secs_f64(),
            self.settled.as_secs_f64(),
            self.heard.len(),
            sent.recipients,
            sent.bounced,
            sent.doubled,
        )?;
        self.owners.iter().try_for_each(|owners| write!(f, " {owners}"))
    }
}

impl Rounds {
    /// Starts everything.
    pub fn start(seed: u64) -> Result<Self> {
        let outside = Outside::start()?;
        let cluster = Cluster::start_as(&Setup {
            cassandra_nodes: NODES,
            proxies: Some(seed),
            nodes: NODES,
            settings: format!("{EVENTFUL}\n{SETTINGS}"),
            arguments: outside.arguments(),
            ..Setup::default()
        })?;
        for account in MORE_ACCOUNTS.into_iter().chain([SENDER]) {
            cluster.add_account(account)?;
        }
        let accounts: Vec<String> = ACCOUNTS.into_iter().chain(MORE_ACCOUNTS).map(str::to_owned).collect();
        Ok(Self {
            cluster,
            run: Arc::default(),
            observer: Observer::new(&accounts),
            copies: Arc::new(Copies::of(&accounts)),
            accounts,
            outside,
            book: Arc::default(),
            heard: Arc::default(),
            before: (0, 0),
            last_began: 0.0,
        })
    }

    /// One round. An error that is [`Damage`] is the fault of those under test; either way logs are kept, and the error
    /// says where.
    pub fn round(&mut self, fault: &Fault, seed: u64) -> Result<Report> {
        self.run_round(fault, seed).map_err(|error| {
            let kept = self.cluster.keep_logs();
            error.context(format!("{fault}, seed {seed}, kept in {}", kept.display()))
        })
    }

    fn run_round(&mut self, fault: &Fault, seed: u64) -> Result<Report> {
        let this_began = ledger::now();
        let load = self.load(seed);
        std::thread::sleep(BEFORE);
        let one_owner = match fault.kind {
            Kind::TwoOwners => {
                let (one, ()) = self.cost_of(|_| {
                    std::thread::sleep(fault.lasts().min(COMPARED));
                    Ok(())
                })?;
                Some(one)
            }
            _ => None,
        };
        fault.begin(&mut self.cluster).with_context(|| format!("{fault} begins"))?;
        let began = Instant::now();
        if fault.kind.stops_all_commits() {
            self.is_refused()?;
        }
        let left = fault.lasts().saturating_sub(began.elapsed());
        let owners = match one_owner {
            Some(one) => {
                let (two, watched) = self.cost_of(|rounds| watch(&rounds.cluster, fault.whom, left))?;
                Some(Owners::of(one, two, watched)?)
            }
            None => {
                std::thread::sleep(left);
                None
            }
        };
        fault.end(&mut self.cluster).with_context(|| format!("{fault} ends"))?;
        let ended = Instant::now();
        self.until_all_serve()?;
        let recovery = ended.elapsed();
        std::thread::sleep(AFTER);
        let outages = load.stop();
        self.nobody_ended()?;
        let (acknowledged, undecided) = (self.run.ledger.acknowledged(), self.run.ledger.undecided());
        let stopped = Instant::now();
        let patience = if fault.kind.moves_clock() { CLOCK_PATIENCE } else { SETTLE_PATIENCE };
        self.judge(patience)?;
        let sent = self.judge_sending(patience)?;
        let settled = stopped.elapsed();
        self.book.forget_before(self.last_began);
        self.last_began = this_began;
        let report = Report {
            acknowledged: acknowledged - self.before.0,
            undecided: undecided.saturating_sub(self.before.1),
            outages,
            recovery,
            settled,
            heard: std::mem::take(&mut lock(&self.heard)),
            sent,
            owners,
        };
        if report.acknowledged == 0 {
            bail!("nothing was acknowledged, so nothing was tested");
        }
        self.empty_mailboxes()?;
        self.before = (self.run.ledger.acknowledged(), self.run.ledger.undecided());
        Ok(report)
    }

    /// What the steps of clients cost while something else is done.
    fn cost_of<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<(Cost, T)> {
        let before = Moment::now(&self.cluster, self.run.ledger.acknowledged())?;
        let done = work(self)?;
        Ok((before.until(&Moment::now(&self.cluster, self.run.ledger.acknowledged())?), done))
    }

    /// Those who work, and those who look on.
    fn load(&self, seed: u64) -> Load {
        let mut load = Load::over(&self.run, &self.cluster.doors, self.plan(seed));
        load.also(watching::read);
        let heard = Arc::clone(&self.heard);
        load.also(move |worker| watching::wait(worker, &heard));
        let copies = Arc::clone(&self.copies);
        load.also(move |worker| one_more_sync(worker, &copies.by_uid, |copy| &copy.account, ByUid::sync));
        let copies = Arc::clone(&self.copies);
        load.also(move |worker| {
            one_more_sync(worker, &copies.by_changes, |copy| &copy.account, ByChanges::sync)
        });
        let book = Arc::clone(&self.book);
        load.also(move |worker| send_outside(worker, &book));
        load
    }

    fn plan(&self, seed: u64) -> Plan {
        Plan {
            accounts: self.accounts.clone(),
            seed,
            put_off: PutOff::Undecided,
            patience: Duration::from_secs(20),
            pause: Duration::from_millis(50),
            retry_pause: Duration::from_millis(200),
        }
    }

    /// While there is no majority, every node answers that it cannot, in the time that clients have.
    fn is_refused(&self) -> Result<()> {
        for (number, door) in self.cluster.doors.all().into_iter().enumerate() {
            let account = &self.accounts[0];
            let subject = Subject { account: account.clone(), id: self.run.number() };
            self.run.ledger.invoke(&subject, Effect::Deliver("INBOX".to_owned()));
            let mut client = Smtp::hello(door.smtp).with_context(|| format!("node {number}: SMTP"))?;
            client.raw(format!("MAIL FROM:<load@example.net>\r\nRCPT TO:<{account}>\r\n").as_bytes())?;
            client.expect(250)?;
            let mut reply = client.reply()?;
            if reply.code == 250 {
                client.command("DATA", 354)?;
                reply = client.body(text_of(subject.id).as_bytes())?;
            } else {
                self.run.ledger.refuse(&subject);
            }
            if !(400..500).contains(&reply.code) {
                let said = format!("{} {}", reply.code, reply.lines.join(" "));
                bail!(Damage(format!("node {number}: SMTP without a majority: {said}")));
            }
            let said = match Imap::connect(door.imap) {
                Ok(mut client) => {
                    let tag = client.send(&format!("LOGIN {account} {PASSWORD}"))?;
                    let mut said = tagged_or_bye(&mut client, &tag)?;
                    if said.starts_with("OK") {
                        let tag = client.send("CREATE Never")?;
                        said = tagged_or_bye(&mut client, &tag)?;
                    }
                    said
                }
                Err(error) => format!("{error:#}"),
            };
            if !said.starts_with("NO") && !said.contains("BYE") {
                bail!(Damage(format!("node {number}: IMAP without a majority: {said}")));
            }
        }
        Ok(())
    }

    /// Until a client can log in and look at a mailbox at every node.
    fn until_all_serve(&self) -> Result<()> {
        let deadline = Instant::now() + RECOVERY_PATIENCE;
        for (number, door) in self.cluster.doors.all().into_iter().enumerate() {
            let serves = || -> Result<()> {
                let patience = Duration::from_secs(20);
                let mut client = Imap::login_within(door.imap, &self.accounts[0], PASSWORD, patience)?;
                client.ok("EXAMINE INBOX")?;
                Smtp::connect_within(door.smtp, patience)?;
                Ok(())
            };
            while let Err(error) = serves() {
                if Instant::now() > deadline {
                    bail!(Damage(format!("node {number} does not serve again: {error:#}")));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// A node that ends by itself has given up.
    fn nobody_ended(&mut self) -> Result<()> {
        for (number, node) in self.cluster.nodes.iter_mut().enumerate() {
            let Some(node) = node else { bail!("node {number} is down") };
            if node.ended() {
                bail!(Damage(format!("node {number} has ended by itself:\n{}", node.log_tail(20))));
            }
        }
        Ok(())
    }

    /// Until every node shows the same, and nothing is wrong with it.
    fn judge(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(first) = self.run.wrong().first() {
                bail!(Damage(format!("shown to a client: {first}")));
            }
            match self.look_everywhere() {
                Ok(Ok(seen)) => {
                    self.run.ledger.settle(&seen.found);
                    self.observer.rest();
                    return Ok(());
                }
                Ok(Err(wrong)) if Instant::now() > deadline => bail!(Damage(wrong)),
                Err(error) if error.is::<Damage>() || Instant::now() > deadline => return Err(error),
                // A session may end, and a client looks again.
                Ok(Err(_)) | Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// What all nodes show, or what is wrong with it so far.
    fn look_everywhere(&mut self) -> Result<Result<Seen, String>> {
        let mut first: Option<Seen> = None;
        for (number, door) in self.cluster.doors.all().into_iter().enumerate() {
            let seen = self.observer.look(door.imap).with_context(|| format!("at node {number}"))?;
            let verdict = self.run.ledger.judge(&seen.found, ledger::now());
            if !verdict.clean() {
                return Ok(Err(format!("node {number}: {verdict}")));
            }
            if let Some(hole) = self.hole_in_copies(door.imap, &seen)? {
                return Ok(Err(format!("node {number}: {hole}")));
            }
            match &first {
                None => first = Some(seen),
                Some(first) => {
                    if let Some(difference) = difference(first, &seen) {
                        return Ok(Err(format!("node {number} differs from node 0: {difference}")));
                    }
                }
            }
        }
        Ok(Ok(first.context("there are nodes")?))
    }

    /// Lets the copies follow at this node, and holds them against what a fresh look has found there.
    fn hole_in_copies(&self, imap: SocketAddr, seen: &Seen) -> Result<Option<String>> {
        let nothing = BTreeMap::new();
        let fresh = |account: &str, mailbox: &str| {
            seen.mailboxes.get(&(account.to_owned(), mailbox.to_owned())).unwrap_or(&nothing)
        };
        for account in &self.accounts {
            let mut client = Imap::login(imap, account, PASSWORD)?;
            for copy in lock(&self.copies.by_uid).iter_mut().filter(|copy| copy.account == *account) {
                copy.sync(&mut client)?;
                if let Some(hole) = copy.misses(fresh(account, &copy.mailbox)) {
                    return Ok(Some(hole));
                }
            }
            for copy in lock(&self.copies.by_changes).iter_mut().filter(|copy| copy.account == *account) {
                copy.sync(&mut client)?;
                if let Some(difference) = copy.differs(fresh(account, &copy.mailbox)) {
                    return Ok(Some(difference));
                }
            }
        }
        Ok(None)
    }

    /// Until every recipient outside has what was acknowledged, or its sender was told.
    fn judge_sending(&self, patience: Duration) -> Result<Tally> {
        let deadline = Instant::now() + patience;
        loop {
            let taken = self.outside.sink.taken();
            match sending::judge(self.cluster.node(0)?, SENDER, &self.book, &taken, ledger::now()) {
                Ok(tally) => return Ok(tally),
                Err(error) if Instant::now() > deadline => return Err(error.context("mail to hosts outside")),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Each round reads all that is there.
    fn empty_mailboxes(&mut self) -> Result<()> {
        let door = self.cluster.doors.all()[0];
        let seen = self.observer.look(door.imap)?;
        if seen.mailboxes.values().map(|messages| messages.len()).sum::<usize>() < MESSAGES_MAX {
            return Ok(());
        }
        let empty = |account: &str, mailbox: &str| -> Result<()> {
            let mut client = Imap::login(door.imap, account, PASSWORD)?;
            if client.ok(&format!("SELECT \"{mailbox}\""))?.text().iter().any(|line| line == "* 0 EXISTS") {
                return Ok(());
            }
            client.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)")?;
            client.ok("EXPUNGE")?;
            Ok(())
        };
        for (account, mailbox) in seen.mailboxes.keys() {
            // A session may end, and a client begins again.
            let mut attempts = 0;
            while let Err(error) = empty(account, mailbox) {
                attempts += 1;
                if attempts == 20 {
                    return Err(error.context(format!("{account} {mailbox} cannot be emptied")));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        let left = self.observer.look(door.imap)?;
        self.run.ledger.settle(&left.found);
        Ok(())
    }

    /// Stops all nodes, lets `postrider check` read everything, and starts them again.
    pub fn check(&mut self) -> Result<()> {
        for number in 0..self.cluster.nodes.len() {
            self.cluster.stop_node(number)?;
        }
        if let Err(error) = self.cluster.check() {
            let kept = self.cluster.keep_logs();
            return Err(error.context(format!("kept in {}", kept.display())));
        }
        (0..self.cluster.nodes.len()).try_for_each(|number| self.cluster.restart_node(number))
    }
}

/// Lets one of the copies follow, at a node of the worker's choice. What breaks off has changed nothing.
fn one_more_sync<C: Clone>(
    worker: &mut Worker,
    copies: &Mutex<Vec<C>>,
    account: impl Fn(&C) -> &str,
    sync: impl Fn(&mut C, &mut Imap) -> Result<()>,
) -> Result<()> {
    let number = worker.random.random_range(0..lock(copies).len());
    let mut copy = lock(copies)[number].clone();
    let mut client = worker.imap(account(&copy))?;
    sync(&mut copy, &mut client)?;
    lock(copies)[number] = copy;
    worker.succeeded();
    Ok(())
}

/// Hands in mail for hosts outside.
fn send_outside(worker: &mut Worker, book: &Book) -> Result<()> {
    let door = worker.door();
    let mut client = worker.smtp(door.submission, "EHLO")?;
    authenticate(&mut client, SENDER)?;
    while !worker.stopped() {
        match book.submit(&mut client, SENDER, &mut worker.random)? {
            250 => worker.succeeded(),
            code => bail!("put off with {code}"),
        }
        // Each message is several commits of each recipient's shard.
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// The tagged response, or the BYE that a server ends with.
fn tagged_or_bye(client: &mut Imap, tag: &str) -> Result<String> {
    loop {
        let line = String::from_utf8_lossy(&client.response()?).into_owned();
        if line.starts_with("* BYE") {
            return Ok(line);
        }
        if let Some(rest) = line.strip_prefix(tag) {
            return Ok(rest.trim_start().to_owned());
        }
    }
}

/// The first mailbox that two nodes show differently.
fn difference(one: &Seen, other: &Seen) -> Option<String> {
    if one.mailboxes.len() != other.mailboxes.len() {
        return Some(format!("{} and {} mailboxes", one.mailboxes.len(), other.mailboxes.len()));
    }
    one.mailboxes.iter().find_map(|((account, mailbox), messages)| {
        let others = other.mailboxes.get(&(account.clone(), mailbox.clone()))?;
        let uid = messages.keys().chain(others.keys()).find(|uid| messages.get(uid) != others.get(uid))?;
        Some(format!("{account} {mailbox}, UID {uid}: {:?} and {:?}", messages.get(uid), others.get(uid)))
    })
}
