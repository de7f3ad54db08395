//! Everything moves from the folder of one machine to a cluster and back, under load and with the process killed in the
//! midst of it: clients download nothing again, and what was acknowledged is there once.
#![allow(clippy::print_stdout, reason = "times and counts are for people")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use engines::Engines;
use serde_json::Value;
use tempfile::TempDir;
use testkit::doors::{Door, Doors};
use testkit::imap::Imap;
use testkit::load::{ACCOUNTS, Load, Plan, PutOff, Run, log_in};
use testkit::observe::{Damage, Observer, Seen};
use testkit::server::{EVENTFUL, Options, PASSWORD, Server, binary};
use testkit::{corpus, ledger, message};

/// Accounts in which nothing happens, but for `POSTRIDER_MIGRATE_ACCOUNTS`.
const STILL_ACCOUNTS: usize = 4;
/// Real messages in each of them.
const STILL_MESSAGES: usize = 12;
/// Clients that keep a copy of one of them.
const COPIES_MAX: usize = 3;
/// Messages that wait for a host that cannot be reached.
const WAITING: std::ops::Range<u64> = 1_000_000..1_000_003;
/// What is as large as this is not looked at.
const REAL_BYTES_MAX: usize = 200_000;
/// What a server may take to start: the tables are made.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take until the accounts show what they should.
const SETTLE_PATIENCE: Duration = Duration::from_secs(90);

/// Quick second attempts.
const SETTINGS: &str = "[queue]\npoll_seconds = 1\n\n[queue.retry]\nseconds_min = 1\nseconds_max = 2\n";

#[test]
fn everything_moves_to_a_cluster_and_back() -> Result<()> {
    let mut scene = Scene::start()?;
    let moved = scene.there_and_back();
    if moved.is_err() {
        scene.folder.disable_cleanup(true);
        println!("kept in {}", scene.folder.path().display());
    }
    moved
}

/// Where everything can be: a configuration, and the data folder that it names.
struct Side {
    file: PathBuf,
    data: PathBuf,
}

impl Side {
    fn make(file: PathBuf, data: PathBuf, engines: &str) -> Result<Self> {
        fs::create_dir_all(&data)?;
        let data_name = data.to_str().context("a path in UTF-8")?;
        fs::write(
            &file,
            format!("data = {data_name:?}\nlisteners = []\n\n{EVENTFUL}\n{SETTINGS}\n{engines}"),
        )?;
        Ok(Self { file, data })
    }

    fn serve(&self) -> Result<Server> {
        let mut options = Options::new(&self.data);
        options.arguments = vec!["--config".to_owned(), self.file.to_string_lossy().into_owned()];
        options.patience = START_PATIENCE;
        Server::start(&options)
    }

    /// A command about this side.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--config").arg(&self.file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?.output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", told(&output));
        Ok(told(&output))
    }

    /// Nobody may work with this side, for this reason.
    fn refuses(&self, why: &str) -> Result<()> {
        // It asks no server.
        let output = self.command(&["check", "--bodies", "skip"])?.output()?;
        let told = told(&output);
        ensure!(!output.status.success() && told.contains(why), "not refused because «{why}»: {told}");
        Ok(())
    }

    /// The servers of this side have logged nothing that a person should look at, but what has one of these in it.
    fn log_is_quiet(&self, expected: &[&str]) -> Result<()> {
        let log = fs::read(self.data.with_extension("log"))?;
        let log = String::from_utf8_lossy(&log);
        let loud: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked"))
            .filter(|line| !expected.iter().any(|known| line.contains(known)))
            .collect();
        ensure!(loud.is_empty(), "unexpected lines in the log:\n{}", loud[..loud.len().min(20)].join("\n"));
        Ok(())
    }
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

struct Scene {
    machine: Arc<Side>,
    /// A node with the folder of the machine.
    cluster: Arc<Side>,
    /// Another machine.
    back: Arc<Side>,
    server: Option<Server>,
    doors: Arc<Doors>,
    run: Arc<Run>,
    observer: Observer,
    still: Vec<String>,
    _engines: Engines,
    folder: TempDir,
}

