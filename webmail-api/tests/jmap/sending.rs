//! Sending (RFC 8621 §6, §7): identities, submissions, and what becomes of them.

use std::sync::atomic::Ordering;

use mail::address::Address;
use serde_json::{Value, json};
use webmail_api::jmap::Config;

use crate::http::Client;
use crate::world::{NOW, World};

pub(crate) const DRAFT: &str = "From: Alice <alice@example.test>\nTo: Bob <bob@example.test>\nBcc: alice@example.test\n\
                     Subject: hello\n\nHello Bob\n";

impl World {
    /// Puts a draft, and gives its id.
    pub(crate) async fn draft(&self, message: &str) -> String {
        format!("E{}", self.put("alice", "Drafts", &["\\Draft", "\\Seen"], message).await.email)
    }
}

/// The id of the mailbox with a role.
pub(crate) async fn mailbox(client: &Client<'_>, role: &str) -> String {
    let found = client.call("Mailbox/query", json!({"filter": {"role": role}})).await;
    found["ids"][0].as_str().unwrap_or_else(|| panic!("{role}: {found}")).to_owned()
}

/// Makes one submission, and gives what was told of it.
pub(crate) async fn send(client: &Client<'_>, submission: Value) -> Value {
    let answer = client.call("EmailSubmission/set", json!({"create": {"s": submission}})).await;
    assert!(answer["notCreated"].is_null(), "{answer}");
    answer["created"]["s"].clone()
}

/// Makes one submission that is refused.
async fn refused(client: &Client<'_>, submission: Value) -> Value {
    let answer = client.call("EmailSubmission/set", json!({"create": {"s": submission}})).await;
    assert!(answer["created"].is_null(), "{answer}");
    answer["notCreated"]["s"].clone()
}

pub(crate) async fn get(client: &Client<'_>, id: &Value) -> Value {
    client.call("EmailSubmission/get", json!({"ids": [id]})).await["list"][0].clone()
}

