//! A whole server for JMAP in memory, listening on a port, with the accounts `alice` and `bob`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use directory::account::Quota;
use directory::admin::{NewAccount, NewPassword};
use directory::config::Argon2Config;
use directory::entry::DomainSettings;
use directory::{AccountStores, Directory, LogKeys, Parts, Temporary};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Sealer};
use mail::address::{Address, Domain};
use mail::flag::FlagSet;
use mail::id::AccountId;
use net::listener::{Listener, Service};
use net::shutdown::Shutdown;
use net::tls::{Certificate, SelfSigned, TlsServer};
use queue::{Clock, Foundation, Queue};
use serde_json::{Value, json};
use storage::{Account, AccountSettings, AppendRequest, Appended, InternalDate, Principal, Storage, Target};
use webmail_api::jmap::{self, Config, Jmap, Scan, Sending, SendingRules, TextSearch};
use webmail_api::oauth::{self, Issuer};

use crate::http::{Answer, Client};

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

struct Accounts(Storage);

#[async_trait]
impl AccountStores for Accounts {
    async fn create(&self, account: AccountId, _: &Address, quota: Quota) -> Result<(), Temporary> {
        let settings = AccountSettings { quota_bytes: quota.bytes, quota_messages: quota.messages };
        self.0.create_account(account, settings).await.map_err(|error| Temporary(error.to_string()))
    }
    async fn set_quota(&self, _: AccountId, _: Quota) -> Result<(), Temporary> {
        Err(Temporary("not in these tests".to_owned()))
    }
    async fn delete(&self, _: AccountId) -> Result<(), Temporary> {
        Err(Temporary("not in these tests".to_owned()))
    }
}

pub(crate) struct World {
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) queue: Queue,
    pub(crate) clock: Clock,
    /// Recipients that each user may still write to.
    pub(crate) allowance: Arc<AtomicU32>,
    pub(crate) address: SocketAddr,
    pub(crate) certificate: SelfSigned,
    pub(crate) shutdown: Shutdown,
}

/// What a server stands on.
struct Beneath {
    storage: Storage,
    directory: Directory,
    queue: Queue,
    clock: Clock,
    allowance: Arc<AtomicU32>,
}

pub(crate) const USING: [&str; 5] = [
    "urn:ietf:params:jmap:core",
    "urn:ietf:params:jmap:mail",
    "urn:ietf:params:jmap:blob",
    "urn:ietf:params:jmap:quota",
    "urn:ietf:params:jmap:submission",
];

/// What the queue's clock says at first.
pub(crate) const NOW: u64 = 1_800_000_000;

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config { account_passwords: true, ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let engine = MemoryEngine::new();
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let keys = KeyRing::new(kek, engine.engine().rows, &blob::Config::default());
        let blobs = Arc::new(MemoryBlobs::new());
        let blob_config = blob::Config::default();
        let blobs = BlobStore::new(blobs, engine.engine().rows, keys.clone(), blob_config).await.unwrap();
        let options = LogOptions::default();
        let storage = Storage::new(engine.engine(), options, None, blobs.clone(), storage::Config::default());
        let clock = Clock::standing(NOW);
        let foundation = Foundation {
            engine: engine.engine(),
            log_options: LogOptions::default(),
            archive: None,
            blobs,
            keys,
            clock: clock.clone(),
            sharing: queue::Sharing::Alone,
        };
        let queue = Queue::open(foundation, queue::Config::default()).await.unwrap();
        let allowance = Arc::new(AtomicU32::new(1_000));
        let directory = Directory::open(Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4096,
                ..directory::Config::default()
            },
            engine: engine.engine(),
            logs: LogOptions::default(),
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::new(Accounts(storage.clone())),
            homes: None,
            on_login_failure: Box::new(|_| {}),
        })
        .await
        .unwrap();
        let domain = Domain::parse("example.test").unwrap();
        directory.create_domain(&domain, DomainSettings::default()).await.unwrap();
        for name in ["alice", "bob"] {
            let password = NewPassword::Clear("postrider".to_owned());
            let new = NewAccount { password, ..NewAccount::default() };
            let address = Address::parse(&format!("{name}@example.test")).unwrap();
            directory.create_account(&address, new).await.unwrap();
        }
        Self::serve(
            config,
            Beneath { storage, directory, queue, clock, allowance },
            Arc::new(Scan::default()),
        )
        .await
    }

    /// Another server beside this one, which finds texts otherwise.
    pub(crate) async fn beside(&self, text: Arc<dyn TextSearch>) -> Self {
        let config = Config { account_passwords: true, ..Config::default() };
        let beneath = Beneath {
            storage: self.storage.clone(),
            directory: self.directory.clone(),
            queue: self.queue.clone(),
            clock: self.clock.clone(),
            allowance: self.allowance.clone(),
        };
        Self::serve(config, beneath, text).await
    }

    async fn serve(config: Config, beneath: Beneath, text: Arc<dyn TextSearch>) -> Self {
        let Beneath { storage, directory, queue, clock, allowance } = beneath;
        let certificate = Certificate::self_signed(&["jmap.example.test".to_owned()]).unwrap();
        let tls = TlsServer::new(&[certificate.certificate().unwrap()]).unwrap();
        let jmap = Jmap::new(jmap::Parts {
            config,
            storage: storage.clone(),
            directory: directory.clone(),
            text,
            issuer: Some(Issuer::new(oauth::Config::default(), directory.clone(), String::new())),
            sending: Some(sending(&queue, &allowance)),
        });
        let net = net::listener::Config::default();
        let limits = net.limits();
        let service = Service {
            name: "https",
            implicit_tls: Some(tls.with_protocols(Jmap::protocols())),
            refusal: bytes::Bytes::new(),
        };
        let at = net::listener::Address::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&at, service, Arc::new(net), limits).await.unwrap();
        let net::listener::Address::Tcp(address) = listener.address() else { panic!("TCP was asked for") };
        let shutdown = Shutdown::new();
        let serve = move |stream, guard| {
            let jmap = jmap.clone();
            async move { jmap.serve(stream, guard).await }
        };
        tokio::spawn(listener.run(shutdown.clone(), serve));
        Self { storage, directory, queue, clock, allowance, address, certificate, shutdown }
    }

    /// Delivers what is due.
    pub(crate) async fn deliver(&self) {
        let (queue, storage) = (self.queue.clone(), self.storage.clone());
        let delivery =
            delivery::Delivery::new(queue, storage, self.directory.clone(), delivery::Config::default());
        delivery.run_once().await;
    }

    pub(crate) fn client(&self, name: &str) -> Client<'_> {
        Client::new(self, &format!("{name}@example.test"), "postrider")
    }

    pub(crate) async fn account(&self, name: &str) -> Account {
        let address = Address::parse(&format!("{name}@example.test")).unwrap();
        let directory::Resolution::Account(route) = self.directory.resolve(&address).await.unwrap() else {
            panic!("{name} is an account");
        };
        self.storage.account(&Principal::Owner(route.account), route.account).await.unwrap()
    }

    /// Puts a message into a mailbox by name, with flags as IMAP names them.
    pub(crate) async fn put(&self, name: &str, mailbox: &str, flags: &[&str], message: &str) -> Appended {
        self.put_at(name, mailbox, flags, message, 1_700_000_000).await
    }

    pub(crate) async fn put_at(
        &self,
        name: &str,
        mailbox: &str,
        flags: &[&str],
        message: &str,
        at: i64,
    ) -> Appended {
        let account = self.account(name).await;
        let mut writer = account.body_writer();
        writer.write(message.replace('\n', "\r\n").into()).await.unwrap();
        let body = writer.finish().await.unwrap();
        let mut set = FlagSet::new();
        for flag in flags {
            set.insert_name(flag).unwrap();
        }
        let mailbox = account.state().mailbox_by_name(mailbox).unwrap().id;
        let request = AppendRequest {
            target: Target::Mailbox(mailbox),
            body,
            flags: set,
            internal_date: Some(InternalDate::utc(at)),
        };
        account.append(request).await.unwrap()
    }
}

