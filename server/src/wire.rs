//! Puts the crates together: which back ends there are, and who gets what. Nothing else knows all of them.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use blob::keys::KeyEncryptionKey;
use blob::{BlobStore, KeyId, KeyRing};
use bytes::Bytes;
use directory::account::Quota;
use directory::{AccountStores, Directory, LogKeys, Temporary};
use engine::{Engine, LogId, LogOptions, Sealer};
use mail::address::Address;
use mail::id::AccountId;
use net::listener::Listener;
use net::shutdown::Shutdown;
use net::tls::TlsServer;
use webmail_api::admin::token::Tokens;
use webmail_api::admin::{Api, Parts};

use crate::audit::AuditLog;
use crate::config::{Config, ServiceKind};
use crate::health::Health;

/// Everything that is stored, opened. One process has it at a time.
pub(crate) struct Stores {
    pub(crate) directory: Directory,
    pub(crate) health: Health,
    audit: AuditLog,
    blobs: BlobStore,
}

impl Stores {
    /// Opens the data folder; makes it when it is not there.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let health = Health::new(crate::metrics::install()?);
        make_folder(&config.data)?;
        let kek = KeyEncryptionKey::read_or_create(&config.key_path()).context("key-encryption key")?;
        let engine = engine::memory::MemoryEngine::new().engine();
        let keys = KeyRing::new(kek, Arc::clone(&engine.rows), &blob::Config::default());
        let segments =
            blob::dir::DirBlobs::open(&config.data.join("segments"), blob::dir::DirConfig::default())
                .context("segments")?;
        let blobs = BlobStore::new(
            Arc::new(segments),
            Arc::clone(&engine.rows),
            keys.clone(),
            blob::Config::default(),
        )
        .await
        .context("segments")?;
        let audit = AuditLog::open(&config.data.join("audit.jsonl"))?;
        let directory = open_directory(config, engine, &keys, &audit).await?;
        Ok(Self { directory, health, audit, blobs })
    }

    /// The admin API over these stores.
    pub(crate) fn admin_api(&self, config: &Config) -> anyhow::Result<Api> {
        let tokens = Tokens::open(&config.data.join("admin-tokens.json"), config.admin.tokens_max)?;
        Ok(Api::new(Parts {
            config: config.admin.clone(),
            directory: self.directory.clone(),
            tokens,
            audit: Arc::new(self.audit.clone()),
            monitor: Arc::new(self.health.clone()),
        }))
    }

    /// Closes everything in order. To be called when no service uses it any more.
    pub(crate) async fn close(self) {
        let Self { directory, blobs, .. } = self;
        drop(directory);
        blobs.close().await;
    }
}

/// The services of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services {}

impl Services {
    pub(crate) fn new(_config: &Config, _stores: &Stores, _tls: Option<TlsServer>) -> Self {
        Self {}
    }

    /// What is said to connections that are over a limit.
    pub(crate) fn refusal(kind: ServiceKind) -> Bytes {
        match kind {
            ServiceKind::Imap | ServiceKind::Imaps => Bytes::from_static(b"* BYE too many connections\r\n"),
            ServiceKind::Smtp | ServiceKind::Submission | ServiceKind::Submissions | ServiceKind::Lmtp => {
                Bytes::from_static(b"421 4.7.0 too many connections, try again later\r\n")
            }
            ServiceKind::Admin => Bytes::new(),
        }
    }

    /// Accepts connections of a service until the process ends.
    pub(crate) fn accept(&self, kind: ServiceKind, listener: Listener, shutdown: Shutdown) {
        let _ = (kind, listener, shutdown);
    }

    /// Starts what works without connections.
    pub(crate) fn work(&self, _shutdown: &Shutdown) {}
}

async fn open_directory(
    config: &Config,
    engine: Engine,
    keys: &KeyRing,
    audit: &AuditLog,
) -> anyhow::Result<Directory> {
    let audit = audit.clone();
    Directory::open(directory::Parts {
        config: config.directory.clone(),
        engine,
        logs: LogOptions::default(),
        archive: None,
        keys: Arc::new(SystemKeys(keys.clone())),
        stores: Arc::new(Accounts),
        on_login_failure: Box::new(move |failure| audit.login_failed(failure)),
    })
    .await
    .context("directory")
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    // Only the server's own user has any business here.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data folder {}", path.display()))
}

/// Keys of the directory's logs.
struct SystemKeys(KeyRing);

#[async_trait]
impl LogKeys for SystemKeys {
    async fn create(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        self.0.ensure(KeyId::System(log.id)).await.map_err(|error| Temporary(chain(&error)))?;
        self.open(log).await
    }

    async fn open(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary> {
        self.0.sealer(KeyId::System(log.id)).await.map_err(|error| Temporary(chain(&error)))
    }

    async fn erase(&self, log: LogId) -> Result<(), Temporary> {
        self.0.erase(KeyId::System(log.id)).await.map(drop).map_err(|error| Temporary(chain(&error)))
    }
}

/// The accounts' storage, as the directory sees it.
struct Accounts;

#[async_trait]
impl AccountStores for Accounts {
    async fn create(&self, _account: AccountId, _address: &Address, _quota: Quota) -> Result<(), Temporary> {
        Ok(())
    }

    async fn set_quota(&self, _account: AccountId, _quota: Quota) -> Result<(), Temporary> {
        Ok(())
    }

    async fn delete(&self, _account: AccountId) -> Result<(), Temporary> {
        Ok(())
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
