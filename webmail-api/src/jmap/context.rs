//! What one request of methods knows while its calls are made, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use jmap_protocol::{Arguments, Id, IdOrReference, MethodError, Object, SetError, SetErrorKind};
use storage::{Account, BodyError, StorageError};

use super::auth::User;
use super::config::Config;
use super::send::Sending;
use super::service::{Inner, Jmap};
use super::view::View;

pub(crate) struct Context {
    inner: Arc<Inner>,
    user: User,
    /// The capabilities that the request uses.
    using: Vec<String>,
    /// What earlier calls, and earlier requests, have made (RFC 8620 §3.3).
    pub(crate) created_ids: BTreeMap<Id, Id>,
    /// Octets that answers may still take.
    pub(crate) room: usize,
    /// Answers that a call gives besides its own (RFC 8620 §5.4, RFC 8621 §7.5).
    pub(crate) more: Vec<(&'static str, Object)>,
}

impl Context {
    pub(crate) fn new(jmap: &Jmap, user: User, using: Vec<String>, created_ids: BTreeMap<Id, Id>) -> Self {
        let room = jmap.inner.config.response_bytes_max;
        Self { inner: jmap.inner.clone(), user, using, created_ids, room, more: Vec::new() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// Whether the request uses a capability (RFC 8620 §3.3).
    pub(crate) fn uses(&self, capability: &str) -> bool {
        self.using.iter().any(|used| used == capability)
    }

    pub(crate) fn account(&self) -> &Account {
        &self.user.account
    }

    pub(crate) fn account_id(&self) -> Id {
        self.user.account_id()
    }

    /// What sends mail. Without it there are no methods that need it.
    pub(crate) fn sending(&self) -> Result<&Sending, MethodError> {
        self.inner.sending.as_ref().ok_or(MethodError::UnknownMethod)
    }

    /// Takes `accountId`, which has to be that of this user's only account.
    pub(crate) fn take_account(&self, arguments: &mut Arguments) -> Result<Id, MethodError> {
        let given = arguments.id("accountId")?;
        // Of another's account it is not said whether there is one.
        if given == self.user.account_id() { Ok(given) } else { Err(MethodError::AccountNotFound) }
    }

    /// The account as it is now, after a look whether another node has changed it.
    pub(crate) async fn view(&self) -> Result<Arc<View>, MethodError> {
        View::load(self.account()).await.map_err(|error| trouble(&error))
    }

    /// The account, after a look whether another node has changed it.
    pub(crate) async fn fresh_account(&self) -> Result<&Account, MethodError> {
        self.account().refresh().await.map_err(|error| trouble(&error))?;
        Ok(self.account())
    }

    /// What an id stands for that may be that of something just made.
    pub(crate) fn resolve(&self, id: &IdOrReference) -> Option<Id> {
        match id {
            IdOrReference::Id(id) => Some(id.clone()),
            IdOrReference::Created(key) => self.created_ids.get(key).cloned(),
        }
    }

    /// Uses up some of what answers may take.
    pub(crate) fn spend(&mut self, octets: usize) -> Result<(), MethodError> {
        self.room = self.room.checked_sub(octets).ok_or_else(|| {
            MethodError::RequestTooLarge("the answer is too large; ask for less at a time".to_owned())
        })?;
        Ok(())
    }
}

/// Trouble below, as the client hears of it; what exactly it was is for the log.
pub(crate) fn trouble(error: &StorageError) -> MethodError {
    match error {
        StorageError::Closed | StorageError::Denied => MethodError::AccountNotFound,
        // DESIGN §2.2: whether it was done is not known, and neither yes nor no may be said.
        StorageError::Undecided => {
            MethodError::ServerFail("it is not known whether this was done".to_owned())
        }
        StorageError::Unavailable(_) | StorageError::Full => {
            tracing::warn!(%error, "storage unavailable");
            MethodError::ServerUnavailable
        }
        StorageError::Damaged(_) => {
            tracing::error!(%error, "stored data is damaged");
            MethodError::ServerFail("stored data cannot be read".to_owned())
        }
    }
}

/// The same, of one record.
pub(crate) fn record_trouble(error: &StorageError) -> SetError {
    SetError::new(SetErrorKind::ServerFail, trouble(error).to_string())
}

/// The same, of the bytes of a message.
pub(crate) fn body_trouble(error: &BodyError) -> MethodError {
    match error {
        BodyError::Storage(error) => trouble(error),
        BodyError::Read(_) => {
            tracing::warn!(%error, "message cannot be read");
            MethodError::ServerFail("the message cannot be read now".to_owned())
        }
    }
}
