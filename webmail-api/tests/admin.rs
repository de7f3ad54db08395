//! The admin API over a directory on the engine in memory. Every request and answer here is held against the OpenAPI
//! document, and every endpoint of the document has to be used: so the document stays true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use directory::account::Quota;
use directory::config::Argon2Config;
use directory::{AccountStores, Directory, LogKeys, Temporary};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Rows, Sealer};
use mail::address::{Address, ReversePath};
use mail::envelope::{Envelope, Recipient};
use mail::id::{AccountId, QueueId};
use queue::{Clock, Foundation, Origin, Queue, Resolved, Submission};
use serde_json::{Value, json};
use storage::{AccountSettings, Principal, Storage, Suppressed};
use tower::ServiceExt as _;
use webmail_api::admin::audit::{Act, Audit};
use webmail_api::admin::caller::{Connection, Scope};
use webmail_api::admin::migration::MigrationView;
use webmail_api::admin::monitor::Monitor;
use webmail_api::admin::nodes::{ClusterView, NodeView};
use webmail_api::admin::token::Tokens;
use webmail_api::admin::{Api, Config, Parts};

struct NoKeys;

#[async_trait]
impl LogKeys for NoKeys {
    async fn create(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn open(&self, _: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        Ok(Arc::new(Unencrypted))
    }
    async fn erase(&self, _: LogId) -> Result<(), Temporary> {
        Ok(())
    }
}

struct Stores(Storage);

#[async_trait]
impl AccountStores for Stores {
    async fn create(&self, account: AccountId, _: &Address, _: Quota) -> Result<(), Temporary> {
        let created = self.0.create_account(account, AccountSettings::default()).await;
        created.map_err(|error| Temporary(error.to_string()))
    }
    async fn set_quota(&self, _: AccountId, _: Quota) -> Result<(), Temporary> {
        Ok(())
    }
    async fn delete(&self, _: AccountId) -> Result<(), Temporary> {
        Ok(())
    }
}

#[derive(Default)]
struct AuditLines {
    lines: Mutex<Vec<String>>,
    broken: Mutex<bool>,
}

#[async_trait]
impl Audit for AuditLines {
    async fn act(&self, act: &Act<'_>) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::other("disk full"));
        }
        let line = format!("{} {} {} {:?} {:?}", act.caller, act.method, act.path, act.object, act.status);
        self.lines.lock().unwrap().push(line);
        Ok(())
    }
}

#[derive(Default)]
struct Fine {
    drained: AtomicBool,
    moves_to: Mutex<Option<String>>,
}

impl Monitor for Fine {
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
    fn ready(&self) -> Result<(), String> {
        Err("starting".to_owned())
    }
    fn metrics(&self) -> String {
        "postrider_x 1\n".to_owned()
    }
    fn cluster(&self) -> Option<ClusterView> {
        let node = NodeView {
            name: "one".to_owned(),
            standing: if self.drained.load(Ordering::SeqCst) { "leaving" } else { "live" },
            roles: vec!["imap".to_owned()],
            address: "one.example.test".to_owned(),
            release: "0.1.0".to_owned(),
            feature_level: 1,
            boot: "b".to_owned(),
            shards: Some(3),
        };
        Some(ClusterView {
            node: "one".to_owned(),
            connected: true,
            stale: false,
            isolated: false,
            feature_level: 2,
            agreed_level: 1,
            nodes: vec![node.clone(), NodeView { shards: None, name: "two".to_owned(), ..node }],
        })
    }
    fn migrate(&self, to: String) -> Result<(), String> {
        let mut moves_to = self.moves_to.lock().unwrap();
        match &*moves_to {
            Some(other) if *other != to => Err("a move to somewhere else is under way".to_owned()),
            _ => {
                *moves_to = Some(to);
                Ok(())
            }
        }
    }
    fn migration(&self) -> Option<MigrationView> {
        let to = self.moves_to.lock().unwrap().clone()?;
        Some(MigrationView {
            to,
            stage: "logs",
            logs_done: 3,
            logs_total: 9,
            segments_done: 2,
            segments_total: 2,
            rows: 70,
            bytes: 12_345,
            seconds: 1.5,
            trouble: None,
            running: true,
        })
    }
    fn drain(&self) {
        self.drained.store(true, Ordering::SeqCst);
    }
}

