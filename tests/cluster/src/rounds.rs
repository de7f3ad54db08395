//! Rounds: load on all nodes, a fault in the midst of it, and after it a judgement of what clients find at each node.
//!
//! What was acknowledged is there once, with its bytes and flags; what was refused is not; nodes agree; UIDs ascend and
//! mean what they meant.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::imap::Imap;
use testkit::ledger::{self, Effect, Subject};
use testkit::load::{ACCOUNTS, Load, Plan, PutOff, Run, text_of};
use testkit::observe::{Damage, Observer, Seen};
use testkit::server::PASSWORD;
use testkit::smtp::Smtp;

use crate::faults::Fault;
use crate::{Cluster, Setup};

/// Nodes of Postrider, and of Cassandra.
const NODES: usize = 3;
/// Accounts besides those of `postrider dev`.
const MORE_ACCOUNTS: [&str; 2] = ["dora@example.test", "emil@example.test"];
/// Load before a fault begins.
const BEFORE: Duration = Duration::from_secs(5);
/// How long it may take until every node serves again.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(180);
/// How long it may take until every node shows what it should.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// Messages beyond which mailboxes are emptied between rounds, since each round reads all of them.
const MESSAGES_MAX: usize = 1_500;

/// Snapshots after few entries and on small pages, and quick second attempts, so that much of it happens in a round.
const SETTINGS: &str = "\
[logs]
snapshot_entries_min = 16
snapshot_bytes_min = 8192
snapshot_share_percent = 1
snapshot_entries_max = 64

[storage.layout]
index_messages = 64
email_records = 32
run_keys = 64
trail_bytes = 512

[smtp_in]
submission_without_tls = true
user_recipients_per_hour_max = 0

[queue]
poll_seconds = 2
retry_seconds_min = 1
retry_seconds_max = 5

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
    /// How long load goes on after everything serves again.
    pub after: Duration,
    counted: usize,
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outages: Vec<f64> = self.outages.iter().map(Duration::as_secs_f64).collect();
        outages.sort_by(f64::total_cmp);
        let median = outages.get(outages.len() / 2).copied().unwrap_or(0.0);
        let longest = outages.last().copied().unwrap_or(0.0);
        let Self { acknowledged, undecided, .. } = self;
        write!(
            f,
            "acknowledged={acknowledged} undecided={undecided} lost=0 doubled=0 wrong=0 \
             outage_median_s={median:.1} outage_longest_s={longest:.1} recovery_s={:.1}",
            self.recovery.as_secs_f64()
        )
    }
}

impl Rounds {
    /// Starts everything.
    pub fn start(seed: u64) -> Result<Self> {
        let cluster = Cluster::start_as(&Setup {
            cassandra_nodes: NODES,
            proxies: Some(seed),
            nodes: NODES,
            settings: SETTINGS.to_owned(),
            ..Setup::default()
        })?;
        for account in MORE_ACCOUNTS {
            cluster.add_account(account)?;
        }
        let accounts: Vec<String> = ACCOUNTS.into_iter().chain(MORE_ACCOUNTS).map(str::to_owned).collect();
        Ok(Self {
            cluster,
            run: Arc::default(),
            observer: Observer::new(&accounts),
            accounts,
            after: Duration::from_secs(20),
            counted: 0,
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
        let load = Load::over(&self.run, &self.cluster.doors, self.plan(seed));
        std::thread::sleep(BEFORE);
        fault.begin(&mut self.cluster).with_context(|| format!("{fault} begins"))?;
        let began = Instant::now();
        if fault.kind.stops_all_commits() {
            self.is_refused()?;
        }
        std::thread::sleep(fault.lasts().saturating_sub(began.elapsed()));
        fault.end(&mut self.cluster).with_context(|| format!("{fault} ends"))?;
        let ended = Instant::now();
        self.until_all_serve()?;
        let recovery = ended.elapsed();
        std::thread::sleep(self.after);
        let outages = load.stop();
        self.nobody_ended()?;
        let undecided = self.run.ledger.undecided();
        let acknowledged = self.run.ledger.acknowledged();
        self.judge()?;
        let report = Report { acknowledged: acknowledged - self.counted, undecided, outages, recovery };
        if report.acknowledged == 0 {
            bail!("nothing was acknowledged, so nothing was tested");
        }
        self.empty_mailboxes()?;
        self.counted = self.run.ledger.acknowledged();
        Ok(report)
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
    fn judge(&mut self) -> Result<()> {
        if let [first, ..] = &self.run.wrong()[..] {
            bail!(Damage(format!("shown to a client: {first}")));
        }
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            match self.look_everywhere()? {
                Ok(seen) => {
                    self.run.ledger.settle(&seen.found);
                    self.observer.rest();
                    return Ok(());
                }
                Err(wrong) if Instant::now() > deadline => bail!(Damage(wrong)),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
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

    /// Each round reads all that is there.
    fn empty_mailboxes(&mut self) -> Result<()> {
        let door = self.cluster.doors.all()[0];
        let seen = self.observer.look(door.imap)?;
        if seen.mailboxes.values().map(|messages| messages.len()).sum::<usize>() < MESSAGES_MAX {
            return Ok(());
        }
        for ((account, mailbox), messages) in &seen.mailboxes {
            if !messages.is_empty() {
                let mut client = Imap::login(door.imap, account, PASSWORD)?;
                client.ok(&format!("SELECT \"{mailbox}\""))?;
                client.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)")?;
                client.ok("EXPUNGE")?;
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
