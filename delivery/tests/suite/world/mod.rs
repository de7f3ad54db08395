#![allow(clippy::unwrap_used, reason = "helpers of tests, where a failure is to stop the test")]
//! Queue, directory and storage in memory, with the delivery agent over them.

use std::sync::Arc;

use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::memory::MemoryBlobs;
use blob::{BlobStore, KeyRing};
use bytes::Bytes;
use delivery::Delivery;
use directory::account::Quota;
use directory::admin::{NewAccount, NewPassword};
use directory::config::Argon2Config;
use directory::entry::DomainSettings;
use directory::homes::Homes;
use directory::{AccountStores, Directory, LogKeys, Parts, Resolution, Temporary};
use engine::memory::{Faults, MemoryEngine};
use engine::seal::Unencrypted;
use engine::{LogId, LogOptions, Sealer};
use futures_util::StreamExt;
use mail::address::{Address, Domain, ReversePath};
use mail::envelope::{Envelope, Recipient};
use mail::id::{AccountId, QueueId};
use queue::{Clock, Foundation, Origin, Queue, Resolved, Submission, SubmitError};
use storage::{AccountSettings, Principal, Storage};

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

/// What outlives a power cut.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) engine: MemoryEngine,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) clock: Clock,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let clock = Clock::standing(1_800_000_000);
        Self { engine: MemoryEngine::new(), blobs: Arc::new(MemoryBlobs::new()), clock }
    }

    pub(crate) fn after_power_cut(&self, faults: Faults) -> Self {
        Self { engine: self.engine.after_power_cut(faults), ..self.clone() }
    }
}

/// A process over a disk. The accounts are `alice`, `bob`, `sender` and `small` (1 000 octets) at `example.test`; `info` is an
/// alias for alice and one elsewhere, `loop` leads to nobody, `team` is a list of all with the owner `bob`.
pub(crate) struct World {
    pub(crate) queue: Queue,
    pub(crate) storage: Storage,
    pub(crate) directory: Directory,
    pub(crate) delivery: Delivery,
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

impl World {
    /// Opens everything; `None` when the disk fails meanwhile.
    pub(crate) async fn open(disk: &Disk, config: delivery::Config) -> Option<Self> {
        Self::open_in(disk, config, None).await
    }

    /// The same in a region, with the table that it shares with others.
    pub(crate) async fn open_in(disk: &Disk, config: delivery::Config, homes: Option<Homes>) -> Option<Self> {
        let kek = KeyEncryptionKey::from_secret(&[7; 32]);
        let engine = disk.engine.engine();
        let keys = KeyRing::new(kek, engine.rows.clone(), &blob::Config::default());
        let blobs: Arc<dyn blob::Blobs> = disk.blobs.clone();
        let blobs =
            BlobStore::new(blobs, engine.rows.clone(), keys.clone(), blob::Config::default()).await.ok()?;
        // Low thresholds, so that snapshots and trims happen all the time.
        let log_options = LogOptions {
            snapshot_entries_min: 3,
            snapshot_bytes_min: 500,
            snapshot_entries_max: 16,
            deadline_seconds: 5,
            // Whoever moves an account works on the logs beside this process.
            shared: homes.is_some(),
            ..LogOptions::default()
        };
        let storage = Storage::new(
            engine.clone(),
            log_options.clone(),
            None,
            blobs.clone(),
            storage::Config::default(),
        );
        let directory = Directory::open(Parts {
            config: directory::Config {
                argon2: Argon2Config { memory_kib: 64, passes: 1, lanes: 1 },
                scram_iterations: 4096,
                ..directory::Config::default()
            },
            engine: engine.clone(),
            logs: log_options.clone(),
            archive: None,
            keys: Arc::new(NoKeys),
            stores: Arc::new(Accounts(storage.clone())),
            homes,
            on_login_failure: Box::new(|_| {}),
        })
        .await
        .ok()?;
        let clock = disk.clock.clone();
        let foundation = Foundation {
            engine,
            log_options,
            archive: None,
            blobs,
            keys,
            clock,
            sharing: queue::Sharing::Alone,
        };
        let config_queue = queue::Config {
            ingest_shards: 3,
            outbound_shards: 2,
            poll_seconds: 1,
            expiry_grace_seconds: 0,
            retry_seconds_min: 1,
            ..queue::Config::default()
        };
        let queue = Queue::open(foundation, config_queue).await.ok()?;
        let config = delivery::Config { hostname: "mx.example.test".to_owned(), ..config };
        let delivery = Delivery::new(queue.clone(), storage.clone(), directory.clone(), config);
        Some(Self { queue, storage, directory, delivery })
    }

    pub(crate) async fn new(disk: &Disk) -> Self {
        let world = Self::open(disk, delivery::Config::default()).await.unwrap();
        world.populate().await;
        world
    }

