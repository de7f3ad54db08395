//! Blobs within requests (RFC 9404).

use serde_json::{Value, json};
use webmail_api::jmap::Config;

use crate::world::World;

const FOX: &str = "The quick brown fox jumped over the lazy dog.";

/// RFC 9404 §4.1, with the example of its end.
#[tokio::test]
async fn uploads_of_pieces() {
    let config = Config { account_passwords: true, upload_bytes_max: 100, ..Config::default() };
    let world = World::with(config.clone()).await;
    let client = world.client("alice");
    let account = client.account_id().await;
    let session = client.session().await;
    let capability = &session["accounts"][&account]["accountCapabilities"]["urn:ietf:params:jmap:blob"];
    assert_eq!(capability["maxSizeBlobSet"], 100);
    assert_eq!(capability["maxDataSources"], config.blob_sources_max);
    assert_eq!(capability["supportedTypeNames"], json!(["Email", "Mailbox", "Thread"]));
    assert_eq!(capability["supportedDigestAlgorithms"], json!(["sha-256", "sha"]));
    assert_eq!(session["capabilities"]["urn:ietf:params:jmap:blob"], json!({}));
    let answers = client
        .calls(&[
            ("Blob/upload", json!({"create": {"b4": {"data": [{"data:asText": FOX}]}}})),
            (
                "Blob/upload",
                json!({"create": {"cat": {"type": "text/plain", "data": [
                    {"data:asText": "How"},
                    {"blobId": "#b4", "length": 7, "offset": 3},
                    {"data:asText": "was t"},
                    {"blobId": "#b4", "length": 1, "offset": 1},
                    {"data:asBase64": "YXQ/"}]}}}),
            ),
        ])
        .await;
    let first = &answers[0].1["created"]["b4"];
    assert_eq!((&first["size"], &first["type"]), (&json!(FOX.len()), &json!("application/octet-stream")));
    assert_eq!(answers[0].1["notCreated"], Value::Null);
    let second = &answers[1].1["created"]["cat"];
    assert_eq!((&second["size"], &second["type"]), (&json!(19), &json!("text/plain")));
    let blob = second["id"].as_str().unwrap();
    let answer = client.get(&format!("/jmap/download/{account}/{blob}/x")).await;
    assert_eq!(answer.text(), "How quick was that?");
    // Whatever their order, each finds those that it refers to; those in a circle find nothing.
    let create = json!({"a": {"data": [{"blobId": "#b"}, {"blobId": "#b"}]}, "b": {"data": [{"blobId": "#c"}]},
        "c": {"data": [{"data:asText": "x"}]}, "d": {"data": [{"blobId": "#e"}]}, "e": {"data": [{"blobId": "#d"}]},
        "f": {"data": []}});
    let answer = client.call("Blob/upload", json!({"create": create})).await;
    assert_eq!((&answer["created"]["a"]["size"], &answer["created"]["f"]["size"]), (&json!(2), &json!(0)));
    for key in ["d", "e"] {
        assert_eq!(answer["notCreated"][key]["type"], "blobNotFound", "{answer}");
    }
    let upload = json!({"blobId": blob, "offset": 4});
    let sixty_five = vec![json!({"data:asText": "x"}); 65];
    for (data, expected) in [
        (json!([{"blobId": blob, "offset": 19}]), None),
        (json!([{"blobId": blob, "offset": 20}]), Some("invalidProperties")),
        (json!([{"blobId": blob, "offset": 4, "length": 16}]), Some("invalidProperties")),
        (
            json!([{"blobId": blob, "offset": 1, "length": 9_007_199_254_740_991_u64}]),
            Some("invalidProperties"),
        ),
        (json!([{"blobId": "U99"}]), Some("blobNotFound")),
        (json!([{"blobId": "#nothing"}]), Some("blobNotFound")),
        (json!([{"blobId": "x"}]), Some("blobNotFound")),
        (json!([{"data:asText": "x".repeat(101)}]), Some("tooLarge")),
        (json!(vec![upload; 7]), Some("tooLarge")),
        (json!(sixty_five), Some("invalidProperties")),
        (json!([{"data:asBase64": "!"}]), Some("invalidProperties")),
        (json!([{"data:asBase64": "AA==", "data:asText": "x"}]), Some("invalidProperties")),
        (json!([{}]), Some("invalidProperties")),
        (json!("x"), Some("invalidProperties")),
    ] {
        let answer = client.call("Blob/upload", json!({"create": {"k": {"data": data}}})).await;
        assert_eq!(answer["notCreated"]["k"]["type"].as_str(), expected, "{data}: {answer}");
    }
    let many: serde_json::Map<String, Value> =
        (0..1001).map(|at| (format!("k{at}"), json!({"data": []}))).collect();
    assert_eq!(client.refused("Blob/upload", json!({"create": many})).await.0, "requestTooLarge");
    // It becomes an email like any upload.
    let text = "Subject: made here\n\nof pieces\n".replace('\n', "\r\n");
    let answers =
        client.calls(&[("Blob/upload", json!({"create": {"m": {"data": [{"data:asText": text}]}}}))]).await;
    let made = &answers[0].1["created"]["m"]["id"];
    let import = json!({"emails": {"k": {"blobId": made, "mailboxIds": {"M1": true}}}});
    assert_eq!(client.call("Email/import", import).await["created"]["k"]["id"], "E1");
}

