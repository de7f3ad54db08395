//! Quotas (RFC 9425).

use serde_json::{Value, json};
use storage::AccountSettings;

use crate::http::Client;
use crate::world::{USING, World};

const MAIL: &str = "Subject: x\n\nx\n";

async fn limit(world: &World, bytes: Option<u64>, messages: Option<u64>) {
    let settings = AccountSettings { quota_bytes: bytes, quota_messages: messages };
    world.account("alice").await.set_quota(settings).await.unwrap();
}

async fn changes(client: &Client<'_>, since: &Value, most: Option<u64>) -> Value {
    client.call("Quota/changes", json!({"sinceState": since, "maxChanges": most})).await
}

/// RFC 9425 §4.2
#[tokio::test]
async fn use_and_limits() {
    let world = World::new().await;
    let client = world.client("alice");
    let session = client.session().await;
    let quota = "urn:ietf:params:jmap:quota";
    let account = client.account_id().await;
    assert_eq!(session["capabilities"][quota], json!({}));
    assert_eq!(session["accounts"][&account]["accountCapabilities"][quota], json!({}));
    assert_eq!(session["primaryAccounts"][quota], account);
    // Without a limit there is no quota.
    assert_eq!(client.call("Quota/get", json!({})).await["list"], json!([]));
    limit(&world, Some(1000), Some(3)).await;
    world.put("alice", "INBOX", &[], MAIL).await;
    let answer = client.call("Quota/get", json!({"ids": null})).await;
    let size = MAIL.replace('\n', "\r\n").len();
    let octets = &answer["list"][0];
    assert_eq!(octets["id"], "octets");
    assert_eq!(octets["resourceType"], "octets");
    assert_eq!((&octets["used"], &octets["hardLimit"]), (&json!(size), &json!(1000)));
    assert_eq!((&octets["scope"], &octets["types"]), (&json!("account"), &json!(["Email"])));
    assert!(octets["name"].is_string() && octets["description"].is_string());
    assert_eq!((&octets["warnLimit"], &octets["softLimit"]), (&Value::Null, &Value::Null));
    let count = &answer["list"][1];
    assert_eq!(
        (&count["resourceType"], &count["used"], &count["hardLimit"]),
        (&json!("count"), &json!(1), &json!(3))
    );
    let arguments = json!({"ids": ["count", "x", "count"], "properties": ["used"]});
    let answer = client.call("Quota/get", arguments).await;
    assert_eq!(answer["list"], json!([{"id": "count", "used": 1}]));
    assert_eq!(answer["notFound"], json!(["x"]));
    assert_eq!(client.refused("Quota/get", json!({"properties": ["limit"]})).await.0, "invalidArguments");
    // RFC 9425 §4.1: who does not use mail is not told of its quotas, and who does not use quotas has no such method.
    let ask = async |using: &[&str]| {
        let calls = json!([["Quota/get", {"accountId": account, "ids": null}, "0"]]);
        client.api(&json!({"using": using, "methodCalls": calls}).to_string()).await.json()["methodResponses"]
            [0]
        .clone()
    };
    assert_eq!(ask(&[USING[0], quota]).await[1]["list"], json!([]));
    assert_eq!(ask(&USING[..3]).await[1]["type"], "unknownMethod");
    // Another's are another's.
    assert_eq!(world.client("bob").call("Quota/get", json!({})).await["list"], json!([]));
}