/// Accounts and a queue in memory, with one message that waits for another host.
async fn stores() -> (Storage, Queue, QueueId) {
    let engine = MemoryEngine::new().engine();
    let config = blob::Config::default();
    let kek = KeyEncryptionKey::from_secret(&[7; 32]);
    let keys = KeyRing::new(kek, Arc::clone(&engine.rows), &config);
    let blobs = Arc::new(MemoryBlobs::new());
    let blobs = BlobStore::new(blobs, Arc::clone(&engine.rows), keys.clone(), config).await.unwrap();
    let clock = Clock::standing(1_800_000_000);
    let log_options = LogOptions::default();
    let storage =
        Storage::new(engine.clone(), log_options.clone(), None, blobs.clone(), storage::Config::default());
    let foundation =
        Foundation { engine, log_options, archive: None, blobs, keys, clock, sharing: queue::Sharing::Alone };
    let queue = Queue::open(foundation, queue::Config::default()).await.unwrap();
    let mut envelope = Envelope::new(ReversePath(Some(Address::parse("alice@example.test").unwrap())));
    envelope.recipients.push(Recipient::new(Address::parse("bob@there.test").unwrap()));
    let mut writer = queue.body_writer(None).await.unwrap();
    writer.write(Bytes::from_static(b"Message-ID: <m1@example.test>\r\n\r\nhello\r\n")).await.unwrap();
    let body = writer.finish().await.unwrap();
    let (resolved, prefix, origin) = (vec![Resolved::Remote], Bytes::new(), Origin::default());
    let submission = Submission { envelope, resolved, body, prefix, origin };
    let queue_id = queue.submit(submission).await.unwrap().queue_id();
    for claimed in queue.claim(9).await {
        let details = queue.details(&claimed).await.unwrap();
        let slice = claimed.expansion().unwrap().slices[0].clone();
        let targets = queue.targets(&slice).await.unwrap();
        let targets: Vec<_> = (0..).zip(targets.iter()).collect();
        queue.place_remote(&claimed, &details, &targets).await.unwrap();
        queue.report(claimed, Vec::new(), true).await;
    }
    (storage, queue, queue_id)
}

struct Bench {
    storage: Storage,
    directory: Directory,
    queue_id: QueueId,
    router: Router,
    api: Api,
    audit: Arc<AuditLines>,
    document: Value,
    used: Mutex<BTreeSet<String>>,
}

impl Bench {
    async fn new() -> Self {
        Self::with_tokens_in(MemoryEngine::new().engine().rows).await
    }