/// The account holds so many uploads.
#[tokio::test]
async fn too_many_uploads() {
    let world = World::new().await;
    let client = world.client("alice");
    let most = world.storage.config().uploads_max;
    let mut refused = 0;
    for round in 0..=most / 500 {
        let create: serde_json::Map<String, Value> = (0..500)
            .map(|at| (format!("k{at}"), json!({"data": [{"data:asText": format!("{round} {at}")}]})))
            .collect();
        let answer = client.call("Blob/upload", json!({"create": create})).await;
        if let Some(not_created) = answer["notCreated"].as_object() {
            assert!(not_created.values().all(|error| error["type"] == "overQuota"), "{answer}");
            refused += not_created.len();
        }
    }
    assert!(refused > 0);
}

/// RFC 9404 §4.2
#[tokio::test]
async fn blobs_in_pieces() {
    let world = World::new().await;
    let client = world.client("alice");
    let create = json!({"text": {"data": [{"data:asText": FOX}]},
        "octets": {"data": [{"data:asBase64": "VGhlIIGBIGRvZy4="}]}});
    let created = client.call("Blob/upload", json!({"create": create})).await["created"].clone();
    let (text, octets) = (created["text"]["id"].clone(), created["octets"]["id"].clone());
    let get = async |id: &Value, properties: Value, offset: Value, length: Value| {
        let arguments = json!({"ids": [id], "properties": properties, "offset": offset, "length": length});
        client.call("Blob/get", arguments).await["list"][0].clone()
    };
    let none = Value::Null;
    let all = get(&text, none.clone(), none.clone(), none.clone()).await;
    assert_eq!(all, json!({"id": text, "data:asText": FOX, "size": 45}));
    let part = get(&text, none.clone(), json!(4), json!(9)).await;
    assert_eq!(part, json!({"id": text, "data:asText": "quick bro", "size": 45}));
    let part = get(&text, json!(["data:asText"]), json!(40), json!(99)).await;
    assert_eq!(part, json!({"id": text, "data:asText": " dog.", "isTruncated": true}));
    let part = get(&text, json!(["data:asText", "data:asBase64"]), json!(45), none.clone()).await;
    assert_eq!(part, json!({"id": text, "data:asText": "", "data:asBase64": ""}));
    let part = get(&text, json!(["data"]), json!(46), none.clone()).await;
    assert_eq!(part, json!({"id": text, "data:asText": "", "isTruncated": true}));
    assert_eq!(get(&text, json!(["size"]), json!(3), json!(1)).await, json!({"id": text, "size": 45}));
    assert_eq!(get(&text, json!([]), none.clone(), none.clone()).await, json!({"id": text}));
    let base64 = "VGhlIIGBIGRvZy4=";
    let shown = get(&octets, none.clone(), none.clone(), none.clone()).await;
    assert_eq!(shown, json!({"id": octets, "data:asBase64": base64, "size": 11, "isEncodingProblem": true}));
    let shown = get(&octets, json!(["data:asText"]), none.clone(), none.clone()).await;
    assert_eq!(shown, json!({"id": octets, "data:asText": null, "isEncodingProblem": true}));
    let shown = get(&octets, json!(["data:asBase64"]), none.clone(), none.clone()).await;
    assert_eq!(shown, json!({"id": octets, "data:asBase64": base64}));
    // What is asked for may be text though the whole is none.
    let shown = get(&octets, json!(["data"]), json!(0), json!(4)).await;
    assert_eq!(shown, json!({"id": octets, "data:asText": "The "}));
    // `printf … | openssl dgst -binary | base64`, of the whole and of a part.
    let digests = json!(["digest:sha", "digest:sha-256"]);
    let shown = get(&text, digests.clone(), none.clone(), none.clone()).await;
    assert_eq!(shown["digest:sha"], "wIVPufsDxBzOOALLDSIFKebu+U4=");
    let part = get(&text, digests, json!(4), json!(5)).await;
    assert_eq!(shown["digest:sha-256"], "aLEoK5HeLAVMNmKcuN1EfxLwltPjxYeXjcIkhERjNIM=");
    assert_eq!(part["digest:sha-256"], "IscqqCznfILiymWnEceeqktRxX+F+RSJzurMezhZQ7o=");
    assert_eq!(
        client.refused("Blob/get", json!({"ids": [text], "properties": ["digest:md5"]})).await.0,
        "invalidArguments"
    );
    assert_eq!(client.refused("Blob/get", json!({"ids": null})).await.0, "invalidArguments");
    // Parts of emails, encoded or not.
    let mail = "Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nplain text\n--b\n\
        Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0xLjQK\n--b--\n";
    world.put("alice", "INBOX", &[], mail).await;
    let answer = client
        .call(
            "Blob/get",
            json!({"ids": ["G1-1", "G1-2", "G1-9", "G2", "U9999", "x", "G1-2"], "offset": 1, "length": 3}),
        )
        .await;
    let data: Vec<&Value> =
        answer["list"].as_array().unwrap().iter().map(|blob| &blob["data:asText"]).collect();
    assert_eq!(data, ["lai", "PDF"]);
    assert_eq!(answer["list"][1]["size"], 9);
    assert_eq!(answer["notFound"], json!(["G1-9", "G2", "U9999", "x"]));
}

