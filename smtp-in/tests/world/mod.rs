//! A whole receiving side in memory, and a client that speaks line by line.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use directory::account::Quota;
use directory::admin::{NewAccount, NewPassword};
use directory::config::Argon2Config;
use directory::entry::DomainSettings;
use directory::{
    AccountStores, Directory, LogKeys, NewGrant, Parts, PlainLogin, Service, ServiceSet, Temporary,
};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Sealer};
use mail::address::{Address, Domain};
use mail::id::AccountId;
use net::shutdown::Shutdown;
use net::stream::Stream;
use net::tls::{Certificate, SelfSigned, TlsServer};
use queue::{Clock, Foundation, Queue};
use smtp_in::{Config, Role, SmtpIn};
use storage::{AccountSettings, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// Everything below the service, with the accounts `alice`, `bob` and `small` (2 000 octets) at `example.test`, the
/// alias `info` for alice and one elsewhere, and the password `postrider`.
pub(crate) struct World {
    pub(crate) engine: MemoryEngine,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) directory: Directory,
    pub(crate) queue: Queue,
    pub(crate) storage: Storage,
    pub(crate) service: SmtpIn,
    pub(crate) shutdown: Shutdown,
    pub(crate) certificate: SelfSigned,
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

impl World {
    /// What a program logs in with for somebody.
    pub(crate) async fn token(&self, of: &str) -> String {
        let (login, service) = (of.to_owned(), Service::Smtp);
        let login = PlainLogin { login, password: "postrider".to_owned(), service };
        let principal = self.directory.authenticate(&login, [127, 0, 0, 1].into()).await.unwrap();
        let new = NewGrant { client: "c", name: "a program", services: ServiceSet::ALL };
        let (grant, _) = self.directory.grant(&principal, new).await.unwrap();
        let token = self.directory.access_token(principal.account, &grant);
        token.reveal().to_owned()
    }

    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// With other settings of the service.
    pub(crate) async fn with(config: Config) -> Self {
        let engine = MemoryEngine::new();
        let blobs = Arc::new(MemoryBlobs::new());
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let keys = KeyRing::new(kek, engine.engine().rows, &blob::Config::default());
        let store = BlobStore::new(
            Arc::clone(&blobs) as Arc<dyn blob::Blobs>,
            engine.engine().rows,
            keys.clone(),
            blob::Config::default(),
        )
        .await
        .unwrap();
        let storage = Storage::new(
            engine.engine(),
            LogOptions::default(),
            None,
            store.clone(),
            storage::Config::default(),
        );
        let directory = Directory::open(Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4096,
                postmaster: "alice@example.test".to_owned(),
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
        let foundation = Foundation {
            engine: engine.engine(),
            log_options: LogOptions::default(),
            archive: None,
            blobs: store,
            keys,
            clock: Clock::system(),
            sharing: queue::Sharing::Alone,
        };
        let queue = Queue::open(foundation, queue::Config::default()).await.unwrap();
        let certificate = Certificate::self_signed(&["mx.example.test".to_owned()]).unwrap();
        let tls = TlsServer::new(&[certificate.certificate().unwrap()]).unwrap();
        let config = Config { hostname: "mx.example.test".to_owned(), ..config };
        let service = SmtpIn::new(config, directory.clone(), queue.clone(), storage.clone(), Some(tls));
        let world = Self {
            engine,
            blobs,
            directory,
            queue,
            storage,
            service,
            shutdown: Shutdown::new(),
            certificate,
        };
        world.populate().await;
        world
    }

    async fn populate(&self) {
        let domain = Domain::parse("example.test").unwrap();
        self.directory.create_domain(&domain, DomainSettings::default()).await.unwrap();
        for (name, bytes) in [("alice", None), ("bob", None), ("small", Some(2000))] {
            let new = NewAccount {
                password: NewPassword::Clear("postrider".to_owned()),
                quota: Some(Quota { bytes, messages: None }),
                ..NewAccount::default()
            };
            self.directory.create_account(&address(&format!("{name}@example.test")), new).await.unwrap();
        }
        let targets = vec![address("alice@example.test"), address("else@where.test")];
        self.directory.create_alias(&address("info@example.test"), targets, true).await.unwrap();
    }

    /// Connects, and reads the greeting.
    pub(crate) async fn connect(&self, role: Role) -> Client {
        let stream = self.stream(role);
        let mut client = Client { stream };
        client.expect("220 mx.example.test").await;
        client
    }

    /// A connection that somebody else speaks over.
    pub(crate) fn stream(&self, role: Role) -> Stream {
        let (here, there) = Stream::memory_pair(64 * 1024);
        let (service, guard) = (self.service.clone(), self.shutdown.guard());
        tokio::spawn(async move { service.serve(role, here, guard).await });
        there
    }

    /// Whole messages of the INBOX, oldest first.
    pub(crate) async fn inbox(&self, name: &str) -> Vec<String> {
        let resolution = self.directory.resolve(&address(&format!("{name}@example.test"))).await.unwrap();
        let directory::Resolution::Account(route) = resolution else { panic!("{name} is no account") };
        let account = self.storage.account(&storage::Principal::Operator, route.account).await.unwrap();
        let inbox = account.state().mailbox_by_name("INBOX").unwrap().id;
        let state = account.mailbox(inbox).await.unwrap();
        let index = state.index(inbox).unwrap();
        let mut messages = Vec::new();
        for position in 0..index.len() {
            let row = index.get(position).unwrap();
            let email = account.email(row.email).await.unwrap().unwrap();
            let body = account.body(&email).await.unwrap();
            let mut pieces = body.range(0..body.size());
            let mut bytes = Vec::new();
            while let Some(piece) = futures_util::StreamExt::next(&mut pieces).await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            messages.push(String::from_utf8(bytes).unwrap());
        }
        messages
    }

    /// Takes what is in the queue: prefix, recipients, and the message itself.
    pub(crate) async fn queued(&self) -> Vec<(String, Vec<String>, String)> {
        let mut items = Vec::new();
        for claimed in self.queue.claim_now(100).await {
            let details = self.queue.details(&claimed).await.unwrap();
            let body = claimed.message().body;
            let reader = self.queue.blobs().open(&body, body.key).await.unwrap();
            let mut pieces = std::pin::pin!(reader.read_range(0..body.size));
            let mut bytes = Vec::new();
            while let Some(piece) = futures_util::StreamExt::next(&mut pieces).await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            items.push((
                String::from_utf8(details.prefix.clone()).unwrap(),
                details.recipients.iter().map(|recipient| recipient.address.to_string()).collect(),
                String::from_utf8(bytes).unwrap(),
            ));
        }
        items
    }
}

/// A client that says lines and compares answers.
pub(crate) struct Client {
    pub(crate) stream: Stream,
}

impl Client {
    /// Says a line (or several, with CRLF between).
    pub(crate) async fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads one reply; it has to begin with this.
    pub(crate) async fn expect(&mut self, beginning: &str) -> String {
        let mut reply = String::new();
        loop {
            let line = tokio::time::timeout(Duration::from_secs(20), self.line()).await.expect("an answer");
            let last = line.len() < 4 || line.as_bytes()[3] == b' ';
            reply.push_str(&line);
            if last {
                assert!(reply.starts_with(beginning), "{beginning} was expected: {reply:?}");
                return reply;
            }
        }
    }

    pub(crate) async fn ask(&mut self, line: &str, beginning: &str) -> String {
        self.say(line).await;
        self.expect(beginning).await
    }

    /// A whole message after DATA was answered with 354.
    pub(crate) async fn message(&mut self, text: &str, beginning: &str) -> String {
        self.ask("DATA", "354").await;
        self.ask(&format!("{text}."), beginning).await
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match self.stream.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(line).unwrap()
    }
}
