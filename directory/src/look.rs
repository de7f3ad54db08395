//! Looking things up: which log a domain has, and what stands under a name in it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use engine::{LogId, Sealer};
use mail::address::{Address, Domain};
use parking_lot::Mutex;

use crate::admin::AdminError;
use crate::config::Config;
use crate::entry::{Amendment, DomainEntry, DomainSettings, Entry};
use crate::hasher::Hasher;
use crate::login::{LoginFailure, Verified};
use crate::table::{Operation, Table, TableState};
use crate::throttle::Throttle;

/// What a domain's log folds into.
pub type DomainState = TableState<Names>;
/// What the registry's log folds into.
pub type RegistryState = TableState<Domains>;

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
    type Settings = ();
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
    pub(crate) keys: Arc<dyn LogKeys>,
    pub(crate) stores: Arc<dyn crate::admin::AccountStores>,
    pub(crate) hasher: Hasher,
    pub(crate) throttle: Mutex<Throttle>,
    pub(crate) verified: Mutex<Verified>,
    pub(crate) decoy_secret: [u8; 32],
    pub(crate) on_login_failure: Box<dyn Fn(&LoginFailure<'_>) + Send + Sync>,
}

/// A domain that is ours, opened.
pub(crate) struct OpenDomain {
    /// The name of the domain whose log this is.
    pub(crate) name: String,
}

impl OpenDomain {
    /// The domain with what stands under these names.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn look_up(
        &self,
        _keys: Vec<String>,
        _look: Look,
    ) -> Result<Arc<DomainState>, Temporary> {
        unimplemented!()
    }

    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn commit<R>(
        &self,
        _keys: Vec<String>,
        _build: impl FnMut(&DomainState) -> Result<(Vec<Operation<Names>>, R), AdminError> + Send + 'static,
    ) -> Result<R, AdminError> {
        unimplemented!()
    }

    /// What separates names from details.
    pub(crate) fn delimiters<'a>(&self, config: &'a Config) -> &'a str {
        &config.subaddress_delimiters
    }

    /// The address that a local part has here.
    pub(crate) fn address(&self, local: &str) -> Option<Address> {
        Address::new(local, Domain::parse(&self.name).ok()?).ok()
    }
}

impl Directory {
    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn postmaster(&self) -> Option<&Address> {
        self.inner.postmaster.as_ref()
    }

    /// Opens a domain by its normalised name, or by that of an alias of it.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn domain(&self, _name: &str, _look: Look) -> Result<Option<OpenDomain>, Temporary> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn own_domain(&self, _name: &str) -> Result<OpenDomain, AdminError> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn domain_entry(
        &self,
        _name: &str,
        _look: Look,
    ) -> Result<Option<DomainEntry>, Temporary> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn domain_entries(&self) -> Result<Vec<(String, DomainEntry)>, Temporary> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn register(&self, _name: String, _entry: DomainEntry) -> Result<(), AdminError> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn unregister(&self, _name: String) -> Result<(), AdminError> {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn discard_log(&self, _log: LogId) {
        unimplemented!()
    }
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub(crate) async fn create_log(&self, _log: LogId, _settings: DomainSettings) -> Result<(), AdminError> {
        unimplemented!()
    }
}

/// Unix seconds. The directory stores them for people to read; nothing is decided by them.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