    /// One of those that keep their tokens in these rows.
    async fn with_tokens_in(rows: Arc<dyn Rows>) -> Self {
        let (storage, queue, queue_id) = stores().await;
        let directory = Directory::open(directory::Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4096,
                ..directory::Config::default()
            },
            engine: MemoryEngine::new().engine(),
            logs: LogOptions::default(),
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::new(Stores(storage.clone())),
            homes: None,
            on_login_failure: Box::new(|_| {}),
        })
        .await
        .unwrap();
        let audit = Arc::new(AuditLines::default());
        let api = Api::new(Parts {
            config: Config { body_bytes_max: 4096, request_seconds_max: 2, ..Config::default() },
            directory: directory.clone(),
            storage: storage.clone(),
            queue: Some(queue),
            tokens: Tokens::new(
                rows,
                &Config { tokens_max: 10, tokens_read_seconds: 0, ..Config::default() },
            ),
            audit: Arc::clone(&audit) as Arc<dyn Audit>,
            monitor: Arc::new(Fine::default()),
        });
        let mut bench = Self {
            storage,
            directory,
            queue_id,
            router: api.router(),
            api,
            audit,
            document: Value::Null,
            used: Mutex::default(),
        };
        let (_, document) =
            bench.send(&Connection::Process, None, "GET", "/admin/v1/openapi.json", None).await;
        bench.document = document;
        bench
    }

    async fn send(
        &self,
        connection: &Connection,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).extension(connection.clone());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    /// As the operator, and held against the document.
    #[track_caller]
    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> impl Future<Output = (u16, Value)> {
        let place = std::panic::Location::caller();
        let path = path.to_owned();
        async move {
            let operation = self.operation(method, &path);
            if let Some(body) = &body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                self.fits(schema, body).unwrap_or_else(|why| panic!("{place}: request: {why}"));
            }
            let (status, answer) = self.send(&Connection::Process, None, method, &path, body.as_ref()).await;
            let responses = &operation["responses"];
            let response = responses.get(status.as_str()).unwrap_or_else(|| {
                assert!(!status.is_success(), "{place}: {status} is not in the document: {answer}");
                &responses["default"]
            });
            let content = response.get("content");
            match content.and_then(|content| content.as_object()?.values().next()?.get("schema")) {
                Some(schema) => {
                    self.fits(schema, &answer)
                        .unwrap_or_else(|why| panic!("{place}: answer: {why}: {answer}"));
                }
                None if content.is_none() => assert_eq!(answer, Value::String(String::new()), "{place}"),
                None => {}
            }
            (status.as_u16(), answer)
        }
    }

    /// What an account's mail is not sent to.
    /// A program gets tokens that are good for a login, until they are withdrawn.
    async fn grant_endpoints(&self, account: &str) {
        let of = format!("/admin/v1/accounts/{account}/grants");
        let (status, made) = self
            .call("POST", &of, Some(json!({ "client": "tb", "name": "a program", "services": ["imap"] })))
            .await;
        assert_eq!(status, 201, "{made}");
        let (_, grants) = self.call("GET", &of, None).await;
        assert_eq!(grants[0]["client"], "tb");
        assert_eq!(grants[0]["services"], json!(["imap"]));
        assert_eq!(grants[0]["id"], made["id"]);
        let login = directory::PlainLogin {
            login: account.to_owned(),
            password: made["access_token"].as_str().unwrap().to_owned(),
            service: directory::Service::Imap,
        };
        let home = std::net::IpAddr::from([127, 0, 0, 1]);
        self.directory.authenticate(&login, home).await.unwrap();
        let one = format!("{of}/{}", made["id"].as_str().unwrap());
        assert_eq!(self.call("DELETE", &one, None).await.0, 204);
        assert_eq!(self.call("DELETE", &one, None).await.0, 404);
        assert_eq!(self.call("DELETE", &format!("{of}/nonsense"), None).await.0, 404);
        assert!(self.directory.authenticate(&login, home).await.is_err());
        assert_eq!(self.call("POST", &of, Some(json!({ "client": "", "name": "n" }))).await.0, 400);
        assert_eq!(self.call("GET", "/admin/v1/accounts/nobody@example.test/grants", None).await.0, 404);
    }

    async fn suppression_endpoints(&self, account: &str) {
        let of = format!("/admin/v1/accounts/{account}/suppressions");
        assert_eq!(self.call("GET", &of, None).await.1, json!([]));
        let (_, shown) = self.call("GET", &format!("/admin/v1/accounts/{account}"), None).await;
        let id = shown["id"].as_str().unwrap().parse().unwrap();
        let opened = self.storage.account(&Principal::Operator, id).await.unwrap();
        let gone = Address::parse("gone@there.test").unwrap();
        opened.suppress(&gone, Suppressed::new(1_800_000_000, "5.1.1", "no such user")).await.unwrap();
        let expected = json!([{
            "address": "gone@there.test", "since": 1_800_000_000, "status": "5.1.1", "reason": "no such user",
        }]);
        assert_eq!(self.call("GET", &of, None).await.1, expected);
        let one = format!("{of}/Gone@there.test");
        assert_eq!(self.call("DELETE", &one, None).await.0, 204);
        assert_eq!(self.call("DELETE", &one, None).await.0, 404);
        assert_eq!(
            self.call("GET", "/admin/v1/accounts/nobody@example.test/suppressions", None).await.0,
            404
        );
    }

    /// The queue's endpoints, on the one message in it.
    async fn queue_endpoints(&self) {
        let id = self.queue_id.to_string();
        let (_, summary) = self.call("GET", "/admin/v1/queue", None).await;
        assert_eq!((&summary["outbound"], &summary["recipients"]), (&json!(1), &json!(1)));
        assert_eq!(summary["domains"][0]["domain"], "there.test");
        let items = "/admin/v1/queue/items?kind=outbound&sender=%40example.test&domain=there.test";
        let (_, listed) = self.call("GET", items, None).await;
        assert_eq!(listed["items"][0]["queue_id"], id);
        assert_eq!(listed["items"][0]["recipients"][0]["state"], "pending");
        let (_, none) = self.call("GET", "/admin/v1/queue/items?domain=elsewhere.test", None).await;
        assert_eq!(none["items"], json!([]));
        assert_eq!(self.call("GET", "/admin/v1/queue/items?queue_id=x", None).await.0, 422);
        for wanted in [id.as_str(), "m1@example.test", "%3Cm1%40example.test%3E"] {
            let (_, traced) = self.call("GET", &format!("/admin/v1/queue/trace?id={wanted}"), None).await;
            assert!(traced.as_array().is_some_and(|items| !items.is_empty()), "{wanted}: {traced}");
        }
        let (_, shards) = self.call("GET", "/admin/v1/queue/shards", None).await;
        let outbound = shards.as_array().unwrap().iter().find(|shard| shard["items"] == 1).unwrap();
        let shard = format!("/admin/v1/queue/shards/{}", outbound["shard"].as_str().unwrap());
        let (_, first) = self.call("GET", &format!("{shard}/entries?limit=1"), None).await;
        assert_eq!(
            (&first["entries"][0]["what"], &first["entries"][0]["queue_id"]),
            (&json!("accepted"), &json!(id))
        );
        assert_eq!((&first["next"], first["end"].as_u64() >= Some(2)), (&json!(2), true));
        let cursors = format!("{shard}/cursors");
        let moved = json!({ "name": "feed", "next": 2 });
        assert_eq!(self.call("POST", &cursors, Some(moved.clone())).await.0, 204);
        let (_, rest) = self.call("GET", &format!("{shard}/entries?cursor=feed"), None).await;
        assert_eq!((&rest["entries"][0]["what"], &rest["entries"][0]["details"]), (&json!("cursor"), &moved));
        for bad in [json!({ "name": "feed", "next": 99 }), json!({ "name": "a b", "next": 1 })] {
            assert_eq!(self.call("POST", &cursors, Some(bad)).await.0, 422);
        }
        assert_eq!(self.call("POST", &cursors, Some(json!({ "name": "feed", "next": 0 }))).await.0, 204);
        assert_eq!(self.call("GET", "/admin/v1/queue/shards/outbound-x/entries", None).await.0, 422);
        let (_, said) = self.call("GET", "/admin/v1/queue/dialogues?host=mx.there.test", None).await;
        assert_eq!(said, json!({ "lines": [], "next": 0 }));
        let acts = "/admin/v1/queue/acts";
        let act = |action: &str| json!({ "action": action, "filter": { "queue_id": id } });
        let changed = json!({ "items": 1, "recipients": 1, "in_flight": 0 });
        assert_eq!(self.call("POST", acts, Some(act("hold"))).await.1, changed);
        let (_, held) = self.call("GET", "/admin/v1/queue/items?state=held", None).await;
        assert_eq!(held["items"][0]["recipients"][0]["state"], "held");
        assert_eq!(self.call("POST", acts, Some(act("release"))).await.1, changed);
        let mut reroute = act("reroute");
        reroute["route"] = json!("mx.other.test:2525");
        assert_eq!(self.call("POST", acts, Some(reroute)).await.1["items"], 1);
        let (_, rerouted) = self.call("GET", items, None).await;
        assert_eq!(rerouted["items"][0]["route"], "mx.other.test:2525");
        // What chooses nothing is no wish to change everything.
        assert_eq!(self.call("POST", acts, Some(json!({ "action": "cancel" }))).await.0, 422);
        assert_eq!(
            self.call("POST", acts, Some(json!({ "action": "cancel", "all": true }))).await.1,
            changed
        );
        let (_, traced) = self.call("GET", &format!("/admin/v1/queue/trace?id={id}"), None).await;
        let is_outbound =
            |item: &&Value| item["shard"].as_str().is_some_and(|shard| shard.starts_with("outbound"));
        let outbound = traced.as_array().unwrap().iter().find(is_outbound);
        assert!(outbound.is_some_and(|item| item["recipients"][0]["state"] == "cancelled"), "{traced}");
    }

    /// A move to other back ends.
    async fn migrate_endpoints(&self) {
        let path = "/admin/v1/migrate";
        assert_eq!(self.call("GET", path, None).await.0, 404, "nothing moves");
        let to = |to: &str| Some(json!({ "to": to }));
        assert_eq!(self.call("POST", path, to("/etc/postrider/cluster.toml")).await.0, 202);
        assert_eq!(self.call("POST", path, to("/etc/postrider/other.toml")).await.0, 409);
        let (_, view) = self.call("GET", path, None).await;
        assert_eq!(
            (&view["to"], &view["stage"], &view["logs_done"], &view["logs_total"], &view["running"]),
            (&json!("/etc/postrider/cluster.toml"), &json!("logs"), &json!(3), &json!(9), &json!(true))
        );
    }

    /// The operation of a path, found by its pattern.
    fn operation(&self, method: &str, path: &str) -> Value {
        let path = path.split('?').next().unwrap();
        let fits = |pattern: &str| {
            let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            pattern.len() == path.len()
                && pattern.iter().zip(&path).all(|(part, given)| part.starts_with('{') || part == given)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let (pattern, operations) = paths.iter().find(|(pattern, _)| fits(pattern)).unwrap();
        let method = method.to_ascii_lowercase();
        self.used.lock().unwrap().insert(format!("{method} {pattern}"));
        operations[&method].clone()
    }

    /// As much of JSON Schema as the document uses.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            let schema = &self.document["components"]["schemas"][name];
            assert!(schema.is_object(), "no schema {name}");
            return self.fits(schema, value).map_err(|why| format!("{name}: {why}"));
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(schemas) = schema[several].as_array() {
                let fitting = schemas.iter().filter(|schema| self.fits(schema, value).is_ok()).count();
                return if fitting == 1 {
                    Ok(())
                } else {
                    Err(format!("{fitting} of {several} fit {value}"))
                };
            }
        }
        let is = match schema["type"].as_str().unwrap() {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            "number" => value.is_number(),
            "array" => {
                let Some(entries) = value.as_array() else { return Err(format!("no array: {value}")) };
                for entry in entries {
                    self.fits(&schema["items"], entry)?;
                }
                true
            }
            "object" => {
                let Some(members) = value.as_object() else { return Err(format!("no object: {value}")) };
                // What has no members in the document may have any.
                if schema.get("properties").is_none() {
                    return Ok(());
                }
                for required in schema["required"].as_array().unwrap() {
                    if !members.contains_key(required.as_str().unwrap()) {
                        return Err(format!("{required} is missing"));
                    }
                }
                for (name, member) in members {
                    let Some(schema) = schema["properties"].get(name) else {
                        return Err(format!("{name} is not described"));
                    };
                    self.fits(schema, member).map_err(|why| format!("{name}: {why}"))?;
                }
                true
            }
            other => panic!("type {other}"),
        };
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return Err(format!("{value} is none of {values:?}"));
        }
        if is { Ok(()) } else { Err(format!("{value} is no {}", schema["type"])) }
    }
}