/// The submission when this recipient has it: what delivery reports is committed a moment later.
pub(crate) async fn until_delivered(client: &Client<'_>, id: &Value, recipient: &str) -> Value {
    for _ in 0..200 {
        let told = get(client, id).await;
        if told["deliveryStatus"][recipient]["delivered"] != "queued" {
            return told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{recipient} is not told to have it");
}

pub(crate) fn to(email: &str) -> Value {
    json!({"email": email, "parameters": null})
}

pub(crate) fn envelope(parameters: Value, recipients: &[&str]) -> Value {
    let recipients: Vec<Value> = recipients.iter().map(|email| to(email)).collect();
    json!({"mailFrom": {"email": "alice@example.test", "parameters": parameters}, "rcptTo": recipients})
}

/// RFC 8621 §1.3.2
#[tokio::test]
async fn it_is_announced() {
    let world = World::new().await;
    let client = world.client("alice");
    let session = client.session().await;
    let account = client.account_id().await;
    let name = "urn:ietf:params:jmap:submission";
    assert_eq!(session["capabilities"][name], json!({}));
    assert_eq!(session["primaryAccounts"][name], json!(account));
    let own = &session["accounts"][&account]["accountCapabilities"][name];
    assert_eq!(own["maxDelayedSend"], 86_400);
    assert_eq!(own["submissionExtensions"]["FUTURERELEASE"], json!(["86400", "2027-01-16T08:00:00Z"]));
    assert_eq!(own["submissionExtensions"]["DSN"], json!([]));
    // RFC 8620 §3.3: for a client that does not say it uses it, it is not there.
    let body = json!({"using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"], "methodCalls": [
        ["Identity/get", {"accountId": account}, "0"], ["EmailSubmission/get", {"accountId": account}, "1"]]});
    let answers = client.api(&body.to_string()).await.json();
    for at in 0..2 {
        assert_eq!(answers["methodResponses"][at][1]["type"], "unknownMethod");
    }
}

/// RFC 8621 §7.5.1: a draft is sent, and moves from Drafts to Sent.
#[tokio::test]
async fn a_submission_arrives() {
    let world = World::new().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let (drafts, sent) = (mailbox(&alice, "drafts").await, mailbox(&alice, "sent").await);
    let identity = alice.call("Identity/get", json!({})).await["list"][0]["id"].clone();
    let mut moved = json!({"keywords/$draft": null});
    moved[format!("mailboxIds/{drafts}")] = Value::Null;
    moved[format!("mailboxIds/{sent}")] = json!(true);
    let mut draft = json!({
        "keywords": {"$draft": true, "$seen": true},
        "from": [{"name": "Alice", "email": "alice@example.test"}],
        "to": [{"name": null, "email": "bob@example.test"}],
        "bcc": [{"name": null, "email": "carol@there.test"}],
        "subject": "Grüße",
        "textBody": [{"partId": "t", "type": "text/plain"}],
        "bodyValues": {"t": {"value": "Hallo Bob"}},
    });
    draft["mailboxIds"][&drafts] = json!(true);
    let answers = alice
        .calls(&[
            ("Email/set", json!({"create": {"d": draft}})),
            (
                "EmailSubmission/set",
                json!({
                    "create": {"s": {"identityId": identity, "emailId": "#d"}},
                    "onSuccessUpdateEmail": {"#s": moved},
                }),
            ),
        ])
        .await;
    let names: Vec<&str> = answers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Email/set", "EmailSubmission/set", "Email/set"], "{answers:?}");
    let email = answers[0].1["created"]["d"]["id"].clone();
    let made = &answers[1].1["created"]["s"];
    assert_eq!(made["undoStatus"], "final", "{}", answers[1].1);
    assert_eq!(made["sendAt"], "2027-01-15T08:00:00Z");
    assert_eq!(made["envelope"]["mailFrom"]["email"], "alice@example.test");
    assert_eq!(made["envelope"]["rcptTo"], json!([to("bob@example.test"), to("carol@there.test")]));
    assert_eq!(made["deliveryStatus"]["bob@example.test"]["delivered"], "queued");
    assert_eq!(answers[2].1["updated"], json!({email.as_str().unwrap(): null}));

    let properties = ["keywords", "mailboxIds", "bcc"];
    let arguments = json!({"ids": [email], "properties": properties});
    let kept = alice.call("Email/get", arguments).await["list"][0].clone();
    assert_eq!(kept["keywords"], json!({"$seen": true}));
    assert_eq!(kept["mailboxIds"], json!({sent: true}));
    // What is stored keeps what is not sent.
    assert_eq!(kept["bcc"][0]["email"], "carol@there.test");

    world.deliver().await;
    let found = bob.call("Email/query", json!({})).await["ids"].clone();
    let properties = ["subject", "from", "preview", "bcc", "header:Received", "messageId"];
    let got = bob.call("Email/get", json!({"ids": found, "properties": properties})).await["list"].clone();
    assert_eq!(got.as_array().unwrap().len(), 1, "{got}");
    assert_eq!(got[0]["subject"], "Grüße");
    assert_eq!(got[0]["preview"], "Hallo Bob");
    assert_eq!(got[0]["bcc"], Value::Null);
    assert!(got[0]["messageId"].is_array());
    let received = got[0]["header:Received"].as_str().unwrap();
    assert!(received.contains("by mx.example.test with JMAP id "), "{received}");
    // RFC 5321 §7.2: one recipient is not told about the other.
    assert!(!received.contains("for <"), "{received}");

    let told = until_delivered(&alice, &made["id"], "bob@example.test").await;
    assert_eq!(told["undoStatus"], "final");
    assert_eq!(
        told["deliveryStatus"]["bob@example.test"],
        json!({"smtpReply": "250 2.1.5 Delivered", "delivered": "yes", "displayed": "unknown"})
    );
    assert_eq!(told["deliveryStatus"]["carol@there.test"]["delivered"], "queued", "{told}");
    assert_eq!((&told["dsnBlobIds"], &told["mdnBlobIds"]), (&json!([]), &json!([])));
    assert_eq!(told["emailId"], email);
    let trace = world.queue.list(queue::ShardKind::Outbound, 9).await.unwrap();
    assert_eq!(trace.len(), 1);
    assert_eq!(trace[0].recipients[0].address, "carol@there.test");
}

/// RFC 8621 §7.5, RFC 4865
#[tokio::test]
async fn what_is_held_can_be_taken_back() {
    let world = World::new().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let email = world.draft(DRAFT).await;
    let held = |parameters: Value| {
        let envelope = envelope(parameters, &["bob@example.test"]);
        json!({"identityId": "default", "emailId": email, "envelope": envelope})
    };
    let first = send(&alice, held(json!({"HOLDFOR": "1800"}))).await;
    assert_eq!((&first["undoStatus"], &first["sendAt"]), (&json!("pending"), &json!("2027-01-15T08:30:00Z")));
    let second = send(&alice, held(json!({"HOLDUNTIL": "2027-01-15T08:30:00Z"}))).await;
    world.deliver().await;
    assert_eq!(get(&alice, &first["id"]).await["undoStatus"], "pending");
    let by = |status: &str| json!({"filter": {"undoStatus": status}});
    assert_eq!(alice.call("EmailSubmission/query", by("pending")).await["ids"].as_array().unwrap().len(), 2);

    let state = alice.call("EmailSubmission/get", json!({"ids": []})).await["state"].clone();
    let cancel = |id: &Value| json!({"update": {id.as_str().unwrap(): {"undoStatus": "canceled"}}});
    let answer = alice.call("EmailSubmission/set", cancel(&first["id"])).await;
    assert_eq!(answer["updated"], json!({first["id"].as_str().unwrap(): null}), "{answer}");
    let told = get(&alice, &first["id"]).await;
    assert_eq!((&told["undoStatus"], &told["deliveryStatus"]), (&json!("canceled"), &Value::Null));
    let changes = alice.call("EmailSubmission/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["updated"], json!([first["id"]]));
    // Once more does nothing, and is no error.
    let answer = alice.call("EmailSubmission/set", cancel(&first["id"])).await;
    assert!(answer["notUpdated"].is_null(), "{answer}");
    let other = json!({"update": {first["id"].as_str().unwrap(): {"undoStatus": "pending"}}});
    let answer = alice.call("EmailSubmission/set", other).await;
    assert_eq!(answer["notUpdated"][first["id"].as_str().unwrap()]["type"], "invalidProperties");

    // Shortly before it is sent it counts as sent.
    world.clock.set(NOW + 1_799);
    let answer = alice.call("EmailSubmission/set", cancel(&second["id"])).await;
    assert_eq!(answer["notUpdated"][second["id"].as_str().unwrap()]["type"], "cannotUnsend", "{answer}");
    world.clock.set(NOW + 1_800);
    world.deliver().await;
    let told = until_delivered(&alice, &second["id"], "bob@example.test").await;
    // The one that was not taken back has come, and the other one has not.
    assert_eq!(bob.call("Email/query", json!({})).await["ids"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&told["undoStatus"], &told["deliveryStatus"]["bob@example.test"]["delivered"]),
        (&json!("final"), &json!("yes"))
    );
    let found = alice.call("EmailSubmission/query", by("canceled")).await;
    assert_eq!(found["ids"], json!([first["id"]]));
    assert_eq!(alice.call("EmailSubmission/query", by("final")).await["ids"], json!([second["id"]]));
    let answer = alice.call("EmailSubmission/set", cancel(&second["id"])).await;
    assert_eq!(answer["notUpdated"][second["id"].as_str().unwrap()]["type"], "cannotUnsend");
}

/// RFC 8621 §7.5
#[tokio::test]
async fn every_way_to_be_refused() {
    let world =
        World::with(Config { account_passwords: true, submission_recipients_max: 3, ..Config::default() })
            .await;
    let client = world.client("alice");
    let email = world.draft(DRAFT).await;
    let check = async |submission: Value, kind: &str, property: &str, value: Value| {
        let error = refused(&client, submission.clone()).await;
        assert_eq!(error["type"], kind, "{submission}: {error}");
        assert!(error["description"].is_string());
        if !property.is_empty() {
            assert_eq!(error[property], value, "{submission}: {error}");
        }
    };
    let of = |email: &str| json!({"identityId": "default", "emailId": email});
    let with = |envelope: Value| json!({"identityId": "default", "emailId": email, "envelope": envelope});

    check(json!({"emailId": email}), "invalidProperties", "properties", json!(["identityId"])).await;
    check(
        json!({"identityId": "o9", "emailId": email}),
        "invalidProperties",
        "properties",
        json!(["identityId"]),
    )
    .await;
    check(of("E999"), "invalidProperties", "properties", json!(["emailId"])).await;
    check(of("x"), "invalidProperties", "properties", json!(["emailId"])).await;
    check(
        json!({"identityId": "default", "emailId": email, "sendAt": "2027-01-15T09:00:00Z"}),
        "invalidProperties",
        "properties",
        json!(["sendAt"]),
    )
    .await;
    for parameters in [
        json!({"HOLDFOR": "86401"}),
        json!({"HOLDFOR": "x"}),
        json!({"X-NONE": null}),
        json!({"AUTH": "bob@example.test"}),
        json!({"BY": "5;R"}),
    ] {
        let submission = with(envelope(parameters, &["bob@example.test"]));
        check(submission, "invalidProperties", "properties", json!(["envelope"])).await;
    }
    check(with(envelope(Value::Null, &[])), "noRecipients", "", Value::Null).await;
    let many = ["bob@example.test", "a@there.test", "b@there.test", "c@there.test"];
    check(with(envelope(Value::Null, &many)), "tooManyRecipients", "maxRecipients", json!(3)).await;
    check(
        with(envelope(Value::Null, &["bob", "bob@example.test"])),
        "invalidRecipients",
        "invalidRecipients",
        json!(["bob"]),
    )
    .await;
    check(
        with(envelope(Value::Null, &["nobody@example.test", "bob@example.test"])),
        "invalidRecipients",
        "invalidRecipients",
        json!(["nobody@example.test"]),
    )
    .await;
    let from_bob = json!({"mailFrom": to("bob@example.test"), "rcptTo": [to("bob@example.test")]});
    check(with(from_bob), "forbiddenMailFrom", "", Value::Null).await;
    let from_nowhere = json!({"mailFrom": to("alice"), "rcptTo": [to("bob@example.test")]});
    check(with(from_nowhere), "invalidProperties", "properties", json!(["envelope"])).await;

    let message = async |text: &str| of(&world.draft(text).await);
    check(
        message("From: bob@example.test\nTo: bob@example.test\n\nx\n").await,
        "forbiddenFrom",
        "",
        Value::Null,
    )
    .await;
    let sender = "From: alice@example.test\nSender: bob@example.test\nTo: bob@example.test\n\nx\n";
    check(message(sender).await, "forbiddenFrom", "", Value::Null).await;
    check(message("From: alice@example.test\nSubject: x\n\nx\n").await, "noRecipients", "", Value::Null)
        .await;
    check(message("To: bob@example.test\n\nx\n").await, "invalidEmail", "properties", json!(["from"])).await;
    let twice = "From: alice@example.test\nFrom: alice@example.test\nTo: bob@example.test\n\nx\n";
    check(message(twice).await, "invalidEmail", "properties", json!(["from"])).await;
    let bad = "From: alice@example.test\nTo: bob@example.test, carol\n\nx\n";
    check(message(bad).await, "invalidRecipients", "invalidRecipients", json!(["carol"])).await;
    let long = format!("From: alice@example.test\nTo: bob@example.test\n\n{}\n", "x".repeat(1_000));
    check(message(&long).await, "invalidEmail", "properties", json!(["bodyStructure"])).await;
    let large = format!("From: alice@example.test\nTo: bob@example.test\n\n{}", "x\n".repeat(40_000));
    check(message(&large).await, "tooLarge", "maxSize", json!(100_000)).await;
    let circle =
        format!("{}From: alice@example.test\nTo: bob@example.test\n\nx\n", "Received: x\n".repeat(100));
    check(message(&circle).await, "invalidEmail", "properties", json!(["headers"])).await;
    world.allowance.store(0, Ordering::SeqCst);
    check(of(&email), "forbiddenToSend", "", Value::Null).await;

    // Nothing of all that was sent, and nothing is remembered of it.
    assert_eq!(world.queue.overview().ingest, 0);
    assert_eq!(client.call("EmailSubmission/get", json!({})).await["list"], json!([]));
    let unknown = json!({"update": {"o9": {"undoStatus": "canceled"}}, "destroy": ["o8"]});
    let answer = client.call("EmailSubmission/set", unknown).await;
    assert_eq!(answer["notUpdated"]["o9"]["type"], "notFound");
    assert_eq!(answer["notDestroyed"]["o8"]["type"], "notFound");
    let stale = json!({"ifInState": "77", "create": {"s": of(&email)}});
    assert_eq!(client.refused("EmailSubmission/set", stale).await.0, "stateMismatch");
}

/// RFC 8620 §1.6.2: nobody reaches what is another's.
#[tokio::test]
async fn others_cannot_send_what_is_not_theirs() {
    let world = World::new().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let email = world.draft(DRAFT).await;
    let account = alice.account_id().await;
    for (method, arguments) in [
        ("Identity/get", json!({"accountId": account})),
        ("Identity/changes", json!({"accountId": account, "sinceState": "0"})),
        ("Identity/set", json!({"accountId": account})),
        ("EmailSubmission/get", json!({"accountId": account})),
        ("EmailSubmission/changes", json!({"accountId": account, "sinceState": "0"})),
        ("EmailSubmission/query", json!({"accountId": account})),
        ("EmailSubmission/queryChanges", json!({"accountId": account, "sinceQueryState": "0"})),
        (
            "EmailSubmission/set",
            json!({"accountId": account, "create": {"s": {"identityId": "default", "emailId": email}}}),
        ),
    ] {
        assert_eq!(bob.refused(method, arguments).await.0, "accountNotFound", "{method}");
    }
    let error = refused(&bob, json!({"identityId": "default", "emailId": email})).await;
    assert_eq!((&error["type"], &error["properties"]), (&json!("invalidProperties"), &json!(["emailId"])));
    // An email of his own, in the name of another.
    let own = world.put("bob", "INBOX", &[], DRAFT).await.email;
    let error = refused(&bob, json!({"identityId": "default", "emailId": format!("E{own}")})).await;
    assert_eq!(error["type"], "forbiddenFrom");
    let made = send(&alice, json!({"identityId": "default", "emailId": email})).await;
    let got = bob.call("EmailSubmission/get", json!({"ids": [made["id"]]})).await;
    assert_eq!(got["notFound"], json!([made["id"]]));
}

/// RFC 8621 §7.5 `onSuccessUpdateEmail`, `onSuccessDestroyEmail`
#[tokio::test]
async fn what_follows_on_success() {
    let world = World::new().await;
    let client = world.client("alice");
    let (good, bad) = (world.draft(DRAFT).await, world.draft("Subject: no sender\n\nx\n").await);
    let of = |email: &str| json!({"identityId": "default", "emailId": email});
    let arguments = json!({
        "create": {"g": of(&good), "b": of(&bad)},
        "onSuccessUpdateEmail": {"#b": {"keywords/$flagged": true}, "#none": {"keywords/$flagged": true}},
        "onSuccessDestroyEmail": ["#g", "#b"],
    });
    let answers = client.calls(&[("EmailSubmission/set", arguments)]).await;
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0].1["notCreated"]["b"]["type"], "invalidEmail");
    // Only what was sent goes.
    assert_eq!(answers[1].0, "Email/set");
    assert_eq!((&answers[1].1["destroyed"], &answers[1].1["updated"]), (&json!([good]), &Value::Null));
    assert_eq!(client.call("Email/query", json!({})).await["ids"], json!([bad]));
    let id = answers[0].1["created"]["g"]["id"].clone();

    // Nothing succeeded, and nothing follows.
    let arguments = json!({"create": {"b": of(&bad)}, "onSuccessDestroyEmail": ["#b"]});
    assert_eq!(client.calls(&[("EmailSubmission/set", arguments)]).await.len(), 1);

    // What is refused of the email is told by its own answer.
    let email = world.draft(DRAFT).await;
    let arguments = json!({
        "create": {"s": of(&email)},
        "onSuccessUpdateEmail": {"#s": {"subject": "other"}},
    });
    let answers = client.calls(&[("EmailSubmission/set", arguments)]).await;
    assert!(answers[0].1["created"]["s"]["id"].is_string());
    assert_eq!(answers[1].1["notUpdated"][&email]["type"], "invalidProperties", "{answers:?}");

    // A submission that is destroyed is a success as well; what was sent stays sent.
    let arguments = json!({
        "destroy": [answers[0].1["created"]["s"]["id"]],
        "onSuccessDestroyEmail": [answers[0].1["created"]["s"]["id"]],
    });
    let answers = client.calls(&[("EmailSubmission/set", arguments)]).await;
    assert_eq!(answers[1].1["destroyed"], json!([email]));
    world.deliver().await;
    assert_eq!(world.client("bob").call("Email/query", json!({})).await["ids"].as_array().unwrap().len(), 2);
    // It is told of, though its email is gone.
    assert_eq!(get(&client, &id).await["emailId"], json!(good));
}

