//! A whole reading side in memory, and a client whose every response is checked by imap-codec.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, Blobs, KeyRing};
use directory::account::Quota;
use directory::admin::{NewAccount, NewPassword};
use directory::config::Argon2Config;
use directory::entry::DomainSettings;
use directory::{AccountStores, Directory, LogKeys, Parts, Temporary};
use engine::memory::MemoryEngine;
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Sealer};
use imap::{Config, Imap};
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;
use imap_protocol::client::{Client, Event};
use mail::address::{Address, Domain};
use mail::id::AccountId;
use net::pump::{Pump, PumpLimits};
use net::shutdown::Shutdown;
use net::stream::Stream;
use net::tls::{Certificate, SelfSigned, TlsClient, TlsServer};
use storage::{AccountSettings, Storage};

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

/// The service over memory, with the accounts `alice` and `small` (2 000 octets) at `example.test` and the password
/// `postrider`.
pub(crate) struct World {
    pub(crate) imap: Imap,
    pub(crate) directory: Directory,
    pub(crate) storage: Storage,
    pub(crate) shutdown: Shutdown,
    pub(crate) certificate: SelfSigned,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::over(config, Arc::new(MemoryBlobs::new())).await
    }

    /// Message bytes lie there.
    pub(crate) async fn over(config: Config, blobs: Arc<dyn Blobs>) -> Self {
        Self::on(config, LogOptions::default(), storage::Config::default(), blobs).await
    }

    /// Accounts of which as little as possible stays in memory, in pages that are as small as can be.
    pub(crate) async fn forgetful() -> Self {
        let logs = LogOptions {
            snapshot_entries_min: 1,
            snapshot_bytes_min: 1,
            snapshot_entries_max: 2,
            memory_bytes_max: 1,
            ..LogOptions::default()
        };
        let layout = storage::Layout { trail_bytes: 32, ..storage::Layout::default() };
        let settings = storage::Config { layout, ..storage::Config::default() };
        Self::on(Config::default(), logs, settings, Arc::new(MemoryBlobs::new())).await
    }

    async fn on(config: Config, logs: LogOptions, settings: storage::Config, blobs: Arc<dyn Blobs>) -> Self {
        let engine = MemoryEngine::new();
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let keys = KeyRing::new(kek, engine.engine().rows, &blob::Config::default());
        let blobs = BlobStore::new(blobs, engine.engine().rows, keys, blob::Config::default()).await.unwrap();
        let storage = Storage::new(engine.engine(), logs, None, blobs, settings);
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
        for (name, bytes) in [("alice", None), ("small", Some(2000))] {
            let new = NewAccount {
                password: NewPassword::Clear("postrider".to_owned()),
                quota: Some(Quota { bytes, messages: None }),
                ..NewAccount::default()
            };
            let address = Address::parse(&format!("{name}@example.test")).unwrap();
            directory.create_account(&address, new).await.unwrap();
        }
        Self::beside(config, storage, directory)
    }

    /// Another service over the same accounts.
    pub(crate) fn beside(config: Config, storage: Storage, directory: Directory) -> Self {
        let certificate = Certificate::self_signed(&["imap.example.test".to_owned()]).unwrap();
        let tls = TlsServer::new(&[certificate.certificate().unwrap()]).unwrap();
        let imap = Imap::new(config, storage.clone(), directory.clone(), Some(tls));
        Self { imap, directory, storage, shutdown: Shutdown::new(), certificate }
    }

    /// The client's end of a connection; `remote` is where the server thinks that it comes from.
    pub(crate) fn stream(&self, remote: Option<&str>) -> Stream {
        let (mut here, there) = Stream::memory_pair(64 * 1024);
        if let Some(remote) = remote {
            let end = net::stream::End::Tcp(remote.parse().unwrap());
            here.set_ends(end.clone(), end);
        }
        let (imap, guard) = (self.imap.clone(), self.shutdown.guard());
        tokio::spawn(async move { imap.serve(here, guard).await });
        there
    }

    /// Connects, and reads the greeting.
    pub(crate) async fn connect(&self, remote: Option<&str>) -> Session {
        let tls = TlsClient::trusting_self_signed("imap.example.test", &self.certificate).unwrap();
        let pump = Pump::new(self.stream(remote), Client::new(), PumpLimits::default()).with_tls_client(tls);
        let mut session = Session { pump, tag: 0 };
        let greeting = session.event().await;
        assert!(greeting.starts_with("* OK [CAPABILITY IMAP4rev1 "), "{greeting}");
        session
    }

    /// Connects and logs in as alice.
    pub(crate) async fn alice(&self) -> Session {
        self.login("alice").await
    }

    pub(crate) async fn login(&self, name: &str) -> Session {
        let mut session = self.connect(None).await;
        let reply = session.run(&format!("LOGIN {name}@example.test postrider")).await;
        assert!(reply.tagged.starts_with("OK [CAPABILITY "), "{}", reply.tagged);
        session
    }

    /// Connects, logs in as alice and selects a mailbox.
    pub(crate) async fn selected(&self, mailbox: &str) -> Session {
        let mut session = self.alice().await;
        session.ok(&format!("SELECT {mailbox}")).await;
        session
    }
}

