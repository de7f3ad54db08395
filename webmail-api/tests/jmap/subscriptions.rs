//! Push subscriptions (RFC 8620 §7.2): a push service that listens on loopback, a client that decrypts (RFC 8291), and logins
//! that are withdrawn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::{aead, hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use directory::{Service, ServiceSet};
use mail::address::Address;
use net::stream::Stream;
use net::tls::{Certificate, TlsServer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use webmail_api::jmap::{Config, PushConfig, Scan};

use crate::http::Client;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(700);

/// A push as it came.
#[derive(Debug)]
struct Pushed {
    head: String,
    body: Vec<u8>,
}

/// A push service. It answers with the statuses that it is given, and then with 201.
struct PushService {
    address: SocketAddr,
    pushed: mpsc::Receiver<Pushed>,
    answers: Arc<Mutex<Vec<&'static str>>>,
}

impl PushService {
    async fn open() -> Self {
        Self::open_with(None).await
    }

    /// The same under TLS.
    async fn open_with(tls: Option<TlsServer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, pushed) = mpsc::channel(64);
        let answers = Arc::new(Mutex::new(Vec::new()));
        let next = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = Stream::from_tcp(stream).unwrap();
                if let Some(tls) = &tls
                    && stream.accept_tls(tls).await.is_err()
                {
                    continue;
                }
                let answer = {
                    let mut next: parking_lot::MutexGuard<'_, Vec<&'static str>> = next.lock();
                    if next.is_empty() { "201 Created\r\n" } else { next.remove(0) }
                };
                let _ = sender.send(take(stream, answer).await).await;
            }
        });
        Self { address, pushed, answers }
    }

    fn url(&self) -> String {
        format!("http://{}/push?device=1", self.address)
    }

    async fn next(&mut self) -> Pushed {
        tokio::time::timeout(PATIENCE, self.pushed.recv()).await.expect("a push").unwrap()
    }

    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(QUIET, self.pushed.recv()).await.is_err()
    }
}

async fn take(mut stream: Stream, answer: &str) -> Pushed {
    let mut bytes = Vec::new();
    let end = loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "a whole header");
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let length: usize = header(&head, "content-length").parse().unwrap();
    while body.len() < length {
        stream.read_buf(&mut body).await.unwrap();
    }
    let answer = format!("HTTP/1.1 {answer}Content-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    Pushed { head, body }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.split("\r\n").find_map(|line| {
        let (given, value) = line.split_once(": ")?;
        given.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_default()
}

/// What a client keeps to read its pushes.
struct Reader {
    private: PrivateKey,
    auth: [u8; 16],
}

impl Reader {
    fn new() -> Self {
        Self { private: PrivateKey::generate(&ECDH_P256).unwrap(), auth: [9; 16] }
    }

    fn public(&self) -> Vec<u8> {
        self.private.compute_public_key().unwrap().as_ref().to_vec()
    }

    fn keys(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"p256dh": encode(&self.public()), "auth": encode(&self.auth)})
    }

    /// By HMAC alone, so that nothing is taken over from the other side (RFC 8291 §3.4).
    fn read(&self, body: &[u8]) -> Value {
        let mac = |key: &[u8], data: &[&[u8]]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            hmac::sign(&key, &data.concat()).as_ref().to_vec()
        };
        let (salt, rest) = body.split_at(16);
        assert_eq!(rest[..5], [0, 0, 16, 0, 65], "one record of 4096 octets, and a point");
        let (sender, sealed) = rest[5..].split_at(65);
        let peer = UnparsedPublicKey::new(&ECDH_P256, sender);
        let material = agreement::agree(&self.private, peer, (), |shared| {
            let prk = mac(&self.auth, &[shared]);
            Ok(mac(&prk, &[b"WebPush: info\0", &self.public(), sender, &[1]]))
        });
        let prk = mac(salt, &[&material.unwrap()]);
        let key = mac(&prk, &[b"Content-Encoding: aes128gcm\0\x01"]);
        let nonce = mac(&prk, &[b"Content-Encoding: nonce\0\x01"]);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key[..16]).unwrap());
        let nonce = aead::Nonce::try_assume_unique_for_key(&nonce[..12]).unwrap();
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(nonce, aead::Aad::empty(), &mut sealed).unwrap();
        let end = plain.iter().rposition(|octet| *octet != 0).unwrap();
        assert_eq!(plain[end], 2, "the last record");
        serde_json::from_slice(&plain[..end]).unwrap()
    }
}

