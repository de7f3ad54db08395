//! Sending over JMAP (RFC 8621 §6, §7) through a running server: to one of its own accounts and to hosts outside, at once,
//! later and not at all, and what is told of it. The client is curl.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use end_to_end::{Scene, run, sending};
use serde_json::{Value, json};
use testkit::dns::Dns;
use testkit::server::{Options, PASSWORD, Server, is_quiet};
use testkit::sink::Sink;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const SUBMISSION: &str = "urn:ietf:params:jmap:submission";

/// A user of JMAP.
struct Client {
    base: String,
    login: String,
    account: String,
    session: Value,
}

impl Client {
    fn login(server: &Server, user: &str) -> Result<Self> {
        let base = format!("https://127.0.0.1:{}", server.https().port());
        let login = format!("{user}:{PASSWORD}");
        let text = run("curl", &["-sSfk", "-u", &login, &format!("{base}/.well-known/jmap")])?;
        let session: Value = serde_json::from_str(&text)?;
        let account = session["primaryAccounts"][SUBMISSION].as_str().context("submission is not offered")?;
        Ok(Self { base, login, account: account.to_owned(), session: session.clone() })
    }

    /// Calls one method: all answers, since some methods have more than one.
    fn answers(&self, method: &str, mut arguments: Value) -> Result<Vec<(String, Value)>> {
        arguments["accountId"] = json!(self.account);
        let using = ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail", SUBMISSION];
        let body = json!({"using": using, "methodCalls": [[method, arguments, "0"]]}).to_string();
        let (url, content) = (format!("{}/jmap/api", self.base), "Content-Type: application/json");
        let text = run("curl", &["-sSfk", "-u", &self.login, "-H", content, "--data-binary", &body, &url])?;
        let answer: Value = serde_json::from_str(&text)?;
        let list = answer["methodResponses"].as_array().with_context(|| format!("no answer: {text}"))?;
        Ok(list.iter().map(|it| (it[0].as_str().unwrap_or_default().to_owned(), it[1].clone())).collect())
    }

    /// Calls one method that succeeds.
    fn call(&self, method: &str, arguments: Value) -> Result<Value> {
        let answers = self.answers(method, arguments)?;
        let (name, answer) = answers.into_iter().next().context("no answer")?;
        ensure!(name == method, "{method}: {name} {answer}");
        Ok(answer)
    }

    fn mailbox(&self, role: &str) -> Result<String> {
        let found = self.call("Mailbox/query", json!({"filter": {"role": role}}))?;
        Ok(found["ids"][0].as_str().with_context(|| format!("{role}: {found}"))?.to_owned())
    }

    /// A draft with a number that the sink knows it by.
    fn draft(&self, id: u64, from: &str, to: &[&str]) -> Result<String> {
        let to: Vec<Value> = to.iter().map(|to| json!({"name": null, "email": to})).collect();
        let mut draft = json!({
            "keywords": {"$draft": true},
            "from": [{"name": "A", "email": from}],
            "subject": format!("number {id}"),
            "header:X-Test-Id:asText": id.to_string(),
            "textBody": [{"partId": "t", "type": "text/plain"}],
            "bodyValues": {"t": {"value": "Hello"}},
        });
        if !to.is_empty() {
            draft["to"] = json!(to);
        }
        draft["mailboxIds"][self.mailbox("drafts")?] = json!(true);
        let answer = self.call("Email/set", json!({"create": {"d": draft}}))?;
        Ok(answer["created"]["d"]["id"].as_str().with_context(|| answer.to_string())?.to_owned())
    }

    /// What there is of a submission.
    fn submission(&self, id: &Value) -> Result<Value> {
        let answer = self.call("EmailSubmission/get", json!({"ids": [id]}))?;
        ensure!(answer["list"][0]["id"] == *id, "{answer}");
        Ok(answer["list"][0].clone())
    }

