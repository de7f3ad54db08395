//! JMAP over a WebSocket (RFC 8887): transcripts, push, hostile frames, and logins that are withdrawn.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mail::address::Address;
use net::stream::Stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use webmail_api::jmap::Config;

use crate::http::Client;
use crate::world::{USING, World};

const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "jmap"),
];

struct Socket(WebSocketStream<Stream>);

/// Shakes hands, and gives the head of the answer.
async fn shake(client: &Client<'_>, headers: &[(&str, &str)]) -> (Stream, String) {
    let mut stream = client.connect().await;
    let head = client.head("GET", "/jmap/ws", headers).replace("Connection: close", "Connection: Upgrade");
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

impl Socket {
    async fn open(client: &Client<'_>) -> Self {
        let (stream, answer) = shake(client, &UPGRADE).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("sec-websocket-protocol: jmap\r\n"), "{answer}");
        // RFC 6455 §1.3
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn frame(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.next());
        next.await.expect("something is said").and_then(Result::ok)
    }

    async fn hear(&mut self) -> Value {
        match self.frame().await {
            Some(Message::Text(text)) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The code of the Close that comes, whatever comes before.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await {
                Some(Message::Close(Some(close))) => return close.code.into(),
                Some(Message::Close(None)) | None => panic!("closed without a word"),
                Some(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn requests_and_their_answers() {
    let world = World::new().await;
    let client = world.client("alice");
    let session = client.session().await;
    let announced = &session["capabilities"]["urn:ietf:params:jmap:websocket"];
    assert_eq!(*announced, json!({"url": "wss://jmap.example.test/jmap/ws", "supportsPush": true}));
    let mut socket = Socket::open(&client).await;
    let echo = json!([["Core/echo", {"a": 1}, "c"]]);
    socket.say(json!({"@type": "Request", "id": "R1", "using": USING, "methodCalls": echo})).await;
    let answer = socket.hear().await;
    assert_eq!((&answer["@type"], &answer["requestId"]), (&json!("Response"), &json!("R1")));
    assert_eq!(answer["methodResponses"], echo);
    assert_eq!(answer["sessionState"], session["state"]);
    socket.say(json!({"@type": "Request", "id": "R2", "using": ["x"], "methodCalls": []})).await;
    let answer = socket.hear().await;
    assert_eq!((&answer["@type"], &answer["requestId"]), (&json!("RequestError"), &json!("R2")));
    assert_eq!(answer["type"], "urn:ietf:params:jmap:error:unknownCapability");
    socket.0.send(Message::text("{")).await.unwrap();
    let answer = socket.hear().await;
    assert_eq!(
        (&answer["type"], &answer["requestId"]),
        (&json!("urn:ietf:params:jmap:error:notJSON"), &Value::Null)
    );
    // RFC 8887 §4.1: without the subprotocol there is no connection.
    let (_, answer) = shake(&client, &UPGRADE[..3]).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_change_is_told_to_whom_it_belongs() {
    let world = World::new().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let (mut hers, mut his) = (Socket::open(&alice).await, Socket::open(&bob).await);
    let echo = json!({"@type": "Request", "using": USING, "methodCalls": [["Core/echo", {}, "c"]]});
    for socket in [&mut hers, &mut his] {
        socket.say(json!({"@type": "WebSocketPushEnable", "dataTypes": ["Email"]})).await;
        // What is said in order is heard in order, so that push is on when this is answered.
        socket.say(echo.clone()).await;
        assert_eq!(socket.hear().await["@type"], "Response");
    }
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    let change = hers.hear().await;
    assert_eq!(change["@type"], "StateChange");
    let changed = &change["changed"][alice.account_id().await];
    let get = alice.call("Email/get", json!({"ids": []})).await;
    assert_eq!(*changed, json!({"Email": get["state"]}));
    his.say(echo.clone()).await;
    assert_eq!(his.hear().await["@type"], "Response");
    // RFC 8887 §4.3.5.2: what was missed is told at once; what was not, is not.
    hers.say(json!({"@type": "WebSocketPushEnable", "pushState": "1"})).await;
    let missed = hers.hear().await;
    assert_eq!(missed["pushState"], change["pushState"]);
    hers.say(json!({"@type": "WebSocketPushDisable"})).await;
    hers.say(echo.clone()).await;
    assert_eq!(hers.hear().await["@type"], "Response");
    world.put("alice", "INBOX", &[], "Subject: y\n\ny\n").await;
    hers.say(echo).await;
    assert_eq!(hers.hear().await["@type"], "Response");
}

#[tokio::test]
async fn hostile_frames_and_floods() {
    let config = Config { account_passwords: true, request_bytes_max: 4096, ..Config::default() };
    let world = World::with(config).await;
    let client = world.client("alice");
    let mut socket = Socket::open(&client).await;
    socket.0.send(Message::text(" ".repeat(5000))).await.unwrap();
    assert_eq!(socket.closed().await, 1009);
    let mut socket = Socket::open(&client).await;
    socket.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(socket.closed().await, 1003);
    let mut socket = Socket::open(&client).await;
    for _ in 0..200 {
        let _ = socket.0.send(Message::text("{")).await;
    }
    assert_eq!(socket.closed().await, 1008);
    // A frame without a mask, and one with reserved bits (RFC 6455 §5.1, §5.2).
    for frame in [&b"\x81\x01x"[..], b"\xf1\x80\0\0\0\0"] {
        let (mut stream, _) = shake(&client, &UPGRADE).await;
        stream.write_all(frame).await.unwrap();
        stream.flush().await.unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, 1002), "{frame:?}");
    }
}

#[tokio::test]
async fn a_withdrawn_login_ends_the_connection() {
    let world = World::new().await;
    let looking = tokio::spawn(world.directory.clone().look_after_logins());
    let address = Address::parse("alice@example.test").unwrap();
    let login = directory::PlainLogin {
        login: address.to_string(),
        password: "postrider".to_owned(),
        service: directory::Service::Jmap,
    };
    let principal = world.directory.authenticate(&login, [127, 0, 0, 1].into()).await.unwrap();
    let new = directory::NewGrant { client: "c", name: "n", services: directory::ServiceSet::ALL };
    let (grant, _) = world.directory.grant(&principal, new).await.unwrap();
    let token = world.directory.access_token(principal.account, &grant);
    let authorization = format!("Bearer {}", token.reveal());
    let client = world.client("alice");
    let mut headers = UPGRADE.to_vec();
    headers.push(("Authorization", &authorization));
    let (stream, answer) = shake(&client, &headers).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut socket = Socket(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
    let mut other = Socket::open(&client).await;
    assert!(world.directory.revoke(principal.account, grant.id).await.unwrap());
    assert_eq!(socket.closed().await, 1008);
    // Who is logged in otherwise is not touched.
    let echo = json!([["Core/echo", {}, "c"]]);
    other.say(json!({"@type": "Request", "using": USING, "methodCalls": echo})).await;
    assert_eq!(other.hear().await["@type"], "Response");
    looking.abort();
}

/// Long messages come and go whole, and who takes no answers is not asked for more.
#[tokio::test]
async fn long_answers_and_who_does_not_take_them() {
    let world = World::new().await;
    let client = world.client("alice");
    let mut socket = Socket::open(&client).await;
    let echo = |octets: usize| {
        let call = json!([["Core/echo", {"text": "ä".repeat(octets / 2)}, "c"]]);
        json!({"@type": "Request", "using": USING, "methodCalls": call})
    };
    for octets in [0, 60_000, 70_000, 1_000_001] {
        let request = echo(octets);
        socket.say(request.clone()).await;
        assert_eq!(socket.hear().await["methodResponses"], request["methodCalls"]);
    }
    let message = Message::text(echo(1_000_000).to_string());
    let mut said = 0;
    while tokio::time::timeout(Duration::from_secs(2), socket.0.send(message.clone())).await.is_ok() {
        said += 1;
        assert!(said < 100, "it is asked for more and more");
    }
    // Others of the same account go on; its requests that wait for this one are counted.
    let mut other = Socket::open(&client).await;
    other.say(json!({"@type": "WebSocketPushDisable", "id": 1})).await;
    assert_eq!(other.hear().await["@type"], "RequestError");
}
