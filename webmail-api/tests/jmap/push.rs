//! Push over an event source (RFC 8620 §7.3).

use std::time::Duration;

use net::stream::Stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use webmail_api::jmap::Config;

use crate::world::World;

pub(crate) struct Events {
    stream: Stream,
    text: String,
}

impl Events {
    pub(crate) async fn open(world: &World, path: &str, headers: &[(&str, &str)]) -> Self {
        let client = world.client("alice");
        let mut stream = client.connect().await;
        let head = client.head("GET", path, headers);
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut events = Self { stream, text: String::new() };
        events.until("\r\n\r\n").await;
        events
    }

    /// What comes until this text has come; all of it up to the end of the connection when it does not.
    async fn until(&mut self, text: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.text.find(text) {
                let rest = self.text.split_off(at + text.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let read = self.stream.read(&mut buffer);
            let count =
                tokio::time::timeout(Duration::from_secs(10), read).await.expect("an event").unwrap_or(0);
            if count == 0 {
                return std::mem::take(&mut self.text);
            }
            self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    pub(crate) async fn event(&mut self) -> (String, Value) {
        let text = self.until("\n\n").await;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        (field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap())
    }
}

#[tokio::test]
async fn a_change_is_told_at_once() {
    let world = World::new().await;
    let mut events = Events::open(&world, "/jmap/eventsource?types=*&closeafter=state&ping=0", &[]).await;
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    let (kind, data) = events.event().await;
    assert_eq!(kind, "state");
    assert_eq!(data["@type"], "StateChange");
    let account = world.client("alice").account_id().await;
    let changed = data["changed"][&account].as_object().unwrap();
    assert!(changed.contains_key("Email") && changed.contains_key("Mailbox"), "{data}");
    let answer = world.client("alice").call("Email/get", serde_json::json!({"ids": []})).await;
    assert_eq!(changed["Email"], answer["state"]);
    // It closes after the first.
    assert!(!events.until("event:").await.contains("event:"));
}

#[tokio::test]
async fn pings_types_and_what_was_missed() {
    let config = Config { account_passwords: true, ping_seconds_min: 1, ..Config::default() };
    let world = World::with(config).await;
    let mut events = Events::open(&world, "/jmap/eventsource?types=Thread&closeafter=no&ping=1", &[]).await;
    let (kind, data) = events.event().await;
    assert_eq!((kind.as_str(), &data["interval"]), ("ping", &serde_json::json!(1)));
    let old = ("Last-Event-ID", "1");
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    let mut missed =
        Events::open(&world, "/jmap/eventsource?types=Email,Thread&closeafter=state&ping=0", &[old]).await;
    assert_eq!(missed.event().await.0, "state");
    let client = world.client("alice");
    for bad in ["types=*&closeafter=x&ping=0", "types=*&closeafter=no&ping=x", "types=*&closeafter=no"] {
        assert_eq!(client.get(&format!("/jmap/eventsource?{bad}")).await.status, 400, "{bad}");
    }
}