#[tokio::test]
async fn every_endpoint_is_what_the_document_says() {
    let bench = Bench::new().await;
    let (status, answer) = bench.call("GET", "/healthz", None).await;
    assert_eq!((status, answer.as_str()), (200, Some("ok\n")));
    assert_eq!(bench.call("GET", "/readyz", None).await.0, 503);
    assert_eq!(bench.call("GET", "/metrics", None).await.1, "postrider_x 1\n");
    assert_eq!(bench.call("GET", "/admin/v1/openapi.json", None).await.0, 200);

    let domains = "/admin/v1/domains";
    assert_eq!(bench.call("POST", domains, Some(json!({ "name": "Example.TEST" }))).await.0, 201);
    assert_eq!(bench.call("POST", domains, Some(json!({ "name": "example.test" }))).await.0, 409);
    let other = json!({ "name": "other.test", "alias_of": "example.test" });
    assert_eq!(bench.call("POST", domains, Some(other)).await.0, 201);
    assert_eq!(bench.call("GET", domains, None).await.1.as_array().unwrap().len(), 2);
    let example = "/admin/v1/domains/example.test";
    let patch =
        json!({ "catch_all": "alice@example.test", "quota": { "bytes": 1000 }, "description": "ours" });
    assert_eq!(bench.call("PATCH", example, Some(patch)).await.1["catch_all"], "alice@example.test");
    let patch = json!({ "catch_all": null, "disabled": false });
    let (_, domain) = bench.call("PATCH", example, Some(patch)).await;
    assert_eq!((&domain["catch_all"], &domain["description"]), (&Value::Null, &json!("ours")));
    assert_eq!(domain["quota"], json!({ "bytes": 1000, "messages": null }));
    assert_eq!(bench.call("GET", "/admin/v1/domains/nowhere.test", None).await.0, 404);

    let accounts = "/admin/v1/accounts";
    let new =
        json!({ "address": "Alice@example.test", "password": "correct horse", "display_name": "Alice" });
    let (status, account) = bench.call("POST", accounts, Some(new)).await;
    assert_eq!((status, &account["quota"]["bytes"]), (201, &json!(1000)));
    let short = json!({ "address": "bob@example.test", "password": "short" });
    assert_eq!(bench.call("POST", accounts, Some(short)).await.0, 422);
    let alice = "/admin/v1/accounts/alice@example.test";
    assert_eq!(bench.call("GET", alice, None).await.1["address"], "Alice@example.test");
    bench.grant_endpoints("alice@example.test").await;
    let patch = json!({ "status": "login-disabled", "quota": { "messages": 7 } });
    let (_, account) = bench.call("PATCH", alice, Some(patch)).await;
    assert_eq!(account["quota"], json!({ "bytes": 1000, "messages": 7 }));
    let password = json!({ "password": "another horse" });
    assert_eq!(
        bench.call("PUT", "/admin/v1/accounts/alice@example.test/password", Some(password)).await.0,
        204
    );
    let app = json!({ "name": "my phone", "services": ["imap"] });
    bench.suppression_endpoints("alice@example.test").await;
    let app_passwords = "/admin/v1/accounts/alice@example.test/app-passwords";
    assert_eq!(bench.call("POST", app_passwords, Some(app)).await.0, 201);
    let (_, account) = bench.call("GET", alice, None).await;
    assert_eq!(account["app_passwords"][0]["services"], json!(["imap"]));
    assert_eq!(bench.call("DELETE", &format!("{app_passwords}/my%20phone"), None).await.0, 204);
    assert_eq!(bench.call("DELETE", &format!("{app_passwords}/my%20phone"), None).await.0, 404);

    bench.queue_endpoints().await;
    bench.migrate_endpoints().await;

    let (_, cluster) = bench.call("GET", "/admin/v1/cluster", None).await;
    assert_eq!(
        (&cluster["nodes"][0]["standing"], &cluster["nodes"][1]["shards"]),
        (&json!("live"), &Value::Null)
    );
    assert_eq!(bench.call("POST", "/admin/v1/cluster/drain", None).await.0, 202);
    let (_, cluster) = bench.call("GET", "/admin/v1/cluster", None).await;
    assert_eq!(cluster["nodes"][0]["standing"], "leaving");

    let new = json!({ "address": "info@example.test", "targets": ["alice@example.test"], "send_as": true });
    assert_eq!(bench.call("POST", "/admin/v1/aliases", Some(new)).await.0, 201);
    let info = "/admin/v1/aliases/info@example.test";
    let patch = json!({ "targets": ["x@there.test"] });
    let (_, alias) = bench.call("PATCH", info, Some(patch)).await;
    assert_eq!((&alias["targets"], &alias["send_as"]), (&json!(["x@there.test"]), &json!(true)));
    assert_eq!(bench.call("GET", info, None).await.0, 200);

    let new =
        json!({ "address": "all@example.test", "owner": "alice@example.test", "members": ["b@there.test"] });
    assert_eq!(bench.call("POST", "/admin/v1/lists", Some(new)).await.0, 201);
    let all = "/admin/v1/lists/all@example.test";
    let patch = json!({ "owner": "info@example.test", "add": ["a@there.test"], "remove": ["b@there.test"] });
    assert_eq!(bench.call("PATCH", all, Some(patch)).await.1["members"], json!(["a@there.test"]));
    assert_eq!(bench.call("GET", all, None).await.0, 200);

    let (_, names) = bench.call("GET", "/admin/v1/domains/example.test/names?limit=2", None).await;
    assert_eq!((names["names"].as_array().unwrap().len(), &names["next"]), (2, &json!("info")));
    let (_, names) = bench.call("GET", "/admin/v1/domains/example.test/names?from=info", None).await;
    assert_eq!((names["names"].as_array().unwrap().len(), &names["next"]), (1, &Value::Null));

    let new = json!({ "name": "monitor", "scopes": ["metrics"], "expires": 4_000_000_000_u64 });
    assert_eq!(bench.call("POST", "/admin/v1/tokens", Some(new)).await.0, 201);
    assert_eq!(bench.call("GET", "/admin/v1/tokens", None).await.1.as_array().unwrap().len(), 1);

    for path in ["/admin/v1/tokens/monitor", all, info, alice] {
        assert_eq!(bench.call("DELETE", path, None).await.0, 204, "{path}");
    }
    assert_eq!(bench.call("DELETE", example, None).await.0, 409, "another domain stands for it");
    assert_eq!(bench.call("DELETE", "/admin/v1/domains/other.test", None).await.0, 204);
    assert_eq!(bench.call("DELETE", example, None).await.0, 204);

    let paths = bench.document["paths"].as_object().unwrap();
    let all: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(*bench.used.lock().unwrap(), all);
}

