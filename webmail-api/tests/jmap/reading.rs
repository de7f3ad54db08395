//! From the session to the bytes of an attachment: the path of every client.

use serde_json::{Value, json};
use webmail_api::jmap::Config;

use crate::http::Client;
use crate::world::World;

const LUNCH: &str = "From: \"Jöe\" <joe@example.com>\nTo: alice@example.test, Bob <bob@example.test>\n\
Subject: =?utf-8?Q?Mittagessen_f=C3=BCr_zwei?=\nDate: Thu, 30 Oct 2014 14:12:00 +0800\n\
Message-ID: <1@example.com>\nReferences: <0@example.com>\nX-Mark: one\nX-Mark: two\n\
MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=outer\n\n\
--outer\nContent-Type: multipart/alternative; boundary=inner\n\n\
--inner\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n\
K=E4se und Brot\n--inner\nContent-Type: text/html; charset=utf-8\n\n<p>K&auml;se <b>und</b> Brot</p>\n--inner--\n\
--outer\nContent-Type: application/pdf; name=\"men\u{fc}.pdf\"\nContent-Disposition: attachment; \
filename*=utf-8''men%C3%BC.pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0xLjQKJeLjz9MK\n--outer--\n";

/// RFC 8620 §2
#[tokio::test]
async fn session() {
    let world = World::new().await;
    let client = world.client("alice");
    let session = client.session().await;
    assert_eq!(session["username"], "alice@example.test");
    assert_eq!(session["apiUrl"], "https://jmap.example.test/jmap/api");
    let core = &session["capabilities"]["urn:ietf:params:jmap:core"];
    let config = Config::default();
    assert_eq!(core["maxSizeRequest"], config.request_bytes_max);
    assert_eq!(core["maxCallsInRequest"], config.calls_max);
    assert_eq!(core["maxObjectsInGet"], config.objects_in_get_max);
    let account = client.account_id().await;
    assert_eq!(session["accounts"][&account]["isPersonal"], true);
    let mail = &session["accounts"][&account]["accountCapabilities"]["urn:ietf:params:jmap:mail"];
    assert_eq!(mail["mayCreateTopLevelMailbox"], true);
    let answer = client.get("/.well-known/jmap").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(answer.headers["cache-control"].contains("no-store"));
    let state = client.api(r#"{"using": [], "methodCalls": []}"#).await.json()["sessionState"].clone();
    assert_eq!(state, session["state"]);
}

/// RFC 8620 §1.7 and §8.2: nobody without a name, and nobody with another's password.
#[tokio::test]
async fn who_may_ask() {
    let world = World::with(Config::default()).await;
    let own = world.client("alice");
    // Without being configured so, the account's own password is not taken.
    assert_eq!(own.get("/.well-known/jmap").await.status, 401);
    let address = mail::address::Address::parse("alice@example.test").unwrap();
    let services = directory::ServiceSet::ALL;
    let secret = world.directory.create_app_password(&address, "phone", services).await.unwrap();
    let app = Client::new(&world, "alice@example.test", secret.reveal());
    assert_eq!(app.get("/.well-known/jmap").await.status, 200);
    let login = directory::PlainLogin {
        login: "alice@example.test".to_owned(),
        password: "postrider".to_owned(),
        service: directory::Service::Jmap,
    };
    let principal = world.directory.authenticate(&login, [127, 0, 0, 1].into()).await.unwrap();
    for (services, status) in [(directory::Service::Jmap, 200), (directory::Service::Imap, 401)] {
        let new = directory::NewGrant { client: "c", name: "n", services: [services].into_iter().collect() };
        let (grant, _) = world.directory.grant(&principal, new).await.unwrap();
        let token = world.directory.access_token(principal.account, &grant);
        let program = Client::new(&world, "", token.reveal());
        assert_eq!(program.get("/.well-known/jmap").await.status, status, "{services:?}");
    }
    let metadata = app.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata.json()["issuer"], "https://jmap.example.test");
    let wrong = Client::new(&world, "alice@example.test", "no");
    let answer = wrong.get("/jmap/session").await;
    assert_eq!(answer.status, 401);
    assert!(answer.headers["www-authenticate"].starts_with("Basic "));
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    for header in ["", "Basic", "Basic !!!", "Bearer abc"] {
        let answer = app.send("GET", "/jmap/session", &[("Authorization", header)], b"").await;
        assert_eq!(answer.status, 401, "{header}");
    }
    assert_eq!(app.get("/nothing").await.status, 404);
    assert_eq!(app.get("/").await.status, 200);
    // One guess after another is slowed down.
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(Client::new(&world, "bob@example.test", "no").get("/jmap/session").await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn from_the_list_of_mailboxes_to_the_bytes_of_an_attachment() {
    let world = World::new().await;
    let put = world.put("alice", "INBOX", &[], LUNCH).await;
    let client = world.client("alice");
    let reference = |of: &str, name: &str, path: &str| json!({"resultOf": of, "name": name, "path": path});
    let answers = client
        .calls(&[
            ("Mailbox/query", json!({"filter": {"role": "inbox"}})),
            ("Mailbox/get", json!({"#ids": reference("0", "Mailbox/query", "/ids")})),
            (
                "Email/query",
                json!({"filter": {"inMailbox": "M1"}, "sort": [{"property": "receivedAt", "isAscending": false}],
                       "collapseThreads": true, "position": 0, "limit": 30, "calculateTotal": true}),
            ),
            (
                "Email/get",
                json!({"#ids": reference("2", "Email/query", "/ids"), "fetchTextBodyValues": true,
                       "fetchHTMLBodyValues": true}),
            ),
            ("Thread/get", json!({"#ids": reference("3", "Email/get", "/list/*/threadId")})),
        ])
        .await;
    let inbox = &answers[1].1["list"][0];
    assert_eq!(inbox["name"], "Inbox");
    assert_eq!(inbox["role"], "inbox");
    assert_eq!(
        [&inbox["totalEmails"], &inbox["unreadEmails"], &inbox["totalThreads"], &inbox["unreadThreads"]],
        [1, 1, 1, 1]
    );
    assert_eq!(answers[2].1["total"], 1);
    let email = &answers[3].1["list"][0];
    assert_eq!(email["id"], format!("E{}", put.email));
    assert_eq!(email["mailboxIds"], json!({"M1": true}));
    assert_eq!(email["keywords"], json!({}));
    assert_eq!(email["subject"], "Mittagessen für zwei");
    assert_eq!(email["from"], json!([{"name": "Jöe", "email": "joe@example.com"}]));
    assert_eq!(email["to"][1], json!({"name": "Bob", "email": "bob@example.test"}));
    assert_eq!(email["cc"], Value::Null);
    assert_eq!(email["messageId"], json!(["1@example.com"]));
    assert_eq!(email["references"], json!(["0@example.com"]));
    assert_eq!(email["inReplyTo"], Value::Null);
    assert_eq!(email["sentAt"], "2014-10-30T14:12:00+08:00");
    assert_eq!(email["receivedAt"], "2023-11-14T22:13:20Z");
    assert_eq!(email["hasAttachment"], true);
    assert_eq!(email["preview"], "Käse und Brot");
    assert_eq!(email["size"], LUNCH.replace('\n', "\r\n").len());
    let (text, html) = (&email["textBody"][0], &email["htmlBody"][0]);
    assert_eq!((&text["type"], &text["charset"]), (&json!("text/plain"), &json!("iso-8859-1")));
    assert_eq!(text["size"], 13);
    let values = &email["bodyValues"];
    let value = json!({"value": "Käse und Brot", "isEncodingProblem": false, "isTruncated": false});
    assert_eq!(values[text["partId"].as_str().unwrap()], value);
    let value = &values[html["partId"].as_str().unwrap()]["value"];
    assert_eq!(value, "<p>K&auml;se <b>und</b> Brot</p>");
    let pdf = &email["attachments"][0];
    assert_eq!((&pdf["name"], &pdf["type"]), (&json!("menü.pdf"), &json!("application/pdf")));
    assert_eq!(pdf["disposition"], "attachment");
    assert_eq!(pdf["size"], 15);
    assert_eq!(answers[4].1["list"][0]["emailIds"], json!([email["id"]]));

    let account = client.account_id().await;
    let blob = pdf["blobId"].as_str().unwrap();
    let path = format!("/jmap/download/{account}/{blob}/men%C3%BC.pdf?accept=application/pdf");
    let answer = client.get(&path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n");
    assert_eq!(answer.headers["content-type"], "application/pdf");
    let expected = "attachment; filename=\"men_.pdf\"; filename*=UTF-8''men%C3%BC.pdf";
    assert_eq!(answer.headers["content-disposition"], expected);
    assert!(answer.headers["content-security-policy"].contains("sandbox"));
    let part = client.send("GET", &path, &[("Range", "bytes=1-3")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"PDF"[..]));
    assert_eq!(part.headers["content-range"], "bytes 1-3/15");
    assert_eq!(client.send("GET", &path, &[("Range", "bytes=99-")], b"").await.status, 416);

    let whole = email["blobId"].as_str().unwrap();
    let answer = client.get(&format!("/jmap/download/{account}/{whole}/mail.eml")).await;
    assert_eq!(answer.text(), LUNCH.replace('\n', "\r\n"));
    assert_eq!(answer.headers["content-length"], email["size"].to_string());
}

/// RFC 8621 §4.1.2, §4.1.3
#[tokio::test]
async fn properties_of_emails() {
    let world = World::new().await;
    world.put("alice", "INBOX", &["\\Seen", "\\Flagged", "Work"], LUNCH).await;
    let client = world.client("alice");
    let properties =
        ["header:X-Mark", "header:x-mark:asText:all", "header:From:asAddresses", "keywords", "bodyStructure"];
    let arguments =
        json!({"ids": ["E1", "E2", "x"], "properties": properties, "bodyProperties": ["partId", "type"]});
    let answer = client.call("Email/get", arguments).await;
    assert_eq!(answer["notFound"], json!(["E2", "x"]));
    let email = &answer["list"][0];
    assert_eq!(email["header:X-Mark"], " two");
    assert_eq!(email["header:x-mark:asText:all"], json!(["one", "two"]));
    assert_eq!(email["keywords"], json!({"$seen": true, "$flagged": true, "work": true}));
    let expected = json!({"partId": null, "type": "multipart/mixed", "subParts": [
        {"partId": null, "type": "multipart/alternative", "subParts": [
            {"partId": "2", "type": "text/plain"}, {"partId": "3", "type": "text/html"}]},
        {"partId": "4", "type": "application/pdf"}]});
    assert_eq!(email["bodyStructure"], expected);
    let names: Vec<&str> = email.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let arguments = json!({"ids": ["E1"], "properties": ["bodyValues", "headers"], "fetchAllBodyValues": true,
        "maxBodyValueBytes": 5});
    let answer = client.call("Email/get", arguments).await;
    let values = &answer["list"][0]["bodyValues"];
    assert_eq!(values["2"], json!({"value": "Käse", "isEncodingProblem": false, "isTruncated": true}));
    assert_eq!(values["3"]["value"], "<p>K");
    assert_eq!(answer["list"][0]["headers"][0]["name"], "From");
}

#[tokio::test]
async fn queries() {
    let world = World::new().await;
    let mail = |from: &str, subject: &str, id: &str, more: &str, body: &str| {
        format!(
            "From: {from}\nTo: alice@example.test\nSubject: {subject}\nMessage-ID: <{id}>\n{more}\n{body}\n"
        )
    };
    let start = 1_700_000_000;
    // E1 to E5; E2 answers E1.
    world.put_at("alice", "INBOX", &["\\Seen"], &mail("Zoe <z@x>", "Apfel", "1", "", "eins"), start).await;
    world
        .put_at(
            "alice",
            "INBOX",
            &[],
            &mail("adam@x", "Re: Apfel", "2", "References: <1>\n", "zwei Bäume"),
            start + 10,
        )
        .await;
    world
        .put_at("alice", "Archive", &["\\Flagged"], &mail("Bea <b@x>", "Birne", "3", "", "drei"), start + 20)
        .await;
    world
        .put_at(
            "alice",
            "INBOX",
            &["$Forwarded"],
            &mail("Bea <b@x>", "apfelmus", "4", "", &"x".repeat(5000)),
            start + 30,
        )
        .await;
    world.put_at("alice", "INBOX", &[], LUNCH, start + 40).await;
    let client = world.client("alice");
    let query = async |arguments: Value| {
        let answer = client.call("Email/query", arguments).await;
        answer["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap()[1..].to_owned())
            .collect::<String>()
    };
    let filter =
        async |filter: Value| query(json!({"filter": filter, "sort": [{"property": "receivedAt"}]})).await;
    assert_eq!(query(json!({})).await, "54321");
    assert_eq!(filter(json!({"inMailbox": "M1"})).await, "1245");
    assert_eq!(filter(json!({"inMailbox": "M99"})).await, "");
    assert_eq!(filter(json!({"inMailboxOtherThan": ["M1"]})).await, "3");
    assert_eq!(filter(json!({"before": "2023-11-14T22:13:40Z"})).await, "12");
    assert_eq!(filter(json!({"after": "2023-11-14T22:13:40Z"})).await, "345");
    assert_eq!(filter(json!({"minSize": 5000})).await, "4");
    assert_eq!(filter(json!({"maxSize": 5000})).await, "1235");
    assert_eq!(filter(json!({"hasKeyword": "$SEEN"})).await, "1");
    assert_eq!(filter(json!({"notKeyword": "$seen"})).await, "2345");
    assert_eq!(filter(json!({"hasKeyword": "$forwarded"})).await, "4");
    assert_eq!(filter(json!({"allInThreadHaveKeyword": "$seen"})).await, "");
    assert_eq!(filter(json!({"someInThreadHaveKeyword": "$seen"})).await, "12");
    assert_eq!(filter(json!({"noneInThreadHaveKeyword": "$seen"})).await, "345");
    assert_eq!(filter(json!({"hasAttachment": true})).await, "5");
    assert_eq!(filter(json!({"hasAttachment": false})).await, "1234");
    assert_eq!(filter(json!({"subject": "APFEL"})).await, "12");
    assert_eq!(filter(json!({"subject": "APFEL*"})).await, "124");
    assert_eq!(filter(json!({"subject": "'re apfel'"})).await, "2");
    // A text without any word asks for nothing.
    assert_eq!(filter(json!({"text": " \"?\" "})).await, "12345");
    assert_eq!(filter(json!({"from": "bea"})).await, "34");
    assert_eq!(filter(json!({"to": "bob"})).await, "5");
    assert_eq!(filter(json!({"body": "baume zwei"})).await, "2");
    assert_eq!(filter(json!({"body": "\"baume zwei\""})).await, "");
    assert_eq!(filter(json!({"text": "käse"})).await, "5");
    assert_eq!(filter(json!({"text": "adam"})).await, "2");
    assert_eq!(filter(json!({"header": ["X-Mark"]})).await, "5");
    assert_eq!(filter(json!({"header": ["x-mark", "TWO"]})).await, "5");
    assert_eq!(filter(json!({"header": ["x-mark", "three"]})).await, "");
    let both = json!({"operator": "AND", "conditions": [{"subject": "apfel*"}, {"operator": "NOT", "conditions": [{"from": "zoe"}]}]});
    assert_eq!(filter(both).await, "24");
    assert_eq!(filter(json!({"inMailbox": "M1", "notKeyword": "$seen", "subject": "apfel*"})).await, "24");
    let sorted = async |property: &str, ascending: bool| {
        query(json!({"sort": [{"property": property, "isAscending": ascending}]})).await
    };
    assert_eq!(sorted("from", true).await, "23451");
    assert_eq!(sorted("subject", true).await, "12435");
    assert_eq!(sorted("size", false).await.chars().next(), Some('4'));
    assert_eq!(sorted("sentAt", true).await.chars().next(), Some('5'));
    let by_keyword = json!({"sort": [{"property": "hasKeyword", "keyword": "$seen", "isAscending": false}, {"property": "receivedAt"}]});
    assert_eq!(query(by_keyword).await, "12345");
    assert_eq!(query(json!({"collapseThreads": true})).await, "5432");
    assert_eq!(query(json!({"position": 1, "limit": 2})).await, "43");
    assert_eq!(query(json!({"position": -2})).await, "21");
    assert_eq!(query(json!({"anchor": "E3", "anchorOffset": -1, "limit": 2})).await, "43");
    assert_eq!(client.refused("Email/query", json!({"anchor": "E9"})).await.0, "anchorNotFound");
    assert_eq!(
        client.refused("Email/query", json!({"sort": [{"property": "x"}]})).await.0,
        "unsupportedSort"
    );
    assert_eq!(client.refused("Email/query", json!({"filter": {"x": 1}})).await.0, "unsupportedFilter");

    let arguments = json!({"filter": {"operator": "OR", "conditions": [{"text": "käse"}, {"subject": "birne"}]},
        "emailIds": ["E5", "E3", "E9"]});
    let answer = client.call("SearchSnippet/get", arguments).await;
    assert_eq!(answer["list"][0]["subject"], Value::Null);
    assert!(answer["list"][0]["preview"].as_str().unwrap().contains("<mark>Käse</mark> und Brot"));
    assert_eq!(answer["list"][1]["subject"], "<mark>Birne</mark>");
    assert_eq!(answer["notFound"], json!(["E9"]));
}

/// What is answered from an order that is there already is what is answered by looking at every email.
#[tokio::test]
async fn by_date_either_way() {
    let world = World::new().await;
    for number in 0..40 {
        let mailbox = ["INBOX", "Archive", "Sent"][number % 3];
        let message =
            format!("Subject: {number}\nMessage-ID: <{number}@x>\nReferences: <{}@x>\n\nx\n", number / 4 * 4);
        world.put_at("alice", mailbox, &[], &message, 1_700_000_000 + (number as i64 * 7) % 11).await;
    }
    let client = world.client("alice");
    client
        .call("Email/set", json!({"update": {"E3": {"mailboxIds/M6": true}, "E5": {"mailboxIds/M1": true}}}))
        .await;
    for filter in
        [json!({"inMailbox": "M1"}), json!({"inMailbox": "M6"}), json!({"inMailbox": "M9"}), json!({})]
    {
        for is_ascending in [true, false] {
            for collapse in [true, false] {
                let ask = async |filter: Value| {
                    let sort = json!([{"property": "receivedAt", "isAscending": is_ascending}]);
                    let arguments = json!({"filter": filter, "sort": sort, "collapseThreads": collapse, "calculateTotal": true});
                    let answer = client.call("Email/query", arguments).await;
                    (answer["ids"].clone(), answer["total"].clone())
                };
                let looked_at = json!({"operator": "AND", "conditions": [filter, {"minSize": 0}]});
                let quick = ask(filter.clone()).await;
                assert_eq!(quick, ask(looked_at).await, "{filter} {is_ascending} {collapse}");
            }
        }
    }
}

/// RFC 8621 §2.3
#[tokio::test]
async fn mailboxes() {
    let world = World::new().await;
    let account = world.account("alice").await;
    account.create_mailbox("Work/B", None).await.unwrap();
    account.create_mailbox("Work/A", None).await.unwrap();
    let client = world.client("alice");
    let answer = client.call("Mailbox/get", json!({"properties": ["name", "parentId", "role"]})).await;
    let list = answer["list"].as_array().unwrap();
    assert_eq!(list.len(), 9);
    let named = |name: &str| list.iter().find(|mailbox| mailbox["name"] == name).unwrap();
    assert_eq!(named("B")["parentId"], named("Work")["id"]);
    assert_eq!(named("Trash")["role"], "trash");
    assert_eq!(named("Work").as_object().unwrap().len(), 4);
    let query = async |arguments: Value| {
        let ids = client.call("Mailbox/query", arguments).await["ids"].clone();
        let name =
            |id: &Value| list.iter().find(|mailbox| mailbox["id"] == *id).unwrap()["name"].as_str().unwrap();
        ids.as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let by_name = json!([{"property": "name"}]);
    assert_eq!(query(json!({"filter": {"hasAnyRole": false}, "sort": by_name})).await, "A B Work");
    assert_eq!(
        query(json!({"filter": {"hasAnyRole": false}, "sort": by_name, "sortAsTree": true})).await,
        "Work A B"
    );
    assert_eq!(query(json!({"filter": {"parentId": named("Work")["id"]}, "sort": by_name})).await, "A B");
    assert_eq!(query(json!({"filter": {"name": "rk"}})).await, "Work");
    assert_eq!(query(json!({"filter": {"name": "b"}, "filterAsTree": true})).await, "Inbox");
    assert_eq!(query(json!({"filter": {"role": "junk"}})).await, "Junk");
    assert_eq!(client.refused("Mailbox/get", json!({"properties": ["x"]})).await.0, "invalidArguments");
}

/// RFC 8621 §4.9
#[tokio::test]
async fn a_message_within_a_message() {
    let world = World::new().await;
    let message = "Subject: outer\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nsee below\n--x\n\
        Content-Type: message/rfc822\n\nFrom: inner@example.com\nSubject: inner\nContent-Type: multipart/mixed; boundary=y\n\n\
        --y\n\ntext\n--y\nContent-Type: image/png; name=a.png\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\nAAEC\n--y--\n\n--x--\n";
    world.put("alice", "INBOX", &[], message).await;
    let client = world.client("alice");
    let answer = client.call("Email/get", json!({"ids": ["E1"], "properties": ["attachments"]})).await;
    let blob = answer["list"][0]["attachments"][0]["blobId"].clone();
    let arguments = json!({"blobIds": [blob, "G1-1", "G9"], "fetchTextBodyValues": true,
        "properties": ["id", "subject", "from", "preview", "hasAttachment", "textBody", "attachments", "bodyValues"]});
    let answer = client.call("Email/parse", arguments).await;
    assert_eq!(answer["notFound"], json!(["G9"]));
    assert_eq!(answer["notParsable"], json!(["G1-1"]));
    let parsed = &answer["parsed"][blob.as_str().unwrap()];
    assert_eq!(parsed["subject"], "inner");
    assert_eq!(parsed["id"], Value::Null);
    assert_eq!(parsed["preview"], "text");
    assert_eq!(parsed["bodyValues"]["1"]["value"], "text");
    let picture = parsed["attachments"][0]["blobId"].as_str().unwrap();
    let account = client.account_id().await;
    let answer = client.get(&format!("/jmap/download/{account}/{picture}/a.png")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &[0, 1, 2][..]));
}
