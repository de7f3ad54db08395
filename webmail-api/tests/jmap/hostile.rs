//! What no client says that means well.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use webmail_api::jmap::Config;

use crate::http::read;
use crate::world::{USING, World};

async fn problem(world: &World, body: &str, status: u16, kind: &str) -> Value {
    let answer = world.client("alice").api(body).await;
    assert_eq!(answer.status, status, "{kind}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:ietf:params:jmap:error:{kind}"));
    problem
}

/// RFC 8620 §3.6.1
#[tokio::test]
async fn requests_that_are_none() {
    let world = World::new().await;
    problem(&world, &"[".repeat(10_000_000), 400, "notJSON").await;
    problem(&world, &"{\"a\":".repeat(1_000_000), 400, "notJSON").await;
    problem(&world, "{\"using\":[],\"methodCalls\":[]", 400, "notJSON").await;
    problem(&world, "{\"using\":[],\"using\":[],\"methodCalls\":[]}", 400, "notJSON").await;
    problem(&world, "{\"using\":[]}", 400, "notRequest").await;
    problem(&world, "{\"using\":[\"urn:x\"],\"methodCalls\":[]}", 400, "unknownCapability").await;
    let call = r#"["Core/echo",{},"c"]"#;
    let many = |count: usize| format!(r#"{{"using":[],"methodCalls":[{}]}}"#, vec![call; count].join(","));
    let limit = problem(&world, &many(100_000), 400, "limit").await["limit"].clone();
    assert_eq!(limit, "maxCallsInRequest");
    let limit = problem(&world, &" ".repeat(10_000_001), 400, "limit").await["limit"].clone();
    assert_eq!(limit, "maxSizeRequest");
    let numbers =
        format!(r#"{{"using":[],"methodCalls":[["Core/echo",{{"x":[{}0]}},"c"]]}}"#, "0,".repeat(600_000));
    let limit = problem(&world, &numbers, 400, "limit").await["limit"].clone();
    assert_eq!(limit, "maxSizeRequest");
    let client = world.client("alice");
    let plain = client.post("/jmap/api", "text/plain", b"{\"using\":[],\"methodCalls\":[]}").await;
    assert_eq!(plain.json()["type"], "urn:ietf:params:jmap:error:notJSON");
    // Nobody else has noticed.
    assert_eq!(world.client("bob").get("/.well-known/jmap").await.status, 200);
}

/// RFC 8620 §3.6.2, §3.7
#[tokio::test]
async fn calls_that_fail_leave_the_others_alone() {
    let world = World::new().await;
    let client = world.client("alice");
    let reference = |of: &str, path: &str| json!({"resultOf": of, "name": "Core/echo", "path": path});
    let body = json!({"using": USING, "methodCalls": [
        ["Nothing/get", {}, "0"],
        ["Core/echo", {"#a": reference("2", "/a")}, "1"],
        ["Core/echo", {"#a": reference("2", "/a")}, "2"],
        ["Core/echo", {"#a": reference("1", "/a")}, "3"],
        ["Email/get", {"accountId": "A1"}, "4"],
        ["Core/echo", {"hello": [1, "😀", null, {"b": false}]}, "5"],
        ["Core/echo", {"#x": reference("5", "/hello/3/b")}, "6"],
    ]});
    let answer = client.api(&body.to_string()).await.json();
    let answers = answer["methodResponses"].as_array().unwrap();
    let types: Vec<&str> = answers[..5].iter().map(|answer| answer[1]["type"].as_str().unwrap()).collect();
    let reference = "invalidResultReference";
    assert_eq!(types, ["unknownMethod", reference, reference, reference, "accountNotFound"]);
    assert_eq!(answers[5][1], json!({"hello": [1, "😀", null, {"b": false}]}));
    assert_eq!(answers[6][1], json!({"x": false}));
    // What is not said to be used is not there.
    let body = json!({"using": ["urn:ietf:params:jmap:core"], "methodCalls": [["Email/get", {}, "0"]]});
    let answer = client.api(&body.to_string()).await.json();
    assert_eq!(answer["methodResponses"][0][1]["type"], "unknownMethod");
    // Each refers twice to the one before.
    let mut calls = vec![json!(["Core/echo", {"a": "x".repeat(100_000)}, "0"])];
    for turn in 1..30 {
        let reference = json!({"resultOf": (turn - 1).to_string(), "name": "Core/echo", "path": ""});
        calls.push(json!(["Core/echo", {"#a": reference, "#b": reference}, turn.to_string()]));
    }
    let answer = client.api(&json!({"using": USING, "methodCalls": calls}).to_string()).await;
    assert!(answer.body.len() < 100 << 20);
    assert!(answer.text().contains("requestTooLarge"));
}

/// Every argument of every method, given what it is not.
#[tokio::test]
async fn wrong_types_in_every_argument() {
    let world = World::new().await;
    let client = world.client("alice");
    let get = ["accountId", "ids", "properties"];
    let changes = ["accountId", "sinceState", "maxChanges"];
    let query =
        ["accountId", "filter", "sort", "position", "anchor", "anchorOffset", "limit", "calculateTotal"];
    let query_changes =
        ["accountId", "filter", "sort", "sinceQueryState", "maxChanges", "upToId", "calculateTotal"];
    let bodies = [
        "bodyProperties",
        "fetchTextBodyValues",
        "fetchHTMLBodyValues",
        "fetchAllBodyValues",
        "maxBodyValueBytes",
    ];
    let join = |first: &[&'static str], more: &[&'static str]| [first, more].concat();
    let methods: Vec<(&str, Vec<&str>)> = vec![
        ("Mailbox/get", get.to_vec()),
        ("Mailbox/changes", changes.to_vec()),
        ("Mailbox/query", join(&query, &["sortAsTree", "filterAsTree"])),
        ("Mailbox/queryChanges", query_changes.to_vec()),
        ("Thread/get", get.to_vec()),
        ("Thread/changes", changes.to_vec()),
        ("Email/get", join(&get, &bodies)),
        ("Email/changes", changes.to_vec()),
        ("Email/query", join(&query, &["collapseThreads"])),
        ("Email/queryChanges", join(&query_changes, &["collapseThreads"])),
        ("Email/parse", join(&["accountId", "blobIds", "properties"], &bodies)),
        ("Quota/get", get.to_vec()),
        ("Quota/changes", changes.to_vec()),
        ("Quota/query", query.to_vec()),
        ("Quota/queryChanges", query_changes.to_vec()),
        ("Blob/upload", vec!["accountId", "create"]),
        ("Blob/get", join(&get, &["offset", "length"])),
        ("Blob/lookup", vec!["accountId", "typeNames", "ids"]),
        ("SearchSnippet/get", vec!["accountId", "filter", "emailIds"]),
        (
            "Mailbox/set",
            vec!["accountId", "ifInState", "create", "update", "destroy", "onDestroyRemoveEmails"],
        ),
        ("Email/set", vec!["accountId", "ifInState", "create", "update", "destroy"]),
        ("Email/import", vec!["accountId", "ifInState", "emails"]),
        (
            "Email/copy",
            vec![
                "accountId",
                "fromAccountId",
                "ifFromInState",
                "ifInState",
                "create",
                "onSuccessDestroyOriginal",
                "destroyFromIfInState",
            ],
        ),
    ];
    let needed = json!({"typeNames": [], "sinceState": "0", "sinceQueryState": "0", "blobIds": [], "emailIds": [], "fromAccountId": "A1"});
    let wrong = [json!([[1]]), json!({"x": {"y": 1}}), json!(-1.5), json!("\u{0} \u{1f600}")];
    let mut count = 0;
    for (method, arguments) in methods {
        let mut whole = json!({});
        for name in &arguments {
            if let Some(value) = needed.get(name) {
                whole[name] = value.clone();
            }
        }
        for name in &arguments {
            for value in &wrong {
                let mut arguments = whole.clone();
                arguments[name] = value.clone();
                let (answered, answer) = client.calls(&[(method, arguments)]).await.remove(0);
                let is_text = matches!(*name, "sinceState" | "sinceQueryState") && value.is_string();
                let is_filter = *name == "filter" && value.is_object();
                // These are records, and what is wrong is said of each.
                let is_records = matches!(*name, "create" | "update" | "emails") && value.is_object();
                let is_state = name.contains("InState") && value.is_string();
                match answer["type"].as_str() {
                    None if is_records => {}
                    Some("fromAccountNotFound") if is_records || is_state => {}
                    Some("stateMismatch") if is_state => {}
                    Some("cannotCalculateChanges") if is_text => {}
                    Some("unsupportedFilter") if is_filter => {}
                    Some("invalidArguments") => {
                        let description = answer["description"].as_str().unwrap();
                        assert!(description.contains(name), "{method} {name} {value}: {description}");
                    }
                    _ => panic!("{method} {name} {value}: {answered} {answer}"),
                }
                count += 1;
            }
        }
        let mut arguments = whole.clone();
        arguments["unheardOf"] = json!(1);
        assert_eq!(client.refused(method, arguments).await.0, "invalidArguments", "{method}");
    }
    assert!(count > 300, "{count}");
}

/// Another's ids are the same as none.
#[tokio::test]
async fn nobody_reaches_another_account() {
    let world = World::new().await;
    world.put("bob", "INBOX", &[], "Subject: secret\n\nsecret\n").await;
    world.put("bob", "INBOX", &[], "Subject: secret\n\nsecret\n").await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let theirs = bob.account_id().await;
    for method in [
        "Mailbox/get",
        "Mailbox/changes",
        "Mailbox/query",
        "Mailbox/queryChanges",
        "Thread/get",
        "Thread/changes",
        "Email/get",
        "Email/changes",
        "Email/query",
        "Email/queryChanges",
        "Email/parse",
        "SearchSnippet/get",
        "Mailbox/set",
        "Email/set",
        "Email/import",
        "Quota/get",
        "Quota/changes",
        "Quota/query",
        "Quota/queryChanges",
        "Blob/upload",
        "Blob/get",
        "Blob/lookup",
    ] {
        let (kind, _) = alice.refused(method, json!({"accountId": theirs})).await;
        assert_eq!(kind, "accountNotFound", "{method}");
    }
    let answer = alice.call("Email/get", json!({"ids": ["E1", "E2"]})).await;
    assert_eq!(answer["notFound"], json!(["E1", "E2"]));
    let answer = alice.call("Thread/get", json!({"ids": ["T1"]})).await;
    assert_eq!(answer["notFound"], json!(["T1"]));
    let answer = alice.call("Email/parse", json!({"blobIds": ["G1"]})).await;
    assert_eq!(answer["notFound"], json!(["G1"]));
    let answer =
        alice.call("Email/set", json!({"update": {"E1": {"keywords/$seen": true}}, "destroy": ["E2"]})).await;
    assert_eq!((&answer["updated"], &answer["destroyed"]), (&Value::Null, &Value::Null));
    let import = json!({"emails": {"k": {"blobId": "G1", "mailboxIds": {"M1": true}}}});
    assert_eq!(alice.call("Email/import", import).await["notCreated"]["k"]["type"], "blobNotFound");
    assert_eq!(bob.get(&format!("/jmap/download/{theirs}/G1/x")).await.status, 200);
    assert_eq!(alice.get(&format!("/jmap/download/{theirs}/G1/x")).await.status, 404);
    let own = alice.account_id().await;
    assert_eq!(alice.get(&format!("/jmap/download/{own}/G1/x")).await.status, 404);
}

#[tokio::test]
async fn answers_have_a_bound() {
    let config = Config { account_passwords: true, response_bytes_max: 50_000, ..Config::default() };
    let world = World::with(config).await;
    let body = "x".repeat(20_000);
    for _ in 0..5 {
        world.put("alice", "INBOX", &[], &format!("Subject: a\n\n{body}\n")).await;
    }
    let client = world.client("alice");
    let arguments =
        |ids: Value| json!({"ids": ids, "properties": ["bodyValues"], "fetchAllBodyValues": true});
    assert_eq!(client.refused("Email/get", arguments(json!(["E1", "E2", "E3"]))).await.0, "requestTooLarge");
    client.call("Email/get", arguments(json!(["E1", "E2"]))).await;
}

#[tokio::test]
async fn pages_of_others_get_nothing() {
    let config = Config {
        account_passwords: true,
        cors_origins: vec!["https://webmail.example.test".to_owned()],
        ..Config::default()
    };
    let world = World::with(config).await;
    let client = world.client("alice");
    let ask = async |method: &str, origin: &str| {
        client.send(method, "/.well-known/jmap", &[("Origin", origin)], b"").await
    };
    let answer = ask("GET", "https://evil.example").await;
    assert_eq!(answer.status, 403);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert_eq!(ask("GET", "https://jmap.example.test").await.status, 200);
    let answer = ask("GET", "https://webmail.example.test").await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://webmail.example.test");
    let answer = client
        .send(
            "OPTIONS",
            "/jmap/api",
            &[("Origin", "https://webmail.example.test"), ("Authorization", "")],
            b"",
        )
        .await;
    assert_eq!(answer.status, 204);
    assert!(answer.headers["access-control-allow-headers"].contains("Authorization"));
}

#[tokio::test]
async fn a_request_that_stops_in_the_middle() {
    let config = Config { account_passwords: true, request_seconds_max: 1, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let mut stream = client.connect().await;
    let head = client.head("POST", "/jmap/api", &[("Content-Type", "application/json")]);
    stream.write_all(format!("{head}Content-Length: 1000\r\n\r\n{{\"using\"").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(read(&mut stream).await.status, 408);
    world.shutdown.begin();
}
