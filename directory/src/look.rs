//! Looking things up: which log a domain has, and what stands under a name in it.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use engine::{
    Archive, Build, CommitError, CreateError, Engine, LogHandle, LogId, LogOptions, Logs, OpenError, Rows,
    Sealer, State, with_causes,
};
use mail::address::{Address, Domain};
use mail::region::Region;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admin::{AccountStores, AdminError};
use crate::config::Config;
use crate::entry::{Amendment, DomainEntry, DomainSettings, Entry};
use crate::hasher::Hasher;
use crate::homes::Homes;
use crate::logged_in::LoggedIn;
use crate::login::{LoginFailure, Verified};
use crate::table::{Operation, Table, TableState};
use crate::throttle::{Report, Throttle};

/// What a domain's log folds into.
pub type DomainState = TableState<Names>;
/// What the registry's log folds into.
pub type RegistryState = TableState<Domains>;

/// The id of the registry's log: an engine has one installation.
const REGISTRY: Uuid = Uuid::from_u128(0x7265_6769_7374_7279_8000_0000_0000_0001);

/// What the registry keeps beside the domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrySettings {
    /// From this the SCRAM parameters of names that do not exist are made, so that they stay the same, and the key of
    /// access tokens.
    decoy_secret: [u8; 32],
}

/// Names of a domain: the folded local part → what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {}

/// Domains of the installation: the normalised name → its log.
#[derive(Clone, Debug, PartialEq)]
pub enum Domains {}

impl Table for Names {
    type Settings = DomainSettings;
    type Record = Entry;
    type Amendment = Amendment;

    fn amend(record: &mut Entry, amendment: &Amendment) -> Result<(), &'static str> {
        match (record, amendment) {
            (Entry::List(list), Amendment::Members { add, remove }) => {
                for gone in remove {
                    let at = list.members.binary_search(gone).map_err(|_| "not a member")?;
                    list.members.remove(at);
                }
                for new in add {
                    let at = list.members.binary_search(new).err().ok_or("a member already")?;
                    list.members.insert(at, new.clone());
                }
                Ok(())
            }
            (Entry::List(list), Amendment::Owner(owner)) => {
                list.owner.clone_from(owner);
                Ok(())
            }
            _ => Err("not a list"),
        }
    }
}

impl Table for Domains {
    type Settings = RegistrySettings;
    type Record = DomainEntry;
    type Amendment = ();

    fn amend(_: &mut DomainEntry, (): &()) -> Result<(), &'static str> {
        Err("domains are not changed in parts")
    }
}

/// How sure an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What this node has folded will do.
    Known,
    /// As the log stands now.
    Fresh,
}

/// The directory could not be asked. Trying again later can help; nothing is known about whoever was asked for.
#[derive(Debug, thiserror::Error)]
#[error("directory not available: {0}")]
pub struct Temporary(pub String);

/// Gives the sealer of a log. Implemented with the key ring.
#[async_trait]
pub trait LogKeys: Send + Sync + 'static {
    /// The sealer of a log that is about to be created; makes its key unless it is there.
    async fn create(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary>;
    /// The sealer of a log that exists.
    async fn open(&self, log: LogId) -> Result<Arc<dyn Sealer>, Temporary>;
    /// The log was deleted; its key goes.
    async fn erase(&self, log: LogId) -> Result<(), Temporary>;
}

/// The directory of an installation. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Directory {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) postmaster: Option<Address>,
    registries: Logs<RegistryState>,
    registry: LogHandle<RegistryState>,
    domains: Logs<DomainState>,
    keys: Arc<dyn LogKeys>,
    pub(crate) stores: Arc<dyn AccountStores>,
    pub(crate) homes: Option<Homes>,
    rows: Arc<dyn Rows>,
    pub(crate) hasher: Hasher,
    pub(crate) throttle: Mutex<Throttle>,
    /// Tells other nodes of failed logins, where there are any.
    pub(crate) tell_others: OnceLock<Box<dyn Fn(Report) + Send + Sync>>,
    pub(crate) verified: Mutex<Verified>,
    pub(crate) logged_in: LoggedIn,
    pub(crate) decoy_secret: [u8; 32],
    /// What access tokens are signed with.
    pub(crate) token_key: aws_lc_rs::hmac::Key,
    pub(crate) on_login_failure: Box<dyn Fn(&LoginFailure<'_>) + Send + Sync>,
}

