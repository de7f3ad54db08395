//! What clients change: mailboxes, keywords, uploads, new messages; and how others hear of it.

use serde_json::{Value, json};

use crate::http::Client;
use crate::world::World;

/// One change of a /set, with what became of it under `member`.
async fn set(client: &Client<'_>, method: &str, arguments: Value) -> Value {
    client.call(method, arguments).await
}

fn kind(answer: &Value, member: &str, id: &str) -> String {
    answer[member][id]["type"].as_str().unwrap_or_else(|| panic!("{member}/{id}: {answer}")).to_owned()
}

/// RFC 8621 §2.5
#[tokio::test]
async fn mailboxes() {
    let world = World::new().await;
    let client = world.client("alice");
    let create = json!({"create": {
        "b": {"name": "Below", "parentId": "#a", "isSubscribed": true},
        "a": {"name": "Above", "sortOrder": 7},
        "x": {"name": "Above"},
        "y": {"name": "a/b"},
        "z": {"name": "Z", "parentId": "#nothing"},
        "r": {"name": "R", "role": "inbox"},
        "w": {"name": "W", "totalEmails": 5},
    }});
    let answer = set(&client, "Mailbox/set", create).await;
    let above = answer["created"]["a"]["id"].as_str().unwrap().to_owned();
    let below = answer["created"]["b"]["id"].as_str().unwrap().to_owned();
    assert_eq!(answer["created"]["a"]["totalEmails"], 0);
    assert!(answer["created"]["a"].get("name").is_none());
    for (id, property) in
        [("x", "name"), ("y", "name"), ("z", "parentId"), ("r", "role"), ("w", "totalEmails")]
    {
        assert_eq!(kind(&answer, "notCreated", id), "invalidProperties", "{answer}");
        assert_eq!(answer["notCreated"][id]["properties"], json!([property]));
    }
    let get = async |id: &str| client.call("Mailbox/get", json!({"ids": [id]})).await["list"][0].clone();
    let shown = get(&below).await;
    assert_eq!((&shown["parentId"], &shown["isSubscribed"]), (&json!(above), &json!(true)));
    assert_eq!(get(&above).await["sortOrder"], 7);

    let answer =
        set(&client, "Mailbox/set", json!({"destroy": [above], "update": {"M1": {"name": "Eingang"}}})).await;
    assert_eq!(kind(&answer, "notDestroyed", &above), "mailboxHasChild");
    assert_eq!(kind(&answer, "notUpdated", "M1"), "forbidden");
    let mut update = json!({});
    update[&below] = json!({"parentId": null, "name": "Käse", "role": null, "totalEmails": 0});
    update[&above] = json!({"parentId": above});
    update["M99"] = json!({"name": "x"});
    let answer = set(&client, "Mailbox/set", json!({"update": update})).await;
    assert!(answer["updated"].get(&below).is_some(), "{answer}");
    assert_eq!(kind(&answer, "notUpdated", "M99"), "notFound");
    assert!(answer["notUpdated"].get(&above).is_some());
    let shown = get(&below).await;
    assert_eq!((&shown["parentId"], &shown["name"]), (&Value::Null, &json!("Käse")));

    world.put("alice", "Käse", &[], "Subject: x\n\nx\n").await;
    let answer = set(&client, "Mailbox/set", json!({"destroy": [below, "M1", above]})).await;
    assert_eq!(kind(&answer, "notDestroyed", &below), "mailboxHasEmail");
    assert_eq!(kind(&answer, "notDestroyed", "M1"), "forbidden");
    assert_eq!(answer["destroyed"], json!([above]));
    let answer =
        set(&client, "Mailbox/set", json!({"destroy": [below], "onDestroyRemoveEmails": true})).await;
    assert_eq!(answer["destroyed"], json!([below]));
    assert_eq!(client.call("Email/query", json!({})).await["ids"], json!([]));
    assert_eq!(client.refused("Mailbox/set", json!({"ifInState": "0"})).await.0, "stateMismatch");
    assert_eq!(client.refused("Mailbox/set", json!({"ifInState": "x"})).await.0, "stateMismatch");
}