impl Scene {
    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postrider-migrate-").tempdir()?;
        let wanted = engines::Options {
            cassandra_nodes: 1,
            s3: true,
            nats: true,
            folder: Some(folder.path().join("engines")),
            ..engines::Options::default()
        };
        let starting = std::thread::spawn(move || Engines::start(&wanted));
        let [file, data, back, back_data] =
            ["machine.toml", "machine", "back.toml", "back"].map(|name| folder.path().join(name));
        let machine = Side::make(file, data.clone(), "")?;
        let back = Side::make(back, back_data, "")?;
        let server = machine.serve()?;
        let still = fill(&machine, &server)?;
        let engines = starting.join().expect("no panic")?;
        let node = format!("{}\n[cluster]\nnode = \"node0\"\n", engines.configuration());
        let cluster = Side::make(folder.path().join("cluster.toml"), data, &node)?;
        Ok(Self {
            machine: Arc::new(machine),
            cluster: Arc::new(cluster),
            back: Arc::new(back),
            doors: Arc::new(Doors::new(vec![Door::of(&server)])),
            server: Some(server),
            run: Arc::default(),
            observer: Observer::new(&ACCOUNTS.map(str::to_owned)),
            still,
            _engines: engines,
            folder,
        })
    }

    fn there_and_back(&mut self) -> Result<()> {
        let began = Instant::now();
        let load = self.load(0);
        std::thread::sleep(Duration::from_secs(3));
        let _ = load.stop();
        let mut seen = self.judge()?;
        let copies: Vec<Mirror> =
            self.still.iter().take(COPIES_MAX).map(|account| self.mirror(account)).collect();
        let worked_on = self.mirror(ACCOUNTS[0]);
        for copy in copies.iter().chain([&worked_on]) {
            copy.sync(self.server()?)?;
        }
        let downloads: Vec<_> = copies.iter().map(Mirror::files).collect::<Result<_>>()?;
        let before = self.picture()?;
        for leg in [Leg::Out, Leg::Back] {
            let at_work = worked_on.downloads()?;
            self.go(leg)?;
            let seen_before = std::mem::replace(&mut seen, self.judge()?);
            let after = self.picture()?;
            ensure!(before == after, "{}", first_difference(&before, &after));
            for (copy, download) in copies.iter().zip(&downloads) {
                copy.sync(self.server()?)?;
                ensure!(copy.files()? == *download, "mbsync found something new in {}", copy.account);
            }
            worked_on.sync(self.server()?)?;
            worked_on.has_each_once(&at_work, &seen_before, &seen)?;
            let [from, to] = self.sides(leg);
            from.refuses("has been moved: start with")?;
            self.server.take().context("it runs")?.stop(STOP_PATIENCE)?;
            println!("{leg:?} after {} s: {}", began.elapsed().as_secs(), to.succeeds(&["check"])?.trim());
            let server = to.serve()?;
            self.doors.set(0, Door::of(&server));
            self.server = Some(server);
        }
        // One more message, and this one alone, comes to who has it all.
        let mut client = Imap::login(self.server()?.imap(), &self.still[0], PASSWORD)?;
        client.append("INBOX", "", message::numbered(WAITING.end, 1_000).as_bytes())?;
        copies[0].sync(self.server()?)?;
        let more = copies[0].mails()?.len() - downloads[0].keys().filter(|path| is_mail(path)).count();
        ensure!(more == 1, "mbsync brought {more} messages");
        println!("everything moved out and back in {} s", began.elapsed().as_secs());
        self.logs_are_quiet()
    }

    fn sides(&self, leg: Leg) -> [Arc<Side>; 2] {
        match leg {
            Leg::Out => [&self.machine, &self.cluster],
            Leg::Back => [&self.cluster, &self.back],
        }
        .map(Arc::clone)
    }

    /// One way, under load from before to after.
    fn go(&mut self, leg: Leg) -> Result<()> {
        let load = self.load(leg as u64);
        std::thread::sleep(Duration::from_secs(2));
        let acknowledged = self.run.ledger.acknowledged();
        let moved = self.migrate(leg);
        let meanwhile = self.run.ledger.acknowledged() - acknowledged;
        let moved = moved.and_then(|()| self.change_over(leg));
        let _ = load.stop();
        moved?;
        println!("{leg:?}: {meanwhile} steps were acknowledged while everything moved");
        ensure!(meanwhile > 0, "nothing went on while everything moved");
        Ok(())
    }

    fn load(&self, seed: u64) -> Load {
        let plan = Plan {
            accounts: ACCOUNTS.map(str::to_owned).into(),
            seed,
            put_off: PutOff::Undecided,
            patience: Duration::from_secs(20),
            pause: Duration::from_millis(400),
            retry_pause: Duration::from_millis(200),
        };
        Load::over(&self.run, &self.doors, plan)
    }

    /// `postrider migrate`, in whose midst the server is killed.
    fn migrate(&mut self, leg: Leg) -> Result<()> {
        let [from, to] = self.sides(leg);
        let target = to.file.to_str().context("a path in UTF-8")?.to_owned();
        let migrate = ["migrate", "--to", &target];
        let [key, wanted] = [&from, &to].map(|side| side.data.join("key-encryption.key"));
        if !wanted.exists() {
            let said = told(&from.command(&migrate)?.output()?);
            ensure!(said.contains("is not there: copy"), "the key is not asked for: {said}");
            fs::copy(key, wanted)?;
        }
        let began = Instant::now();
        let watching = from.command(&migrate)?.spawn()?;
        let view = self.until_some_logs_moved()?;
        self.server.take().context("it runs")?.kill()?;
        let watched = watching.wait_with_output()?;
        ensure!(!watched.status.success(), "{}", told(&watched));
        println!("{leg:?}: killed after {} ms, at {view}", began.elapsed().as_millis());
        to.refuses("has not ended")?;
        let server = from.serve()?;
        self.doors.set(0, Door::of(&server));
        self.server = Some(server);
        let said = from.succeeds(&migrate)?;
        ensure!(said.contains("everything has moved"), "{said}");
        println!("{leg:?}: moved after {} ms", began.elapsed().as_millis());
        // As long as that server runs, nobody else works on the same.
        to.refuses("")
    }

    /// Looks at how far it is until some logs are there, and others are not.
    fn until_some_logs_moved(&self) -> Result<Value> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            // Before it begins there is nothing to be seen.
            if let Ok(view) = self.server()?.get("/admin/v1/migrate") {
                let view: Value = serde_json::from_str(&view)?;
                ensure!(
                    view["stage"] != "rest" && view["stage"] != "done",
                    "too late to break it off: {view}"
                );
                if view["stage"] == "logs" && view["logs_done"].as_u64() > Some(2) {
                    return Ok(view);
                }
            }
            ensure!(Instant::now() < deadline, "no log moves:\n{}", self.server()?.log_tail(20));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the server, and starts one with the other configuration.
    fn change_over(&mut self, leg: Leg) -> Result<()> {
        self.server.take().context("it runs")?.stop(STOP_PATIENCE)?;
        let server = self.sides(leg)[1].serve()?;
        self.doors.set(0, Door::of(&server));
        self.server = Some(server);
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    }

    /// Everything that was acknowledged is there, once.
    fn judge(&mut self) -> Result<Seen> {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            if let Some(first) = self.run.wrong().first() {
                bail!(Damage(format!("shown to a client: {first}")));
            }
            let address = self.server()?.imap();
            match self.observer.look(address) {
                Ok(seen) => {
                    let verdict = self.run.ledger.judge(&seen.found, ledger::now());
                    if verdict.clean() {
                        println!("{verdict}");
                        self.run.ledger.settle(&seen.found);
                        self.observer.rest();
                        return Ok(seen);
                    }
                    ensure!(Instant::now() < deadline, "{verdict}");
                }
                Err(error) if error.is::<Damage>() || Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// All that a client can see of accounts in which nothing happens, of the directory, and of what waits.
    fn picture(&self) -> Result<Vec<String>> {
        let server = self.server()?;
        let mut picture = Vec::new();
        for account in &self.still {
            let mut client = Imap::login(server.imap(), account, PASSWORD)?;
            for mailbox in ["INBOX", "Kept"] {
                picture.push(format!("{account} {mailbox}"));
                picture.extend(
                    client.ok(&format!("STATUS {mailbox} (UIDVALIDITY UIDNEXT HIGHESTMODSEQ)"))?.text(),
                );
                client.ok(&format!("EXAMINE {mailbox}"))?;
                let items = "UID FLAGS MODSEQ INTERNALDATE RFC822.SIZE";
                picture.extend(client.ok(&format!("UID FETCH 1:* ({items})"))?.text());
                let bodies = client.ok("UID FETCH 1:* (BODY.PEEK[])")?;
                picture.extend(bodies.text());
            }
        }
        picture.push(server.get("/admin/v1/domains/example.test/names?limit=1000")?);
        for id in WAITING {
            let id = message::message_id(id);
            let items: Value = serde_json::from_str(&server.get(&format!("/admin/v1/queue/trace?id={id}"))?)?;
            let items = items.as_array().context("a list")?;
            ensure!(!items.is_empty(), "{id} does not wait any more");
            picture.extend(items.iter().map(|item| format!("{} {}", item["queue_id"], item["recipients"])));
        }
        Ok(picture)
    }

    fn logs_are_quiet(&self) -> Result<()> {
        let expected = [
            // Of engines that have just started.
            "clock and ours",
            "WARN scylla::",
            // One node of Cassandra is what this test can have.
            "1 nodes, 1 replicas of each row",
            // Asked for on purpose.
            "key-encryption.key is not there: copy",
        ];
        // The node has the folder of the machine, and so its log.
        [&self.machine, &self.back].into_iter().try_for_each(|side| side.log_is_quiet(&expected))
    }

    fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the server runs")
    }

    fn mirror(&self, account: &str) -> Mirror {
        let name = account.split('@').next().unwrap_or_default();
        Mirror { account: account.to_owned(), home: self.folder.path().join(format!("mbsync-{name}")) }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug)]