/// What a directory is made of.
pub struct Parts {
    /// Limits and defaults.
    pub config: Config,
    /// Where the logs are.
    pub engine: Engine,
    /// How they are kept.
    pub logs: LogOptions,
    /// Where their entries go before they are trimmed.
    pub archive: Option<Arc<dyn Archive>>,
    /// Their sealers.
    pub keys: Arc<dyn LogKeys>,
    /// The accounts' storage.
    pub stores: Arc<dyn AccountStores>,
    /// Which names other regions have, where there are any.
    pub homes: Option<Homes>,
    /// Hears of failed logins. Called often when somebody guesses, so it must not wait.
    pub on_login_failure: Box<dyn Fn(&LoginFailure<'_>) + Send + Sync>,
}

/// Why a directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{what}: {why}")]
    Config {
        /// Which key of it.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The registry cannot be opened or made.
    #[error("the registry of domains cannot be opened: {0}")]
    Registry(String),
    /// The system gave no random numbers.
    #[error("no random numbers")]
    Random,
}

/// A domain that is ours, opened.
pub(crate) struct OpenDomain {
    /// The name of the domain whose log this is.
    pub(crate) name: String,
    handle: LogHandle<DomainState>,
}

impl OpenDomain {
    /// The domain with what stands under these names.
    pub(crate) async fn look_up(&self, keys: Vec<String>, look: Look) -> Result<Arc<DomainState>, Temporary> {
        read(&self.handle, keys, look).await
    }

    /// One commit on the domain's log, decided with what stands under these names.
    pub(crate) async fn commit<R: Send + 'static>(
        &self,
        keys: Vec<String>,
        build: impl FnMut(&DomainState) -> Result<(Vec<Operation<Names>>, R), AdminError> + Send + 'static,
    ) -> Result<R, AdminError> {
        commit(&self.handle, keys, build).await
    }

    /// A name of this domain as the regions' table has it.
    pub(crate) fn whole(&self, local_key: &str) -> String {
        format!("{local_key}@{}", self.name)
    }

    /// The address that a local part has here.
    pub(crate) fn address(&self, local: &str) -> Option<Address> {
        Address::new(local, Domain::parse(&self.name).ok()?).ok()
    }
}