/// RFC 8621 §7.3, §7.4
#[tokio::test]
async fn submissions_are_found() {
    let world = World::new().await;
    let client = world.client("alice");
    let mut made = Vec::new();
    for number in 0..3_u64 {
        world.clock.set(NOW + 100 * number);
        let email = world.draft(DRAFT).await;
        let told = send(&client, json!({"identityId": "default", "emailId": email})).await;
        made.push((told["id"].clone(), email, told["threadId"].clone()));
    }
    let check = async |arguments: Value, expected: &[usize]| {
        let found = client.call("EmailSubmission/query", arguments.clone()).await;
        let expected: Vec<&Value> = expected.iter().map(|at| &made[*at].0).collect();
        assert_eq!(found["ids"], json!(expected), "{arguments}");
    };
    check(json!({}), &[0, 1, 2]).await;
    check(json!({"sort": [{"property": "sentAt", "isAscending": false}]}), &[2, 1, 0]).await;
    check(json!({"sort": [{"property": "emailId", "isAscending": false}], "limit": 1}), &[2]).await;
    check(json!({"filter": {"emailIds": [made[1].1]}}), &[1]).await;
    check(json!({"filter": {"threadIds": [made[2].2], "emailIds": [made[2].1]}}), &[2]).await;
    check(json!({"filter": {"identityIds": ["default"]}}), &[0, 1, 2]).await;
    check(json!({"filter": {"identityIds": ["o1"]}}), &[]).await;
    check(json!({"filter": {"after": "2027-01-15T08:01:40Z"}}), &[1, 2]).await;
    check(json!({"filter": {"before": "2027-01-15T08:01:40Z"}}), &[0]).await;
    check(json!({"filter": {"undoStatus": "pending"}}), &[]).await;
    let not = json!({"operator": "NOT", "conditions": [{"emailIds": [made[1].1]}]});
    check(json!({"filter": not}), &[0, 2]).await;
    let wrong = json!({"filter": {"subject": "x"}});
    assert_eq!(client.refused("EmailSubmission/query", wrong).await.0, "unsupportedFilter");
    let wrong = json!({"sort": [{"property": "undoStatus"}]});
    assert_eq!(client.refused("EmailSubmission/query", wrong).await.0, "unsupportedSort");

    let state = client.call("EmailSubmission/query", json!({})).await["queryState"].clone();
    let since = json!({"sinceQueryState": state});
    let answer = client.call("EmailSubmission/queryChanges", since.clone()).await;
    assert_eq!((&answer["added"], &answer["removed"]), (&json!([]), &json!([])));
    client.call("EmailSubmission/set", json!({"destroy": [made[0].0]})).await;
    assert_eq!(client.refused("EmailSubmission/queryChanges", since).await.0, "cannotCalculateChanges");
    let changes = client.call("EmailSubmission/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["destroyed"], json!([made[0].0]));
    let changes = client.call("EmailSubmission/changes", json!({"sinceState": "0"})).await;
    assert_eq!(changes["created"], json!([made[1].0, made[2].0]));
}

/// Old submissions of which the queue has nothing more to tell make room.
#[tokio::test]
async fn old_submissions_go() {
    let config = Config { account_passwords: true, submissions_max: 2, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let email = world.draft(DRAFT).await;
    let of = || json!({"identityId": "default", "emailId": email});
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(send(&client, of()).await["id"].clone());
    }
    // They are too many, but the queue may still have something to tell.
    let all = async || client.call("EmailSubmission/query", json!({})).await["ids"].clone();
    assert_eq!(all().await, json!(ids));
    world.clock.set(NOW + 20 * 86_400);
    let last = send(&client, of()).await["id"].clone();
    assert_eq!(all().await, json!([ids[2], last]));
    world.clock.set(NOW + 90 * 86_400);
    let newest = send(&client, of()).await["id"].clone();
    assert_eq!(all().await, json!([newest]));
}

/// RFC 8621 §6
#[tokio::test]
async fn identities() {
    let world = World::new().await;
    let client = world.client("alice");
    let got = client.call("Identity/get", json!({})).await;
    assert_eq!(
        got["list"],
        json!([{
            "id": "default", "name": "", "email": "alice@example.test", "replyTo": null, "bcc": null,
            "textSignature": "", "htmlSignature": "", "mayDelete": false,
        }])
    );
    let first = got["state"].clone();
    // The one that was always there is changed, not made.
    let update = json!({"update": {"default": {"name": "Alice", "textSignature": "-- A", "bcc": [to_named("x@there.test")]}}});
    let answer = client.call("Identity/set", update).await;
    assert_eq!(answer["updated"], json!({"default": null}), "{answer}");
    let changes = client.call("Identity/changes", json!({"sinceState": first})).await;
    assert_eq!((&changes["created"], &changes["updated"]), (&json!([]), &json!(["default"])));
    let undo = json!({"update": {"default": {"textSignature": null, "bcc": null}}});
    client.call("Identity/set", undo).await;
    let got = client
        .call(
            "Identity/get",
            json!({"ids": ["default", "o77"], "properties": ["name", "bcc", "textSignature"]}),
        )
        .await;
    assert_eq!(got["list"], json!([{"id": "default", "name": "Alice", "bcc": null, "textSignature": ""}]));
    assert_eq!(got["notFound"], json!(["o77"]));

    // An alias that allows it can be written as.
    let alias = |text: &str| Address::parse(text).unwrap();
    let targets = || vec![alias("alice@example.test")];
    world.directory.create_alias(&alias("sales@example.test"), targets(), true).await.unwrap();
    world.directory.create_alias(&alias("info@example.test"), targets(), false).await.unwrap();
    let create = json!({"create": {
        "a": {"name": "Sales", "email": "sales@example.test"},
        "p": {"email": "alice+shop@example.test"},
        "b": {"email": "bob@example.test"},
        "i": {"email": "info@example.test"},
        "f": {"email": "alice@elsewhere.test"},
        "w": {"email": "*@example.test"},
        "x": {"name": "no address"},
        "y": {"email": "alice@example.test", "mayDelete": true},
        "z": {"email": "alice@example.test", "name": 5},
        "t": {"email": "alice@example.test", "htmlSignature": "x".repeat(30_000)},
    }});
    let answer = client.call("Identity/set", create).await;
    let sales = answer["created"]["a"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert_eq!(answer["created"]["a"]["mayDelete"], true);
    assert!(answer["created"]["p"]["id"].is_string());
    for (key, kind) in [
        ("b", "forbiddenFrom"),
        ("i", "forbiddenFrom"),
        ("f", "forbiddenFrom"),
        ("w", "forbiddenFrom"),
        ("x", "invalidProperties"),
        ("y", "invalidProperties"),
        ("z", "invalidProperties"),
        ("t", "tooLarge"),
    ] {
        assert_eq!(answer["notCreated"][key]["type"], kind, "{key}: {answer}");
    }
    // What goes out under it has its address, where the message names another.
    let email = world.draft("From: alice@example.test\nTo: bob@example.test\n\nx\n").await;
    let told = send(&client, json!({"identityId": sales, "emailId": email})).await;
    assert_eq!(told["envelope"]["mailFrom"], to("sales@example.test"));

    let state = client.call("Identity/get", json!({"ids": []})).await["state"].clone();
    let mut change = json!({"default": {"email": "sales@example.test"}, "o99": {"name": "x"}});
    change[&sales] = json!({"replyTo": [to_named("desk@example.test")], "mayDelete": true});
    let answer = client.call("Identity/set", json!({"update": change, "destroy": ["default", "o98"]})).await;
    assert_eq!(answer["notUpdated"]["default"]["properties"], json!(["email"]));
    assert_eq!(answer["notUpdated"]["o99"]["type"], "notFound");
    assert_eq!(answer["updated"], json!({sales.as_str(): null}), "{answer}");
    assert_eq!(answer["notDestroyed"]["default"]["type"], "forbidden");
    assert_eq!(answer["notDestroyed"]["o98"]["type"], "notFound");
    let changes = client.call("Identity/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["updated"], json!([sales]));
    let answer = client.call("Identity/set", json!({"destroy": [sales]})).await;
    assert_eq!(answer["destroyed"], json!([sales]));
    let changes = client.call("Identity/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["destroyed"], json!([sales]));
    assert_eq!(
        client.refused("Identity/changes", json!({"sinceState": "x"})).await.0,
        "cannotCalculateChanges"
    );
    assert_eq!(client.refused("Identity/set", json!({"ifInState": "0"})).await.0, "stateMismatch");
}

pub(crate) fn to_named(email: &str) -> Value {
    json!({"name": null, "email": email})
}
