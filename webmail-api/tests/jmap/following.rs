//! What becomes of submissions, as clients hear of it (RFC 8621 §7, RFC 8620 §5.2, §7.3), and the identities of aliases.

use std::time::Duration;

use mail::address::Address;
use serde_json::{Value, json};
use webmail_api::jmap::Config;

use crate::http::Client;
use crate::push::Events;
use crate::sending::{DRAFT, envelope, get, send, to_named, until_delivered};
use crate::world::World;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

async fn state_of(client: &Client<'_>) -> Value {
    client.call("EmailSubmission/get", json!({"ids": []})).await["state"].clone()
}

/// A delivery is a change of the submission, which everybody hears of, whoever has looked.
#[tokio::test]
async fn a_delivery_changes_the_state() {
    let world = World::new().await;
    let client = world.client("alice");
    let email = world.draft(DRAFT).await;
    let made = send(&client, json!({"identityId": "default", "emailId": email})).await;
    let state = state_of(&client).await;
    let since = |state: &Value| json!({"sinceState": state});
    let changes = client.call("EmailSubmission/changes", since(&state)).await;
    assert_eq!((&changes["updated"], &changes["newState"]), (&json!([]), &state));
    world.deliver().await;
    let mut changes = Value::Null;
    for _ in 0..200 {
        changes = client.call("EmailSubmission/changes", since(&state)).await;
        if changes["updated"] != json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(changes["updated"], json!([made["id"]]), "{changes}");
    let told = until_delivered(&client, &made["id"], "bob@example.test").await;
    assert_eq!(told["deliveryStatus"]["bob@example.test"]["delivered"], "yes");
    // Nothing more happens, so that nothing more is written; and it is known when the queue has forgotten it.
    let state = state_of(&client).await;
    world.clock.set(crate::world::NOW + 20 * 86_400);
    assert_eq!(get(&client, &made["id"]).await["deliveryStatus"]["bob@example.test"]["delivered"], "yes");
    assert_eq!(state_of(&client).await, state);
    let arguments = json!({"sinceQueryState": state, "filter": {"undoStatus": "final"}});
    let answer = client.call("EmailSubmission/queryChanges", arguments).await;
    assert_eq!((&answer["added"], &answer["removed"]), (&json!([]), &json!([])));
}

/// Who listens is told of it without asking.
#[tokio::test]
async fn a_delivery_is_pushed() {
    let config = Config { account_passwords: true, submission_look_seconds: 1, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let email = world.draft(DRAFT).await;
    let made = send(&client, json!({"identityId": "default", "emailId": email})).await;
    let path = "/jmap/eventsource?types=EmailSubmission&closeafter=no&ping=0";
    let mut events = Events::open(&world, path, &[]).await;
    world.deliver().await;
    let (kind, data) = events.event().await;
    assert_eq!(kind, "state");
    let account = client.account_id().await;
    let told = until_delivered(&client, &made["id"], "bob@example.test").await;
    assert_eq!(told["deliveryStatus"]["bob@example.test"]["delivered"], "yes");
    assert!(data["changed"][&account]["EmailSubmission"].is_string(), "{data}");
}

/// When its time comes it cannot be taken back any more, and that is a change too.
#[tokio::test]
async fn what_is_held_becomes_final() {
    let world = World::new().await;
    let client = world.client("alice");
    let email = world.draft(DRAFT).await;
    let envelope = envelope(json!({"HOLDFOR": "600"}), &["bob@example.test"]);
    let held = json!({"identityId": "default", "emailId": email, "envelope": envelope});
    let made = send(&client, held).await;
    let state = state_of(&client).await;
    assert_eq!(get(&client, &made["id"]).await["undoStatus"], "pending");
    world.clock.set(crate::world::NOW + 599);
    let changes = client.call("EmailSubmission/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["updated"], json!([made["id"]]));
    assert_eq!(get(&client, &made["id"]).await["undoStatus"], "final");
}

/// RFC 8621 §7 `dsnBlobIds`
#[tokio::test]
async fn a_dsn_belongs_to_its_submission() {
    let world = World::new().await;
    let client = world.client("alice");
    let targets = vec![address("nobody@example.test")];
    world.directory.create_alias(&address("gone@example.test"), targets, false).await.unwrap();
    let text = "From: alice@example.test\nTo: gone@example.test\nMessage-ID: <one@example.test>\n\
                Subject: hello\n\nx\n";
    let email = world.draft(text).await;
    let made = send(&client, json!({"identityId": "default", "emailId": email})).await;
    let state = state_of(&client).await;
    // An answer of somebody is no DSN.
    let answer = "From: bob@example.test\nIn-Reply-To: <one@example.test>\nSubject: Re: hello\n\nx\n";
    world.put("alice", "INBOX", &[], answer).await;
    let mut told = Value::Null;
    for _ in 0..100 {
        world.deliver().await;
        told = get(&client, &made["id"]).await;
        if told["dsnBlobIds"] != json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(told["deliveryStatus"]["gone@example.test"]["delivered"], "no", "{told}");
    let blobs = told["dsnBlobIds"].as_array().unwrap();
    assert_eq!(blobs.len(), 1, "{told}");
    let arguments = json!({"blobIds": blobs, "properties": ["inReplyTo", "from"]});
    let parsed = client.call("Email/parse", arguments).await;
    let parsed = &parsed["parsed"][blobs[0].as_str().unwrap()];
    assert_eq!(parsed["inReplyTo"], json!(["one@example.test"]), "{parsed}");
    let changes = client.call("EmailSubmission/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["updated"], json!([made["id"]]));
    // One that is destroyed cannot be read any more.
    let dsn = blobs[0].as_str().unwrap().replace('G', "E");
    let answer = client.call("Email/set", json!({"destroy": [dsn]})).await;
    assert_eq!(answer["destroyed"], json!([dsn]), "{answer}");
    assert_eq!(get(&client, &made["id"]).await["dsnBlobIds"], json!([]));
}

/// RFC 8621 §6: an alias that the account may send as is an identity without anybody making it.
#[tokio::test]
async fn aliases_are_identities() {
    let world = World::new().await;
    let client = world.client("alice");
    let targets = || vec![address("alice@example.test")];
    let first = client.call("Identity/get", json!({"ids": []})).await["state"].clone();
    world.directory.create_alias(&address("Sales@example.test"), targets(), true).await.unwrap();
    world.directory.create_alias(&address("info@example.test"), targets(), false).await.unwrap();
    let others = vec![address("bob@example.test")];
    world.directory.create_alias(&address("desk@example.test"), others, true).await.unwrap();

    let got = client.call("Identity/get", json!({"properties": ["email", "name", "mayDelete"]})).await;
    let emails: Vec<&Value> = got["list"].as_array().unwrap().iter().map(|it| &it["email"]).collect();
    assert_eq!(emails, ["alice@example.test", "Sales@example.test"], "{got}");
    let sales = got["list"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(got["list"][1]["mayDelete"], false);
    // The directory is another log: what it said before is not known.
    assert_ne!(got["state"], first);
    assert_eq!(
        client.refused("Identity/changes", json!({"sinceState": first})).await.0,
        "cannotCalculateChanges"
    );
    assert_eq!(client.refused("Identity/set", json!({"ifInState": first})).await.0, "stateMismatch");

    // It is changed, not made, and stays.
    let mut update = json!({"ifInState": got["state"]});
    update["update"][&sales] = json!({"name": "Sales", "replyTo": [to_named("desk@example.test")]});
    let answer = client.call("Identity/set", update).await;
    assert_eq!(answer["updated"], json!({sales.as_str(): null}), "{answer}");
    assert_eq!(answer["oldState"], got["state"]);
    let changes = client.call("Identity/changes", json!({"sinceState": got["state"]})).await;
    assert_eq!((&changes["created"], &changes["updated"]), (&json!([]), &json!([sales])));
    assert_eq!(changes["newState"], answer["newState"]);
    let answer = client.call("Identity/set", json!({"destroy": [sales]})).await;
    assert_eq!(answer["notDestroyed"][&sales]["type"], "forbidden");
    let email = world.draft("From: sales@example.test\nTo: bob@example.test\n\nx\n").await;
    let told = send(&client, json!({"identityId": sales, "emailId": email})).await;
    assert_eq!(told["envelope"]["mailFrom"]["email"], "sales@example.test");

    // Without the alias it is an identity like others, with which nothing can be sent.
    world.directory.delete_alias(&address("sales@example.test")).await.unwrap();
    let got = client.call("Identity/get", json!({"ids": [sales], "properties": ["mayDelete"]})).await;
    assert_eq!(got["list"][0]["mayDelete"], true, "{got}");
    let create = json!({"create": {"s": {"identityId": sales, "emailId": email}}});
    let answer = client.call("EmailSubmission/set", create).await;
    assert_eq!(answer["notCreated"]["s"]["type"], "forbiddenFrom", "{answer}");
    let answer = client.call("Identity/set", json!({"destroy": [sales]})).await;
    assert_eq!(answer["destroyed"], json!([sales]));
}

/// In a domain with many names nobody looks through all of them for one account.
#[tokio::test]
async fn large_domains_offer_no_aliases() {
    let config = Config { account_passwords: true, alias_identities_names_max: 2, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let targets = vec![address("alice@example.test")];
    world.directory.create_alias(&address("sales@example.test"), targets, true).await.unwrap();
    let got = client.call("Identity/get", json!({})).await;
    assert_eq!(got["list"].as_array().unwrap().len(), 1, "{got}");
    // It can be made all the same.
    let create = json!({"create": {"a": {"email": "sales@example.test"}}});
    assert!(client.call("Identity/set", create).await["created"]["a"]["id"].is_string());
}