/// RFC 8621 §4.6, §4.3, §2.2
#[tokio::test]
async fn keywords_and_mailboxes_of_emails() {
    let world = World::new().await;
    for number in 1..=3 {
        world
            .put("alice", "INBOX", &[], &format!("Subject: {number}\nMessage-ID: <{number}@x>\n\nx\n"))
            .await;
    }
    let client = world.client("alice");
    let get = async |id: &str| {
        let properties = json!(["keywords", "mailboxIds"]);
        client.call("Email/get", json!({"ids": [id], "properties": properties})).await["list"][0].clone()
    };
    let before = client.call("Email/get", json!({"ids": []})).await["state"].clone();
    let mailboxes = client.call("Mailbox/get", json!({"ids": []})).await["state"].clone();
    let answer = set(
        &client,
        "Email/set",
        json!({"ifInState": before, "update": {
            "E1": {"keywords/$seen": true, "keywords/Work": true},
            "E2": {"keywords": {"$flagged": true}, "mailboxIds": {"M1": true, "M6": true}},
            "E9": {"keywords/$seen": true},
        }}),
    )
    .await;
    assert_eq!(answer["updated"], json!({"E1": null, "E2": null}));
    assert_eq!(kind(&answer, "notUpdated", "E9"), "notFound");
    assert_eq!(answer["oldState"], before);
    assert_ne!(answer["newState"], before);
    assert_eq!(get("E1").await["keywords"], json!({"$seen": true, "work": true}));
    assert_eq!(get("E2").await["mailboxIds"], json!({"M1": true, "M6": true}));
    // IMAP sees the same.
    let state = world.account("alice").await.mailbox(mail::id::MailboxId(6)).await.unwrap();
    assert_eq!(state.index(mail::id::MailboxId(6)).unwrap().len(), 1);

    let changes = client.call("Email/changes", json!({"sinceState": before})).await;
    assert_eq!((&changes["created"], &changes["destroyed"]), (&json!([]), &json!([])));
    assert_eq!(changes["updated"], json!(["E1", "E2"]));
    assert_eq!(changes["newState"], answer["newState"]);
    let changes = client.call("Mailbox/changes", json!({"sinceState": mailboxes})).await;
    assert_eq!(changes["updated"], json!(["M1", "M6"]));
    assert_eq!(
        changes["updatedProperties"],
        json!(["totalEmails", "unreadEmails", "totalThreads", "unreadThreads"])
    );

    for (patch, error) in [
        (json!({"keywords/$seen": false}), "invalidProperties"),
        (json!({"keywords/a b": true}), "invalidProperties"),
        (json!({"keywords": ["$seen"]}), "invalidProperties"),
        (json!({"keywords": {}, "keywords/$seen": true}), "invalidPatch"),
        (json!({"nothing/x": true}), "invalidPatch"),
        (json!({"mailboxIds": {}}), "invalidProperties"),
        (json!({"mailboxIds": {"M99": true}}), "invalidProperties"),
        (json!({"mailboxIds/M1": null}), "invalidProperties"),
        (json!({"subject": "x"}), "invalidProperties"),
        (json!({"size": 5}), "invalidProperties"),
    ] {
        let answer = set(&client, "Email/set", json!({"update": {"E3": patch}})).await;
        assert_eq!(kind(&answer, "notUpdated", "E3"), error, "{patch}");
    }
    let moved = json!({"mailboxIds/M1": null, "mailboxIds/M5": true, "id": "E3"});
    assert!(set(&client, "Email/set", json!({"update": {"E3": moved}})).await["notUpdated"].is_null());
    assert_eq!(get("E3").await["mailboxIds"], json!({"M5": true}));

    let state = client.call("Email/get", json!({"ids": []})).await["state"].clone();
    let threads = client.call("Thread/get", json!({"ids": []})).await["state"].clone();
    let answer = set(&client, "Email/set", json!({"destroy": ["E2", "E9", "x"]})).await;
    assert_eq!(answer["destroyed"], json!(["E2"]));
    assert_eq!(kind(&answer, "notDestroyed", "E9"), "notFound");
    let changes = client.call("Email/changes", json!({"sinceState": state})).await;
    assert_eq!(changes["destroyed"], json!(["E2"]));
    let changes = client.call("Thread/changes", json!({"sinceState": threads})).await;
    assert_eq!(changes["destroyed"].as_array().unwrap().len(), 1);
    assert_eq!(client.refused("Email/set", json!({"ifInState": before})).await.0, "stateMismatch");
    // A query that has not changed says so; one that has does not know how.
    let query = client.call("Email/query", json!({})).await["queryState"].clone();
    let answer = client.call("Email/queryChanges", json!({"sinceQueryState": query})).await;
    assert_eq!((&answer["removed"], &answer["added"]), (&json!([]), &json!([])));
    let (error, _) = client.refused("Email/queryChanges", json!({"sinceQueryState": before})).await;
    assert_eq!(error, "cannotCalculateChanges");
    let (error, _) = client.refused("Email/changes", json!({"sinceState": "999999"})).await;
    assert_eq!(error, "cannotCalculateChanges");
}