enum Leg {
    Out = 1,
    Back = 2,
}

/// Makes the accounts, and gives them mail; their addresses.
fn fill(side: &Side, server: &Server) -> Result<Vec<String>> {
    let count = match std::env::var("POSTRIDER_MIGRATE_ACCOUNTS") {
        Ok(count) => count.parse().context("POSTRIDER_MIGRATE_ACCOUNTS")?,
        Err(_) => STILL_ACCOUNTS,
    };
    let real = real_messages()?;
    let accounts: Vec<String> = (0..count).map(|number| format!("still{number}@example.test")).collect();
    for (number, account) in accounts.iter().enumerate() {
        let mut add = side.command(&["account", "add", account])?.stdin(Stdio::piped()).spawn()?;
        add.stdin.take().context("standard input")?.write_all(format!("{PASSWORD}\n").as_bytes())?;
        let added = add.wait_with_output()?;
        ensure!(added.status.success(), "{}", told(&added));
        let mut client = Imap::login(server.imap(), account, PASSWORD)?;
        client.ok("CREATE Kept")?;
        for (place, bytes) in (0..STILL_MESSAGES).zip(real.iter().cycle().skip(number * STILL_MESSAGES)) {
            let (mailbox, flags) = [("INBOX", ""), ("INBOX", "\\Seen"), ("Kept", "\\Answered")][place % 3];
            let answer = client.append(mailbox, flags, bytes)?;
            ensure!(answer.ok(), "APPEND: {}", answer.tagged);
        }
        client.ok("SELECT INBOX")?;
        client.ok("STORE 1 +FLAGS (\\Flagged)")?;
    }
    let mut client = log_in(server.submission(), &accounts[0])?;
    for id in WAITING {
        let text = message::numbered(id, 2_000);
        let reply = client.send(&accounts[0], &["someone@elsewhere.example"], text.as_bytes())?;
        ensure!(reply.code == 250, "{reply:?}");
    }
    Ok(accounts)
}