#[tokio::test]
async fn answers_have_a_bound() {
    let config = Config { account_passwords: true, response_bytes_max: 10_000, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let create = json!({"k": {"data": [{"data:asText": "x".repeat(9_000)}]}});
    let id = client.call("Blob/upload", json!({"create": create})).await["created"]["k"]["id"].clone();
    let ask = |properties: Value| json!({"ids": [id], "properties": properties});
    client.call("Blob/get", ask(json!(["data:asText"]))).await;
    let refused = client.refused("Blob/get", ask(json!(["data:asText", "data:asBase64"]))).await;
    assert_eq!(refused.0, "requestTooLarge");
    client.call("Blob/get", ask(json!(["digest:sha-256", "size"]))).await;
}

/// RFC 9404 §4.3
#[tokio::test]
async fn what_blobs_belong_to() {
    let world = World::new().await;
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    world.put("bob", "INBOX", &[], "Subject: x\n\nx\n").await;
    world.put("bob", "INBOX", &[], "Subject: y\n\ny\n").await;
    let client = world.client("alice");
    client.call("Email/set", json!({"update": {"E1": {"mailboxIds/M6": true}}})).await;
    let created = client.call("Blob/upload", json!({"create": {"k": {"data": []}}})).await["created"].clone();
    let upload = &created["k"]["id"];
    let arguments = json!({"typeNames": ["Mailbox", "Thread", "Email"], "ids": ["G1", "G1-0", upload, "G2", "nothing", "G1"]});
    let answer = client.call("Blob/lookup", arguments).await;
    let thread = client.call("Email/get", json!({"ids": ["E1"], "properties": ["threadId"]})).await;
    let whole = json!({"Mailbox": ["M1", "M6"], "Thread": [thread["list"][0]["threadId"]], "Email": ["E1"]});
    assert_eq!(answer["list"][0], json!({"id": "G1", "matchedIds": whole}));
    assert_eq!(answer["list"][1], json!({"id": "G1-0", "matchedIds": whole}));
    assert_eq!(answer["list"][2]["matchedIds"], json!({"Mailbox": [], "Thread": [], "Email": []}));
    assert_eq!(answer["notFound"], json!(["G2", "nothing"]));
    let refused = client.refused("Blob/lookup", json!({"typeNames": ["Email", "Contact"], "ids": []})).await;
    assert_eq!(refused.0, "unknownDataType");
    let calls = json!([["Blob/lookup", {"accountId": client.account_id().await, "typeNames": ["Email"], "ids": []}, "0"]]);
    let body =
        json!({"using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:blob"], "methodCalls": calls});
    let answer = client.api(&body.to_string()).await.json();
    assert_eq!(answer["methodResponses"][0][1]["type"], "unknownDataType");
    client.call("Email/set", json!({"destroy": ["E1"]})).await;
    let answer = client.call("Blob/lookup", json!({"typeNames": ["Email"], "ids": ["G1"]})).await;
    assert_eq!((&answer["list"], &answer["notFound"]), (&json!([]), &json!(["G1"])));
}

/// Nothing of another account, whatever is asked.
#[tokio::test]
async fn blobs_of_others() {
    let world = World::new().await;
    world.put("bob", "INBOX", &[], "Subject: secret\n\nsecret\n").await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let create = json!({"create": {"k": {"data": [{"data:asText": "secret"}]}}});
    let theirs = bob.call("Blob/upload", create).await["created"]["k"]["id"].clone();
    let answer = alice.call("Blob/get", json!({"ids": ["G1", theirs]})).await;
    assert_eq!((&answer["list"], &answer["notFound"]), (&json!([]), &json!(["G1", theirs])));
    let answer = alice.call("Blob/lookup", json!({"typeNames": ["Email"], "ids": ["G1", theirs]})).await;
    assert_eq!(answer["notFound"], json!(["G1", theirs]));
    for id in [json!("G1"), theirs] {
        let create = json!({"create": {"k": {"data": [{"blobId": id}]}}});
        let answer = alice.call("Blob/upload", create).await;
        assert_eq!(answer["notCreated"]["k"]["type"], "blobNotFound");
    }
}
