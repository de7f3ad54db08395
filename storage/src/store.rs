//! All accounts.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use blob::{BlobStore, KeyId};
use engine::{Archive, Engine, LogId, LogOptions, LogStats, Logs, PageId};
use mail::id::AccountId;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::config::Config;
use crate::draft::{Draft, Refusal};
use crate::email_page::EmailPage;
use crate::entry::Operation;
use crate::error::StorageError;
use crate::rights::Principal;
use crate::state::AccountState;

/// The accounts of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    logs: Logs<AccountState>,
    archive: Option<Arc<dyn Archive>>,
    blobs: BlobStore,
    config: Config,
    email_pages: EmailPageCache,
}

/// How an account begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountSettings {
    /// Octets it may hold; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// Messages it may hold; `None`: no limit.
    pub quota_messages: Option<u64>,
}

/// Why an account was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one with this id.
    #[error("the account exists")]
    Exists,
    /// Trouble below.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why an account was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such account.
    #[error("no such account")]
    Missing,
    /// Trouble below, or not permitted.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Pages of email records that were read lately. They never change, so they are never out of date.
pub(crate) type EmailPageCache = Cache<(LogId, PageId), Arc<EmailPage>, ByWeight>;

#[derive(Clone)]
pub(crate) struct ByWeight;

impl Weighter<(LogId, PageId), Arc<EmailPage>> for ByWeight {
    fn weight(&self, _: &(LogId, PageId), page: &Arc<EmailPage>) -> u64 {
        page.weight() as u64 + 128
    }
}

impl Storage {
    /// Accounts whose logs and rows lie in `engine` and whose bodies in `blobs`. With an archive, what is trimmed from
    /// a log is kept there.
    pub fn new(
        engine: Engine,
        options: LogOptions,
        archive: Option<Arc<dyn Archive>>,
        blobs: BlobStore,
        config: Config,
    ) -> Self {
        // Whoever comes to an account looks at its head before anything is said of it.
        let options = LogOptions { poll_unheld: false, ..options };
        let logs = Logs::new(engine.clone(), options, archive.clone());
        // Pages have about 100 KiB; the estimate only sizes the table.
        let items = (config.email_cache_bytes / 100_000).clamp(16, 1 << 20) as usize;
        let email_pages = Cache::with_weighter(items, config.email_cache_bytes, ByWeight);
        Self { inner: Arc::new(Inner { engine, logs, archive, blobs, config, email_pages }) }
    }

    /// Creates an account with its key, INBOX and the mailboxes of the usual roles.
    pub async fn create_account(
        &self,
        account: AccountId,
        settings: AccountSettings,
    ) -> Result<(), CreateError> {
        let key = KeyId::Account(account.0);
        self.keys().ensure(key).await.map_err(StorageError::from)?;
        let sealer = self.keys().sealer(key).await.map_err(StorageError::from)?;
        let log = LogId::account(account.0);
        let state = AccountState::new(&settings, self.config().layout, unix_now());
        let log = match self.inner.logs.create(log, state, sealer).await {
            Ok(log) => log,
            Err(engine::CreateError::Exists) => return Err(CreateError::Exists),
            Err(engine::CreateError::Unknown) => return Err(StorageError::Undecided.into()),
            Err(engine::CreateError::Failed(error)) => return Err(StorageError::from(&error).into()),
        };
        self.begin(&Account::new(account, Principal::Operator, self.clone(), log)).await?;
        Ok(())
    }

    /// Opens an account. Cheap when it is open already.
    pub async fn account(&self, principal: &Principal, account: AccountId) -> Result<Account, OpenError> {
        if !principal.may_open(account) {
            return Err(StorageError::Denied.into());
        }
        let log = LogId::account(account.0);
        let handle = match self.inner.logs.opened(log) {
            Some(handle) => handle,
            None => {
                let sealer = self.keys().sealer(KeyId::Account(account.0)).await;
                let sealer = sealer.map_err(|error| match error {
                    blob::KeyError::Missing(_) | blob::KeyError::Erased(_) => OpenError::Missing,
                    error => StorageError::from(error).into(),
                })?;
                self.inner.logs.open(log, sealer).await.map_err(|error| match &error {
                    engine::OpenError::Missing => OpenError::Missing,
                    error => StorageError::from(error).into(),
                })?
            }
        };
        let account = Account::new(account, *principal, self.clone(), handle);
        if account.log.seq() == 0 {
            self.begin(&account).await?;
        }
        Ok(account)
    }

    /// Deletes an account: its log is closed and its key erased, so that nothing of it can be read any more, anywhere;
    /// then its rows go.
    pub async fn delete_account(&self, account: AccountId) -> Result<(), OpenError> {
        let open = self.account(&Principal::Operator, account).await?;
        open.close().await?;
        drop(open);
        self.keys().erase(KeyId::Account(account.0)).await.map_err(StorageError::from)?;
        self.inner.logs.delete(LogId::account(account.0)).await.map_err(StorageError::from)?;
        Ok(())
    }

    /// The first operation of every account: MODSEQs begin at one. Done again where a crash came before it.
    async fn begin(&self, account: &Account) -> Result<(), StorageError> {
        let build = |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            let mut draft = Draft::new::<StorageError>(state)?;
            if state.seq == 0 {
                let quota = state.quota();
                let (bytes_max, messages_max) = (quota.bytes_max, quota.messages_max);
                draft.push(Operation::QuotaLimit { bytes_max, messages_max });
            }
            Ok(draft.build(()))
        };
        account.commit(Vec::new(), build).await?;
        Ok(())
    }

    /// What the logs did so far.
    pub fn log_stats(&self) -> LogStats {
        self.inner.logs.stats()
    }

    /// How many accounts are in memory.
    pub fn open_accounts(&self) -> usize {
        self.inner.logs.open_count()
    }

    /// Closes accounts that nobody holds and nothing is under way for.
    pub fn close_idle(&self) -> usize {
        self.inner.logs.close_idle()
    }

    /// Ends everything; for shutdown, after the services have stopped.
    pub fn close(&self) {
        self.inner.logs.close();
    }

    /// The bodies.
    pub fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }

    /// The limits.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn archive(&self) -> Option<&Arc<dyn Archive>> {
        self.inner.archive.as_ref()
    }

    pub(crate) fn keys(&self) -> &blob::KeyRing {
        self.inner.blobs.keys()
    }

    pub(crate) fn email_pages(&self) -> &EmailPageCache {
        &self.inner.email_pages
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({} open)", self.open_accounts())
    }
}

impl Account {
    /// Changes the limits.
    pub async fn set_quota(&self, settings: AccountSettings) -> Result<(), StorageError> {
        let build = move |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            let mut draft = Draft::new::<StorageError>(state)?;
            let (bytes_max, messages_max) = (settings.quota_bytes, settings.quota_messages);
            let quota = state.quota();
            if (quota.bytes_max, quota.messages_max) != (bytes_max, messages_max) {
                draft.push(Operation::QuotaLimit { bytes_max, messages_max });
            }
            Ok(draft.build(()))
        };
        self.commit(Vec::new(), build).await?;
        Ok(())
    }

    /// Closes the account: nothing can be changed in it any more.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        let build = |state: &AccountState| -> Result<_, Refusal<StorageError>> {
            if state.is_closed() {
                return Ok(engine::Build::nothing(()));
            }
            let mut draft = Draft::new::<StorageError>(state)?;
            draft.push(Operation::Closed);
            Ok(draft.build(()))
        };
        self.commit(Vec::new(), build).await?;
        Ok(())
    }
}

/// Seconds since 1970, at least one.
pub(crate) fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX).max(1)
}