#[tokio::test]
async fn callers_get_what_they_may_have() {
    let bench = Bench::new().await;
    let tcp = |private| Connection::Tcp { remote: ([127, 0, 0, 1], 9).into(), private };
    let tokens = bench.api.tokens();
    let (_, reader) = tokens.create("reader", vec![Scope::Read], None).await.unwrap();
    let (_, writer) = tokens.create("writer", vec![Scope::Read, Scope::Write], None).await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    let unix = |uid| Connection::Unix { uid };
    for (connection, token, method, path, expected) in [
        (tcp(true), None, "GET", "/healthz", 200),
        (tcp(true), None, "GET", "/admin/v1/domains", 401),
        (tcp(true), None, "GET", "/metrics", 401),
        (tcp(true), Some("postrider_wrong"), "GET", "/healthz", 401),
        (tcp(true), Some(reader.as_str()), "GET", "/admin/v1/domains", 200),
        (tcp(false), Some(reader.as_str()), "GET", "/admin/v1/domains", 403),
        (tcp(true), Some(reader.as_str()), "GET", "/metrics", 403),
        (tcp(true), Some(reader.as_str()), "DELETE", "/admin/v1/domains/example.test", 403),
        (tcp(true), Some(writer.as_str()), "DELETE", "/admin/v1/domains/example.test", 404),
        (tcp(true), Some(writer.as_str()), "DELETE", "/admin/v1/tokens/reader", 403),
        (unix(Some(own)), None, "GET", "/admin/v1/tokens", 200),
        (unix(Some(own ^ 0x4000_0000)), None, "GET", "/admin/v1/domains", 403),
        (unix(None), None, "GET", "/admin/v1/domains", 401),
        (tcp(true), Some(writer.as_str()), "GET", "/admin/v1/nothing", 404),
        (tcp(true), Some(writer.as_str()), "PUT", "/admin/v1/domains", 405),
    ] {
        let (status, answer) = bench.send(&connection, token, method, path, None).await;
        assert_eq!(status.as_u16(), expected, "{connection:?} {method} {path}: {answer}");
    }
}