    /// The same when this holds of it.
    fn until(&self, id: &Value, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let told = self.submission(id)?;
            if holds(&told) {
                return Ok(told);
            }
            if Instant::now() > deadline {
                bail!("it does not come to that: {told}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Takes a submission back, or is told why not.
    fn cancel(&self, id: &Value) -> Result<Value> {
        let mut update = json!({});
        update[id.as_str().context("an id")?] = json!({"undoStatus": "canceled"});
        self.call("EmailSubmission/set", json!({"update": update}))
    }

    /// How many emails there are in the inbox.
    fn received(&self) -> Result<usize> {
        let filter = json!({"filter": {"inMailbox": self.mailbox("inbox")?}});
        Ok(self.call("Email/query", filter)?["ids"].as_array().map_or(0, Vec::len))
    }
}

fn envelope(parameters: &Value, from: &str, to: &[&str]) -> Value {
    let to: Vec<Value> = to.iter().map(|to| json!({"email": to, "parameters": null})).collect();
    json!({"mailFrom": {"email": from, "parameters": parameters}, "rcptTo": to})
}

/// A draft goes to an account here and to others outside, moves from Drafts to Sent, and each recipient has the status that
/// the queue has; who listens hears of it, and the notification of what failed is found.
#[test]
fn from_drafts_to_everybody() -> Result<()> {
    let (dns, sink) = (Dns::start()?, Sink::start(&[Ipv4Addr::LOCALHOST])?);
    dns.exchanger("far.test", 10, "mx.far.test", Ipv4Addr::LOCALHOST);
    let folder = tempfile::tempdir()?;
    let server = Server::start(&sending(&folder.path().join("data"), &dns, sink.port())?)?;
    let (alice, bob) = (Client::login(&server, ALICE)?, Client::login(&server, BOB)?);
    let (drafts, sent) = (alice.mailbox("drafts")?, alice.mailbox("sent")?);
    let recipients = [BOB, "taken@far.test", "gone@far.test", "later-1@far.test"];
    let email = alice.draft(7, ALICE, &recipients)?;

    // Long enough to hear of all that happens; nobody else looks meanwhile.
    let events = format!("{}/jmap/eventsource?types=EmailSubmission&closeafter=no&ping=0", alice.base);
    let listener = Command::new("curl")
        .args(["-sSNk", "-m", "12", "-u", &alice.login, &events])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    let mut moved = json!({"keywords/$draft": null});
    moved[format!("mailboxIds/{drafts}")] = Value::Null;
    moved[format!("mailboxIds/{sent}")] = json!(true);
    let answers = alice.answers(
        "EmailSubmission/set",
        json!({
            "create": {"s": {"identityId": "default", "emailId": email}},
            "onSuccessUpdateEmail": {"#s": moved},
        }),
    )?;
    let names: Vec<&str> = answers.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == ["EmailSubmission/set", "Email/set"], "{answers:?}");
    let (id, state) = (answers[0].1["created"]["s"]["id"].clone(), answers[0].1["newState"].clone());
    ensure!(id.is_string(), "{answers:?}");
    let heard = String::from_utf8_lossy(&listener.wait_with_output()?.stdout).into_owned();
    let told: usize = heard.matches("event: state").count();
    ensure!(told >= 2 && heard.contains("EmailSubmission"), "an event for each change: {heard}");

    let told = alice.until(&id, |told| {
        let delivered = |to: &&str| told["deliveryStatus"][*to]["delivered"] != "queued";
        recipients.iter().all(delivered) && told["dsnBlobIds"] != json!([])
    })?;
    let status = |to: &str| &told["deliveryStatus"][to];
    ensure!(status(BOB)["delivered"] == "yes", "{told}");
    // What another host does with it is not known.
    for to in ["taken@far.test", "later-1@far.test"] {
        ensure!(status(to)["delivered"] == "unknown", "{told}");
        ensure!(status(to)["smtpReply"].as_str().is_some_and(|it| it.starts_with("250 ")), "{told}");
    }
    ensure!(status("gone@far.test")["delivered"] == "no", "{told}");
    ensure!(status("gone@far.test")["smtpReply"].as_str().is_some_and(|it| it.contains("5.1.1")), "{told}");
    ensure!(told["undoStatus"] == "final", "{told}");
    let changes = alice.call("EmailSubmission/changes", json!({"sinceState": state}))?;
    ensure!(changes["updated"] == json!([id]) && changes["newState"] != state, "{changes}");
    let not_done = alice.cancel(&id)?;
    ensure!(not_done["notUpdated"][id.as_str().unwrap_or_default()]["type"] == "cannotUnsend", "{not_done}");

    let arguments = json!({"blobIds": told["dsnBlobIds"], "properties": ["subject", "bodyStructure"]});
    let dsn = alice.call("Email/parse", arguments)?;
    ensure!(dsn["parsed"].as_object().is_some_and(|parsed| parsed.len() == 1), "{dsn}");
    ensure!(dsn.to_string().contains("multipart/report"), "{dsn}");
    let kept = alice.call("Email/get", json!({"ids": [email], "properties": ["mailboxIds", "keywords"]}))?;
    ensure!(kept["list"][0]["mailboxIds"] == json!({sent: true}), "{kept}");
    ensure!(kept["list"][0]["keywords"] == json!({}), "{kept}");
    ensure!(bob.received()? == 1, "bob has another number of emails");
    let mut taken: Vec<String> = sink.taken().into_iter().map(|taken| taken.recipient).collect();
    taken.sort_unstable();
    ensure!(taken == ["later-1@far.test", "taken@far.test"], "{taken:?}");
    ensure!(sink.taken().iter().all(|taken| taken.id == 7), "{:?}", sink.taken());
    is_quiet(&server.log(), &[])
}

/// What is held for later is told to be, does not leave before, can be taken back until then, and comes when its time has
/// come (RFC 4865); also when the server was started anew in between.
#[test]
fn later_or_not_at_all() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options::new(&folder.path().join("data"));
    let server = Server::start(&options)?;
    let (alice, bob) = (Client::login(&server, ALICE)?, Client::login(&server, BOB)?);
    let own = &alice.session["accounts"][&alice.account]["accountCapabilities"][SUBMISSION];
    ensure!(own["maxDelayedSend"] == 5_184_000, "{own}");
    ensure!(own["submissionExtensions"]["FUTURERELEASE"][0] == "5184000", "{own}");
    let send = |id: u64, parameters: Value| -> Result<Value> {
        let email = alice.draft(id, ALICE, &[BOB])?;
        let envelope = envelope(&parameters, ALICE, &[BOB]);
        let create = json!({"s": {"identityId": "default", "emailId": email, "envelope": envelope}});
        let answer = alice.call("EmailSubmission/set", json!({"create": create}))?;
        ensure!(answer["created"]["s"]["undoStatus"] == "pending", "{answer}");
        Ok(answer["created"]["s"]["id"].clone())
    };
    let taken_back = send(1, json!({"HOLDFOR": "3600"}))?;
    let at = run("date", &["-u", "-d", "+20 sec", "+%Y-%m-%dT%H:%M:%SZ"])?.trim().to_owned();
    let comes = send(2, json!({"HOLDUNTIL": at}))?;
    ensure!(alice.submission(&comes)?["sendAt"] == at, "another moment");
    let answer = alice.cancel(&taken_back)?;
    ensure!(answer["notUpdated"].is_null(), "{answer}");
    let told = alice.submission(&taken_back)?;
    ensure!(told["undoStatus"] == "canceled" && told["deliveryStatus"].is_null(), "{told}");
    let told = alice.submission(&comes)?;
    ensure!(told["undoStatus"] == "pending", "{told}");
    ensure!(told["deliveryStatus"][BOB]["delivered"] == "queued", "{told}");
    ensure!(bob.received()? == 0, "it came before its time");

    // What is held is in the queue, and so is what was taken back: durable.
    server.stop(Duration::from_secs(30))?;
    let server = Server::start(&options)?;
    let (alice, bob) = (Client::login(&server, ALICE)?, Client::login(&server, BOB)?);
    let told = alice.until(&comes, |told| told["deliveryStatus"][BOB]["delivered"] != "queued")?;
    ensure!(told["undoStatus"] == "final" && told["deliveryStatus"][BOB]["delivered"] == "yes", "{told}");
    ensure!(bob.received()? == 1, "there is another number of emails");
    ensure!(alice.submission(&taken_back)?["undoStatus"] == "canceled", "it is not taken back any more");
    let found = alice.call("EmailSubmission/query", json!({"filter": {"undoStatus": "canceled"}}))?;
    ensure!(found["ids"] == json!([taken_back]), "{found}");
    is_quiet(&server.log(), &[])
}

/// RFC 8621 §7.5: each way in which a submission is refused, by the rules of the running server.
#[test]
fn each_refusal_has_its_type() -> Result<()> {
    let scene = Scene::configured(
        "[smtp_in]\nuser_recipients_per_hour_max = 2\n\n[smtp_in.limits]\nmessage_bytes_max = 20000\n\n\
         [jmap]\nsubmission_recipients_max = 2\n",
    )?;
    let alice = Client::login(&scene.server, ALICE)?;
    let email = alice.draft(1, ALICE, &[BOB])?;
    let check = |submission: Value, kind: &str| -> Result<Value> {
        let answer = alice.call("EmailSubmission/set", json!({"create": {"s": submission}}))?;
        let error = answer["notCreated"]["s"].clone();
        ensure!(error["type"] == kind, "{submission}: {answer}");
        Ok(error)
    };
    let of = |email: &str| json!({"identityId": "default", "emailId": email});
    let to = |from: &str, to: &[&str]| {
        let envelope = envelope(&Value::Null, from, to);
        json!({"identityId": "default", "emailId": email, "envelope": envelope})
    };
    check(to(ALICE, &[]), "noRecipients")?;
    let error = check(to(ALICE, &[BOB, "a@far.test", "b@far.test"]), "tooManyRecipients")?;
    ensure!(error["maxRecipients"] == 2, "{error}");
    let error = check(to(ALICE, &[BOB, "nobody@example.test"]), "invalidRecipients")?;
    ensure!(error["invalidRecipients"] == json!(["nobody@example.test"]), "{error}");
    check(to(BOB, &[BOB]), "forbiddenMailFrom")?;
    check(of(&alice.draft(2, BOB, &[BOB])?), "forbiddenFrom")?;
    check(of(&alice.draft(3, ALICE, &[])?), "noRecipients")?;
    check(of("E999999"), "invalidProperties")?;
    let mut held = to(ALICE, &[BOB]);
    held["envelope"]["mailFrom"]["parameters"] = json!({"HOLDFOR": "5184001"});
    check(held, "invalidProperties")?;
    check(json!({"identityId": "o999", "emailId": email}), "invalidProperties")?;
    let mut large = json!({
        "from": [{"name": null, "email": ALICE}], "to": [{"name": null, "email": BOB}],
        "textBody": [{"partId": "t", "type": "text/plain"}],
        "bodyValues": {"t": {"value": "0123456789\n".repeat(3_000)}},
    });
    large["mailboxIds"][alice.mailbox("drafts")?] = json!(true);
    let made = alice.call("Email/set", json!({"create": {"d": large}}))?;
    let error = check(of(made["created"]["d"]["id"].as_str().context("a large draft")?), "tooLarge")?;
    ensure!(error["maxSize"] == 20_000, "{error}");
    // Nothing of all that has counted: two may be written to within an hour, and no more.
    let sent = alice.call("EmailSubmission/set", json!({"create": {"s": to(ALICE, &[BOB, ALICE])}}))?;
    ensure!(sent["created"]["s"]["id"].is_string(), "{sent}");
    check(of(&email), "forbiddenToSend")?;
    scene.log_is_quiet(&[])
}