/// With line ends as they are sent.
fn real_messages() -> Result<Vec<Vec<u8>>> {
    let messages = corpus::messages()?.into_iter().map(|(_, bytes)| bytes);
    let usable = messages.filter(|bytes| bytes.len() < REAL_BYTES_MAX && !bytes.contains(&0));
    // Every few, so that there is some of everything.
    let some = usable.step_by(7).map(|bytes| {
        let text: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\r').collect();
        text.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
    });
    Ok(some.collect())
}

fn first_difference(before: &[String], after: &[String]) -> String {
    let differs = before.iter().zip(after).find(|(before, after)| before != after);
    let counts = format!("{} and {} lines", before.len(), after.len());
    match differs {
        Some((before, after)) => format!("{counts}; before:\n{before}\nafter:\n{after}"),
        None => counts,
    }
}

/// What mbsync keeps of an account.
struct Mirror {
    account: String,
    home: PathBuf,
}

/// Base name of a file, which stays when flags change → the number of the message in it.
type Downloads = BTreeMap<String, u64>;

impl Mirror {
    fn sync(&self, server: &Server) -> Result<()> {
        fs::create_dir_all(self.home.join("mail"))?;
        let (port, account, home) = (server.imap().port(), &self.account, self.home.display());
        let configuration = format!(
            "IMAPAccount here\nHost 127.0.0.1\nPort {port}\nUser {account}\nPass {PASSWORD}\nSSLType None\n\
             AuthMechs LOGIN\n\nIMAPStore far\nAccount here\n\nMaildirStore near\nPath {home}/mail/\n\
             Inbox {home}/mail/INBOX\nSubFolders Verbatim\n\nChannel all\nFar :far:\nNear :near:\nPatterns *\n\
             Create Near\nSync Pull\n"
        );
        // Outside of what is compared: the port is another at each start.
        let file = self.home.with_extension("mbsyncrc");
        fs::write(&file, configuration)?;
        let output = Command::new("mbsync")
            .args(["-q", "-c"])
            .arg(&file)
            .arg("all")
            .current_dir(&self.home)
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .output()
            .context("mbsync")?;
        ensure!(output.status.success(), "mbsync: {}", told(&output));
        Ok(())
    }

