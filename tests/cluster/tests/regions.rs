//! Two regions, each with keyspace, bucket, key and node of its own, on one Cassandra: who connects to the wrong one is
//! served all the same, by the right one.
#![allow(clippy::print_stdout, reason = "times are for people")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::region::{PASSWORD, Region, secret_file, told};
use engines::{Engines, Life};
use sasl::server::Binding;
use sasl::{Mechanism, Password, wire};
use tempfile::TempDir;
use testkit::imap::Imap;
use testkit::server::is_quiet;
use testkit::smtp::Smtp;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
/// Where curl comes from: an address that no node has.
const CLIENT: &str = "127.0.0.77";
/// What the driver says of engines that have just started is not of interest here, nor are the clocks of one machine, nor
/// that there is one.
const EXPECTED: [&str; 3] = ["clock and ours", "WARN scylla::", "1 nodes, 1 replicas"];
/// What something may take on a busy machine that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn who_connects_to_another_region_is_served_by_the_own() -> Result<()> {
    Scene::play(Scene::everything)
}

#[test]
fn an_account_moves_and_comes_back() -> Result<()> {
    Scene::play(|scene| {
        scene.begin()?;
        // The queue of her region is far ahead of the other's: what is done here says nothing about there.
        for nth in 0..20 {
            send(&scene.eu, ALICE, &format!("first {nth}."))?;
        }
        for nth in 0..20 {
            arrives(&scene.eu, ALICE, &format!("first {nth}."))?;
        }
        let mut client = Imap::login(scene.eu.imap()?, ALICE, PASSWORD)?;
        let large = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(300_000));
        ensure!(client.append("INBOX", "\\Flagged", large.as_bytes())?.ok(), "APPEND");
        client.ok("SELECT INBOX")?;
        client.ok("STORE 2 +FLAGS (\\Seen $Label)")?;
        client.ok("CREATE Elsewhere")?;
        client.ok("CREATE Elsewhere/Deeper")?;
        client.ok("COPY 1:3 Elsewhere")?;
        client.ok("MOVE 4 Elsewhere/Deeper")?;
        client.ok("STORE 6 +FLAGS (\\Deleted)")?;
        client.ok("EXPUNGE")?;
        drop(client);
        scene.wrong_moves_are_refused()?;
        scene.moves()
    })
}

/// One scene at a time: each has engines of its own.
static TURN: Mutex<()> = Mutex::new(());

struct Scene {
    /// Alice's.
    eu: Region,
    /// Bob's.
    us: Region,
    _engines: Engines,
    folder: TempDir,
}

impl Scene {
    fn play(what: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scene = Self::start()?;
        let seen = what(&mut scene);
        if seen.is_err() {
            scene.folder.disable_cleanup(true);
            println!("kept in {}", scene.folder.path().display());
            for region in [&scene.eu, &scene.us] {
                println!("{}:\n{}", region.name, region.last_words());
            }
        }
        seen
    }

    fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("postrider-regions-").tempdir()?;
        let began = Instant::now();
        let engines = Engines::start(&engines::Options {
            cassandra_nodes: 1,
            s3: true,
            nats: true,
            folder: Some(folder.path().join("engines")),
            ..engines::Options::default()
        })?;
        let [mut eu, mut us] = Region::pair(folder.path(), &engines)?;
        eu.start()?;
        us.start()?;
        println!("two regions run after {} s", began.elapsed().as_secs());
        Ok(Self { eu, us, _engines: engines, folder })
    }

    fn begin(&self) -> Result<()> {
        for region in [&self.eu, &self.us] {
            region.succeeds(&["domain", "add", "example.test"], "")?;
        }
        self.eu.add_account(ALICE)?;
        self.us.add_account(BOB)
    }

    fn everything(&mut self) -> Result<()> {
        self.begin()?;
        self.names_are_made_once()?;
        deliver(&self.eu, ALICE, "first")?;
        self.imap_is_served_from_home()?;
        self.pipelined_commands_come_through()?;
        self.failures_are_counted_at_home()?;
        self.submissions_are_taken_at_home()?;
        self.mail_finds_its_region()?;
        for region in [&self.eu, &self.us] {
            is_quiet(&region.log(), &EXPECTED).context(region.name)?;
        }
        self.a_region_that_is_away_is_no_wrong_password()?;
        self.names_of_before_are_put_into_the_table()?;
        self.regions_are_not_mixed_up()
    }

    /// A name that one region has is refused in the other, whatever it would stand for there.
    fn names_are_made_once(&self) -> Result<()> {
        for arguments in
            [&["account", "add", "ALICE@example.test"][..], &["alias", "add", ALICE, "x@example.org"]]
        {
            let output = self.us.command(arguments, &format!("{PASSWORD}\n"))?;
            ensure!(!output.status.success(), "{arguments:?} was done");
            ensure!(told(&output).contains("is in region eu"), "{}", told(&output));
        }
        // What is removed can be made elsewhere, and the other way round.
        self.eu.succeeds(&["alias", "add", "moving@example.test", ALICE], "")?;
        self.eu.succeeds(&["alias", "remove", "moving@example.test"], "")?;
        self.us.succeeds(&["alias", "add", "moving@example.test", BOB], "")?;
        let output = self.eu.command(&["alias", "add", "moving@example.test", ALICE], "")?;
        ensure!(!output.status.success() && told(&output).contains("is in region us"), "{}", told(&output));
        Ok(())
    }

    /// Clients that nobody here wrote, at the other region's node.
    fn imap_is_served_from_home(&self) -> Result<()> {
        let mail = mbsync(&self.us, ALICE, &self.folder.path().join("first"))?;
        ensure!(mail.iter().filter(|text| text.contains("Subject: first")).count() == 1, "{mail:?}");
        ensure!(self.us.log().contains("logged in at another region"), "nothing was handed over");
        ensure!(curl(&self.us, BOB, PASSWORD)?, "who is at home is served at home");

        let mut waiting = Life::Bound.command(Path::new("python3"));
        waiting.args(["../e2e/scripts/idle.py", &self.us.imaps()?.to_string(), ALICE, PASSWORD]);
        let mut waiting = waiting.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(waiting.stdout.take().context("its output")?).lines();
        ensure!(lines.next().context("a line")?? == "idling");
        deliver(&self.eu, ALICE, "second")?;
        let told = lines.next().context("a line")??;
        ensure!(told.contains("EXISTS"), "{told}");
        ensure!(waiting.wait()?.success());

        // What is changed by way of the other region is changed.
        let mut far = Imap::login(self.us.imap()?, ALICE, PASSWORD)?;
        far.ok("SELECT INBOX")?;
        far.ok("STORE 1 +FLAGS (\\Flagged)")?;
        let large = format!("Subject: large\r\n\r\n{}", "0123456789\r\n".repeat(50_000));
        ensure!(far.append("INBOX", "", large.as_bytes())?.ok(), "APPEND");
        let back = far.ok("FETCH 3 BODY.PEEK[]")?;
        ensure!(
            back.untagged[0].windows(large.len()).any(|part| part == large.as_bytes()),
            "it came changed"
        );
        let mut near = Imap::login(self.eu.imap()?, ALICE, PASSWORD)?;
        near.ok("SELECT INBOX")?;
        let flags = near.ok("FETCH 1 FLAGS")?.text();
        ensure!(flags.iter().any(|line| line.contains("\\Flagged")), "{flags:?}");
        Ok(())
    }

    /// What a client sends together with its login is not lost on the way, by any way to log in.
    fn pipelined_commands_come_through(&self) -> Result<()> {
        let plain = wire::encode(format!("\0{ALICE}\0{PASSWORD}").as_bytes());
        let length = PASSWORD.len();
        for login in [
            format!("a LOGIN {ALICE} {PASSWORD}"),
            format!("a LOGIN {ALICE} {{{length}+}}\r\n{PASSWORD}"),
            format!("a AUTHENTICATE PLAIN {plain}"),
            format!("a AUTHENTICATE PLAIN\r\n{plain}"),
        ] {
            let mut client = Imap::connect(self.us.imap()?)?;
            client.raw(format!("{login}\r\nb SELECT INBOX\r\nc FETCH 1 UID\r\nd LOGOUT\r\n").as_bytes())?;
            for tag in ["a", "b", "c", "d"] {
                let answer = client.finish(tag)?;
                ensure!(answer.ok(), "{login}: {tag} {}", answer.tagged);
            }
        }
        Ok(())
    }

    /// A wrong password is as wrong, and counts against the client and not against the node between.
    fn failures_are_counted_at_home(&self) -> Result<()> {
        ensure!(!curl(&self.us, ALICE, "wrong")?, "a wrong password was right");
        ensure!(!curl(&self.us, "nobody@example.test", PASSWORD)?, "somebody who is nowhere logged in");
        let mut client = Imap::connect(self.us.imap()?)?;
        let answer = client.command(&format!("LOGIN {ALICE} wrong"))?;
        ensure!(answer.tagged.starts_with("NO [AUTHENTICATIONFAILED]"), "{}", answer.tagged);
        ensure!(client.ok(&format!("LOGIN {ALICE} {PASSWORD}"))?.tagged.contains("CAPABILITY"));
        let failures = |region: &Region| {
            let audit = region.audit()?;
            let failures = audit.lines().filter(|line| line.contains("login failed") && line.contains(ALICE));
            Ok::<_, anyhow::Error>(failures.map(str::to_owned).collect::<Vec<_>>())
        };
        let there = failures(&self.eu)?;
        ensure!(there.len() == 2, "two wrong passwords: {there:?}");
        ensure!(there.iter().any(|line| line.contains(CLIENT)), "not of the client's address: {there:?}");
        ensure!(failures(&self.us)?.is_empty(), "counted where it was not decided");
        Ok(())
    }

    /// Whatever way a user of another region logs in, the message is taken at home, with the user's address in its trace.
    fn submissions_are_taken_at_home(&self) -> Result<()> {
        for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
            for (password, right) in [(PASSWORD, true), ("wrong", false)] {
                let mut client = Smtp::hello(self.us.submission()?)?;
                let code = log_in(&mut client, mechanism, ALICE, password)?;
                ensure!(code == if right { 235 } else { 535 }, "{mechanism} with {password}: {code}");
                if !right {
                    // The next one may be right, on the same connection.
                    ensure!(log_in(&mut client, mechanism, ALICE, PASSWORD)? == 235, "{mechanism}");
                }
                let refused = client.command(&format!("MAIL FROM:<{BOB}>"), 553);
                ensure!(refused.is_ok(), "somebody else's address: {refused:?}");
                let message = format!("From: <{ALICE}>\r\nSubject: by {mechanism} {right}\r\n\r\nhello\r\n");
                let reply = client.send(ALICE, &[ALICE, BOB], message.as_bytes())?;
                ensure!(reply.code == 250, "{reply:?}");
            }
        }
        for (region, user) in [(&self.eu, ALICE), (&self.us, BOB)] {
            for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
                for right in [true, false] {
                    let mail = arrives(region, user, &format!("by {mechanism} {right}"))?;
                    ensure!(mail.contains("by eu.example.test"), "not taken at home: {mail}");
                    ensure!(mail.contains("ESMTPA"), "not as a user's: {mail}");
                }
            }
        }
        Ok(())
    }

    /// Mail for a name of another region is taken where it comes in, and goes there; for nobody it is refused.
    fn mail_finds_its_region(&self) -> Result<()> {
        self.eu.succeeds(&["alias", "add", "sales@example.test", ALICE], "")?;
        let mut client = Smtp::hello(self.us.smtp()?)?;
        let to = [ALICE, "Alice+lists@example.test", "sales@example.test", BOB];
        for (nth, to) in to.into_iter().enumerate() {
            let message = format!("Subject: across {nth}\r\n\r\nhello\r\n");
            ensure!(client.send("sender@example.org", &[to], message.as_bytes())?.code == 250, "{to}");
        }
        client.command("MAIL FROM:<sender@example.org>", 250)?;
        client.command("RCPT TO:<nobody@example.test>", 550)?;
        client.command("RCPT TO:<somebody@example.org>", 550)?;
        client.command("RSET", 250)?;
        // One message for both: each gets it once.
        let message = b"Subject: for both\r\n\r\nhello\r\n";
        ensure!(client.send("sender@example.org", &[ALICE, BOB], message)?.code == 250, "both");
        for nth in 0..3 {
            let mail = arrives(&self.eu, ALICE, &format!("across {nth}"))?;
            ensure!(mail.contains("by us.example.test"), "it came another way: {mail}");
        }
        arrives(&self.us, BOB, "across 3")?;
        arrives(&self.us, BOB, "for both")?;
        arrives(&self.eu, ALICE, "for both")?;
        Ok(())
    }

    /// What cannot be done is said, and does nothing.
    fn wrong_moves_are_refused(&self) -> Result<()> {
        let (eu, us) = (&self.eu, &self.us);
        self.eu.succeeds(&["alias", "add", "sales@example.test", ALICE], "")?;
        for (region, address, to, file, expected) in [
            (eu, ALICE, "mars", us, "no region mars is configured here"),
            (eu, ALICE, "us", eu, "is of region eu and not of us"),
            (eu, ALICE, "eu", us, "this is region eu itself"),
            (eu, "nobody@example.test", "us", us, "no such account: nobody@example.test"),
            (eu, "sales@example.test", "us", us, "no such account: sales@example.test"),
            (eu, "alice@example.org", "us", us, "no such domain"),
        ] {
            let output = region.command(&move_to(address, to, &file.file())?, "")?;
            ensure!(!output.status.success(), "{address} to {to}: done");
            ensure!(told(&output).contains(expected), "{address} to {to}: {}", told(&output));
        }
        // Who is there already is not moved, whoever is asked.
        for (region, address, to) in [(eu, BOB, us), (us, ALICE, eu)] {
            let said = region.succeeds(&move_to(address, to.name, &to.file())?, "")?;
            ensure!(said.contains(&format!("{address} is in region {} already", to.name)), "{said}");
        }
        ensure!(curl(us, ALICE, PASSWORD)?, "she is where she was");
        Ok(())
    }

    /// Alice moves, with the command killed again and again in the midst of it, comes back, and goes once more. She downloads
    /// nothing again, and what is sent to her meanwhile arrives once.
    fn moves(&self) -> Result<()> {
        let home = self.folder.path().join("copy");
        mbsync(&self.us, ALICE, &home)?;
        let files = files(&home)?;
        ensure!(files.len() == 19, "{files:?}");
        let picture = self.picture()?;
        // Names that take mail for her at either region whatever is under way.
        for region in [&self.eu, &self.us] {
            region.succeeds(&["alias", "add", &by_way_of(region), ALICE], "")?;
        }
        let (there, back) = ([&self.eu, &self.us], [&self.us, &self.eu]);
        let mut sent: Vec<String> = Vec::new();
        let mut killed = [0; STEPS.len()];
        for (nth, [from, to]) in [there, back, there].into_iter().enumerate() {
            let mut open = Imap::login(from.imap()?, ALICE, PASSWORD)?;
            open.ok("SELECT INBOX")?;
            // Somebody who was told that she is here, and says only afterwards what they have for her.
            let mut slow = Smtp::hello(from.smtp()?)?;
            slow.command("MAIL FROM:<sender@example.org>", 250)?;
            slow.command(&format!("RCPT TO:<{ALICE}>"), 250)?;
            let subject = format!("move {nth} just before");
            send(from, ALICE, &subject)?;
            sent.push(subject);
            let file = to.file();
            let arguments = move_to(ALICE, to.name, &file)?;
            let mut refused = 0;
            for (step, mark) in STEPS.into_iter().enumerate() {
                if from.killed_after(&arguments, mark)? {
                    killed[step] += 1;
                }
                self.nobody_is_told_that_she_is_gone()?;
                for region in [from, to] {
                    let subject = format!("move {nth} step {step} at {}", region.name);
                    if try_send(region, ALICE, &subject)? {
                        sent.push(subject);
                    } else {
                        refused += 1;
                        send(region, &by_way_of(region), &subject)?;
                        sent.push(subject);
                    }
                }
            }
            ensure!(refused > 0, "nothing was sent while she was closed");
            let said = from.succeeds(&arguments, "")?;
            ensure!(said.contains(&format!("is in region {}", to.name)), "{said}");
            let said = from.succeeds(&arguments, "")?;
            ensure!(said.contains("already"), "{said}");
            ensure!(
                open.command("NOOP").is_err() || open.command("CHECK").is_err(),
                "the old session goes on"
            );
            let subject = format!("move {nth} said late");
            let message = format!("From: <sender@example.org>\r\nSubject: {subject}\r\n\r\nhello\r\n");
            slow.command("DATA", 354)?;
            slow.raw(format!("{message}.\r\n").as_bytes())?;
            // Whether there is room cannot be asked here any more; who is told so comes again.
            let reply = slow.reply()?;
            ensure!(reply.code == 250 || reply.code == 451, "{reply:?}");
            if reply.code == 451 {
                send(from, ALICE, &subject)?;
            }
            sent.push(subject);
            for region in [from, to] {
                let subject = format!("move {nth} afterwards at {}", region.name);
                send(region, ALICE, &subject)?;
                sent.push(subject);
                ensure!(curl(region, ALICE, PASSWORD)?, "she logs in at {}", region.name);
            }
            let shown = to.succeeds(&["account", "show", ALICE], "")?;
            ensure!(shown.contains("active"), "{shown}");
            ensure!(!from.command(&["account", "show", ALICE], "")?.status.success(), "two records");
            for subject in &sent {
                arrives(to, ALICE, subject).with_context(|| format!("after move {nth}"))?;
            }
            let after = self.picture()?;
            ensure!(picture.iter().all(|line| after.contains(line)), "{picture:#?}\n{after:#?}");
            mbsync(&self.us, ALICE, &home)?;
            let now = self::files(&home)?;
            ensure!(files.iter().all(|file| now.contains(file)), "mbsync has downloaded something again");
            ensure!(
                now.len() == files.len() + sent.len(),
                "{} and {}, not {}",
                files.len(),
                sent.len(),
                now.len()
            );
        }
        println!("killed after each of {STEPS:?}: {killed:?}");
        for region in [&self.eu, &self.us] {
            let audit = region.audit()?;
            let acts = |event: &str| {
                let is_one = |line: &&str| {
                    [event, "account move", ALICE, "to region"].iter().all(|part| line.contains(part))
                };
                audit.lines().filter(is_one).count()
            };
            let (begun, done) = (acts("act begins"), acts("act done"));
            ensure!(begun > done && done >= 6, "{}: {begun} moves begun, {done} done", region.name);
        }
        ensure!(killed.iter().all(|count| *count > 0), "it was never killed after some step");
        // Nothing came late and twice.
        for subject in &sent {
            arrives(&self.eu, ALICE, subject)?;
        }
        for region in [&self.eu, &self.us] {
            let checked = region.succeeds(&["check"], "")?;
            println!("{}: {}", region.name, checked.lines().last().unwrap_or_default());
        }
        Ok(())
    }

    /// What does not change about Alice's messages: UIDVALIDITY, and UID, flags and size of each.
    fn picture(&self) -> Result<Vec<String>> {
        let mut client = Imap::login(self.eu.imap()?, ALICE, PASSWORD)?;
        let mut lines = Vec::new();
        for mailbox in ["INBOX", "Elsewhere", "Elsewhere/Deeper"] {
            let selected = client.ok(&format!("SELECT {mailbox}"))?.text();
            lines.extend(selected.into_iter().filter(|line| line.contains("UIDVALIDITY")));
            lines.push(mailbox.to_owned());
            let facts = "(UID FLAGS RFC822.SIZE INTERNALDATE MODSEQ)";
            let fetched = client.ok(&format!("UID FETCH 1:22 {facts}"))?.text();
            lines.extend(fetched.into_iter().filter(|line| line.contains("FETCH")));
            let bodies = client.ok("UID FETCH 1:22 BODY.PEEK[]")?;
            lines.extend(bodies.untagged.iter().map(|body| String::from_utf8_lossy(body).into_owned()));
        }
        Ok(lines)
    }

    /// Whatever is under way with Alice, no answer is final.
    fn nobody_is_told_that_she_is_gone(&self) -> Result<()> {
        for region in [&self.eu, &self.us] {
            let mut client = Imap::connect(region.imap()?)?;
            let answer = client.command(&format!("LOGIN {ALICE} {PASSWORD}"))?.tagged;
            let fine = answer.starts_with("OK") || answer.starts_with("NO [UNAVAILABLE]");
            ensure!(fine, "at {}: {answer}", region.name);
            let mut client = Smtp::hello(region.smtp()?)?;
            client.command("MAIL FROM:<sender@example.org>", 250)?;
            client.raw(format!("RCPT TO:<{ALICE}>\r\n").as_bytes())?;
            let reply = client.reply()?;
            ensure!(reply.code == 250 || reply.code == 451, "at {}: {reply:?}", region.name);
        }
        Ok(())
    }

    /// The home region is killed: its users are told to come again, those of the other notice nothing.
    fn a_region_that_is_away_is_no_wrong_password(&mut self) -> Result<()> {
        let mut open = Imap::login(self.us.imap()?, ALICE, PASSWORD)?;
        self.eu.kill()?;
        ensure!(open.command("NOOP").is_err(), "a session of a node that is gone goes on");
        let mut client = Imap::connect(self.us.imap()?)?;
        let answer = client.command(&format!("LOGIN {ALICE} {PASSWORD}"))?;
        ensure!(answer.tagged.starts_with("NO [UNAVAILABLE]"), "{}", answer.tagged);
        ensure!(curl(&self.us, BOB, PASSWORD)?, "who is at home needs nobody else");
        let mut client = Smtp::hello(self.us.submission()?)?;
        ensure!(log_in(&mut client, Mechanism::Plain, ALICE, PASSWORD)? == 454, "submission");
        // Whether the name is still good nobody knows; senders come again.
        let mut client = Smtp::hello(self.us.smtp()?)?;
        client.command("MAIL FROM:<sender@example.org>", 250)?;
        client.command(&format!("RCPT TO:<{ALICE}>"), 451)?;
        // What Bob sends her waits, and comes once.
        ensure!(
            self.us.command(&["alias", "add", "friend@example.test", ALICE], "")?.status.success(),
            "alias"
        );
        let mut client = Smtp::hello(self.us.smtp()?)?;
        let message = b"Subject: patient\r\n\r\nhello\r\n";
        ensure!(client.send("sender@example.org", &["friend@example.test"], message)?.code == 250, "alias");
        self.eu.start()?;
        Imap::login(self.us.imap()?, ALICE, PASSWORD)?;
        arrives(&self.eu, ALICE, "patient")?;
        Ok(())
    }

    /// A region that was none at first, and has names of that time.
    fn names_of_before_are_put_into_the_table(&mut self) -> Result<()> {
        let file = self.us.file();
        let as_region = fs::read_to_string(&file)?;
        let from = as_region.find("[regions]").context("the section")?;
        let to = from + as_region[from..].find("ca_file").context("its end")?;
        let to = to + as_region[to..].find('\n').context("a line")?;
        let listener =
            as_region.lines().find(|line| line.contains("service = \"region\"")).context("a line")?;
        let alone = format!("{}{}", &as_region[..from], &as_region[to..]).replace(listener, "");
        self.us.stop()?;
        fs::write(&file, alone)?;
        self.us.start()?;
        for name in ["early@example.test", "both@example.test"] {
            self.us.add_account(name)?;
        }
        self.us.succeeds(&["alias", "add", "first@example.test", "early@example.test"], "")?;
        let refused = self.us.command(&["cluster", "regions", "register"], "")?;
        ensure!(!refused.status.success() && told(&refused).contains("no region"), "{}", told(&refused));
        self.us.stop()?;
        fs::write(&file, as_region)?;
        self.us.start()?;
        self.eu.add_account("both@example.test")?;
        ensure!(!curl(&self.eu, "early@example.test", PASSWORD)?, "nobody knows yet where this is");
        for claimed in [2, 0] {
            let output = self.us.command(&["cluster", "regions", "register"], "")?;
            let said = told(&output);
            ensure!(said.contains(&format!("{claimed} names are in the regions' table now")), "{said}");
            ensure!(said.contains("both@example.test is in region eu"), "{said}");
            ensure!(!output.status.success(), "a name that two regions have is passed over in silence");
        }
        ensure!(curl(&self.eu, "early@example.test", PASSWORD)?, "its region is known now");
        send(&self.eu, "first@example.test", "to a name of before")?;
        arrives(&self.us, "early@example.test", "to a name of before")?;
        let output = self.eu.command(&["alias", "add", "first@example.test", ALICE], "")?;
        ensure!(told(&output).contains("is in region us"), "{}", told(&output));
        self.us.succeeds(&["account", "remove", "both@example.test", "--yes"], "")?;
        ensure!(curl(&self.us, "both@example.test", PASSWORD)?, "the other's account stays");
        let said = self.us.succeeds(&["cluster", "regions", "register"], "")?;
        ensure!(said.contains("0 names are in the regions' table now"), "{said}");
        let said = self.us.succeeds(&["cluster", "schema", "check"], "")?;
        ensure!(said.contains("postrider_us") && said.contains("postrider_regions"), "{said}");
        Ok(())
    }

    /// Nodes refuse to start as a region that they are not, and with a secret that the others have not.
    fn regions_are_not_mixed_up(&mut self) -> Result<()> {
        self.us.stop()?;
        let good = fs::read_to_string(self.us.file())?;
        fs::write(self.us.file(), good.replace("[regions]\nname = \"us\"", "[regions]\nname = \"asia\""))?;
        let refused = self.us.start().expect_err("the keyspace is another region's");
        ensure!(format!("{refused:#}").contains("this node has asia as its region"), "{refused:#}");
        let other = self.folder.path().join("other.secret");
        secret_file(&other, &"5b".repeat(32))?;
        fs::write(self.us.file(), good.replace("regions.secret", "other.secret"))?;
        let refused = self.us.start().expect_err("the secret is not the others'");
        ensure!(format!("{refused:#}").contains("is not the file of the other regions"), "{refused:#}");
        fs::write(self.us.file(), good)?;
        self.us.start()
    }
}