/// RFC 8620 §6, RFC 8621 §4.8
#[tokio::test]
async fn uploads_and_imports() {
    let world = World::new().await;
    let client = world.client("alice");
    let account = client.account_id().await;
    let message = b"From: a@b\r\nSubject: imported\r\n\r\ntext\r\n";
    let upload =
        async |bytes: &[u8]| client.post(&format!("/jmap/upload/{account}"), "message/rfc822", bytes).await;
    let answer = upload(message).await;
    assert_eq!(answer.status, 201);
    let told = answer.json();
    assert_eq!(told["size"], message.len());
    assert_eq!((&told["type"], &told["accountId"]), (&json!("message/rfc822"), &json!(account)));
    let blob = told["blobId"].as_str().unwrap();
    let back = client.get(&format!("/jmap/download/{account}/{blob}/x?accept=text/plain")).await;
    assert_eq!(back.body, message);
    let picture = upload(&[0, 1, 2, 255]).await.json()["blobId"].clone();
    let other = world.client("bob");
    let theirs = other.account_id().await;
    assert_eq!(other.post(&format!("/jmap/upload/{account}"), "text/plain", b"x").await.status, 404);
    assert_eq!(other.get(&format!("/jmap/download/{theirs}/{blob}/x")).await.status, 404);

    let one = |blob: &Value| {
        json!({"blobId": blob, "mailboxIds": {"M1": true, "M6": true},
        "keywords": {"$seen": true}, "receivedAt": "2014-10-30T06:12:00Z"})
    };
    let emails = json!({"k1": one(&json!(blob)), "k2": one(&picture), "k3": one(&json!("U99")),
        "k4": {"blobId": blob, "mailboxIds": {}}, "k5": {"blobId": blob, "mailboxIds": {"M99": true}}});
    let answer = client.call("Email/import", json!({"emails": emails})).await;
    let id = answer["created"]["k1"]["id"].as_str().unwrap();
    assert_eq!(answer["created"]["k1"]["size"], message.len());
    assert_eq!(kind(&answer, "notCreated", "k2"), "invalidEmail");
    assert_eq!(kind(&answer, "notCreated", "k3"), "blobNotFound");
    assert_eq!(kind(&answer, "notCreated", "k4"), "invalidProperties");
    assert_eq!(kind(&answer, "notCreated", "k5"), "invalidProperties");
    let email = client.call("Email/get", json!({"ids": [id]})).await["list"][0].clone();
    assert_eq!(email["mailboxIds"], json!({"M1": true, "M6": true}));
    assert_eq!(
        (&email["subject"], &email["receivedAt"]),
        (&json!("imported"), &json!("2014-10-30T06:12:00Z"))
    );
    let parsed = client.call("Email/parse", json!({"blobIds": [blob], "properties": ["subject"]})).await;
    assert_eq!(parsed["parsed"][blob]["subject"], "imported");
    assert_eq!(
        client.refused("Email/copy", json!({"fromAccountId": account, "create": {}})).await.0,
        "invalidArguments"
    );
    assert_eq!(
        client.refused("Email/copy", json!({"fromAccountId": theirs, "create": {}})).await.0,
        "fromAccountNotFound"
    );
}

