//! An installation in memory, and short ways to say common things.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of tests")]

pub mod client;
pub mod jmap_client;

use std::sync::Arc;

use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobArchive, BlobStore, KeyRing};
use bytes::Bytes;
use engine::LogOptions;
use engine::memory::MemoryEngine;
use futures_util::TryStreamExt;
use mail::flag::FlagSet;
use mail::id::{AccountId, MailboxId, Uid};
use mail::uid::UidSet;
use storage::{
    Account, AccountSettings, AppendRequest, Config, Layout, Principal, Storage, StoredBody, Target,
};
use uuid::Uuid;

pub const ACCOUNT: AccountId = AccountId(Uuid::from_u128(77));

/// Engine, blobs and keys: what survives a restart.
#[derive(Clone)]
pub struct Disk {
    pub engine: MemoryEngine,
    pub blobs: MemoryBlobs,
    pub options: LogOptions,
    pub config: Config,
    pub archive: bool,
    /// One for all nodes: recovery when it is made takes for dead what another left open.
    store: Arc<tokio::sync::OnceCell<BlobStore>>,
}

impl Disk {
    pub fn new() -> Self {
        Self {
            engine: MemoryEngine::new(),
            blobs: MemoryBlobs::new(),
            options: LogOptions::default(),
            config: Config::default(),
            archive: false,
            store: Arc::default(),
        }
    }

    /// Everything that happens seldom happens often: small pages, early snapshots, other nodes.
    pub fn eventful() -> Self {
        let options = LogOptions {
            snapshot_entries_min: 2,
            snapshot_bytes_min: 200,
            snapshot_entries_max: 6,
            shared: true,
            head_poll_ms: 50,
            backoff_ms_min: 1,
            backoff_ms_max: 3,
            retry_ms: 1,
            ..LogOptions::default()
        };
        let layout = Layout { index_messages: 8, email_records: 6, run_keys: 4, trail_bytes: 60 };
        let config = Config { layout, expunged_bytes_max: 200, ..Config::default() };
        Self { options, config, archive: true, ..Self::new() }
    }

    /// A node on this disk.
    pub async fn start(&self) -> Storage {
        let engine = self.engine.engine();
        let make = async || {
            let config = blob::Config { key_cache_seconds: 3600, ..blob::Config::default() };
            let keys = KeyRing::new(KeyEncryptionKey::from_secret(&[7; 32]), engine.rows.clone(), &config);
            BlobStore::new(Arc::new(self.blobs.clone()), engine.rows.clone(), keys, config).await.unwrap()
        };
        let blobs = self.store.get_or_init(make).await.clone();
        let archive =
            self.archive.then(|| Arc::new(BlobArchive::new(blobs.clone())) as Arc<dyn engine::Archive>);
        Storage::new(engine, self.options.clone(), archive, blobs, self.config.clone())
    }

    /// The same disk after a restart of the machine, with another engine in place of the old one.
    pub fn rebooted(&self, engine: MemoryEngine) -> Self {
        Self { engine, store: Arc::default(), ..self.clone() }
    }

    /// A node with one account on it.
    pub async fn start_with_account(&self) -> (Storage, Account) {
        let storage = self.start().await;
        storage.create_account(ACCOUNT, AccountSettings::default()).await.unwrap();
        let account = open(&storage).await;
        (storage, account)
    }
}

pub async fn open(storage: &Storage) -> Account {
    storage.account(&Principal::Owner(ACCOUNT), ACCOUNT).await.unwrap()
}

pub fn mailbox(account: &Account, name: &str) -> MailboxId {
    account.state().mailbox_by_name(name).unwrap_or_else(|| panic!("no mailbox {name}")).id
}

pub async fn write(account: &Account, message: &[u8]) -> StoredBody {
    let mut writer = account.body_writer();
    for piece in message.chunks(1000) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

pub fn message(number: u32) -> Vec<u8> {
    format!(
        "From: Ann <ann@example.test>\r\nTo: bob@example.test\r\nSubject: number {number}\r\n\
         Message-ID: <{number}@example.test>\r\n\r\nThis is message {number}.\r\n"
    )
    .into_bytes()
}

pub fn flags(names: &str) -> FlagSet {
    let mut set = FlagSet::new();
    for name in names.split_whitespace() {
        set.insert_name(name).unwrap();
    }
    set
}

pub fn uids(text: &str) -> UidSet {
    if text.is_empty() { UidSet::new() } else { UidSet::parse(text).unwrap() }
}

pub fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

pub fn request(body: StoredBody, mailbox: MailboxId, names: &str) -> AppendRequest {
    AppendRequest { target: Target::Mailbox(mailbox), body, flags: flags(names), internal_date: None }
}

/// Appends messages with these numbers, in one commit.
pub async fn fill(account: &Account, mailbox: MailboxId, numbers: impl IntoIterator<Item = u32>) -> UidSet {
    let mut requests = Vec::new();
    for number in numbers {
        requests.push(request(write(account, &message(number)).await, mailbox, ""));
    }
    let appended = account.append_many(requests).await.unwrap();
    appended.into_iter().map(|appended| appended.uid).collect()
}

/// What is in a mailbox: UID and flags of each message.
pub async fn listing(account: &Account, mailbox: MailboxId) -> String {
    let state = account.mailbox(mailbox).await.unwrap();
    let rows = state.index(mailbox).unwrap().iter();
    let shown: Vec<String> = rows.map(|row| format!("{}({})", row.uid, state.flag_set(row.marks))).collect();
    shown.join(" ")
}

pub async fn bytes_of(account: &Account, row: &storage::MessageRow) -> Vec<u8> {
    let record = account.email(row.email).await.unwrap().expect("the email has a record");
    assert_eq!(record.size, u64::from(row.size));
    let body = account.body(&record).await.unwrap();
    let pieces: Vec<Bytes> = body.range(0..u64::MAX).try_collect().await.unwrap();
    pieces.concat()
}