fn config() -> Config {
    let push = PushConfig {
        loopback: true,
        pause_seconds: 0,
        retry_seconds: 1,
        failures_max: 4,
        ..PushConfig::default()
    };
    Config { account_passwords: true, push, ..Config::default() }
}

impl Client<'_> {
    /// One call, without an account (RFC 8620 §7.2).
    async fn subscriptions(&self, name: &str, arguments: Value) -> Value {
        let call = json!([[format!("PushSubscription/{name}"), arguments, "c"]]);
        let body = json!({"using": ["urn:ietf:params:jmap:core"], "methodCalls": call});
        let answer = self.api(&body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["methodResponses"][0].take()
    }

    async fn subscribe(&self, wanted: Value) -> Value {
        let answer = self.subscriptions("set", json!({"create": {"k": wanted}})).await;
        assert_eq!(answer[0], "PushSubscription/set", "{answer}");
        answer[1].clone()
    }

    async fn all(&self) -> Vec<Value> {
        let answer = self.subscriptions("get", json!({"ids": null})).await;
        answer[1]["list"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    async fn verify(&self, id: &str, code: &Value) -> Value {
        let patch = json!({id: {"verificationCode": code}});
        self.subscriptions("set", json!({"update": patch})).await[1].clone()
    }
}

/// Subscribes, and says the code that comes.
async fn subscribed(client: &Client<'_>, service: &mut PushService, device: &str) -> String {
    let made = client.subscribe(json!({"deviceClientId": device, "url": service.url()})).await;
    let id = made["created"]["k"]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let code: Value = serde_json::from_slice(&service.next().await.body).unwrap();
    assert_eq!(code["pushSubscriptionId"], json!(id));
    let verified = client.verify(&id, &code["verificationCode"]).await;
    assert_eq!(verified["updated"], json!({id.as_str(): null}), "{verified}");
    id
}

#[tokio::test]
async fn from_a_code_to_a_change() {
    let world = World::with(config()).await;
    let client = world.client("alice");
    let (mut service, reader) = (PushService::open().await, Reader::new());
    let made = client
        .subscribe(
            json!({"deviceClientId": "d", "url": service.url(), "keys": reader.keys(), "types": ["Email"]}),
        )
        .await;
    assert!(made.get("accountId").is_none() && made.get("newState").is_none(), "{made}");
    let created = &made["created"]["k"];
    assert!(created["expires"].is_string() && created.get("url").is_none(), "{created}");
    let id = created["id"].as_str().unwrap();
    // RFC 8620 §7.2.2
    let pushed = service.next().await;
    assert!(pushed.head.starts_with("POST /push?device=1 HTTP/1.1\r\n"), "{}", pushed.head);
    assert_eq!(header(&pushed.head, "content-type"), "application/json");
    assert_eq!(header(&pushed.head, "content-encoding"), "aes128gcm");
    assert_eq!(header(&pushed.head, "ttl"), "259200");
    let code = reader.read(&pushed.body);
    assert_eq!((&code["@type"], &code["pushSubscriptionId"]), (&json!("PushVerification"), &json!(id)));
    // Nothing else comes before the client has said it, and it is told nowhere else.
    world.put("alice", "INBOX", &[], "Subject: w\n\nw\n").await;
    assert!(service.is_quiet().await);
    assert_eq!(client.all().await[0]["verificationCode"], Value::Null);
    let refused = client.verify(id, &json!("wrong")).await;
    assert_eq!(refused["notUpdated"][id]["type"], "invalidProperties");
    assert_eq!(client.verify(id, &Value::Null).await["notUpdated"][id]["type"], "invalidProperties");
    let verified = client.verify(id, &code["verificationCode"]).await;
    assert_eq!(verified["updated"], json!({id: null}), "{verified}");
    assert!(service.is_quiet().await, "what was before is not told");

    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    let pushed = service.next().await;
    assert_eq!(header(&pushed.head, "urgency"), "low", "nobody has written");
    let get = client.call("Email/get", json!({"ids": []})).await;
    let account = client.account_id().await;
    let expected = json!({"@type": "StateChange", "changed": {account: {"Email": get["state"]}}});
    assert_eq!(reader.read(&pushed.body), expected);
    // RFC 8292 §2, RFC 9749 §4: signed with the key that the session tells.
    let session = client.session().await;
    let announced = session["capabilities"]["urn:ietf:params:jmap:webpush-vapid"]["applicationServerKey"]
        .as_str()
        .unwrap();
    let shown = header(&pushed.head, "authorization").strip_prefix("vapid t=").unwrap();
    let (token, key) = shown.split_once(", k=").unwrap();
    assert_eq!(key, announced);
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (said, signed) = token.rsplit_once('.').unwrap();
    signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(key))
        .verify(said.as_bytes(), &decode(signed))
        .unwrap();
    let claims: Value = serde_json::from_slice(&decode(said.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claims["aud"], format!("http://{}", service.address));

    // Once only; what is of other types, or of others, not at all.
    world.put("bob", "INBOX", &[], "Subject: y\n\ny\n").await;
    client.call("Mailbox/set", json!({"create": {"m": {"name": "New"}}})).await;
    assert!(service.is_quiet().await);
    // Types and expiry can be changed, the rest cannot.
    let patch = json!({id: {"types": ["Mailbox"], "expires": "2000-01-01T00:00:00Z"}});
    let refused = client.subscriptions("set", json!({"update": patch})).await;
    assert_eq!(refused[1]["notUpdated"][id]["properties"], json!(["expires"]));
    for patch in [json!({"url": "https://push.example.test/"}), json!({"deviceClientId": "e"})] {
        let refused = client.subscriptions("set", json!({"update": {id: patch}})).await;
        assert_eq!(refused[1]["notUpdated"][id]["type"], "invalidProperties", "{refused}");
    }
    let patch = json!({id: {"types": ["Mailbox"], "expires": "2999-01-01T00:00:00Z"}});
    let changed = client.subscriptions("set", json!({"update": patch})).await;
    assert!(changed[1]["updated"][id]["expires"].is_string(), "{changed}");
    // Of what it did not want to hear before it hears now.
    service.next().await;
    client.call("Mailbox/set", json!({"create": {"m": {"name": "Newer"}}})).await;
    let change = reader.read(&service.next().await.body);
    assert_eq!(change["changed"][client.account_id().await].as_object().unwrap().len(), 1, "{change}");
    let destroyed = client.subscriptions("set", json!({"destroy": [id]})).await;
    assert_eq!(destroyed[1]["destroyed"], json!([id]));
    client.call("Mailbox/set", json!({"create": {"m": {"name": "Newest"}}})).await;
    assert!(service.is_quiet().await);
    assert!(client.all().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_subscribed_to() {
    let mut config = config();
    config.push.subscriptions_max = 2;
    config.push.subscribed_per_hour_max = 3;
    let world = World::with(config).await;
    let client = world.client("alice");
    let mut service = PushService::open().await;
    for (member, value) in [
        ("url", json!("https://10.0.0.1/")),
        ("url", json!("https://[fd00::1]/")),
        ("url", json!("http://push.example.test.invalid:x/")),
        ("url", json!("ftp://127.0.0.1/")),
        ("keys", json!({"p256dh": "AAAA", "auth": "AAAA"})),
        ("keys", json!({})),
        ("verificationCode", json!("x")),
        ("expires", json!("2000-01-01T00:00:00Z")),
        ("types", json!([1])),
        ("deviceClientId", json!("")),
        ("id", json!("P1")),
        ("other", json!(1)),
    ] {
        let mut wanted = json!({"deviceClientId": "d", "url": service.url()});
        wanted[member] = value;
        let answer = client.subscribe(wanted.clone()).await;
        let error = &answer["notCreated"]["k"];
        assert_eq!((&error["type"], &error["properties"]), (&json!("invalidProperties"), &json!([member])));
    }
    for missing in [json!({"deviceClientId": "d"}), json!({"url": service.url()})] {
        assert_eq!(client.subscribe(missing).await["notCreated"]["k"]["type"], "invalidProperties");
    }
    assert!(service.is_quiet().await);
    for name in ["url", "keys"] {
        let answer = client.subscriptions("get", json!({"properties": ["id", name]})).await;
        assert_eq!((&answer[0], &answer[1]["type"]), (&json!("error"), &json!("forbidden")));
    }
    for (name, wrong) in [("get", "accountId"), ("set", "accountId"), ("set", "ifInState")] {
        let answer = client.subscriptions(name, json!({wrong: "x"})).await;
        assert_eq!((&answer[0], &answer[1]["type"]), (&json!("error"), &json!("invalidArguments")));
    }
    let wanted = json!({"deviceClientId": "d", "url": service.url()});
    for _ in 0..2 {
        assert!(client.subscribe(wanted.clone()).await["created"]["k"]["id"].is_string());
        service.next().await;
    }
    assert_eq!(client.subscribe(wanted.clone()).await["notCreated"]["k"]["type"], "overQuota");
    let ids: Vec<Value> = client.all().await.iter().map(|one| one["id"].clone()).collect();
    client.subscriptions("set", json!({"destroy": ids})).await;
    assert!(client.subscribe(wanted.clone()).await["created"]["k"]["id"].is_string());
    assert_eq!(client.subscribe(wanted).await["notCreated"]["k"]["type"], "rateLimit");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let mut config = config();
    config.push.loopback = false;
    let world = World::with(config).await;
    let client = world.client("alice");
    let mut service = PushService::open().await;
    let url = format!("https://localhost:{}/", service.address.port());
    assert!(client.subscribe(json!({"deviceClientId": "d", "url": url})).await["created"]["k"].is_object());
    assert!(service.is_quiet().await);
    let gone = async {
        while !client.all().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the subscription is ended");
}

#[tokio::test]
async fn a_push_service_that_is_down_busy_or_elsewhere() {
    let world = World::with(config()).await;
    let client = world.client("alice");
    let mut service = PushService::open().await;
    let id = subscribed(&client, &mut service, "d").await;
    let other = PushService::open().await;
    let redirect = format!("307 Moved\r\nLocation: {}\r\n", other.url());
    *service.answers.lock() =
        vec!["503 Down\r\n", Box::leak(redirect.into_boxed_str()), "429 Busy\r\nRetry-After: 1\r\n"];
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    let first = service.next().await;
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        let again = service.next().await;
        assert_eq!(again.body, first.body, "the same until it is taken");
    }
    assert!(began.elapsed() > Duration::from_secs(6), "one, two and four seconds: {:?}", began.elapsed());
    let mut other = other;
    assert!(other.is_quiet().await, "a redirect leads nowhere");
    assert!(service.is_quiet().await);
    // RFC 8030 §7.3
    *service.answers.lock() = vec!["410 Gone\r\n"];
    world.put("alice", "INBOX", &[], "Subject: y\n\ny\n").await;
    service.next().await;
    world.put("alice", "INBOX", &[], "Subject: z\n\nz\n").await;
    assert!(service.is_quiet().await);
    let answer = client.subscriptions("get", json!({"ids": [id]})).await;
    assert_eq!(answer[1]["notFound"], json!([id]));
}

#[tokio::test]
async fn a_subscription_is_of_its_login_and_ends_with_it() {
    let world = World::with(config()).await;
    let client = world.client("alice");
    let address = Address::parse("alice@example.test").unwrap();
    let password = world.directory.create_app_password(&address, "phone", ServiceSet::ALL).await.unwrap();
    let login = directory::PlainLogin {
        login: address.to_string(),
        password: password.reveal().to_owned(),
        service: Service::Jmap,
    };
    world.directory.authenticate(&login, [127, 0, 0, 1].into()).await.unwrap();
    let phone = Client::new(&world, "alice@example.test", password.reveal());
    let (mut own, mut its) = (PushService::open().await, PushService::open().await);
    let one = subscribed(&client, &mut own, "d").await;
    let other = subscribed(&phone, &mut its, "p").await;
    assert_eq!(client.all().await.len(), 1);
    assert_eq!(client.all().await[0]["id"], json!(one));
    let answer = client.subscriptions("set", json!({"destroy": [other]})).await;
    assert_eq!(answer[1]["notDestroyed"][&other]["type"], "notFound");
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    own.next().await;
    its.next().await;
    world.directory.delete_app_password(&address, "phone").await.unwrap();
    world.put("alice", "INBOX", &[], "Subject: y\n\ny\n").await;
    own.next().await;
    assert!(its.is_quiet().await);
    // Nor does it come back with another password of that name.
    let again = world.directory.create_app_password(&address, "phone", ServiceSet::ALL).await.unwrap();
    assert!(Client::new(&world, "alice@example.test", again.reveal()).all().await.is_empty());
}

#[tokio::test]
async fn certificates_are_looked_at() {
    let made = Certificate::self_signed(&["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &made.certificate_pem).unwrap();
    let tls = TlsServer::new(&[made.certificate().unwrap()]).unwrap();
    let mut service = PushService::open_with(Some(tls)).await;
    let port = service.address.port();
    let mut trusting = config();
    trusting.push.ca = ca;
    let world = World::with(trusting).await;
    let client = world.client("alice");
    let subscribe = async |client: &Client<'_>, host: &str| {
        let url = format!("https://{host}:{port}/");
        let made = client.subscribe(json!({"deviceClientId": "d", "url": url})).await;
        assert!(made["created"]["k"].is_object(), "{made}");
    };
    subscribe(&client, "localhost").await;
    let pushed = service.next().await;
    assert_eq!(header(&pushed.head, "host"), format!("localhost:{port}"));
    // Another name than the certificate has; and a certificate that the system does not know.
    subscribe(&client, "127.0.0.1").await;
    assert!(service.is_quiet().await);
    let other = World::with(config()).await;
    subscribe(&other.client("alice"), "localhost").await;
    assert!(service.is_quiet().await);
}

/// What changed while nobody was there to push is pushed afterwards, and what was told is not told again.
#[tokio::test]
async fn the_next_process_goes_on() {
    let world = World::with(config()).await;
    let client = world.client("alice");
    let mut service = PushService::open().await;
    subscribed(&client, &mut service, "d").await;
    world.put("alice", "INBOX", &[], "Subject: x\n\nx\n").await;
    service.next().await;
    assert!(service.is_quiet().await);
    world.shutdown.begin();
    world.put("alice", "INBOX", &[], "Subject: y\n\ny\n").await;
    assert!(service.is_quiet().await);
    let next = world.beside_with(config(), Arc::new(Scan::default())).await;
    service.next().await;
    assert!(service.is_quiet().await);
    next.put("alice", "INBOX", &[], "Subject: z\n\nz\n").await;
    service.next().await;
}