/// RFC 8621 §4.6
#[tokio::test]
async fn a_message_is_written() {
    let world = World::new().await;
    let client = world.client("alice");
    let account = client.account_id().await;
    let picture: Vec<u8> = (0..=255).collect();
    let blob =
        client.post(&format!("/jmap/upload/{account}"), "image/png", &picture).await.json()["blobId"].clone();
    let draft = json!({
        "mailboxIds": {"M2": true}, "keywords": {"$draft": true, "$seen": true},
        "from": [{"name": "Älice", "email": "alice@example.test"}],
        "to": [{"name": "Bob \"B\"", "email": "bob@example.test"}, {"email": "carol@example.test"}],
        "subject": "Grüße aus dem Süden, mit einem langen Betreff, der umgebrochen wird", "inReplyTo": ["1@x"],
        "header:X-Own": "as it is",
        "bodyValues": {"t": {"value": "Käse\n.\nFrom here\nlong ".to_owned() + &"x".repeat(200)}, "h": {"value": "<p>Käse</p>"}},
        "textBody": [{"partId": "t", "type": "text/plain"}], "htmlBody": [{"partId": "h", "type": "text/html"}],
        "attachments": [{"blobId": blob, "type": "image/png", "name": "bild ä.png", "disposition": "attachment"},
            {"blobId": blob, "type": "image/png", "cid": "pic@x", "disposition": "inline"}],
    });
    let answer = set(&client, "Email/set", json!({"create": {"d": draft}})).await;
    let id = answer["created"]["d"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let arguments = json!({"ids": [id], "fetchAllBodyValues": true, "properties": ["subject", "from", "to", "keywords",
        "textBody", "htmlBody", "attachments", "bodyValues", "messageId", "inReplyTo", "sentAt", "header:X-Own:asText",
        "bodyStructure"]});
    let email = client.call("Email/get", arguments).await["list"][0].clone();
    for name in ["subject", "from", "keywords", "inReplyTo"] {
        assert_eq!(email[name], draft[name], "{name}");
    }
    assert_eq!(email["to"][0]["name"], "Bob \"B\"");
    assert_eq!(email["header:X-Own:asText"], "as it is");
    assert!(
        email["messageId"][0].as_str().unwrap().ends_with("@example.test") && email["sentAt"].is_string()
    );
    let value = |list: &str| {
        let part = email[list][0]["partId"].as_str().unwrap();
        email["bodyValues"][part]["value"].clone()
    };
    assert_eq!(value("textBody"), draft["bodyValues"]["t"]["value"]);
    assert_eq!(value("htmlBody"), "<p>Käse</p>");
    let names: Vec<&Value> =
        email["attachments"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
    assert!(names.contains(&&json!("bild ä.png")), "{names:?}");
    for part in email["attachments"].as_array().unwrap() {
        let blob = part["blobId"].as_str().unwrap();
        let answer = client.get(&format!("/jmap/download/{account}/{blob}/x")).await;
        assert_eq!(answer.body, picture);
        assert_eq!(part["size"], 256);
    }
    let structure = &email["bodyStructure"];
    assert_eq!(structure["type"], "multipart/mixed");
    assert_eq!(structure["subParts"][0]["type"], "multipart/alternative");
    assert_eq!(structure["subParts"][0]["subParts"][1]["type"], "multipart/related");

    // By its structure; and made and used in one request.
    let structure = json!({"type": "multipart/digest", "subParts": [{"partId": "1"}, {"partId": "2", "type": "text/html"}]});
    let created = json!({"create": {"n": {"mailboxIds": {"M1": true}, "bodyStructure": structure,
        "bodyValues": {"1": {"value": "one"}, "2": {"value": "two"}}}}});
    let answers = client
        .calls(&[("Email/set", created), ("Email/set", json!({"update": {"#n": {"keywords/$seen": true}}}))])
        .await;
    let id = answers[0].1["created"]["n"]["id"].as_str().unwrap();
    assert_eq!(answers[1].1["updated"], json!({id: null}));

    let whole = json!({"mailboxIds": {"M1": true}});
    for (more, error) in [
        (json!({"mailboxIds": {}}), "invalidProperties"),
        (json!({"mailboxIds": {"M99": true}}), "invalidProperties"),
        (json!({"headers": []}), "invalidProperties"),
        (json!({"header:Content-Type": "text/plain"}), "invalidProperties"),
        (json!({"subject": "a", "header:subject:asText": "b"}), "invalidProperties"),
        (json!({"header:From:asText": "a"}), "invalidProperties"),
        (json!({"header:X": "a\r\nBcc: b"}), "invalidProperties"),
        (json!({"from": [{"email": "a@b\r\nBcc: c@d"}]}), "invalidProperties"),
        (json!({"textBody": []}), "invalidProperties"),
        (json!({"textBody": [{"partId": "x", "type": "text/plain"}]}), "invalidProperties"),
        (
            json!({"textBody": [{"partId": "1", "type": "text/html"}], "bodyValues": {"1": {"value": ""}}}),
            "invalidProperties",
        ),
        (json!({"bodyValues": {"1": {"value": "", "isTruncated": true}}}), "invalidProperties"),
        (json!({"attachments": [{"blobId": "U99", "type": "a/b"}]}), "blobNotFound"),
        (json!({"attachments": [{"blobId": blob, "type": "a/b\r\nX: y"}]}), "invalidProperties"),
        (json!({"attachments": [{"blobId": blob, "partId": "1"}]}), "invalidProperties"),
        (
            json!({"attachments": [{"blobId": blob, "header:Content-Transfer-Encoding": "7bit"}]}),
            "invalidProperties",
        ),
        (json!({"size": 5}), "invalidProperties"),
        (json!({"receivedAt": "yesterday"}), "invalidProperties"),
    ] {
        let mut draft = whole.clone();
        draft.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = set(&client, "Email/set", json!({"create": {"d": draft}})).await;
        assert_eq!(kind(&answer, "notCreated", "d"), error, "{more}");
    }
}