impl Directory {
    /// Opens the directory; the first time, makes its registry.
    pub async fn open(parts: Parts) -> Result<Self, StartError> {
        let Parts { config, engine, logs, archive, keys, stores, homes, on_login_failure } = parts;
        let postmaster = match config.postmaster.as_str() {
            "" => None,
            text => Some(Address::parse(text).map_err(|error| StartError::Config {
                what: "postmaster",
                why: format!("{text:?}: {error}"),
            })?),
        };
        if !config.login_domain.is_empty()
            && let Err(error) = Domain::parse(&config.login_domain)
        {
            return Err(StartError::Config { what: "login_domain", why: error.to_string() });
        }
        if !(4_096..=10_000_000).contains(&config.scram_iterations) {
            let why = "between 4096 (RFC 7677) and 10 million".to_owned();
            return Err(StartError::Config { what: "scram_iterations", why });
        }
        if !crate::credential::is_possible(&config.argon2) {
            let why = "argon2 does not allow these parameters".to_owned();
            return Err(StartError::Config { what: "argon2", why });
        }
        let registries = registry_logs(engine.clone(), logs.clone(), archive.clone());
        let registry = open_registry(&registries, &*keys).await?;
        let options = LogOptions { open_logs_max: config.domains_open_max.max(1), ..logs };
        let inner = Inner {
            hasher: Hasher::new(config.hashing_concurrent_max, config.hashing_waiting_max),
            throttle: Mutex::new(Throttle::new(
                &config.throttle_account,
                &config.throttle_network,
                config.throttle_entries_max,
                &registry.state().settings().decoy_secret,
            )),
            tell_others: OnceLock::new(),
            verified: Mutex::new(Verified::new(config.verified_seconds).map_err(|_| StartError::Random)?),
            logged_in: LoggedIn::default(),
            decoy_secret: registry.state().settings().decoy_secret,
            token_key: crate::access::key(&registry.state().settings().decoy_secret),
            rows: Arc::clone(&engine.rows),
            domains: domain_logs(engine, options, archive),
            registries,
            registry,
            config,
            postmaster,
            keys,
            stores,
            homes,
            on_login_failure,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends the logs' actors; for shutdown, after the services have stopped. What is undecided is answered as unknown.
    pub fn close(&self) {
        self.inner.domains.close();
        self.inner.registries.close();
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn postmaster(&self) -> Option<&Address> {
        self.inner.postmaster.as_ref()
    }

    /// Opens a domain by its normalised name, or by that of an alias of it.
    pub(crate) async fn domain(&self, name: &str, look: Look) -> Result<Option<OpenDomain>, Temporary> {
        match self.domain_entry(name, look).await? {
            None => Ok(None),
            Some(DomainEntry::Own { log, .. }) => self.open_domain(name, log).await.map(Some),
            Some(DomainEntry::AliasOf { domain, .. }) => match self.domain_entry(&domain, look).await? {
                Some(DomainEntry::Own { log, .. }) => self.open_domain(&domain, log).await.map(Some),
                _ => Ok(None),
            },
        }
    }

    pub(crate) fn rows(&self) -> &dyn Rows {
        &*self.inner.rows
    }

    /// What seals the registry, for what is not of one domain.
    pub(crate) async fn registry_sealer(&self) -> Result<Arc<dyn Sealer>, Temporary> {
        self.inner.keys.open(LogId::registry(REGISTRY)).await
    }

    /// The other region that has a name of this domain. Nobody is asked where there is one region only.
    pub(crate) async fn elsewhere(
        &self,
        domain: &OpenDomain,
        local_key: &str,
    ) -> Result<Option<Region>, Temporary> {
        match &self.inner.homes {
            Some(homes) => homes.elsewhere(&domain.whole(local_key)).await,
            None => Ok(None),
        }
    }

    /// Before a name is made: claims it for this region. What comes of the making, the claim stays: it does no harm to
    /// who tries again here, and tells the others whom to ask.
    pub(crate) async fn claim(&self, domain: &OpenDomain, local_key: &str) -> Result<(), AdminError> {
        match &self.inner.homes {
            Some(homes) => homes.claim(&domain.whole(local_key)).await,
            None => Ok(()),
        }
    }

    /// After a name was made: claims it once more, since a removal of the same name that was under way can have given the
    /// first claim back. [`AdminError::Elsewhere`]: another region was faster, and what was made has to go.
    pub(crate) async fn claim_again(&self, domain: &OpenDomain, local_key: &str) -> Result<(), AdminError> {
        self.claim(domain, local_key).await.map_err(|error| match error {
            AdminError::Temporary(error) => AdminError::Undecided(error.to_string()),
            other => other,
        })
    }

    /// After a name was removed, or was found not to be there: gives it back. Never before, for a name that is here and
    /// not claimed is another region's to take. A removal that was cut short leaves a claim, which keeps the name from
    /// nobody here, and which the same removal gives back when it is asked for again.
    ///
    /// If the name was made anew meanwhile, the claim was given away under it; then it is claimed again. Whoever made it
    /// looks once more as well ([`Self::claim_again`]), so whichever of the two comes last mends it.
    pub(crate) async fn release(&self, domain: &OpenDomain, local_key: &str) -> Result<(), AdminError> {
        let Some(homes) = &self.inner.homes else { return Ok(()) };
        let name = domain.whole(local_key);
        let is_here = async || {
            let state = domain.look_up(vec![local_key.to_owned()], Look::Fresh).await?;
            Ok::<bool, Temporary>(state.get(local_key).is_some())
        };
        let released = async {
            if !is_here().await? {
                homes.release(&name).await?;
                if is_here().await? {
                    homes.claim(&name).await?;
                }
            }
            Ok::<(), AdminError>(())
        };
        released.await.map_err(|error| match error {
            AdminError::Temporary(error) => {
                Temporary(format!("the name was not given back to the other regions, repeat this: {error}"))
                    .into()
            }
            other => {
                tracing::error!(name, error = %other, "a name that was made anew is in two regions");
                other
            }
        })
    }

    /// Opens a domain to change it, by its own name.
    pub(crate) async fn own_domain(&self, name: &str) -> Result<OpenDomain, AdminError> {
        match self.domain_entry(name, Look::Fresh).await? {
            Some(DomainEntry::Own { log, .. }) => Ok(self.open_domain(name, log).await?),
            Some(DomainEntry::AliasOf { domain, .. }) => {
                Err(AdminError::DomainAlias { domain: name.to_owned(), of: domain })
            }
            None => Err(AdminError::NoSuchDomain(name.to_owned())),
        }
    }

    async fn open_domain(&self, name: &str, log: Uuid) -> Result<OpenDomain, Temporary> {
        let log = LogId::domain(log);
        let handle = match self.inner.domains.opened(log) {
            Some(handle) => handle,
            None => {
                let sealer = self.inner.keys.open(log).await?;
                self.inner.domains.open(log, sealer).await.map_err(|error| temporary(&error))?
            }
        };
        Ok(OpenDomain { name: name.to_owned(), handle })
    }

    pub(crate) async fn domain_entry(
        &self,
        name: &str,
        look: Look,
    ) -> Result<Option<DomainEntry>, Temporary> {
        let state = read(&self.inner.registry, vec![name.to_owned()], look).await?;
        Ok(state.get(name).map(|entry| DomainEntry::clone(entry)))
    }

    pub(crate) async fn domain_entries(&self) -> Result<Vec<(String, DomainEntry)>, Temporary> {
        let mut entries = Vec::new();
        let mut from = Some(String::new());
        let mut look = Look::Fresh;
        while let Some(part) = from {
            let state = read(&self.inner.registry, vec![part.clone()], look).await?;
            let (records, next) = state.page(&part);
            let records = records.into_iter().flatten();
            entries.extend(records.map(|(name, entry)| (name.clone(), DomainEntry::clone(entry))));
            from = next.map(str::to_owned);
            look = Look::Known;
        }
        Ok(entries)
    }

    pub(crate) fn registry_state(&self) -> Arc<RegistryState> {
        self.inner.registry.state()
    }

    pub(crate) async fn register(&self, name: String, entry: DomainEntry) -> Result<(), AdminError> {
        commit(&self.inner.registry, vec![name.clone()], move |state| match state.get(&name) {
            Some(_) => Err(AdminError::Exists { what: format!("domain {name}") }),
            None => Ok((vec![state.put(&name, entry.clone())], ())),
        })
        .await
    }

    pub(crate) async fn unregister(&self, name: String) -> Result<(), AdminError> {
        commit(&self.inner.registry, vec![name.clone()], move |state| match state.remove(&name) {
            None => Err(AdminError::NoSuchDomain(name.clone())),
            Some(operation) => Ok((vec![operation], ())),
        })
        .await
    }

    pub(crate) async fn create_log(&self, log: LogId, settings: DomainSettings) -> Result<(), AdminError> {
        let sealer = self.inner.keys.create(log).await?;
        let initial = DomainState::new(log, settings);
        self.inner
            .domains
            .create(log, initial, sealer)
            .await
            .map(drop)
            .map_err(|error| temporary(&error).into())
    }

    /// Deletes a log that nobody refers to any more. What stays behind is unreadable once its key is gone.
    pub(crate) async fn discard_log(&self, log: LogId) {
        if let Err(error) = self.inner.domains.delete(log).await {
            tracing::warn!(%log, error = %temporary(&error), "log of a domain that is gone stays behind");
        }
        if let Err(error) = self.inner.keys.erase(log).await {
            tracing::warn!(%log, %error, "key of a domain that is gone stays behind");
        }
    }
}

// Functions of their own and not async: so the logs' machinery is compiled with this crate.
fn registry_logs(
    engine: Engine,
    options: LogOptions,
    archive: Option<Arc<dyn Archive>>,
) -> Logs<RegistryState> {
    Logs::new(engine, options, archive)
}

fn domain_logs(engine: Engine, options: LogOptions, archive: Option<Arc<dyn Archive>>) -> Logs<DomainState> {
    Logs::new(engine, options, archive)
}

async fn open_registry(
    registries: &Logs<RegistryState>,
    keys: &dyn LogKeys,
) -> Result<LogHandle<RegistryState>, StartError> {
    let failed = |error: &dyn Error| StartError::Registry(temporary(error).0);
    let log = LogId::registry(REGISTRY);
    let sealer = keys.create(log).await.map_err(|error| failed(&error))?;
    match registries.open(log, Arc::clone(&sealer)).await {
        Ok(handle) => return Ok(handle),
        Err(OpenError::Missing) => {}
        Err(error) => return Err(failed(&error)),
    }
    let mut decoy_secret = [0; 32];
    aws_lc_rs::rand::fill(&mut decoy_secret).map_err(|_| StartError::Random)?;
    let initial = RegistryState::new(log, RegistrySettings { decoy_secret });
    match registries.create(log, initial, Arc::clone(&sealer)).await {
        Ok(handle) => Ok(handle),
        // Another node was faster, or it was made after all.
        Err(CreateError::Exists | CreateError::Unknown) => {
            registries.open(log, sealer).await.map_err(|error| failed(&error))
        }
        Err(error) => Err(failed(&error)),
    }
}

async fn read<S: State<Part = String>>(
    handle: &LogHandle<S>,
    keys: Vec<String>,
    look: Look,
) -> Result<Arc<S>, Temporary> {
    let read = match look {
        Look::Known => handle.with(&keys).await,
        Look::Fresh => handle.refresh(&keys).await,
    };
    read.map_err(|error| temporary(&error))
}

async fn commit<T: Table, R: Send + 'static>(
    handle: &LogHandle<TableState<T>>,
    keys: Vec<String>,
    mut build: impl FnMut(&TableState<T>) -> Result<(Vec<Operation<T>>, R), AdminError> + Send + 'static,
) -> Result<R, AdminError> {
    let build =
        move |state: &TableState<T>| build(state).map(|(operations, answer)| Build::new(operations, answer));
    match handle.commit(keys, build).await {
        Ok(committed) => Ok(committed.answer),
        Err(CommitError::Rejected(error)) => Err(error),
        Err(CommitError::Unknown) => Err(AdminError::Undecided("the storage engine did not say".to_owned())),
        Err(CommitError::TooLarge { bytes, limit }) => Err(AdminError::Invalid {
            what: "request",
            why: format!("makes {bytes} octets of log, more than {limit}"),
        }),
        Err(error) => Err(temporary(&error).into()),
    }
}

/// An error with all its causes.
pub(crate) fn temporary(error: &dyn Error) -> Temporary {
    Temporary(with_causes(error))
}

/// Unix seconds. The directory stores them for people to read; nothing is decided by them.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