/// RFC 9425 §4.3
#[tokio::test]
async fn every_change_of_use_is_a_change_of_state() {
    let world = World::new().await;
    let client = world.client("alice");
    let state = async || client.call("Quota/get", json!({"ids": []})).await["state"].clone();
    let nothing = state().await;
    limit(&world, Some(1000), Some(5)).await;
    let empty = state().await;
    assert_ne!(nothing, empty);
    let changed = changes(&client, &nothing, None).await;
    assert_eq!(changed["created"], json!(["octets", "count"]));
    assert_eq!((&changed["newState"], &changed["updatedProperties"]), (&empty, &Value::Null));
    let mut states = vec![empty.clone()];
    for _ in 0..3 {
        world.put("alice", "INBOX", &[], MAIL).await;
        let now = state().await;
        assert!(!states.contains(&now));
        let changed = changes(&client, states.last().unwrap(), None).await;
        assert_eq!(changed["updated"], json!(["octets", "count"]));
        assert_eq!(changed["updatedProperties"], json!(["used"]));
        assert_eq!((&changed["newState"], &changed["hasMoreChanges"]), (&now, &json!(false)));
        assert_eq!(changes(&client, &now, None).await["updated"], json!([]));
        states.push(now);
    }
    // Flags use nothing; a copy into another mailbox does, and what is destroyed gives it back.
    client.call("Email/set", json!({"update": {"E1": {"keywords/$seen": true}}})).await;
    assert_eq!(state().await, states[3]);
    client.call("Email/set", json!({"update": {"E1": {"mailboxIds/M6": true}}})).await;
    assert_ne!(state().await, states[3]);
    client.call("Email/set", json!({"destroy": ["E1", "E2", "E3"]})).await;
    assert_eq!(state().await, empty);
    assert_eq!(changes(&client, &states[3], None).await["updated"], json!(["octets", "count"]));
    // Limits are told as such, one of two at a time where that is asked for.
    limit(&world, Some(2000), None).await;
    let first = changes(&client, &states[3], Some(1)).await;
    assert_eq!((&first["updated"], &first["hasMoreChanges"]), (&json!(["octets"]), &json!(true)));
    assert_eq!(first["updatedProperties"], Value::Null);
    let second = changes(&client, &first["newState"], Some(1)).await;
    assert_eq!((&second["destroyed"], &second["hasMoreChanges"]), (&json!(["count"]), &json!(false)));
    assert_eq!(second["newState"], state().await);
    for bad in ["", "0", "1/2.3/4.5/6", "01/2.-"] {
        let arguments = json!({"sinceState": bad});
        assert_eq!(client.refused("Quota/changes", arguments).await.0, "cannotCalculateChanges", "{bad}");
    }
}

/// RFC 9425 §4.4, §4.5
#[tokio::test]
async fn queries() {
    let world = World::new().await;
    let client = world.client("alice");
    limit(&world, Some(1000), Some(5)).await;
    world.put("alice", "INBOX", &[], MAIL).await;
    let query = async |arguments: Value| client.call("Quota/query", arguments).await["ids"].clone();
    let both = json!(["octets", "count"]);
    assert_eq!(query(json!({})).await, both);
    assert_eq!(query(json!({"filter": {"name": "MESS"}})).await, json!(["count"]));
    assert_eq!(query(json!({"filter": {"resourceType": "octets"}})).await, json!(["octets"]));
    assert_eq!(query(json!({"filter": {"scope": "account", "type": "Email"}})).await, both);
    assert_eq!(query(json!({"filter": {"scope": "domain"}})).await, json!([]));
    assert_eq!(query(json!({"filter": {"type": "Mailbox"}})).await, json!([]));
    let not = json!({"operator": "NOT", "conditions": [{"resourceType": "octets"}]});
    assert_eq!(query(json!({"filter": not})).await, json!(["count"]));
    assert_eq!(query(json!({"sort": [{"property": "used"}]})).await, json!(["count", "octets"]));
    assert_eq!(
        query(json!({"sort": [{"property": "name", "isAscending": false}]})).await,
        json!(["count", "octets"])
    );
    assert_eq!(query(json!({"position": 1, "limit": 1})).await, json!(["count"]));
    assert_eq!(query(json!({"anchor": "count"})).await, json!(["count"]));
    assert_eq!(client.refused("Quota/query", json!({"filter": {"x": "y"}})).await.0, "unsupportedFilter");
    assert_eq!(client.refused("Quota/query", json!({"filter": {"name": 1}})).await.0, "invalidArguments");
    assert_eq!(
        client.refused("Quota/query", json!({"sort": [{"property": "x"}]})).await.0,
        "unsupportedSort"
    );
    let asked = json!({"sort": [{"property": "used"}], "calculateTotal": true});
    let answer = client.call("Quota/query", asked.clone()).await;
    assert_eq!((&answer["total"], &answer["canCalculateChanges"]), (&json!(2), &json!(true)));
    let changes = async |most: Option<u64>| {
        let mut arguments = asked.clone();
        arguments["sinceQueryState"] = answer["queryState"].clone();
        arguments["maxChanges"] = json!(most);
        client.calls(&[("Quota/queryChanges", arguments)]).await.remove(0).1
    };
    // The use is another, the order is not.
    world.put("alice", "INBOX", &[], MAIL).await;
    let changed = changes(None).await;
    assert_eq!((&changed["removed"], &changed["added"]), (&json!([]), &json!([])));
    assert_eq!(changed["total"], 2);
    assert_ne!(changed["newQueryState"], answer["queryState"]);
    limit(&world, None, Some(5)).await;
    let changed = changes(None).await;
    assert_eq!(changed["removed"], json!(["count", "octets"]));
    assert_eq!(changed["added"], json!([{"id": "count", "index": 0}]));
    assert_eq!(changes(Some(2)).await["type"], "tooManyChanges");
}