/// A token is good at every node, whichever made it, and withdrawn at any.
#[tokio::test]
async fn tokens_are_the_same_at_every_node() {
    let rows = MemoryEngine::new().engine().rows;
    let (one, other) = (Bench::with_tokens_in(Arc::clone(&rows)).await, Bench::with_tokens_in(rows).await);
    let new = json!({ "name": "deploy", "scopes": ["read"], "expires": null });
    let (status, made) = one.call("POST", "/admin/v1/tokens", Some(new)).await;
    assert_eq!(status, 201);
    let secret = made["secret"].as_str().unwrap();
    let connection = Connection::Tcp { remote: ([192, 0, 2, 1], 9).into(), private: true };
    let domains = async |bench: &Bench| {
        bench.send(&connection, Some(secret), "GET", "/admin/v1/domains", None).await.0.as_u16()
    };
    assert_eq!((domains(&one).await, domains(&other).await), (200, 200));
    assert_eq!(other.call("GET", "/admin/v1/tokens", None).await.1[0]["name"], "deploy");
    assert_eq!(other.call("DELETE", "/admin/v1/tokens/deploy", None).await.0, 204);
    assert_eq!((domains(&one).await, domains(&other).await), (401, 401));
}

#[tokio::test]
async fn acts_are_in_the_audit_log_or_not_done() {
    let bench = Bench::new().await;
    let new = json!({ "name": "example.test" });
    bench.call("POST", "/admin/v1/domains", Some(new)).await;
    let new = json!({ "address": "a@example.test", "password": "correct horse" });
    bench.call("POST", "/admin/v1/accounts", Some(new)).await;
    bench.call("GET", "/admin/v1/accounts/a@example.test", None).await;
    let lines = bench.audit.lines.lock().unwrap().clone();
    assert_eq!(
        lines,
        [
            "this process POST /admin/v1/domains None None",
            "this process POST /admin/v1/domains Some(\"example.test\") Some(201)",
            "this process POST /admin/v1/accounts None None",
            "this process POST /admin/v1/accounts Some(\"a@example.test\") Some(201)",
        ]
    );
    *bench.audit.broken.lock().unwrap() = true;
    let (status, _) = bench.call("DELETE", "/admin/v1/accounts/a@example.test", None).await;
    assert_eq!(status, 503);
    assert_eq!(bench.call("GET", "/admin/v1/accounts/a@example.test", None).await.0, 200, "it was not done");
}

#[tokio::test]
async fn bad_requests_are_problems() {
    let bench = Bench::new().await;
    let process = Connection::Process;
    let large = json!({ "name": "x".repeat(5000) });
    for (path, body, expected) in [
        ("/admin/v1/domains", json!({ "nam": "x" }), 422),
        ("/admin/v1/domains", json!([]), 422),
        ("/admin/v1/domains", json!({ "name": "under score..test" }), 422),
        ("/admin/v1/domains", large, 413),
        ("/admin/v1/accounts", json!({ "address": "nobody" }), 422),
        ("/admin/v1/accounts", json!({ "address": "a@b.test", "password": "x", "password_hash": "y" }), 422),
        ("/admin/v1/tokens", json!({ "name": "x", "scopes": ["everything"] }), 422),
    ] {
        let (status, problem) = bench.send(&process, None, "POST", path, Some(&body)).await;
        assert_eq!(status.as_u16(), expected, "{path} {problem}");
        assert_eq!(problem["status"], expected);
        assert!(problem["detail"].is_string());
    }
    let (status, _) = bench.send(&process, None, "GET", "/admin/v1/domains/a%2Fb/names?limit=x", None).await;
    assert!(status.is_client_error());
}