    /// All files, of mail and of what mbsync remembers.
    fn files(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.home.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path)?;
                    files.insert(path.strip_prefix(&self.home)?.to_owned(), bytes);
                }
            }
        }
        Ok(files)
    }

    fn mails(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        Ok(self.files()?.into_iter().filter(|(path, _)| is_mail(path)).collect())
    }

    /// What is in the INBOX, but for what is deleted at the server, whether it is gone there or not.
    fn downloads(&self) -> Result<Downloads> {
        let mut downloads = Downloads::new();
        for (path, bytes) in self.mails()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (base, flags) = name.split_once(":2,").unwrap_or((&name, ""));
            if !path.starts_with("mail/INBOX") || flags.contains('T') {
                continue;
            }
            let id =
                message::id_of(&String::from_utf8_lossy(&bytes)).context("a message without a number")?;
            downloads.insert(base.to_owned(), id);
        }
        Ok(downloads)
    }

    /// The copy has what the server has, and what was at a UID before and still is, in the file that it was in.
    fn has_each_once(&self, before: &Downloads, seen_before: &Seen, seen: &Seen) -> Result<()> {
        let downloads = self.downloads()?;
        let place = (self.account.clone(), "INBOX".to_owned());
        let messages = |seen: &Seen| -> BTreeSet<(u64, u64)> {
            let inbox = seen.mailboxes.get(&place).into_iter().flatten();
            // Where an EXPUNGE was cut off its message is deleted and still there: the copy has it with that flag.
            let kept = inbox.filter(|(_, message)| !message.flags.contains("\\Deleted"));
            kept.map(|(uid, message)| (*uid, message.id)).collect()
        };
        let there = messages(seen);
        let here: BTreeSet<u64> = downloads.values().copied().collect();
        ensure!(here.len() == downloads.len(), "mbsync has a message twice in {}", self.account);
        let ids: BTreeSet<u64> = there.iter().map(|(_, id)| *id).collect();
        ensure!(here == ids, "mbsync has {} messages of {}, {}", here.len(), ids.len(), self.account);
        let stayed: BTreeSet<u64> = messages(seen_before).intersection(&there).map(|(_, id)| *id).collect();
        ensure!(!stayed.is_empty(), "nothing stayed in {}, so nothing was tested", self.account);
        for (name, id) in before.iter().filter(|(_, id)| stayed.contains(id)) {
            ensure!(downloads.contains_key(name), "message {id} of {} was downloaded again", self.account);
        }
        println!("{}: {} messages stayed, {} are there", self.account, stayed.len(), there.len());
        Ok(())
    }
}

fn is_mail(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("new") || folder.ends_with("cur"))
}