/// Files of a mail folder with what is in them; what mbsync keeps beside them is left out.
fn files(home: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        for entry in fs::read_dir(home.join("mail/INBOX").join(folder))? {
            let entry = entry?;
            // The flags behind the colon may change; a message that was downloaded again has another name.
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(name.split(':').next().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

/// What the command says as it goes, in this order.
const STEPS: [&str; 6] = [
    "the account is closed",
    "blobs are copied",
    "are verified",
    "the account has moved",
    "its name leads to region",
    "goes after it",
];

/// The command that moves an account.
fn move_to<'a>(address: &'a str, region: &'a str, file: &'a Path) -> Result<[&'a str; 7]> {
    Ok(["account", "move", address, "--region", region, "--to", file.to_str().context("UTF-8")?])
}

/// A name at a region that leads to Alice.
fn by_way_of(region: &Region) -> String {
    format!("by-way-of-{}@example.test", region.name)
}

/// Brings a message, as another server does. `false`: told to come again later.
fn try_send(region: &Region, to: &str, subject: &str) -> Result<bool> {
    let message = format!("From: <sender@example.org>\r\nSubject: {subject}\r\n\r\nhello\r\n");
    let mut client = Smtp::hello(region.smtp()?)?;
    client.command("MAIL FROM:<sender@example.org>", 250)?;
    client.raw(format!("RCPT TO:<{to}>\r\n").as_bytes())?;
    let reply = client.reply()?;
    if reply.code == 451 {
        return Ok(false);
    }
    ensure!(reply.code == 250, "{to} at {}: {reply:?}", region.name);
    client.command("RSET", 250)?;
    let reply = client.send("sender@example.org", &[to], message.as_bytes())?;
    ensure!(reply.code == 250, "{to} at {}: {reply:?}", region.name);
    Ok(true)
}

/// Brings a message, until it is taken.
fn send(region: &Region, to: &str, subject: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !try_send(region, to, subject)? {
        ensure!(Instant::now() < deadline, "{to} is put off for ever at {}", region.name);
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Brings a message by SMTP to the node of a region where its recipient is at home, and waits until it is there.
fn deliver(region: &Region, to: &str, subject: &str) -> Result<()> {
    send(region, to, subject)?;
    arrives(region, to, subject).map(drop)
}

/// Waits until a message with this subject is in INBOX, and gives it; an error where it is there more than once.
fn arrives(region: &Region, user: &str, subject: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut client = Imap::login(region.imap()?, user, PASSWORD)?;
    client.ok("SELECT INBOX")?;
    loop {
        let found = client.ok(&format!("UID SEARCH SUBJECT \"{subject}\""))?.text();
        let found =
            found.iter().find_map(|line| line.strip_prefix("* SEARCH")).unwrap_or_default().to_owned();
        let uids: Vec<&str> = found.split_whitespace().collect();
        match uids[..] {
            [] if Instant::now() > deadline => bail!("«{subject}» did not come to {user}"),
            [] => std::thread::sleep(Duration::from_millis(200)),
            [uid] => return Ok(client.ok(&format!("UID FETCH {uid} BODY.PEEK[]"))?.text().join("\n")),
            _ => bail!("«{subject}» came to {user} more than once: {found}"),
        }
        client.ok("NOOP")?;
    }
}

/// AUTH; the code of the last reply.
fn log_in(client: &mut Smtp, mechanism: Mechanism, user: &str, password: &str) -> Result<u16> {
    let login = sasl::client::Client::plain_login(user, Password::from(password));
    let mut exchange = sasl::client::Client::new(mechanism, login, Binding::None);
    let initial = exchange.initial().map(|first| format!(" {}", wire::encode(&first))).unwrap_or_default();
    client.raw(format!("AUTH {mechanism}{initial}\r\n").as_bytes())?;
    loop {
        let reply = client.reply()?;
        if reply.code != 334 {
            return Ok(reply.code);
        }
        let challenge = wire::decode(reply.lines[0].as_bytes())?;
        let answer = wire::encode(&exchange.respond(&challenge)?);
        client.raw(format!("{answer}\r\n").as_bytes())?;
    }
}

/// Whether curl can log in over TLS and look into INBOX.
fn curl(region: &Region, user: &str, password: &str) -> Result<bool> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "60"])
        .arg(format!("imaps://{}/INBOX", region.imaps()?))
        .args(["--user", &format!("{user}:{password}"), "--request", "NOOP", "--interface", CLIENT])
        .stdin(Stdio::null())
        .output()
        .context("curl")?;
    Ok(output.status.success())
}

/// What mbsync finds in INBOX, each message as it is.
fn mbsync(region: &Region, user: &str, home: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(home.join("mail"))?;
    // Not its own TLS: it compares the address with the name in the certificate.
    let configuration = format!(
        "IMAPAccount here\nTunnel \"openssl s_client -quiet -connect {} 2> s_client\"\n\
         User {user}\nPass \"{PASSWORD}\"\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount here\n\nMaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync All\n",
        region.imaps()?,
        home = home.display()
    );
    fs::write(home.join("mbsyncrc"), configuration)?;
    let output = Command::new("mbsync")
        .args(["-q", "-c", "mbsyncrc", "all"])
        .current_dir(home)
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()
        .context("mbsync")?;
    ensure!(output.status.success(), "mbsync: {}", told(&output));
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        for entry in fs::read_dir(home.join("mail/INBOX").join(folder))? {
            found.push(fs::read_to_string(entry?.path())?);
        }
    }
    Ok(found)
}