/// The account of alice.
pub(crate) async fn alice_id(world: &World) -> AccountId {
    let address = Address::parse("alice@example.test").unwrap();
    match world.directory.entry(&address).await.unwrap().as_deref() {
        Some(directory::entry::Entry::Account(account)) => account.id,
        other => panic!("{other:?}"),
    }
}

/// What a command was answered with. Lines are without their ends.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) untagged: Vec<String>,
    /// Without the tag.
    pub(crate) tagged: String,
}

impl Reply {
    /// The lines that hold `word`.
    pub(crate) fn with(&self, word: &str) -> Vec<&str> {
        self.untagged.iter().filter(|line| line.contains(word)).map(String::as_str).collect()
    }
}

/// A client.
pub(crate) struct Session {
    pub(crate) pump: Pump<Client>,
    tag: u32,
}

impl Session {
    /// The next response.
    pub(crate) async fn event(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(20), self.pump.next());
        let event = next.await.expect("an answer in time").unwrap().expect("an open connection");
        validate(&event);
        let text = String::from_utf8_lossy(event.bytes()).into_owned();
        text.strip_suffix("\r\n").expect("responses end in CRLF").to_owned()
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.pump.machine().send(bytes);
        self.pump.flush().await.unwrap();
    }

    /// Sends a command and reads to its end.
    pub(crate) async fn run(&mut self, command: &str) -> Reply {
        self.run_bytes(command.as_bytes()).await
    }

    pub(crate) async fn run_bytes(&mut self, command: &[u8]) -> Reply {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.send(&[tag.as_bytes(), b" ", command, b"\r\n"].concat()).await;
        self.read_to(&tag).await
    }

    pub(crate) async fn read_to(&mut self, tag: &str) -> Reply {
        let mut untagged = Vec::new();
        loop {
            let response = self.event().await;
            match response.strip_prefix(tag) {
                Some(tagged) => return Reply { untagged, tagged: tagged.trim_start().to_owned() },
                None => untagged.push(response),
            }
        }
    }

    /// Runs a command that must succeed.
    pub(crate) async fn ok(&mut self, command: &str) -> Reply {
        let reply = self.run(command).await;
        assert!(reply.tagged.starts_with("OK "), "{command}: {}", reply.tagged);
        reply
    }

    /// Runs a command; its untagged responses and the beginning of the tagged one must be these.
    pub(crate) async fn expect(&mut self, command: &str, untagged: &[&str], tagged: &str) {
        let reply = self.run(command).await;
        assert_eq!(reply.untagged, untagged, "{command}");
        assert!(reply.tagged.starts_with(tagged), "{command}: {}", reply.tagged);
    }

    /// Appends a message.
    pub(crate) async fn append(&mut self, mailbox: &str, flags: &str, message: &str) -> Reply {
        let date = "\" 7-Feb-1994 21:52:25 -0800\"";
        self.ok(&format!("APPEND {mailbox} ({flags}) {date} {{{}+}}\r\n{message}", message.len())).await
    }
}

/// Every response must be one that imap-codec can read, but for what it does not know.
fn validate(event: &Event) {
    let bytes = event.bytes();
    let text = String::from_utf8_lossy(bytes);
    let unknown_to_codec = ["* ESEARCH", "* SORT", "* THREAD"].iter().any(|start| text.starts_with(start))
        || text.contains("CHILDINFO")
        || text.contains("PREVIEW ")
        || (text.starts_with("* STATUS") && (text.contains("SIZE ") || text.contains("APPENDLIMIT")));
    if unknown_to_codec {
        return;
    }
    match ResponseCodec::default().decode(bytes) {
        Ok((rest, _)) => assert!(rest.is_empty(), "codec leaves a rest of {text}"),
        Err(error) => panic!("codec cannot read {text}: {error:?}"),
    }
}

/// A plain message.
pub(crate) fn plain(subject: &str, text: &str) -> String {
    format!(
        "From: Fred Foobar <fred@example.com>\r\nTo: alice@example.test\r\nSubject: {subject}\r\n\
         Date: Mon, 7 Feb 1994 21:52:25 -0800\r\nMessage-ID: <{subject}@example.com>\r\n\r\n{text}\r\n"
    )
}

/// A multipart message with a message inside.
pub(crate) const MULTIPART: &str = "From: a@b\r\nSubject: outer\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=x\r\n\r\npreamble\r\n\
    --x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nK=C3=A4se ist\r\n gut\r\n\
    --x\r\nContent-Type: message/rfc822\r\n\r\nFrom: c@d\r\nSubject: =?utf-8?Q?in=C3=A4r?=\r\n\r\ninner text\r\n\
    --x\r\nContent-Type: application/octet-stream; name=f.bin\r\nContent-Transfer-Encoding: base64\r\n\r\na8Okc2U=\r\n\
    --x--\r\n";