fn sending(queue: &Queue, allowance: &Arc<AtomicU32>) -> Sending {
    let left = Arc::clone(allowance);
    let take =
        move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    Sending {
        queue: queue.clone(),
        rules: SendingRules {
            hostname: "mx.example.test".to_owned(),
            received_max: 100,
            sender_login_check: true,
            message_bytes_max: 100_000,
            text_line_bytes_max: 1_000,
            recipients_max: 20,
            hold_seconds_max: 86_400,
            deliver_by_seconds_min: 60,
            priorities: true,
            undo_margin_seconds: 2,
        },
        may_write_to_one_more: Box::new(move |_| take()),
    }
}

impl Client<'_> {
    pub(crate) async fn session(&self) -> Value {
        self.get("/.well-known/jmap").await.json()
    }

    pub(crate) async fn account_id(&self) -> String {
        let session = self.session().await;
        session["primaryAccounts"]["urn:ietf:params:jmap:mail"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn api(&self, body: &str) -> Answer {
        self.post("/jmap/api", "application/json", body.as_bytes()).await
    }

    /// Makes calls, with `accountId` added to each, and gives the answers.
    pub(crate) async fn calls(&self, calls: &[(&str, Value)]) -> Vec<(String, Value)> {
        let account = self.account_id().await;
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(at, (name, arguments))| {
                let mut arguments = arguments.clone();
                if !arguments.as_object().unwrap().contains_key("accountId") {
                    arguments["accountId"] = json!(account);
                }
                json!([name, arguments, at.to_string()])
            })
            .collect();
        let answer = self.api(&json!({"using": USING, "methodCalls": calls}).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut answers = answer.json();
        let Value::Array(list) = answers["methodResponses"].take() else { panic!("{answers}") };
        list.into_iter()
            .map(|mut answer| (answer[0].as_str().unwrap().to_owned(), answer[1].take()))
            .collect()
    }

    /// Makes one call that succeeds.
    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Value {
        let (answered, answer) = self.calls(&[(name, arguments)]).await.remove(0);
        assert_eq!(answered, name, "{answer}");
        answer
    }

    /// Makes one call that fails, and gives the type of the error.
    pub(crate) async fn refused(&self, name: &str, arguments: Value) -> (String, String) {
        let (answered, answer) = self.calls(&[(name, arguments.clone())]).await.remove(0);
        assert_eq!(answered, "error", "{name} {arguments}: {answer}");
        let member = |member: &str| answer[member].as_str().unwrap().to_owned();
        (member("type"), member("description"))
    }
}