    pub(crate) async fn populate(&self) {
        let domain = Domain::parse("example.test").unwrap();
        self.directory.create_domain(&domain, DomainSettings::default()).await.unwrap();
        for (name, bytes) in [("alice", None), ("bob", None), ("sender", None), ("small", Some(1_000))] {
            let new = NewAccount {
                password: NewPassword::Clear("postrider".to_owned()),
                quota: Some(Quota { bytes, messages: None }),
                ..NewAccount::default()
            };
            self.directory.create_account(&address(&format!("{name}@example.test")), new).await.unwrap();
        }
        let alias = |name: &str, targets: &[&str]| {
            let targets = targets.iter().map(|target| address(target)).collect();
            let name = address(&format!("{name}@example.test"));
            async move { self.directory.create_alias(&name, targets, true).await.unwrap() }
        };
        alias("info", &["alice@example.test", "else@where.test"]).await;
        alias("loop", &["nobody@example.test"]).await;
        let team = address("team@example.test");
        self.directory.create_list(&team, &address("bob@example.test")).await.unwrap();
        let members = ["alice@example.test", "bob@example.test", "nobody@example.test"].map(address);
        self.directory.change_members(&team, &members, &[]).await.unwrap();
    }

    pub(crate) async fn account(&self, name: &str) -> AccountId {
        let resolution = self.directory.resolve(&address(&format!("{name}@example.test"))).await.unwrap();
        let Resolution::Account(route) = resolution else { panic!("{name} is no account") };
        route.account
    }

    /// Submits a message to these. With `looked_up`, accounts are named at once, as after RCPT.
    pub(crate) async fn submit(
        &self,
        from: &str,
        to: &[&str],
        text: &str,
        looked_up: bool,
    ) -> Result<QueueId, SubmitError> {
        let reverse_path = if from.is_empty() { ReversePath::NULL } else { ReversePath(Some(address(from))) };
        let mut envelope = Envelope::new(reverse_path);
        let mut resolved = Vec::new();
        for to in to {
            let recipient = address(to);
            resolved.push(match self.directory.resolve(&recipient).await {
                Ok(Resolution::Account(route)) if looked_up => {
                    Resolved::Account { id: route.account, detail: route.detail }
                }
                Ok(Resolution::NotLocal) if looked_up => Resolved::Remote,
                _ => Resolved::Later,
            });
            envelope.recipients.push(Recipient::new(recipient));
        }
        self.submit_envelope(envelope, resolved, text).await
    }

    pub(crate) async fn submit_envelope(
        &self,
        envelope: Envelope,
        resolved: Vec<Resolved>,
        text: &str,
    ) -> Result<QueueId, SubmitError> {
        self.submit_from(Origin::default(), envelope, resolved, text).await
    }

    pub(crate) async fn submit_from(
        &self,
        origin: Origin,
        envelope: Envelope,
        resolved: Vec<Resolved>,
        text: &str,
    ) -> Result<QueueId, SubmitError> {
        let failed = |error: queue::BodyError| SubmitError::Unavailable { reason: error.to_string() };
        let first = resolved.iter().find_map(|found| match found {
            Resolved::Account { id, .. } => Some(*id),
            _ => None,
        });
        let mut writer = self.queue.body_writer(first).await.map_err(failed)?;
        let id = writer.queue_id();
        writer.write(Bytes::copy_from_slice(text.as_bytes())).await.map_err(failed)?;
        let body = writer.finish().await.map_err(failed)?;
        let prefix = format!("Received: from a by b with ESMTP id {id};\r\n\tnow\r\n").into();
        let submission = Submission { envelope, resolved, body, prefix, origin };
        Ok(self.queue.submit(submission).await?.queue_id())
    }

    /// Delivers until nothing is due any more.
    pub(crate) async fn settle(&self) {
        let mut idle = 0;
        while idle < 3 {
            // Reports are on their way, and the keeper has its second.
            tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
            idle = if self.delivery.run_once().await == 0 { idle + 1 } else { 0 };
        }
    }

    /// Whole messages of a mailbox, oldest first.
    pub(crate) async fn mailbox(&self, name: &str, mailbox: &str) -> Vec<String> {
        let account = self.account(name).await;
        let account = self.storage.account(&Principal::Operator, account).await.unwrap();
        let Some(mailbox) = account.state().mailbox_by_name(mailbox).map(|mailbox| mailbox.id) else {
            return Vec::new();
        };
        let state = account.mailbox(mailbox).await.unwrap();
        let index = state.index(mailbox).unwrap();
        let mut messages = Vec::new();
        for position in 0..index.len() {
            let row = index.get(position).unwrap();
            let email = account.email(row.email).await.unwrap().unwrap();
            let body = account.body(&email).await.unwrap();
            let mut pieces = body.range(0..body.size());
            let mut bytes = Vec::new();
            while let Some(piece) = pieces.next().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            messages.push(String::from_utf8(bytes).unwrap());
        }
        messages
    }

    pub(crate) async fn inbox(&self, name: &str) -> Vec<String> {
        self.mailbox(name, "INBOX").await
    }
}
